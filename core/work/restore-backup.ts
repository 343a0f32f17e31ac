/**
 * A base backup out of the vault into a directory: bundles fetched and unpacked side by side, every file compared with
 * PostgreSQL's own backup_manifest, all of it durable before pg_control appears, so that no half restored directory can be
 * started. Broken off, it goes on where it was when it is called again.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, realpath, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { keys, type BackupRow } from '../cluster/facts.ts';
import { syncDirectory } from '../postgres/durable-write.ts';
import { parseBackupManifest, type BackupManifest, type ManifestFile } from './backup-manifest.ts';
import { getPacked, type BackupIndex, type Bundle, type BundleFile } from './bundles.ts';
import { listRows, newId, type Cluster } from './cluster.ts';
import { addHold, dropHold, keepHolding } from './holds.ts';
import {
  isWithin,
  JOURNAL,
  LOCK,
  lockTarget,
  makeTarget,
  noteBundle,
  outside,
  planTarget,
  type Target,
  type TargetRequest,
} from './restore-target.ts';

export type RestoreRequest = TargetRequest & {
  /** Its id, or 'latest': the last complete one. */
  backup: string;
  /** For whom; stands in the hold. */
  node: string;
  /** Bundles side by side; 4 unless told. Each takes twice the bundle size of memory. */
  parallel?: number;
  /**
   * Called when all files are verified, before pg_control appears: what must be there before the directory can be started.
   * `target` is its real path, `controlFile` where pg_control lies until then.
   */
  prepare?: (target: string, controlFile: string) => Promise<void>;
  signal?: AbortSignal;
  onProgress?: (progress: { phase: 'copy' | 'verify'; doneBytes: number; totalBytes: number }) => void;
};

export type Restored = { backup: BackupRow; index: BackupIndex };

/** Backups, oldest first. */
export async function listBackups(cluster: Cluster): Promise<BackupRow[]> {
  const rows = await listRows<BackupRow>(cluster, 'backup#');
  // ids tell seconds, and within one come as chance has it
  return rows.sort((one, other) => Date.parse(one.startedAt) - Date.parse(other.startedAt));
}

/** @throws VaultError absent (no such backup; none complete) | refused (that one is not complete) */
export async function findBackup(cluster: Cluster, id: string): Promise<BackupRow> {
  const row =
    id === 'latest'
      ? (await listBackups(cluster)).filter(({ state }) => state === 'complete').at(-1)
      : ((await cluster.vault.manifest.get(keys.backup(cluster.partition, id))) as unknown as
          BackupRow | undefined);
  if (row === undefined) {
    throw new VaultError(
      'absent',
      id === 'latest' ? `cluster ${cluster.name} has no complete backup` : `no backup ${id}`,
      {
        hint: `'walvault backup' on the primary takes one; 'walvault backups' lists them.`,
      },
    );
  }
  if (row.state !== 'complete' || row.indexKey === null) {
    throw new VaultError('refused', `backup ${row.id} is ${row.state}`, {
      hint: `'walvault backups' lists the complete ones.`,
    });
  }
  return row;
}

/**
 * Restores a backup. The directory that results has neither standby.signal nor recovery.signal, and needs WAL from the
 * backup's start to its stop: the caller configures restore_command before anything starts it.
 *
 * @throws VaultError absent | refused (target not empty) | busy (another restores there) | corrupt (a bundle or file is not what it was) | local (no room) | unreachable
 */
export async function restoreBackup(cluster: Cluster, request: RestoreRequest): Promise<Restored> {
  const backup = await findBackup(cluster, request.backup);
  const index = await readIndex(cluster, backup);
  const manifest = await readManifest(cluster, index);
  const target = await planTarget(index, request, `restore-${newId()}`);
  // before the hold: that of the restore at work has the same name
  const lock = await lockTarget(target);
  try {
    await restoreInto(cluster, request, { backup, index, manifest, target });
  } finally {
    lock.release();
  }
  return { backup, index };
}

async function restoreInto(
  cluster: Cluster,
  request: RestoreRequest,
  { backup, index, manifest, target }: Restored & { manifest: BackupManifest; target: Target },
): Promise<void> {
  const at = new Date().toISOString();
  await addHold(cluster, target.holdId, {
    kind: 'restore',
    from: backup.startSegment,
    node: request.node,
    at,
  });
  const keeper = keepHolding(cluster, target.holdId);
  try {
    // Retention may have let it go just before the hold stood; from here on it finds the hold.
    await findBackup(cluster, backup.id);
    await makeTarget(index, target);
    const job = new Restore(cluster, request, index, manifest, target);
    await job.fetchBundles();
    await job.verifyParts();
    await job.finish();
  } finally {
    keeper.stop();
    // a restore that goes on later asks again, and is refused then if its WAL went away meanwhile
    await dropHold(cluster, target.holdId).catch(() => {});
  }
}

