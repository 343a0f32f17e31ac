/**
 * The witness: is the primary gone, may a standby take its place without a person, and which one?
 *
 * It decides by what it saw itself: a sign of the primary (the counter of its lease and the nonce of its last commit) that stands still on
 * the witness's own clock. No time stamp of a node is ever looked at. That the old primary is certainly stopped follows from its
 * lease alone, never from a connection; the trigger is conditional on the very sign that was seen standing.
 *
 * Whatever is not plain forbids the trigger: a primary without a lease, a stop on purpose, a table that is seen badly, a promotion under
 * way, no standby that is fresh, a failover a short time ago. Then it warns, and a person decides.
 *
 * Pure. docs/witness.md; the rules were explored in a model of lease, watchdog and trigger.
 */
import { decideTarget } from './decide-roles.ts';
import type { Control, Head, NodeRow, WitnessPolicy, WitnessRow } from './facts.ts';
import { gapText, placeOfNode, type LiveGap } from './gaps.ts';
import { leaseOf, leaseTimes, silenceNeeded } from './lease.ts';

/** Without a lease silence proves nothing; after so long it is worth a word, ms. */
export const QUIET_MS = 60_000;

/** A look that takes longer than this is none, ms. */
export const SLOW_LOOK_MS = 3000;

/** How much of the looks may fail before the witness counts as blind. */
const BAD_SHARE = 0.2;

/** A standby, with what is not in its row. */
export type WitnessStandby = {
  row: NodeRow;
  /** How much of the primary's time it lacks: the newest segment's archived-at less that of the first it has not, both the primary's; null: unknown. */
  behindMs: number | null;
  gap: LiveGap | undefined;
};

export type WitnessFacts = {
  control: Control;
  head: Head;
  primary: NodeRow | undefined;
  standbys: readonly WitnessStandby[];
  segmentSize: number;
};

/** What was seen, and for how long, by the witness's own clock. */
export type Sight = {
  /** The primary's sign has stood so long, ms. */
  silentMs: number;
  /** Nodes that were heard of after the primary was heard of last. */
  heard: ReadonlySet<string>;
  /** Why this witness does not see the table well; undefined: it does. */
  blind: string | undefined;
};

export type WitnessState =
  'well' | 'silent' | 'planned' | 'pending' | 'blind' | 'no lease' | 'no primary' | 'not active';

export type WitnessDecision = {
  do: 'nothing' | 'warn' | 'trigger';
  state: WitnessState;
  why: string;
  /** What was weighed: each standby, and what forbids a failover. */
  reasons: string[];
  /** The standby that is fit; null: none is, or none was looked for. */
  to: string | null;
};

/** The sign of the primary: while it is the same, nothing of the primary has reached the vault. */
export function signOf({
  control,
  head,
  primary,
}: Pick<WitnessFacts, 'control' | 'head' | 'primary'>): string {
  const lease = leaseOf(control, primary);
  return [
    control.reign,
    control.primary ?? '',
    lease?.count ?? `row ${primary?.rev ?? 0}`,
    head.writer?.nonce ?? '',
  ].join(' ');
}

/** @param coolMs  until the next automatic failover may be; 0: now */
export function decideWitness(
  facts: WitnessFacts,
  sight: Sight,
  policy: WitnessPolicy,
  { nowMs, coolMs }: { nowMs: number; coolMs: number },
): WitnessDecision {
  const { control, head, primary } = facts;
  const calm = (state: WitnessState, why: string): WitnessDecision => ({
    ...{ do: 'nothing', state, why, reasons: [], to: null },
  });
  if (control.role !== 'active') return calm('not active', `this vault is a ${control.role}`);
  if (control.primary === null) return calm('no primary', 'the vault names no primary');
  const { promotion } = head;
  if (promotion !== null && promotion.state !== 'open')
    return calm(
      'pending',
      `a promotion of ${promotion.node} is under way (epoch ${promotion.epoch}, ${promotion.state})`,
    );
  const planned = plannedStop(control, head, nowMs);
  if (planned !== undefined) return calm('planned', planned);
  const lease = leaseOf(control, primary);
  const warnMs = lease === undefined ? QUIET_MS : leaseTimes(lease.ms).fast;
  const { silentMs, blind } = sight;
  if (blind !== undefined) return calm('blind', blind);
  if (silentMs < warnMs)
    return lease === undefined
      ? calm('no lease', `${control.primary} is heard, and runs without a lease: a failover needs a person`)
      : calm('well', `${control.primary} renews its lease`);
  const silence = `nothing was heard of ${control.primary} for ${Math.floor(silentMs / 1000)} s, neither heartbeat nor WAL`;
  const { to, reasons } = chooseStandby(facts, sight, policy);
  const warn = (why: string, state: WitnessState = 'silent'): WitnessDecision => ({
    ...{ do: 'warn', state, why: `${silence}: ${why}`, reasons, to },
  });
  if (lease === undefined)
    return warn('it runs without a lease, so nobody knows that it is stopped; a person decides', 'no lease');
  const needed = silenceNeeded(lease.ms);
  if (to === null) return warn('no standby is fit to take its place');
  if (coolMs > 0)
    return warn(
      `the last automatic failover was a short time ago; for ${Math.ceil(coolMs / 1000)} s more a person decides`,
    );
  if (!policy.autoFailover) return warn(`auto_failover is off; ${to} would take its place`);
  if (silentMs < needed)
    return warn(
      `its lease may run for ${Math.ceil((needed - silentMs) / 1000)} s more, then ${to} takes its place`,
    );
  return {
    do: 'trigger',
    state: 'silent',
    why: `${silence}: its lease of ${lease.ms / 1000} s is over, ${to} takes its place`,
    reasons,
    to,
  };
}

