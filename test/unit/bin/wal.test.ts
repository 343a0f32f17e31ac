/** `walvault wal`: rows in their order, ranges, filters, holes, and what a few of very many cost. */
import { openVault } from '../../../core/vault/open-vault.ts';
import type { Manifest } from '../../../core/vault/manifest.ts';
import { openCluster, type Cluster } from '../../../core/work/cluster.ts';
import { lastWal, listHoles, listWal, type Hole, type WalEntry } from '../../../core/work/list-wal.ts';
import { readStatus } from '../../../core/work/status.ts';
import { keys } from '../../../core/cluster/facts.ts';
import { parseLsn } from '../../../core/wal/lsn.ts';
import { walvault } from '../../harness/command.ts';
import { newCluster, segment } from '../../harness/fake-node.ts';
import { gapRow, historyRow, plant, plantHead, tailRow, walRow } from '../../harness/planted-rows.ts';

/**
 * Timeline 1 from segment 1 to 6, without 3; forked within 6. Timeline 2 from 6 to 9, without 7 and 8, a declared gap. A tail of
 * timeline 1, one spill. Segments have 1 MiB.
 */
async function withWal(url: string): Promise<Cluster> {
  const { cluster } = await newCluster(await openVault(url), 'main');
  const { partition } = cluster;
  await plant(cluster, [
    ...[1, 2, 4, 5].map((number) => walRow(cluster, segment(1, number))),
    walRow(cluster, `${segment(1, 2)}.00000028.backup`),
    walRow(cluster, `${segment(1, 6)}.partial`),
    ...[6, 9].map((number) => walRow(cluster, segment(2, number), { node: 'db2', epoch: 2 })),
    historyRow(cluster, 2, [[1, '0/680000']]),
    tailRow(cluster, segment(1, 6), '0/680000'),
    gapRow(cluster, segment(2, 7), segment(2, 8)),
    {
      ...walRow(cluster, segment(2, 10), { node: 'db2', epoch: 2 }),
      ...keys.spill(partition, segment(2, 10)),
    },
  ]);
  await plantHead(cluster, { timeline: 2, lastTimeline: 2, firstLsn: '0/100000', lsn: '0/A00000' });
  return cluster;
}

async function asked<T = WalEntry>(url: string, ...more: string[]): Promise<T[]> {
  const said = await walvault(['wal', '--vault', url, '--cluster', 'main', '--json', ...more]);
  expect(said).toMatchObject({ code: 0, err: '' });
  return JSON.parse(said.out) as T[];
}

const files = async (url: string, ...more: string[]) =>
  (await asked(url, ...more)).map(
    ({ kind, file }) =>
      `${kind} ${Number(`0x${file.slice(0, 8)}`)}/${Number(`0x${file.slice(16, 24)}`)}${file.slice(24)}`,
  );

const ALL = [
  ...['wal 1/1', 'wal 1/2', 'wal 1/2.00000028.backup', 'wal 1/4', 'wal 1/5', 'tail 1/6', 'wal 1/6.partial'],
  ...['wal 2/6', 'gap 2/7', 'wal 2/9', 'spill 2/10'],
];

test('lists segments, tails, spills and gaps in one order; --limit gives the last ones', async () => {
  const url = 'memory:wal-all';
  await withWal(url);
  expect(await files(url)).toEqual(ALL);
  for (let limit = 1; limit <= ALL.length + 1; limit++)
    expect(await files(url, '--limit', `${limit}`)).toEqual(ALL.slice(-limit));
  const { out } = await walvault(['wal', '--vault', url, '--cluster', 'main']);
  expect(out.split('\n')[1]).toMatch(
    /^wal +0{7}10{15}1 +0\/100000 +0\/200000 +1 +db1 +2026-01-01T00:00:00.000Z +1000 B$/,
  );
  expect(out).toMatch(/^gap .*up to 000000020000000000000008: archiving was off$/m);
});

