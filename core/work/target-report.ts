/**
 * A standby that was started a moment ago has not said yet that it is a target: worth a wait, or a script that starts one and names it in
 * the next line fails now and then.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { keys, type NodeRow } from '../cluster/facts.ts';
import type { Cluster } from './cluster.ts';

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
    const node = (await cluster.vault.manifest.get(keys.node(cluster.partition, to))) as NodeRow | undefined;
    if (node?.role !== 'standby' || node.consistent || node.trouble !== null) return;
    if (!said) onWait?.();
    await sleep(200);
  }
}
