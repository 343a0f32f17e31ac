/**
 * The relay function where things break: killed between any two of its steps, throttled, without the DR region for an hour of WAL, without
 * the topic. At no moment has the replica a hole; in the end it is the same and complete, and the DR region was told of each arrival.
 */
import type { DynamoDBRecord } from 'aws-lambda';
import type { RelayRow } from '../../core/cluster/facts.ts';
import { listRows, readHead, type Cluster } from '../../core/work/cluster.ts';
import type { CrashPoint } from '../../core/work/crash-points.ts';
import type { AwsRequest, Fault } from '../harness/aws-proxy.ts';
import { newStandby, segment, type FakeNode } from '../harness/fake-node.ts';
import { lsnText, promote } from '../harness/promotions.ts';
import {
  AWAY,
  HERE,
  putBackup,
  redriveBody,
  RelaySite,
  startEmulation,
  type Emulation,
} from '../harness/relay-site.ts';
import { expectSound } from '../harness/two-vaults.ts';

let emulation: Emulation;
let site: RelaySite;
let db1: FakeNode;
let A: Cluster;

beforeAll(async () => {
  emulation = await startEmulation();
});
afterAll(() => emulation?.close());
beforeEach(async () => {
  site = await RelaySite.open(emulation, { vaultTimeout: '3s' });
  db1 = await site.cluster('main');
  A = db1.cluster;
});
afterEach(() => site?.close());

const archive = async (node: FakeNode, timeline: number, from: number, to: number) => {
  for (let each = from; each <= to; each++) await node.archive(segment(timeline, each));
};
const newRecords = () => site.here.stream.next();
const NONE = { batchItemFailures: [] };

/** Two timelines and a backup; more segments than one transaction holds, where that matters. */
async function everyKind(segments = 8): Promise<DynamoDBRecord[]> {
  const fork = segments - 2;
  await archive(db1, 1, 1, fork - 1);
  const db2 = await newStandby(A, 'db2');
  await promote(A, db2, fork);
  await archive(db2, 2, fork, segments);
  await putBackup(A, 'b1', lsnText(2), lsnText(3));
  return newRecords();
}

const POINTS: CrashPoint[] = [
  ...(['relay-copied', 'relay-committed', 'relay-history', 'relay-backup'] as const),
  ...(['announce-due', 'announce-published'] as const),
];

test.each(POINTS)('killed at %s, twice, the batch comes again', async (point) => {
  const Records = await everyKind(33);
  for (let death = 1; death <= 2; death++) {
    expect(await site.callChild({ Records }, point)).toEqual({ signal: 'SIGKILL' });
    await expectSound(await site.replica('main'));
  }
  expect(await site.callChild({ Records })).toEqual({ answer: NONE });
  await site.expectLevel(A);
});

test('killed between commit and announcement, and no event comes any more: the schedule tells', async () => {
  const Records = await everyKind();
  expect(await site.callChild({ Records }, 'announce-due')).toEqual({ signal: 'SIGKILL' });
  expect((await readHead(await site.replica('main'))).lsn).toBe(lsnText(9));
  expect(site.published('main')).toEqual([]);
  await site.sweep();
  await site.expectLevel(A);
});

describe.each([
  ['its own table', HERE],
  ["the replica's table", AWAY],
])('%s', (_whose, region) => {
  const isTable = (request: AwsRequest) => request.service === 'dynamodb' && request.region === region;

  test.each<Fault>(['throttle', 'cancel', 'lose answer', 'refuse'])(
    'every fourth request: %s',
    async (fault) => {
      const Records = await everyKind();
      let count = 0;
      const met = emulation.proxy.disturb((request) => isTable(request) && ++count % 4 === 0, fault);
      for (let calls = 1; (await site.call({ Records })).batchItemFailures.length > 0; calls++)
        expect(calls).toBeLessThan(10);
      expect(met.met).toBeGreaterThan(1);
      emulation.proxy.calm();
      await site.expectLevel(A);
    },
  );

  test('throttled for good: the batch comes again, and is done when that is over', async () => {
    await archive(db1, 1, 1, 2);
    await site.call({ Records: await newRecords() });
    await archive(db1, 1, 3, 5);
    const Records = await newRecords();
    emulation.proxy.disturb(isTable, 'throttle');
    await expect(failed(Records)).resolves.toBe(true);
    emulation.proxy.calm();
    await expectSound(await site.replica('main'));
    expect(await site.call({ Records })).toEqual(NONE);
    await site.expectLevel(A);
  });
});

