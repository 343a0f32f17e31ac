/**
 * Archiving off and on, on every backend: a gap has just the segments that were ignored, whoever switches, commits, sleeps or dies meanwhile,
 * and nobody is told that what lies in it is not there.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { keys, type GapRow } from '../../core/cluster/facts.ts';
import { VaultError } from '../../core/errors.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { setArchiving } from '../../core/work/archiving.ts';
import { proveSegments } from '../../core/work/backup-rows.ts';
import { readBranch } from '../../core/work/branch.ts';
import { listRows, openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { commitFiles, NotStored, type CommitResult } from '../../core/work/commit.ts';
import { readGaps } from '../../core/work/gap-rows.ts';
import { reportNode } from '../../core/work/heartbeat.ts';
import { declareIgnored, ignoreHere, readIgnored, setLocalWord } from '../../core/work/local-off.ts';
import type { NodeContext } from '../../core/work/node-context.ts';
import { statePaths } from '../../core/work/node-state.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { answerRestore, viewOf } from '../../core/work/restore-request.ts';
import { refuseGapAfter } from '../../core/work/standby.ts';
import { readStatus } from '../../core/work/status.ts';
import { declineFile, sha256Of, type StoredFile, type UnstoredFile } from '../../core/work/store-file.ts';
import { commitTail, readTail, undoFlush } from '../../core/work/tail.ts';
import { triggerPromotion } from '../../core/work/trigger.ts';
import {
  fakeNode,
  newCluster,
  newStandby,
  onWire,
  segment,
  type FakeNode,
  type Wire,
} from '../harness/fake-node.ts';
import { siteOf, vaultKinds } from '../harness/open-vaults.ts';
import { finishPromotion, lsnOf, lsnText, names } from '../harness/promotions.ts';
import { SEGMENT_SIZE, segmentBytes } from '../harness/segments.ts';
import { expectSound, holdings, memoryVault } from '../harness/two-vaults.ts';

describe.each(vaultKinds)('archiving off and on, on $name', (kind) => {
  const site = siteOf(kind);
  let vault: Vault;
  let db1: FakeNode;
  let number = 0;

  beforeEach(async () => {
    vault = await site.connect();
    db1 = await newCluster(vault, `main${++number}`);
    for (const n of [1, 2]) await db1.archive(segment(1, n));
  });
  afterEach(() => vault.close());

  const wired = async (wire: Wire): Promise<Cluster> => openCluster(onWire(vault, wire), db1.cluster.name);
  const gaps = async (cluster = db1.cluster): Promise<[string, string][]> =>
    (await listRows<GapRow>(cluster, 'gap#')).map(({ from, to }) => [from, to]);
  const stored = async (n: number): Promise<StoredFile> => (await db1.store(segment(1, n))) as StoredFile;
  const unstored = async (n: number): Promise<UnstoredFile> => {
    const name = segment(1, n);
    const file = await declineFile(db1.cluster, db1.seat, { name, bytes: segmentBytes(name) });
    return file as UnstoredFile;
  };
  /** As hooks and agent hand it in while archiving is off. */
  const ignore = async (n: number, cluster = db1.cluster): Promise<CommitResult> =>
    (await commitFiles(cluster, db1.seat, [await unstored(n)]))[0]!;
  const off = () => setArchiving(db1.cluster, false);
  const on = () => setArchiving(db1.cluster, true);

  test('what is handed in is declared lost, in one row, and head moves past it', async () => {
    expect(await off()).toBe(true);
    expect(await off()).toBe(false);
    for (const n of [3, 4, 5]) {
      const { result, notice } = await ignore(n);
      expect([result, notice]).toEqual([
        'gap',
        expect.stringMatching(
          `^archiving not active: ignoring pg_wal/${segment(1, n)} \\(would be stored as \\S+\\)$`,
        ),
      ]);
    }
    expect(await gaps()).toEqual([[segment(1, 3), segment(1, 5)]]);
    expect(await readHead(db1.cluster)).toMatchObject({
      ...{ lsn: lsnText(6), lastFile: segment(1, 2) },
      gap: { count: 1, from: segment(1, 3), to: segment(1, 5) },
    });
    expect(await on()).toBe(true);
    expect(await db1.archive(segment(1, 6))).toBe('committed');
    expect(await names(db1.cluster, 'wal#')).toEqual([1, 2, 6].map((n) => segment(1, n)));
    await expectSound(db1.cluster);
    expect(await readStatus(db1.cluster)).toMatchObject({
      ...{ archiving: true, backupNeeded: { from: segment(1, 3), to: segment(1, 5) } },
    });
  });

  test('what the vault holds is the same, or a conflict, whether archiving is on or off', async () => {
    await off();
    expect(await db1.archive(segment(1, 2))).toBe('same');
    await expect(db1.archive(segment(1, 2), 'other')).rejects.toMatchObject({ code: 'conflict' });
    expect(await gaps()).toEqual([]);
  });

  test('a commit that was decided before off fails its condition, and is decided anew', async () => {
    let slept = false;
    const cluster = await wired({
      before: async () => {
        if (!slept) await off();
        slept = true;
      },
    });
    const results = await commitFiles(cluster, db1.seat, [await stored(3), await stored(4)]);
    expect(results.map(({ result }) => result)).toEqual(['gap', 'gap']);
    expect(await names(db1.cluster)).toEqual([segment(1, 1), segment(1, 2)]);
    expect(await gaps()).toEqual([[segment(1, 3), segment(1, 4)]]);
  });

  test('a commit that landed before off stays whole, though its answer is lost', async () => {
    let lost = false;
    const cluster = await wired({
      after: async () => {
        if (lost) return;
        lost = true;
        await off();
        throw new VaultError('unreachable', 'lost answer');
      },
    });
    const results = await commitFiles(cluster, db1.seat, [await stored(3), await stored(4)]);
    expect(results.map(({ result }) => result)).toEqual(['same', 'same']);
    expect(await gaps()).toEqual([]);
  });

  test('what is not stored is not declared once archiving is on again', async () => {
    await off();
    let slept = false;
    const cluster = await wired({
      before: async () => {
        if (!slept) await on();
        slept = true;
      },
    });
    await expect(ignore(3, cluster)).rejects.toBeInstanceOf(NotStored);
    expect(await gaps()).toEqual([]);
    expect(await db1.archive(segment(1, 3))).toBe('committed');
  });

  test('agent and lone hook at once: one row, and both are told that it is ignored', async () => {
    await off();
    const twin = await wired({});
    const answers = await Promise.all([ignore(3), ignore(3, twin)]);
    expect(answers.map(({ result }) => result)).toEqual(['gap', 'gap']);
    expect(await gaps()).toEqual([[segment(1, 3), segment(1, 3)]]);
    expect((await readHead(db1.cluster)).gap?.count).toBe(1);
  });

  test('killed between the declaration and its answer: asked again it is declared once', async () => {
    await off();
    const dying = await wired({
      after: async () => {
        throw new Error('killed');
      },
    });
    await expect(ignore(3, dying)).rejects.toThrow('killed');
    expect((await ignore(3)).result).toBe('gap');
    expect(await gaps()).toEqual([[segment(1, 3), segment(1, 3)]]);
    const events = await listRows<{ kind: string }>(db1.cluster, 'event#');
    expect(events.filter(({ kind: each }) => each === 'gap')).toHaveLength(1);
  });

  test('a fenced node declares nothing', async () => {
    const db2 = await newStandby(db1.cluster, 'db2');
    await off();
    await triggerPromotion(db1.cluster, { mode: 'fast', to: db2.seat.node });
    await expect(ignore(3)).rejects.toMatchObject({ code: 'fenced' });
    expect(await gaps()).toEqual([]);
  });

  test.each([
    ['the first', 3, [[4, 6]]],
    ['the last', 6, [[3, 5]]],
    [
      'one between',
      4,
      [
        [3, 3],
        [5, 6],
      ],
    ],
  ])('%s of a gap that is handed in after all takes its place', async (_what, n, left) => {
    await off();
    for (const each of [3, 4, 5, 6]) await ignore(each);
    await on();
    expect(await db1.archive(segment(1, n))).toBe('committed');
    expect(await gaps()).toEqual(left.map(([from, to]) => [segment(1, from!), segment(1, to!)]));
    expect((await readHead(db1.cluster)).gap?.count).toBe(left.length);
    for (const each of [3, 4, 5, 6]) if (each !== n) await db1.archive(segment(1, each));
    expect(await gaps()).toEqual([]);
    expect((await readHead(db1.cluster)).gap).toBeNull();
    await expectSound(db1.cluster);
  });

  test('the tail of a flush that was undone is served no more once its segment is declared lost', async () => {
    const bytes = segmentBytes(segment(1, 3));
    await commitTail(db1.cluster, db1.seat, { segment: segment(1, 3), bytes, lsn: lsnOf(3) + 400n }, 'flush');
    await expect(off()).rejects.toMatchObject({ code: 'refused' });
    await undoFlush(db1.cluster, 'db1');
    await off();
    await ignore(3);
    expect(await readTail(db1.cluster, 1)).toBeUndefined();
    expect((await readHead(db1.cluster)).tail).toBeNull();
  });

  test('off is refused while a promotion is pending, and in a replica', async () => {
    const db2 = await newStandby(db1.cluster, 'db2');
    await triggerPromotion(db1.cluster, { mode: 'smart', to: db2.seat.node });
    await expect(off()).rejects.toMatchObject({ code: 'refused' });
    expect((await readControl(db1.cluster)).archiving).toBe(true);
    const replica = await openReplica(db1.cluster, await memoryVault());
    await expect(setArchiving(replica, false)).rejects.toMatchObject({ code: 'refused' });
  });

  describe('with a gap', () => {
    beforeEach(async () => {
      await off();
      for (const n of [3, 4]) await ignore(n);
      await on();
      for (const n of [5, 6]) await db1.archive(segment(1, n));
    });

    test('restore never says of a segment in it that it is not there', async () => {
      const settings = { restoreTimeout: 1000, pollInterval: 10 };
      const context = { settings, node: 'db2', cluster: async () => db1.cluster, histories: new Map() };
      const source = {
        view: async () => viewOf(db1.cluster, await readBranch(db1.cluster), 'db2'),
        fetch: () => Promise.reject(new Error('nothing is to be fetched')),
        put: () => Promise.reject(new Error('nothing is to be put')),
      };
      const ask = (mode: 'standby' | 'archive', promotionPending: boolean) =>
        answerRestore(context as unknown as NodeContext, source, {
          name: segment(1, 3),
          mode,
          promotionPending,
        });
      const message = expect.stringContaining('declared gap') as string;
      await expect(ask('standby', false)).rejects.toMatchObject({ code: 'refused', message });
      await expect(ask('standby', true)).rejects.toMatchObject({ code: 'unsafe', message });
      await expect(ask('archive', false)).rejects.toMatchObject({ code: 'unsafe', message });
    });

    test('no backup is complete across it, and none of before it leads past it', async () => {
      const place = (n: number) => ({ timeline: 1, lsn: lsnOf(n) + 100n });
      const prove = (start: number, stop: number) =>
        proveSegments(db1.cluster, { start: place(start), stop: place(stop) } as Parameters<
          typeof proveSegments
        >[1]);
      await expect(prove(2, 5)).rejects.toMatchObject({ code: 'refused' });
      await prove(1, 2);
      await prove(5, 6);
      await expect(refuseGapAfter(db1.cluster, 'it', lsnOf(2))).rejects.toMatchObject({ code: 'refused' });
      await refuseGapAfter(db1.cluster, 'it', lsnOf(5));
    });

    test('a trigger of a standby before it is refused, unless that is said; then it opens just before it', async () => {
      const db2 = await newStandby(db1.cluster, 'db2');
      const past = await newStandby(db1.cluster, 'db3');
      await reportNode(db1.cluster, { name: 'db2', lastRestored: segment(1, 2) });
      await reportNode(db1.cluster, { name: 'db3', lastRestored: segment(1, 5) });
      for (const mode of ['smart', 'fast'] as const)
        await expect(triggerPromotion(db1.cluster, { mode, to: 'db2' })).rejects.toMatchObject({
          code: 'refused',
        });
      await triggerPromotion(db1.cluster, { mode: 'smart', to: past.seat.node });
      await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2', supersede: 2, acceptGap: true });
      await expect(finishPromotion(db1.cluster, db2, lsnOf(2))).rejects.toMatchObject({ code: 'refused' });
      await finishPromotion(db1.cluster, db2, lsnOf(3));
      expect(await db2.archive(segment(2, 3))).toBe('committed');
      expect(await readStatus(db1.cluster)).toMatchObject({ timeline: 2, backupNeeded: null });
    });

    test('a relay carries it in its place, and what fills it afterwards', async () => {
      const replica = await openReplica(db1.cluster, await memoryVault());
      await relayPass(db1.cluster, replica);
      expect(await holdings(replica)).toEqual(await holdings(db1.cluster));
      expect(await readHead(replica)).toMatchObject({ lsn: lsnText(7), gap: { count: 1 } });
      await db1.archive(segment(1, 4));
      await off();
      await ignore(7);
      await relayPass(db1.cluster, replica);
      expect(await holdings(replica)).toEqual(await holdings(db1.cluster));
      expect((await readControl(replica)).archiving).toBe(false);
      await expectSound(replica);
    });
  });

  describe('off by the word of a node alone', () => {
    let dir: string;
    beforeEach(() => {
      dir = mkdtempSync(path.join(os.tmpdir(), 'walvault-local-'));
      setLocalWord(statePaths(dir), true, '2026-01-01T00:00:00Z');
    });
    afterEach(() => rmSync(dir, { recursive: true, force: true }));

    const declare = (cluster = db1.cluster) => declareIgnored(cluster, db1.seat, statePaths(dir));

    test('what was ignored comes first, in order, and only then the next one', async () => {
      const many = Array.from({ length: 40 }, (_, index) => segment(1, 3 + index));
      ignoreHere(statePaths(dir), [many[0]!, `${many[0]!}.00000028.backup`, ...many.slice(1)], SEGMENT_SIZE);
      ignoreHere(statePaths(dir), many.slice(3, 5), SEGMENT_SIZE);
      expect(readIgnored(statePaths(dir))).toEqual([{ from: many[0], to: many.at(-1) }]);
      await expect(db1.archive(segment(1, 43))).rejects.toMatchObject({ code: 'hole' });
      expect(await declare()).toBe(40);
      expect(readIgnored(statePaths(dir))).toEqual([]);
      expect(await gaps()).toEqual([[many[0], many.at(-1)]]);
      expect(await db1.archive(segment(1, 43))).toBe('committed');
      expect((await readControl(db1.cluster)).archiving).toBe(true);
    });

    test('killed between the vault and the own book: done again it changes nothing', async () => {
      ignoreHere(statePaths(dir), [segment(1, 3), segment(1, 4)], SEGMENT_SIZE);
      const book = readFileSync(statePaths(dir).ignored);
      await declare();
      await db1.archive(segment(1, 5));
      const before = await readHead(db1.cluster);
      writeFileSync(statePaths(dir).ignored, book);
      expect(await declare()).toBeGreaterThanOrEqual(0);
      expect({ ...(await readHead(db1.cluster)), writer: null }).toEqual({ ...before, writer: null });
      expect(readIgnored(statePaths(dir))).toEqual([]);
    });

    test('what had landed in the vault all the same is not declared lost', async () => {
      const late = [await stored(3)];
      ignoreHere(statePaths(dir), [segment(1, 3), segment(1, 4)], SEGMENT_SIZE);
      await commitFiles(db1.cluster, db1.seat, late);
      expect(await declare()).toBe(1);
      expect(await gaps()).toEqual([[segment(1, 4), segment(1, 4)]]);
      const row = await db1.cluster.vault.manifest.get(keys.wal(db1.cluster.partition, segment(1, 3)));
      expect(row?.['sha256']).toBe(sha256Of(segmentBytes(segment(1, 3))));
    });

    test('past a segment that nobody brought it declares nothing', async () => {
      ignoreHere(statePaths(dir), [segment(1, 4)], SEGMENT_SIZE);
      await expect(declare()).rejects.toMatchObject({ code: 'hole' });
      expect(readIgnored(statePaths(dir))).toHaveLength(1);
    });

    test('a node that was fenced meanwhile declares nothing', async () => {
      ignoreHere(statePaths(dir), [segment(1, 3)], SEGMENT_SIZE);
      const db2 = await newStandby(db1.cluster, 'db2');
      await triggerPromotion(db1.cluster, { mode: 'fast', to: db2.seat.node });
      await expect(declare()).rejects.toMatchObject({ code: 'fenced' });
      expect(await readGaps(db1.cluster, await readHead(db1.cluster))).toEqual([]);
    });
  });

  test('a copy of the primary declares nothing', async () => {
    await off();
    const copy = fakeNode(db1.cluster, { ...db1.seat, place: 'elsewhere' });
    copy.seat.store = { read: () => ({ epoch: 1, nonce: 'old', next: null }), write: () => {} };
    await expect(commitFiles(db1.cluster, copy.seat, [await unstored(3)])).rejects.toMatchObject({
      code: 'copied',
    });
  });
});