/**
 * What would become of the cluster if its primary died now and said nothing more, as a witness that sees well would decide in the end.
 *
 * @param heard  standbys that are alive @param row  of the witness; undefined: nobody watches
 */
export function foresee(
  facts: WitnessFacts,
  heard: ReadonlySet<string>,
  row: Pick<WitnessRow, 'policy' | 'lastFailover'> | undefined,
  nowMs: number,
): Pick<WitnessDecision, 'do' | 'to' | 'why' | 'reasons'> {
  const policy = row?.policy ?? { autoFailover: false, maxLagMs: Infinity, coolDownMs: 0 };
  const coolMs = coolDownLeft(row?.lastFailover ?? null, policy, nowMs);
  const sight: Sight = { silentMs: Infinity, heard, blind: undefined };
  const { do: does, to, why, reasons } = decideWitness(facts, sight, policy, { nowMs, coolMs });
  if (does === 'nothing') return { do: does, to, why, reasons };
  if (row === undefined)
    return {
      do: 'nothing',
      to,
      why: 'nobody would notice: no witness has ever looked; a person triggers',
      reasons,
    };
  const lease = leaseOf(facts.control, facts.primary);
  if (does === 'trigger' && lease !== undefined)
    return {
      do: does,
      to,
      why: `${to} would take its place after about ${Math.ceil(silenceNeeded(lease.ms) / 1000)} s`,
      reasons,
    };
  return {
    do: does,
    to,
    why: `nobody would take its place without a person: ${why.replace(/^[^:]*: /, '')}`,
    reasons,
  };
}

/** So long a take-over may stand between its two vaults before it counts as broken off, ms. */
const BROKEN_OFF_MS = 30_000;

/**
 * For a witness in a replica for which the other vault was fenced, and which is not active yet: a take-over is at work, or was broken off and
 * leaves nobody to write.
 *
 * @param facts.to  whom the take-over names @param facts.isThere  that node is a standby of this vault @param facts.url  of this vault
 */
export function decideBrokenOff(facts: {
  to: string | null;
  isThere: boolean;
  silentMs: number;
  drFailover: boolean;
  url: string;
}): WitnessDecision {
  const { to, isThere, silentMs, drFailover, url } = facts;
  const base = { state: 'pending' as const, reasons: [], to };
  if (silentMs < BROKEN_OFF_MS || to === null)
    return { ...base, do: 'nothing', why: `a take-over to ${to} in ${url} is under way` };
  const stands = `a take-over to ${to} stands still for ${Math.floor(silentMs / 1000)} s: nobody is the primary`;
  return drFailover && isThere
    ? { ...base, do: 'trigger', why: `${stands}; it is gone on with` }
    : {
        ...base,
        do: 'warn',
        why: `${stands}; 'walvault trigger smart --to ${to}' in ${url} goes on with it`,
      };
}

/** Why the primary may be down on purpose; undefined: nobody said so. */
export function plannedStop(control: Control, head: Head, nowMs: number): string | undefined {
  const { maintenance } = control;
  if (maintenance && Date.parse(maintenance.until) > nowMs)
    return `maintenance until ${maintenance.until} (${maintenance.by})`;
  if (head.flush !== null)
    return `${control.primary} was flushed at ${head.flush.lsn}: somebody is about to decide`;
  if (!control.archiving) return 'archiving is off: a standby would open without what is written now';
  return undefined;
}

