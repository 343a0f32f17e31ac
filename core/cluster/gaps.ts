/**
 * Declared gaps: segments that were never archived because archiving was off, and that head has moved past all the same.
 *
 * A gap is known by the rows gap#, counted in head.gap. It grows at its end while archiving stays off; a segment that is handed in later
 * after all takes its place there, and the gap shrinks, splits or ends. Which of them matter is for the lineage to say: a gap past
 * the fork of a timeline that was left is no part of the live branch.
 *
 * Pure.
 */
import { parseLsn, type Lsn } from '../wal/lsn.ts';
import { timelineAt, type Lineage } from '../wal/lineage.ts';
import { isSegmentName, nextSegment, segmentAt, segmentEnd, segmentStart } from '../wal/name.ts';
import type { BackupRow, GapRow, Head, NodeRow } from './facts.ts';

/** A gap as far as it lies on a branch. */
export type LiveGap = Pick<GapRow, 'from' | 'to' | 'at' | 'until' | 'reason'> & {
  timeline: number;
  /** Where it begins and ends (exclusive): borders of segments. */
  begins: Lsn;
  ends: Lsn;
};

/** The gap that holds this segment. */
export function gapOf<T extends Pick<GapRow, 'from' | 'to'>>(
  gaps: readonly T[],
  name: string,
): T | undefined {
  return gaps.find(
    ({ from, to }) => from.slice(0, 8) === name.slice(0, 8) && from <= name && name.slice(0, 24) <= to,
  );
}

/** In the order of the log: by place, then by timeline. */
export const byPlace = (one: Pick<GapRow, 'from'>, other: Pick<GapRow, 'from'>): number => {
  const key = ({ from }: Pick<GapRow, 'from'>): string => `${from.slice(8)}${from.slice(0, 8)}`;
  return key(one) < key(other) ? -1 : 1;
};

/** As head says it. The newest is the one that was begun last. */
export function headGap(gaps: readonly GapRow[]): Head['gap'] {
  const newest = gaps
    .toSorted((one, other) => (one.at === other.at ? byPlace(one, other) : one.at < other.at ? -1 : 1))
    .at(-1);
  if (newest === undefined) return null;
  const { from, to, at } = newest;
  return { count: gaps.length, from, to, at };
}

/** Who declares, when and why. */
export type Declared = { partition: string; node: string; epoch: number; at: string; reason: string };

/** With one more segment declared: the gap that ends right before it grows, else it begins one. A segment in a gap changes nothing. */
export function withDeclared(
  gaps: readonly GapRow[],
  name: string,
  by: Declared,
  segmentSize: number,
): readonly GapRow[] {
  if (gapOf(gaps, name) !== undefined) return gaps;
  const { partition, node, epoch, at, reason } = by;
  const before = gaps.find((gap) => gap.reason === reason && nextSegment(gap.to, segmentSize) === name);
  if (before !== undefined)
    return gaps.map((gap) => (gap === before ? { ...gap, to: name, until: at } : gap));
  const row: GapRow = {
    ...{ pk: partition, sk: `gap#${name}`, rev: 1 },
    ...{ from: name, to: name, at, until: at, reason, node, epoch },
  };
  return [...gaps, row];
}

/** Without a segment that is there after all. */
export function withFilled(gaps: readonly GapRow[], name: string, segmentSize: number): readonly GapRow[] {
  const gap = gapOf(gaps, name);
  if (gap === undefined || !isSegmentName(name)) return gaps;
  const start = segmentStart(name, segmentSize);
  const timeline = Number.parseInt(name.slice(0, 8), 16);
  const left =
    gap.from < name
      ? { ...gap, to: segmentAt(timeline, start - BigInt(segmentSize), segmentSize) }
      : undefined;
  const next = nextSegment(name, segmentSize);
  const right = name < gap.to ? { ...gap, sk: `gap#${next}`, rev: 1, from: next } : undefined;
  return gaps.flatMap((each) => (each === gap ? [left, right].filter((part) => part !== undefined) : [each]));
}

/** Names of the segments of a gap. */
export function* segmentsOf(gap: Pick<GapRow, 'from' | 'to'>, segmentSize: number): Generator<string, void> {
  for (let name = gap.from; name <= gap.to; name = nextSegment(name, segmentSize)) yield name;
}

/** The gaps of a branch in the order of the log, each as far as it lies on it. */
export function liveGaps(gaps: readonly GapRow[], lineage: Lineage, segmentSize: number): LiveGap[] {
  const size = BigInt(segmentSize);
  const live: LiveGap[] = [];
  for (const { from, to, at, until, reason } of gaps.toSorted(byPlace)) {
    const timeline = Number.parseInt(from.slice(0, 8), 16);
    const part = lineage.find((one) => one.timeline === timeline);
    if (part === undefined || !isSegmentName(from) || !isSegmentName(to)) continue;
    let begins = segmentStart(from, segmentSize);
    // a segment in which the timeline begins has its name; one in which it ends, that of its child
    while (begins < segmentEnd(to, segmentSize) && timelineAt(lineage, begins, segmentSize) !== timeline)
      begins += size;
    let ends = segmentEnd(to, segmentSize);
    if (part.ends !== null && part.ends < ends) ends = part.ends - (part.ends % size);
    if (begins >= ends) continue;
    live.push({ from, to, at, until, reason, timeline, begins, ends });
  }
  return live;
}

/** The first gap that somebody meets who goes on from `lsn`. */
export function gapAfter(live: readonly LiveGap[], lsn: Lsn): LiveGap | undefined {
  return live.find(({ ends }) => ends > lsn);
}

/** How far a node has come, by its own last report. */
export function placeOfNode(node: NodeRow, segmentSize: number): Lsn {
  const { lastReplayedLsn, lastRestored, restartPoint } = node;
  const places: Lsn[] = [0n];
  if (lastReplayedLsn !== null) places.push(parseLsn(lastReplayedLsn));
  if (lastRestored !== null && isSegmentName(lastRestored))
    places.push(segmentEnd(lastRestored, segmentSize));
  if (restartPoint !== null && isSegmentName(restartPoint))
    places.push(segmentStart(restartPoint, segmentSize));
  return places.reduce((most, place) => (place > most ? place : most));
}

/**
 * The newest gap, where no complete backup begins after it: until one does, no server can be made that reaches the live end.
 *
 * @param backups  of whatever state and branch
 */
export function wantsBackup(
  live: readonly LiveGap[],
  lineage: Lineage,
  backups: readonly Pick<BackupRow, 'state' | 'timeline' | 'startLsn' | 'stopLsn'>[],
): LiveGap | undefined {
  const last = live.at(-1);
  if (last === undefined) return undefined;
  const isPast = backups.some(({ state, timeline, startLsn, stopLsn }) => {
    const part = lineage.find((one) => one.timeline === timeline);
    if (state !== 'complete' || part === undefined || parseLsn(startLsn) < last.ends) return false;
    return part.ends === null || parseLsn(stopLsn ?? startLsn) <= part.ends;
  });
  return isPast ? undefined : last;
}

/** For people: `0000…05`, or `0000…05 to 0000…07`. */
export const gapText = ({ from, to }: Pick<GapRow, 'from' | 'to'>): string =>
  from === to ? from : `${from} to ${to}`;

/** What stands in the server's log of a file that was not archived. @param key  of the object, as far as its name would say */
export const ignoringText = (name: string, key: string): string =>
  `archiving not active: ignoring pg_wal/${name} (would be stored as ${key})`;
