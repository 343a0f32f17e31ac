/**
 * The notify function on S3, DynamoDB and SNS (an emulator) and a real webhook. Its events are rows that the program itself wrote, read out of the
 * table as its stream would bring them.
 */
import { CloudWatchClient, GetMetricStatisticsCommand } from '@aws-sdk/client-cloudwatch';
import { DynamoDBClient, QueryCommand, ScanCommand, type AttributeValue } from '@aws-sdk/client-dynamodb';
import { unmarshall } from '@aws-sdk/util-dynamodb';
import type { AttributeValue as StreamValue, DynamoDBBatchResponse, DynamoDBRecord } from 'aws-lambda';
import { CLUSTERS, keys, type WalRow } from '../../core/cluster/facts.ts';
import { createVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { armSpill } from '../../core/work/arm.ts';
import { asRow, openCluster, type Cluster } from '../../core/work/cluster.ts';
import { reportNode } from '../../core/work/heartbeat.ts';
import { takeOver } from '../../core/work/takeover.ts';
import { markOf } from '../../core/work/tell-once.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { handler } from '../../lambdas/notify.ts';
import { makeBucket } from '../harness/buckets.ts';
import { CREDENTIALS, ownName, startMinistack, type Emulator } from '../harness/emulators.ts';
import { newCluster, newStandby, segment, type FakeNode } from '../harness/fake-node.ts';
import {
  openTopic,
  openWebhook,
  type Arrived,
  type TopicAndQueue,
  type Webhook,
} from '../harness/notice-site.ts';
import { finishPromotion, promote } from '../harness/promotions.ts';
import { memoryVault } from '../harness/two-vaults.ts';

const [HERE, THERE] = ['us-east-1', 'eu-west-1'];
const MIN = 60_000;
const call = { getRemainingTimeInMillis: () => 60_000 };

let emulator: Emulator;
let table: string;
let dynamo: DynamoDBClient;
let vault: Vault;
let near: TopicAndQueue, far: TopicAndQueue;
let webhook: Webhook;
let db1: FakeNode;
let cluster: Cluster;
let number = 0;
let logged = '';

beforeAll(async () => {
  emulator = await startMinistack();
  Object.assign(process.env, CREDENTIALS, { AWS_ENDPOINT_URL: emulator.endpoint });
  table = ownName();
  const bucket = await makeBucket(emulator.endpoint);
  vault = await createVault(`s3://${bucket}/some/prefix?table=${table}&region=${HERE}`, {
    createTable: true,
  });
  dynamo = new DynamoDBClient({ endpoint: emulator.endpoint, region: HERE });
  near = await openTopic(emulator.endpoint, HERE, ownName());
  far = await openTopic(emulator.endpoint, THERE, ownName());
  webhook = await openWebhook();
});
afterAll(async () => {
  for (const each of [near, far]) each?.close();
  await webhook?.close();
  await vault?.close();
  dynamo?.destroy();
  await emulator?.stop();
});
beforeEach(async () => {
  webhook.status = 200;
  Object.assign(process.env, {
    ...{ WALVAULT_VAULT: vault.url, WALVAULT_NOTICE_TOPICS: `${near.arn},${far.arn}` },
    ...{ WALVAULT_WEBHOOK: webhook.url, WALVAULT_LAG_LIMIT: '10m', WALVAULT_SILENCE_LIMIT: '5m' },
  });
  logged = '';
  jest.spyOn(process.stdout, 'write').mockImplementation((chunk) => {
    logged += String(chunk);
    return true;
  });
  db1 = await newCluster(vault, `told${++number}`);
  cluster = db1.cluster;
});
afterEach(() => {
  jest.useRealTimers();
  jest.restoreAllMocks();
});

/** Every event of the cluster, as the table's stream would bring it. */
async function records(of: Cluster = cluster): Promise<DynamoDBRecord[]> {
  const { Items = [] } = await dynamo.send(
    new QueryCommand({
      TableName: table,
      KeyConditionExpression: 'pk = :pk AND begins_with(sk, :event)',
      ExpressionAttributeValues: { ':pk': { S: of.partition }, ':event': { S: 'event#' } },
    }),
  );
  return Items.map((item, index) => recordOf(item, String(100 + index)));
}

const recordOf = (item: Record<string, AttributeValue>, sequence: string): DynamoDBRecord => ({
  eventName: 'INSERT',
  eventSource: 'aws:dynamodb',
  dynamodb: {
    SequenceNumber: sequence,
    StreamViewType: 'NEW_IMAGE',
    Keys: { pk: item['pk'], sk: item['sk'] } as Record<string, StreamValue>,
    NewImage: item as Record<string, StreamValue>,
  },
});

const notify = (Records: DynamoDBRecord[]) => handler({ Records }, call) as Promise<DynamoDBBatchResponse>;
const look = (name?: string) =>
  handler({ look: true, ...(name === undefined ? {} : { cluster: name }) }, call);
const subjects = (arrived: Arrived[]) => arrived.map(({ Subject }) => Subject).sort();
const failures = ({ batchItemFailures }: DynamoDBBatchResponse) =>
  batchItemFailures.map(({ itemIdentifier }) => itemIdentifier);

/** Takes what came to each of the three; all three must be the same. */
async function arrivedEverywhere(count: number): Promise<string[]> {
  const [here, there] = [await near.take(count), await far.take(count)];
  const posts = webhook.take();
  expect(subjects(there)).toEqual(subjects(here));
  expect(posts.map(({ body }) => body['subject']).sort()).toEqual(subjects(here));
  return subjects(here);
}

/** Three that are told (init, trigger, open) and one that is not (seal). */
async function failover(): Promise<DynamoDBRecord[]> {
  for (const each of [1, 2]) await db1.archive(segment(1, each));
  await promote(cluster, await newStandby(cluster, 'db2'), 3);
  const found = await records();
  expect(found.map(({ dynamodb }) => dynamodb!.NewImage!['kind']!.S)).toEqual([
    'init',
    'trigger',
    'seal',
    'open',
  ]);
  return found;
}

const FAILOVER = (name: string) => [
  `walvault alert: ${name}: a trigger was set (db2, epoch 2)`,
  `walvault info: ${name}: a cluster was made (db1, epoch 1)`,
  `walvault warning: ${name}: a new primary is open (db2, epoch 2)`,
];

/** Every row but those of the notify function. */
async function otherRows(): Promise<unknown[]> {
  const { Items = [] } = await dynamo.send(new ScanCommand({ TableName: table }));
  return Items.map((item) => unmarshall(item)).filter(({ pk }) => !String(pk).startsWith('#notices#'));
}

describe('events', () => {
  test('each fact comes once to the topics of both regions and to the webhook', async () => {
    const batch = await failover();
    const before = await otherRows();
    expect(await notify(batch)).toEqual({ batchItemFailures: [] });
    const [here, there] = [await near.take(3), await far.take(3)];
    const posts = webhook.take();
    expect(subjects(here)).toEqual(FAILOVER(cluster.name));
    expect(subjects(there)).toEqual(subjects(here));
    const opened = here.find(({ Subject }) => Subject.includes('is open'))!;
    expect(opened.MessageAttributes).toEqual({
      kind: { Type: 'String', Value: 'open' },
      urgency: { Type: 'String', Value: 'warning' },
      cluster: { Type: 'String', Value: cluster.name },
    });
    expect(opened.Message).toContain('db2 opened timeline 2, forked from 1');
    expect(opened.Message).toContain(vault.url);
    const event = batch[3]!.dynamodb!.NewImage!;
    expect(posts).toHaveLength(3);
    expect(posts.find(({ body }) => body['kind'] === 'open')).toEqual({
      ...{ path: '/hooks/s3cret', authorization: undefined },
      body: {
        ...{
          cluster: cluster.name,
          vault: vault.url,
          kind: 'open',
          urgency: 'warning',
          node: 'db2',
          epoch: 2,
        },
        ...{ subject: opened.Subject, text: opened.Message, at: event['at']!.S, id: event['sk']!.S },
      },
    });
    // least privilege: nothing of the protocol is touched
    expect(await otherRows()).toEqual(before);
  });

  test('the same batch again, and again at the same time as the next, tells nothing twice', async () => {
    const batch = await failover();
    expect(await notify(batch.slice(0, 2))).toEqual({ batchItemFailures: [] });
    const ends = await Promise.all([notify(batch), notify(batch), notify(batch.slice(1))]);
    expect(ends).toEqual([1, 2, 3].map(() => ({ batchItemFailures: [] })));
    await notify(batch);
    expect(await arrivedEverywhere(3)).toEqual(FAILOVER(cluster.name));
  });

  test('marks say who was told, and go by themselves after thirty days', async () => {
    const [init] = await records();
    await notify([init!]);
    const id = init!.dynamodb!.Keys!['sk']!.S!;
    const mark = await vault.manifest.get(markOf({ cluster: cluster.name, id }));
    expect(mark).toMatchObject({ told: [near.arn, far.arn, 'webhook'], telling: null });
    const days = (Number(mark!['expiresAt']) - Date.now() / 1000) / 86_400;
    expect(days).toBeGreaterThan(29.9);
    expect(days).toBeLessThanOrEqual(30);
    await arrivedEverywhere(1);
    // what the function itself writes is brought to it by no filter for events, and would be nothing to it
    expect(mark!.sk).toBe(`told#${id}`);
    const { Keys, NewImage } = init!.dynamodb!;
    const pk = { S: mark!.pk };
    const own = { SequenceNumber: '1', Keys: { ...Keys, pk }, NewImage: { ...NewImage, pk } };
    expect(await notify([{ eventName: 'INSERT', dynamodb: own }])).toEqual({ batchItemFailures: [] });
    expect(await arrivedEverywhere(0)).toEqual([]);
  });

  test('a topic that is away keeps no other from being told, and is told alone when it is there', async () => {
    const name = ownName();
    process.env['WALVAULT_NOTICE_TOPICS'] =
      `arn:aws:sns:eu-central-1:000000000000:${name},${near.arn},${far.arn}`;
    const batch = await failover();
    expect(failures(await notify(batch))).toEqual(['100']);
    expect(await arrivedEverywhere(3)).toEqual(FAILOVER(cluster.name));
    expect(logged).toMatch(new RegExp(`${name} was not told: topic '.*' is not there`));
    const third = await openTopic(emulator.endpoint, 'eu-central-1', name);
    expect(await notify(batch)).toEqual({ batchItemFailures: [] });
    expect(subjects(await third.take(3))).toEqual(FAILOVER(cluster.name));
    expect(await arrivedEverywhere(0)).toEqual([]);
    third.close();
  });

  test('a webhook that answers 500 is told when it answers 200; meanwhile it is not waited for', async () => {
    const batch = await failover();
    webhook.status = 500;
    expect(failures(await notify(batch))).toEqual(['100']);
    expect(subjects(await near.take(3))).toEqual(FAILOVER(cluster.name));
    expect(subjects(await far.take(3))).toEqual(FAILOVER(cluster.name));
    expect(webhook.take().map(({ body }) => body['kind'])).toEqual(['init', 'trigger']);
    expect(logged).toContain('it answered 500');
    webhook.status = 200;
    expect(await notify(batch)).toEqual({ batchItemFailures: [] });
    expect(webhook.take().map(({ body }) => body['kind'])).toEqual(['init', 'trigger', 'open']);
    expect(await near.take(0)).toEqual([]);
    expect(await far.take(0)).toEqual([]);
  });

  test('a webhook that is away for more than an hour is given up, so that what comes behind gets its turn', async () => {
    const created = (record: DynamoDBRecord, minutesAgo: number): DynamoDBRecord => ({
      ...record,
      dynamodb: { ...record.dynamodb, ApproximateCreationDateTime: Date.now() / 1000 - minutesAgo * 60 },
    });
    const [init, trigger] = await failover();
    webhook.status = 500;
    expect(failures(await notify([created(init!, 59)]))).toEqual(['100']);
    expect(failures(await notify([created(init!, 61), created(trigger!, 1)]))).toEqual(['101']);
    expect(logged.match(/"givenUp":true/g)).toHaveLength(1);
    expect(await near.take(2)).toHaveLength(2);
    expect(await far.take(2)).toHaveLength(2);
    webhook.take();
  });

  test('only what was not told is where the stream begins again', async () => {
    const batch = await failover();
    await notify(batch.slice(0, 1));
    webhook.status = 503;
    expect(failures(await notify(batch))).toEqual(['101']);
    webhook.status = 200;
    await notify(batch.slice(1));
    expect(subjects(await near.take(3))).toEqual(FAILOVER(cluster.name));
    expect(subjects(await far.take(3))).toEqual(FAILOVER(cluster.name));
    webhook.take();
  });

  test('a webhook that sends elsewhere is not followed, and no secret of its URL is logged', async () => {
    const url = new URL(webhook.url);
    [url.username, url.password] = ['operator', 'pass%20word'];
    process.env['WALVAULT_WEBHOOK'] = url.href;
    webhook.status = 302;
    const batch = await records();
    expect(failures(await notify(batch))).toEqual(['100']);
    expect(webhook.take().map(({ path }) => path)).toEqual(['/hooks/s3cret']);
    webhook.status = 204;
    expect(failures(await notify(batch))).toEqual([]);
    const basic = Buffer.from('operator:pass word').toString('base64');
    expect(webhook.take()).toMatchObject([{ authorization: `Basic ${basic}` }]);
    const port = Number(url.port);
    process.env['WALVAULT_WEBHOOK'] = url.href.replace(`:${port}/`, ':1/');
    await db1.archive(segment(1, 1));
    await promote(cluster, await newStandby(cluster, 'db2'), 2);
    expect(failures(await notify(await records()))).toEqual(['101']);
    expect(logged).toContain('the webhook at 127.0.0.1:1 was not told: TypeError');
    for (const secret of ['s3cret', 'operator', 'pass', basic]) expect(logged).not.toContain(secret);
    await near.take(3);
    await far.take(3);
  });

  test('what nobody can read, and what is no event, holds up nothing', async () => {
    const [init] = await records();
    const { Keys, NewImage } = init!.dynamodb!;
    const odd: DynamoDBRecord[] = [
      { eventName: 'INSERT' },
      { eventName: 'INSERT', dynamodb: { SequenceNumber: '1', Keys } },
      {
        eventName: 'INSERT',
        dynamodb: { SequenceNumber: '2', Keys, NewImage: { ...NewImage, kind: { N: '5' } } },
      },
      { eventName: 'INSERT', dynamodb: { SequenceNumber: '3', Keys: { pk: { S: 'x' } }, NewImage } },
    ];
    const others: DynamoDBRecord[] = [
      { ...init!, eventName: 'MODIFY' },
      { ...init!, eventName: 'REMOVE', dynamodb: { SequenceNumber: '4', Keys } },
      recordOf({ pk: { S: cluster.partition }, sk: { S: 'node#db1' }, rev: { N: '1' } }, '5'),
    ];
    expect(await notify([...odd, ...others])).toEqual({ batchItemFailures: [] });
    expect(logged.match(/passedOver|no event/g)?.length).toBeGreaterThanOrEqual(odd.length);
    expect(await notify([...odd, init!, ...others])).toEqual({ batchItemFailures: [] });
    expect(await arrivedEverywhere(1)).toEqual([
      `walvault info: ${cluster.name}: a cluster was made (db1, epoch 1)`,
    ]);
  });

  test('with no time left the records are left for the next call', async () => {
    const batch = await failover();
    const end = handler({ Records: batch }, { getRemainingTimeInMillis: () => 0 });
    const [first] = failures((await end) as DynamoDBBatchResponse);
    expect(['100', '101', '102']).toContain(first);
    expect(await notify(batch.slice(Number(first) - 100))).toEqual({ batchItemFailures: [] });
    expect(await arrivedEverywhere(3)).toEqual(FAILOVER(cluster.name));
  });
});

describe('a look', () => {
  /** Only the clock is the test's; everything else takes its time. */
  const clock = (ms: number) =>
    jest.useFakeTimers({
      now: ms,
      doNotFake: [
        ...([
          'hrtime',
          'nextTick',
          'performance',
          'queueMicrotask',
          'setImmediate',
          'clearImmediate',
        ] as const),
        ...(['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout'] as const),
      ],
    });
  const aged = async (name: string, ageMs: number) => {
    const row = (await vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow;
    const older = { ...row, rev: row.rev + 1, archivedAt: new Date(Date.now() - ageMs).toISOString() };
    await vault.manifest.transact([{ do: 'put', row: asRow(older), when: { rev: row.rev } }]);
  };
  const figure = async (name: string, dimensions: Record<string, string>) => {
    const cloudWatch = new CloudWatchClient({});
    const { Datapoints = [] } = await cloudWatch.send(
      new GetMetricStatisticsCommand({
        ...{ Namespace: 'walvault', MetricName: name, Statistics: ['Maximum'], Period: 60 },
        ...{ StartTime: new Date(Date.now() - 60 * MIN), EndTime: new Date(Date.now() + 60 * MIN) },
        Dimensions: Object.entries(dimensions).map(([Name, Value]) => ({ Name, Value })),
      }),
    );
    cloudWatch.destroy();
    return Math.max(...Datapoints.map(({ Maximum }) => Maximum!));
  };

  test('tells a replica that is behind once, and once when it has caught up', async () => {
    const replica = await openReplica(cluster, await memoryVault());
    await db1.archive(segment(1, 1));
    await relayPass(cluster, replica);
    expect(await look(cluster.name)).toEqual({ [cluster.name]: { relayLag: 0, silentNodes: 0 } });
    await db1.archive(segment(1, 2));
    await aged(segment(1, 2), 20 * MIN);
    const seen = (await look(cluster.name)) as Record<string, { relayLag: number }>;
    expect(Math.round(seen[cluster.name]!.relayLag / 60)).toBe(20);
    const lag = await figure('RelayLagSeconds', { Vault: table, Cluster: cluster.name });
    expect(Math.round(lag / 60)).toBe(20);
    expect(await figure('RelayLagSeconds', { Vault: table })).toBe(lag);
    await look(cluster.name);
    expect(await arrivedEverywhere(1)).toEqual([
      `walvault alert: ${cluster.name}: the replica is behind (epoch 1)`,
    ]);

    await relayPass(cluster, replica);
    const now = Date.now();
    for (const minute of [0, 5, 9]) {
      clock(now + minute * MIN);
      await look(cluster.name);
    }
    expect(await arrivedEverywhere(0)).toEqual([]);
    for (const minute of [11, 12]) {
      clock(now + minute * MIN);
      await look(cluster.name);
    }
    expect(await arrivedEverywhere(1)).toEqual([
      `walvault info: ${cluster.name}: the replica has caught up (epoch 1)`,
    ]);
  });

  test('tells WAL that waits, and a primary that falls silent', async () => {
    const now = Date.now();
    const waitingSince = new Date(now - 20 * MIN).toISOString();
    await reportNode(cluster, { name: 'db1', role: 'primary', waitingSince });
    const seen = (await look(cluster.name)) as Record<string, { archiveWait: number }>;
    expect(Math.round(seen[cluster.name]!.archiveWait / 60)).toBe(20);
    expect(await arrivedEverywhere(1)).toEqual([
      `walvault alert: ${cluster.name}: WAL waits on the primary (db1, epoch 1)`,
    ]);
    clock(now + 6 * MIN);
    await look(cluster.name);
    expect(await figure('SilentNodes', { Vault: table, Cluster: cluster.name })).toBe(1);
    expect(await arrivedEverywhere(1)).toEqual([
      `walvault alert: ${cluster.name}: the primary is silent (db1, epoch 1)`,
    ]);
  });

  test('what a destination did not take is told to it by the next look, once', async () => {
    await openReplica(cluster, await memoryVault());
    await relayPass(cluster, await openReplica(cluster, await memoryVault()));
    await db1.archive(segment(1, 1));
    await aged(segment(1, 1), 20 * MIN);
    webhook.status = 500;
    await expect(look(cluster.name)).rejects.toThrow(
      `a look failed for ${cluster.name}: the webhook at 127.0.0.1`,
    );
    expect(subjects(await near.take(1))).toHaveLength(1);
    expect(subjects(await far.take(1))).toHaveLength(1);
    webhook.status = 200;
    webhook.take();
    for (let each = 0; each < 2; each++) await look(cluster.name);
    expect(webhook.take().map(({ body }) => body['kind'])).toEqual(['lag']);
    expect([...(await near.take(0)), ...(await far.take(0))]).toEqual([]);
    expect(await vault.manifest.get(keys.notice(cluster.name, 'look'))).toMatchObject({ pending: [] });
    expect(logged.match(/"told":/g)).toHaveLength(1);
  });

  test('two at once tell it once', async () => {
    await reportNode(cluster, { name: 'db1', role: 'primary', waitingSince: new Date(0).toISOString() });
    await Promise.all([look(cluster.name), look(cluster.name), look(cluster.name)]);
    await look(cluster.name);
    expect(await arrivedEverywhere(1)).toHaveLength(1);
  });

  test('a cluster that cannot be read keeps no other from being looked at, and is told at the end', async () => {
    const broken = (await newCluster(vault, 'aaa-broken')).cluster;
    const control = (await vault.manifest.get(keys.control(broken.name)))!;
    const newer = { ...control, rev: control.rev + 1, format: 99 };
    await vault.manifest.transact([{ do: 'put', row: newer, when: { rev: control.rev } }]);
    await reportNode(cluster, { name: 'db1', role: 'primary', waitingSince: new Date(0).toISOString() });
    await expect(look()).rejects.toThrow(/^a look failed for aaa-broken: the vault has format 99/);
    expect(await arrivedEverywhere(1)).toContain(
      `walvault alert: ${cluster.name}: WAL waits on the primary (db1, epoch 1)`,
    );
    expect(await figure('ArchiveWaitSeconds', { Vault: table, Cluster: cluster.name })).toBeGreaterThan(1e9);
    await vault.manifest.transact([
      { do: 'delete', key: { pk: CLUSTERS, sk: broken.name }, when: 'present' },
    ]);
  });

  test('tells an armed replica that no relay ever came to', async () => {
    const replica = await openReplica(cluster, await memoryVault());
    await armSpill(cluster, replica);
    await db1.archive(segment(1, 1));
    await aged(segment(1, 1), 20 * MIN);
    await look(cluster.name);
    const [message] = await near.take(1);
    expect(message!.Message).toContain('lacks 1 segment, the oldest 20 min old');
    expect(message!.Message).toContain('no relay to it was ever heard of');
    await far.take(1);
    webhook.take();
    await relayPass(cluster, replica);
    expect(await look(cluster.name)).toEqual({ [cluster.name]: { relayLag: 0, silentNodes: 0 } });
  });

  test('a vault that took over misses the relay to the one that was active', async () => {
    const other = await newCluster(await memoryVault(), `${cluster.name}-dr`);
    await other.archive(segment(1, 1));
    const replica = await openReplica(other.cluster, vault);
    await relayPass(other.cluster, replica);
    const dr1 = await newStandby(replica, 'dr1');
    await takeOver(replica, async () => other.cluster, { mode: 'smart', to: 'dr1' });
    await finishPromotion(replica, dr1);
    await dr1.archive(segment(2, 2));
    cluster = replica;
    await aged(segment(2, 2), 20 * MIN);
    const seen = (await look(replica.name)) as Record<string, { relayLag: number }>;
    expect(Math.round(seen[replica.name]!.relayLag / 60)).toBe(20);
    const behind = `walvault alert: ${replica.name}: the replica is behind (epoch 2)`;
    expect(await arrivedEverywhere(1)).toEqual([behind]);
    await relayPass(replica, other.cluster);
    expect(await look(replica.name)).toMatchObject({ [replica.name]: { relayLag: 0 } });
    // of two vaults that change roles each fact is told by the one where it is
    expect(failures(await notify(await records(replica)))).toEqual([]);
    expect((await arrivedEverywhere(3)).map((subject) => subject.split(': ')[2])).toEqual([
      'a trigger was set (dr1, epoch 2)',
      'a vault was made a replica (epoch 1)',
      'a new primary is open (dr1, epoch 2)',
    ]);
  });

  test('a replica is looked at for its own nodes alone', async () => {
    const other = await newCluster(await memoryVault(), `${cluster.name}-dr`);
    await other.archive(segment(1, 1));
    const replica = await openReplica(other.cluster, vault);
    await relayPass(other.cluster, replica);
    await reportNode(replica, { name: 'dr1', role: 'standby', consistent: true });
    expect(await look(replica.name)).toEqual({ [replica.name]: { silentNodes: 0 } });
    expect((await openCluster(vault, replica.name)).name).toBe(replica.name);
    expect(await notify(await records(replica))).toEqual({ batchItemFailures: [] });
    expect(await arrivedEverywhere(1)).toEqual([
      `walvault info: ${replica.name}: a vault was made a replica (epoch 1)`,
    ]);
  });
});
