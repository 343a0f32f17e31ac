/** How far a node is behind the live branch, in segments, by the last that it restored. */
import { parseLsn } from '../wal/lsn.ts';
import { segmentsFrom } from '../wal/lineage.ts';
import { isSegmentName, segmentEnd, segmentStart } from '../wal/name.ts';
import type { Branch } from './branch.ts';

/** How many segments of the live branch come after `restored`, and the first of them; null where that cannot be said. */
export function segmentsBehind(
  branch: Branch,
  restored: string | null,
  segmentSize: number,
): { count: number; next: string | null } | null {
  const { head, lineage } = branch;
  if (head.lsn === null) return { count: 0, next: null };
  if (restored === null || !isSegmentName(restored)) return null;
  const timeline = Number.parseInt(restored.slice(0, 8), 16);
  const part = lineage.find((one) => one.timeline === timeline);
  const from = segmentEnd(restored, segmentSize);
  // Past the fork of its timeline: what it restored is not the live branch, however near the numbers are.
  if (part === undefined || (part.ends !== null && segmentStart(restored, segmentSize) >= part.ends))
    return null;
  // The segment that holds a fork begins again on the new timeline: it counts as not restored.
  const begin = part.ends !== null && part.ends < from ? segmentStart(restored, segmentSize) : from;
  const size = BigInt(segmentSize);
  const end = parseLsn(head.lsn);
  const count = end <= begin ? 0 : Number((end - begin) / size);
  return { count, next: count === 0 ? null : segmentsFrom(lineage, begin, segmentSize).next().value };
}
