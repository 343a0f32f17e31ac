/**
 * Lineage: which stretch of the log belongs to which timeline, seen from one timeline back to the beginning.
 *
 * The stretches lie one after the other without a gap: [0, fork of 1), [fork of 1, fork of 2), … [last fork, ∞).
 * PostgreSQL names a segment that holds a fork twice, once on each timeline; on the branch of the newer timeline it is
 * the newer one that counts, since it begins as a copy of the older one up to the fork.
 *
 * Pure: no file, no clock, no network.
 * Source: PostgreSQL docs, "Continuous Archiving and Point-in-Time Recovery: Timelines"; the order in which names are asked for
 * was measured (15 to 18).
 */
import { parseHistory } from './history.ts';
import type { Lsn } from './lsn.ts';
import { checkSize, checkTimeline, segmentAt } from './name.ts';

/** Oldest first; the last is the timeline itself, whose `ends` is null. `begins` inclusive, `ends` exclusive; may be empty. */
export type Lineage = { timeline: number; begins: Lsn; ends: Lsn | null }[];

/**
 * The lineage of a timeline.
 *
 * Where forks do not ascend (a recovery along timeline 2 that stopped before the fork of 2) the newer timeline wins, as in
 * PostgreSQL: the older stretch is cut there, the one between becomes empty.
 *
 * @param historyText  content of its history file; undefined: it has none, hence no ancestors (timeline 1; PostgreSQL takes any
 *                     timeline without a file so)
 * @throws RangeError  when the text is no history, or names this timeline or a higher one as an ancestor
 */
export function lineageOf(timeline: number, historyText: string | undefined): Lineage {
  checkTimeline(timeline);
  const ancestors = historyText === undefined ? [] : parseHistory(historyText);
  const parent = ancestors.at(-1);
  if (parent !== undefined && parent.timeline >= timeline) {
    throw new RangeError(`history of timeline ${timeline} names timeline ${parent.timeline} as an ancestor`);
  }
  const lineage: Lineage = [];
  let ends: Lsn | null = null;
  let child = timeline;
  for (const { timeline: ancestor, forkLsn } of ancestors.toReversed()) {
    const begins: Lsn = ends === null || forkLsn < ends ? forkLsn : ends;
    lineage.unshift({ timeline: child, begins, ends });
    child = ancestor;
    ends = begins;
  }
  lineage.unshift({ timeline: child, begins: 0n, ends });
  return lineage;
}

/**
 * The timeline under which PostgreSQL names the segment that begins at `segmentStartLsn` on this branch: the newest
 * timeline that has begun before the segment ends. A fork just at the end of a segment leaves it to the older timeline.
 *
 * @param segmentSize  bytes
 */
export function timelineAt(lineage: Lineage, segmentStartLsn: Lsn, segmentSize: number): number {
  checkSize(segmentSize);
  const end = segmentStartLsn + BigInt(segmentSize);
  const found = lineage.findLast(({ begins }) => begins < end);
  if (found === undefined) throw new RangeError('an empty lineage names no segment');
  return found.timeline;
}

/**
 * Names of the segments along the branch, without end: first the one that holds `lsn`, then each after it, changing to the
 * newer timeline's name where it begins.
 */
export function* segmentsFrom(lineage: Lineage, lsn: Lsn, segmentSize: number): Generator<string, never> {
  checkSize(segmentSize);
  const size = BigInt(segmentSize);
  for (let start = lsn - (lsn % size); ; start += size) {
    yield segmentAt(timelineAt(lineage, start, segmentSize), start, segmentSize);
  }
}