/** The fit standby of the highest priority, of those the one that has replayed most. */
export function chooseStandby(
  { head, standbys, segmentSize }: Pick<WitnessFacts, 'head' | 'standbys' | 'segmentSize'>,
  { heard }: Pick<Sight, 'heard'>,
  { maxLagMs }: Pick<WitnessPolicy, 'maxLagMs'>,
): { to: string | null; reasons: string[] } {
  const reasons: string[] = [];
  const fit: { row: NodeRow; priority: number; lsn: bigint }[] = [];
  if (head.lsn === null) return { to: null, reasons: ['nothing was archived yet'] };
  for (const { row, behindMs, gap } of standbys) {
    const unfit = unfitness(row, behindMs, gap, heard, maxLagMs);
    if (unfit !== undefined) {
      reasons.push(`${row.name}: ${unfit}`);
      continue;
    }
    const priority = row.failoverPriority ?? 100;
    fit.push({ row, priority, lsn: placeOfNode(row, segmentSize) });
    reasons.push(`${row.name}: fit, priority ${priority}, ${Math.round((behindMs ?? 0) / 1000)} s behind`);
  }
  fit.sort(
    (a, b) =>
      b.priority - a.priority ||
      (a.lsn === b.lsn ? 0 : a.lsn > b.lsn ? -1 : 1) ||
      (a.row.name < b.row.name ? -1 : 1),
  );
  if (standbys.length === 0) reasons.push('there is no standby');
  return { to: fit[0]?.row.name ?? null, reasons };
}

function unfitness(
  row: NodeRow,
  behindMs: number | null,
  gap: LiveGap | undefined,
  heard: ReadonlySet<string>,
  maxLagMs: number,
): string | undefined {
  if (row.failoverPriority === 0) return 'its failover_priority is 0';
  if (!heard.has(row.name)) return 'silent too';
  const refused = decideTarget(row, row.name);
  if (refused !== undefined) return refused.message.replace(`${row.name} `, '');
  if (gap !== undefined) return `stands before a declared gap, ${gapText(gap)}`;
  if (behindMs === null) return 'how far it is behind is not known';
  if (behindMs > maxLagMs)
    return `${Math.round(behindMs / 1000)} s behind, max_lag is ${Math.round(maxLagMs / 1000)} s`;
  return undefined;
}

/** How long an automatic failover has still to wait for the one before. A `last` of the future (another witness's clock) counts as just now. */
export function coolDownLeft(
  last: WitnessRow['lastFailover'],
  { coolDownMs }: Pick<WitnessPolicy, 'coolDownMs'>,
  nowMs: number,
): number {
  if (last === null) return 0;
  const since = nowMs - Date.parse(last.at);
  return Math.max(0, coolDownMs - Math.max(0, since));
}

/** What a witness remembers between two looks; times on its own monotonic clock, ms. */
export type WitnessMemory = {
  sign: string;
  /** When a look at it as it is had ended first: its renewal can have been sent no later. */
  signAt: number;
  nodes: ReadonlyMap<string, { rev: number; movedAt: number | undefined }>;
  looks: readonly { at: number; ok: boolean }[];
};

export type WitnessLook = { at: number; tookMs: number; everyMs: number } & (
  { facts: WitnessFacts; failure?: undefined } | { facts?: undefined; failure: string }
);

/** So many looks may be missed before the witness itself counts as having slept: what it remembers is no observation then. */
const MISSED_LOOKS = 4;

/** The memory after a look. @param look.at  when it had ended */
export function remember(memory: WitnessMemory | undefined, look: WitnessLook): WitnessMemory | undefined {
  const { at, tookMs, everyMs, facts } = look;
  const last = memory?.looks.at(-1)?.at;
  const slept = last !== undefined && at - last > MISSED_LOOKS * everyMs + SLOW_LOOK_MS;
  const known = slept ? undefined : memory;
  if (facts === undefined)
    return known === undefined ? undefined : { ...known, looks: recent([...known.looks, { at, ok: false }]) };
  const sign = signOf(facts);
  const nodes = new Map(
    facts.standbys.map(({ row }) => {
      const before = known?.nodes.get(row.name);
      const moved = before !== undefined && before.rev !== row.rev;
      return [row.name, { rev: row.rev, movedAt: moved ? at : before?.movedAt }] as const;
    }),
  );
  return {
    sign,
    signAt: known?.sign === sign ? known.signAt : at,
    nodes,
    looks: recent([...(known?.looks ?? []), { at, ok: tookMs <= SLOW_LOOK_MS }]),
  };
}

const recent = (looks: { at: number; ok: boolean }[]): { at: number; ok: boolean }[] => looks.slice(-600);

/** What the memory says at `at`; `leaseMs` undefined: the primary has none. */
export function sightOf(memory: WitnessMemory, at: number, leaseMs: number | undefined): Sight {
  const silentMs = at - memory.signAt;
  const window = leaseMs === undefined ? QUIET_MS : silenceNeeded(leaseMs);
  const looks = memory.looks.filter((look) => at - look.at <= window);
  const bad = looks.filter(({ ok }) => !ok).length;
  const blind =
    looks.at(-1)?.ok !== true || bad > looks.length * BAD_SHARE
      ? `the table was seen badly: ${bad} of the last ${looks.length} looks failed or took longer than ${SLOW_LOOK_MS / 1000} s`
      : undefined;
  const heard = new Set(
    [...memory.nodes].flatMap(([name, { movedAt }]) =>
      movedAt !== undefined && movedAt > memory.signAt && at - movedAt <= window ? [name] : [],
    ),
  );
  return { silentMs, heard, blind };
}
