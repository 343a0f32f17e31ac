/**
 * What a vault must keep, and why: invariant 8 of docs/design.md.
 *
 * Everybody who will need WAL has a place on the live branch from which on he needs it: kept backups, holds (running backups and
 * restores, new nodes), nodes by their restart point, relays by what their replica has. The cut is the least of these places, and all of
 * the live branch below it may go. Places are compared as LSNs along the lineage of the live timeline, never by name: a segment of
 * timeline 1 may be newer than one of timeline 2.
 *
 * Pure: the present time comes in, rows come in as they were read. Modelled in model/m4-retention.mjs.
 */
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { isSegmentName, parseWalName, segmentAt, segmentStart } from '../wal/name.ts';
import type { Lineage } from '../wal/lineage.ts';
import { endOf } from './decide-roles.ts';
import { gapAfter, liveGaps } from './gaps.ts';
import type { BackupRow, Control, GapRow, Head, HistoryRow, HoldsRow, NodeRow, RelayRow } from './facts.ts';

export type RetentionPolicy = {
  /** The newest complete backups that are kept whatever their age; at least 1. */
  keepBackups: number;
  /** Backups younger than this are kept, in days; 0: none for that reason. */
  keepDays: number;
  /** Restores must be possible to any moment this long back: backups in it, and the one before it. */
  pitrWindowMs: number;
  /** How long a node, or the process behind a hold, that is not heard of keeps what it needs. */
  nodeLeaseMs: number;
  /** The same of a relay. */
  relayLeaseMs: number;
};

export type RetentionFacts = {
  control: Pick<Control, 'role' | 'primary' | 'supersedes'>;
  head: Head;
  /** Of head.timeline. */
  lineage: Lineage;
  /** Of every timeline that the vault has a history of, on the live branch or not. */
  histories: readonly Pick<HistoryRow, 'timeline' | 'parent' | 'forkLsn'>[];
  nodes: readonly NodeRow[];
  holds: Pick<HoldsRow, 'horizon' | 'holds'>;
  backups: readonly BackupRow[];
  relays: readonly RelayRow[];
  gaps: readonly GapRow[];
  policy: RetentionPolicy;
  now: Date;
  /** Bytes. */
  segmentSize: number;
};

/** Somebody who needs WAL. */
export type Need = {
  kind: 'backup' | 'hold' | 'node' | 'relay' | 'head';
  id: string;
  /** From here on, a segment's begin; null: it cannot be said, so everything. */
  from: Lsn | null;
  why: string;
};

/** Somebody who kept WAL and does no more, or who keeps none though one might think so. */
export type Ended = {
  kind: 'hold' | 'node' | 'relay';
  id: string;
  /** When it was heard of last, where that is why: its lease ran out. Null: it follows no more, or what it needs is gone. */
  silentSince: string | null;
  why: string;
};

export type BackupVerdict = {
  row: BackupRow;
  /** fail: its process is gone. delete: objects go, and the row as soon as nobody brings the backup again. */
  do: 'keep' | 'delete' | 'fail';
  why: string;
  /** It keeps WAL, too: from its start on. */
  needsWal: boolean;
};

export type Retention = {
  /** Of the live branch all below this may go; null: nothing. Never behind what earlier runs have let go. */
  cut: Lsn | null;
  why: string;
  /** As `holds` shall have it: by timeline, the first segment that stays. */
  horizon: HoldsRow['horizon'];
  /** The one that decides first. */
  needs: Need[];
  ended: Ended[];
  backups: BackupVerdict[];
};

/** Clocks may differ by an hour: nothing ends earlier than that after its time. */
export const SKEW_MS = 60 * 60_000;
/** How long the row of a failed backup stays to be read. */
const FAILED_MS = 24 * 60 * 60_000;
const DAY_MS = 24 * 60 * 60_000;

