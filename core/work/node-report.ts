/**
 * What a node says of itself: its row in the manifest at each interval, with whatever is wrong with it; a primary's nonce goes along.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { renewalLimit } from '../cluster/lease.ts';
import { decideDiverged } from '../cluster/decide-roles.ts';
import { VaultError } from '../errors.ts';
import { readControl as readControlFile, runningServer } from '../postgres/pgdata.ts';
import { recoveryMode } from '../postgres/signal-files.ts';
import { waitingSince } from '../postgres/wal-directory.ts';
import { withLimit } from '../vault/time-limit.ts';
import { parseLsn } from '../wal/lsn.ts';
import { parseWalName } from '../wal/name.ts';
import { putEvent, type Cluster } from './cluster.ts';
import type { ExternalRoles } from './external.ts';
import type { Follower } from './follow.ts';
import { reportNode, swapNonce, type NodeReport } from './heartbeat.ts';
import { forgetLease } from './lease-file.ts';
import type { LeaseKeeper } from './lease.ts';
import { readLocalWord } from './local-off.ts';
import { inWords, type Journal } from './journal.ts';
import { isPassing, type NodeContext } from './node-context.ts';
import {
  forgetRestartPoint,
  isWaitNode,
  noteReport,
  readRestartPoint,
  readServed,
  readText,
  removeDurably,
  type StatePaths,
} from './node-state.ts';
import { askServer } from './promote.ts';
import { libraryHere } from './prove-access.ts';
import type { Pusher } from './push.ts';

/** What the agent does for its server: pushes what it archives, follows the vault for it, or (wait mode) only reports it. */
export type Role = 'push' | 'follow' | 'wait';

export class NodeReporter {
  readonly #context: NodeContext;
  readonly #journal: Journal;
  readonly #version: string;
  readonly #follower: Follower;
  readonly #pusher: Pusher;
  readonly #external: ExternalRoles;
  readonly #lease: LeaseKeeper;
  #swapping: Promise<void> | undefined;
  #unwatched: string | null = null;
  #isTelling = false;
  #role: Role | undefined;
  /** The last report said that the server has reached the end of its base backup. */
  #consistent = false;
  /** What is wrong with this node, for its row; null: nothing. */
  trouble: string | null = null;

  constructor(
    context: NodeContext,
    journal: Journal,
    version: string,
    follower: Follower,
    pusher: Pusher,
    external: ExternalRoles,
    lease: LeaseKeeper,
  ) {
    this.#context = context;
    this.#journal = journal;
    this.#version = version;
    this.#follower = follower;
    this.#pusher = pusher;
    this.#external = external;
    this.#lease = lease;
  }

  /** What the node says of itself, at each interval; a primary's nonce goes with it. */
  async beat(isFinished: () => boolean, role: () => Role): Promise<void> {
    while (!isFinished()) {
      let interval = this.#context.settings.heartbeatInterval;
      try {
        await this.#reportOnce(role);
        this.#journal.state('heartbeat', 'heartbeats are taken');
      } catch (error) {
        this.#journal.state('heartbeat', `heartbeat: ${inWords(error)}`);
        const { terms } = this.#lease;
        if (terms !== undefined) interval = Math.min(interval, terms.ms / 12); // each try may be the one that saves the server
      }
      // a fresh standby becomes a target of triggers by its report: as soon as it is one, not an interval later
      const pause = this.#consistent ? interval : Math.min(interval, 500);
      for (let left = pause; left > 0 && !isFinished(); left -= 100) await sleep(Math.min(100, left));
    }
  }

