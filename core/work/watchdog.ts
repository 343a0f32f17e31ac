/**
 * The watchdog: a second small process that stops the server when its lease ends, whatever has become of the agent. It knows no vault.
 *
 * It also looks after the agent, which is the one that can prevent the stop: one that is dead is started again, one that answers nothing
 * while its renewal is overdue is killed first. An agent whose vault is away answers, and is left alone.
 */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { leaseTimes, type WatchdogKind } from '../cluster/lease.ts';
import { runningServer } from '../postgres/pgdata.ts';
import { askAgent, buildId } from './agent-socket.ts';
import { beatWatchdog, endBeats, livingWatchdog } from './lease-file.ts';
import { LeaseStop } from './lease-stop.ts';
import { inWords, Journal } from './journal.ts';
import { isProgram, livingAgent } from './living-agent.ts';
import { takeNodeLock } from './node-lock.ts';
import { startAgent } from './programs.ts';
import { checkIdentity, statePaths, type StatePaths } from './node-state.ts';

/** Between two looks, ms; each is a sign of life. */
const EVERY_MS = 250;
/** How long the server may be gone before a watchdog that the agent started ends, ms. */
const GONE_MS = 15_000;
/** Between two looks after the agent, ms; one whose renewal is overdue is looked at each time: the stop is near. */
const AGENT_EVERY_MS = 1000;
/** How long an agent whose renewal is overdue has to answer, ms; twice in a row it must not. */
const ANSWER_MS = 1000;

/**
 * Runs until the server is gone and its lease is over (`process`), or for ever (`systemd`: its unit looks after the agent, too). A second one
 * of the same build ends at once.
 *
 * @param stateDir  absolute; the process works in it from here on
 * @throws VaultError unconfigured | copied | pgdata | local
 */
export async function runWatchdog(stateDir: string, kind: WatchdogKind): Promise<void> {
  process.chdir(stateDir);
  const paths = statePaths('.');
  const journal = new Journal(paths);
  const { pgdata: configured } = checkIdentity(paths);
  const pgdata = fs.realpathSync(configured);
  const build = buildId();
  const lock = await takeOver(paths, build);
  if (lock === undefined) return;
  const beat = () => beatWatchdog(paths.watchdog, { pid: process.pid, build, kind });
  const stop = new LeaseStop(pgdata, paths, journal, 'watchdog');
  const agent = new AgentCare(paths, journal, kind === 'process' ? () => startAgent(stateDir) : undefined);
  journal.state('watchdog', `watchdog ${process.pid} (${kind}) for ${pgdata}`);
  try {
    let goneAt = performance.now();
    while (fs.existsSync(paths.identity)) {
      try {
        beat();
      } catch (error) {
        journal.state('watchdog', `watchdog: ${inWords(error)}`); // then the agent renews no more; the stop goes on
      }
      await stop.look();
      const runs = (await runningServer(pgdata).catch(() => undefined)) !== undefined;
      if (runs) {
        goneAt = performance.now();
        void agent.look(stop);
      }
      const isOver = (stop.ageMs ?? Infinity) > (stop.lease?.ms ?? 0);
      if (kind === 'process' && !runs && isOver && performance.now() - goneAt > GONE_MS) return;
      await sleep(EVERY_MS);
    }
  } finally {
    endBeats(paths.watchdog);
    journal.state('watchdog', `watchdog ${process.pid} ends`);
    lock.release();
  }
}

/** How long a watchdog of another build, or a frozen one, may take to give way, ms. */
const TAKE_OVER_MS = 3000;

/** The lock; undefined where a living watchdog of this build has it. */
async function takeOver(paths: StatePaths, build: string) {
  const deadline = performance.now() + TAKE_OVER_MS;
  for (;;) {
    const lock = await takeNodeLock(paths.watchdogLock, 100);
    if (lock !== undefined) return lock;
    const living = livingWatchdog(paths.watchdog);
    if (living?.build === build || performance.now() > deadline) return undefined;
    // of another build, or without a sign of life: its lock is free as soon as it is dead
    const pid = living?.pid ?? livingWatchdog(paths.watchdog, Infinity)?.pid;
    if (pid !== undefined && isProgram(pid, 'watchdog', paths.dir)) kill(pid);
  }
}

export class AgentCare {
  readonly #paths: StatePaths;
  readonly #journal: Journal;
  readonly #startAgent: (() => void) | undefined;
  #lookedAt = -Infinity;
  #startedAt = -Infinity;
  #looking: Promise<void> | undefined;
  #missed = 0;

  /** @param startAgent  undefined: others do it */
  constructor(paths: StatePaths, journal: Journal, startAgent: (() => void) | undefined) {
    this.#paths = paths;
    this.#journal = journal;
    this.#startAgent = startAgent;
  }

  /**
   * Where the server runs; one look at a time, and the caller does not wait for it: the stop must not be late by an agent that does not answer.
   *
   * @returns the look that is at work; undefined: none is due
   */
  look({ ageMs, lease }: Pick<LeaseStop, 'ageMs' | 'lease'>): Promise<void> | undefined {
    const overdueMs = lease === undefined || ageMs === undefined ? 0 : ageMs - leaseTimes(lease.ms).fast / 2;
    const everyMs = overdueMs > 0 ? 0 : AGENT_EVERY_MS;
    if (this.#looking === undefined && performance.now() - this.#lookedAt >= everyMs) {
      this.#lookedAt = performance.now();
      this.#looking = this.#lookOnce(overdueMs > 0 ? lease : undefined)
        .catch((error: unknown) => this.#journal.state('watchdog', `watchdog: ${inWords(error)}`))
        .finally(() => (this.#looking = undefined));
    }
    return this.#looking;
  }

  /** @param overdue  the lease whose renewal is */
  async #lookOnce(overdue: LeaseStop['lease']): Promise<void> {
    const pid = livingAgent(this.#paths)?.pid;
    if (pid === undefined) {
      this.#missed = 0;
      this.#start();
      return;
    }
    if (overdue === undefined) {
      this.#missed = 0;
      return;
    }
    const limitMs = Math.min(ANSWER_MS, overdue.ms / 12);
    const answered = await Promise.race([
      askAgent({ op: 'status' }, null).then(
        () => true,
        () => false,
      ),
      sleep(limitMs, false),
    ]);
    this.#missed = answered ? 0 : this.#missed + 1;
    if (this.#missed < 2) return;
    this.#missed = 0;
    this.#journal.state(
      'watchdog',
      `watchdog: agent ${pid} answers nothing and the lease is not renewed: it is killed`,
    );
    kill(pid);
    this.#start(); // it gets the lock as soon as the other is dead
  }

  /** One a second at most: a fresh one takes a moment until it says who it is. */
  #start(): void {
    if (performance.now() - this.#startedAt < AGENT_EVERY_MS) return;
    this.#startedAt = performance.now();
    this.#startAgent?.();
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // gone already
  }
}
