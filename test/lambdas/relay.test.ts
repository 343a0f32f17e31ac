/**
 * The relay function under bad events: whatever comes twice, late, in another order, not at all or beside another, in the end the replica is
 * the same and complete, and the DR region was told of each arrival.
 */
import type { DynamoDBRecord, SQSEvent } from 'aws-lambda';
import { VaultError } from '../../core/errors.ts';
import { keys } from '../../core/cluster/facts.ts';
import { asRow, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { listAside } from '../../core/work/salvage.ts';
import { takeOver } from '../../core/work/takeover.ts';
import type { AwsRequest } from '../harness/aws-proxy.ts';
import { fakeNode, newStandby, segment, type FakeNode } from '../harness/fake-node.ts';
import { finishPromotion, lsnText, promote } from '../harness/promotions.ts';
import { putBackup, redriveBody, RelaySite, startEmulation, type Emulation } from '../harness/relay-site.ts';

let emulation: Emulation;
let site: RelaySite;
let db1: FakeNode;
let A: Cluster;

beforeAll(async () => {
  emulation = await startEmulation();
});
afterAll(() => emulation?.close());
beforeEach(async () => {
  site = await RelaySite.open(emulation);
  db1 = await site.cluster('main');
  A = db1.cluster;
});
afterEach(() => site?.close());

const archive = async (node: FakeNode, timeline: number, from: number, to: number) => {
  for (let each = from; each <= to; each++) await node.archive(segment(timeline, each));
};
const newRecords = () => site.here.stream.next();
const queue = (...bodies: string[]): SQSEvent =>
  ({
    Records: bodies.map((body, index) => ({ messageId: `m${index}`, body, eventSource: 'aws:sqs' })),
  }) as SQSEvent;
const NONE = { batchItemFailures: [] };

test('a batch of the stream brings segments, a history and a backup; the replica is made by the first', async () => {
  await archive(db1, 1, 1, 3);
  const db2 = await newStandby(A, 'db2');
  await promote(A, db2, 4);
  await archive(db2, 2, 4, 5);
  await putBackup(A, 'b1', lsnText(2), lsnText(3));
  const records = await newRecords();
  expect(records.map(({ dynamodb }) => dynamodb!.Keys!['sk']!.S)).toContain(`wal#${segment(2, 5)}`);
  expect(await site.call({ Records: records })).toEqual(NONE);
  await site.expectLevel(A);
  expect(site.published('main').map(({ kind, timeline }) => `${kind} ${timeline}`)).toEqual([
    ...['segments 1', 'history 2', 'segments 2', 'backup 1'],
  ]);
  expect(await readControl(await site.replica('main'))).toMatchObject({
    role: 'replica',
    epoch: 2,
    primary: 'db2',
  });
});

test('every batch twice, and all of them once more in the end: nothing is told again', async () => {
  const batches: DynamoDBRecord[][] = [];
  for (let round = 0; round < 4; round++) {
    await archive(db1, 1, round * 3 + 1, round * 3 + 3);
    batches.push(await newRecords());
    const event = { Records: [...batches.at(-1)!, ...batches.at(-1)!] };
    expect(await site.call(event)).toEqual(NONE);
    expect(await site.call(event)).toEqual(NONE);
  }
  for (const Records of batches) expect(await site.call({ Records })).toEqual(NONE);
  await site.expectLevel(A);
  expect(site.published('main')).toMatchObject(
    [1, 4, 7, 10].map((first) => ({ first: segment(1, first), count: 3 })),
  );
});

test('batches in the wrong order, and records in the wrong order within them', async () => {
  const batches: DynamoDBRecord[][] = [];
  await archive(db1, 1, 1, 3);
  batches.push(await newRecords());
  const db2 = await newStandby(A, 'db2');
  await promote(A, db2, 4);
  batches.push(await newRecords());
  await archive(db2, 2, 4, 6);
  batches.push(await newRecords());
  for (const Records of batches.toReversed()) {
    expect(await site.call({ Records: Records.toReversed() })).toEqual(NONE);
    await archive(db2, 2, await numberAfter(A), await numberAfter(A));
  }
  expect(await site.call({ Records: await newRecords() })).toEqual(NONE);
  await site.expectLevel(A);
});

async function numberAfter(cluster: Cluster): Promise<number> {
  return Number.parseInt((await readHead(cluster)).lastFile!.slice(16), 16) + 1;
}

test('what no event told of is brought by the next event, and what lies below the head by the sweep', async () => {
  await archive(db1, 1, 1, 3);
  await site.call({ Records: await newRecords() });
  await archive(db1, 1, 4, 6);
  await newRecords(); // lost
  await archive(db1, 1, 7, 7);
  expect(await site.call({ Records: await newRecords() })).toEqual(NONE);
  await site.expectLevel(A);

  const history = `${segment(1, 2)}.00000028.backup`;
  await db1.archive(history);
  await archive(db1, 1, 8, 8);
  const B = await site.replica('main');
  await lose(B, segment(1, 5));
  await newRecords(); // lost
  expect(await site.sweep()).toMatchObject({ main: { end: 'done', report: { rows: 3 } } });
  await site.expectLevel(A);
});

test.each([
  ['what Lambda says of a batch that failed for good', redriveBody([])],
  ['what a person put in', 'relay, please'],
])('a message of the queue has every cluster compared: %s', async (_what, body) => {
  const other = await site.cluster('other');
  await archive(db1, 1, 1, 2);
  await site.call({ Records: await newRecords() });
  await archive(other, 1, 1, 3);
  await lose(await site.replica('main'), segment(1, 1));
  expect(await site.call(queue(body))).toEqual(NONE);
  await site.expectLevel(A);
  await site.expectLevel(other.cluster);
});

test('a message of the queue comes again where a cluster failed, and the other clusters are done', async () => {
  const bad = await site.cluster('bad');
  await archive(bad, 1, 1, 2);
  await site.sweep();
  await poison(bad);
  await archive(bad, 1, 3, 3);
  await archive(db1, 1, 1, 2);
  expect(await site.call(queue('{}', '{}'))).toEqual({
    batchItemFailures: [{ itemIdentifier: 'm0' }, { itemIdentifier: 'm1' }],
  });
  await site.expectLevel(A);
});

test('a cluster whose pass fails keeps nobody back, and just its own records come again', async () => {
  const bad = await site.cluster('bad');
  const good = await site.cluster('worthy'); // after 'bad' and after 'main' in the order of names
  for (const node of [db1, bad, good]) await archive(node, 1, 1, 2);
  expect(await site.call({ Records: await newRecords() })).toEqual(NONE);
  await poison(bad);
  await archive(good, 1, 3, 3);
  await archive(bad, 1, 3, 4);
  await archive(good, 1, 4, 4);
  await archive(db1, 1, 3, 3);
  const records = await newRecords();
  const answer = await site.call({ Records: records });
  const ofBad = records.filter(({ dynamodb }) => dynamodb!.Keys!['pk']!.S!.startsWith('bad/'));
  const first = ofBad.find(({ dynamodb }) => dynamodb!.Keys!['sk']!.S === `wal#${segment(1, 3)}`)!;
  expect(answer.batchItemFailures).toEqual([{ itemIdentifier: first.dynamodb!.SequenceNumber }]);
  await site.expectLevel(A);
  await site.expectLevel(good.cluster);
  // Lambda brings again everything from that record on
  expect(await site.call({ Records: records.slice(records.indexOf(first)) })).toEqual(answer);
  const B = await site.replica('bad');
  await lose(B, segment(1, 3));
  expect(await site.call({ Records: records.slice(records.indexOf(first)) })).toEqual(NONE);
  await site.expectLevel(bad.cluster);
});

/** A row is gone, as no event and no head would say. */
async function lose({ vault, partition }: Cluster, name: string): Promise<void> {
  await vault.manifest.transact([{ do: 'delete', key: keys.wal(partition, name), when: 'present' }]);
}

/** The replica holds other bytes under the name that comes next. */
async function poison(node: FakeNode): Promise<void> {
  const B = await site.replica(node.cluster.name);
  const other = await fakeNode(B, node.seat).store(segment(1, 3), 'of another server');
  if (other === 'same') throw new Error('the same bytes');
  const { key, sha256, sizeBytes, storedBytes, archivedAt } = other;
  const facts = {
    rev: 1,
    key,
    sha256,
    sizeBytes,
    storedBytes,
    archivedAt,
    compression: 'zstd',
    node: 'db1',
    epoch: 1,
  };
  await B.vault.manifest.transact([
    { do: 'put', when: 'absent', row: asRow({ ...keys.wal(B.partition, segment(1, 3)), ...facts }) },
  ]);
}

test('records that are no business of a relay do nothing, and a hint at a cluster that is gone is no failure', async () => {
  await archive(db1, 1, 1, 2);
  await site.call({ Records: await newRecords() });
  emulation.proxy.requests.length = 0;
  await newStandby(A, 'db2');
  const heartbeats = await newRecords();
  expect(heartbeats.length).toBeGreaterThan(0);
  expect(await site.call({ Records: heartbeats })).toEqual(NONE);
  expect(emulation.proxy.requests).toEqual([]);
  await archive(db1, 1, 3, 3);
  const gone = structuredClone(await newRecords());
  for (const { dynamodb } of gone) dynamodb!.Keys!['pk'] = { S: 'gone/7300000000000000001' };
  expect(await site.call({ Records: gone })).toEqual(NONE);
  await expect(site.sweep({ sweep: true, cluster: 'gone' })).rejects.toMatchObject({ code: 'unconfigured' });
});

test('a person has one cluster compared', async () => {
  const other = await site.cluster('other');
  await archive(db1, 1, 1, 2);
  await archive(other, 1, 1, 2);
  expect(await site.sweep({ cluster: 'other' })).toEqual({
    other: expect.objectContaining({ end: 'done', told: 1 }),
  });
  await site.expectLevel(other.cluster);
  await expect(site.replica('main')).rejects.toMatchObject({ code: 'unconfigured' });
});

test('several at once, of stream, queue and schedule, in one process and in others', async () => {
  await archive(db1, 1, 1, 30);
  const db2 = await newStandby(A, 'db2');
  await promote(A, db2, 31);
  await archive(db2, 2, 31, 36);
  await putBackup(A, 'b1', lsnText(2), lsnText(3));
  const Records = await newRecords();
  const answers = await Promise.all([
    site.call({ Records }),
    site.call({ Records: Records.slice(40) }),
    site.sweep(),
    site.callChild({ Records }),
    site.callChild(queue('{}')),
  ]);
  expect(answers).toEqual([
    NONE,
    NONE,
    { main: expect.objectContaining({ end: 'done' }) },
    { answer: NONE },
    { answer: NONE },
  ]);
  await site.expectLevel(A);
});

test('more than one call has time for: it asks to be called again until nothing is left', async () => {
  await archive(db1, 1, 1, 60);
  const Records = await newRecords();
  emulation.proxy.disturb(({ operation }) => operation === 'CopyObject', { delayMs: 120 });
  let calls = 0;
  // twice as much from call to call: on a slow machine the first ones may bring nothing
  for (let again = true; again && calls < 7; calls++) {
    const { batchItemFailures } = await site.call({ Records }, { leftMs: 8_000 + 1_500 * 2 ** calls });
    again = batchItemFailures.length > 0;
  }
  expect(calls).toBeGreaterThan(1);
  await site.expectLevel(A);
});

test('a cluster that has much to do leaves the next one its time', async () => {
  let failed: string[], ofSlow: string[];
  let scale = 1;
  // on a slow machine the share of the next one may be too short: twice the time then, and another one that takes twice as long
  do {
    const name = `slow${scale}`;
    await archive(await site.cluster(name), 1, 1, 60);
    await archive(db1, 1, scale, 2 * scale - 1);
    const Records = await newRecords();
    const isSlow = ({ operation, key }: AwsRequest) =>
      operation === 'CopyObject' && key?.includes(`/${name}/`) === true;
    emulation.proxy.disturb(isSlow, { delayMs: 300 * scale });
    const { batchItemFailures } = await site.call({ Records }, { leftMs: 8_000 + 3_500 * scale });
    failed = batchItemFailures.map(({ itemIdentifier }) => itemIdentifier);
    ofSlow = Records.filter(({ dynamodb }) => dynamodb!.Keys!['pk']!.S!.startsWith(name)).map(
      ({ dynamodb }) => dynamodb!.SequenceNumber!,
    );
    scale *= 2;
  } while (failed.some((each) => !ofSlow.includes(each)) && scale < 32);
  expect(failed).toHaveLength(1);
  expect(ofSlow).toContain(failed[0]);
  await site.expectLevel(A);
});

test('after a disaster the first call of the new region makes the old vault a replica, and sets the dead branch aside', async () => {
  await archive(db1, 1, 1, 3);
  await site.call({ Records: await newRecords() });
  await archive(db1, 1, 4, 5); // never relayed
  const dead = await newRecords();
  const B = await site.replica('main');
  const dr1 = await newStandby(B, 'dr1');
  const silent = () => Promise.reject(new VaultError('unreachable', 'it does not answer'));
  await takeOver(B, silent, { mode: 'smart', to: 'dr1', unfenced: true });
  await finishPromotion(B, dr1);
  await archive(dr1, 2, 4, 6);
  // the old region is back, and its function has events to carry out
  expect(await site.call({ Records: dead })).toEqual(NONE);
  expect((await readHead(B)).timeline).toBe(2);
  expect(await site.call({ Records: await site.away.stream.next() }, { from: site.away })).toEqual(NONE);
  expect(await readControl(A)).toMatchObject({ role: 'replica', primary: 'dr1' });
  expect(await readHead(A)).toMatchObject({ timeline: 2, lsn: lsnText(7) });
  expect((await listAside(A)).map(({ file }) => file)).toEqual([segment(1, 4), segment(1, 5)]);
  expect(await site.call({ Records: await newRecords() })).toEqual(NONE);
});

test('after a takeover the function of the other region carries, and this one does nothing', async () => {
  await archive(db1, 1, 1, 3);
  await site.call({ Records: await newRecords() });
  await archive(db1, 1, 4, 5);
  const late = await newRecords();
  const B = await site.replica('main');
  const dr1 = await newStandby(B, 'dr1');
  await takeOver(B, async () => A, { mode: 'smart', to: 'dr1' });
  await finishPromotion(B, dr1);
  await archive(dr1, 2, 6, 7);
  const before = await readHead(B);
  expect(await site.call({ Records: late })).toEqual(NONE);
  expect(await readHead(B)).toEqual(before);
  const Records = await site.away.stream.next();
  expect(await site.call({ Records }, { from: site.away })).toEqual(NONE);
  expect(await readHead(A)).toMatchObject({ timeline: 2, lsn: lsnText(8), epoch: 2 });
  expect(await readControl(A)).toMatchObject({ role: 'replica' });
  const heard = (await site.here.heard()).map(({ arrival }) => arrival);
  expect(heard.at(-1)).toMatchObject({
    kind: 'segments',
    timeline: 2,
    last: segment(2, 7),
    vault: site.here.url,
  });
});
