/**
 * The lease of a primary: it may take writes only while its agent has had the epoch confirmed within this time. When what happens, who may
 * renew it, and when the watchdog stops the server.
 *
 * All times of one lease count from the *sending* of the last confirmed renewal, on a clock of the node that counts sleep: the vault can have
 * taken the renewal no earlier, so whoever sees it in the vault and then waits longer than the lease waits past its end. No clock of
 * one machine is ever compared with that of another.
 *
 * Pure. docs/design.md, "Lease and witness"; the rules were explored in a model of lease, watchdog and trigger.
 */
import type { FailureCode } from '../errors.ts';
import type { Control, Head, NodeRow, Promotion } from './facts.ts';

/** sk node#<name>, member `lease`: what the witness counts. */
export type Lease = {
  /** control.reign as it was confirmed: a lease of an earlier reign of this node says nothing. */
  epoch: number;
  /** One more with each renewal. */
  count: number;
  /** How long it runs. */
  ms: number;
  /** Who stops the server when the agent cannot. */
  watchdog: WatchdogKind;
  /** The server behind it is stopped, and another was named before: nobody has to wait for its end. */
  released?: true;
};

export type WatchdogKind = 'process' | 'systemd';

/** No shorter one: the vault's usual hiccups would stop the server. */
export const LEAST_LEASE_MS = 3000;

/** So many renewals fit into a lease at least; a few may fail before anything happens. */
const RENEWALS = 4;

/**
 * Of a lease of `ms`, counted from the sending: the fast stop begins, the immediate one where that did not end, and the kill, which
 * leaves a twelfth until the lease is over. All is quiet by then, whatever hangs.
 */
export function leaseTimes(ms: number): { fast: number; immediate: number; kill: number; end: number } {
  return { fast: (ms * 2) / 3, immediate: (ms * 5) / 6, kill: (ms * 11) / 12, end: ms };
}

/**
 * How long one renewal may take, ms. With a heartbeat of a sixth of the lease, as 5 s of 30 s, one that hangs leaves time for two more before
 * the stop begins; with one of a quarter, which is the most, for one.
 */
export const renewalLimit = (leaseMs: number): number => leaseMs / 6;

/**
 * How old a renewal may be when its answer comes, ms, if a server is to be started on it: what is left is for the start itself and for
 * the agent's first renewal. On an older one it would open with its lease nearly over, or over, and the watchdog looks only now and then.
 */
export const startLimit = (leaseMs: number): number => leaseMs / 3;

/**
 * How long a witness must have seen a renewal stand, on its own clock, before the server behind it is certainly stopped, ms. The part
 * above the lease is for clocks of which one runs faster than the other: a twentieth, where a hundredth is a broken clock.
 */
export const silenceNeeded = (leaseMs: number): number => leaseMs + Math.max(1000, leaseMs / 20);

/** Why these settings give no lease; undefined: they do, or none is asked for. */
export function decideLeaseSettings(settings: {
  leaseMs: number;
  heartbeatMs: number;
  watchdog: 'none' | WatchdogKind;
  agent: boolean;
  roles: 'own' | 'external';
}): { message: string; hint: string } | undefined {
  const { leaseMs, heartbeatMs, watchdog, agent, roles } = settings;
  if (leaseMs === 0) return undefined;
  if (watchdog === 'none')
    return {
      message:
        'a lease wants a watchdog: nobody would stop the server when its agent is dead, frozen or starved',
      hint: `set watchdog = "process" or, under systemd, "systemd" (docs/systemd.md); or lease = "0"`,
    };
  if (leaseMs < LEAST_LEASE_MS)
    return {
      message: `a lease of ${leaseMs / 1000} s is too short`,
      hint: `${LEAST_LEASE_MS / 1000} s is the least; 30 s goes with the other defaults`,
    };
  if (leaseMs < RENEWALS * heartbeatMs)
    return {
      message: `a lease of ${leaseMs / 1000} s is renewed too rarely with heartbeat_interval = ${heartbeatMs / 1000} s`,
      hint: `make heartbeat_interval a quarter of the lease or less`,
    };
  if (!agent)
    return { message: 'a lease is renewed by the agent, and agent is off', hint: 'set agent = "on"' };
  if (roles === 'external')
    return {
      message:
        'roles = "external" leaves it to another tool who is the primary, and a lease would stop its choice',
      hint: 'set roles = "own", or lease = "0"',
    };
  return undefined;
}

export type RenewalDecision =
  | { do: 'renew'; lease: Lease }
  /** The vault's word. fenced: this node is not the primary; refused: not yet (a claim, an open, that is just being done). */
  | { do: 'refuse'; code: FailureCode; message: string };

