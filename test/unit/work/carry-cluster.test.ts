/** What a relay that is called does for one cluster, on vaults in memory: which ends are failures, and what the topic hears after each. */
import type { Arrival } from '../../../core/cluster/decide-announcements.ts';
import { VaultError } from '../../../core/errors.ts';
import { keys, type ArrivalsRow } from '../../../core/cluster/facts.ts';
import { announceArrivals } from '../../../core/work/announce.ts';
import { carryCluster } from '../../../core/work/carry-cluster.ts';
import { asRow, openCluster, readControl, readHead, type Cluster } from '../../../core/work/cluster.ts';
import { openReplica, relayPass } from '../../../core/work/relay.ts';
import { takeOver } from '../../../core/work/takeover.ts';
import { newCluster, newStandby, onWire, segment, type FakeNode } from '../../harness/fake-node.ts';
import { lsnText, promote } from '../../harness/promotions.ts';
import { holdings, memoryVault } from '../../harness/two-vaults.ts';

let db1: FakeNode;
let A: Cluster, B: Cluster;
let heard: Arrival[];

beforeEach(async () => {
  db1 = await newCluster(await memoryVault(), 'main');
  A = db1.cluster;
  B = await openReplica(A, await memoryVault());
  heard = [];
});

const publish = async (arrival: Arrival): Promise<void> => void heard.push(arrival);
const never = new AbortController().signal;
const carry = (changes: Partial<Parameters<typeof carryCluster>[2]> = {}, to = B) =>
  carryCluster(A, async () => to, { sweep: false, signal: never, publish, ...changes });
const archive = async (from: number, to: number) => {
  for (let each = from; each <= to; each++) await db1.archive(segment(1, each));
};
const toldRow = async () => (await B.vault.manifest.get(keys.notice('main', 'arrivals'))) as ArrivalsRow;

test('brings what is there and tells of it, once', async () => {
  await archive(1, 3);
  expect(await carry()).toMatchObject({ end: 'done', told: 1, report: { rows: 3 } });
  expect(heard).toMatchObject([
    {
      kind: 'segments',
      first: segment(1, 1),
      last: segment(1, 3),
      count: 3,
      lsn: lsnText(4),
      vault: B.vault.url,
    },
  ]);
  expect(await carry()).toMatchObject({ end: 'done', told: 0, report: { rows: 0 } });
  expect(heard).toHaveLength(1);
  expect(await holdings(B)).toEqual(await holdings(A));
});

test('a vault that is not the active one carries nothing and opens nothing', async () => {
  const away = () => Promise.reject(new Error('opened'));
  expect(await carryCluster(B, away, { sweep: true, signal: never, publish })).toEqual({
    end: 'elsewhere',
    told: 0,
  });
});

test('a vault that was given up while its relay slept carries nothing, and that is no failure', async () => {
  await archive(1, 3);
  await relayPass(A, B);
  await newStandby(B, 'dr1');
  const silent = (): Promise<Cluster> => Promise.reject(new VaultError('unreachable', 'away'));
  await takeOver(B, silent, { mode: 'smart', to: 'dr1', unfenced: true });
  expect(await readControl(A)).toMatchObject({ role: 'active' });
  expect(await carry()).toMatchObject({ end: 'elsewhere' });
});

test.each([
  ['it finds the other one active', async () => {}],
  [
    'it cannot reach the other one any more',
    () => Promise.reject(new VaultError('unreachable', 'it does not answer')),
  ],
])(
  'roles that change in the middle of a pass are no failure, and what had arrived is told: %s',
  async (_what, then) => {
    await archive(1, 40);
    const dr1 = await newStandby(B, 'dr1');
    let commits = 0;
    const target = await openCluster(
      onWire(B.vault, {
        before: async (changes) => {
          if (!changes.some((change) => change.do === 'put' && change.row.sk.startsWith('wal#'))) return;
          if (++commits !== 2) return; // after the first batch of rows
          await takeOver(dr1.cluster, async () => A, { mode: 'smart', to: 'dr1' });
          await then();
        },
      }),
      'main',
    );
    expect(await carry({}, target)).toMatchObject({ end: 'elsewhere', told: 1 });
    expect(heard).toMatchObject([{ first: segment(1, 1), last: segment(1, 40), count: 40 }]);
    expect(await readControl(A)).toMatchObject({ role: 'replica' });
  },
);