  async #reportOnce(roleNow: () => Role): Promise<void> {
    const role = roleNow();
    // An agent may outlive its server for a moment, or be started by the last hook of a killed one: it has nothing to report then.
    if ((await runningServer(this.#context.pgdata).catch(() => undefined)) === undefined) return;
    const cluster = await this.#context.cluster();
    // What kept it from writing as a primary would keep it, as the standby that it is now, from being a target.
    if (role !== 'push' && this.#role === 'push') this.trouble = null;
    this.#role = role;
    const isStill = () => roleNow() === role;
    if (role !== 'push') await this.#watchStandby();
    const report = await this.#report(role);
    if (role !== 'push') {
      // One that hangs must not hold up the first renewal of a node that is being promoted, nor land on it.
      const { terms } = this.#lease;
      const write = () => reportNode(cluster, report, undefined, isStill);
      await (terms === undefined
        ? write()
        : withLimit(renewalLimit(terms.ms), 'the report of a standby', write));
      this.#tellStop(cluster);
      this.#consistent = report.consistent === true;
      noteReport(this.#context.paths, this.#consistent);
      return;
    }
    this.#consistent = true;
    try {
      if (this.#lease.terms === undefined) {
        await reportNode(cluster, report);
        // the vault first: while a lease stands there, somebody may count on its end
        forgetLease(this.#context.paths.lease);
        await swapNonce(cluster, this.#context.seat);
        this.trouble = null;
      } else {
        await this.#lease.renew(cluster, report);
        // not waited for: it stands behind commits, of which one may hang, and the next renewal must not
        this.#swapping ??= swapNonce(cluster, this.#context.seat)
          .then(() => void (this.trouble = null))
          .catch((error: unknown) => this.#cannotWrite(cluster, report, error, isStill).catch(() => {}))
          .finally(() => (this.#swapping = undefined));
      }
      this.#tellStop(cluster);
    } catch (error) {
      await this.#cannotWrite(cluster, report, error, isStill);
    }
  }

  /** A primary that may not write says so in its row, whatever the vault thinks of its epoch. @throws the failure */
  async #cannotWrite(
    cluster: Cluster,
    report: NodeReport,
    error: unknown,
    isStill: () => boolean,
  ): Promise<never> {
    if (isPassing(error) || !(error instanceof VaultError)) throw error;
    const hint =
      error.code === 'fenced'
        ? `; if it was promoted by hand and shall be the primary, run 'walvault claim' here`
        : '';
    const unclaimed = this.#external.why; // says more than that it is no primary
    const trouble = unclaimed ?? `${error.message}${hint}`;
    if (this.trouble !== trouble)
      await putEvent(cluster, {
        kind: error.code === 'fenced' || error.code === 'copied' ? error.code : 'refused',
        node: this.#context.node,
        epoch: 0,
        text: unclaimed ?? error.message,
      });
    // it may have stood behind commits for long, and the node be a standby by now
    if (isStill()) this.trouble = trouble;
    await reportNode(cluster, { ...report, trouble }, undefined, isStill);
    throw error;
  }

  /** A standby whose watchdog does not run could not go on as a primary: it is no target. */
  async #watchStandby(): Promise<void> {
    try {
      await this.#lease.needWatchdog();
      this.#unwatched = null;
    } catch (error) {
      if (!(error instanceof VaultError)) throw error;
      this.#unwatched = error.message;
    }
  }

  /** That the watchdog stopped this server: said once the vault is there again. */
  #tellStop(cluster: Cluster): void {
    const { node, paths } = this.#context;
    if (this.#isTelling || !fs.existsSync(paths.leaseStop)) return;
    this.#isTelling = true;
    const tell = async () => {
      const at = readText(paths.leaseStop)?.trim() ?? 'some time';
      const text = `${node} was stopped at ${at}: its lease could not be renewed in time`;
      await putEvent(cluster, { kind: 'lease-stop', node, epoch: 0, text });
      removeDurably(paths.leaseStop);
    };
    tell()
      .catch((error: unknown) => this.#journal.state('lease-stop', `lease-stop: ${inWords(error)}`))
      .finally(() => (this.#isTelling = false));
  }

  async #report(role: Role): Promise<NodeReport> {
    const { paths } = this.#context;
    if (role === 'push') {
      const lastArchived = this.#pusher.lastArchived;
      const { majorVersion } = await readControlFile(this.#context.pgdata);
      return {
        ...aboutNode(this.#context, this.#version, majorVersion),
        trouble: this.trouble ?? this.#offHere() ?? this.#lease.refused?.message ?? null,
        // renewed apart, and only together with its counter
        ...(this.#lease.terms === undefined ? { lease: null } : {}),
        role: 'primary',
        consistent: true,
        // one of its life as a standby would say, when it is one again, that it needs more or less than it does
        restartPoint: forgetRestartPoint(paths),
        ...(await this.#waiting()),
        ...(lastArchived === null ? {} : { lastArchived }),
      };
    }
    const replay = await askServer<{ lsn: string | null }>(
      this.#context,
      'select pg_last_wal_replay_lsn()::text as lsn',
    ).catch(() => []);
    const replayed = replay[0]?.lsn ?? null;
    // asked for after the position: by the time a newer timeline is replayed, a segment of it was served
    const report = await standbyReport(this.#context, this.#version);
    return {
      ...report,
      ...(replayed === null ? {} : { lastReplayedLsn: replayed }),
      trouble:
        this.trouble ??
        this.#lease.refused?.message ??
        this.#unwatched ??
        this.#flushed() ??
        (await this.#divergence(replayed, report.lastRestored ?? null)),
    };
  }

  /** What cannot be looked at now is left as it was said last: a heartbeat is never held up by it. */
  async #waiting(): Promise<Pick<NodeReport, 'waitingSince'>> {
    try {
      const since = await waitingSince(path.join(this.#context.pgdata, 'pg_wal'));
      return { waitingSince: since?.toISOString() ?? null };
    } catch {
      return {};
    }
  }

  /** A word of this node alone, which no other place would show. */
  #offHere(): string | null {
    const word = readLocalWord(this.#context.paths);
    return word === undefined
      ? null
      : `archiving is off here since ${word.at}, by --local: run 'walvault archiving on --local' here`;
  }

  /** The primary of the vault, flushed and started again: read-only until somebody decides. */
  #flushed(): string | null {
    const { flush, writer } = this.#follower.branch?.head ?? {};
    if (!flush || writer?.node !== this.#context.node) return null;
    return `flushed at ${flush.lsn}, hence read-only; trigger a standby, or stop it and run 'walvault flush --undo'`;
  }

  /** That this standby has replayed past the fork of the live branch: a new one has to be made of it. */
  async #divergence(replayed: string | null, served: string | null): Promise<string | null> {
    const timeline = served === null ? undefined : parseWalName(served)?.timeline;
    if (replayed === null || timeline === undefined) return null;
    const { lineage } = await this.#follower.read(await this.#context.cluster());
    const diverged = decideDiverged(lineage, { timeline, lsn: parseLsn(replayed) });
    return diverged === undefined ? null : `${diverged}; make it anew by 'walvault standby create'`;
  }
}

function aboutNode({ node, seat }: NodeContext, version: string, majorVersion: number): NodeReport {
  return {
    name: node,
    place: seat.place,
    walvaultVersion: version,
    postgresVersion: String(majorVersion),
    library: libraryHere(),
  };
}

/** What a standby says of itself without being connected to, whether an agent says it or the command that waits. */
export async function standbyReport(context: NodeContext, version: string): Promise<NodeReport> {
  const { pgdata, paths } = context;
  const control = await readControlFile(pgdata);
  const recovered = !control.backupEndRequired && control.backupStartLsn === 0n;
  const served = readServed(paths) ?? null;
  const restartPoint = readRestartPoint(paths);
  const mode = await followMode(pgdata, paths);
  return {
    ...aboutNode(context, version, control.majorVersion),
    role: 'standby',
    lease: null,
    failoverPriority: context.settings.failoverPriority,
    consistent: recovered && (control.state === 5 || control.state === 2),
    lastRestored: served,
    waitingSince: null,
    // before the first one, that with which it was registered stands: it is what keeps its WAL from retention
    ...(restartPoint === undefined ? {} : { restartPoint }),
    ...(mode === undefined ? {} : { mode }),
  };
}

/** undefined: hot or warm, as it was registered. A wait node that starts by standby.signal (flushed, and a standby since) is warm. */
async function followMode(pgdata: string, paths: StatePaths): Promise<'wait' | 'warm' | undefined> {
  if (!isWaitNode(paths)) return undefined;
  return (await recoveryMode(pgdata)) === 'archive' ? 'wait' : 'warm';
}
