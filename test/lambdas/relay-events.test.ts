/**
 * The relay function under what a stream and a cloud do to it: events doubled, out of order and lost; the function killed at each step,
 * run twice at once, throttled, with the other region away for long. The end state is the same each time, and complete.
 *
 * Two regions of the emulator behind one proxy; the handler is the deployed one, the rows are real. That a stream really wakes it is shown
 * by test/infra/deploy.test.ts.
 */
import { CreateTopicCommand, SNSClient } from '@aws-sdk/client-sns';
import { marshall } from '@aws-sdk/util-dynamodb';
import type { DynamoDBRecord, SQSEvent } from 'aws-lambda';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { keys, type BackupRow } from '../../core/cluster/facts.ts';
import { after, type Row } from '../../core/vault/manifest.ts';
import { createVault, openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { asRow, openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { handler } from '../../lambdas/relay.ts';
import type { PartialFailure, RelayEvent } from '../../lambdas/relay-event.ts';
import { startAwsProxy, type AwsProxy } from '../harness/aws-proxy.ts';
import { makeBucket } from '../harness/buckets.ts';
import { CREDENTIALS, ownName, startMinistack, type Emulator } from '../harness/emulators.ts';
import { newCluster, newStandby, segment, type FakeNode } from '../harness/fake-node.ts';
import { names, promote } from '../harness/promotions.ts';
import { Subscription, type Told } from '../harness/subscription.ts';
import { expectSound, holdings } from '../harness/two-vaults.ts';

const [HERE, THERE] = ['us-east-1', 'eu-west-1'];
const call = { getRemainingTimeInMillis: () => 120_000 };

let emulator: Emulator;
let proxy: AwsProxy;
let a: Vault, b: Vault;
let topic: string;
let subscription: Subscription;
let name: string;
let db1: FakeNode;
let A: Cluster;
let number = 0;

beforeAll(async () => {
  Object.assign(process.env, CREDENTIALS);
  emulator = await startMinistack();
  proxy = await startAwsProxy(emulator.port);
  const url = async (region: string) =>
    `s3://${await makeBucket(emulator.endpoint, ownName(), region)}/p?table=${ownName()}&region=${region}`;
  const [urlA, urlB] = [await url(HERE), await url(THERE)];
  const direct = (vault: string) => `${vault}&endpoint=${encodeURIComponent(emulator.endpoint)}`;
  for (const each of [urlA, urlB]) await (await createVault(direct(each), { createTable: true })).close();
  [a, b] = [await openVault(direct(urlA)), await openVault(direct(urlB))];
  const sns = new SNSClient({ region: THERE, endpoint: emulator.endpoint });
  topic = (await sns.send(new CreateTopicCommand({ Name: ownName() }))).TopicArn!;
  sns.destroy();
  subscription = await Subscription.open(topic, emulator.endpoint);
  Object.assign(process.env, {
    AWS_ENDPOINT_URL: proxy.endpoint,
    WALVAULT_VAULT: urlA,
    WALVAULT_RELAY_TO: urlB,
    WALVAULT_ARRIVALS_TOPIC: topic,
    WALVAULT_VAULT_TIMEOUT: '3s',
  });
}, 120_000);
afterAll(async () => {
  subscription?.close();
  await a?.close();
  await b?.close();
  await proxy?.close();
  await emulator?.stop();
});
beforeEach(async () => {
  proxy.disturb = undefined;
  name = `main${++number}`;
  db1 = await newCluster(a, name);
  A = db1.cluster;
});

const archive = async (from: number, to: number, node = db1, timeline = 1) => {
  for (let each = from; each <= to; each++) await node.archive(segment(timeline, each));
};
/** The rows of a cluster as a stream would have brought them, in the order of their change. */
async function records(cluster = A): Promise<DynamoDBRecord[]> {
  const rows: Row[] = [];
  for (const prefix of ['wal#', 'history#', 'backup#'])
    for await (const row of cluster.vault.manifest.query({
      pk: cluster.partition,
      from: prefix,
      to: after(prefix),
    }))
      rows.push(row);
  return rows.map((row, index) => record(row, String(1000 + index)));
}
const record = ({ pk, sk, ...more }: Row, sequence: string): DynamoDBRecord => ({
  eventName: 'INSERT',
  eventSource: 'aws:dynamodb',
  dynamodb: {
    Keys: marshall({ pk, sk }) as never,
    NewImage: marshall({ pk, sk, ...more }, { removeUndefinedValues: true }) as never,
    SequenceNumber: sequence,
  },
});
const deliver = (batch: DynamoDBRecord[]) => handler({ Records: batch }, call) as Promise<PartialFailure>;
const sweep = () => handler({ sweep: true, cluster: name }, call);
const pass = () => handler({ pass: true, cluster: name }, call);
const replica = () => openCluster(b, name);
/** What a subscriber knows of this cluster. */
const heard = async (): Promise<Told[]> =>
  (await subscription.hear()).filter(
    ({ message }) => typeof message === 'object' && message['cluster'] === name,
  );
const kinds = async () =>
  (await heard()).map(
    ({ message, attributes }) => [attributes['kind'], message as Record<string, unknown>] as const,
  );

/** Everything of A is in B, whole, and every segment of it was announced. */
async function expectComplete(): Promise<void> {
  const B = await replica();
  expect(await holdings(B)).toEqual(await holdings(A));
  const [from, to] = [await readHead(A), await readHead(B)];
  expect([to.timeline, to.lsn, to.lastFile]).toEqual([from.timeline, from.lsn, from.lastFile]);
  await expectSound(B);
  const told = await kinds();
  const segments = new Set<string>();
  for (const [kind, { first, last, timeline }] of told.filter(([kind]) => kind === 'segments')) {
    expect(kind).toBe('segments');
    const of = (text: unknown) => Number.parseInt(String(text).slice(16), 16);
    for (let each = of(first); each <= of(last); each++) segments.add(segment(Number(timeline), each));
  }
  // the older name of a fork's segment is no part of the live branch
  const live = (await names(A)).filter((each) => each.length === 24 && each.slice(0, 8) >= '00000001');
  const missing = live.filter((each) => !segments.has(each));
  expect(
    missing.filter((each) => !live.some((other) => other.slice(8) === each.slice(8) && other > each)),
  ).toEqual([]);
}

test('a batch of the stream brings rows, a promotion and a backup, and the other region is told of each', async () => {
  await archive(1, 4);
  expect(await deliver(await records())).toEqual({ batchItemFailures: [] });
  const db2 = await newStandby(A, 'db2');
  await promote(A, db2, 5);
  await archive(5, 6, db2, 2);
  const row: Partial<BackupRow> = {
    ...keys.backup(A.partition, 'one'),
    ...{
      rev: 1,
      id: 'one',
      state: 'complete',
      node: 'db1',
      label: '',
      majorVersion: 18,
      timeline: 1,
      startLsn: '0/200000',
    },
    ...{
      stopLsn: '0/200028',
      startSegment: segment(1, 2),
      stopSegment: segment(1, 2),
      sizeBytes: 7,
      storedBytes: 1,
      files: 1,
    },
    ...{ startedAt: '', finishedAt: '', indexKey: `${A.partition}/backup/one/index.zst` },
  };
  await a.bucket.putOnce(row.indexKey!, Buffer.from('index'));
  await a.manifest.transact([{ do: 'put', row: asRow(row), when: 'absent' }]);
  expect(await deliver((await records()).slice(-1))).toEqual({ batchItemFailures: [] });
  await expectComplete();
  expect(await kinds()).toMatchObject([
    [
      'segments',
      {
        timeline: 1,
        first: segment(1, 1),
        last: segment(1, 4),
        count: 4,
        vault: process.env['WALVAULT_RELAY_TO'],
      },
    ],
    ['history', { timeline: 2, parent: 1 }],
    ['segments', { timeline: 2, first: segment(2, 5), last: segment(2, 6), count: 2 }],
    ['backup', { id: 'one', sizeBytes: 7 }],
  ]);
  expect(await deliver(await records())).toEqual({ batchItemFailures: [] });
  expect((await heard()).length).toBe(4);
});

test('doubled, reordered and partly lost, the rest brings all that was there', async () => {
  await archive(1, 9);
  const all = await records();
  const shuffled = [...all, ...all]
    .map((each, index) => [(index * 7919) % 18, each] as const)
    .sort(([one], [other]) => one - other);
  const kept = shuffled.filter((_, index) => index % 3 !== 0).map(([, each]) => each);
  for (let index = 0; index < kept.length; index += 4)
    expect(await deliver(kept.slice(index, index + 4))).toEqual({ batchItemFailures: [] });
  await expectComplete();
});

test('what the stream lost altogether the next pass brings; a sweep mends a row that is gone', async () => {
  await archive(1, 5);
  await pass();
  await expectComplete();
  const B = await replica();
  const gone = (await b.manifest.get(keys.wal(B.partition, segment(1, 3))))!;
  await b.manifest.transact([{ do: 'delete', key: gone, when: { rev: gone.rev } }]);
  await sweep();
  await expectComplete();
});

test('two at once, and a third by the schedule', async () => {
  await archive(1, 12);
  const all = await records();
  const ends = await Promise.all([deliver(all), deliver(all.toReversed()), pass()]);
  expect(ends).toEqual([{ batchItemFailures: [] }, { batchItemFailures: [] }, undefined]);
  await expectComplete();
});

describe('killed', () => {
  const bundle = path.resolve(import.meta.dirname, '../../dist/lambdas/relay/index.js');
  const script = `require(${JSON.stringify(bundle)}).handler(JSON.parse(process.argv[1]), { getRemainingTimeInMillis: () => 60000 }).then((a) => { console.log(JSON.stringify(a)); process.exit(0) }, (e) => { console.error(e); process.exit(1) })`;
  // not by spawnSync: the proxy lives in this process
  const inChild = async (event: RelayEvent, crashAt: string) => {
    const child = spawn(process.execPath, ['-e', script, JSON.stringify(event)], {
      env: { ...process.env, WALVAULT_CRASH_AT: crashAt },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (text) => (stdout += text));
    child.stderr.on('data', (text) => (stderr += text));
    const [status, signal] = (await once(child, 'close')) as [number | null, string | null];
    return { status, signal, stdout, stderr };
  };

  test.each(['relay-copied', 'relay-committed', 'relay-history', 'relay-announced'] as const)(
    'at %s: the next event goes on, and nothing is announced too little',
    async (point) => {
      await archive(1, 3);
      const db2 = await newStandby(A, 'db2');
      await promote(A, db2, 4);
      await archive(4, 5, db2, 2);
      const event = { Records: await records() };
      const killed = await inChild(event, point);
      expect([killed.signal, killed.stderr]).toEqual(['SIGKILL', '']);
      if (point !== 'relay-announced') expect(await heard()).toEqual([]);
      const again = await inChild(event, '');
      expect([again.status, again.stdout.trim().split('\n').at(-1)]).toEqual([0, '{"batchItemFailures":[]}']);
      await expectComplete();
    },
  );
});

test.each([
  ['own', HERE],
  ['other', THERE],
])('the %s table throttled at every third request: it is slower, and brings all', async (_, region) => {
  await archive(1, 6);
  let asked = 0;
  proxy.disturb = (one) =>
    one.service === 'dynamodb' && one.region === region && ++asked % 3 === 0 ? 'throttle' : undefined;
  const before = proxy.disturbed;
  expect(await deliver(await records())).toEqual({ batchItemFailures: [] });
  expect(proxy.disturbed - before).toBeGreaterThan(3);
  await expectComplete();
});

test('every answer of the other table lost now and then: nothing is there twice, nothing is missing', async () => {
  await archive(1, 6);
  let asked = 0;
  proxy.disturb = (one) =>
    one.operation === 'TransactWriteItems' && one.region === THERE && ++asked % 2 === 0
      ? 'drop-answer'
      : undefined;
  for (let tries = 0; tries < 10; tries++)
    if ((await deliver(await records())).batchItemFailures.length === 0) break;
  proxy.disturb = undefined;
  await expectComplete();
});

test('the other region away for 120 segments: each batch is reported from its first record on, and then all of it comes', async () => {
  await archive(1, 2);
  await deliver(await records());
  proxy.disturb = (one) => (one.region === THERE ? 'refuse' : undefined);
  await archive(3, 60);
  const first = await records();
  expect(await deliver(first)).toEqual({ batchItemFailures: [{ itemIdentifier: '1000' }] });
  await archive(61, 120);
  await expect(pass()).rejects.toThrow(`relay failed for ${name}: `);
  proxy.disturb = undefined;
  // Lambda has given the batches up by now: what is left of them is a word of the queue that they went to
  const given: SQSEvent = {
    Records: [{ messageId: 'm1', body: '{"DDBStreamBatchInfo":{}}' } as SQSEvent['Records'][number]],
  };
  expect(await handler(given, call)).toEqual({ batchItemFailures: [] });
  await expectComplete();
  expect((await kinds()).map(([, { count }]) => count)).toEqual([2, 118]);
});

test('one cluster that cannot be relayed keeps no other from it: its records alone are reported', async () => {
  await archive(1, 3);
  const well = await records();
  const other = await newCluster(a, `${name}-poison`);
  await other.archive(segment(1, 1));
  // the other region holds another database under this name
  await newCluster(b, `${name}-poison`);
  const row = (await readControl(await openCluster(b, `${name}-poison`))) as unknown as Row;
  await b.manifest.transact([
    { do: 'put', row: { ...row, rev: row.rev + 1, systemIdentifier: '1' }, when: { rev: row.rev } },
  ]);
  const [bad] = await records(other.cluster);
  const batch = [
    well[0]!,
    { ...bad!, dynamodb: { ...bad!.dynamodb, SequenceNumber: '5000' } },
    ...well.slice(1),
  ];
  expect(await deliver(batch)).toEqual({ batchItemFailures: [{ itemIdentifier: '5000' }] });
  await expectComplete();
  const message: SQSEvent = { Records: [{ messageId: 'm7', body: '' } as SQSEvent['Records'][number]] };
  expect(await handler(message, call)).toEqual({ batchItemFailures: [{ itemIdentifier: 'm7' }] });
  await expect(handler({ pass: true }, call)).rejects.toThrow(`${name}-poison`);
  await a.manifest.transact([{ do: 'delete', key: keys.clusterEntry(`${name}-poison`), when: 'any' }]);
});

test('the topic away: rows come all the same, the records are reported, and the next try tells it', async () => {
  await archive(1, 3);
  proxy.disturb = (one) => (one.service === 'sns' ? 'refuse' : undefined);
  expect(await deliver(await records())).toEqual({ batchItemFailures: [{ itemIdentifier: '1000' }] });
  expect(await holdings(await replica())).toEqual(await holdings(A));
  expect(await heard()).toEqual([]);
  proxy.disturb = undefined;
  expect(await deliver(await records())).toEqual({ batchItemFailures: [] });
  await expectComplete();
});

test('in the vault that is no more active it does nothing, and a record of a cluster that is gone holds nothing up', async () => {
  await archive(1, 2);
  const batch = await records();
  const control = (await readControl(A)) as unknown as Row;
  const source = { id: 'b'.repeat(16), url: process.env['WALVAULT_RELAY_TO']! };
  await a.manifest.transact([
    {
      do: 'put',
      row: { ...control, rev: control.rev + 1, role: 'replica', source },
      when: { rev: control.rev },
    },
  ]);
  const stray = record({ pk: 'nobody/1', sk: 'wal#x', rev: 1 }, '1');
  const list = record({ ...keys.clusterEntry('nobody'), rev: 1 }, '2');
  expect(await deliver([stray, list, ...batch])).toEqual({ batchItemFailures: [] });
  expect(await b.manifest.get(keys.control(name))).toBeUndefined();
});
