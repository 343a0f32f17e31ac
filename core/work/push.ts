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
import { decideWriter } from '../cluster/decide-archive.ts';
import { keys } from '../cluster/facts.ts';
import { parseWalName } from '../wal/name.ts';
import { isReady, listReady, readyOrder } from '../postgres/wal-directory.ts';
import { readHead, readControl, type Cluster } from './cluster.ts';
import { COMMIT_BATCH, commitFiles, type CommitResult } from './commit.ts';
import { inTurn, settle, writerOf } from './writer.ts';
import { crashPoint } from './crash-points.ts';
import { inWords, isPassing, type Journal, type NodeContext } from './node-context.ts';
import { listDir, openSpool, vaultIdOf } from './node-state.ts';
import { storeFile, type StoredFile } from './store-file.ts';

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

type Job = {
  name: string;
  path: string;
  state: 'queued' | 'storing' | 'stored' | 'failed';
  stored?: StoredFile | 'same';
  /** failed: why. It is told when the job is the first in the queue: what lies before it still goes. */
  error?: unknown;
  done: Promise<void>;
  resolve(): void;
  reject(error: unknown): void;
};

export class Pusher {
  readonly #context: NodeContext;
  readonly #journal: Journal;
  readonly #jobs = new Map<string, Job>();
  #storing = 0;
  #committing = false;
  #batch = COMMIT_BATCH;
  #ahead = 0;
  #paused: { until: number; error: unknown } | undefined;
  #lastError: unknown;
  #lastArchived: string | null = null;
  #scannedAt = 0;
  #checkedAt = 0;
  #fence: ReturnType<typeof decideWriter>;
  #sweptAt = 0;
  #stopping = false;

