/**
 * What restore_command does next in wait mode: the server runs with recovery.signal, so whatever the command answers is the last word,
 * and "not there" opens the database. It is said of a segment only where a seal stands: never because nothing came, nothing answers, or
 * something is broken.
 *
 * Pure: the caller looks, asks this, acts, and asks again. There is one restore_command at a time, called in the order of the WAL, so
 * a segment that is asked for says that everything before it was read: that is how a smart trigger knows that all was consumed.
 */
import { parseWalName, segmentEnd } from '../wal/name.ts';
import { placeOnBranch, type RestoreBranch } from './decide-restore.ts';

/**
 * Where a name lies, for a server that cannot go over to another timeline.
 *
 *   due         it is on the branch, below its end: it must be there
 *   unfinished  the segment of the tail, with zeros after its last record: archive recovery takes them for the end of the WAL and opens
 *   perhaps     nobody promised it
 *   beyond      after the end
 *   ended       its timeline was left before the segment's end: only a restart follows the new one
 *   unknown     not on the live branch
 */
export type WaitPlace = 'due' | 'unfinished' | 'perhaps' | 'beyond' | 'ended' | 'unknown';

export function placeForWaiting(name: string, branch: RestoreBranch): WaitPlace {
  const place = placeOnBranch(name, branch);
  const parsed = parseWalName(name);
  if (parsed?.kind !== 'segment') return place === 'off' ? 'unknown' : place;
  const part = branch.lineage.find(({ timeline }) => timeline === parsed.timeline);
  if (part === undefined || place === 'unknown') return 'unknown';
  // The segment of the fork too, which may be there as a tail: the server that knows the new timeline asks for that one's.
  if (part.ends !== null && segmentEnd(name, branch.segmentSize) > part.ends) return 'ended';
  if (place === 'off') return 'unknown';
  return name === branch.tail ? 'unfinished' : place;
}

/** Up to a seal: "not there" is the right answer to everything that lies past it. */
export function placeUnderSeal(name: string, branch: RestoreBranch): WaitPlace {
  const place = placeOnBranch(name, branch);
  return place === 'off' ? 'beyond' : place;
}

export type WaitState = {
  /** undefined: the vault has not answered (and no seal speaks for it). */
  place: WaitPlace | undefined;
  isSegment: boolean;
  /** Its row, as last asked: there, not there, no answer; or not there, since it lies in a declared gap. */
  row: 'seen' | 'unseen' | 'silent' | 'gap';
  /** It is the first segment of the gap in front of which this node is to be promoted (--accept-gap). */
  isUpTo: boolean;
  /** A seal lies in the state directory. */
  sealed: boolean;
  /** none, of another node and not open, or of this node: triggered smart or fast, or sealed in the vault and not here. */
  promotion: 'none' | 'other' | 'smart' | 'fast' | 'sealed';
  /** It is the name after head, on the live timeline. */
  isNext: boolean;
  /** PostgreSQL was given a segment of the live branch: what a fast trigger may seal at. */
  given: boolean;
  /** The primary was flushed: somebody is about to decide. */
  flushed: boolean;
  /** How long nothing was heard of the primary, the vault answering. */
  quietMs: number;
  /** restore_max_wait; 0: never. */
  maxWaitMs: number;
  /** Fetches that failed, silence of the vault not counted, and how many may be tried again. */
  failures: number;
  retries: number;
};

export type WaitAction =
  | { do: 'serve' }
  /** Only this may become "not there" for PostgreSQL. */
  | { do: 'absent' }
  | { do: 'wait'; why: string }
  /** Seal in the vault and in the state directory, then ask again. */
  | { do: 'seal' }
  /** A fast failover to this node, since restore_max_wait is over; then ask again. */
  | { do: 'failover' }
  /** Recovery must stop (200): nothing is lost, a person or a restart goes on. */
  | { do: 'stop'; because: 'ended' | 'unknown' | 'failures' };

const SILENT = 'the vault does not answer';
const IN_GAP =
  'it lies in a declared gap (archiving was off): make this standby anew from a later backup, or trigger it with --accept-gap';

export function decideWait(state: WaitState): WaitAction {
  const { place, isSegment, sealed, promotion } = state;
  if (place === undefined) return { do: 'wait', why: SILENT };
  if (!sealed) {
    if (promotion === 'sealed') return { do: 'seal' };
    if (promotion === 'other') return { do: 'wait', why: 'a promotion of another node is under way' };
    if (promotion === 'fast' && isSegment && state.given) return { do: 'seal' };
    const consumed = state.isUpTo || place === 'unfinished' || (place === 'beyond' && state.isNext);
    if (promotion === 'smart' && consumed) return { do: 'seal' };
  }
  switch (place) {
    case 'ended':
    case 'unknown':
      return { do: 'stop', because: place };
    case 'beyond':
      if (sealed || !isSegment) return { do: 'absent' };
      if (promotion === 'none' && !state.flushed && state.maxWaitMs > 0 && state.quietMs >= state.maxWaitMs)
        return { do: 'failover' };
      return { do: 'wait', why: 'it is not archived yet' };
    case 'unfinished':
      return { do: 'wait', why: 'it is unfinished: only a smart trigger for this node replays it' };
    case 'perhaps':
    case 'due':
      if (state.row === 'silent') return { do: 'wait', why: SILENT };
      if (state.row === 'seen')
        return state.failures > state.retries ? { do: 'stop', because: 'failures' } : { do: 'serve' };
      // "not there" would open with what comes after the gap missing; a person makes this standby anew, or triggers it in front of the gap
      if (state.row === 'gap') return { do: 'wait', why: IN_GAP };
      return place === 'perhaps' ? { do: 'absent' } : { do: 'wait', why: 'its row is not seen' };
  }
}

/** Pause before a fetch that failed is tried again, in ms: longer each time, as pg_standby's. */
export function retryPause(failures: number, pollMs: number): number {
  return Math.min(60_000, pollMs * failures);
}