/**
 * May this node renew? The transaction is conditional on the revision of `control` that was read, so a trigger that comes in between
 * lets it fail.
 *
 * @param writerEpoch  the epoch that this node took up last, as its own state directory says
 */
export function decideRenewal(
  control: Control,
  row: NodeRow | undefined,
  me: { node: string; writerEpoch: number; ms: number; watchdog: WatchdogKind },
): RenewalDecision {
  const refuse = (message: string, code: FailureCode = 'fenced'): RenewalDecision => ({
    ...{ do: 'refuse', code, message },
  });
  const { node, ms, watchdog } = me;
  if (control.role !== 'active') return refuse(`this vault is a ${control.role}, not active`);
  if (control.primary !== node)
    return refuse(
      `${node} is not the primary of this vault: ${control.primary ?? 'nobody'} holds epoch ${control.epoch}`,
    );
  if (me.writerEpoch < control.reign)
    return refuse(`${node} has not taken up epoch ${control.reign} yet: it has ${me.writerEpoch}`, 'refused');
  return { do: 'renew', lease: { epoch: control.reign, count: (row?.lease?.count ?? 0) + 1, ms, watchdog } };
}

/** The lease that the present primary holds, by its row; undefined: none that says anything of this reign. */
export function leaseOf(control: Pick<Control, 'reign'>, row: NodeRow | undefined): Lease | undefined {
  const lease = row?.lease ?? undefined;
  return lease !== undefined && lease.epoch === control.reign ? lease : undefined;
}

/**
 * What a target has to wait for: the lease that the old primary may still hold.
 *
 * @param old  its row @param pending  a promotion that is given up: its target never opened, and what that one waited for may run still
 * @param isOver  whoever triggers knows that the server is down: a witness by what it saw, a person by having looked
 */
export function leaseToOutlast(
  control: Pick<Control, 'reign' | 'primary'>,
  head: Pick<Head, 'flush' | 'promotion'>,
  old: NodeRow | undefined,
  isOver: boolean,
): Promotion['after'] {
  if (isOver || head.flush !== null || control.primary === null) return undefined;
  const { promotion } = head;
  if (promotion !== null && promotion.state !== 'open') return promotion.after;
  const lease = leaseOf(control, old);
  const ms = lease === undefined ? openedLeaseMs(control, promotion, old) : lease.ms;
  return ms === undefined || lease?.released === true
    ? undefined
    : { node: control.primary, ms: silenceNeeded(ms) };
}

/** Of a lease that began with the open and was never renewed: one that is cut off in its first seconds takes writes until it is over. */
function openedLeaseMs(
  { primary, reign }: Pick<Control, 'reign' | 'primary'>,
  promotion: Head['promotion'],
  old: NodeRow | undefined,
): number | undefined {
  const isFirst = promotion?.node === primary && promotion?.epoch === reign && old?.role !== 'primary';
  return isFirst ? promotion.leaseMs : undefined;
}

/** What the node keeps of its lease; ms on the clock that counts sleep, since the machine's boot. */
export type KeptLease = { boot: string; until: number; ms: number; epoch: number };

export type WatchdogFacts = {
  boot: string;
  now: number;
  /** undefined: this server never had a lease. */
  lease: KeptLease | undefined;
  /**
   * open: takes writes, or is about to (a crash recovery). waits: a standby, a promotion before its gate, an archive recovery: none of them
   * takes a write before the vault was asked.
   */
  server: 'open' | 'waits' | 'none';
};

export type WatchdogAction =
  | { do: 'nothing' }
  /** @param leftMs  until the next thing is due */
  | { do: 'watch'; leftMs: number }
  | { do: 'stop'; how: 'fast' | 'immediate' | 'kill' };

/**
 * How long ago the last confirmed renewal was sent, ms. Infinity: before the machine's last start, or, which no clock that only goes on can
 * say, in the future: the clock began anew under the same boot (a container whose /proc/uptime is its own).
 */
export function leaseAge(lease: KeptLease, boot: string, now: number): number {
  const age = now - (lease.until - lease.ms);
  return lease.boot === boot && age >= 0 ? age : Infinity;
}

/** What the watchdog does now. A lease of before the machine's last start has run out. */
export function decideWatchdog({ boot, now, lease, server }: WatchdogFacts): WatchdogAction {
  if (lease === undefined || server !== 'open') return { do: 'nothing' };
  const { fast, immediate, kill } = leaseTimes(lease.ms);
  const age = leaseAge(lease, boot, now);
  if (age < fast) return { do: 'watch', leftMs: fast - age };
  return { do: 'stop', how: age >= kill ? 'kill' : age >= immediate ? 'immediate' : 'fast' };
}