  constructor(context: NodeContext, journal: Journal) {
    this.#context = context;
    this.#journal = journal;
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
   * The file is durable and committed when this returns.
   *
   * @param file  absolute path
   * @throws VaultError  why it is not
   */
  async archive(name: string, file: string): Promise<void> {
    const deadline = Date.now() + this.#context.settings.archiveTimeout;
    if (this.#paused !== undefined && this.refusal !== undefined && Date.now() < this.#paused.until)
      throw this.#paused.error;
    this.#paused = undefined;
    this.#lastError = undefined;
    const job = this.#jobs.get(name) ?? this.#add(name, file);
    // What waits behind it goes along.
    await this.scan(true).catch(() => {});
    this.#pump();
    await this.#within(job.done, deadline);
    const until = Math.min(deadline, Date.now() + AHEAD_LIMIT_MS);
    this.#ahead = 0;
    while (
      this.#jobs.size > 0 &&
      this.#ahead < AHEAD &&
      this.#lastError === undefined &&
      Date.now() < until
    ) {
      await Promise.race([
        sleep(20),
        ...[...this.#jobs.values()].slice(0, 1).map((next) => next.done.catch(() => {})),
      ]);
      if (this.#jobs.size === 0) await this.scan(true).catch(() => {});
    }
  }

  async #within(work: Promise<void>, deadline: number): Promise<void> {
    const over = new AbortController();
    const late = sleep(Math.max(0, deadline - Date.now()), undefined, { signal: over.signal }).then(() => {
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
    });
    late.catch(() => {});
    try {
      await Promise.race([work, late]);
    } finally {
      over.abort();
    }
  }

  /** Takes up what waits in archive_status. @param now  look even where a look was just taken */
  async scan(now = false): Promise<void> {
    if (this.#stopping || (this.#paused !== undefined && Date.now() < this.#paused.until)) return;
    this.#paused = undefined;
    if (this.#jobs.size >= QUEUE / 2 || (!now && Date.now() - this.#scannedAt < 1000)) return;
    this.#scannedAt = Date.now();
    const directory = path.join(this.#context.pgdata, 'pg_wal');
    for (const name of await listReady(directory, QUEUE)) {
      if (this.#jobs.has(name) || this.#jobs.size >= QUEUE || fs.existsSync(this.#marker(name))) continue;
      this.#add(name, path.join(directory, name));
    }
    this.#pump();
    await this.#sweepMarkers(directory);
  }

  /** Nothing new is begun; what is being committed is waited for. */
  async stop(): Promise<void> {
    this.#stopping = true;
    while (this.#committing) await sleep(10);
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
    void this.#context.cluster().then(
      (cluster) => {
        const { uploadParallel } = this.#context.settings;
        const most = Math.max(1, Math.min(uploadParallel, Math.floor(MEMORY / (cluster.segmentSize * 2))));
        for (const job of this.#ordered()) {
          if (this.#storing >= most) break;
          if (job.state === 'queued') void this.#store(cluster, job);
        }
      },
      (error: unknown) => this.#again(error),
    );
  }

  async #store(cluster: Cluster, job: Job): Promise<void> {
    this.#storing++;
    job.state = 'storing';
    try {
      const bytes = await readWhole(job.path);
      await this.#checkWriter(cluster, job.name);
      const epoch = this.#context.seat.store.read()?.epoch ?? 0;
      const { zstdLevel } = this.#context.settings;
      job.stored = await storeFile(
        cluster,
        { ...this.#context.seat, epoch },
        { name: job.name, bytes },
        zstdLevel,
      );
      crashPoint('push-stored');
      job.state = 'stored';
      void this.#commit(cluster);
    } catch (error) {
      job.error = error;
      job.state = isPassing(error) ? 'queued' : 'failed';
      if (job.state === 'queued') this.#again(error);
      else void this.#commit(cluster);
    } finally {
      this.#storing--;
      if (this.#lastError === undefined && this.#paused === undefined) this.#pump();
    }
  }

  /**
   * Before bytes are put: a node that may not write would leave an object behind at each attempt. What the vault holds already is
   * fine for anybody, so only names without a row are refused here; the commit decides again, by condition.
   */
  async #checkWriter(cluster: Cluster, name: string): Promise<void> {
    if (Date.now() - this.#checkedAt >= 1000) {
      const { seat } = this.#context;
      this.#fence = await inTurn(seat, async () => {
        const [control, head] = await Promise.all([readControl(cluster), readHead(cluster)]);
        const state = settle(seat.store.read() ?? { epoch: 0, nonce: '', next: null }, head);
        return decideWriter(control, head, writerOf(seat, state));
      });
      this.#checkedAt = this.#fence === undefined ? Date.now() : 0;
    }
    if (this.#fence === undefined || (await isHeld(cluster, name))) return;
    throw new VaultError(this.#fence.code, this.#fence.message, { hint: this.#fence.hint });
  }

  /** Commits what is stored at the front of the queue, as one transaction, until something there is not stored yet. */
  async #commit(cluster: Cluster): Promise<void> {
    if (this.#committing) return;
    this.#committing = true;
    try {
      for (;;) {
        const front: Job[] = [];
        const [first] = this.#ordered();
        if (first?.state === 'failed') return this.#refuse(first.error, first);
        for (const job of this.#ordered()) {
          if (job.state !== 'stored' || front.length >= this.#batch) break;
          front.push(job);
        }
        if (front.length === 0 || this.#stopping) return;
        await this.#commitBatch(cluster, front);
      }
    } finally {
      this.#committing = false;
    }
  }

  async #commitBatch(cluster: Cluster, front: Job[]): Promise<void> {
    const files = front
      .map((job) => job.stored)
      .filter((stored): stored is StoredFile => stored !== 'same' && stored !== undefined);
    let results: CommitResult[] = [];
    try {
      if (files.length > 0)
        results = await commitFiles(cluster, this.#context.seat, files, this.#context.histories);
    } catch (error) {
      if (isPassing(error)) {
        this.#again(error);
        await sleep(300);
      } else if (front.length > 1) {
        this.#batch = 1; // find the one that is refused; those before it still go
      } else {
        this.#refuse(error, front[0]!);
        this.#batch = COMMIT_BATCH;
      }
      return;
    }
    if (this.#batch === 1 && files.length > 0) this.#batch = COMMIT_BATCH;
    crashPoint('push-committed');
    this.#lastError = undefined;
    this.#journal.state('push', `archiving to ${cluster.vault.url}`);
    this.#mark(cluster, front);
    crashPoint('push-marked');
    for (const { why } of results) if (why !== undefined) this.#journal.state('ignored', why);
    for (const job of front) {
      this.#jobs.delete(job.name);
      this.#ahead++;
      job.resolve();
    }
    this.#lastArchived = front.at(-1)?.name ?? this.#lastArchived;
    this.#journal.count('archived', front.length);
  }

  #marker(name: string): string {
    return path.join(this.#context.paths.now, `${name}.ok`);
  }

  /** Only after the commit; they only save a question, so they are not flushed, and a failure to write one is no failure. */
  #mark(cluster: Cluster, jobs: readonly Job[]): void {
    try {
      const epoch = this.#context.seat.store.read()?.epoch ?? 0;
      openSpool(this.#context.paths, vaultIdOf(cluster.vault.url, cluster.partition), epoch);
      for (const { name } of jobs) fs.writeFileSync(this.#marker(name), '', { mode: 0o600 });
    } catch (error) {
      this.#journal.state('marker', `markers cannot be written: ${inWords(error)}`);
    }
  }

  async #sweepMarkers(directory: string): Promise<void> {
    if (Date.now() - this.#sweptAt < 10_000) return;
    this.#sweptAt = Date.now();
    for (const file of listDir(this.#context.paths.now)) {
      if (!file.endsWith('.ok') || (await isReady(directory, file.slice(0, -3)))) continue;
      fs.rmSync(path.join(this.#context.paths.now, file), { force: true });
    }
  }

  /** The vault does not answer: everything stays queued, and is tried again within the second. */
  #again(error: unknown): void {
    const first = this.#lastError === undefined;
    this.#lastError = error;
    this.#journal.state('push', `archiving waits: ${inWords(error)}`);
    if (!first) return;
    void (async () => {
      while (this.#jobs.size > 0 && !this.#stopping && this.#lastError !== undefined) {
        await sleep(500);
        this.#pump();
        const cluster = await this.#context.cluster().catch(() => undefined);
        if (cluster) void this.#commit(cluster);
      }
    })();
  }

  /** What no repetition cures: everybody who waits is told, and the vault is asked again only after a while, or by the next request. */
  #refuse(error: unknown, job: Job): void {
    this.#paused = { until: Date.now() + REFUSAL_MS, error };
    this.#journal.state('push', `archiving is refused at ${job.name}: ${inWords(error)}`);
    const all = [...this.#jobs.values()];
    this.#jobs.clear();
    for (const each of all) each.reject(error);
  }
}

async function isHeld(cluster: Cluster, name: string): Promise<boolean> {
  const parsed = parseWalName(name);
  const key =
    parsed?.kind === 'history'
      ? keys.history(cluster.partition, parsed.timeline)
      : keys.wal(cluster.partition, name);
  return (await cluster.vault.manifest.get(key)) !== undefined;
}

/** @throws VaultError pgdata  with the path, when PostgreSQL's file is not there or not readable */
async function readWhole(file: string): Promise<Buffer> {
  try {
    return await fs.promises.readFile(file);
  } catch (cause) {
    throw new VaultError('pgdata', `cannot read ${file}: ${(cause as Error).message}`, { cause });
  }
}
