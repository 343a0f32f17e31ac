/**
 * What the topic of a replica's region is to be told: which segments of the live branch, history files and base backups have arrived there
 * since it was told last.
 *
 * Each announcement carries what is told once it is out, so that whoever publishes moves the row after each of them: one that dies between
 * the two tells it again, and none is left out. A stretch always begins where the last one that was told ends; so whatever comes twice,
 * nothing is told before what lies below it on its timeline.
 *
 * Pure.
 */
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import type { Lineage } from '../wal/lineage.ts';
import { historyName, segmentAt, segmentStart } from '../wal/name.ts';
import type { ArrivalsRow, BackupRow, Head, HistoryRow, HoldsRow } from './facts.ts';

/** Where the topic stands; undefined: it was never told anything. */
export type Told = Pick<ArrivalsRow, 'vaultId' | 'ends' | 'histories' | 'backups'>;

export type Arrived = {
  cluster: string;
  /** The replica, as the relay reaches it. */
  vault: string;
  vaultId: string;
  segmentSize: number;
  head: Pick<Head, 'timeline' | 'lsn' | 'firstLsn'>;
  /** Of head.timeline. */
  lineage: Lineage;
  /** History rows of the lineage. */
  histories: ReadonlyMap<number, HistoryRow>;
  backups: readonly BackupRow[];
  /** Of the replica's own retention: what lies below it is not there to be told of. */
  horizon: HoldsRow['horizon'];
};

/** One message, as subscribers get it. */
export type Arrival = { cluster: string; vault: string; at: string; timeline: number } & (
  | {
      kind: 'segments';
      /** Names of the first and the last; `count` of them lie one behind the other. */
      first: string;
      last: string;
      count: number;
      /** Where the last one ends: a standby there can replay up to it. */
      lsn: string;
    }
  | { kind: 'history'; file: string; parent: number; forkLsn: string }
  | { kind: 'backup'; id: string; label: string; startLsn: string; stopLsn: string | null }
);

export type Announcement = { arrival: Arrival; told: Told };

/** In the order in which they must go out; none: all is told. */
export function decideAnnouncements(before: Told | undefined, now: Arrived, at: string): Announcement[] {
  const { cluster, vault, vaultId } = now;
  // A replica that was made anew under the old URL holds what nobody was told of.
  const known = before?.vaultId === vaultId ? before : undefined;
  const { ends = {}, histories = [], backups = [] } = known ?? {};
  let told: Told = { vaultId, ends, histories, backups };
  const announcements: Announcement[] = [];
  const announce = (arrival: Arrival, next: Partial<Told>): void => {
    told = { ...told, ...next };
    announcements.push({ arrival, told });
  };
  for (const [index, { timeline }] of now.lineage.entries()) {
    const common = { cluster, vault, at, timeline };
    const history = now.histories.get(timeline);
    if (history !== undefined && !told.histories.includes(timeline)) {
      const { parent, forkLsn } = history;
      announce(
        { ...common, kind: 'history', file: historyName(timeline), parent, forkLsn },
        { histories: [...told.histories, timeline] },
      );
    }
    const stretch = stretchOf(now, index, told.ends[String(timeline)]);
    if (stretch === undefined) continue;
    const { from, to } = stretch;
    const size = BigInt(now.segmentSize);
    announce(
      {
        ...{ ...common, kind: 'segments' },
        first: segmentAt(timeline, from, now.segmentSize),
        last: segmentAt(timeline, to - size, now.segmentSize),
        count: Number((to - from) / size),
        lsn: formatLsn(to),
      },
      { ends: { ...told.ends, [String(timeline)]: formatLsn(to) } },
    );
  }
  const complete = now.backups.filter(({ state }) => state === 'complete');
  for (const { id, timeline, label, startLsn, stopLsn } of complete.toSorted(byTime)) {
    if (told.backups.includes(id)) continue;
    // Those that retention has taken are forgotten here, so that the row stays small.
    const kept = told.backups.filter((one) => now.backups.some((backup) => backup.id === one));
    announce(
      { ...{ cluster, vault, at, timeline }, kind: 'backup', id, label, startLsn, stopLsn },
      { backups: [...kept, id] },
    );
  }
  return announcements;
}

/** Whole segments of one timeline that are there and were not told, by their LSNs; `to` exclusive. */
function stretchOf(
  now: Arrived,
  index: number,
  told: string | undefined,
): { from: Lsn; to: Lsn } | undefined {
  const { head, segmentSize, horizon } = now;
  const { timeline, begins, ends } = now.lineage[index]!;
  if (head.lsn === null || head.firstLsn === null) return undefined;
  const size = BigInt(segmentSize);
  const down = (lsn: Lsn): Lsn => lsn - (lsn % size);
  // The segment that holds a fork is the newer timeline's.
  const to = down(ends ?? parseLsn(head.lsn));
  const kept = horizon[String(timeline)];
  const from = [
    down(begins),
    down(parseLsn(head.firstLsn)),
    ...(kept === undefined ? [] : [segmentStart(kept, segmentSize)]),
    ...(told === undefined ? [] : [parseLsn(told)]),
  ].reduce((one, other) => (other > one ? other : one));
  return from < to ? { from, to } : undefined;
}

function byTime(one: BackupRow, other: BackupRow): number {
  const [left, right] = [one, other].map(
    ({ finishedAt, startedAt, id }) => `${finishedAt ?? startedAt} ${id}`,
  );
  return left! < right! ? -1 : left! > right! ? 1 : 0;
}
