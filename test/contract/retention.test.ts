/**
 * Retention on every kind of vault: what it takes, what it leaves, killed before and after each of its steps, and the races with those
 * who begin to need what it is about to take.
 */
import { keys, type BackupRow, type WalRow } from '../../core/cluster/facts.ts';
import type { RetentionPolicy } from '../../core/cluster/decide-retention.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { asRow, openCluster, type Cluster } from '../../core/work/cluster.ts';
import { commitFiles } from '../../core/work/commit.ts';
import { reportNode } from '../../core/work/heartbeat.ts';
import { CRASH_POINTS } from '../../core/work/crash-points.ts';
import { failBackup } from '../../core/work/backup-rows.ts';
import { addHold, dropHold, readHolds } from '../../core/work/holds.ts';
import { ORPHAN_MS } from '../../core/work/orphans.ts';
import { setPinned } from '../../core/work/pin-backup.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { findBackup } from '../../core/work/restore-backup.ts';
import { runRetention } from '../../core/work/retention.ts';
import { fetchFile } from '../../core/work/store-file.ts';
import { commitTail, fetchTail, readTail } from '../../core/work/tail.ts';
import { Swept } from '../../core/work/tombstones.ts';
import { dieAt } from '../harness/crashes.ts';
import { newCluster, newStandby, onWire, segment, type FakeNode, type Wire } from '../harness/fake-node.ts';
import { siteOf, vaultKinds } from '../harness/open-vaults.ts';
import { withNodeKey } from '../harness/node-key.ts';
import { lsnOf, lsnText, names, promote } from '../harness/promotions.ts';
import { segmentBytes } from '../harness/segments.ts';
import { memoryVault } from '../harness/two-vaults.ts';

const DAY = 86_400_000;
const POLICY: RetentionPolicy = {
  ...{ keepBackups: 1, keepDays: 0, pitrWindowMs: 0 },
  ...{ nodeLeaseMs: 3 * DAY, relayLeaseMs: 3 * DAY },
};
/** Past the age of orphans. */
const later = (): Date => new Date(Date.now() + ORPHAN_MS + 60_000);

