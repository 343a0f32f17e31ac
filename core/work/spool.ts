/**
 * The spool of a standby: verified files, each under its own name, that the wrapper renames into place without asking anybody.
 *
 * The wrapper verifies nothing, and zeros with exit 0 make PostgreSQL open with data missing: so a file gets its name only after
 * its bytes were checked and flushed (a power failure must not leave an empty file under it).
 */
import fs from 'node:fs';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import type { WalRow } from '../cluster/facts.ts';
import { isSegmentName } from '../wal/name.ts';
import type { Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { listDir, openSpool, sweepSpool, vaultIdOf, type StatePaths } from './node-state.ts';
import { fetchFile, fileOf } from './store-file.ts';

export class Spool {
  readonly #paths: StatePaths;
  /** By name: whose bytes, by its key, and whether they are still wanted. */
  readonly #fetching = new Map<string, { key: string; work: Promise<void>; isDropped: boolean }>();
  /** Below the state directory; moves when the epoch does. */
  #dir: string | undefined;
  #of = '';
  #writes = 0;

  /** @param fixed  a directory of its own that no epoch moves, made if need be; open() is not for such a one */
  constructor(paths: StatePaths, fixed?: string) {
    this.#paths = paths;
    if (fixed === undefined) return;
    fs.mkdirSync(fixed, { recursive: true, mode: 0o700 });
    this.#dir = fixed;
  }

  /** The directory of this vault and epoch; what another one had is no longer true and goes. */
  open(cluster: Cluster, epoch: number): void {
    const of = `${vaultIdOf(cluster.vault.url, cluster.partition)}-${epoch}`;
    if (this.#of === of) return;
    const isFirst = this.#of === '';
    this.#dir = openSpool(this.#paths, of.slice(0, of.lastIndexOf('-')), epoch);
    this.#of = of;
    sweepSpool(this.#paths);
    // What another process has left may be a tail that was outgrown since: nobody can tell it from the whole segment.
    if (isFirst) for (const name of this.segments()) this.remove(name);
  }

  get dir(): string {
    return this.#dir ?? this.#paths.now;
  }

  file(name: string): string {
    return path.join(this.dir, name);
  }

  has(name: string): boolean {
    return fs.existsSync(this.file(name));
  }

  isFetching(name: string): boolean {
    return this.#fetching.has(name);
  }

  get fetchingCount(): number {
    return this.#fetching.size;
  }

  segments(): string[] {
    return listDir(this.dir).filter(isSegmentName);
  }

  /**
   * Fetches, verifies and flushes a row's file; once, however many ask. One name may stand for a tail, a longer one, and the whole segment,
   * one after the other: what is under way of an older row, or was removed meanwhile, gets no name any more.
   *
   * @throws VaultError corrupt | unreachable | local
   */
  fetch(cluster: Cluster, row: WalRow): Promise<void> {
    const name = fileOf(row);
    const known = this.#fetching.get(name);
    if (known?.key === row.key && !known.isDropped) return known.work;
    if (known === undefined && this.has(name)) return Promise.resolve();
    if (known !== undefined) this.remove(name);
    const dir = this.dir;
    const mine = { key: row.key, isDropped: false, work: Promise.resolve() };
    mine.work = (async () => {
      const bytes = await fetchFile(cluster, row);
      if (this.dir === dir) await this.#write(dir, name, bytes, mine);
    })().finally(() => {
      if (this.#fetching.get(name) === mine) this.#fetching.delete(name);
    });
    this.#fetching.set(name, mine);
    return mine.work;
  }

  async put(name: string, content: string | Uint8Array): Promise<void> {
    await this.#write(this.dir, name, content);
  }

  async #write(
    dir: string,
    name: string,
    content: string | Uint8Array,
    wanted: { isDropped: boolean } = { isDropped: false },
  ): Promise<void> {
    // ends as sweepSpool knows it; two rows of one name may be written at once
    const beside = path.join(dir, `${name}.${++this.#writes}.${process.pid}.tmp`);
    try {
      const handle = await fs.promises.open(beside, 'w', 0o600);
      try {
        await handle.writeFile(content);
        await handle.datasync();
      } finally {
        await handle.close();
      }
      crashPoint('follow-fetched');
      // in one step with the look: between the two nothing else of this process can remove the name
      if (wanted.isDropped) fs.rmSync(beside, { force: true });
      else fs.renameSync(beside, path.join(dir, name));
    } catch (cause) {
      await fs.promises.rm(beside, { force: true }).catch(() => {});
      throw new VaultError('local', `cannot write ${path.resolve(dir, name)}: ${(cause as Error).message}`, {
        cause,
        hint: 'The state directory needs room and must belong to the user who runs the server.',
      });
    }
  }

  remove(name: string): void {
    const known = this.#fetching.get(name);
    if (known !== undefined) known.isDropped = true;
    fs.rmSync(this.file(name), { force: true });
  }

  /** Removes every file: nothing more is served from here. */
  empty(): void {
    for (const known of this.#fetching.values()) known.isDropped = true;
    for (const name of listDir(this.dir)) fs.rmSync(path.join(this.dir, name), { force: true });
  }
}
