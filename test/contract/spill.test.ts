/**
 * Spills on every backend: what the primary puts beside a replica's rows while its own vault is away, what the active vault takes home of
 * it, and what never comes home.
 */
import { keys, type Control, type WalRow } from '../../core/cluster/facts.ts';
import { VaultError } from '../../core/errors.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { armSpill, disarmSpill } from '../../core/work/arm.ts';
import { readBranch } from '../../core/work/branch.ts';
import { asRow, openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { COMMIT_BATCH, walRow } from '../../core/work/commit.ts';
import { fenceDirect } from '../../core/work/direct.ts';
import { claimRole } from '../../core/work/promotion.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { triggerPromotion } from '../../core/work/trigger.ts';
import { viewOf } from '../../core/work/restore-request.ts';
import { listAside } from '../../core/work/salvage.ts';
import { commitSpill } from '../../core/work/spill-commit.ts';
import { adoptSpills, setAsideSpills, takeHome } from '../../core/work/spill.ts';
import { fetchFile, storeFile, type StoredFile } from '../../core/work/store-file.ts';
import { findSegment } from '../../core/work/tail.ts';
import type { WriterSeat } from '../../core/work/writer.ts';
import {
  copyOf,
  newCluster,
  newStandby,
  onWire,
  seatOf,
  segment,
  type FakeNode,
} from '../harness/fake-node.ts';
import { dieAt } from '../harness/crashes.ts';
import { withNodeKey } from '../harness/node-key.ts';
import { finishPromotion, lsnText, names, promote } from '../harness/promotions.ts';
import { segmentBytes } from '../harness/segments.ts';
import { expectSound, openPair, vaultPairs } from '../harness/two-vaults.ts';

const relay = (from: Cluster, to: Cluster) => relayPass(from, to, { backups: false });

// two of a kind: what crosses from one kind to another is the copy of an object, which the relay shows
describe.each(vaultPairs.filter(({ from, to }) => from === to))('spills from $name', (pair) => {
  let site: Awaited<ReturnType<typeof openPair>>;
  let [a, b]: Vault[] = [];
  let db1: FakeNode;
  let A: Cluster, B: Cluster;
  let seat: WriterSeat;
  let number = 0;

  beforeAll(async () => {
    site = await openPair(pair);
  }, 120_000);
  afterAll(() => site?.close());
  /** Five segments in both vaults, armed. */
  beforeEach(async () => {
    a = await site.from.connect();
    b = await site.to.connect();
    db1 = await newCluster(a, `spill${++number}`);
    A = db1.cluster;
    B = await openReplica(A, b);
    for (let each = 1; each <= 5; each++) await db1.archive(segment(1, each));
    await armSpill(A, B);
    await relay(A, B);
    seat = seatOf('db1', 'host-db1:/pg', { epoch: 1, nonce: '', next: null });
  });
  afterEach(async () => {
    await a?.close();
    await b?.close();
  });

  async function store(name: string, content?: string): Promise<StoredFile> {
    const bytes = name.includes('.backup')
      ? Buffer.from(`START WAL LOCATION ${content}`)
      : segmentBytes(name, content);
    const stored = await storeFile(B, { node: 'db1', epoch: 1 }, { name, bytes });
    if (stored === 'same') throw new Error(`${name} is a row of the replica`);
    return stored;
  }
  async function spill(from: number, to = from, as = seat, content?: string): Promise<string[]> {
    const files: StoredFile[] = [];
    for (let each = from; each <= to; each++) files.push(await store(segment(1, each), content));
    const results: string[] = [];
    for (let index = 0; index < files.length; index += COMMIT_BATCH)
      for (const { result } of await commitSpill(B, as, files.slice(index, index + COMMIT_BATCH)))
        results.push(result);
    return results;
  }
  const spilled = () => names(B, 'spill#');
  const segments = (from: number, to: number) =>
    Array.from({ length: to - from + 1 }, (_, index) => segment(1, from + index));
  const changeControl = async (cluster: Cluster, changes: Partial<Control>) => {
    const control = await readControl(cluster);
    await cluster.vault.manifest.transact([
      { do: 'put', row: asRow({ ...control, ...changes, rev: control.rev + 1 }), when: { rev: control.rev } },
    ]);
  };
  const events = async (cluster: Cluster, kind: string) => {
    const found: string[] = [];
    for (const sk of await names(cluster, 'event#')) {
      const row = await cluster.vault.manifest.get({ pk: cluster.partition, sk: `event#${sk}` });
      if (row?.['kind'] === kind) found.push(String(row['text']));
    }
    return found;
  };
  const code = (expected: string) => expect.objectContaining({ code: expected });

  describe('the chain', () => {
    test('goes on from the replica’s head, and the replica’s head stands still', async () => {
      const before = await readHead(B);
      expect(await spill(6, 8)).toEqual(['committed', 'committed', 'committed']);
      const after = await readHead(B);
      expect(after).toEqual({ ...before, rev: after.rev, spill: after.spill });
      expect(after.spill).toMatchObject({
        ...{
          epoch: 1,
          timeline: 1,
          firstLsn: lsnText(6),
          lsn: lsnText(9),
          lastFile: segment(1, 8),
          files: 3,
        },
        writer: { node: 'db1', place: 'host-db1:/pg' },
      });
      expect(await spilled()).toEqual(segments(6, 8));
      expect(await names(B)).toEqual(segments(1, 5));
      expect(await events(B, 'spill')).toHaveLength(1);
    });

    test('has no hole: a segment that does not follow is refused and nothing is put', async () => {
      await expect(spill(7)).rejects.toEqual(code('hole'));
      await spill(6);
      await expect(spill(8)).rejects.toEqual(code('hole'));
      expect(await spilled()).toEqual([segment(1, 6)]);
    });

    test('goes up to the first file of a batch that is refused', async () => {
      const files = [await store(segment(1, 6)), await store(segment(1, 8))];
      expect(await commitSpill(B, seat, files)).toEqual([{ name: segment(1, 6), result: 'committed' }]);
      expect(await spilled()).toEqual([segment(1, 6)]);
    });

    test('answers the same content again with success, and other content with a conflict', async () => {
      await spill(6, 7);
      const before = await readHead(B);
      expect(await spill(6, 7)).toEqual(['same', 'same']);
      await expect(spill(6, 6, seat, 'other')).rejects.toEqual(code('conflict'));
      const other = await store(segment(1, 6), 'other');
      await expect(commitSpill(B, seat, [{ ...other, name: segment(1, 3) }])).rejects.toEqual(
        code('conflict'),
      );
      expect(await readHead(B)).toEqual(before);
    });

    test('takes backup labels along, beside the segments', async () => {
      await spill(6);
      const label = `${segment(1, 6)}.00000028.backup`;
      await commitSpill(B, seat, [await store(label, 'x')]);
      expect((await readHead(B)).spill).toMatchObject({ lsn: lsnText(7), files: 2 });
      await takeHome(A, B);
      expect(await names(A)).toContain(label);
    });

    test('takes no history: a timeline is opened in the active vault alone', async () => {
      const file = { ...(await store(segment(1, 6))), name: '00000002.history' };
      await expect(commitSpill(B, seat, [file])).rejects.toEqual(code('refused'));
    });

    test('goes on where an answer was lost', async () => {
      let answers = 0;
      const wire = {
        after: async () => {
          if (++answers === 1) throw new VaultError('unreachable', 'lost');
        },
      };
      const lossy = await openCluster(onWire(b!, wire), A.name);
      const file = await store(segment(1, 6));
      const answer = commitSpill(lossy, seat, [file]);
      expect((await answer).map(({ result }) => result)).toEqual(['same']);
      expect(await spill(7)).toEqual(['committed']);
    });
  });

  describe('the fence', () => {
    test('a replica that is not armed takes nothing', async () => {
      await changeControl(B, { direct: null });
      await expect(spill(6)).rejects.toEqual(code('refused'));
    });

    test('a replica at the next epoch takes nothing of the old primary', async () => {
      await spill(6);
      await changeControl(B, { epoch: 2, reign: 2, primary: 'db2' });
      await expect(spill(7)).rejects.toEqual(code('fenced'));
      expect(await spilled()).toEqual([segment(1, 6)]);
    });

    test('a trigger that comes between the spill’s read and its commit wins', async () => {
      let fence = true;
      const wire = {
        before: async () => {
          if (fence) {
            fence = false;
            await changeControl(B, { epoch: 2, reign: 2, primary: 'db2' });
          }
        },
      };
      const slow = await openCluster(onWire(b!, wire), A.name);
      await expect(commitSpill(slow, seat, [await store(segment(1, 6))])).rejects.toEqual(code('fenced'));
      expect(await spilled()).toEqual([]);
    });

    test('an active vault is no place for spills, and a node that has not taken up the epoch makes none', async () => {
      await expect(commitSpill(A, seat, [await store(segment(1, 6))])).rejects.toEqual(code('fenced'));
      await changeControl(B, { epoch: 2, reign: 2 });
      await expect(spill(6)).rejects.toEqual(code('fenced'));
    });

    test('an epoch that was raised without a change of primary takes the old one’s spills', async () => {
      await changeControl(B, { epoch: 2 });
      expect(await spill(6)).toEqual(['committed']);
      await changeControl(A, { epoch: 2 });
      expect(await takeHome(A, B)).toEqual({ files: 1 });
    });

    test('a node that is ahead of the replica waits for the relay', async () => {
      const ahead = seatOf('db1', 'host-db1:/pg', { epoch: 2, nonce: '', next: null });
      await expect(spill(6, 6, ahead)).rejects.toEqual(code('refused'));
    });

    test('of two copies of one primary the second is told', async () => {
      const copy = copyOf(seat, 'elsewhere:/pg');
      await spill(6);
      await expect(spill(7, 7, copy)).rejects.toEqual(code('copied'));
      expect(await spill(7)).toEqual(['committed']);
    });
  });

  test('what is spilled is served to nobody', async () => {
    await spill(6, 8);
    const branch = await readBranch(B);
    expect(branch.head.lsn).toBe(lsnText(6));
    expect(await findSegment(B, segment(1, 6))).toBeUndefined();
    const view = viewOf(B, branch, 'dr1');
    expect(
      JSON.stringify(view, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value)),
    ).not.toContain(segment(1, 8));
  });

  describe('home', () => {
    test('the active vault takes them in order, under the node and epoch that wrote them', async () => {
      await spill(6, 6 + COMMIT_BATCH + 4);
      expect(await takeHome(A, B)).toEqual({ files: COMMIT_BATCH + 5 });
      expect(await names(A)).toEqual(segments(1, 10 + COMMIT_BATCH));
      const head = await readHead(A);
      expect(head).toMatchObject({
        lsn: lsnText(11 + COMMIT_BATCH),
        lastFile: segment(1, 10 + COMMIT_BATCH),
      });
      const row = (await A.vault.manifest.get(keys.wal(A.partition, segment(1, 7)))) as WalRow;
      expect(row).toMatchObject({ node: 'db1', epoch: 1 });
      expect(await fetchFile(A, row)).toEqual(segmentBytes(segment(1, 7)));
      await expectSound(A);
      expect(await events(A, 'home')).toHaveLength(2);
      expect(await takeHome(A, B)).toEqual({ files: 0 });
    });

    test('the primary goes on archiving behind them, and a relay makes rows of them', async () => {
      await spill(6, 8);
      await takeHome(A, B);
      expect(await db1.archive(segment(1, 9))).toBe('committed');
      await relay(A, B);
      expect(await names(B)).toEqual(segments(1, 9));
      expect(await spilled()).toEqual([]);
      expect((await readHead(B)).spill).toBeNull();
      await expectSound(B);
    });

    test('a relay that meets them brings them home itself', async () => {
      await spill(6, 8);
      await relay(A, B);
      expect(await names(A)).toEqual(segments(1, 8));
      expect(await names(B)).toEqual(segments(1, 8));
      expect((await readHead(B)).spill).toBeNull();
    });

    test('taken twice at once they are there once', async () => {
      await spill(6, 20);
      const both = await Promise.all([takeHome(A, B), takeHome(A, B)]);
      expect(both[0].files + both[1].files).toBe(15);
      expect(await names(A)).toEqual(segments(1, 20));
      await expectSound(A);
    });

    test('taken while the primary spills on, all of it comes', async () => {
      await spill(6, 8);
      let more = true;
      const wire = {
        before: async () => {
          if (more) {
            more = false;
            await spill(9, 10);
          }
        },
      };
      const busy = await openCluster(onWire(a!, wire), A.name);
      expect(await takeHome(busy, B)).toEqual({ files: 5 });
      expect(await names(A)).toEqual(segments(1, 10));
    });

    test('broken off between two batches, the next run takes the rest', async () => {
      await spill(6, 6 + COMMIT_BATCH + 4);
      let commits = 0;
      const wire = {
        before: async () => {
          if (++commits > 1) throw new Error('killed');
        },
      };
      const dying = await openCluster(onWire(a!, wire), A.name);
      await expect(takeHome(dying, B)).rejects.toThrow('killed');
      expect(await names(A)).toEqual(segments(1, 5 + COMMIT_BATCH));
      expect(await takeHome(A, B)).toEqual({ files: 5 });
      expect(await names(A)).toEqual(segments(1, 10 + COMMIT_BATCH));
    });

    test('what the active vault has already, from a lost answer or the relay’s lag, is not taken again', async () => {
      await db1.archive(segment(1, 6));
      await spill(6, 7);
      expect(await takeHome(A, B)).toEqual({ files: 1 });
      expect(await names(A)).toEqual(segments(1, 7));
    });

    test('other content under a name is refused and said once, and nothing is changed', async () => {
      await db1.archive(segment(1, 6), 'other');
      await spill(6, 7);
      const before = await readHead(A);
      await expect(takeHome(A, B)).rejects.toEqual(code('conflict'));
      await expect(takeHome(A, B)).rejects.toEqual(code('conflict'));
      expect(await readHead(A)).toEqual(before);
      expect(await names(A)).toEqual(segments(1, 6));
      expect(await events(A, 'conflict')).toHaveLength(1);
    });

    test('a replica takes none home', async () => {
      await spill(6);
      await expect(takeHome(B, B)).rejects.toEqual(code('refused'));
    });
  });

  describe('where the epoch has moved on', () => {
    test('they are salvage: listed with node and epoch, and never rows of either vault', async () => {
      const db2 = await newStandby(A, 'db2');
      await spill(6, 6 + COMMIT_BATCH + 2);
      await changeControl(A, { direct: null });
      await promote(A, db2, 6);
      await db2.archive(segment(2, 6));
      expect(await takeHome(A, B)).toEqual({ files: 0 });
      expect(await names(A)).toEqual([...segments(1, 5), segment(2, 6)]);
      expect(await names(B)).toEqual(segments(1, 5));
      expect(await spilled()).toEqual([]);
      expect((await readHead(B)).spill).toBeNull();
      const asides = await listAside(B);
      expect(asides).toHaveLength(COMMIT_BATCH + 3);
      expect(asides[0]).toMatchObject({ file: segment(1, 6), node: 'db1', epoch: 1, endLsn: lsnText(7) });
      expect(await B.vault.bucket.get(asides[0]!.key)).toBeDefined();
      await relay(A, B);
      expect(await names(B)).toEqual([...segments(1, 5), segment(2, 6)]);
      expect(await events(A, 'salvage')).toHaveLength(1);
    });

    test('set aside in two runs, the first of which was killed, a chain without a hole is left between', async () => {
      await spill(6, 6 + COMMIT_BATCH + 2);
      let commits = 0;
      const wire = {
        before: async () => {
          if (++commits > 1) throw new Error('killed');
        },
      };
      const dying = await openCluster(onWire(b!, wire), A.name);
      await expect(setAsideSpills(dying)).rejects.toThrow('killed');
      expect(await spilled()).toEqual(segments(6, 8));
      expect((await readHead(B)).spill).toMatchObject({ lsn: lsnText(9), lastFile: segment(1, 8), files: 3 });
      expect(await setAsideSpills(B)).toEqual({ files: 3 });
      expect((await readHead(B)).spill).toBeNull();
      expect(await setAsideSpills(B)).toEqual({ files: 0 });
    });

    if (pair.from.name !== 'memory')
      test('killed at spill-copied-aside: all of them are spills still, and the next run sets them aside', async () => {
        await spill(6, 8);
        await changeControl(B, { epoch: 2, reign: 2 });
        await dieAt('spill-copied-aside', 'set-aside', B);
        expect(await spilled()).toEqual(segments(6, 8));
        expect(await listAside(B)).toEqual([]);
        expect(await setAsideSpills(B)).toEqual({ files: 3 });
        expect((await listAside(B)).map(({ file }) => file)).toEqual(segments(6, 8));
        expect((await readHead(B)).spill).toBeNull();
      });

    test('a primary whose key may delete nothing leaves them to the relay, and archives on', async () => {
      const node = async (vault: Vault) => openCluster(withNodeKey(vault), A.name);
      await spill(6, 7);
      await changeControl(A, { epoch: 2, reign: 2 });
      await expect(takeHome(await node(a!), await node(b!))).resolves.toEqual({ files: 0 });
      expect(await spilled()).toEqual(segments(6, 7));
      await relay(A, B);
      expect(await spilled()).toEqual([]);
      expect((await listAside(B)).map(({ file }) => file)).toEqual(segments(6, 7));
    });

    test('the new primary’s first spill sets the old one’s chain aside', async () => {
      await spill(6, 7);
      await changeControl(B, { epoch: 2, reign: 2, primary: 'db2' });
      const db2 = seatOf('db2', 'host-db2:/pg', { epoch: 2, nonce: '', next: null });
      const file = { ...(await store(segment(1, 6), 'of db2')) };
      expect((await commitSpill(B, db2, [file])).map(({ result }) => result)).toEqual(['committed']);
      expect(await spilled()).toEqual([segment(1, 6)]);
      expect((await listAside(B)).map(({ file: name }) => name)).toEqual(segments(6, 7));
    });
  });

  describe('adopted after a disaster', () => {
    test('they are the replica’s own, in order, and its head moves', async () => {
      await spill(6, 6 + COMMIT_BATCH + 4);
      expect(await adoptSpills(B)).toEqual({ files: COMMIT_BATCH + 5, aside: 0 });
      expect(await names(B)).toEqual(segments(1, 10 + COMMIT_BATCH));
      expect(await spilled()).toEqual([]);
      expect(await readHead(B)).toMatchObject({
        ...{ lsn: lsnText(11 + COMMIT_BATCH), lastFile: segment(1, 10 + COMMIT_BATCH), spill: null },
      });
      await expectSound(B);
      expect(await adoptSpills(B)).toEqual({ files: 0, aside: 0 });
    });

    if (pair.from.name !== 'memory')
      test('killed at spill-adopted, the rest is adopted by the next run', async () => {
        await spill(6, 6 + COMMIT_BATCH + 4);
        await dieAt('spill-adopted', 'adopt', B);
        expect(await names(B)).toEqual(segments(1, 5 + COMMIT_BATCH));
        await expectSound(B);
        expect(await adoptSpills(B)).toEqual({ files: 5, aside: 0 });
        expect(await names(B)).toEqual(segments(1, 10 + COMMIT_BATCH));
        expect(await spilled()).toEqual([]);
        await expectSound(B);
      });

    test('what does not continue the replica’s rows is set aside instead', async () => {
      await spill(6, 8);
      const stored = await store(segment(1, 7), 'other');
      const row = walRow(B, 'another', 1, stored);
      await B.vault.manifest.transact([{ do: 'put', row: asRow(row), when: 'absent' }]);
      expect(await adoptSpills(B)).toEqual({ files: 1, aside: 2 });
      expect((await readHead(B)).lsn).toBe(lsnText(7));
      expect((await listAside(B)).map(({ file }) => file)).toEqual(segments(7, 8));
    });
  });

  describe('a trigger in the active vault while a replica is armed', () => {
    const way = (open: () => Promise<Cluster>, lose = false) => ({ open, lose });
    const silent = () => Promise.reject(new VaultError('unreachable', 'it does not answer'));
    const trigger = (direct?: ReturnType<typeof way>) =>
      triggerPromotion(A, { mode: 'smart', to: 'db2', ...(direct === undefined ? {} : { direct }) });
    let db2: FakeNode;
    beforeEach(async () => {
      db2 = await newStandby(A, 'db2');
    });

    test('fences both and brings the spills home before it names another', async () => {
      await spill(6, 8);
      const asked = await trigger(way(() => Promise.resolve(B)));
      expect(asked).toMatchObject({ epoch: 2, node: 'db2', state: 'triggered' });
      expect(await readControl(B)).toMatchObject({ role: 'replica', epoch: 2, reign: 2, primary: 'db2' });
      expect(await names(A)).toEqual(segments(1, 8));
      await expect(spill(9)).rejects.toEqual(code('fenced'));
      await finishPromotion(A, db2);
      expect(await db2.archive(segment(2, 9))).toBe('committed');
      await relay(A, B);
      expect(await names(B)).toEqual([...segments(1, 8), segment(2, 9)]);
      expect(await readControl(B)).toMatchObject({ epoch: 2, primary: 'db2' });
    });

    test('a spill that is under way when the replica is fenced is refused, or comes home', async () => {
      let trigger2: Promise<unknown> | undefined;
      const wire = {
        before: async () => {
          trigger2 ??= trigger(way(() => Promise.resolve(B)));
          await trigger2;
        },
      };
      const slow = await openCluster(onWire(b!, wire), A.name);
      await expect(commitSpill(slow, seat, [await store(segment(1, 6))])).rejects.toEqual(code('fenced'));
      expect(await spilled()).toEqual([]);
    });

    test('is refused where the replica does not answer, and nothing is changed', async () => {
      await expect(trigger(way(silent))).rejects.toEqual(code('refused'));
      await expect(trigger()).rejects.toEqual(code('refused'));
      expect(await readControl(A)).toMatchObject({ epoch: 1, primary: 'db1' });
    });

    test('goes on without it only when that is said, and says so; what was spilled is salvage', async () => {
      await spill(6, 8);
      await trigger(way(silent, true));
      expect(await events(A, 'lose-direct')).toHaveLength(1);
      await spill(9); // cut off from A, but not from B
      await finishPromotion(A, db2);
      await db2.archive(segment(2, 6));
      await relay(A, B);
      expect(await names(B)).toEqual([...segments(1, 5), segment(2, 6)]);
      expect((await listAside(B)).map(({ file }) => file)).toEqual(segments(6, 9));
      await expect(spill(10)).rejects.toEqual(code('fenced'));
    });

    test('a refused trigger leaves the replica as it is', async () => {
      const before = await readControl(B);
      const wrong = triggerPromotion(A, {
        mode: 'smart',
        to: 'nobody',
        direct: way(() => Promise.resolve(B)),
      });
      await expect(wrong).rejects.toEqual(code('refused'));
      expect(await readControl(B)).toEqual(before);
    });

    test('broken off between the two vaults, the same trigger goes on, and so does a claim of the old primary', async () => {
      await spill(6, 7);
      const fence = { open: () => Promise.resolve(B), lose: false };
      await fenceDirect(A, await readControl(A), 'db2', fence);
      expect(await db1.archive(segment(1, 8))).toBe('committed'); // its own vault has not moved on
      await expect(relay(A, B)).rejects.toEqual(code('fenced'));
      await claimRole(A, db1.seat, { timeline: 1, historyText: undefined, direct: fence });
      expect(await readControl(A)).toMatchObject({ epoch: 2, primary: 'db1' });
      await relay(A, B);
      expect(await readControl(B)).toMatchObject({ epoch: 2, primary: 'db1' });
      expect(await names(B)).toEqual(segments(1, 8));
      expect(await trigger(way(() => Promise.resolve(B)))).toMatchObject({ epoch: 3 });
    });

    test('is never made where the replica has taken the place of this vault', async () => {
      await changeControl(B, { role: 'active', epoch: 2, reign: 2, primary: 'dr1' });
      await expect(trigger(way(() => Promise.resolve(B), true))).rejects.toEqual(code('fenced'));
      expect(await readControl(A)).toMatchObject({ epoch: 1, primary: 'db1' });
    });

    test('is refused where spills cannot come home, unless they are given up', async () => {
      await db1.archive(segment(1, 6), 'other');
      await spill(6);
      await expect(trigger(way(() => Promise.resolve(B)))).rejects.toEqual(code('refused'));
      await trigger(way(() => Promise.resolve(B), true));
      await relay(A, B);
      expect((await listAside(B)).map(({ file }) => file)).toEqual([segment(1, 6)]);
    });
  });

  describe('arming', () => {
    test('names the replica in the active vault, and its relay tells the replica', async () => {
      const [ofA, ofB] = [await readControl(A), await readControl(B)];
      expect(ofA.direct).toEqual({ id: ofB.vaultId, url: b!.url });
      expect(ofB.direct).toEqual({ id: ofB.vaultId, url: b!.url });
      expect(await armSpill(A, B)).toBe(false);
      expect(await events(A, 'arm')).toHaveLength(1);
    });

    test('refuses the vault itself, one that is no replica of it, and a second one', async () => {
      await expect(armSpill(A, A)).rejects.toEqual(code('refused'));
      await expect(armSpill(B, A)).rejects.toEqual(code('refused'));
      await disarmSpill(A, B);
      await changeControl(B, { source: { id: 'f00d', url: 'file:///elsewhere' } });
      await expect(armSpill(A, B)).rejects.toEqual(code('refused'));
    });

    test('is taken back only with every spill at home', async () => {
      await spill(6, 8);
      expect(await disarmSpill(A, B)).toBe(true);
      expect(await names(A)).toEqual(segments(1, 8));
      await expect(spill(9)).rejects.toEqual(code('refused'));
      expect((await readControl(A)).direct).toBeNull();
      expect(await disarmSpill(A, B)).toBe(false);
    });

    test('is not taken back where a spill cannot go home', async () => {
      await db1.archive(segment(1, 6), 'other');
      await spill(6);
      await expect(disarmSpill(A, B)).rejects.toEqual(code('conflict'));
      expect((await readControl(A)).direct).not.toBeNull();
      expect(await disarmSpill(A, undefined)).toBe(true);
    });
  });
});
