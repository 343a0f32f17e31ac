/**
 * First contact after a disaster: which epoch two vaults have in common, and what of the old one is not of the live branch.
 *
 * Pure. Modelled: epochs of two vaults that did not see each other prove nothing, so the vault that took over supersedes the other
 * whatever the numbers are; and without setting the dead branch aside the two can never agree again.
 */
import { formatLsn, parseLsn } from '../wal/lsn.ts';
import { isSegmentName, parseWalName, segmentAt, segmentEnd, segmentStart } from '../wal/name.ts';
import { segmentsFrom } from '../wal/lineage.ts';
import { endOf } from './decide-roles.ts';
import type { BackupRow, Control, GapRow, Head } from './facts.ts';
import { gapOf, liveGaps } from './gaps.ts';
import type { Side } from './decide-relay.ts';

export type Meeting =
  /** The active vault first: its epoch and its highest timeline number must be those of both. */
  | { do: 'raise'; control: Control; head: Head }
  /** A promotion there still counts on its epoch: it opens first. */
  | { do: 'wait'; message: string }
  | { do: 'mark'; control: Control; head: Head }
  | { do: 'set aside' };

/** @param other  the vault that shall be a replica of `active` (which may itself be one, in a chain) */
export function decideMeeting(active: Side, other: Side, at: string): Meeting {
  const [mine, theirs] = [active.control, other.control];
  const isMarked = theirs.role === 'converging' && theirs.source?.id === mine.vaultId;
  if (isMarked && theirs.epoch <= mine.epoch) return { do: 'set aside' };
  const epoch = mine.epoch > theirs.epoch ? mine.epoch : Math.max(mine.epoch, theirs.epoch) + 1;
  const lastTimeline = Math.max(active.head.lastTimeline, other.head.lastTimeline);
  if (mine.role === 'active' && (epoch !== mine.epoch || lastTimeline !== active.head.lastTimeline)) {
    const { promotion } = active.head;
    if (promotion !== null && promotion.state !== 'open') {
      return {
        do: 'wait',
        message: `the promotion of ${promotion.node} in ${active.url} is ${promotion.state}: its epoch, ${promotion.epoch}, stays until it is open`,
      };
    }
    return {
      do: 'raise',
      // the primary stays who it is: `reign` is not touched, and its nonce proves it
      control: { ...mine, rev: mine.rev + 1, epoch },
      head: { ...active.head, rev: active.head.rev + 1, epoch, lastTimeline },
    };
  }
  const ref = { id: mine.vaultId, url: active.url };
  return {
    do: 'mark',
    control: {
      ...theirs,
      rev: theirs.rev + 1,
      epoch: mine.epoch,
      reign: mine.reign,
      primary: mine.primary,
      role: 'converging',
      source: ref,
      supersededBy: theirs.role === 'active' ? { ...ref, epoch: mine.epoch, at } : theirs.supersededBy,
      ...{ supersedes: null, direct: null, trigger: null },
    },
    head: {
      ...other.head,
      rev: other.head.rev + 1,
      epoch: mine.epoch,
      lastTimeline,
      // lsn and timeline stay: what was promised there must not become "not there" for a recovery that is under way
      ...{ promotion: null, flush: null, writer: null },
    },
  };
}

/**
 * A row of the old vault that the active one lacks: of the live branch all the same? Only where it is older than all that the active
 * vault still holds: retention took it there.
 *
 * @param oldest  name of the oldest segment on the live branch that the active vault holds
 */
export function isOlderThanAll(
  active: Side,
  name: string,
  oldest: string | undefined,
  segmentSize: number,
): boolean {
  if (oldest === undefined || parseWalName(name)?.kind === 'history') return false;
  const timeline = Number.parseInt(name.slice(0, 8), 16);
  const part = active.lineage.find((one) => one.timeline === timeline);
  if (part === undefined) return false;
  const segment = name.slice(0, 24);
  const end = segmentEnd(segment, segmentSize);
  return (part.ends === null || end <= part.ends) && end <= segmentStart(oldest, segmentSize);
}

/**
 * A backup that ended on the live branch can still be followed to its end.
 *
 * @param history  of its timeline, as the vault that holds the backup has it
 */
