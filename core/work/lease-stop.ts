/**
 * The end of a lease, carried out: looks whether it is due, and stops the server in three steps (fast, immediate, kill), so that nothing takes
 * a write when the lease is over. Needs no vault and no connection: two small files, signals, /proc.
 *
 * The watchdog does it. The agent does it as well, for a watchdog that is frozen; two that send the same signal do no harm.
 */
import fs from 'node:fs';
import { decideWatchdog, leaseAge, type KeptLease, type WatchdogFacts } from '../cluster/lease.ts';
import { readControl as readControlFile, runningServer } from '../postgres/pgdata.ts';
import { killServer, serverProcesses, signalStop } from '../postgres/server.ts';
import { recoveryMode } from '../postgres/signal-files.ts';
import { IN_ARCHIVE_RECOVERY } from '../wal/control-file.ts';
import { bootId, bootMs } from './boot-clock.ts';
import { readLease } from './lease-file.ts';
import { inWords, type Journal } from './journal.ts';
import type { StatePaths } from './node-state.ts';

export class LeaseStop {
  readonly #pgdata: string;
  readonly #paths: StatePaths;
  readonly #journal: Journal;
  readonly #by: string;
  readonly #boot = bootId();
  #known: KeptLease | undefined;
  #did: string | undefined;
  #looking: Promise<void> | undefined;

  /** @param by  'watchdog' or 'agent', for the log */
  constructor(pgdata: string, paths: StatePaths, journal: Journal, by: string) {
    this.#pgdata = pgdata;
    this.#paths = paths;
    this.#journal = journal;
    this.#by = by;
  }

  /** The lease as it was read last. */
  get lease(): KeptLease | undefined {
    return this.#known;
  }

  /** Since the sending of the last confirmed renewal, ms; Infinity: of an earlier boot. undefined: this server never had a lease. */
  get ageMs(): number | undefined {
    if (this.#known === undefined) return undefined;
    return leaseAge(this.#known, this.#boot, bootMs());
  }

  /** One look, and what follows from it; one at a time. Never throws. */
  async look(): Promise<void> {
    this.#looking ??= this.#lookOnce()
      .catch((error: unknown) => this.#journal.state('lease', `${this.#by}: ${inWords(error)}`))
      .finally(() => (this.#looking = undefined));
    await this.#looking;
  }

  async #lookOnce(): Promise<void> {
    this.#known = readLease(this.#paths.lease, this.#known);
    // The server is looked at only where it might have to be stopped: mostly this is one small read.
    if (this.#decide('open').do !== 'stop') {
      this.#did = undefined;
      return;
    }
    const { state, pid } = await this.#server();
    const action = this.#decide(state);
    if (action.do !== 'stop') return;
    const isNew = this.#did !== `${action.how} ${pid}`;
    // First the stop: on a disk that hangs the line and the note below may hang as well.
    if (action.how === 'kill') await killServer(this.#pgdata);
    else if (isNew) await signalStop(this.#pgdata, action.how);
    if (!isNew) return;
    const age = this.ageMs ?? 0;
    this.#journal.state(
      'lease',
      `${this.#by}: the lease of ${(this.#known?.ms ?? 0) / 1000} s was not renewed for ${Number.isFinite(age) ? `${(age / 1000).toFixed(1)} s` : 'a restart of this machine'}: ${WORDS[action.how]}`,
    );
    if (this.#did === undefined) this.#note();
    this.#did = `${action.how} ${pid}`;
  }

  #decide(server: WatchdogFacts['server']) {
    return decideWatchdog({ boot: this.#boot, now: bootMs(), lease: this.#known, server });
  }

  /** What cannot be seen not to take writes counts as open: an unreadable file of PGDATA keeps no server from its stop. */
  async #server(): Promise<{ state: WatchdogFacts['server']; pid: number | undefined }> {
    let pid: number | undefined;
    try {
      if (fs.existsSync(this.#paths.detached)) return { state: 'waits', pid }; // opened for a test: it writes to no vault
      pid = (await runningServer(this.#pgdata))?.pid;
      if (pid === undefined) {
        const orphans = await serverProcesses(this.#pgdata); // they end their statement, and may commit
        return { state: orphans.length > 0 ? 'open' : 'none', pid };
      }
      if ((await recoveryMode(this.#pgdata)) !== 'none') return { state: 'waits', pid };
      const { state } = await readControlFile(this.#pgdata);
      return { state: state === IN_ARCHIVE_RECOVERY ? 'waits' : 'open', pid };
    } catch (error) {
      this.#journal.state('lease look', `${this.#by}: ${inWords(error)}`);
      return { state: 'open', pid };
    }
  }

  /** For the vault, which cannot be told now: the next agent does. Not waited for, and not flushed: the disk may hang. */
  #note(): void {
    const at = `${new Date().toISOString()}\n`;
    fs.promises.writeFile(this.#paths.leaseStop, at, { mode: 0o600 }).catch(() => {}); // a full disk: the log has it
  }
}

const WORDS = {
  fast: 'stopping the server (fast)',
  immediate: 'stopping it (immediate)',
  kill: 'killing what runs on its data directory',
} as const;
