/**
 * The lease of a primary, as its agent keeps it: renewed in the vault with each heartbeat, in one transaction with a condition on `control`;
 * handed to the watchdog; never renewed while no watchdog is alive, so that whoever reads a lease in the vault knows that somebody will end it.
 *
 * core/cluster/lease.ts decides, core/work/watchdog.ts stops.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { keys, type NodeRow } from '../cluster/facts.ts';
import {
  decideLeaseSettings,
  decideRenewal,
  renewalLimit,
  type Lease,
  type WatchdogKind,
} from '../cluster/lease.ts';
import type { Settings } from '../settings/read.ts';
import { withLimit } from '../vault/time-limit.ts';
import { bootMs } from './boot-clock.ts';
import { asRow, changing, readControl, type Cluster, readNode } from './cluster.ts';
import { newNodeRow, type NodeReport } from './heartbeat.ts';
import { buildId } from './agent-socket.ts';
import { endLease, keepLease, livingWatchdog, shortenLease } from './lease-file.ts';
import type { NodeContext } from './node-context.ts';
import type { StatePaths } from './node-state.ts';
import { startWatchdog } from './programs.ts';
import type { WriterSeat } from './writer.ts';

/** What a lease is made of; undefined: this node has none. @throws VaultError usage  the settings do not go together */
export type LeaseTerms = { ms: number; watchdog: WatchdogKind };

export function leaseTerms(settings: Settings): LeaseTerms | undefined {
  const { lease, heartbeatInterval, watchdog, agent, roles } = settings;
  const refused = decideLeaseSettings({
    leaseMs: lease,
    heartbeatMs: heartbeatInterval,
    watchdog,
    agent,
    roles,
  });
  if (refused !== undefined) throw new VaultError('usage', refused.message, { hint: refused.hint });
  return lease === 0 || watchdog === 'none' ? undefined : { ms: lease, watchdog };
}

/**
 * Renews the lease in the vault, and with it writes the node's row: the heartbeat of a primary with a lease.
 *
 * @returns when the renewal that was confirmed was sent (bootMs), and the lease as it stands
 * @throws VaultError fenced (the vault's word: not the primary) | unreachable | busy
 */
export async function renewLease(
  cluster: Cluster,
  seat: WriterSeat,
  report: NodeReport,
  terms: LeaseTerms,
): Promise<{ sentAt: number; lease: Lease }> {
  const { manifest } = cluster.vault;
  return changing(
    async () => {
      const [control, seen] = await Promise.all([readControl(cluster), readNode(cluster, report.name)]);
      const writerEpoch = seat.store.read()?.epoch ?? 0;
      const decision = decideRenewal(control, seen, { node: seat.node, writerEpoch, ...terms });
      if (decision.do === 'refuse') throw new VaultError(decision.code, decision.message);
      const row: NodeRow = {
        ...(seen ?? newNodeRow(cluster, report.name)),
        ...report,
        heartbeatAt: new Date().toISOString(),
        lease: decision.lease,
        rev: (seen?.rev ?? 0) + 1,
      };
      return {
        // the transaction is sent in the next moment, and the lease runs from here
        result: { sentAt: bootMs(), lease: decision.lease },
        changes: [
          { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
          { do: 'put', row: asRow(row), when: seen ? { rev: seen.rev } : 'absent' },
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}

export class LeaseKeeper {
  readonly #context: NodeContext;
  /** undefined: this node has no lease. */
  readonly terms: LeaseTerms | undefined;
  /** Why the settings give none though one is asked for; undefined: they do. */
  readonly refused: VaultError | undefined;

  constructor(context: NodeContext) {
    this.#context = context;
    try {
      this.terms = leaseTerms(context.settings);
      this.refused = undefined;
    } catch (error) {
      if (!(error instanceof VaultError)) throw error;
      this.terms = undefined;
      this.refused = error;
    }
  }

  /**
   * One renewal, with the node's row.
   *
   * @throws VaultError fenced (the vault's word; the watchdog begins to stop the server) | refused (no watchdog) | unreachable | busy
   */
  async renew(cluster: Cluster, report: NodeReport): Promise<void> {
    const { paths, seat } = this.#context;
    const { terms } = this;
    if (terms === undefined) throw new Error('this node has no lease');
    await this.needWatchdog();
    const limitMs = renewalLimit(terms.ms);
    shortenLease(paths.lease, terms.ms);
    try {
      await withLimit(limitMs, 'renewing the lease', async () => {
        const { sentAt, lease } = await renewLease(cluster, seat, report, terms);
        keepLease(paths.lease, { sentAt, ms: terms.ms, epoch: lease.epoch }); // one that is confirmed late counts from its sending, too
      });
    } catch (error) {
      if (error instanceof VaultError && error.code === 'fenced') this.end();
      throw error;
    }
  }

  /** The vault took this node's promotion, which was sent at `sentAt`: the lease begins. Before the first write. */
  begin(sentAt: number, epoch: number): void {
    if (this.terms !== undefined) keepLease(this.#context.paths.lease, { sentAt, ms: this.terms.ms, epoch });
  }

  /** By the vault's word this node is no primary. */
  end(): void {
    endLease(this.#context.paths.lease);
  }

  /** A living watchdog of this build, started where it is ours to start. @throws VaultError refused  there is none */
  async needWatchdog(): Promise<void> {
    if (this.terms === undefined) return;
    await needWatchdog(this.#context.paths, this.#context.stateDir, this.terms);
  }
}

/** How long a watchdog that was just started may take until it beats, ms. */
const START_MS = 5000;

/**
 * @param since  only a beat of after this moment (bootMs) counts: that watchdog has seen what was written before it
 * @throws VaultError refused  none is alive, and none could be started
 */
export async function needWatchdog(
  paths: StatePaths,
  stateDir: string,
  { watchdog }: LeaseTerms,
  since = 0,
): Promise<void> {
  const build = buildId(paths.program);
  const isGood = () => {
    const living = livingWatchdog(paths.watchdog);
    return living !== undefined && living.at > since && (living.build === build || watchdog === 'systemd');
  };
  if (isGood()) return;
  const deadline = performance.now() + START_MS;
  for (let startedAt = -Infinity; performance.now() < deadline; await sleep(20)) {
    if (isGood()) return;
    // one of another build, or without a sign of life, gives way to it; one that is well lets it end at once
    if (watchdog === 'process' && performance.now() - startedAt > START_MS / 5) {
      startedAt = performance.now();
      startWatchdog(stateDir);
    }
  }
  throw new VaultError('refused', `the watchdog of this server does not run, so its lease is not renewed`, {
    hint:
      watchdog === 'systemd'
        ? `start its unit (docs/systemd.md), or set watchdog = "process"`
        : `look into agent.log in the state directory; a lease without a watchdog protects from nothing`,
  });
}