export function decideRetention(facts: RetentionFacts): Retention {
  const { head, segmentSize, policy, now, holds, lineage } = facts;
  const branch = new BranchMap(facts);
  const before = cutOf(holds.horizon, lineage, segmentSize);
  const backups = judgeBackups(facts, branch, before);
  const needs: Need[] = [];
  const ended: Ended[] = [];
  /** What lies below the cut is gone: whoever begins there is not helped by keeping the rest. */
  const take = (said: Need | Ended | undefined): boolean => {
    if (said === undefined) return false;
    if ('silentSince' in said) ended.push(said);
    else if (said.from !== null && before !== null && said.from < before && said.kind !== 'backup')
      ended.push({
        ...{ kind: said.kind === 'head' ? 'node' : said.kind, id: said.id, silentSince: null },
        why: `${said.why}: what it needs is kept no more, make it anew`,
      });
    else return needs.push(said) > 0;
    return false;
  };
  for (const { row, needsWal, why } of backups)
    if (needsWal) take({ kind: 'backup', id: row.id, from: branch.placeOf(row.startSegment), why });
  for (const [id, hold] of Object.entries(holds.holds)) {
    const heard = `${hold.kind} of ${hold.node}, heard of at ${hold.at}`;
    take(
      isOver(hold.at, policy.nodeLeaseMs, now)
        ? { kind: 'hold', id, silentSince: hold.at, why: `${heard} and not since` }
        : { kind: 'hold', id, from: branch.placeOf(hold.from), why: heard },
    );
  }
  let standbys = 0;
  for (const node of facts.nodes)
    if (
      take(judgeNode(node, facts, branch)) &&
      node.role !== 'primary' &&
      node.name !== facts.control.primary
    )
      standbys++;
  for (const relay of facts.relays) take(judgeRelay(relay, facts, branch));
  const end = lastWhole(head, segmentSize);
  needs.push({ kind: 'head', id: `timeline ${head.timeline}`, from: end, why: 'the end of the live branch' });
  needs.sort((one, other) => order(one.from, other.from));
  const stay = (why: string): Retention => ({
    ...{ cut: before, why, horizon: holds.horizon },
    ...{ needs, ended, backups },
  });
  if (facts.control.role === 'converging') {
    const why = 'this vault is being made a replica: nothing is deleted until it is one';
    return { ...stay(why), ended: [], backups: backups.map((each) => ({ ...each, do: 'keep' })) };
  }
  if (standbys === 0 && !backups.some(({ row, needsWal }) => needsWal && row.state === 'complete'))
    return stay('no complete backup and no standby: nothing says what may go');
  const { kind, id, why, from: cut } = needs[0]!;
  const first = `${kind} ${id}: ${why}`;
  if (cut === null || cut === 0n || (before !== null && cut <= before)) return stay(first);
  return { ...stay(first), cut, horizon: horizonAt(cut, lineage, holds.horizon, segmentSize) };
}

const order = (one: Lsn | null, other: Lsn | null): number =>
  one === other ? 0 : one === null ? -1 : other === null ? 1 : one < other ? -1 : 1;
const lower = (one: Lsn, other: Lsn): Lsn => (one < other ? one : other);
const floor = (lsn: Lsn, segmentSize: number): Lsn => lsn - (lsn % BigInt(segmentSize));

/** @returns false of a time that is not known, or lies ahead: a clock that is wrong lets nothing go */
function isOver(at: string, limitMs: number, now: Date): boolean {
  return now.getTime() - Date.parse(at) > limitMs + SKEW_MS;
}

/** The last segment that was archived stays: a promotion asks again for the last one replayed. */
function lastWhole(head: Head, segmentSize: number): Lsn {
  const end = head.lsn === null ? 0n : floor(parseLsn(head.lsn), segmentSize);
  const size = BigInt(segmentSize);
  return end < size ? 0n : end - size;
}

/** Where names of any timeline lie on the live branch. */
class BranchMap {
  readonly #lineage: Lineage;
  readonly #parents: ReadonlyMap<number, { parent: number; fork: Lsn }>;
  readonly #segmentSize: number;

