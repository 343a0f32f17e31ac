/**
 * What becomes of a server that is not the primary any more: a standby as it is, or one that has to be rewound or made anew; and whether
 * a server may start at all.
 *
 * Timelines are never compared by number alone: two servers may have taken the same one. What counts is the history text, the node that
 * opened it, and the bytes of the WAL up to where they agree.
 *
 * Pure. Measured: after a crash PostgreSQL starts such a server as a standby without an error and replays its own WAL past the fork.
 */
import type { FailureCode } from '../errors.ts';
import type { Lineage } from '../wal/lineage.ts';
import { formatLsn, type Lsn } from '../wal/lsn.ts';
import { decideWriter, type Writer } from './decide-archive.ts';
import { IN_ARCHIVE_RECOVERY } from '../wal/control-file.ts';
import type { Control, Head } from './facts.ts';

type Refused = { do: 'refuse'; code: FailureCode; message: string; hint?: string };

/** DBState of pg_control. */
const SHUT_DOWN = 1;
const SHUT_DOWN_IN_RECOVERY = 2;

/** A stopped server, as its own files say. */
export type LocalServer = {
  node: string;
  /** DBState of pg_control, and in words. */
  state: number;
  stateText: string;
  signal: 'standby' | 'archive' | 'none';
  /** A base backup that was never started: its pg_control is that of a running server. */
  hasBackupLabel: boolean;
  /** A rejoin was broken off while pg_rewind was changing files. */
  isHalfRewound: boolean;
  /** The newest timeline it was on, its history file, and whether it opened that timeline itself. */
  timeline: number;
  historyText: string | undefined;
  lineage: Lineage;
  openedHere: boolean;
  /** Where its checkpoint begins: less than this its data files do not go back. */
  checkpoint: Lsn;
  /** Of a standby: as far as its data files are known to reach. */
  minRecovery: Lsn;
};

/** What the vault has in the place of a local segment: 'same' up to an LSN, other bytes from an LSN on, or nothing to compare with. */
export type HeldVerdict = { is: 'same'; upTo: Lsn } | { is: 'differs'; at: Lsn } | { is: 'absent' };

export type RejoinFacts = {
  local: LocalServer;
  /** End of the last record in its own WAL; where that record begins. */
  ends: Lsn;
  lastRecord: Lsn | undefined;
  /** Its segments from the redo point on, in order, each as the vault has it. `begins` of the segment. */
  compared: readonly { name: string; begins: Lsn; ends: Lsn; held: HeldVerdict }[];
};

export type VaultFacts = {
  control: Control;
  head: Head;
  /** Of head.timeline. */
  lineage: Lineage;
  /** History of the local server's timeline in the vault, and who opened it; undefined: the vault knows none. */
  history: { text: string; node: string } | undefined;
};

export type RejoinDecision =
  | Refused
  /** A standby as it is: all that it has is on the live branch. */
  | { do: 'keep'; why: string; common: Point }
  /** Rewound, or made anew; `pastBytes` of its WAL lie past the common point. */
  | { do: 'rebuild'; why: string; common: Point | null; pastBytes: number; diverged: boolean };

export type Point = { timeline: number; lsn: Lsn };

/** The last point up to which the two branches are one, by their histories alone; null: they share nothing. */
export function commonPoint(local: LocalServer, vault: VaultFacts): { point: Point; whole: boolean } | null {
  const known = (timeline: number): boolean => {
    if (timeline === 1 || timeline !== local.timeline) return true; // ancestors are proven by the text of the newest
    return (
      vault.history !== undefined &&
      vault.history.text === local.historyText &&
      (!local.openedHere || vault.history.node === local.node)
    );
  };
  let found: { point: Point; whole: boolean } | null = null;
  for (const [index, mine] of local.lineage.entries()) {
    const theirs = vault.lineage[index];
    const isSame =
      theirs?.timeline === mine.timeline && theirs.begins === mine.begins && known(mine.timeline);
    if (!isSame) break;
    const ends =
      mine.ends === null ? theirs.ends : theirs.ends === null ? mine.ends : least(mine.ends, theirs.ends);
    found = { point: { timeline: mine.timeline, lsn: ends ?? END }, whole: mine.ends === null };
    if (mine.ends !== theirs.ends) break;
  }
  return found;
}

const END = 0xffff_ffff_ffff_ffffn;
const least = (one: Lsn, other: Lsn): Lsn => (one < other ? one : other);

/** Is the server the vault's primary of this epoch? Then there is nothing to rejoin. */
export function decidePrimary(control: Control, head: Head, node: string): Refused | undefined {
  if (control.primary !== node) return undefined;
  const promotion = head.promotion?.node === node && head.promotion.state !== 'open' ? head.promotion : null;
  if (promotion !== null)
    return refuse(
      'refused',
      `${node} is about to be promoted (epoch ${promotion.epoch}, ${promotion.state})`,
      `start it: the promotion goes on by itself`,
    );
  if (head.flush !== null)
    return refuse(
      'refused',
      `${node} is the primary of epoch ${control.epoch}, flushed at ${head.flush.lsn}; no trigger has named another`,
      `'walvault trigger smart --to NODE' goes on, 'walvault flush --undo' goes back`,
    );
  return refuse(
    'refused',
    `${node} is the primary of epoch ${control.epoch}: there is nothing to rejoin`,
    `start it`,
  );
}

