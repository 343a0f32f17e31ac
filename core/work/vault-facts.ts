/** What the vault knows that a decision about one server needs: control, head, the live branch, and the history of its timeline. */
import type { VaultFacts } from '../cluster/decide-rejoin.ts';
import { readBranch, readHistory, type Branch } from './branch.ts';
import { readControl, type Cluster } from './cluster.ts';

/** @param timeline  the one that the server was on */
export async function readVaultFacts(
  cluster: Cluster,
  timeline: number,
): Promise<{ facts: VaultFacts; branch: Branch }> {
  const control = await readControl(cluster);
  const branch = await readBranch(cluster);
  const history = await readHistory(cluster, timeline);
  return { facts: { control, head: branch.head, lineage: branch.lineage, history }, branch };
}
