/** roles = "external" on every backend: the claim of an agent, its condition, its key, and what a kill leaves. */
import { decideExternal } from '../../core/cluster/decide-external.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { readBranch } from '../../core/work/branch.ts';
import { openCluster, readControl, readHead } from '../../core/work/cluster.ts';
import { archivedPast, whyNot } from '../../core/work/external.ts';
import { claimRole, openPromotion } from '../../core/work/promotion.ts';
import { parseHistory } from '../../core/wal/history.ts';
import { dieAt } from '../harness/crashes.ts';
import { fakeNode, newCluster, newStandby, onWire, segment, type FakeNode } from '../harness/fake-node.ts';
import { withNodeKey } from '../harness/node-key.ts';
import { siteOf, vaultKinds } from '../harness/open-vaults.ts';
import { historyText, lsnOf } from '../harness/promotions.ts';
import { SEGMENT_SIZE } from '../harness/segments.ts';

describe.each(vaultKinds)('claims of an agent on $name', (kind) => {
  const site = siteOf(kind);
  let vault: Vault;
  let db1: FakeNode;
  let db2: FakeNode;
  let number = 0;
  const promoted = { timeline: 2, historyText: historyText(4) };

  beforeEach(async () => {
    vault = await site.connect();
    db1 = await newCluster(vault, `main${++number}`);
    for (const n of [1, 2, 3]) await db1.archive(segment(1, n));
    db2 = await newStandby(db1.cluster, 'db2');
  });
  afterEach(async () => {
    await vault.close();
  });

  test('the judge sees the very rows of the transaction: what was archived meanwhile is judged too', async () => {
    let raced = false;
    const wire = {
      async before() {
        if (raced) return;
        raced = true;
        await db1.archive(segment(1, 4));
      },
    };
    const slow = fakeNode(await openCluster(onWire(vault, wire), db1.cluster.name), db2.seat);
    const seen: (string | null)[] = [];
    const claim = claimRole(slow.cluster, slow.seat, {
      ...promoted,
      judge: async (_control, { head }) => {
        seen.push(head.lsn);
        if (head.lsn !== '0/400000') throw new Error('archived since the fork');
      },
    });
    await expect(claim).rejects.toThrow('archived since the fork');
    expect(seen).toEqual(['0/400000', '0/500000']);
    expect(await readControl(db1.cluster)).toMatchObject({ epoch: 1, primary: 'db1' });
    expect(await db1.archive(segment(1, 5))).toBe('committed');
  });

  test('without the operator’s right nothing is claimed, and it is said what is missing', async () => {
    const node = await openCluster(withNodeKey(vault), db1.cluster.name);
    const error: unknown = await claimRole(node, db2.seat, promoted).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'denied' });
    expect(whyNot('db2', error)).toMatch(/db2 was promoted .*key may not claim.*operator's right/);
    expect(await readControl(db1.cluster)).toMatchObject({ epoch: 1, primary: 'db1' });
    expect(await db1.archive(segment(1, 4))).toBe('committed');
  });

  test('killed between claim and open: the next look opens, without another epoch', async () => {
    let done = 0;
    const wire = {
      async before() {
        if (++done === 2) throw new Error('killed');
      },
    };
    const dying = await openCluster(onWire(vault, wire), db1.cluster.name);
    await expect(claimRole(dying, db2.seat, promoted)).rejects.toThrow('killed');
    const { head, lineage } = await readBranch(db1.cluster);
    const facts = {
      ...{ node: 'db2', timeline: 2, ancestors: parseHistory(promoted.historyText) },
      ...{ openedBy: undefined, archivedTo: undefined, held: undefined },
    };
    const limits = { segmentSize: SEGMENT_SIZE, fills: 90 };
    expect(decideExternal(await readControl(db1.cluster), head, lineage, facts, limits)).toEqual({
      do: 'open',
    });
    expect(await openPromotion(db2.cluster, db2.seat, promoted)).toBe('opened');
    expect(await readHead(db1.cluster)).toMatchObject({ epoch: 2, timeline: 2 });
    expect(await db2.archive(segment(2, 4))).toBe('committed');
    await expect(db1.archive(segment(1, 4))).rejects.toMatchObject({ code: 'fenced' });
  });

  if (kind.name === 'file' || kind.name.startsWith('s3'))
    test('killed at claim-committed: claimed once more, it opens one epoch later', async () => {
      await dieAt('claim-committed', 'claim', db1.cluster);
      expect(await readControl(db1.cluster)).toMatchObject({ epoch: 2, primary: 'db2' });
      expect((await readHead(db1.cluster)).timeline).toBe(1);
      await expect(db1.archive(segment(1, 4))).rejects.toMatchObject({ code: 'fenced' });
      expect(await claimRole(db2.cluster, db2.seat, { ...promoted, supersede: 2 })).toBe(3);
      expect(await readHead(db1.cluster)).toMatchObject({ epoch: 3, timeline: 2 });
      expect(await db2.archive(segment(2, 4))).toBe('committed');
    });

  test('past the fork a segment that is not there is no proof that nothing was', async () => {
    const branch = await readBranch(db1.cluster);
    await expect(archivedPast(db1.cluster, branch, lsnOf(4), lsnOf(5))).rejects.toMatchObject({
      code: 'hole',
    });
    expect(await archivedPast(db1.cluster, branch, lsnOf(4), lsnOf(4))).toBe(lsnOf(4));
  });
});
