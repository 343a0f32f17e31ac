/** `walvault timelines`: the tree, who opened what, dead ends and reserved numbers. */
import { openVault } from '../../../core/vault/open-vault.ts';
import type { Head } from '../../../core/cluster/facts.ts';
import type { Cluster } from '../../../core/work/cluster.ts';
import type { readTimelines } from '../../../core/work/timelines.ts';
import { walvault } from '../../harness/command.ts';
import { newCluster, segment } from '../../harness/fake-node.ts';
import { historyRow, plant, plantHead, tailRow, walRow } from '../../harness/planted-rows.ts';

type Seen = Awaited<ReturnType<typeof readTimelines>>;

async function asked(url: string): Promise<Seen> {
  const said = await walvault(['timelines', '--vault', url, '--cluster', 'main', '--json']);
  expect(said).toMatchObject({ code: 0, err: '' });
  return JSON.parse(said.out) as Seen;
}

/** 1 → 2 → 5 is live; 3 forked from 1 and 4 from 3: they lead nowhere. 6 and 7 are reserved, 7 for a promotion under way. */
async function grown(url: string): Promise<Cluster> {
  const { cluster } = await newCluster(await openVault(url), 'main');
  await plant(cluster, [
    ...[1, 2, 3].map((number) => walRow(cluster, segment(1, number))),
    walRow(cluster, segment(2, 3)),
    tailRow(cluster, segment(2, 4), '0/480000'),
    historyRow(cluster, 2, [[1, '0/380000']]),
    historyRow(cluster, 3, [[1, '0/3A0000']], { node: 'db3' }),
    historyRow(cluster, 4, [
      [1, '0/3A0000'],
      [3, '0/500000'],
    ]),
    historyRow(cluster, 5, [
      [1, '0/380000'],
      [2, '0/480000'],
    ]),
  ]);
  const promotion: Head['promotion'] = {
    ...{ id: 'p', epoch: 6, node: 'db7', mode: 'smart', state: 'sealed', at: '2026-01-01T00:00:00.000Z' },
    ...{ timeline: 5, lsn: '0/500000', reserved: 7 },
  };
  await plantHead(cluster, { timeline: 5, lastTimeline: 7, lsn: '0/480000', promotion });
  return cluster;
}

test('the tree has forks, who opened, the live branch, dead ends and reserved numbers', async () => {
  const url = 'memory:timelines-tree';
  await grown(url);
  const { timelines, reserved } = await asked(url);
  expect(
    timelines.map((one) => [
      one.timeline,
      one.parent,
      one.forkLsn,
      one.node,
      one.live,
      one.current,
      one.leadsNowhere,
    ]),
  ).toEqual([
    [1, null, null, null, true, false, false],
    [2, 1, '0/380000', 'db2', true, false, false],
    [3, 1, '0/3A0000', 'db3', false, false, false],
    [4, 3, '0/500000', 'db2', false, false, true],
    [5, 2, '0/480000', 'db2', true, true, false],
  ]);
  expect(timelines.map(({ lastFile }) => lastFile)).toEqual([segment(1, 3), segment(2, 3), null, null, null]);
  expect(timelines.map(({ tailLsn }) => tailLsn)).toEqual([null, '0/480000', null, null, null]);
  expect(reserved).toEqual([
    { from: 6, to: 6, node: null },
    { from: 7, to: 7, node: 'db7' },
  ]);
});

test('people read the dead ends before the branch that goes on', async () => {
  const url = 'memory:timelines-text';
  await grown(url);
  const { out } = await walvault(['timelines', '--vault', url, '--cluster', 'main']);
  expect(out.split('\n').map((line) => /^ *\d+ ?\**/.exec(line)?.[0].trimEnd() ?? '')).toEqual([
    ...['', '1 *', '  3', '    4', '2 *', '5 **', '', '', ''],
  ]);
  expect(out).toMatch(/^ {4}4 .*leads nowhere$/m);
  expect(out).toMatch(/^timeline 7 is reserved without a history: db7 is being promoted$/m);
});

test('a new cluster has timeline 1; one that came late has the ancestors that its history names', async () => {
  const { cluster } = await newCluster(await openVault('memory:timelines-new'), 'main');
  expect(await asked('memory:timelines-new')).toMatchObject({
    timelines: [{ timeline: 1, parent: null, live: true, current: true, leadsNowhere: false }],
    reserved: [],
  });
  await plant(cluster, [
    historyRow(cluster, 9, [
      [3, '0/300000'],
      [7, '0/700000'],
    ]),
  ]);
  await plantHead(cluster, { timeline: 9, lastTimeline: 9 });
  const { timelines, reserved } = await asked('memory:timelines-new');
  expect(timelines.map(({ timeline, parent, live }) => [timeline, parent, live])).toEqual([
    [3, null, true],
    [7, 3, true],
    [9, 7, true],
  ]);
  expect(reserved).toEqual([
    { from: 4, to: 6, node: null },
    { from: 8, to: 8, node: null },
  ]);
});

test('a history that is none, no cluster and no vault are named', async () => {
  const { cluster } = await newCluster(await openVault('memory:timelines-bad'), 'main');
  const said = async (...more: string[]) => {
    const { code, err } = await walvault([
      'timelines',
      '--vault',
      'memory:timelines-bad',
      '--cluster',
      'main',
      ...more,
    ]);
    return [code, err];
  };
  expect(await said('--cluster', 'other')).toEqual([67, expect.stringMatching(/no cluster other/)]);
  expect(await said('--vault', 'file:///nowhere/at/all')).toEqual([67, expect.stringMatching(/nowhere/)]);
  await plant(cluster, [historyRow(cluster, 2, [[1, '0/300000']], { text: 'nonsense' })]);
  expect(await said()).toEqual([66, expect.stringMatching(/\[corrupt\] history file, line 1/)]);
});