describe.each(vaultKinds)('retention of $name', (kind) => {
  const site = siteOf(kind);
  let vault: Vault;
  let db1: FakeNode;
  let cluster: Cluster;
  let number = 0;

  beforeEach(async () => {
    vault = await site.connect();
    db1 = await newCluster(vault, `keep${++number}`);
    cluster = db1.cluster;
  });
  afterEach(() => vault?.close());

  const archive = async (from: number, to: number, timeline = 1, node = db1) => {
    for (let each = from; each <= to; each++) await node.archive(segment(timeline, each));
  };
  const at = (name: string, restartPoint: string) =>
    reportNode(cluster, { name, role: 'standby', consistent: true, restartPoint });
  const putBackup = async (id: string, start: number, more: Partial<BackupRow> = {}, into = cluster) => {
    const indexKey = `${into.partition}/backup/${id}/index.zst`;
    for (const key of [indexKey, `${into.partition}/backup/${id}/bundle-00001.zst`])
      await into.vault.bucket.putOnce(key, Buffer.from(`${id} ${key}`));
    const row = {
      ...keys.backup(into.partition, id),
      ...{ rev: 1, id, state: 'complete', node: 'db1', label: '', majorVersion: 18, timeline: 1 },
      ...{ startLsn: lsnText(start), stopLsn: `${lsnText(start).slice(0, -2)}28` },
      ...{ startSegment: segment(1, start), stopSegment: segment(1, start) },
      ...{ startedAt: new Date().toISOString(), finishedAt: new Date().toISOString() },
      ...{ sizeBytes: 1, storedBytes: 1, files: 1, indexKey },
      ...more,
    };
    await into.vault.manifest.transact([{ do: 'put', row: asRow(row), when: 'absent' }]);
  };
  const objects = async (folder: string, of = cluster): Promise<string[]> => {
    const found: string[] = [];
    for await (const { key } of of.vault.bucket.list(`${of.partition}/${folder}/`)) found.push(key);
    return found;
  };
  /** Every row has its object, and no two rows the same. */
  const expectWhole = async (of = cluster) => {
    for (const name of await names(of))
      await fetchFile(of, (await of.vault.manifest.get(keys.wal(of.partition, name))) as WalRow);
  };
  const retain = (more = {}) => runRetention(cluster, POLICY, more);
  const run = (from: number, to: number, timeline = 1): string[] =>
    Array.from({ length: to - from + 1 }, (_, index) => segment(timeline, from + index));

  test('a warm standby alone: everything below its restart point goes, row and object', async () => {
    await archive(1, 9);
    await at('db2', segment(1, 6));
    const plan = await retain({ dryRun: true });
    expect(plan).toMatchObject({
      wal: { rows: 5, first: segment(1, 1), last: segment(1, 5) },
      horizon: { '1': segment(1, 6) },
    });
    expect(await names(cluster)).toEqual(run(1, 9));
    expect(await retain()).toMatchObject({ wal: plan.wal, why: expect.stringContaining('node db2') });
    expect(await names(cluster)).toEqual(run(6, 9));
    expect(await objects('wal')).toHaveLength(4);
    expect((await readHolds(cluster))?.horizon).toEqual({ '1': segment(1, 6) });
    expect(await retain()).toMatchObject({ wal: { rows: 0 }, cut: lsnText(6) });
    await expectWhole();
    await archive(10, 10);
  });

  test('nobody, or nobody who said where he is: nothing goes', async () => {
    await archive(1, 9);
    expect(await retain()).toMatchObject({ cut: null, wal: { rows: 0 } });
    await at('db2', '0'.repeat(24));
    expect(await retain()).toMatchObject({ cut: null, wal: { rows: 0 } });
  });

  test('backups go with their objects, WAL follows; a pinned one keeps both', async () => {
    await archive(1, 9);
    for (const [id, start] of [
      ['a', 2],
      ['b', 4],
      ['c', 7],
    ] as const)
      await putBackup(id, start);
    await setPinned(cluster, 'b', true);
    expect(await retain()).toMatchObject({
      cut: lsnText(4),
      why: expect.stringContaining('backup b: pinned'),
    });
    expect(await names(cluster, 'backup#')).toEqual(['b', 'c']);
    expect(await objects('backup')).toHaveLength(4);
    await setPinned(cluster, 'b', false);
    await retain();
    expect(await names(cluster, 'backup#')).toEqual(['c']);
    expect(await names(cluster)).toEqual(run(7, 9));
    await expect(setPinned(cluster, 'b', true)).rejects.toMatchObject({ code: 'absent' });
  });

  test('over a fork: both names of its segment go together; what leads nowhere, histories and the live tail stay', async () => {
    await archive(1, 8);
    const db2 = await newStandby(cluster, 'db2');
    await promote(cluster, db2, 5, 'fast');
    await archive(5, 9, 2, db2);
    await at('db3', segment(2, 7));
    await reportNode(cluster, { name: 'db2', role: 'primary', lastArchived: segment(2, 9) });
    const report = await retain();
    expect(report).toMatchObject({ cut: lsnText(7), leftAlone: { offBranch: 4, aside: 0 } });
    expect(await names(cluster)).toEqual([...run(5, 8), ...run(7, 9, 2)]);
    expect(await names(cluster, 'history#')).toEqual(['00000002']);
    await archive(10, 10, 2, db2);
  });

  test('a lease that is over is said once, and a hold that nobody keeps is dropped', async () => {
    await archive(1, 9);
    await at('db2', segment(1, 3));
    await addHold(cluster, 'x', {
      kind: 'restore',
      from: segment(1, 2),
      node: 'db9',
      at: new Date().toISOString(),
    });
    expect(await retain()).toMatchObject({ cut: lsnText(2) });
    const now = new Date(Date.now() + 4 * DAY);
    await reportNode(
      cluster,
      { name: 'db3', role: 'standby', restartPoint: segment(1, 8) },
      now.toISOString(),
    );
    for (let each = 0; each < 2; each++)
      expect(await retain({ now })).toMatchObject({ cut: lsnText(8), ended: expect.anything() });
    const events: unknown[] = [];
    for await (const row of cluster.vault.manifest.query({
      pk: cluster.partition,
      from: 'event#',
      to: 'event$',
    }))
      if (row['kind'] === 'lease') events.push(row['text']);
    expect(events.toSorted()).toEqual([
      expect.stringContaining('hold x'),
      expect.stringContaining('node db2'),
    ]);
    expect((await readHolds(cluster))?.holds).toEqual({});
  });

  test('a backup whose process is gone is failed with its hold, so that it can never complete', async () => {
    await archive(1, 9);
    await at('db2', segment(1, 8));
    const startedAt = new Date().toISOString();
    await addHold(cluster, 'backup-r', { kind: 'backup', from: segment(1, 3), node: 'db1', at: startedAt });
    await putBackup('r', 3, { state: 'running', startedAt, finishedAt: null });
    expect(await retain()).toMatchObject({ cut: lsnText(3) });
    const now = new Date(Date.now() + 4 * DAY);
    await reportNode(cluster, { name: 'db2' }, now.toISOString());
    expect(await retain({ now })).toMatchObject({ cut: lsnText(8) });
    expect(await cluster.vault.manifest.get(keys.backup(cluster.partition, 'r'))).toMatchObject({
      state: 'failed',
      rev: 2,
    });
    await retain({ now: new Date(now.getTime() + 2 * DAY) });
    expect(await names(cluster, 'backup#')).toEqual([]);
    expect(await objects('backup')).toEqual([]);
  });

  test('a backup that failed on a node whose key may delete nothing goes with its objects a day later', async () => {
    await archive(1, 9);
    const startedAt = new Date().toISOString();
    await addHold(cluster, 'backup-f', { kind: 'backup', from: segment(1, 3), node: 'db1', at: startedAt });
    await putBackup('f', 3, { state: 'running', startedAt, finishedAt: null });
    const node = await openCluster(withNodeKey(vault), cluster.name);
    await failBackup(node, 'f', 'db1', new Error('the disk is full'));
    expect((await readHolds(cluster))?.holds).toEqual({});
    expect(await objects('backup')).toHaveLength(2);
    await at('db2', segment(1, 8));
    await retain({ now: new Date(Date.now() + 2 * DAY) });
    expect(await names(cluster, 'backup#')).toEqual([]);
    expect(await objects('backup')).toEqual([]);
  });

  describe('killed', () => {
    const scene = async () => {
      await archive(1, 9);
      await putBackup('a', 2);
      await putBackup('b', 7);
      await db1.store(segment(1, 10), 'never committed');
    };
    const expectDone = async () => {
      expect(await names(cluster)).toEqual(run(7, 9));
      expect(await names(cluster, 'backup#')).toEqual(['b']);
      expect(await objects('backup')).toHaveLength(2);
      expect(await objects('wal')).toHaveLength(3);
    };

    test.each(['before', 'after'] as const)(
      '%s any transaction or delete: nothing needed is gone, and the next run ends it',
      async (when) => {
        for (let point = 1, done = false; !done; point++) {
          if (point > 1) {
            db1 = await newCluster(vault, `keep${++number}`);
            cluster = db1.cluster;
          }
          await scene();
          let count = 0;
          const die = async () => {
            if (++count === point) throw new Error('killed');
          };
          const wired = onWire(vault, { [when]: die });
          const bucket = Object.assign(Object.create(vault.bucket) as Vault['bucket'], {
            async delete(key: string) {
              if (when === 'before') await die();
              await vault.bucket.delete(key);
              if (when === 'after') await die();
            },
          });
          const deadly = await openCluster({ ...wired, bucket }, cluster.name);
          await runRetention(deadly, POLICY, { now: later() }).then(
            () => (done = true),
            (error: Error) => expect(error.message).toBe('killed'),
          );
          await expectWhole();
          expect((await names(cluster)).slice(-3)).toEqual(run(7, 9));
          expect(await findBackup(cluster, 'latest')).toMatchObject({ id: 'b' });
          await retain({ now: later() });
          await expectDone();
        }
      },
      120_000,
    );

    // what a memory: vault holds dies with the process
    if (kind.name === 'file' || kind.name.startsWith('s3'))
      test.each(CRASH_POINTS.filter((point) => point.startsWith('retention-')))(
        'at %s, by kill -9: nothing needed is gone, and the next run ends it',
        async (point) => {
          await scene();
          await dieAt(point, 'retention', cluster);
          await expectWhole();
          expect((await names(cluster)).slice(-3)).toEqual(run(7, 9));
          expect(await findBackup(cluster, 'latest')).toMatchObject({ id: 'b' });
          await db1.archive(segment(1, 10));
          await retain({ now: later() });
          expect(await names(cluster)).toEqual(run(7, 10));
          expect(await names(cluster, 'backup#')).toEqual(['b']);
          expect(await objects('backup')).toHaveLength(2);
          expect(await objects('wal')).toHaveLength(4);
          await expectWhole();
        },
      );

    test('two at once do the same', async () => {
      await scene();
      await Promise.all([retain({ now: later() }), retain({ now: later() })]);
      await retain({ now: later() });
      await expectDone();
    });
  });

  describe('races', () => {
    /** Once, between what it read and what it writes. */
    const between = (meanwhile: () => Promise<unknown>): Wire => {
      let isDone = false;
      return {
        async before() {
          if (isDone) return;
          isDone = true;
          await meanwhile();
        },
      };
    };
    const retainWith = async (meanwhile: () => Promise<unknown>) =>
      runRetention(await openCluster(onWire(vault, between(meanwhile)), cluster.name), POLICY);
    const now = () => new Date().toISOString();

    test('a hold that is added after it has decided is kept to', async () => {
      await archive(1, 9);
      await at('db2', segment(1, 8));
      const report = await retainWith(() =>
        addHold(cluster, 'x', { kind: 'standby', from: segment(1, 4), node: 'db3', at: now() }),
      );
      expect(report.cut).toBe(lsnText(4));
      expect(await names(cluster)).toEqual(run(4, 9));
    });

    test('a new node that is registered and has dropped its hold in the meantime is kept to', async () => {
      await archive(1, 9);
      await at('db2', segment(1, 8));
      const report = await retainWith(async () => {
        await addHold(cluster, 'x', { kind: 'standby', from: segment(1, 4), node: 'db3', at: now() });
        await reportNode(cluster, { name: 'db3', role: 'standby', restartPoint: segment(1, 4) }, null);
        await dropHold(cluster, 'x');
      });
      expect(report.cut).toBe(lsnText(4));
    });

    test('a backup that starts before the horizon moves is kept to; one that starts after it, below, is refused', async () => {
      await archive(1, 9);
      await at('db2', segment(1, 8));
      const hold = { kind: 'backup', from: segment(1, 5), node: 'db1', at: now() } as const;
      expect(await retainWith(() => addHold(cluster, 'backup-r', hold))).toMatchObject({ cut: lsnText(5) });
      await dropHold(cluster, 'backup-r');
      await retain();
      await expect(addHold(cluster, 'backup-s', hold)).rejects.toMatchObject({ code: 'refused' });
      await addHold(cluster, 'backup-t', { ...hold, from: segment(1, 8) });
    });

    test('a restore that starts finds its backup whole, or is told that it goes', async () => {
      await archive(1, 9);
      await putBackup('a', 4);
      await putBackup('b', 7);
      const hold = { kind: 'restore', from: segment(1, 4), node: 'db3', at: now() } as const;
      await retainWith(() => addHold(cluster, 'x', hold));
      expect(await findBackup(cluster, 'a')).toMatchObject({ state: 'complete' });
      expect(await objects('backup')).toHaveLength(4);
      await dropHold(cluster, 'x');
      // something else holds the WAL, so that the hold alone is not refused: the backup's own state says it
      await at('db2', segment(1, 4));
      await retain();
      await addHold(cluster, 'x', hold);
      await expect(findBackup(cluster, 'a')).rejects.toMatchObject({ code: 'refused' });
      expect(await findBackup(cluster, 'latest')).toMatchObject({ id: 'b' });
    });

    test('a pin comes before the deletion, or is refused', async () => {
      await archive(1, 9);
      await putBackup('a', 4);
      await putBackup('b', 7);
      expect(await retainWith(() => setPinned(cluster, 'a', true))).toMatchObject({ cut: lsnText(4) });
      await setPinned(cluster, 'a', false);
      await at('db2', segment(1, 4));
      await retain();
      await expect(setPinned(cluster, 'a', true)).rejects.toMatchObject({ code: 'refused' });
    });
  });

  describe('orphans', () => {
    test('an object without a row goes after a day, and not before; those with a row stay', async () => {
      await archive(1, 3);
      await db1.store(segment(1, 4), 'never committed');
      expect(await retain()).toMatchObject({ orphans: { objects: 0 } });
      expect(await retain({ now: later() })).toMatchObject({ orphans: { objects: 1 } });
      expect(await objects('wal')).toHaveLength(3);
      await expectWhole();
    });

    test('an upload that commits late meets the tombstone, and is stored again under a new key', async () => {
      await archive(1, 3);
      const stored = await db1.store(segment(1, 4));
      if (stored === 'same') throw new Error('no row yet');
      await retain({ now: later() });
      await expect(commitFiles(cluster, db1.seat, [stored])).rejects.toBeInstanceOf(Swept);
      expect(await names(cluster)).toEqual(run(1, 3));
      await archive(4, 5);
      await expectWhole();
      await at('db2', segment(1, 5));
      await retain({ now: later() });
      await archive(6, 6);
      await retain({ now: later() });
      expect(await names(cluster, 'tombstone#')).toEqual([]);
    });

    /** Once, before the first transaction that puts a row under `prefix`: the sweep takes the object that it names. */
    const sweepBefore = (of: Cluster, prefix: string): Wire & { swept: number } => ({
      swept: 0,
      async before(changes) {
        const isMeant = changes.some((each) => each.do === 'put' && each.row.sk.startsWith(prefix));
        if (this.swept > 0 || !isMeant) return;
        this.swept = (await runRetention(of, POLICY, { now: later() })).orphans.objects;
      },
    });

    test('so does a relay that was asleep between object and row', async () => {
      await archive(1, 3);
      const replica = await openReplica(cluster, await memoryVault());
      const wire = sweepBefore(replica, 'wal#');
      await relayPass(cluster, await openCluster(onWire(replica.vault, wire), cluster.name));
      expect(wire.swept).toBe(3);
      expect(await names(replica)).toEqual(run(1, 3));
      await expectWhole(replica);
    });

    test('and a flush that was', async () => {
      await archive(1, 3);
      const wire = sweepBefore(cluster, 'tail#');
      const [name, bytes] = [segment(1, 4), segmentBytes(segment(1, 4))];
      const tail = { segment: name, bytes, lsn: lsnOf(4) + 8192n };
      await commitTail(await openCluster(onWire(vault, wire), cluster.name), db1.seat, tail, 'flush');
      expect(wire.swept).toBe(1);
      const row = await readTail(cluster, 1);
      expect(await fetchTail(cluster, row!)).toHaveLength(bytes.length);
    });

    test('a commit between the look and the tombstone keeps its object', async () => {
      await archive(1, 3);
      const stored = await db1.store(segment(1, 4));
      if (stored === 'same') throw new Error('no row yet');
      let isDone = false;
      const wire: Wire = {
        async before(changes) {
          if (isDone || !changes.some((each) => each.do === 'put' && each.row.sk.startsWith('tombstone#')))
            return;
          isDone = true;
          await commitFiles(cluster, db1.seat, [stored]);
        },
      };
      const report = await runRetention(await openCluster(onWire(vault, wire), cluster.name), POLICY, {
        now: later(),
      });
      expect([isDone, report.orphans.objects]).toEqual([true, 0]);
      expect(await names(cluster)).toEqual(run(1, 4));
      await expectWhole();
    });
  });

  describe('with a replica', () => {
    test('each has a retention of its own, and the relay brings nothing back', async () => {
      await archive(1, 9);
      await putBackup('a', 2);
      const replica = await openReplica(cluster, await memoryVault());
      await relayPass(cluster, replica);
      await putBackup('b', 7);
      await relayPass(cluster, replica);
      await reportNode(replica, { name: 'dr1', role: 'standby', restartPoint: segment(1, 8) });
      expect(await runRetention(replica, POLICY)).toMatchObject({ cut: lsnText(7) });
      expect(await names(replica)).toEqual(run(7, 9));
      expect(await relayPass(cluster, replica, { sweep: true })).toMatchObject({ rows: 0, backups: [] });
      expect(await names(replica, 'backup#')).toEqual(['b']);
      expect(await names(cluster)).toEqual(run(1, 9));
      await archive(10, 10);
      expect(await relayPass(cluster, replica, { sweep: true })).toMatchObject({ rows: 1 });
    });

    test('what a replica has not got stays; a new one begins where the vault begins', async () => {
      await archive(1, 4);
      const replica = await openReplica(cluster, await memoryVault());
      await relayPass(cluster, replica);
      await archive(5, 9);
      await at('db2', segment(1, 8));
      expect(await retain()).toMatchObject({ cut: lsnText(5), why: expect.stringContaining('relay') });
      expect(await relayPass(cluster, replica)).toMatchObject({ rows: 5 });
      expect(await retain()).toMatchObject({ cut: lsnText(8) });
      // one that somebody archived again
      await archive(2, 2);
      const fresh = await openReplica(cluster, await memoryVault());
      expect(await relayPass(cluster, fresh)).toMatchObject({ rows: 2 });
      expect(await names(fresh)).toEqual(run(8, 9));
    });
  });
});