/** As Lambda takes it: an answer that names records, or an error. */
async function failed(Records: DynamoDBRecord[]): Promise<boolean> {
  return site.call({ Records }).then(
    ({ batchItemFailures }) => batchItemFailures.length > 0,
    () => true,
  );
}

test('the DR region is away for an hour of segments: they wait, are said to wait, and come when it is back', async () => {
  await archive(db1, 1, 1, 3);
  await site.call({ Records: await newRecords() });
  emulation.proxy.disturb(({ region }) => region === AWAY, 'refuse');
  const batches: DynamoDBRecord[][] = [];
  for (let minute = 0; minute < 60; minute += 20) {
    await archive(db1, 1, minute * 2 + 4, minute * 2 + 43);
    batches.push(await newRecords());
    const [first] = batches.at(-1)!.filter(({ dynamodb }) => dynamodb!.Keys!['sk']!.S!.startsWith('wal#'));
    expect(await site.call({ Records: batches.at(-1)! })).toEqual({
      batchItemFailures: [{ itemIdentifier: first!.dynamodb!.SequenceNumber }],
    });
  }
  const message = { messageId: 'm', body: redriveBody(batches[0]!), eventSource: 'aws:sqs' };
  const redrive = { Records: [message] } as never;
  expect(await site.call(redrive)).toEqual({ batchItemFailures: [{ itemIdentifier: 'm' }] });
  await expect(site.sweep()).rejects.toThrow('the relay failed for main: ');
  const [told] = await listRows<RelayRow>(A, 'relay#');
  expect(told).toMatchObject({ direction: 'to', trouble: expect.stringContaining('unreachable') });
  emulation.proxy.calm();
  // the newest batch is what comes again first
  expect(await site.call({ Records: batches.at(-1)! })).toEqual(NONE);
  await site.expectLevel(A);
  expect(site.published('main')).toMatchObject([
    { count: 3 },
    { first: segment(1, 4), last: segment(1, 123), count: 120 },
  ]);
  const [now] = await listRows<RelayRow>(A, 'relay#');
  expect(now).toMatchObject({ rows: 0, seconds: 0, trouble: null });
  expect(await site.call(redrive)).toEqual(NONE);
});

describe('the topic is away', () => {
  const isTopic = ({ service }: AwsRequest) => service === 'sns';

  test.each<Fault>(['refuse', 'throttle', 'hang'])(
    '%s: rows are carried, the batch comes again, nothing is left out',
    async (fault) => {
      const first = await everyKind();
      emulation.proxy.disturb(isTopic, fault);
      expect(await failed(first)).toBe(true);
      expect((await readHead(await site.replica('main'))).lsn).toBe(lsnText(9));
      expect(site.published('main')).toEqual([]);
      emulation.proxy.calm();
      expect(await site.call({ Records: first })).toEqual(NONE);
      await site.expectLevel(A);
    },
  );

  test('for one message in the middle: what was told before it is not told again', async () => {
    const Records = await everyKind();
    emulation.proxy.disturb(({ input }) => String(input?.['Message']).includes('"history"'), 'refuse');
    expect(await failed(Records)).toBe(true);
    emulation.proxy.calm();
    expect(await site.call({ Records })).toEqual(NONE);
    await site.expectLevel(A);
    expect(site.published('main').map(({ kind, timeline }) => `${kind} ${timeline}`)).toEqual([
      ...['segments 1', 'history 2', 'segments 2', 'backup 1'],
    ]);
  });

  test('its answers are lost: told again, and nothing is left out', async () => {
    const Records = await everyKind();
    emulation.proxy.disturb(isTopic, 'lose answer', 3);
    for (let calls = 1; await failed(Records); calls++) expect(calls).toBeLessThan(5);
    await site.expectLevel(A);
    expect(site.published('main').length).toBeGreaterThan(4);
  });
});
