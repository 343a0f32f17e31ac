/**
 * The standby that is to become the primary: what is known of it before it is triggered.
 *
 * A standby that was started a moment ago has not said yet that it is a target: worth a wait, or a script that starts one and names it in
 * the next line fails now and then.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { keys, type Control, type Head, type NodeRow } from '../cluster/facts.ts';
import { readControl, readHead, type Cluster } from './cluster.ts';

/** What a decision about a target goes by. @returns node: undefined where nobody of that name is known */
export async function readTarget(
  cluster: Cluster,
  to: string,
): Promise<{ control: Control; head: Head; node: NodeRow | undefined }> {
  const [control, head, row] = await Promise.all([
    readControl(cluster),
    readHead(cluster),
    cluster.vault.manifest.get(keys.node(cluster.partition, to)),
  ]);
  return { control, head, node: row as NodeRow | undefined };
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
    const node = (await cluster.vault.manifest.get(keys.node(cluster.partition, to))) as NodeRow | undefined;
    if (node?.role !== 'standby' || node.consistent || node.trouble !== null) return;
    if (!said) onWait?.();
    await sleep(200);
  }
}
