/** Promotions as the protocol sees them, and what a vault holds: for tests in which PostgreSQL is played by the test. */
import type { Promotion } from '../../core/cluster/facts.ts';
import { readBranch } from '../../core/work/branch.ts';
import type { Cluster } from '../../core/work/cluster.ts';
import { openPromotion, sealPromotion } from '../../core/work/promotion.ts';
import { triggerPromotion } from '../../core/work/trigger.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import type { FakeNode } from './fake-node.ts';
import { SEGMENT_SIZE } from './segments.ts';

export const lsnOf = (number: number): bigint => BigInt(number) * BigInt(SEGMENT_SIZE);
export const lsnText = (number: number): string => `0/${(number * SEGMENT_SIZE).toString(16).toUpperCase()}`;
export const historyText = (forkSegment: number, parent = 1): string =>
  `${parent}\t${lsnText(forkSegment)}\tno recovery target specified\n`;

/** Names under a prefix of the manifest, in order. */
export async function names(cluster: Cluster, prefix = 'wal#'): Promise<string[]> {
  const found: string[] = [];
  const to = prefix.slice(0, -1) + '$';
  for await (const row of cluster.vault.manifest.query({ pk: cluster.partition, from: prefix, to }))
    found.push(row.sk.slice(prefix.length));
  return found;
}

export async function promote(
  cluster: Cluster,
  node: FakeNode,
  forkSegment: number,
  mode: 'smart' | 'fast' = 'smart',
): Promise<Promotion> {
  await triggerPromotion(cluster, { mode, to: node.seat.node });
  return finishPromotion(cluster, node, lsnOf(forkSegment));
}

/** Seal and open of a promotion that was triggered. @param fork  where the node's replay ends @param leaseMs  of the node's lease, which begins */
export async function finishPromotion(
  cluster: Cluster,
  node: FakeNode,
  fork?: bigint,
  leaseMs?: number,
): Promise<Promotion> {
  const { head, histories } = await readBranch(cluster);
  const lsn = fork ?? parseLsn(head.tail?.lsn ?? head.lsn ?? '0/0');
  const sealed = await sealPromotion(node.cluster, { node: node.seat.node, timeline: head.timeline, lsn });
  const before = histories.get(head.timeline)?.text ?? '';
  const own = `${head.timeline}\t0/${lsn.toString(16).toUpperCase()}\tno recovery target specified\n`;
  const historyText = before + own;
  await openPromotion(node.cluster, node.seat, { timeline: sealed.reserved!, historyText, leaseMs });
  return sealed;
}