export function isBackupLive(active: Side, backup: BackupRow, history: string | undefined): boolean {
  const part = active.lineage.find(({ timeline }) => timeline === backup.timeline);
  if (part === undefined || active.histories.get(backup.timeline) !== history) return false;
  const stop = parseLsn(backup.stopLsn ?? backup.startLsn);
  if (part.ends !== null) return stop <= part.ends;
  const end = endOf(active.head);
  return end !== null && stop <= end;
}

/**
 * Where the head of the old vault stands once the dead branch is aside: behind the last row in an unbroken line of the live branch.
 *
 * @param held  names of the rows that are left
 * @param gaps  its own: where they lie on the live branch its line is not broken
 */
export function headAfter(
  active: Side,
  before: Head,
  held: readonly string[],
  segmentSize: number,
  gaps: readonly GapRow[] = [],
): Head {
  const names = new Set(held.filter(isSegmentName));
  const first = [...names].sort(bySegment)[0];
  const base: Head = {
    ...before,
    rev: before.rev + 1,
    timeline: active.lineage[0]?.timeline ?? 1,
    ...{
      lsn: null,
      firstLsn: null,
      lastFile: null,
      tail: null,
      spill: null,
      promotion: null,
      flush: null,
      writer: null,
    },
  };
  if (first === undefined) return base;
  let last: string | undefined;
  let lastFile: string | undefined;
  const begin = segmentStart(first, segmentSize);
  const end = active.head.lsn === null ? begin : parseLsn(active.head.lsn);
  for (const name of segmentsFrom(active.lineage, begin, segmentSize)) {
    // A fork in the middle of a segment: the older timeline may hold that stretch too, which is not missed.
    const isHeld = names.has(name);
    const isLost = !isHeld && gapOf(gaps, name) !== undefined && segmentEnd(name, segmentSize) <= end;
    if (!isHeld && !isLost) break;
    last = name;
    if (isHeld) lastFile = name;
  }
  if (last === undefined) return { ...base, timeline: Number.parseInt(first.slice(0, 8), 16) };
  return {
    ...base,
    timeline: Number.parseInt(last.slice(0, 8), 16),
    lsn: formatLsn(segmentEnd(last, segmentSize)),
    firstLsn: formatLsn(begin),
    lastFile: lastFile ?? null,
  };
}

/** Of the old vault's gaps what lies on the live branch up to where its head stands then; the rest was of the dead branch. */
export function gapsLeft(
  active: Side,
  head: Head,
  gaps: readonly GapRow[],
  segmentSize: number,
): readonly GapRow[] {
  const end = head.lsn === null ? 0n : parseLsn(head.lsn);
  const size = BigInt(segmentSize);
  return gaps.flatMap((gap) => {
    const [live] = liveGaps([gap], active.lineage, segmentSize);
    if (live === undefined || live.begins >= end) return [];
    const ends = live.ends < end ? live.ends : end - (end % size);
    const from = segmentAt(live.timeline, live.begins, segmentSize);
    const to = segmentAt(live.timeline, ends - size, segmentSize);
    return from === gap.from && to === gap.to ? [gap] : [{ ...gap, sk: `gap#${from}`, from, to }];
  });
}

/** In the order of the log: by place first, then by timeline. */
function bySegment(one: string, other: string): number {
  const key = (name: string): string => `${name.slice(8, 24)}${name.slice(0, 8)}`;
  return key(one) < key(other) ? -1 : 1;
}

/** The oldest segment of the live branch among `held`; undefined: none. */
export function oldestOf(active: Side, held: Iterable<string>, segmentSize: number): string | undefined {
  let oldest: string | undefined;
  for (const name of held) {
    if (!isSegmentName(name)) continue;
    const start = segmentStart(name, segmentSize);
    const part = active.lineage.find(({ timeline }) => timeline === Number.parseInt(name.slice(0, 8), 16));
    if (part === undefined || (part.ends !== null && start >= part.ends)) continue;
    if (segmentAt(part.timeline, start, segmentSize) !== name) continue;
    if (oldest === undefined || bySegment(name, oldest) < 0) oldest = name;
  }
  return oldest;
}
