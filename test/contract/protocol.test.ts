/**
 * The protocol on every backend: what a commit, a trigger, a seal and an open promise while others do theirs, answers are lost and
 * writers sleep between their read and their commit.
 */
import { keys, type HistoryRow, type WalRow } from '../../core/cluster/facts.ts';
import { VaultError } from '../../core/errors.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { readBranch } from '../../core/work/branch.ts';
import { asRow, openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { COMMIT_BATCH, commitFiles } from '../../core/work/commit.ts';
import { heartbeat } from '../../core/work/heartbeat.ts';
import { claimRole, openPromotion, sealPromotion } from '../../core/work/promotion.ts';
import { readStatus } from '../../core/work/status.ts';
import { fetchFile, storeFile, type StoredFile } from '../../core/work/store-file.ts';
import { commitTail, fetchTail, readTail, undoFlush } from '../../core/work/tail.ts';
import { triggerPromotion } from '../../core/work/trigger.ts';
import {
  copyOf,
  fakeNode,
  newCluster,
  newStandby,
  onWire,
  seatOf,
  segment,
  type FakeNode,
  type Wire,
} from '../harness/fake-node.ts';
import { siteOf, vaultKinds } from '../harness/open-vaults.ts';
import { historyText, lsnOf, lsnText, names, promote } from '../harness/promotions.ts';
import { SEGMENT_SIZE, segmentBytes } from '../harness/segments.ts';

const rows = (cluster: Cluster) => names(cluster);

/** What must hold at any moment: rows of a timeline lie one behind the other, and each row's object has its bytes. */
async function expectSound(cluster: Cluster): Promise<void> {
  const byTimeline = new Map<string, number[]>();
  for (const name of await rows(cluster)) {
    const row = (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow;
    await fetchFile(cluster, row);
    const list = byTimeline.get(name.slice(0, 8)) ?? [];
    byTimeline.set(name.slice(0, 8), [...list, Number.parseInt(name.slice(16), 16)]);
  }
  for (const numbers of byTimeline.values())
    numbers.forEach((number, index) => expect(number).toBe(numbers[0]! + index));
}

/** Head moves on, and nothing of it changes. */
async function triggerlessChange(cluster: Cluster): Promise<void> {
  const head = await readHead(cluster);
  await cluster.vault.manifest.transact([
    { do: 'put', row: asRow({ ...head, rev: head.rev + 1 }), when: { rev: head.rev } },
  ]);
}

describe.each(vaultKinds)('protocol on $name', (kind) => {
  const site = siteOf(kind);
  let vault: Vault;
  let db1: FakeNode;
  let number = 0;

  beforeEach(async () => {
    vault = await site.connect();
    db1 = await newCluster(vault, `main${++number}`);
  });
  afterEach(async () => {
    await vault.close();
  });

  /** Another connection of the same node or another, with a wire in the test's hand. */
  async function wired(wire: Wire): Promise<Cluster> {
    return openCluster(onWire(vault, wire), db1.cluster.name);
  }

  describe('archiving', () => {
    test('puts rows in order and serves the bytes back', async () => {
      for (const n of [1, 2, 3]) expect(await db1.archive(segment(1, n))).toBe('committed');
      expect(await rows(db1.cluster)).toEqual([segment(1, 1), segment(1, 2), segment(1, 3)]);
      expect(await readHead(db1.cluster)).toMatchObject({
        lsn: lsnText(4),
        firstLsn: lsnText(1),
        lastFile: segment(1, 3),
        timeline: 1,
      });
      await expectSound(db1.cluster);
    });

    test('answers the same content with success and other content with a conflict, and changes nothing', async () => {
      await db1.archive(segment(1, 1));
      const before = await readHead(db1.cluster);
      expect(await db1.archive(segment(1, 1))).toBe('same');
      await expect(db1.archive(segment(1, 1), 'other')).rejects.toMatchObject({ code: 'conflict' });
      expect(await readHead(db1.cluster)).toEqual(before);
    });

    test.each([
      ['truncated', segmentBytes(segment(1, 1)).subarray(0, 1000)],
      ['of zeros', Buffer.alloc(SEGMENT_SIZE)],
      ['another segment’s', segmentBytes(segment(1, 2))],
      ['another cluster’s', segmentBytes(segment(1, 1), 'x', { systemIdentifier: '7300000000000000002' })],
      ['another timeline’s', segmentBytes(segment(2, 1))],
      ['another major’s', segmentBytes(segment(1, 1), 'x', { majorVersion: 15 })],
    ])('refuses bytes that are %s', async (_what, bytes) => {
      const refused = storeFile(db1.cluster, { node: 'db1', epoch: 1 }, { name: segment(1, 1), bytes });
      await expect(refused).rejects.toMatchObject({ code: 'corrupt' });
      expect(await rows(db1.cluster)).toEqual([]);
    });

    test('refuses a hole and goes on when the missing one is there', async () => {
      await db1.archive(segment(1, 1));
      await expect(db1.archive(segment(1, 3))).rejects.toMatchObject({ code: 'hole' });
      await db1.archive(segment(1, 2));
      expect(await db1.archive(segment(1, 3))).toBe('committed');
    });

    test(`commits up to ${COMMIT_BATCH} files at once, and stops before the first that is refused`, async () => {
      const store = async (n: number) => (await db1.store(segment(1, n))) as StoredFile;
      const batch = await Promise.all(Array.from({ length: COMMIT_BATCH }, (_, index) => store(index + 1)));
      expect(await commitFiles(db1.cluster, db1.seat, batch)).toHaveLength(COMMIT_BATCH);
      const broken = [await store(31), await store(33)];
      expect(await commitFiles(db1.cluster, db1.seat, broken)).toEqual([
        { name: segment(1, 31), result: 'committed' },
      ]);
      await expect(commitFiles(db1.cluster, db1.seat, broken.slice(1))).rejects.toMatchObject({
        code: 'hole',
      });
      await expectSound(db1.cluster);
    }, 60_000);

    test('two writers of one name: one row, the other hears the same or is refused', async () => {
      await db1.archive(segment(1, 1));
      const twin = fakeNode(await wired({}), db1.seat); // agent and lone hook of one node
      expect((await Promise.all([db1.archive(segment(1, 2)), twin.archive(segment(1, 2))])).sort()).toEqual([
        'committed',
        'same',
      ]);
      const both = await Promise.allSettled([
        db1.archive(segment(1, 3), 'a'),
        twin.archive(segment(1, 3), 'b'),
      ]);
      expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
      await expectSound(db1.cluster);
    });

    test('commits and heartbeats of one node side by side never take each other for a copy', async () => {
      const beat = () => heartbeat(db1.cluster, { name: 'db1', role: 'primary' }, db1.seat);
      const beats: Promise<void>[] = [];
      let conflicts = 0;
      const cluster = await wired({
        // the commit finds that head has moved, and while it looks again the heartbeats of its own node come between
        before: async () => {
          if (conflicts++ === 0) await triggerlessChange(db1.cluster);
        },
        reading: async ({ sk }) => {
          if (conflicts !== 1 || !sk.startsWith('wal#')) return;
          beats.push(beat().then(beat)); // the first may settle the nonce of this very commit, the second goes on from there
          await Promise.race([beats.at(-1), new Promise((resolve) => setTimeout(resolve, 100))]);
        },
      });
      expect(await fakeNode(cluster, db1.seat).archive(segment(1, 1))).toBe('committed');
      await Promise.all(beats);
      expect(beats.length).toBeGreaterThan(0);
      expect(await db1.archive(segment(1, 2))).toBe('committed');
    });

    test('an answer lost after the commit is looked up, not guessed', async () => {
      let lose = 2;
      const cluster = await wired({
        after: async () => {
          if (lose-- > 0) throw new VaultError('unreachable', 'the answer was lost');
        },
      });
      const unlucky = fakeNode(cluster, db1.seat);
      expect(await unlucky.archive(segment(1, 1))).toBe('same');
      expect(await unlucky.archive(segment(1, 2))).toBe('same');
      expect(await unlucky.archive(segment(1, 3))).toBe('committed');
      await expectSound(cluster);
    });

    test('a request that lands late changes nothing that came after it', async () => {
      const late: (() => Promise<unknown>)[] = [];
      const cluster = await wired({
        before: async (changes) => {
          if (late.length > 0) return;
          late.push(() => vault.manifest.transact(changes));
          throw new VaultError('unreachable', 'still on its way');
        },
      });
      const slow = fakeNode(cluster, db1.seat);
      expect(await slow.archive(segment(1, 1))).toBe('committed');
      expect(await slow.archive(segment(1, 2))).toBe('committed');
      const before = await readHead(cluster);
      await late[0]!();
      expect(await readHead(cluster)).toEqual(before);
      expect(await slow.archive(segment(1, 3))).toBe('committed');
    });

    test('a node killed between the request and its answer goes on with its own nonce', async () => {
      const cluster = await wired({
        after: async () => {
          throw new Error('killed');
        },
      });
      const file = (await db1.store(segment(1, 1))) as StoredFile;
      await expect(commitFiles(cluster, db1.seat, [file])).rejects.toThrow('killed');
      expect(await db1.archive(segment(1, 1))).toBe('same');
      expect(await db1.archive(segment(1, 2))).toBe('committed');
    });
  });

  describe('a copy of the primary', () => {
    test('one of the two archives, the other is refused, and both are named', async () => {
      await db1.archive(segment(1, 1));
      const copy = fakeNode(db1.cluster, copyOf(db1.seat, 'host9:/copy'));
      await db1.archive(segment(1, 2));
      const refusal = await copy.archive(segment(1, 3), 'copy').catch((error: unknown) => error);
      expect(refusal).toMatchObject({ code: 'copied' });
      expect((refusal as Error).message).toContain('host9:/copy');
      expect((refusal as Error).message).toContain('host-db1:/pg');
      expect(await db1.archive(segment(1, 3))).toBe('committed');
    });

    test('is found by the heartbeat of the true one, before anything is archived', async () => {
      await db1.archive(segment(1, 1));
      const copy = fakeNode(db1.cluster, copyOf(db1.seat, 'host9:/copy'));
      await heartbeat(db1.cluster, { name: 'db1', role: 'primary' }, db1.seat);
      await expect(copy.archive(segment(1, 2), 'copy')).rejects.toMatchObject({ code: 'copied' });
      await expect(heartbeat(db1.cluster, { name: 'db1' }, copy.seat)).rejects.toMatchObject({
        code: 'copied',
      });
    });

    test('claim decides between the two', async () => {
      await db1.archive(segment(1, 1));
      const copy = fakeNode(db1.cluster, copyOf(db1.seat, 'host9:/copy'));
      await copy.archive(segment(1, 2), 'copy');
      await expect(db1.archive(segment(1, 2), 'original')).rejects.toMatchObject({ code: 'conflict' });
      expect(await claimRole(db1.cluster, db1.seat, { timeline: 1, historyText: undefined })).toBe(2);
      await expect(copy.archive(segment(1, 3), 'copy')).rejects.toMatchObject({ code: 'fenced' });
      expect(await db1.archive(segment(1, 3))).toBe('committed');
    });
  });

  describe('a promotion', () => {
    let db2: FakeNode;
    beforeEach(async () => {
      for (const n of [1, 2, 3]) await db1.archive(segment(1, n));
      db2 = await newStandby(db1.cluster, 'db2');
    });

    test('fences the old primary from the trigger on; the vault keeps what it had', async () => {
      await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' });
      const before = await rows(db1.cluster);
      const refusal = await db1.archive(segment(1, 4)).catch((error: unknown) => error);
      expect(refusal).toMatchObject({
        code: 'fenced',
        message: expect.stringContaining('db2 holds epoch 2'),
        hint: expect.stringContaining('standby'),
      });
      await expect(heartbeat(db1.cluster, { name: 'db1' }, db1.seat)).rejects.toMatchObject({
        code: 'fenced',
      });
      expect(await rows(db1.cluster)).toEqual(before);
      expect(await db1.archive(segment(1, 3))).toBe('same');
    });

    test('the new primary writes on its own timeline, only after its open', async () => {
      await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' });
      await expect(db2.archive(segment(2, 4))).rejects.toMatchObject({ code: 'fenced' });
      const sealed = await sealPromotion(db2.cluster, { node: 'db2', timeline: 1, lsn: lsnOf(4) });
      expect(sealed).toMatchObject({ state: 'sealed', reserved: 2, lsn: lsnText(4) });
      expect(await openPromotion(db2.cluster, db2.seat, { timeline: 2, historyText: historyText(4) })).toBe(
        'opened',
      );
      expect(await openPromotion(db2.cluster, db2.seat, { timeline: 2, historyText: historyText(4) })).toBe(
        'already',
      );
      expect(await db2.archive(segment(2, 4))).toBe('committed');
      expect(await readStatus(db1.cluster)).toMatchObject({
        epoch: 2,
        primary: 'db2',
        trigger: null,
        timeline: 2,
        lastSegment: segment(2, 4),
      });
      const history = (await vault.manifest.get(keys.history(db1.cluster.partition, 2))) as HistoryRow;
      expect(history).toMatchObject({
        parent: 1,
        forkLsn: lsnText(4),
        node: 'db2',
        epoch: 2,
        forkSegmentWhole: true,
      });
      expect(await vault.bucket.get(history.key)).toEqual(Buffer.from(historyText(4)));
      await expect(db1.archive(segment(1, 4))).rejects.toMatchObject({ code: 'fenced' });
    });

    test('a writer that slept between its read and its commit is refused when it wakes after the trigger', async () => {
      let woken: () => void = () => {};
      let asleep: () => void = () => {};
      const sleeping = new Promise<void>((resolve) => (asleep = resolve));
      const wake = new Promise<void>((resolve) => (woken = resolve));
      const cluster = await wired({
        before: async () => {
          asleep();
          await wake;
        },
      });
      const paused = fakeNode(cluster, db1.seat).archive(segment(1, 4));
      const outcome = paused.catch((error: unknown) => error);
      await sleeping;
      await promote(db1.cluster, db2, 4);
      await db2.archive(segment(2, 4));
      woken();
      expect(await outcome).toMatchObject({ code: 'fenced' });
      expect(await rows(db1.cluster)).toEqual([segment(1, 1), segment(1, 2), segment(1, 3), segment(2, 4)]);
    });

    test('of two triggers at once one wins and the other is told', async () => {
      await newStandby(db1.cluster, 'db3');
      const both = await Promise.allSettled([
        triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' }),
        triggerPromotion(await wired({}), { mode: 'smart', to: 'db3' }),
      ]);
      expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
      const lost = both.find((one) => one.status === 'rejected');
      expect(lost?.reason).toMatchObject({ code: 'refused', message: expect.stringContaining('pending') });
      expect((await readControl(db1.cluster)).epoch).toBe(2);
    });

    test('an answer lost at each step leaves one promotion, found again', async () => {
      const lossy = (): Promise<Cluster> => {
        let lost = false;
        return wired({
          after: async () => {
            if (lost) return;
            lost = true;
            throw new VaultError('unreachable', 'the answer was lost');
          },
        });
      };
      const triggered = await triggerPromotion(await lossy(), { mode: 'smart', to: 'db2' });
      expect(triggered).toMatchObject({ epoch: 2, state: 'triggered' });
      const sealed = await sealPromotion(await lossy(), { node: 'db2', timeline: 1, lsn: lsnOf(4) });
      expect(sealed).toMatchObject({ state: 'sealed', reserved: 2 });
      expect(await openPromotion(await lossy(), db2.seat, { timeline: 2, historyText: historyText(4) })).toBe(
        'already',
      );
      expect(await db2.archive(segment(2, 4))).toBe('committed');
      expect((await readHead(db1.cluster)).lastTimeline).toBe(2);
    });

    test('given up for another: the first target cannot open any more, its number is never used again', async () => {
      const db3 = await newStandby(db1.cluster, 'db3');
      await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' });
      await sealPromotion(db2.cluster, { node: 'db2', timeline: 1, lsn: lsnOf(4) });
      await expect(triggerPromotion(db1.cluster, { mode: 'smart', to: 'db3' })).rejects.toMatchObject({
        code: 'refused',
      });
      await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db3', supersede: 2 });
      await expect(
        openPromotion(db2.cluster, db2.seat, { timeline: 2, historyText: historyText(4) }),
      ).rejects.toMatchObject({ code: 'fenced' });
      const sealed = await sealPromotion(db3.cluster, { node: 'db3', timeline: 1, lsn: lsnOf(4) });
      expect(sealed.reserved).toBe(3);
      await openPromotion(db3.cluster, db3.seat, { timeline: 3, historyText: historyText(4) });
      await expect(db2.archive(segment(2, 4))).rejects.toMatchObject({
        code: expect.stringMatching(/fenced|conflict/),
      });
      expect(await db3.archive(segment(3, 4))).toBe('committed');
    });

    test('twice in a row, with the old primary back by name: a rolled-back machine stays out', async () => {
      const snapshot = copyOf(db1.seat, 'host-db1:/pg');
      await promote(db1.cluster, db2, 4);
      await db2.archive(segment(2, 4));
      const back = await newStandby(db1.cluster, 'db1');
      await promote(db1.cluster, back, 5);
      await back.archive(segment(3, 5));
      const rolledBack = fakeNode(db1.cluster, snapshot);
      await expect(rolledBack.archive(segment(1, 4))).rejects.toMatchObject({ code: 'fenced' });
      await expectSound(db1.cluster);
      const branch = await readBranch(db1.cluster);
      expect(branch.lineage.map(({ timeline }) => timeline)).toEqual([1, 2, 3]);
    });

    test('fast, behind the head: the dead rows stay, the live branch leaves them', async () => {
      await promote(db1.cluster, db2, 3, 'fast');
      expect(await db2.archive(segment(2, 3))).toBe('committed');
      expect(await db2.archive(segment(1, 3))).toBe('same'); // a file it restored and hands in again
      const { lineage } = await readBranch(db1.cluster);
      expect(lineage).toEqual([
        { timeline: 1, begins: 0n, ends: lsnOf(3) },
        { timeline: 2, begins: lsnOf(3), ends: null },
      ]);
    });

    test('by hand: refused until claimed, and the claim is proven by the history', async () => {
      await expect(db2.archive(segment(2, 4))).rejects.toMatchObject({
        code: 'fenced',
        hint: expect.stringContaining('walvault claim'),
      });
      const foreign = { timeline: 2, historyText: historyText(9, 5) };
      await expect(claimRole(db2.cluster, db2.seat, foreign)).rejects.toMatchObject({ code: 'fenced' });
      expect(await claimRole(db2.cluster, db2.seat, { timeline: 2, historyText: historyText(4) })).toBe(2);
      expect(await db2.archive(segment(2, 4))).toBe('committed');
      await expect(db1.archive(segment(1, 4))).rejects.toMatchObject({ code: 'fenced' });
    });

    test('a node that also streamed brings what nobody archived, with its open', async () => {
      await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' });
      await sealPromotion(db2.cluster, { node: 'db2', timeline: 1, lsn: lsnOf(4) });
      const opened = { timeline: 2, historyText: historyText(6) };
      await expect(openPromotion(db2.cluster, db2.seat, opened)).rejects.toMatchObject({ code: 'hole' });
      const readSegment = async (name: string) => segmentBytes(name, 'streamed');
      expect(await openPromotion(db2.cluster, db2.seat, { ...opened, readSegment })).toBe('opened');
      expect(await rows(db1.cluster)).toEqual([1, 2, 3, 4, 5].map((n) => segment(1, n)));
      expect(await db2.archive(segment(2, 6))).toBe('committed');
      await expectSound(db1.cluster);
    });

    test('a seat without the nonce of its open cannot pass for the new primary', async () => {
      await promote(db1.cluster, db2, 4);
      const impostor = fakeNode(db1.cluster, seatOf('db2', 'host9:/elsewhere'));
      await expect(
        openPromotion(db1.cluster, impostor.seat, { timeline: 2, historyText: historyText(4) }),
      ).rejects.toMatchObject({ code: 'copied' });
      await expect(impostor.archive(segment(2, 4))).rejects.toMatchObject({ code: 'fenced' });
    });
  });

  describe('a flush', () => {
    let db2: FakeNode;
    /** The segment after the last archived one, as it lies in pg_wal after a clean stop. */
    const final = segment(1, 3);
    const end = lsnOf(3) + 0xa0n;
    const tail = { segment: final, bytes: segmentBytes(final, 'final'), lsn: end };
    const grown = Buffer.concat([tail.bytes.subarray(0, 0xa0), segmentBytes(final, 'grown').subarray(0xa0)]);

    beforeEach(async () => {
      for (const n of [1, 2]) await db1.archive(segment(1, n));
      db2 = await newStandby(db1.cluster, 'db2');
    });

    const archiveBytes = async (name: string, bytes: Buffer) => {
      const stored = await storeFile(db1.cluster, { node: 'db1', epoch: 1 }, { name, bytes });
      return commitFiles(db1.cluster, db1.seat, [stored as StoredFile]);
    };

    test('puts the shutdown checkpoint beside the rows, and nothing is committed while it stands', async () => {
      await commitTail(db1.cluster, db1.seat, tail, 'flush');
      await commitTail(db1.cluster, db1.seat, tail, 'flush');
      expect(await readHead(db1.cluster)).toMatchObject({
        lsn: lsnText(3),
        flush: { lsn: '0/3000A0' },
        tail: { timeline: 1, lsn: '0/3000A0' },
      });
      const row = (await readTail(db1.cluster, 1))!;
      const served = await fetchTail(db1.cluster, row);
      expect(served.subarray(0, 0xa0)).toEqual(tail.bytes.subarray(0, 0xa0));
      expect(served.subarray(0xa0)).toEqual(Buffer.alloc(SEGMENT_SIZE - 0xa0));
      await expect(archiveBytes(final, grown)).rejects.toMatchObject({
        code: 'refused',
        hint: expect.stringContaining('flush --undo'),
      });
    });

    test('is refused while the vault lacks a segment', async () => {
      const later = { segment: segment(1, 4), bytes: segmentBytes(segment(1, 4)), lsn: lsnOf(4) + 0xa0n };
      await expect(commitTail(db1.cluster, db1.seat, later, 'flush')).rejects.toMatchObject({ code: 'hole' });
    });

    test('undone, the same segment goes on: the grown one takes the place of the tail', async () => {
      await commitTail(db1.cluster, db1.seat, tail, 'flush');
      expect(await undoFlush(db1.cluster, 'db1')).toBe(true);
      expect(await undoFlush(db1.cluster, 'db1')).toBe(false);
      await expect(db1.archive(final, 'set back')).rejects.toMatchObject({ code: 'conflict' });
      expect(await archiveBytes(final, grown)).toMatchObject([{ result: 'committed' }]);
      expect(await readHead(db1.cluster)).toMatchObject({ lsn: lsnText(4), flush: null, tail: null });
    });

    test('undone and done again in the same segment: the tail grows', async () => {
      await commitTail(db1.cluster, db1.seat, tail, 'flush');
      await undoFlush(db1.cluster, 'db1');
      const longer = { segment: final, bytes: grown, lsn: lsnOf(3) + 0x200n };
      await commitTail(db1.cluster, db1.seat, longer, 'flush');
      expect(await readHead(db1.cluster)).toMatchObject({
        flush: { lsn: '0/300200' },
        tail: { lsn: '0/300200' },
      });
      const other = { segment: final, bytes: segmentBytes(final, 'set back'), lsn: lsnOf(3) + 0x300n };
      await undoFlush(db1.cluster, 'db1');
      await expect(commitTail(db1.cluster, db1.seat, other, 'flush')).rejects.toMatchObject({
        code: 'conflict',
      });
    });

    test('after a trigger the undo is refused, and after an undo the trigger finds no flush', async () => {
      await commitTail(db1.cluster, db1.seat, tail, 'flush');
      await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' });
      await expect(undoFlush(db1.cluster, 'db1')).rejects.toMatchObject({
        code: 'fenced',
        hint: expect.stringContaining('rejoin'),
      });
      await expect(archiveBytes(final, grown)).rejects.toMatchObject({ code: 'fenced' });
    });

    test('of a trigger and an undo that sleep between read and commit, who comes second reads again', async () => {
      await commitTail(db1.cluster, db1.seat, tail, 'flush');
      let first = true;
      const cluster = await wired({
        before: async () => {
          if (first) await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' });
          first = false;
        },
      });
      await expect(undoFlush(cluster, 'db1')).rejects.toMatchObject({ code: 'fenced' });
    });

    test('a smart promotion consumes the tail, forks at its end, and its segment is still served to others', async () => {
      await commitTail(db1.cluster, db1.seat, tail, 'flush');
      await triggerPromotion(db1.cluster, { mode: 'smart', to: 'db2' });
      expect((await readHead(db1.cluster)).flush).toBeNull();
      await expect(
        sealPromotion(db2.cluster, { node: 'db2', timeline: 1, lsn: lsnOf(3) }),
      ).rejects.toMatchObject({ code: 'refused' });
      const sealed = await sealPromotion(db2.cluster, { node: 'db2', timeline: 1, lsn: end });
      expect(sealed).toMatchObject({ lsn: '0/3000A0', reserved: 2 });
      await openPromotion(db2.cluster, db2.seat, {
        timeline: 2,
        historyText: '1\t0/3000A0\tno recovery target specified\n',
      });
      expect(await readHead(db1.cluster)).toMatchObject({
        timeline: 2,
        lsn: '0/3000A0',
        tail: null,
        flush: null,
      });
      const history = (await vault.manifest.get(keys.history(db1.cluster.partition, 2))) as HistoryRow;
      expect(history.forkSegmentWhole).toBe(true);
      expect(await db2.archive(segment(2, 3))).toBe('committed');
      // the old primary's shutdown-checkpoint segment, handed in by a node that rejoined and was promoted later
      expect(await db2.archive(segment(1, 3), 'final')).toBe('ignored');
    });

    test('a dead primary’s last segment is salvaged as a tail without a latch', async () => {
      await commitTail(db1.cluster, db1.seat, tail, 'salvage');
      expect(await readHead(db1.cluster)).toMatchObject({ flush: null, tail: { lsn: '0/3000A0' } });
    });
  });

  test('init again is fine; another database or primary under the name is refused', async () => {
    const again = await newCluster(vault, db1.cluster.name);
    expect(again.cluster.systemIdentifier).toBe(db1.cluster.systemIdentifier);
    expect((await readHead(db1.cluster)).rev).toBe(1);
  });
});
