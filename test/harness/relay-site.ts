/**
 * Two regions as the relay function finds them: a vault in each (bucket, table with its stream), the topic of the DR region with a queue that
 * hears it, and the function itself, in this process or as a child of the bundle that is killed. All that it asks of AWS goes through
 * one proxy; the test's own hands reach the emulator directly.
 */
import { CreateTopicCommand, SNSClient, SubscribeCommand } from '@aws-sdk/client-sns';
import {
  CreateQueueCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import type { DynamoDBRecord, SQSBatchResponse } from 'aws-lambda';
import type { Arrival } from '../../core/cluster/decide-announcements.ts';
import { keys, type BackupRow } from '../../core/cluster/facts.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import { historyName, segmentAt, segmentEnd } from '../../core/wal/name.ts';
import { createVault, openVault, parseVaultUrl } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { readBranch } from '../../core/work/branch.ts';
import { listRows, openCluster, readHead, type Cluster } from '../../core/work/cluster.ts';
import type { Carried } from '../../core/work/carry-cluster.ts';
import { handler } from '../../lambdas/relay.ts';
import type { RelayCall } from '../../lambdas/relay-call.ts';
import { startAwsProxy, type AwsProxy } from './aws-proxy.ts';
import { makeBucket } from './buckets.ts';
import { CREDENTIALS, ownName, startMinistack, type Emulator } from './emulators.ts';
import { newCluster, type FakeNode } from './fake-node.ts';
import { readStream, type StreamReader } from './stream-reader.ts';
import { expectSound, holdings } from './two-vaults.ts';

export const HERE = 'us-east-1';
export const AWAY = 'eu-west-1';

const bundle = path.resolve(import.meta.dirname, '../../dist/lambdas/relay/index.js');

/** How long a child may take, ms. */
const CHILD_MS = 60_000;

type Place = { url: string; direct: Vault; stream: StreamReader; topic: string; heard(): Promise<Heard[]> };
/** A message as the queue behind the topic got it, with the attributes that subscribers filter by. */
export type Heard = { arrival: Arrival; attributes: Record<string, string | undefined> };

export type Emulation = {
  emulator: Emulator;
  proxy: AwsProxy;
  /** Lines that functions of this process have logged: not for the eyes of who runs the tests. */
  log: string[];
  close(): Promise<void>;
};

export async function startEmulation(): Promise<Emulation> {
  Object.assign(process.env, CREDENTIALS);
  const emulator = await startMinistack();
  const proxy = await startAwsProxy(emulator.port);
  // of the function alone: the test's own clients are given the emulator's endpoint
  process.env['AWS_ENDPOINT_URL'] = proxy.endpoint;
  const log: string[] = [];
  const print = process.stdout.write.bind(process.stdout);
  process.stdout.write = ((chunk: string, ...rest: []) => {
    if (!String(chunk).startsWith('{"level":')) return print(chunk, ...rest);
    log.push(String(chunk));
    return true;
  }) as typeof process.stdout.write;
  return {
    ...{ emulator, proxy, log },
    async close() {
      process.stdout.write = print;
      delete process.env['AWS_ENDPOINT_URL'];
      await proxy.close();
      await emulator.stop();
    },
  };
}

export class RelaySite {
  private readonly proxy: AwsProxy;
  private readonly vaultTimeout: string;
  readonly here: Place;
  readonly away: Place;

  private constructor(proxy: AwsProxy, vaultTimeout: string, here: Place, away: Place) {
    this.proxy = proxy;
    this.vaultTimeout = vaultTimeout;
    this.here = here;
    this.away = away;
  }

  /** @param options.vaultTimeout  of the function; short where a vault is away, since a busy machine is slow and not away */
  static async open({ emulator, proxy, log }: Emulation, { vaultTimeout = '30s' } = {}): Promise<RelaySite> {
    log.length = 0;
    proxy.calm();
    proxy.requests.length = 0;
    const [here, away] = [await place(emulator.endpoint, HERE), await place(emulator.endpoint, AWAY)];
    return new RelaySite(proxy, vaultTimeout, here, away);
  }

  /** A cluster of this region; its first rows are in the stream. */
  cluster(name: string): Promise<FakeNode> {
    return newCluster(this.here.direct, name);
  }

  /** The replica, by a way that nothing disturbs. */
  replica(name: string): Promise<Cluster> {
    return openCluster(this.away.direct, name);
  }

  /** The function of one region, in this process. @param leftMs  until Lambda would end it */
  async call(event: RelayCall, { from = this.here, leftMs = 60_000 } = {}): Promise<SQSBatchResponse> {
    Object.assign(process.env, this.environment(from));
    const until = performance.now() + leftMs;
    return (await handler(event, {
      getRemainingTimeInMillis: () => until - performance.now(),
    })) as SQSBatchResponse;
  }

  /** By a schedule or a person. */
  async sweep(event: RelayCall = { sweep: true }): Promise<Record<string, Carried>> {
    return (await this.call(event)) as unknown as Record<string, Carried>;
  }

  /** The bundle in a process of its own. @returns its answer, or the signal by which it died */
  async callChild(
    event: RelayCall,
    crashAt?: string,
  ): Promise<{ answer?: SQSBatchResponse; signal?: string }> {
    if (!existsSync(bundle)) throw new Error(`${bundle} is missing: run 'npm run build'`);
    const script = `
      const { handler } = require(process.argv[1]);
      const until = performance.now() + 60000;
      process.stdin.toArray().then(async (chunks) => {
        const event = JSON.parse(Buffer.concat(chunks).toString());
        const answer = await handler(event, { getRemainingTimeInMillis: () => until - performance.now() });
        process.stdout.write('\\nANSWER ' + JSON.stringify(answer), () => process.exit(0));
      });`;
    const { promise, resolve, reject } = Promise.withResolvers<{
      answer?: SQSBatchResponse;
      signal?: string;
    }>();
    const env = {
      ...process.env,
      ...this.environment(this.here),
      ...(crashAt === undefined ? {} : { WALVAULT_CRASH_AT: crashAt }),
    };
    const child = execFile(
      process.execPath,
      ['-e', script, bundle],
      { env, timeout: CHILD_MS },
      (error, stdout, stderr) => {
        if (error?.signal && !error.killed) resolve({ signal: error.signal });
        else if (error !== null) reject(new Error(`${error.message}\n${stderr}`));
        else resolve({ answer: JSON.parse(stdout.split('ANSWER ')[1]!) as SQSBatchResponse });
      },
    );
    child.stdin!.end(JSON.stringify(event));
    return promise;
  }

  private environment(from: Place): Record<string, string> {
    const to = from === this.here ? this.away : this.here;
    return {
      WALVAULT_VAULT: from.url,
      WALVAULT_RELAY_TO: to.url,
      WALVAULT_ARRIVALS_TOPIC: to.topic,
      WALVAULT_VAULT_TIMEOUT: this.vaultTimeout,
    };
  }

  /**
   * What must hold in the end, whatever happened on the way: the replica holds all rows of the live branch and no others, each object is
   * right, head stands where the source's does; and the topic was told of all of it, nothing before what lies below it.
   */
  async expectLevel(source: Cluster): Promise<void> {
    const target = await this.replica(source.name);
    expect(await holdings(target)).toEqual(await holdings(source));
    const [from, to] = [await readHead(source), await readHead(target)];
    for (const member of [
      'epoch',
      'timeline',
      'lsn',
      'firstLsn',
      'lastFile',
      'lastTimeline',
      'tail',
    ] as const)
      expect([member, to[member]]).toEqual([member, from[member]]);
    const backups = async (cluster: Cluster) =>
      (await listRows<BackupRow>(cluster, 'backup#')).map(({ id, state }) => [id, state]);
    expect(await backups(target)).toEqual(await backups(source));
    await expectSound(target);
    await this.expectTold(target);
  }

  /** Messages that the topic took for this cluster, in the order in which they were published. */
  published(cluster: string): Arrival[] {
    return this.proxy.requests
      .filter(
        ({ operation, status, fault }) =>
          operation === 'Publish' && (status === 200 || fault === 'lose answer'),
      )
      .map(({ input }) => JSON.parse(String(input!['Message'])) as Arrival)
      .filter((arrival) => arrival.cluster === cluster);
  }

  private async expectTold(target: Cluster): Promise<void> {
    const published = this.published(target.name);
    expect([...new Set(published.flatMap((each) => filesOf(each, target.segmentSize)))]).toEqual(
      await expectedFiles(target),
    );
    expect(new Set(published.flatMap((each) => (each.kind === 'backup' ? [each.id] : [])))).toEqual(
      new Set((await listRows<BackupRow>(target, 'backup#')).map(({ id }) => id)),
    );
    const heard = (await this.away.heard()).filter(({ arrival }) => arrival.cluster === target.name);
    expect(new Set(heard.map(({ arrival }) => JSON.stringify(arrival)))).toEqual(
      new Set(published.map((arrival) => JSON.stringify(arrival))),
    );
    for (const { arrival, attributes } of heard)
      expect(attributes).toEqual({ kind: arrival.kind, cluster: target.name });
  }

  async close(): Promise<void> {
    await this.here.direct.close();
    await this.away.direct.close();
  }
}

/** Segments and histories of the live branch, in the order in which they are told. */
async function expectedFiles(cluster: Cluster): Promise<string[]> {
  const { head, lineage, histories } = await readBranch(cluster);
  const size = BigInt(cluster.segmentSize);
  const files: string[] = [];
  let at = parseLsn(head.firstLsn ?? '0/0');
  for (const { timeline, ends } of lineage) {
    if (histories.has(timeline)) files.push(historyName(timeline));
    for (const stop = ends ?? parseLsn(head.lsn ?? '0/0'); at + size <= stop; at += size)
      files.push(segmentAt(timeline, at, cluster.segmentSize));
  }
  return files;
}

function filesOf(arrival: Arrival, segmentSize: number): string[] {
  if (arrival.kind === 'history') return [arrival.file];
  if (arrival.kind === 'backup') return [];
  const files = [arrival.first];
  while (files.at(-1) !== arrival.last)
    files.push(segmentAt(arrival.timeline, segmentEnd(files.at(-1)!, segmentSize), segmentSize));
  expect(files).toHaveLength(arrival.count);
  return files;
}

async function place(endpoint: string, region: string): Promise<Place> {
  const bucket = await makeBucket(endpoint, ownName(), region);
  const table = ownName();
  const { url } = parseVaultUrl(`s3://${bucket}/some/prefix?table=${table}&region=${region}`);
  const direct = `${url}&endpoint=${encodeURIComponent(endpoint)}`;
  await (await createVault(direct, { createTable: true })).close();
  const [sns, sqs] = [new SNSClient({ endpoint, region }), new SQSClient({ endpoint, region })];
  const { TopicArn } = await sns.send(new CreateTopicCommand({ Name: ownName() }));
  const { QueueUrl } = await sqs.send(new CreateQueueCommand({ QueueName: ownName() }));
  const { Attributes } = await sqs.send(
    new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['QueueArn'] }),
  );
  await sns.send(
    new SubscribeCommand({
      ...{ TopicArn, Protocol: 'sqs', Endpoint: Attributes!['QueueArn'] },
      Attributes: { RawMessageDelivery: 'true' },
    }),
  );
  const all: Heard[] = [];
  return {
    ...{ url, direct: await openVault(direct), topic: TopicArn! },
    stream: await readStream(endpoint, region, table),
    async heard() {
      for (;;) {
        const { Messages = [] } = await sqs.send(
          new ReceiveMessageCommand({
            QueueUrl,
            MaxNumberOfMessages: 10,
            MessageAttributeNames: ['All'],
            VisibilityTimeout: 600,
          }),
        );
        if (Messages.length === 0) return all;
        for (const { Body, MessageAttributes = {} } of Messages)
          all.push({
            arrival: JSON.parse(Body!) as Arrival,
            attributes: Object.fromEntries(
              Object.entries(MessageAttributes).map(([name, { StringValue }]) => [name, StringValue]),
            ),
          });
      }
    },
  };
}