test('a pass that fails is a failure, and what it had brought is told all the same', async () => {
  await archive(1, 40);
  await A.vault.manifest.transact([
    { do: 'delete', key: keys.wal(A.partition, segment(1, 35)), when: 'present' },
  ]);
  await expect(carry()).rejects.toMatchObject({ code: 'hole' });
  expect(heard).toMatchObject([{ first: segment(1, 1), last: segment(1, 28) }]);
});

test('the time is over: unfinished where it got on, a failure where it brought nothing; the next call goes on', async () => {
  await archive(1, 60);
  const time = new AbortController();
  const target = await openCluster(onWire(B.vault, { after: async () => time.abort() }), 'main');
  expect(await carry({ signal: time.signal }, target)).toMatchObject({ end: 'unfinished', told: 1 });
  expect(heard).toMatchObject([{ count: 28 }]);
  await expect(carry({ signal: time.signal })).rejects.toMatchObject({
    code: 'unreachable',
    message: 'the time was over before anything was brought',
  });
  expect(await carry()).toMatchObject({ end: 'done' });
  expect(heard).toMatchObject([{ last: segment(1, 28) }, { first: segment(1, 29), last: segment(1, 60) }]);
});

test('a topic that is away fails the call and not the relay; the next one tells what is due', async () => {
  await archive(1, 2);
  const away = () => Promise.reject(new Error('the topic is away'));
  await expect(carry({ publish: away })).rejects.toThrow('the topic is away');
  expect((await readHead(B)).lsn).toBe(lsnText(3));
  await archive(3, 4);
  expect(await carry()).toMatchObject({ told: 1 });
  expect(heard).toMatchObject([{ first: segment(1, 1), last: segment(1, 4) }]);
});

test('what was told before the topic went away is not told again', async () => {
  await archive(1, 3);
  const db2 = await newStandby(A, 'db2');
  await promote(A, db2, 4);
  await db2.archive(segment(2, 4));
  const dies = async (arrival: Arrival) => {
    if (arrival.timeline === 2) throw new Error('away');
    heard.push(arrival);
  };
  await expect(carry({ publish: dies })).rejects.toThrow('away');
  expect(await toldRow()).toMatchObject({ rev: 1, ends: { '1': lsnText(4) }, histories: [] });
  await carry();
  expect(heard.map(({ kind, timeline }) => `${kind} ${timeline}`)).toEqual([
    'segments 1',
    'history 2',
    'segments 2',
  ]);
  expect(await toldRow()).toMatchObject({ rev: 3, ends: { '2': lsnText(5) } });
});

test('two at once tell each arrival, and leave one row that is right', async () => {
  await archive(1, 5);
  await relayPass(A, B);
  // both have read that nothing is told when the first one publishes
  const both = Promise.withResolvers<void>();
  const meet = async (arrival: Arrival) => {
    heard.push(arrival);
    if (heard.length === 2) both.resolve();
    await both.promise;
  };
  await Promise.all([announceArrivals(B, meet), announceArrivals(B, meet)]);
  expect(heard).toHaveLength(2);
  expect(await toldRow()).toMatchObject({ rev: 1, ends: { '1': lsnText(6) } });
  expect(await announceArrivals(B, publish)).toBe(0);
});

test('a replica that was made anew under its URL is told of from the start', async () => {
  await archive(1, 2);
  await carry();
  const row = await toldRow();
  await B.vault.manifest.transact([
    {
      do: 'put',
      row: asRow({ ...row, rev: row.rev + 1, vaultId: 'ffff000011112222' }),
      when: { rev: row.rev },
    },
  ]);
  heard = [];
  await carry();
  expect(heard).toMatchObject([{ first: segment(1, 1), last: segment(1, 2) }]);
});
