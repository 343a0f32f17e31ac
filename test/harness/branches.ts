/** A branch with a fork, for what is decided by where a name lies: 16 MiB segments, timelines 1 and 3. */
import type { RestoreBranch } from '../../core/cluster/decide-restore.ts';
import { formatHistory } from '../../core/wal/history.ts';
import { lineageOf } from '../../core/wal/lineage.ts';
import { MiB } from '../../core/wal/name.ts';

const SEGMENT = 16 * MiB;
export const at = (segment: number) => BigInt(segment) * BigInt(SEGMENT);
export const name = (timeline: number, segment: number) =>
  `${timeline.toString(16).padStart(8, '0')}00000000${segment.toString(16).padStart(8, '0')}`.toUpperCase();

/** Timeline 1 up to the middle of segment 5, timeline 3 from there; 2 was given up. */
export function branch(change: Partial<RestoreBranch> = {}): RestoreBranch {
  const text = formatHistory([{ timeline: 1, forkLsn: at(5) + 0x2000n }], 'test');
  return {
    lineage: lineageOf(3, text),
    end: at(8),
    segmentSize: SEGMENT,
    tail: null,
    wholeForks: new Set([3]),
    nextTimeline: 4,
    ...change,
  };
}
