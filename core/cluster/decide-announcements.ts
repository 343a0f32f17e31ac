/**
 * What the region of a replica is to be told of what has arrived there, from what it was told last: segments in batches along the live
 * branch, each history file and each base backup by itself. Decided from the replica's own state and not from what a pass brought, so that
 * a function that died between commit and message tells it the next time.
 *
 * Pure.
 */
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { timelineAt, type Lineage } from '../wal/lineage.ts';
import { segmentAt } from '../wal/name.ts';
import type { BackupRow, Head, HistoryRow } from './facts.ts';

/** Kept beside the replica: what was announced. `lsn`: the end of the last segment; null: none. */
export type Announced = { lsn: string | null; timelines: number[]; backups: string[] };

export type Announcement =
  | { kind: 'history'; timeline: number; parent: number; fork: string }
  /** `lsn`: where the last of them ends. */
  | { kind: 'segments'; timeline: number; first: string; last: string; count: number; lsn: string }
  | { kind: 'backup'; id: string; startSegment: string; stopSegment: string | null; sizeBytes: number };

export type Arrived = {
  head: Pick<Head, 'lsn' | 'firstLsn'>;
  lineage: Lineage;
  /** Of the lineage. */
  histories: readonly Pick<HistoryRow, 'timeline' | 'parent' | 'forkLsn'>[];
  backups: readonly Pick<BackupRow, 'id' | 'state' | 'startSegment' | 'stopSegment' | 'sizeBytes'>[];
  /** Bytes. */
  segmentSize: number;
};

/** In the order in which a standby needs them: a history before any segment of its timeline, backups last. */
export function decideAnnouncements(
  told: Announced | undefined,
  arrived: Arrived,
): { announcements: Announcement[]; next: Announced } {
  const known = new Set(told?.timelines);
  const histories = arrived.histories
    .filter(({ timeline }) => !known.has(timeline))
    .map(({ timeline, parent, forkLsn }): Announcement => ({
      kind: 'history',
      timeline,
      parent,
      fork: forkLsn,
    }));
  const runs = segmentRuns(told?.lsn ?? null, arrived);
  const inOrder = [...histories, ...runs].sort(
    (one, other) => timelineOf(one) - timelineOf(other) || (one.kind === 'history' ? -1 : 1),
  );
  const complete = arrived.backups.filter(({ state }) => state === 'complete');
  const backups = complete
    .filter(({ id }) => told?.backups.includes(id) !== true)
    .map(({ id, startSegment, stopSegment, sizeBytes }): Announcement => ({
      kind: 'backup',
      ...{ id, startSegment, stopSegment, sizeBytes },
    }));
  return {
    announcements: [...inOrder, ...backups],
    next: {
      lsn: arrived.head.lsn,
      timelines: arrived.histories.map(({ timeline }) => timeline).sort((one, other) => one - other),
      // those that are gone need not be remembered
      backups: complete.map(({ id }) => id).sort(),
    },
  };
}

const timelineOf = (one: Announcement): number => ('timeline' in one ? one.timeline : Infinity);

/**
 * One run for each timeline. Where the branch was set back below what was announced (a first contact has set aside what the other
 * vault did not know) it goes on from there: what is new was announced under another timeline's names, or never.
 */
function segmentRuns(told: string | null, { head, lineage, segmentSize }: Arrived): Announcement[] {
  if (head.lsn === null) return [];
  const size = BigInt(segmentSize);
  const floor = (lsn: Lsn): Lsn => lsn - (lsn % size);
  const end = parseLsn(head.lsn);
  const begin = parseLsn(told ?? head.firstLsn ?? head.lsn);
  const runs: Announcement[] = [];
  for (let start = floor(begin); start + size <= end;) {
    const timeline = timelineAt(lineage, start, segmentSize);
    const part = lineage.find((one) => one.timeline === timeline);
    const next =
      part === undefined || part.ends === null || floor(part.ends) >= floor(end)
        ? floor(end)
        : floor(part.ends);
    const stop = next > start ? next : start + size;
    runs.push({
      kind: 'segments',
      timeline,
      first: segmentAt(timeline, start, segmentSize),
      last: segmentAt(timeline, stop - size, segmentSize),
      count: Number((stop - start) / size),
      lsn: formatLsn(stop),
    });
    start = stop;
  }
  return runs;
}
