/**
 * Push ahead: what waits in archive_status goes to the vault several files at once, is committed in order, and gets its marker, so that
 * the wrapper answers PostgreSQL's one question after the other without starting anything.
 *
 * A request is answered when its file is committed and either nothing else waits or a good number of markers lie ahead: the
 * archiver asks for one file at a time, and a hook started for each of them would be the slowest part (40 ms each, measured).
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { readControl as readControlFile } from '../postgres/pgdata.ts';
import { isReady, listReady, readyOrder } from '../postgres/wal-directory.ts';
import { readControl, type Cluster } from './cluster.ts';
import { COMMIT_BATCH, NotStored, type CommitResult } from './commit.ts';
import { crashPoint } from './crash-points.ts';
import { inWords, type Journal } from './journal.ts';
import { isPassing, type NodeContext } from './node-context.ts';
import { declareIgnored, ignoredHereText, ignoreHere, readIgnored, readLocalWord } from './local-off.ts';
import { listDir, openSpool, vaultIdOf } from './node-state.ts';
import { VaultLane, type Lane } from './push-lane.ts';
import { SpillLane } from './push-spill.ts';
import { isStored, type Handed } from './store-file.ts';
import { Swept } from './tombstones.ts';

/** Markers that lie ahead of PostgreSQL before a request is answered while more waits. */
const AHEAD = 64;
/** Longest that an answer waits for those markers, in ms: it holds up a stop of the server. */
const AHEAD_LIMIT_MS = 5000;
/** How many names one look into archive_status takes. */
const QUEUE = 256;
/** Raw bytes in memory at most, beside one file (1 GiB segments). */
const MEMORY = 256 * 1024 * 1024;
/** How long a refusal stands before the vault is asked again, in ms. */
const REFUSAL_MS = 2000;
/** Between two looks at the vault while its files go elsewhere, in ms. */
const PROBE_MS = 2000;

type Job = {
  name: string;
  path: string;
  state: 'queued' | 'storing' | 'stored' | 'failed';
  stored?: Handed;
  /** What the server's log shall say of it: it was ignored. */
  notice?: string;
  /** failed: why. It is told when the job is the first in the queue: what lies before it still goes. */
  error?: unknown;
  done: Promise<void>;
  resolve(): void;
  reject(error: unknown): void;
};

/** One stay on a lane. What is still under way when the queue has gone over to another is nobody's concern any more. */
type Stay = { lane: Lane; storing: number; committing: boolean };

export class Pusher {
  readonly #context: NodeContext;
  readonly #journal: Journal;
  readonly #jobs = new Map<string, Job>();
  readonly #vault: VaultLane;
  readonly #spill: SpillLane;
  #stay: Stay;
  #batch = COMMIT_BATCH;
  #ahead = 0;
  #paused: { until: number; error: unknown } | undefined;
  #lastError: unknown;
  #lastArchived: string | null = null;
  #scannedAt = -Infinity;
  #sweptAt = -Infinity;
  #tendedAt = -Infinity;
  #declaring: Promise<number> | undefined;
  #finishing = false;
  #stopping = false;

  constructor(context: NodeContext, journal: Journal) {
    this.#context = context;
    this.#journal = journal;
    this.#spill = new SpillLane(context, journal);
    this.#vault = new VaultLane(context, (control) => this.#spill.learn(control));
    this.#stay = { lane: this.#vault, storing: 0, committing: false };
  }

  get lastArchived(): string | null {
    return this.#lastArchived;
  }

  /** Why this node may not write, as last told by the vault; undefined: it may, as far as is known. */
  get refusal(): VaultError | undefined {
    const error = this.#paused?.error;
    return error instanceof VaultError && ['fenced', 'copied', 'refused'].includes(error.code)
      ? error
      : undefined;
  }

  get waiting(): number {
    return this.#jobs.size;
  }