  constructor({
    lineage,
    histories,
    segmentSize,
  }: Pick<RetentionFacts, 'lineage' | 'histories' | 'segmentSize'>) {
    this.#lineage = lineage;
    this.#segmentSize = segmentSize;
    this.#parents = new Map(
      histories.map(({ timeline, parent, forkLsn }) => [timeline, { parent, fork: parseLsn(forkLsn) }]),
    );
  }

  /**
   * From where on a server that needs this segment needs the live branch: the segment's begin, or where its own branch left the live one,
   * whichever is less. Null: its timeline is not known here, or the text names no segment (%r of all zeros).
   */
  placeOf(name: string | null): Lsn | null {
    if (name === null) return null;
    const parsed = parseWalName(name);
    if (parsed === undefined || parsed.kind === 'history') return null;
    try {
      return this.place(parsed.timeline, segmentStart(name, this.#segmentSize));
    } catch {
      return null; // a name of another segment size
    }
  }

  place(timeline: number, lsn: Lsn): Lsn | null {
    let at = lsn;
    for (let each = timeline, step = 0; step <= this.#parents.size; step++) {
      const part = this.#lineage.find((one) => one.timeline === each);
      if (part !== undefined) return floor(part.ends === null ? at : lower(at, part.ends), this.#segmentSize);
      const up = this.#parents.get(each);
      if (up === undefined) return null;
      at = lower(at, up.fork);
      each = up.parent;
    }
    return null;
  }

  /** Is the end of this backup on the live branch? */
  isLive(row: BackupRow, head: Head): boolean {
    const part = this.#lineage.find(({ timeline }) => timeline === row.timeline);
    if (part === undefined) return false;
    const stop = parseLsn(row.stopLsn ?? row.startLsn);
    const end = part.ends ?? endOf(head);
    return end !== null && stop <= end;
  }
}

/** The place that a horizon stands for; null: nothing was ever let go. */
export function cutOf(horizon: HoldsRow['horizon'], lineage: Lineage, segmentSize: number): Lsn | null {
  let cut: Lsn | null = null;
  for (const { timeline, ends } of lineage) {
    const name = horizon[String(timeline)];
    if (name === undefined) continue;
    const start = segmentStart(name, segmentSize);
    // what was let go past the fork of a timeline that was left there is no part of the live branch, and the segment that holds the
    // fork is there on the child's timeline
    const here = ends === null ? start : lower(start, floor(ends, segmentSize));
    if (cut === null || here > cut) cut = here;
  }
  return cut;
}

function horizonAt(
  cut: Lsn,
  lineage: Lineage,
  before: HoldsRow['horizon'],
  segmentSize: number,
): HoldsRow['horizon'] {
  const horizon = { ...before };
  for (const { timeline, begins } of lineage) {
    if (floor(begins, segmentSize) >= cut) continue;
    const name = segmentAt(timeline, cut, segmentSize);
    const seen = horizon[String(timeline)];
    if (seen === undefined || seen < name) horizon[String(timeline)] = name;
  }
  return horizon;
}

/** Is this segment (or .partial, .backup, spill) one that retention has let go? */
export function isBelowHorizon(horizon: HoldsRow['horizon'], name: string): boolean {
  const parsed = parseWalName(name);
  if (parsed === undefined || parsed.kind === 'history') return false;
  const kept = horizon[String(parsed.timeline)];
  return kept !== undefined && name.slice(0, 24) < kept;
}

/**
 * What becomes of a row of wal# or tail#, by the name of its file: 'delete' below the horizon; 'keep'; 'aside' where it does not lie on
 * the live branch (segments past a fork, timelines that lead nowhere): nobody is served them, and a person may want them, so they stay.
 */
export function decideRow(
  name: string,
  lineage: Lineage,
  horizon: HoldsRow['horizon'],
  segmentSize: number,
): 'delete' | 'keep' | 'aside' {
  const parsed = parseWalName(name);
  if (parsed === undefined || parsed.kind === 'history') return 'keep';
  const part = lineage.find(({ timeline }) => timeline === parsed.timeline);
  if (part === undefined) return 'aside';
  if (part.ends !== null && segmentStart(name, segmentSize) >= part.ends) return 'aside';
  return isBelowHorizon(horizon, name) ? 'delete' : 'keep';
}

function judgeNode(node: NodeRow, facts: RetentionFacts, branch: BranchMap): Need | Ended | undefined {
  const { policy, now, control, head } = facts;
  const { name: id, role } = node;
  if (node.trouble?.startsWith('detached') === true)
    return { kind: 'node', id, silentSince: null, why: 'detached: it follows this vault no more' };
  const heard = [node.heartbeatAt, node.registeredAt ?? null].reduce((one, other) =>
    one === null || (other !== null && other > one) ? other : one,
  );
  const position = role === 'primary' ? node.lastArchived : node.restartPoint;
  const said = role === 'primary' ? 'last archived' : 'restart point';
  if (heard !== null && isOver(heard, policy.nodeLeaseMs, now)) {
    const why = `silent since ${heard}: its ${said}, ${position ?? 'unknown'}, is kept no more`;
    return { kind: 'node', id, silentSince: heard, why };
  }
  const since = heard === null ? 'never heard of' : `heard of at ${heard}`;
  if (role === 'primary') {
    // It writes the WAL and needs none. Flushed or fenced it goes on, as a standby, from the end of what it archived.
    if (control.primary === id && head.flush === null) return undefined;
    const from = branch.placeOf(position);
    if (from === null && (position === null || !isSegmentName(position.slice(0, 24)))) return undefined;
    return { kind: 'node', id, from, why: `a primary that was; it archived ${position} last, ${since}` };
  }
  const from = branch.placeOf(position);
  const why =
    from === null
      ? `its restart point is not known (${position ?? 'none'}), ${since}`
      : `restart point ${position}, ${since}`;
  return { kind: 'node', id, from, why };
}

function judgeRelay(relay: RelayRow, facts: RetentionFacts, branch: BranchMap): Need | Ended | undefined {
  const { supersedes } = facts.control;
  const id = relay.vault.url;
  // The vault whose place was taken becomes a replica as soon as it answers, and lacks what came after the last relay from it.
  if (relay.direction === 'from' && supersedes?.id !== relay.vault.id) return undefined;
  if (isOver(relay.at, facts.policy.relayLeaseMs, facts.now)) {
    const why = `no relay has been heard of since ${relay.at}: what it has not got (from ${relay.lsn ?? 'the beginning'} on) is kept no more`;
    return { kind: 'relay', id, silentSince: relay.at, why };
  }
  const from = relay.lsn === null ? null : branch.place(relay.timeline, parseLsn(relay.lsn));
  const trouble = relay.trouble === null ? '' : `, in trouble: ${relay.trouble}`;
  const why = `has the WAL up to ${relay.lsn ?? 'nothing'}, heard of at ${relay.at}${trouble}`;
  return { kind: 'relay', id, from, why };
}

/** Newest first, by where they end in the WAL: their clocks may differ. */
function judgeBackups(facts: RetentionFacts, branch: BranchMap, cut: Lsn | null): BackupVerdict[] {
  const { backups, holds, policy, now, head } = facts;
  const held = new Map(Object.values(holds.holds).map((hold) => [hold.from, hold]));
  const stop = (row: BackupRow): Lsn => parseLsn(row.stopLsn ?? row.startLsn);
  const finished = (row: BackupRow): string => row.finishedAt ?? row.startedAt;
  const complete = backups
    .filter(({ state }) => state === 'complete')
    .toSorted(
      (one, other) =>
        order(stop(other), stop(one)) ||
        Date.parse(finished(other)) - Date.parse(finished(one)) ||
        (one.id < other.id ? 1 : -1),
    );
  const isGone = (row: BackupRow): boolean => {
    const place = branch.placeOf(row.startSegment);
    return (cut !== null && place !== null && place < cut) || isBelowHorizon(holds.horizon, row.startSegment);
  };
  const gaps = liveGaps(facts.gaps, facts.lineage, facts.segmentSize);
  const isBeforeGap = (row: BackupRow): boolean => gapAfter(gaps, parseLsn(row.startLsn)) !== undefined;
  const usable = complete.filter((row) => !isGone(row) && branch.isLive(row, head) && !isBeforeGap(row));
  const isWithin = (row: BackupRow, ms: number): boolean => ms > 0 && !isOver(finished(row), ms, now);
  const isBefore = (row: BackupRow): boolean => isOver(finished(row), policy.pitrWindowMs, now);
  const whole = complete.filter((row) => !isGone(row));
  // On a branch that was left the WAL may have come further than here: those go by their time.
  const latest = whole.toSorted((one, other) => Date.parse(finished(other)) - Date.parse(finished(one)));
  const bases = new Set(policy.pitrWindowMs === 0 ? [] : [latest.find(isBefore), usable.find(isBefore)]);
  const keepBackups = Math.max(1, policy.keepBackups);
  const judge = (row: BackupRow): BackupVerdict => {
    const keep = (why: string): BackupVerdict => ({ row, do: 'keep', why, needsWal: !isGone(row) });
    const rank = usable.indexOf(row);
    const hold = held.get(row.startSegment);
    if (row.pinned === true) return keep(isGone(row) ? 'pinned, though its WAL is kept no more' : 'pinned');
    const gone = `its WAL, from ${row.startSegment} on, is kept no more`;
    if (isGone(row)) return { row, do: 'delete', why: gone, needsWal: false };
    if (hold !== undefined && !isOver(hold.at, policy.nodeLeaseMs, now))
      return keep(`${hold.kind} of ${hold.node}, heard of at ${hold.at}`);
    if (rank >= 0 && rank < keepBackups)
      return keep(keepBackups === 1 ? 'the newest' : `one of the ${keepBackups} newest`);
    if (rank < 0 && latest.indexOf(row) < keepBackups)
      return keep(
        `among the newest, though ${isBeforeGap(row) ? 'a gap' : 'a fork'} cuts it from the live end`,
      );
    if (isWithin(row, policy.keepDays * DAY_MS)) return keep(`younger than ${policy.keepDays} days`);
    if (isWithin(row, policy.pitrWindowMs)) return keep('within the window of restores');
    if (bases.has(row)) return keep('restores to the begin of the window start with it');
    return { row, do: 'delete', why: `finished ${finished(row)}, and newer ones are kept`, needsWal: false };
  };
  const judgeOther = (row: BackupRow): BackupVerdict => {
    const needsWal = false;
    if (row.state === 'running') {
      const heard = holds.holds[`backup-${row.id}`]?.at ?? row.startedAt;
      if (!isOver(heard, policy.nodeLeaseMs, now))
        return { row, do: 'keep', why: `running since ${row.startedAt}`, needsWal: true };
      return { row, do: 'fail', why: `not heard of since ${heard}: its process is gone`, needsWal };
    }
    if (row.state === 'deleting') return { row, do: 'delete', why: 'is being deleted', needsWal };
    if (isOver(finished(row), FAILED_MS, now))
      return { row, do: 'delete', why: `failed ${finished(row)}`, needsWal };
    return { row, do: 'keep', why: 'failed; its row stays for a day', needsWal };
  };
  return [...complete.map(judge), ...backups.filter(({ state }) => state !== 'complete').map(judgeOther)];
}

/** For people: `0/3000000`, or a dash. */
export const lsnText = (lsn: Lsn | null): string => (lsn === null ? '-' : formatLsn(lsn));
