/**
 * The standby that is to become the primary: what is known of it before it is triggered.
 *
 * A standby that was started a moment ago has not said yet that it is a target: worth a wait, or a script that starts one and names it in
 * the next line fails now and then.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Control, Head, NodeRow } from '../cluster/facts.ts';
import { gapAfter, placeOfNode, type LiveGap } from '../cluster/gaps.ts';
import { readBranch } from './branch.ts';
import { readControl, type Cluster, readNode } from './cluster.ts';
import { readLiveGaps } from './gap-rows.ts';

/** What a decision about a target goes by. `node` undefined: nobody of that name is known; `gap`: the first that it has not passed. */
export type TargetFacts = {
  control: Control;
  head: Head;
  node: NodeRow | undefined;
  gap: LiveGap | undefined;
};

/** Control before head: whoever changes both is then found by the revision of one of them. */
export async function readTarget(cluster: Cluster, to: string): Promise<TargetFacts> {
  const control = await readControl(cluster);
  const branch = await readBranch(cluster);
  const node = await readNode(cluster, to);
  const { head } = branch;
  if ((head.gap ?? null) === null || node === undefined) return { control, head, node, gap: undefined };
  const live = await readLiveGaps(cluster, branch);
  return { control, head, node, gap: gapAfter(live, placeOfNode(node, cluster.segmentSize)) };
}

/** How long such a report is waited for, ms. */
export const REPORT_MS = 15_000;

/** Returns as soon as waiting cannot help: it has reported, or it is no standby, or something is wrong with it. */
export async function untilReported(
  cluster: Cluster,
  to: string,
  {
    limitMs = REPORT_MS,
    signal,
    onWait,
  }: { limitMs?: number; signal?: AbortSignal; onWait?: () => void } = {},
): Promise<void> {
  const deadline = performance.now() + limitMs;
  for (let said = false; performance.now() < deadline; said = true) {
    signal?.throwIfAborted();
    const node = await readNode(cluster, to);
    if (node?.role !== 'standby' || node.consistent || node.trouble !== null) return;
    if (!said) onWait?.();
    await sleep(200);
  }
}
