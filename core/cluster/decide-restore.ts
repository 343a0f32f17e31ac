/**
 * What restore_command answers: the file, "not there", "ask again", or a failure that stops recovery.
 *
 * PostgreSQL in archive recovery, and on a standby with a promotion pending, takes any exit status up to 125 for "end of WAL" and
 * opens: there "not there" is said only of a name that lies beyond the end of the vault (or of the seal), or off the live branch at or
 * past a fork. A plain standby asks again, so a plain failure is safe and quick answers matter more.
 *
 * Pure: the caller looks, asks this, acts, and asks again.
 * Source: PostgreSQL docs, "Write Ahead Log: Archive Recovery", restore_command; measured on 15 to 18.
 */
import type { Lsn } from '../wal/lsn.ts';
import { timelineAt, type Lineage } from '../wal/lineage.ts';
import { parseWalName, segmentEnd, segmentStart } from '../wal/name.ts';

/** The branch that names are held against: the vault's live one, or the one up to a seal. */
export type RestoreBranch = {
  /** Of the timeline that is live (or sealed), oldest first. */
  lineage: Lineage;
  /** Exclusive end of what may be asked for: head, or the sealed end; null: nothing was ever archived. */
  end: Lsn | null;
  /** Bytes. */
  segmentSize: number;
  /** Child timelines whose fork lies within a segment of the parent that may still be served (HistoryRow.forkSegmentWhole). */
  wholeForks: ReadonlySet<number>;
  /** The unfinished segment in which the tail ends: it is there although it reaches past `end`; null: there is no tail. */
  tail: string | null;
  /** The lowest timeline number that nobody has opened: its history does not exist. */
  nextTimeline: number;
};

/**
 * Where a name lies on the branch.
 *
 *   due       it is on the branch, below its end: it must be there
 *   perhaps   on the branch, but nobody promised it (.partial, .backup, a history whose number was given up)
 *   beyond    after the end
 *   off       at or past the fork of a child timeline: never served, its row may well be there
 *   unknown   a timeline that is not on the branch
 */
export type RestorePlace = 'due' | 'perhaps' | 'beyond' | 'off' | 'unknown';

/** @returns 'unknown' too for what is no WAL name, or of another segment size */
export function placeOnBranch(name: string, branch: RestoreBranch): RestorePlace {
  const parsed = parseWalName(name);
  if (parsed === undefined) return 'unknown';
  const { lineage, segmentSize, end, nextTimeline } = branch;
  if (parsed.kind === 'history') {
    if (parsed.timeline >= nextTimeline) return 'beyond';
    return lineage.some(({ timeline, begins }) => timeline === parsed.timeline && begins > 0n)
      ? 'due'
      : 'perhaps';
  }
  if (parsed.kind !== 'segment') return 'perhaps';
  const index = lineage.findIndex(({ timeline }) => timeline === parsed.timeline);
  const part = lineage[index];
  if (part === undefined) return parsed.timeline >= nextTimeline ? 'beyond' : 'unknown';
  let start: Lsn;
  try {
    start = segmentStart(name, segmentSize);
  } catch {
    return 'unknown'; // a name of another segment size
  }
  const after = segmentEnd(name, segmentSize);
  if (part.ends !== null && start >= part.ends) return 'off';
  if (part.ends !== null && after > part.ends) {
    // It holds the fork. What it has after the fork must never be replayed.
    const child = lineage[index + 1];
    return child !== undefined && branch.wholeForks.has(child.timeline) ? 'due' : 'off';
  }
  if (name === branch.tail) return 'due';
  // Right after a promotion the end is the fork, in the middle of a segment: that segment is the next to come.
  if (end === null || after > end) return 'beyond';
  // Left by a promotion that broke off: the branch has this stretch under the parent's name.
  return after <= part.begins || timelineAt(lineage, start, segmentSize) !== part.timeline ? 'off' : 'due';
}

export type RestoreState = {
  /** undefined: the vault has not answered (and no seal speaks for it). */
  place: RestorePlace | undefined;
  /** Its row, as last asked: there, not there, no answer; or not there, since it lies in a declared gap. */
  row: 'seen' | 'unseen' | 'silent' | 'gap';
  /** Another node's promotion is on its way, from its trigger to its open: other standbys wait. */
  held: boolean;
  waitedMs: number;
  limitMs: number;
};

export type RestoreRequest = {
  mode: 'standby' | 'archive';
  /** A seal in the state directory, or PGDATA/promote. */
  promotionPending: boolean;
};

export type RestoreAction =
  | { do: 'serve' }
  /** Only this may become "not there" for PostgreSQL. */
  | { do: 'absent' }
  | { do: 'wait' }
  | { do: 'fail'; code: 'unreachable' | 'unsafe' | 'refused'; why: string };

export function decideRestore(state: RestoreState, request: RestoreRequest): RestoreAction {
  const patient = request.mode === 'archive' || request.promotionPending;
  const askAgain = (why: string, code: 'unreachable' | 'refused'): RestoreAction => {
    if (state.waitedMs < state.limitMs) return { do: 'wait' };
    return { do: 'fail', code: patient ? 'unsafe' : code, why };
  };
  if (state.place === undefined) return askAgain('the vault does not answer', 'unreachable');
  if (state.held) {
    const why = 'a promotion of another node is under way';
    return patient ? askAgain(why, 'refused') : { do: 'fail', code: 'refused', why };
  }
  switch (state.place) {
    case 'beyond':
    case 'off':
      return { do: 'absent' };
    case 'unknown':
      return {
        do: 'fail',
        code: patient ? 'unsafe' : 'refused',
        why: 'it is not on the live branch of the vault',
      };
    case 'perhaps':
      if (state.row === 'silent') return askAgain('the vault does not answer', 'unreachable');
      return state.row === 'seen' ? { do: 'serve' } : { do: 'absent' };
    case 'due':
      if (state.row === 'seen') return { do: 'serve' };
      // No waiting brings it. But it is not the end of the WAL either: archived segments follow, or will.
      if (state.row === 'gap')
        return {
          ...{ do: 'fail', code: patient ? 'unsafe' : 'refused' },
          why: 'it lies in a declared gap: archiving was off',
        };
      return askAgain(
        state.row === 'silent'
          ? 'the vault does not answer'
          : 'the vault says that it is there, but its row is not seen',
        'unreachable',
      );
  }
}

/** How long a request is kept waiting, in ms: a command that waits on a plain standby blocks its recovery and its promotion. */
export function restoreLimit(request: RestoreRequest, restoreTimeoutMs: number): number {
  return request.mode === 'archive' || request.promotionPending
    ? restoreTimeoutMs
    : Math.min(1000, restoreTimeoutMs);
}