async function readIndex(cluster: Cluster, backup: BackupRow): Promise<BackupIndex> {
  const raw = await getPacked(cluster, { key: backup.indexKey ?? '', sizeBytes: MAX_INDEX_BYTES });
  const index = JSON.parse(raw.toString('utf8')) as BackupIndex;
  if (index.format !== 1) {
    throw new VaultError(
      'format',
      `backup ${backup.id} has format ${String(index.format)}, this walvault knows 1`,
      {
        hint: 'Install the newer walvault on this machine.',
      },
    );
  }
  if (index.id !== backup.id || index.systemIdentifier !== cluster.systemIdentifier) {
    throw new VaultError(
      'corrupt',
      `the index of backup ${backup.id} is that of ${index.id} of ${index.systemIdentifier}`,
    );
  }
  return index;
}

/** The manifest, and that the index has every file of it with its size: before a byte is written. */
async function readManifest(cluster: Cluster, index: BackupIndex): Promise<BackupManifest> {
  const manifest = parseBackupManifest((await getPacked(cluster, index.manifest)).toString('utf8'));
  const sizes = new Map<string, number>();
  for (const { files } of index.bundles) {
    for (const file of files) {
      const listed = manifest.files.get(file.path);
      if (listed?.sizeBytes !== file.sizeBytes)
        throw missing(index, file.path, 'is not in its backup_manifest as it is in its index');
      sizes.set(file.path, (sizes.get(file.path) ?? 0) + file.length);
    }
  }
  for (const { path: name, sizeBytes } of manifest.files.values()) {
    if (sizes.get(name) !== sizeBytes)
      throw missing(index, name, `has ${sizes.get(name) ?? 'none'} of its ${sizeBytes} bytes`);
  }
  return manifest;
}

function missing(index: BackupIndex, name: string, what: string): VaultError {
  return new VaultError('corrupt', `${name} of backup ${index.id} ${what}`, {
    hint: `Restore another backup: 'walvault backups' lists them.`,
  });
}

/** About 200 bytes a file: two million files. JSON.parse takes no longer text. */
const MAX_INDEX_BYTES = 500 * 1024 * 1024;

/** Written under another name until all is durable: without it PostgreSQL does not start. */
const PG_CONTROL = 'global/pg_control';

class Restore {
  readonly #cluster: Cluster;
  readonly #request: RestoreRequest;
  readonly #index: BackupIndex;
  readonly #manifest: BackupManifest;
  readonly #target: Target;
  readonly #totalBytes: number;
  #doneBytes = 0;