test('a range is of positions, whatever the timeline; a place within a segment means that segment', async () => {
  const url = 'memory:wal-range';
  await withWal(url);
  const late = ['wal 1/5', 'tail 1/6', 'wal 1/6.partial', 'wal 2/6'];
  for (const [from, to] of [
    ['0/500000', '0/600000'],
    ['0/5FFFFF', '0/6FFFFF'],
    [segment(1, 5), segment(2, 6)],
    [segment(7, 5), '0/680000'],
  ] as const) {
    expect(await files(url, '--from', from, '--to', to)).toEqual(late);
    expect(await files(url, '--from', from, '--to', to, '--limit', '2')).toEqual(late.slice(-2));
  }
  expect(await files(url, '--timeline', '1', '--from', '0/500000')).toEqual(late.slice(0, 3));
  expect(await files(url, '--to', segment(1, 1))).toEqual(['wal 1/1']);
  // a gap that reaches into the range
  expect(await files(url, '--timeline', '2', '--from', '0/800000', '--to', '0/8FFFFF')).toEqual(['gap 2/7']);
  expect(await files(url, '--timeline', '3')).toEqual([]);
});

test('filters by node and epoch', async () => {
  const url = 'memory:wal-node';
  await withWal(url);
  expect(await files(url, '--of', 'db2')).toEqual(['wal 2/6', 'wal 2/9', 'spill 2/10']);
  expect(await files(url, '--of', 'db1', '--limit', '2')).toEqual(['tail 1/6', 'wal 1/6.partial']);
  expect(await files(url, '--epoch', '2', '--limit', '1')).toEqual(['spill 2/10']);
});

test('--missing names the holes of the live branch, and why where it was declared', async () => {
  const url = 'memory:wal-missing';
  const cluster = await withWal(url);
  const holes: Hole[] = [
    { from: segment(1, 3), to: segment(1, 3), segments: 1, reason: null },
    { from: segment(2, 7), to: segment(2, 8), segments: 2, reason: 'archiving was off' },
  ];
  expect(await asked<Hole>(url, '--missing')).toEqual(holes);
  expect(await asked<Hole>(url, '--missing', '--limit', '1')).toEqual(holes.slice(1));
  expect(await asked<Hole>(url, '--missing', '--timeline', '1')).toEqual(holes.slice(0, 1));
  expect(await asked<Hole>(url, '--missing', '--to', '0/700000')).toEqual([
    holes[0],
    { ...holes[1], to: segment(2, 7), segments: 1 },
  ]);
  expect(await asked<Hole>(url, '--missing', '--from', '0/900000')).toEqual([]);
  // retention has come to segment 4: what lies before is nobody's
  const { partition } = cluster;
  await plant(cluster, [{ ...keys.holds(partition), rev: 1, horizon: { 1: segment(1, 4) }, holds: {} }]);
  expect(await asked<Hole>(url, '--missing')).toEqual(holes.slice(1));
  const { out } = await walvault(['wal', '--vault', url, '--cluster', 'main', '--missing']);
  expect(out).toBe(`MISSING  ${segment(2, 7)} to ${segment(2, 8)}  2 segments  archiving was off\n`);
});

test('a segment that a range did not show is asked for before it is called missing', async () => {
  const cluster = await withWal('memory:wal-range-hides');
  const inner = cluster.vault.manifest;
  const hiding: Manifest = {
    ...inner,
    async *query(range) {
      for await (const row of inner.query(range)) if (row.sk !== `wal#${segment(1, 4)}`) yield row;
    },
  };
  const over = { ...cluster, vault: { ...cluster.vault, manifest: hiding } };
  const holes: string[] = [];
  for await (const { from, to } of listHoles(over, { timeline: 1 })) holes.push(from, to);
  expect(holes).toEqual([segment(1, 3), segment(1, 3)]);
});