/** A complete base backup of a few objects, as `walvault backup` leaves it; its WAL lies from `start` to `stop`. */
export async function putBackup(
  cluster: Cluster,
  id: string,
  startLsn: string,
  stopLsn: string,
): Promise<void> {
  const { vault, partition } = cluster;
  const indexKey = `${partition}/backup/${id}/index.zst`;
  await vault.bucket.putOnce(`${partition}/backup/${id}/bundle-00001.zst`, Buffer.from(`bytes of ${id}`));
  await vault.bucket.putOnce(indexKey, Buffer.from(`index of ${id}`));
  const row: BackupRow = {
    ...keys.backup(partition, id),
    ...{
      rev: 1,
      id,
      state: 'complete',
      node: 'db1',
      label: id,
      majorVersion: 18,
      timeline: 1,
      startLsn,
      stopLsn,
    },
    startSegment: segmentAt(1, parseLsn(startLsn), cluster.segmentSize),
    stopSegment: segmentAt(1, parseLsn(stopLsn), cluster.segmentSize),
    ...{ startedAt: '2026-01-01T00:00:00.000Z', finishedAt: '2026-01-01T00:01:00.000Z' },
    ...{ sizeBytes: 1, storedBytes: 1, files: 1, indexKey },
  };
  await vault.manifest.transact([{ do: 'put', row: row as never, when: 'absent' }]);
}

/** What Lambda sends to the queue for a batch that failed for good: where it lay in the stream, and no rows. */
export function redriveBody(records: readonly DynamoDBRecord[]): string {
  return JSON.stringify({
    requestContext: {
      requestId: 'r',
      functionArn: 'arn:aws:lambda:…',
      condition: 'RetryAttemptsExhausted',
      approximateInvokeCount: 4,
    },
    responseContext: { statusCode: 200, executedVersion: '$LATEST', functionError: null },
    version: '1.0',
    timestamp: '2026-01-01T00:00:00.000Z',
    DDBStreamBatchInfo: {
      shardId: 'shardId-00000001',
      startSequenceNumber: records[0]?.dynamodb?.SequenceNumber,
      endSequenceNumber: records.at(-1)?.dynamodb?.SequenceNumber,
      batchSize: records.length,
      streamArn: 'arn:aws:dynamodb:…',
    },
  });
}