  /**
   * The file is durable and committed when this returns; or it is ignored, and declared lost, since archiving is off.
   *
   * @param file  absolute path
   * @returns a line for the server's log, where it was ignored
   * @throws VaultError  why it is not
   */
  async archive(name: string, file: string): Promise<string | undefined> {
    if (readLocalWord(this.#context.paths) !== undefined) {
      const job = this.#jobs.get(name) ?? this.#add(name, file);
      await this.#ignoreAll();
      // Another look at the same time may have had it in hand, or the vault: whoever took it has said what became of it.
      await job.done;
      return job.notice;
    }
    const deadline = performance.now() + this.#context.settings.archiveTimeout;
    if (this.#paused !== undefined && this.refusal !== undefined && performance.now() < this.#paused.until)
      throw this.#paused.error;
    this.#paused = undefined;
    this.#lastError = undefined;
    const job = this.#jobs.get(name) ?? this.#add(name, file);
    // What waits behind it goes along.
    await this.scan(true).catch(() => {});
    this.#pump();
    await this.#within(job.done, deadline);
    const until = Math.min(deadline, performance.now() + AHEAD_LIMIT_MS);
    this.#ahead = 0;
    while (
      this.#jobs.size > 0 &&
      this.#ahead < AHEAD &&
      !this.#finishing &&
      this.#lastError === undefined &&
      performance.now() < until
    ) {
      await Promise.race([
        sleep(20),
        ...[...this.#jobs.values()].slice(0, 1).map((next) => next.done.catch(() => {})),
      ]);
      if (this.#jobs.size === 0) await this.scan(true).catch(() => {});
    }
    return job.notice;
  }

  /**
   * `archiving off --local`: everything that waits is ignored, written down here, and its marker says so. What is still under way to the
   * vault may land: it is there then, and nothing is declared of it. Several may be under way: each job is taken by one of them.
   */
  async #ignoreAll(): Promise<void> {
    const { pgdata, paths } = this.#context;
    const { segmentSize } = await readControlFile(pgdata);
    const cluster = await Promise.race([this.#context.cluster().catch(() => undefined), sleep(0)]);
    for (const name of await listReady(path.join(pgdata, 'pg_wal'), QUEUE))
      if (!this.#jobs.has(name) && !fs.existsSync(this.#marker(name)))
        this.#add(name, path.join(pgdata, 'pg_wal', name));
    const jobs = this.#ordered();
    if (jobs.length === 0) return;
    const lines = new Map(jobs.map(({ name }) => [name, ignoredHereText(name, cluster ?? undefined)]));
    ignoreHere(paths, [...lines.keys()], segmentSize);
    for (const job of jobs) job.notice = lines.get(job.name)!;
    this.#stay = { lane: this.#vault, storing: 0, committing: false };
    this.#paused = undefined;
    this.#lastError = undefined;
    this.#mark(undefined, jobs);
    for (const job of jobs) {
      this.#jobs.delete(job.name);
      job.resolve();
    }
    this.#journal.state('push', `archiving is off here, by --local: what is ignored is written down`);
    this.#journal.count('ignored', jobs.length);
  }

  /** What was ignored here is declared in the vault before anything else goes there. @throws VaultError */
  async #declareIgnored(cluster: Cluster): Promise<void> {
    const { seat, paths, histories } = this.#context;
    if (readIgnored(paths).length === 0) return;
    const declare = (): Promise<number> => declareIgnored(cluster, seat, paths, histories);
    this.#declaring ??= declare()
      .catch(async (error: unknown) => {
        if (!(error instanceof VaultError && error.code === 'hole') || !this.#spill.isAway) throw error;
        await this.#spill.bringHome(cluster);
        return declare();
      })
      .finally(() => (this.#declaring = undefined));
    const count = await this.#declaring;
    if (count > 0)
      this.#journal.state('ignored', `${count} segment(s) that were ignored here are declared lost`);
  }

  /** With nothing waiting that would ask for it: as soon as the vault answers. */
  #tendIgnored(): void {
    if (performance.now() - this.#tendedAt < PROBE_MS || readIgnored(this.#context.paths).length === 0)
      return;
    this.#tendedAt = performance.now();
    void this.#context
      .cluster()
      .then((cluster) => this.#declareIgnored(cluster))
      .catch((error: unknown) =>
        this.#journal.state('ignored', `what was ignored here cannot be declared: ${inWords(error)}`),
      );
  }

  async #within(work: Promise<void>, deadline: number): Promise<void> {
    const over = new AbortController();
    const late = sleep(Math.max(0, deadline - performance.now()), undefined, { signal: over.signal }).then(
      () => {
        throw (
          this.#lastError ??
          new VaultError(
            'unreachable',
            `the vault did not take the file within ${this.#context.settings.archiveTimeout / 1000} s`,
            {
              hint: 'PostgreSQL keeps the segment and asks again; look at the connection to the vault.',
            },
          )
        );
      },
    );
    late.catch(() => {});
    try {
      await Promise.race([work, late]);
    } finally {
      over.abort();
    }
  }

  /** Takes up what waits in archive_status. @param now  look even where a look was just taken */
  async scan(now = false): Promise<void> {
    if (this.#finishing || this.#stopping) return;
    this.#tendIgnored();
    if (readLocalWord(this.#context.paths) !== undefined) return this.#ignoreAll();
    if (this.#paused !== undefined && performance.now() < this.#paused.until) return;
    this.#paused = undefined;
    if (this.#stay.lane.kind === 'vault') this.#spill.tend();
    if (this.#jobs.size >= QUEUE / 2 || (!now && performance.now() - this.#scannedAt < 1000)) return;
    this.#scannedAt = performance.now();
    const directory = path.join(this.#context.pgdata, 'pg_wal');
    // Beside another archiver that stands still what is in the vault stays ready: it must not fill the look.
    const marked = listDir(this.#context.paths.now).filter((file) => file.endsWith('.ok')).length;
    for (const name of await listReady(directory, QUEUE + marked)) {
      if (this.#jobs.has(name) || this.#jobs.size >= QUEUE || fs.existsSync(this.#marker(name))) continue;
      this.#add(name, path.join(directory, name));
    }
    this.#pump();
    await this.#sweepMarkers(directory);
  }

  /** From now on only what was asked for, or taken up already; no answer waits for markers ahead. */
  finish(): void {
    this.#finishing = true;
  }

  /** Nothing new is begun; what is being committed is waited for. */
  async stop(): Promise<void> {
    this.#stopping = true;
    while (this.#stay.committing) await sleep(10);
  }

  #add(name: string, file: string): Job {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    promise.catch(() => {}); // nobody may be waiting
    const job: Job = { name, path: file, state: 'queued', done: promise, resolve, reject };
    this.#jobs.set(name, job);
    return job;
  }

  #ordered(): Job[] {
    return [...this.#jobs.values()].sort((left, right) => readyOrder(left.name, right.name));
  }

  #pump(): void {
    if (this.#stopping) return;
    const stay = this.#stay;
    void stay.lane.open().then(
      (cluster) => {
        const { uploadParallel } = this.#context.settings;
        const most = Math.max(1, Math.min(uploadParallel, Math.floor(MEMORY / (cluster.segmentSize * 2))));
        for (const job of this.#ordered()) {
          if (stay !== this.#stay || stay.storing >= most) break;
          if (job.state === 'queued') void this.#store(stay, cluster, job);
        }
      },
      (error: unknown) => {
        if (stay !== this.#stay) return;
        const [first] = this.#ordered();
        // another database under this name, a newer format: waiting would only make the hook slow to say so
        if (!isPassing(error) && first !== undefined) this.#refuse(stay, error, first);
        else this.#again(stay, error);
      },
    );
  }

  async #store(stay: Stay, cluster: Cluster, job: Job): Promise<void> {
    stay.storing++;
    job.state = 'storing';
    try {
      const stored = await stay.lane.store(cluster, job);
      if (stay !== this.#stay) return;
      job.stored = stored;
      crashPoint('push-stored');
      job.state = 'stored';
      void this.#commit(stay, cluster);
    } catch (error) {
      const isGone = stay === this.#stay && (await this.#isGone(job, error));
      if (stay !== this.#stay) return;
      if (isGone) return void this.#commit(stay, cluster);
      job.error = error;
      job.state = isPassing(error) ? 'queued' : 'failed';
      if (job.state === 'queued') this.#again(stay, error);
      else void this.#commit(stay, cluster);
    } finally {
      stay.storing--;
      if (stay === this.#stay && this.#lastError === undefined && this.#paused === undefined) this.#pump();
    }
  }

  /**
   * Two looks at once: one lists a file, PostgreSQL has its answer by the marker, the other look sweeps that away, and the first queues what
   * is archived. By the time that its turn comes it may be recycled: that is no failure of those that wait behind it.
   */
  async #isGone(job: Job, error: unknown): Promise<boolean> {
    if (!(error instanceof VaultError && error.code === 'pgdata')) return false;
    const directory = path.join(this.#context.pgdata, 'pg_wal');
    if (await isReady(directory, job.name).catch(() => true)) return false;
    if (this.#jobs.get(job.name) === job) this.#jobs.delete(job.name);
    job.reject(error);
    return true;
  }

  /** Commits what is stored at the front of the queue, as one transaction, until something there is not stored yet. */
  async #commit(stay: Stay, cluster: Cluster): Promise<void> {
    if (stay.committing) return;
    stay.committing = true;
    try {
      while (stay === this.#stay) {
        const front: Job[] = [];
        const [first] = this.#ordered();
        if (first?.state === 'failed') return this.#refuse(stay, first.error, first);
        for (const job of this.#ordered()) {
          if (job.state !== 'stored' || front.length >= this.#batch) break;
          front.push(job);
        }
        if (front.length === 0 || this.#stopping) return;
        await this.#commitBatch(stay, cluster, front);
      }
    } finally {
      stay.committing = false;
    }
  }

  async #commitBatch(stay: Stay, cluster: Cluster, front: Job[]): Promise<void> {
    const { lane } = stay;
    const files = front
      .map((job) => job.stored)
      .filter((stored) => stored !== 'same' && stored !== undefined);
    let results: CommitResult[] = [];
    try {
      if (lane.kind === 'vault') await this.#declareIgnored(cluster);
      if (files.length > 0) results = await lane.commit(cluster, files);
    } catch (error) {
      if (stay !== this.#stay || (lane.kind === 'vault' && (await this.#wasSpilled(cluster, stay, error))))
        return;
      if (error instanceof Swept) for (const job of front) storeAgain(job, error);
      if (error instanceof NotStored) {
        for (const job of front) if (error.names.has(job.name)) queueAgain(job);
        return this.#pump();
      }
      if (isPassing(error)) {
        this.#again(stay, error);
        await sleep(300);
      } else if (front.length > 1) {
        this.#batch = 1; // find the one that is refused; those before it still go
      } else {
        this.#refuse(stay, error, front[0]!);
        this.#batch = COMMIT_BATCH;
      }
      return;
    }
    if (stay !== this.#stay) return;
    if (this.#batch === 1 && files.length > 0) this.#batch = COMMIT_BATCH;
    crashPoint('push-committed');
    this.#lastError = undefined;
    this.#done(stay, cluster, front, results);
  }

  /** Only what has an answer: of a batch whose later files are refused the earlier ones are committed, and no other. */
  #done(stay: Stay, cluster: Cluster, front: readonly Job[], results: readonly CommitResult[]): void {
    let answered = 0;
    const upTo = front.findIndex((job) => job.stored !== 'same' && ++answered > results.length);
    const done = upTo === -1 ? front : front.slice(0, upTo);
    const { url } = cluster.vault;
    const isHome = stay.lane.kind === 'vault';
    if (isHome) this.#spill.answered();
    this.#journal.state(
      'push',
      isHome ? `archiving to ${url}` : `the vault is out of reach: spilling into ${url}`,
    );
    const notices = new Map(results.map(({ name, notice }) => [name, notice]));
    for (const job of done) {
      const notice = notices.get(job.name);
      if (notice !== undefined) job.notice = notice;
    }
    this.#mark(isHome ? cluster : undefined, done);
    crashPoint('push-marked');
    for (const { why, notice } of results)
      if (why !== undefined || notice !== undefined) this.#journal.state('ignored', why ?? notice ?? '');
    for (const job of done) {
      this.#jobs.delete(job.name);
      this.#ahead++;
      job.resolve();
    }
    this.#lastArchived = done.at(-1)?.name ?? this.#lastArchived;
    this.#journal.count(isHome ? 'archived' : 'spilled', done.length);
  }

  #marker(name: string): string {
    return path.join(this.#context.paths.now, `${name}.ok`);
  }

  /**
   * Only after the commit; they only save a question, so they are not flushed, and a failure to write one is no failure.
   *
   * @param cluster  undefined: not in the node's own vault, whose spool stays as it is
   */
  #mark(cluster: Cluster | undefined, jobs: readonly Job[]): void {
    try {
      const epoch = this.#context.seat.store.read()?.epoch ?? 0;
      if (cluster !== undefined)
        openSpool(this.#context.paths, vaultIdOf(cluster.vault.url, cluster.partition), epoch);
      for (const { name, notice } of jobs) this.#writeMarker(name, notice);
    } catch (error) {
      this.#journal.state('marker', `markers cannot be written: ${inWords(error)}`);
    }
  }

  /** An ignored file's marker has the line that the wrapper shall say: all of it or no marker, since that one may be looking. */
  #writeMarker(name: string, notice: string | undefined): void {
    const marker = this.#marker(name);
    const beside = notice === undefined ? marker : `${marker}.${process.pid}.tmp`;
    fs.writeFileSync(beside, notice === undefined ? '' : `${notice}\n`, { mode: 0o600 });
    if (beside !== marker) fs.renameSync(beside, marker);
  }

  async #sweepMarkers(directory: string): Promise<void> {
    if (performance.now() - this.#sweptAt < 10_000) return;
    this.#sweptAt = performance.now();
    for (const file of listDir(this.#context.paths.now)) {
      if (!file.endsWith('.ok') || (await isReady(directory, file.slice(0, -3)))) continue;
      fs.rmSync(path.join(this.#context.paths.now, file), { force: true });
    }
  }

  /**
   * The vault does not answer: everything stays queued, and is tried again within the second. For too long: it goes where spills go. No
   * answer from there: back to the vault.
   */
  #again(stay: Stay, error: unknown): void {
    if (stay !== this.#stay) return;
    if (stay.lane.kind === 'spill') return this.#giveUp(error);
    const isDue = this.#spillIsDue();
    const first = this.#lastError === undefined;
    this.#lastError = error;
    this.#journal.state('push', `archiving waits: ${inWords(error)}`);
    if (isDue) return this.#turn(this.#spill);
    if (!first) return;
    void (async () => {
      while (this.#jobs.size > 0 && !this.#stopping && this.#lastError !== undefined && stay === this.#stay) {
        await sleep(500);
        if (stay === this.#stay && this.#lastError !== undefined && this.#spillIsDue())
          return this.#turn(this.#spill);
        this.#pump();
        const cluster = await this.#context.cluster().catch(() => undefined);
        if (cluster) void this.#commit(stay, cluster);
      }
    })();
  }

  /** What was ignored here comes before everything else, and no spill can say that of a segment. */
  #spillIsDue(): boolean {
    try {
      return this.#spill.failed() && readIgnored(this.#context.paths).length === 0;
    } catch (error) {
      // asked where nobody awaits: thrown there it would end the agent
      this.#journal.state('spill', `nothing can be spilled: ${inWords(error)}`);
      return false;
    }
  }

  /** Everything that waits goes to the other lane; what is under way on this one may land and is the same there. */
  #turn(lane: Lane): void {
    if (this.#stopping) return;
    this.#stay = { lane, storing: 0, committing: false };
    this.#batch = COMMIT_BATCH;
    this.#lastError = undefined;
    for (const job of this.#jobs.values()) {
      job.state = 'queued';
      delete job.stored;
    }
    if (lane.kind === 'spill') void this.#watchVault(this.#stay);
    this.#pump();
  }

  /** Nothing can be spilled: the vault is all there is, and its own error is what those who wait are told. */
  #giveUp(error: unknown): void {
    this.#spill.postpone(error);
    this.#turn(this.#vault);
  }

  /** While files go elsewhere: as soon as the vault answers it takes home what was spilled, and then the rest goes there again. */
  async #watchVault(stay: Stay): Promise<void> {
    while (stay === this.#stay && !this.#stopping) {
      await sleep(PROBE_MS);
      try {
        const cluster = await this.#context.cluster();
        this.#spill.learn(await readControl(cluster));
        if ((await this.#spill.bringHome(cluster)) > 0) this.#spill.answered();
      } catch (error) {
        if (isPassing(error)) continue;
        this.#journal.state('spill', `what was spilled does not come home: ${inWords(error)}`);
      }
      if (stay === this.#stay) this.#turn(this.#vault);
    }
  }

  /** The vault misses what came before: it may lie among the spills. @returns true: it came home, or may come; the file is tried again */
  async #wasSpilled(cluster: Cluster, stay: Stay, error: unknown): Promise<boolean> {
    if (!(error instanceof VaultError && error.code === 'hole')) return false;
    try {
      return (await this.#spill.bringHome(cluster)) > 0;
    } catch (why) {
      if (!isPassing(why) || !this.#spill.isAway) return false;
      if (stay === this.#stay) this.#lastError = why;
      this.#journal.state('push', `archiving waits for what was spilled: ${inWords(why)}`);
      await sleep(500);
      return true;
    }
  }

  /** What no repetition cures: everybody who waits is told, and the vault is asked again only after a while, or by the next request. */
  #refuse(stay: Stay, error: unknown, job: Job): void {
    if (stay.lane.kind === 'spill') return this.#giveUp(error);
    this.#spill.answered();
    this.#paused = { until: performance.now() + REFUSAL_MS, error };
    this.#journal.state('push', `archiving is refused at ${job.name}: ${inWords(error)}`);
    const all = [...this.#jobs.values()];
    this.#jobs.clear();
    for (const each of all) each.reject(error);
  }
}

/** What waited for so long that the vault took it for an orphan. */
function storeAgain(job: Job, { keys }: Swept): void {
  const { stored } = job;
  if (stored === undefined || stored === 'same' || !isStored(stored) || !keys.has(stored.key)) return;
  queueAgain(job);
}

function queueAgain(job: Job): void {
  delete job.stored;
  job.state = 'queued';
}
