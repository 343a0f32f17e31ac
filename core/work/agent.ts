/**
 * The agent: one long-lived process per server. On a primary it pushes ahead, on a standby it follows, prefetches and promotes. Which of
 * the two it does follows from the server itself: signal files and pg_control.
 *
 * Correctness never depends on it: a hook that finds none does its one file by itself.
 */
import fs from 'node:fs';
import type net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { readControl as readControlFile, runningServer } from '../postgres/pgdata.ts';
import { recoveryMode } from '../postgres/signal-files.ts';
import { serverProcesses, stopServer } from '../postgres/server.ts';
import { renewalLimit } from '../cluster/lease.ts';
import { historyName } from '../wal/name.ts';
import {
  answerOf,
  askAgent,
  buildId,
  listenForRequests,
  type AgentAnswer,
  type AgentRequest,
} from './agent-socket.ts';
import { ExternalRoles } from './external.ts';
import { Follower } from './follow.ts';
import { guardPromotion } from './guard.ts';
import { inWords, Journal } from './journal.ts';
import { passGate } from './gate.ts';
import { LeaseKeeper } from './lease.ts';
import { LeaseStop } from './lease-stop.ts';
import { releaseLease } from './old-lease.ts';
import { openNode, type NodeContext } from './node-context.ts';
import { takeNodeLock, type NodeLock } from './node-lock.ts';
import { isWaitNode, readSeal, replaceDurably, statePaths, type Seal } from './node-state.ts';
import { restoreConnections } from './refuse-connections.ts';
import { askServer, hasTaken, openSealed, Promoter, type OpenOutcome } from './promote.ts';
import { Pusher } from './push.ts';
import { answerRestore, sealedView, viewOf, type RestoreSource } from './restore-request.ts';
import { NodeReporter, type Role } from './node-report.ts';
import { RoleWatch } from './role-watch.ts';
import { Spool } from './spool.ts';
import { Sweeper } from './sweep.ts';

/** How long the server may be gone before its agent ends, in ms; hooks start it while the postmaster is still coming up. */
const GONE_MS = 3000;
const FIRST_GONE_MS = 15_000;
/** How long a new agent waits for the one that holds the lock to end, in ms. */
const TAKE_OVER_MS = 5000;
/**
 * How long one that was asked to end works on what hooks wait for, in ms: a hook that hears nothing fails, and that counts with PostgreSQL.
 * Less than the next agent waits for the lock.
 */
const IN_HAND_MS = 3000;

/**
 * Runs until the server is gone, another version takes over, or the lock is another's (then at once, quietly).
 *
 * @param stateDir  absolute; the process works in it from here on
 * @param version  of the program, for the node's row
 */
export async function runAgent(stateDir: string, version: string): Promise<void> {
  process.chdir(stateDir);
  const lock = await takeOver();
  if (lock === undefined) return;
  const agent = new Agent(openNode(stateDir), version);
  try {
    await agent.run();
  } finally {
    lock.release();
  }
}

/**
 * The node's lock; undefined where an agent of this very version has it and answers: several hooks may have started one at once, and those
 * who came late must not wait behind it to live on after the server. One of another version ends by being asked.
 */
async function takeOver(): Promise<NodeLock | undefined> {
  const build = buildId();
  const deadline = performance.now() + TAKE_OVER_MS;
  for (;;) {
    const lock = await takeNodeLock(statePaths('.').lock);
    if (lock !== undefined) return lock;
    const answer = await askAgent({ op: 'status' }, build).catch(() => undefined);
    if (answer?.ok === true || performance.now() > deadline) return undefined;
    await sleep(20);
  }
}

class Agent {
  readonly #context: NodeContext;
  readonly #journal: Journal;
  readonly #version: string;
  readonly #build = buildId();
  readonly #startedAt = new Date();
  readonly #pusher: Pusher;
  readonly #spool: Spool;
  readonly #follower: Follower;
  readonly #promoter: Promoter;
  readonly #roles: RoleWatch;
  readonly #sweeper: Sweeper;
  readonly #external: ExternalRoles;
  readonly #reporter: NodeReporter;
  readonly #lease: LeaseKeeper;
  readonly #leaseStop: LeaseStop;
  #role: Role = 'follow';
  #finish = false;
  /** Asked to end, rather than its server gone: somebody waits for it. */
  #asked = false;
  /** Answers that hooks wait for. */
  readonly #inHand = new Set<Promise<AgentAnswer>>();
  #switchDue = false;
  #released = false;
  #opening: Promise<OpenOutcome> | undefined;
  #lookedAt = -Infinity;
  #wake: (() => void) | undefined;

