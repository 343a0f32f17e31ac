/**
 * The tree of timelines, from the histories that the vault holds: which forked from which and where, which of them are the live branch,
 * which lead nowhere, and which numbers are taken without a history.
 *
 * A history file names all ancestors, so the vault knows timelines of which it has no history of their own: 1 never has one, and a
 * cluster may have come to the vault late in its life.
 *
 * Pure.
 */
import { parseHistory } from '../wal/history.ts';
import type { Lineage } from '../wal/lineage.ts';
import { formatLsn } from '../wal/lsn.ts';
import type { Head, HistoryRow } from './facts.ts';

export type Timeline = {
  timeline: number;
  /** Null: it is the first that is known. */
  parent: number | null;
  /** First byte that is no longer the parent's. */
  forkLsn: string | null;
  /** Who opened it, in which epoch, and when its history came into the vault; null where the vault has no history of it. */
  node: string | null;
  epoch: number | null;
  at: string | null;
  /** Part of the live branch; `current`: its end, which is written now. */
  live: boolean;
  current: boolean;
  /** Neither live nor the way to another timeline. */
  leadsNowhere: boolean;
};

export type TimelineTree = {
  /** Ascending; a parent stands before its children. */
  timelines: Timeline[];
  /** Numbers up to the highest that was ever taken, of which the vault knows nothing else: ranges, inclusive. */
  reserved: { from: number; to: number; /** The node of the promotion under way. */ node: string | null }[];
};

/** @param lineage  of head.timeline @throws RangeError a history that is none */
export function timelineTree(head: Head, lineage: Lineage, histories: readonly HistoryRow[]): TimelineTree {
  const known = new Map<number, Pick<Timeline, 'parent' | 'forkLsn'>>();
  // ascending: a timeline's own history says of its parent what its children repeat
  const rows = [...histories].sort((one, other) => one.timeline - other.timeline);
  for (const row of rows) {
    const ancestors = parseHistory(row.text);
    [...ancestors, { timeline: row.timeline }].forEach(({ timeline }, index) => {
      const parent = ancestors[index - 1];
      if (!known.has(timeline))
        known.set(timeline, {
          parent: parent?.timeline ?? null,
          forkLsn: parent === undefined ? null : formatLsn(parent.forkLsn),
        });
    });
  }
  const live = new Set(lineage.map(({ timeline }) => timeline));
  for (const timeline of live) if (!known.has(timeline)) known.set(timeline, { parent: null, forkLsn: null });
  const parents = new Set([...known.values()].map(({ parent }) => parent));
  const timelines = [...known]
    .sort(([one], [other]) => one - other)
    .map(([timeline, { parent, forkLsn }]): Timeline => {
      const row = rows.find((each) => each.timeline === timeline);
      return {
        ...{ timeline, parent, forkLsn },
        ...{ node: row?.node ?? null, epoch: row?.epoch ?? null, at: row?.archivedAt ?? null },
        live: live.has(timeline),
        current: timeline === head.timeline,
        leadsNowhere: !live.has(timeline) && !parents.has(timeline),
      };
    });
  return { timelines, reserved: reservedNumbers(head, [...known.keys()]) };
}

/** Below the lowest that is known nothing is reserved: those numbers were before the vault. */
function reservedNumbers(head: Head, known: readonly number[]): TimelineTree['reserved'] {
  const ranges: TimelineTree['reserved'] = [];
  const pending = head.promotion?.state === 'open' ? null : head.promotion;
  const sorted = [...known].sort((one, other) => one - other);
  const add = (from: number, to: number) => {
    const reserved = pending?.reserved;
    if (reserved === undefined || reserved < from || reserved > to) {
      if (from <= to) ranges.push({ from, to, node: null });
      return;
    }
    if (from < reserved) ranges.push({ from, to: reserved - 1, node: null });
    ranges.push({ from: reserved, to: reserved, node: pending!.node });
    if (reserved < to) ranges.push({ from: reserved + 1, to, node: null });
  };
  sorted.forEach((timeline, index) => {
    const next = sorted[index + 1] ?? Math.max(head.lastTimeline, pending?.reserved ?? 0, timeline) + 1;
    add(timeline + 1, next - 1);
  });
  return ranges;
}