test('a place that is none, a range upside down and what does not go together are refused', async () => {
  const url = 'memory:wal-bad';
  await withWal(url);
  const said = async (...more: string[]) => {
    const { code, out, err } = await walvault(['wal', '--vault', url, '--cluster', 'main', ...more]);
    return [code, out, err];
  };
  for (const place of ['x', '0/', '00000001000000000000000', `${segment(1, 1)}.partial`, '00000002.history'])
    expect(await said('--from', place)).toEqual([
      2,
      '',
      expect.stringMatching(/neither the name of a segment/),
    ]);
  // segments of 1 MiB: 4096 in each 4 GiB
  expect(await said('--to', '000000010000000000001000')).toEqual([
    2,
    '',
    expect.stringMatching(/does not exist/),
  ]);
  expect(await said('--from', '0/500000', '--to', segment(1, 4))).toEqual([
    2,
    '',
    expect.stringMatching(/lies after --to/),
  ]);
  expect(await said('--missing', '--of', 'db1')).toEqual([2, '', expect.stringMatching(/of no node/)]);
  expect(await said('--timeline', '0')).toEqual([2, '', expect.stringMatching(/--timeline 0/)]);
  expect(await said('--cluster', 'other')).toEqual([67, '', expect.stringMatching(/no cluster other/)]);
  expect(await said('--vault', 'file:///nowhere/at/all')).toEqual([67, '', expect.stringMatching(/nowhere/)]);
  expect(await said('--timeline', '9')).toEqual([0, expect.stringMatching(/^nothing of main/), '']);
});

/** The same cluster over a manifest that counts the rows it hands out. */
async function counting(cluster: Cluster): Promise<{ cluster: Cluster; taken: () => number }> {
  let rows = 0;
  const inner = cluster.vault.manifest;
  const manifest: Manifest = {
    ...inner,
    async get(key) {
      rows++;
      return inner.get(key);
    },
    async *query(range) {
      for await (const row of inner.query(range)) {
        rows++;
        yield row;
      }
    },
  };
  const opened = await openCluster({ ...cluster.vault, manifest }, cluster.name);
  return {
    cluster: opened,
    taken() {
      const taken = rows;
      rows = 0;
      return taken;
    },
  };
}

test('of 100,000 rows the last twenty, a range, and status cost only a few', async () => {
  const COUNT = 100_000;
  const { cluster: whole } = await newCluster(await openVault('memory:wal-many'), 'main');
  const start = (number: number) =>
    `${Math.floor(number / 4096).toString(16)}/${(((number % 4096) << 20) >>> 0).toString(16)}`;
  await plant(
    whole,
    Array.from({ length: COUNT }, (_, index) => walRow(whole, segment(1, index + 1))),
  );
  const last = segment(1, COUNT);
  await plantHead(whole, { firstLsn: '0/100000', lsn: start(COUNT + 1), lastFile: last });
  const { cluster, taken } = await counting(whole);
  taken();
  const twenty = await lastWal(cluster, {}, 20);
  expect(twenty.map(({ file }) => file)).toEqual(
    Array.from({ length: 20 }, (_, index) => segment(1, COUNT - 19 + index)),
  );
  expect(taken()).toBeLessThanOrEqual(25);
  expect(
    await lastWal(cluster, { from: parseLsn(start(500)), to: parseLsn(start(60_000)) }, 20),
  ).toHaveLength(20);
  expect(taken()).toBeLessThanOrEqual(25);
  let few = 0;
  for await (const { file } of listWal(cluster, {
    from: parseLsn(start(70_000)),
    to: parseLsn(start(70_004)),
  }))
    expect(file).toBe(segment(1, 70_000 + few++));
  expect([few, taken() < 15]).toEqual([5, true]);
  expect((await readStatus(cluster)).lastSegment).toBe(last);
  expect(taken()).toBeLessThanOrEqual(10);
  // streamed: whoever stops after one has read a few
  for await (const { file } of listWal(cluster, {})) {
    expect(file).toBe(segment(1, 1));
    break;
  }
  expect(taken()).toBeLessThanOrEqual(5);
});
