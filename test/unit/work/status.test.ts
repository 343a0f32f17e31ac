import { keys } from '../../../core/cluster/facts.ts';
import { VaultError } from '../../../core/errors.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import type { Manifest } from '../../../core/vault/manifest.ts';
import { openVault } from '../../../core/vault/open-vault.ts';
import { openCluster, readHead, type Cluster } from '../../../core/work/cluster.ts';
import { COMMIT_BATCH, commitFiles } from '../../../core/work/commit.ts';
import { reportNode } from '../../../core/work/heartbeat.ts';
import { segmentsBehind } from '../../../core/work/segments-behind.ts';
import { readStatus } from '../../../core/work/status.ts';
import { triggerPromotion } from '../../../core/work/trigger.ts';
import { newCluster, newStandby, segment, type FakeNode } from '../../harness/fake-node.ts';
import { head, MiB } from '../../harness/facts.ts';

const ROWS = 10_000;

/** Rows without their bytes: status reads no object. */
async function archiveRows(db1: FakeNode, count: number): Promise<void> {
  for (let first = 1; first <= count; first += COMMIT_BATCH) {
    const numbers = Array.from(
      { length: Math.min(COMMIT_BATCH, count - first + 1) },
      (_, index) => first + index,
    );
    const files = numbers.map((number) => ({
      name: segment(1, number),
      key: `k${number}`,
      sha256: `${number}`,
      sizeBytes: MiB,
      storedBytes: 1,
      archivedAt: '2026-01-01T00:00:00.000Z',
    }));
    await commitFiles(db1.cluster, db1.seat, files);
  }
}

/** The same cluster over a manifest that counts the rows it hands out. */
async function counting(cluster: Cluster): Promise<{ cluster: Cluster; rows: () => number }> {
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
  return { cluster: await openCluster({ ...cluster.vault, manifest }, cluster.name), rows: () => rows };
}

test(`reads only what it needs of a manifest of ${ROWS} rows`, async () => {
  const db1 = await newCluster(await openVault('memory:status-rows'), 'main');
  await archiveRows(db1, ROWS);
  await newStandby(db1.cluster, 'db2');
  await reportNode(db1.cluster, {
    name: 'db2',
    lastRestored: segment(1, ROWS - 10),
    restartPoint: segment(1, ROWS - 20),
  });
  const { cluster, rows } = await counting(db1.cluster);
  const status = await readStatus(cluster, new Date('2026-01-01T00:01:00.000Z'));
  expect(status).toMatchObject({
    lastSegment: segment(1, ROWS),
    timeline: 1,
    gaps: [],
    backups: [],
    trigger: null,
    archiving: true,
  });
  expect(status.nodes.find(({ name }) => name === 'db2')).toMatchObject({
    role: 'standby',
    lastRestored: segment(1, ROWS - 10),
    restartPoint: segment(1, ROWS - 20),
    lagSegments: 10,
    lagSeconds: 60,
  });
  expect(rows()).toBeLessThan(12);
}, 60_000);

test('shows a trigger until its promotion is open', async () => {
  const db1 = await newCluster(await openVault('memory:status-trigger'), 'main');
  await newStandby(db1.cluster, 'db2');
  expect((await readStatus(db1.cluster)).trigger).toBeNull();
  await triggerPromotion(db1.cluster, { mode: 'fast', to: 'db2' });
  expect((await readStatus(db1.cluster)).trigger).toMatchObject({ mode: 'fast', to: 'db2', epoch: 2 });
  const row = await readHead(db1.cluster);
  await db1.cluster.vault.manifest.transact([
    {
      do: 'put',
      row: { ...row, rev: row.rev + 1, promotion: { ...row.promotion!, state: 'open' } },
      when: { rev: row.rev },
    },
  ]);
  expect((await readStatus(db1.cluster)).trigger).toBeNull();
});

test('calls a primary that the epoch no longer names fenced', async () => {
  const db1 = await newCluster(await openVault('memory:status-fenced'), 'main');
  await reportNode(db1.cluster, { name: 'db1', role: 'primary' });
  await newStandby(db1.cluster, 'db2');
  await triggerPromotion(db1.cluster, { mode: 'fast', to: 'db2' });
  const { nodes } = await readStatus(db1.cluster);
  expect(nodes.map(({ name, role }) => `${name} ${role}`)).toEqual(['db1 fenced', 'db2 standby']);
});

test('refuses a manifest of a newer format', async () => {
  const { cluster } = await newCluster(await openVault('memory:status-format'), 'main');
  const control = await cluster.vault.manifest.get(keys.control('main'));
  await cluster.vault.manifest.transact([
    { do: 'put', row: { ...control!, rev: 2, format: 99 }, when: { rev: 1 } },
  ]);
  await expect(readStatus(cluster)).rejects.toMatchObject({ code: 'format' });
  await expect(openCluster(cluster.vault, 'main')).rejects.toBeInstanceOf(VaultError);
});

describe('how far a standby is behind', () => {
  const size = 16 * MiB;
  const onOne = { head: head(), lineage: lineageOf(1, undefined), histories: new Map() };
  const onTwo = {
    head: head({ timeline: 2, lsn: '0/6000000' }),
    lineage: lineageOf(2, '1\t0/4800000\tx\n'),
    histories: new Map(),
  };
  test.each([
    [
      'nothing archived yet',
      { ...onOne, head: head({ lsn: null }) },
      '000000010000000000000004',
      { count: 0, next: null },
    ],
    ['everything restored', onOne, '000000010000000000000004', { count: 0, next: null }],
    ['two missing', onOne, '000000010000000000000002', { count: 2, next: '000000010000000000000003' }],
    ['nothing restored', onOne, null, null],
    [
      'across a fork: the segment that holds it begins again',
      onTwo,
      '000000010000000000000004',
      { count: 2, next: '000000020000000000000004' },
    ],
    ['past the fork: not on the live branch', onTwo, '000000010000000000000005', null],
    ['a timeline that is not on the branch', onTwo, '000000070000000000000005', null],
  ])('%s', (_what, branch, restored, expected) => {
    expect(segmentsBehind(branch, restored, size)).toEqual(expected);
  });
});