  constructor(
    cluster: Cluster,
    request: RestoreRequest,
    index: BackupIndex,
    manifest: BackupManifest,
    target: Target,
  ) {
    this.#cluster = cluster;
    this.#request = request;
    this.#index = index;
    this.#manifest = manifest;
    this.#target = target;
    this.#totalBytes = index.bundles.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  /** All bundles not done yet, `parallel` at a time; the first failure stops the others at their next bundle. */
  async fetchBundles(): Promise<void> {
    const left = this.#index.bundles.filter((bundle) => {
      if (!this.#target.done.has(bundle.key)) return true;
      this.#doneBytes += bundle.sizeBytes;
      return false;
    });
    let failure: unknown;
    const worker = async (): Promise<void> => {
      for (let bundle = left.shift(); bundle !== undefined && failure === undefined; bundle = left.shift()) {
        try {
          if (this.#request.signal?.aborted === true) throw brokenOff(this.#target.path);
          await this.#unpack(bundle);
        } catch (error) {
          failure ??= error;
        }
      }
    };
    this.#report('copy');
    await Promise.all(Array.from({ length: Math.max(1, this.#request.parallel ?? 4) }, worker));
    if (failure !== undefined) throw failure;
  }

  async #unpack(bundle: Bundle): Promise<void> {
    const raw = await getPacked(this.#cluster, bundle);
    const written: string[] = [];
    for (const file of bundle.files) {
      const bytes = raw.subarray(file.offset, file.offset + file.length);
      const place = this.#placeOf(file.path);
      if (file.length === file.sizeBytes)
        this.#check(file.path, createHashOf(this.#listed(file.path), bytes));
      await writePart(place, file, bytes);
      written.push(place);
    }
    await syncFiles(written);
    await noteBundle(this.#target, this.#index, bundle.key);
    this.#doneBytes += bundle.sizeBytes;
    this.#report('copy');
  }

  /** Files that came in parts are read back, now that all parts are there. */
  async verifyParts(): Promise<void> {
    const inParts = new Set(
      this.#index.bundles.flatMap(({ files }) =>
        files.filter((file) => file.length < file.sizeBytes).map(({ path: name }) => name),
      ),
    );
    for (const name of inParts) {
      if (this.#request.signal?.aborted === true) throw brokenOff(this.#target.path);
      this.#report('verify');
      const { algorithm, sizeBytes } = this.#listed(name);
      const place = this.#placeOf(name);
      const { size } = await stat(place);
      if (size !== sizeBytes)
        throw missing(this.#index, name, `was restored with ${size} of ${sizeBytes} bytes`);
      if (algorithm === null) continue;
      const hash = createHash(algorithm);
      for await (const chunk of createReadStream(place, { highWaterMark: 1 << 20 }))
        hash.update(chunk as Buffer);
      this.#check(name, hash.digest('hex'));
    }
  }

  /** Signal files of the origin go, directories become durable, pg_control appears, the journal goes. */
  async finish(): Promise<void> {
    const { path: target, waldir, tablespaces } = this.#target;
    for (const name of ['standby.signal', 'recovery.signal', 'promote', 'postmaster.pid']) {
      await rm(path.join(target, name), { force: true });
    }
    const control = path.join(target, PG_CONTROL);
    const beside = `${control}.restored`;
    // killed between the rename below and the end of the journal: then it was prepared
    const prepared = (await stat(beside).catch(() => undefined)) === undefined;
    if (!prepared) await this.#request.prepare?.(await realpath(target), beside);
    for (const place of [waldir, ...tablespaces.values()])
      if (place !== undefined) await syncDirectory(place);
    for (const { path: name } of this.#index.directories) await syncDirectory(path.join(target, name));
    await syncDirectory(target);
    if (!prepared) await rename(beside, control);
    await syncDirectory(path.dirname(control));
    await rm(path.join(target, JOURNAL));
    // after it: whoever makes a new lock finds no journal
    await rm(path.join(target, LOCK), { force: true });
    await syncDirectory(target);
  }

  #placeOf(name: string): string {
    const place = path.join(this.#target.path, name === PG_CONTROL ? `${name}.restored` : name);
    if (!isWithin(place, this.#target.path)) throw outside(name);
    return place;
  }

  #listed(name: string): ManifestFile {
    const listed = this.#manifest.files.get(name);
    if (listed === undefined) throw missing(this.#index, name, 'is not in its backup_manifest');
    return listed;
  }

  #check(name: string, checksum: string | null): void {
    if (checksum === this.#listed(name).checksum) return;
    throw missing(this.#index, name, `has other bytes than PostgreSQL's backup_manifest says`);
  }

  #report(phase: 'copy' | 'verify'): void {
    this.#request.onProgress?.({ phase, doneBytes: this.#doneBytes, totalBytes: this.#totalBytes });
  }
}

function createHashOf({ algorithm }: ManifestFile, bytes: Buffer): string | null {
  return algorithm === null ? null : createHash(algorithm).update(bytes).digest('hex');
}

async function writePart(place: string, file: BundleFile, bytes: Buffer): Promise<void> {
  // a part may come before its predecessor: opened without cutting the file off
  const whole = file.length === file.sizeBytes;
  const handle = await open(place, whole ? 'w' : 'a', 0o600).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw localFailure(place, error);
    await mkdir(path.dirname(place), { recursive: true, mode: 0o700 });
    return open(place, whole ? 'w' : 'a', 0o600);
  });
  try {
    await handle.chmod(file.mode & 0o777);
    if (whole) await writeAll(handle, bytes, 0);
  } catch (error) {
    throw localFailure(place, error);
  } finally {
    await handle.close();
  }
  if (whole) return;
  const part = await open(place, 'r+');
  try {
    await writeAll(part, bytes, file.fileOffset);
  } catch (error) {
    throw localFailure(place, error);
  } finally {
    await part.close();
  }
}

async function writeAll(
  handle: Awaited<ReturnType<typeof open>>,
  bytes: Buffer,
  position: number,
): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, at, bytes.length - at, position + at);
    at += bytesWritten;
  }
}

/** Several at a time: a flush waits for the disk, not for the processor. */
async function syncFiles(places: string[]): Promise<void> {
  const left = [...places];
  const worker = async (): Promise<void> => {
    for (let place = left.shift(); place !== undefined; place = left.shift()) {
      const handle = await open(place, 'r+');
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}

function localFailure(place: string, error: unknown): VaultError {
  return new VaultError('local', `cannot write ${place}: ${(error as Error).message}`, {
    cause: error,
    hint: 'Make room, or correct the rights; then run the same command again: it goes on where it was.',
  });
}

function brokenOff(target: string): VaultError {
  return new VaultError('refused', `the restore into ${target} was interrupted`, {
    hint: 'Run the same command again: it goes on where it was.',
  });
}
