/** The tree of a cluster's timelines, each with how far the vault has its WAL: one row read for each timeline, never its segments. */
import { VaultError } from '../errors.ts';
import type { HistoryRow, TailRow } from '../cluster/facts.ts';
import { timelineTree, type Timeline, type TimelineTree } from '../cluster/timeline-tree.ts';
import { readBranch } from './branch.ts';
import { listRows, type Cluster } from './cluster.ts';
import { lastWal } from './list-wal.ts';

export type KnownTimeline = Timeline & {
  /** The last file of it in the vault; null: none, or let go by retention. */
  lastFile: string | null;
  /** Where its unfinished last segment ends, of a flush or a dead primary; null: there is none. */
  tailLsn: string | null;
};

/** @throws VaultError corrupt (a history that is none) | unreachable */
export async function readTimelines(
  cluster: Cluster,
): Promise<{ timelines: KnownTimeline[]; reserved: TimelineTree['reserved'] }> {
  const { head, lineage } = await readBranch(cluster);
  const histories = await listRows<HistoryRow>(cluster, 'history#');
  const tails = await listRows<TailRow>(cluster, 'tail#');
  const { timelines, reserved } = readTree(() => timelineTree(head, lineage, histories));
  const known: KnownTimeline[] = [];
  for (const one of timelines) {
    const last = await lastWal(cluster, { timeline: one.timeline, kinds: ['wal'] }, 1);
    const tail = tails.find(({ timeline }) => timeline === one.timeline);
    known.push({ ...one, lastFile: last[0]?.file ?? null, tailLsn: tail?.endLsn ?? null });
  }
  return { timelines: known, reserved };
}

function readTree(read: () => TimelineTree): TimelineTree {
  try {
    return read();
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new VaultError('corrupt', cause.message, { cause });
  }
}
