/** What a witness looks at: one look is control, head with its lineage, the rows of the nodes, and its own. */
import { keys, type Control, type NodeRow, type WalRow, type WitnessRow } from '../cluster/facts.ts';
import { gapAfter, placeOfNode, type LiveGap } from '../cluster/gaps.ts';
import type { WitnessFacts, WitnessStandby } from '../cluster/decide-witness.ts';
import { readBranch, type Branch, type HistoryCache } from './branch.ts';
import { listRows, readControl, type Cluster } from './cluster.ts';
import { readLiveGaps } from './gap-rows.ts';
import { segmentsBehind } from './segments-behind.ts';

export type Looked = { facts: WitnessFacts; row: WitnessRow | undefined };

/** What never changes of what was read: histories, and when a segment was archived. */
export type WitnessCache = { histories: HistoryCache; archivedAt: Map<string, string> };

export const newWitnessCache = (): WitnessCache => ({ histories: new Map(), archivedAt: new Map() });

/** @throws VaultError unreachable | unconfigured … */
export async function readWitnessFacts(cluster: Cluster, cache = newWitnessCache()): Promise<Looked> {
  const control = await readControl(cluster);
  const [branch, nodes, row] = await Promise.all([
    readBranch(cluster, cache.histories),
    listRows<NodeRow>(cluster, 'node#'),
    readWitnessRow(cluster),
  ]);
  const live = (branch.head.gap ?? null) === null ? [] : await readLiveGaps(cluster, branch);
  return { facts: await witnessFacts(cluster, { control, branch, nodes, live }, cache), row };
}

export async function readWitnessRow(cluster: Cluster): Promise<WitnessRow | undefined> {
  return (await cluster.vault.manifest.get(keys.witness(cluster.partition))) as WitnessRow | undefined;
}

/** The same for who has read most of it already. */
export async function witnessFacts(
  cluster: Cluster,
  {
    control,
    branch,
    nodes,
    live,
  }: { control: Control; branch: Branch; nodes: readonly NodeRow[]; live: LiveGap[] },
  cache = newWitnessCache(),
): Promise<WitnessFacts> {
  const standbys: WitnessStandby[] = [];
  for (const node of nodes) {
    if (node.name === control.primary) continue;
    standbys.push({
      row: node,
      behindMs: await behindMs(cluster, branch, node, cache),
      gap: live.length === 0 ? undefined : gapAfter(live, placeOfNode(node, cluster.segmentSize)),
    });
  }
  return {
    ...{ control, head: branch.head, standbys, segmentSize: cluster.segmentSize },
    primary: nodes.find(({ name }) => name === control.primary),
  };
}

/** Both moments are the primary's: from the first segment that the node has not restored to the newest. null: not known. */
async function behindMs(
  cluster: Cluster,
  branch: Branch,
  { lastRestored }: NodeRow,
  { archivedAt }: WitnessCache,
): Promise<number | null> {
  const behind = segmentsBehind(branch, lastRestored, cluster.segmentSize);
  if (behind === null) return null;
  if (behind.count === 0 || behind.next === null) return 0;
  const { next } = behind;
  if (!archivedAt.has(next)) {
    const row = (await cluster.vault.manifest.get(keys.wal(cluster.partition, next))) as WalRow | undefined;
    if (row === undefined) return null;
    if (archivedAt.size > 1000) archivedAt.clear();
    archivedAt.set(next, row.archivedAt);
  }
  const newest = branch.head.lastArchivedAt;
  return newest === null ? null : Math.max(0, Date.parse(newest) - Date.parse(archivedAt.get(next)!));
}