  constructor(context: NodeContext, version: string) {
    this.#context = context;
    this.#version = version;
    this.#journal = new Journal(context.paths);
    this.#spool = new Spool(context.paths);
    this.#pusher = new Pusher(context, this.#journal);
    this.#follower = new Follower(context, this.#journal, this.#spool);
    this.#promoter = new Promoter(context, this.#journal, this.#spool, this.#follower);
    this.#roles = new RoleWatch(context, this.#journal);
    this.#sweeper = new Sweeper(context, this.#journal);
    this.#external = new ExternalRoles(context, this.#journal, () => this.#isPrimary());
    this.#lease = new LeaseKeeper(context);
    this.#leaseStop = new LeaseStop(context.pgdata, context.paths, this.#journal, 'agent');
    this.#reporter = new NodeReporter(
      ...([context, this.#journal, version, this.#follower, this.#pusher, this.#external] as const),
      this.#lease,
    );
  }

  async run(): Promise<void> {
    const server = await listenForRequests((request) => this.#take(request));
    const about = { pid: process.pid, version: this.#version, startedAt: this.#startedAt.toISOString() };
    replaceDurably(this.#context.paths.agent, `${JSON.stringify(about)}\n`);
    this.#journal.state(
      'agent',
      `agent ${process.pid} of ${this.#context.node} (walvault ${this.#version}) for ${this.#context.pgdata}`,
    );
    process.on('SIGTERM', () => this.#end());
    process.on('SIGINT', () => this.#end());
    await this.#guard();
    await this.#look(); // what this server is must be known before the first report
    const watcher = this.#watch();
    const beats = this.#reporter.beat(
      () => this.#finish,
      () => this.#role,
    );
    const looks = setInterval(() => {
      this.#roles.look();
      void this.#leaseStop.look(); // a lease that was taken back runs until the vault has heard of it
      if (this.#role === 'push') this.#sweeper.look();
    }, 500);
    try {
      await this.#loop();
    } finally {
      this.#finish = true;
      clearInterval(looks);
      if (!this.#asked) await this.#roles.settle();
      watcher?.close();
      await this.#leave(server);
      await Promise.race([beats, sleep(500)]);
      this.#journal.state('agent', `agent ${process.pid} ends`);
    }
  }

  #end(): void {
    this.#finish = true;
    this.#asked = true;
    this.#wake?.();
  }

  async #leave(server: net.Server): Promise<void> {
    // nobody new finds it; who has found it is heard
    fs.rmSync(this.#context.paths.socket, { force: true });
    this.#pusher.finish();
    if (this.#asked) await this.#finishInHand();
    server.close();
    await this.#pusher.stop();
    this.#follower.words.clear(); // nobody refills them now: better asked than told what may no longer be true
    await Promise.race([this.#context.close(), sleep(1000)]);
  }

  async #finishInHand(): Promise<void> {
    const { terms } = this.#lease; // which nobody renews meanwhile
    const limit = terms === undefined ? IN_HAND_MS : Math.min(IN_HAND_MS, renewalLimit(terms.ms));
    const until = performance.now() + limit;
    await sleep(0);
    while (this.#inHand.size > 0 && performance.now() < until)
      await Promise.race([Promise.allSettled(this.#inHand), sleep(until - performance.now())]);
  }

  /** Before a start: where systemd starts the agent ahead of the server. */
  async #guard(): Promise<void> {
    if ((await runningServer(this.#context.pgdata)) !== undefined) return;
    const done = await guardPromotion(this.#context.pgdata, this.#context.stateDir).catch(() => undefined);
    if (done?.repaired === true) this.#journal.state('guard', `half-done promotion undone: ${done.why}`);
  }

  /** A new .ready file wakes the loop; the poll finds what the watch misses. */
  #watch(): fs.FSWatcher | undefined {
    try {
      const watcher = fs.watch(
        `${this.#context.pgdata}/pg_wal/archive_status`,
        { persistent: false },
        (_, name) => {
          if (this.#role === 'push' && name?.endsWith('.ready') === true) this.#wake?.();
        },
      );
      watcher.on('error', () => watcher.close());
      return watcher;
    } catch {
      return undefined;
    }
  }

  async #loop(): Promise<void> {
    let gone = performance.now();
    let limit = FIRST_GONE_MS;
    while (!this.#finish) {
      if (performance.now() - this.#lookedAt > 500) {
        this.#lookedAt = performance.now();
        if ((await runningServer(this.#context.pgdata).catch(() => undefined)) !== undefined)
          [gone, limit, this.#released] = [performance.now(), GONE_MS, false];
        else if (await this.#isGone(performance.now() - gone > limit)) return;
        if (!this.#isHome()) return;
        await this.#endKilledFlush();
        await this.#look();
      }
      const started = performance.now();
      try {
        if (this.#role === 'push') await this.#push();
        // In wait mode the restore command follows and promotes by itself: two that seal would not know what the other gave.
        else if (this.#role === 'follow') await this.#follow();
      } catch (error) {
        this.#journal.state('vault', inWords(error));
      }
      const interval = this.#role === 'follow' ? this.#follower.interval : 1000;
      await this.#rest(Math.max(5, interval - (performance.now() - started)));
    }
  }

  /** Its server is down. With a lease somebody may be waiting for just that word. */
  async #isGone(isOver: boolean): Promise<boolean> {
    if (
      this.#lease.terms === undefined ||
      this.#released ||
      (await serverProcesses(this.#context.pgdata)).length > 0
    )
      return isOver;
    try {
      this.#released = await releaseLease(await this.#context.cluster(), this.#context.node);
      if (this.#released)
        this.#journal.state(
          'lease',
          'the server is stopped: the lease of the epoch that is over is released',
        );
    } catch (error) {
      this.#journal.state('lease', `release: ${inWords(error)}`);
    }
    return isOver;
  }

  /** A flush that was killed may have left the server refusing everybody. */
  async #endKilledFlush(): Promise<void> {
    try {
      if (await restoreConnections(this.#context.stateDir))
        this.#journal.state('flush', 'a flush was killed: connections are let in again');
    } catch (error) {
      this.#journal.state('flush', `a killed flush cannot be undone: ${inWords(error)}`);
    }
  }

  /** False where the state directory was removed, or made anew: another agent works in the new one. */
  #isHome(): boolean {
    const there = fs.statSync(this.#context.stateDir, { throwIfNoEntry: false });
    return there !== undefined && there.ino === fs.statSync('.').ino;
  }

  async #rest(ms: number): Promise<void> {
    const over = new AbortController();
    this.#wake = () => over.abort();
    await sleep(ms, undefined, { signal: over.signal }).catch(() => {});
    this.#wake = undefined;
  }

  async #look(): Promise<void> {
    const { pgdata } = this.#context;
    try {
      const mode = await recoveryMode(pgdata);
      const { state } = await readControlFile(pgdata);
      const recovers = mode !== 'none' || state === 5 || state === 2;
      const waits = mode === 'archive' && isWaitNode(this.#context.paths);
      const role: Role = waits ? 'wait' : recovers ? 'follow' : 'push';
      if (role === this.#role) return;
      this.#role = role;
      if (role !== 'follow') this.#follower.words.clear();
      this.#follower.forget();
    } catch {
      // pg_control half written, or the disk gone: as it was
    }
  }

  async #push(): Promise<void> {
    const seal = readSeal(this.#context.paths);
    if (seal !== undefined) await this.#openLate(seal);
    await this.#external.look();
    await this.#pusher.scan(this.#pusher.waiting === 0);
    if (this.#switchDue) await this.#switch();
  }

  /** `recovered` did not get through: the server is open, the vault has not been told. */
  async #openLate(seal: Seal): Promise<void> {
    if (!(await hasTaken(this.#context.pgdata, seal.reserved))) {
      this.#reporter.trouble = `opened another timeline than ${seal.reserved}, which was reserved for it: run 'walvault claim' here if it shall be the primary`;
      this.#journal.state('promotion', this.#reporter.trouble);
      return;
    }
    const outcome = await this.#open(0);
    if (outcome.done === 'gate') {
      this.#reporter.trouble = `open, but ${outcome.why}`;
      this.#journal.state('promotion', this.#reporter.trouble);
      if (this.#context.settings.onFenced === 'stop') await stopServer(this.#context.pgdata, 'fast');
    } else if (outcome.done === 'unconfirmed')
      this.#reporter.trouble = `opened without the vault's word: ${outcome.why}`;
  }

  /** Followers get the new timeline's first segment at once, not when it is full. */
  async #switch(): Promise<void> {
    const rows = await askServer<{ recovering: boolean }>(
      this.#context,
      'select pg_is_in_recovery() as recovering',
    ).catch(() => []);
    if (rows[0]?.recovering !== false) {
      setTimeout(() => this.#wake?.(), 50);
      return;
    }
    await askServer(this.#context, 'select pg_switch_wal()');
    this.#switchDue = false;
  }

  async #follow(): Promise<void> {
    const seal = readSeal(this.#context.paths);
    const standing = seal === undefined ? 'over' : await this.#promoter.standing(seal);
    if (seal !== undefined && standing === 'stands') return this.#promoter.pursue(seal);
    if (standing === 'gate') return;
    const branch = await this.#follower.poll();
    await this.#promoter.step(branch);
  }

  #open(limitMs: number): Promise<OpenOutcome> {
    this.#opening ??= openSealed(this.#context, this.#journal, limitMs, this.#lease).finally(() => {
      this.#opening = undefined;
    });
    return this.#opening.then((outcome) => {
      if (outcome.done === 'opened') this.#isPrimary();
      return outcome;
    });
  }

  /** The vault has just taken this node's timeline for the live one. */
  #isPrimary(): void {
    this.#switchDue = true;
    this.#reporter.trouble = null;
    this.#lookedAt = -Infinity;
    this.#roles.expect();
    this.#wake?.();
  }

  #take(request: AgentRequest & { build: string | null }): Promise<AgentAnswer> {
    const answer = this.#handle(request);
    this.#inHand.add(answer);
    const answered = (): boolean => this.#inHand.delete(answer);
    void answer.then(answered, answered); // a failure is the caller's
    return answer;
  }

  async #handle(request: AgentRequest & { build: string | null }): Promise<AgentAnswer> {
    if (request.build !== null && request.build !== this.#build) {
      this.#journal.state('agent', 'another version is installed: this agent ends');
      this.#end();
      return { ok: false, code: 'version', message: `the agent is of another version (${this.#version})` };
    }
    try {
      switch (request.op) {
        case 'archive':
          return await this.#archive(request.name, request.path);
        case 'restore':
          return await this.#restore(request);
        case 'recovered':
          return await this.#recovered();
        case 'finish':
          this.#end();
          return { ok: true };
        case 'status':
          return {
            ok: true,
            status: {
              role: this.#role,
              node: this.#context.node,
              pid: process.pid,
              waiting: this.#pusher.waiting,
            },
          };
      }
    } catch (error) {
      return answerOf(error);
    }
  }

  async #archive(name: string, file: string): Promise<AgentAnswer> {
    const seal = readSeal(this.#context.paths);
    if (
      seal !== undefined &&
      name === historyName(seal.reserved) &&
      (await hasTaken(this.#context.pgdata, seal.reserved))
    ) {
      await this.#open(this.#context.settings.archiveTimeout);
    }
    // Before it is refused: three refusals cost PostgreSQL's archiver a pause of a minute.
    await this.#external.look();
    const note = await this.#pusher.archive(name, file);
    return { ok: true, ...(note === undefined ? {} : { note }) };
  }

  async #restore(request: AgentRequest & { op: 'restore' }): Promise<AgentAnswer> {
    const { name } = request;
    const seal = readSeal(this.#context.paths);
    if (seal === undefined) {
      const cluster = await Promise.race([this.#context.cluster().catch(() => undefined), sleep(0)]);
      if (cluster) {
        this.#follower.note(name, cluster);
        this.#spool.open(cluster, (this.#follower.branch ?? (await this.#follower.read(cluster))).head.epoch);
      } else this.#follower.asked.add(name);
    }
    const source: RestoreSource = {
      view: async () => {
        if (seal !== undefined) return sealedView(seal, seal.segmentSize);
        const cluster = await this.#context.cluster();
        const branch = await this.#follower.read(cluster);
        const view = viewOf(cluster, branch, this.#context.node);
        // The own fast trigger: nothing is given any more, until the seal says what may be.
        const { promotion } = branch.head;
        const frozen =
          promotion?.node === this.#context.node && promotion.state !== 'open' && promotion.mode === 'fast';
        if (view.held && request.mode === 'standby') this.#follower.hold(name);
        return { ...view, held: view.held || frozen };
      },
      ready: (file) => this.#spool.has(file),
      fetch: (cluster, row) => this.#spool.fetch(cluster, row),
      put: (file, text) => this.#spool.put(file, text),
    };
    const answer = await answerRestore(this.#context, source, request);
    if (answer === 'absent') return { ok: true, absent: true };
    this.#promoter.lastGiven = name.length === 24 ? name : this.#promoter.lastGiven;
    this.#wake?.();
    // With a seal PostgreSQL asks for the same file up to four times; histories are asked for again and again.
    return {
      ok: true,
      file: this.#spool.file(name),
      how: seal !== undefined || name.endsWith('.history') ? 'copy' : 'rename',
    };
  }

  async #recovered(): Promise<AgentAnswer> {
    const limit = this.#context.settings.openMaxWait;
    const late = sleep(limit).then((): OpenOutcome => ({
      done: 'unconfirmed',
      why: `the vault did not answer for ${limit / 1000} s`,
    }));
    const opening = Promise.race([this.#open(limit), late]);
    const outcome = await passGate(this.#context, this.#lease.terms, opening);
    if (outcome.done === 'gate')
      return { ok: false, code: 'fenced', message: `this server must not open: ${outcome.why}`, gate: true };
    if (outcome.done !== 'unconfirmed') return { ok: true };
    this.#reporter.trouble = `opened without the vault's word: ${outcome.why}`;
    return { ok: true, note: `opening unconfirmed: ${outcome.why}` };
  }
}