/** Decides for a stopped server that is not the primary. */
export function decideRejoin(facts: RejoinFacts, vault: VaultFacts): RejoinDecision {
  const { local, ends } = facts;
  const primary = decidePrimary(vault.control, vault.head, local.node);
  if (primary) return primary;
  const isStandby =
    local.state === SHUT_DOWN_IN_RECOVERY || (local.state === IN_ARCHIVE_RECOVERY && local.signal !== 'none');
  const reach = isStandby ? local.minRecovery : ends;
  const byHistory = commonPoint(local, vault);
  if (local.isHalfRewound)
    return rebuild('pg_rewind was broken off half way: its files are of no one moment', null, 0n, true);
  if (byHistory === null)
    return rebuild(`its history shares nothing with that of the vault`, null, reach, true);
  const other = firstOther(facts, byHistory.point.lsn);
  const common: Point = { ...byHistory.point, lsn: least(other ?? END, least(byHistory.point.lsn, reach)) };
  const past = reach - common.lsn;
  if (!byHistory.whole)
    return rebuild(
      `it was on timeline ${local.timeline}, which the vault does not know as such`,
      common,
      past,
      true,
    );
  if (past > 0n) {
    const why =
      other !== undefined && other < byHistory.point.lsn
        ? `its WAL is other than the vault's from ${formatLsn(other)} on`
        : `it went on to ${formatLsn(reach)}, past ${formatLsn(common.lsn)} where timeline ${common.timeline} was left`;
    return rebuild(why, common, past, true);
  }
  if (isStandby) return { do: 'keep', why: `it is a standby on the live branch`, common };
  if (local.state !== SHUT_DOWN)
    return rebuild(`it was not stopped cleanly (${local.stateText})`, common, past, false);
  if (facts.lastRecord !== local.checkpoint)
    return rebuild(
      `its WAL does not end with the checkpoint of its stop (${formatLsn(local.checkpoint)})`,
      common,
      past,
      false,
    );
  const last = facts.compared.at(-1);
  if (last === undefined || last.held.is !== 'same' || last.held.upTo < ends)
    return rebuild(
      `the vault does not hold its last WAL, up to ${formatLsn(ends)}: nobody can tell that it is on the live branch`,
      common,
      past,
      false,
    );
  return { do: 'keep', why: `stopped cleanly at ${formatLsn(ends)}, on the live branch`, common };
}

/** Where the first byte lies that is not the vault's, before `limit`. */
function firstOther(facts: RejoinFacts, limit: Lsn): Lsn | undefined {
  for (const { held, begins } of facts.compared) {
    if (begins >= limit) return undefined;
    if (held.is === 'differs' && held.at < limit) return held.at;
  }
  return undefined;
}

function rebuild(why: string, common: Point | null, past: bigint, diverged: boolean): RejoinDecision {
  return { do: 'rebuild', why, common, pastBytes: Number(past > 0n ? past : 0n), diverged };
}

export type GuardDecision = { do: 'allow'; as: 'primary' | 'standby' | 'recovery'; why: string } | Refused;

/**
 * May this server start? Asked before each start, so it looks at pg_control alone and reads no WAL.
 *
 * @param writer  its writer state, as it may find it in the vault
 */
export function decideGuard(local: LocalServer, writer: Writer, vault: VaultFacts): GuardDecision {
  const { control, head, lineage } = vault;
  const rejoin = `run 'walvault rejoin' here`;
  if (local.isHalfRewound)
    return refuse('fenced', `pg_rewind was broken off half way on this data directory`, rejoin);
  if (local.signal === 'archive')
    return { do: 'allow', as: 'recovery', why: 'recovery.signal: a restore, which writes to no vault' };
  const holder = `${control.primary ?? 'nobody'} holds epoch ${control.epoch}`;
  if (local.signal === 'none') {
    const pending = head.promotion?.node === local.node && head.promotion.state !== 'open';
    if (control.primary === local.node && pending)
      return { do: 'allow', as: 'primary', why: `its promotion in epoch ${control.epoch} is under way` };
    const refusal = decideWriter(control, head, writer);
    if (refusal === undefined)
      return { do: 'allow', as: 'primary', why: `${local.node} holds epoch ${control.epoch}` };
    if (control.primary === local.node && head.flush !== null)
      return refuse('fenced', refusal.message, refusal.hint);
    return refuse(
      refusal.code === 'copied' ? 'copied' : 'fenced',
      `${refusal.message}; it must not start as a primary`,
      refusal.code === 'copied' || control.primary === local.node ? refusal.hint : rejoin,
    );
  }
  if (local.hasBackupLabel) return { do: 'allow', as: 'standby', why: 'a base backup that begins to follow' };
  if (control.primary === local.node)
    return { do: 'allow', as: 'standby', why: `${holder}; with standby.signal it starts read-only` };
  const byHistory = commonPoint(local, vault);
  const isStandby = local.state === SHUT_DOWN_IN_RECOVERY || local.state === IN_ARCHIVE_RECOVERY;
  if (!isStandby && local.state !== SHUT_DOWN)
    return refuse(
      'fenced',
      `it was a primary and not stopped cleanly (${local.stateText}); as a standby it would replay its own WAL past the fork; ${holder}`,
      rejoin,
    );
  // Of a primary that was stopped the checkpoint is the last record: where that begins at or after the fork it has diverged.
  const reach = isStandby ? local.minRecovery : local.checkpoint + 1n;
  if (byHistory === null || !byHistory.whole || reach > byHistory.point.lsn)
    return refuse(
      'fenced',
      `it is on timeline ${local.timeline} at ${formatLsn(isStandby ? local.minRecovery : local.checkpoint)}, which is not on the live branch (timeline ${lineage.at(-1)?.timeline}): it has diverged; ${holder}`,
      rejoin,
    );
  return { do: 'allow', as: 'standby', why: `a standby on the live branch; ${holder}` };
}

function refuse(code: FailureCode, message: string, hint?: string): Refused {
  return { do: 'refuse', code, message, hint };
}
