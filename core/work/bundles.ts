/**
 * Bundles: a base backup cut, while it flows, into tar archives of about 64 MiB, each its own zstd frame and object.
 *
 *   <cluster>/<system id>/backup/<id>/bundle-00001.zst      tar of whole files; a file larger than a bundle in parts
 *   <cluster>/<system id>/backup/<id>/backup_manifest.zst   PostgreSQL's own
 *   <cluster>/<system id>/backup/<id>/index.json.zst        BackupIndex: what lies where
 *
 * A restore fetches and unpacks bundles side by side; the index says where in its bundle a file begins, so one file is read
 * alone. By hand: `zstd -dc bundle-*.zst | tar -x -i` gives the data directory, with files in parts (`….part-00001`) to be
 * joined in order and tablespaces in pg_tblspc/<oid>.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { VaultError } from '../errors.ts';
import { MiB } from '../wal/name.ts';
import type { Cluster } from './cluster.ts';
import { pack, sha256Of } from './store-file.ts';
import { BLOCK, END_OF_ARCHIVE, fileHeader, padded } from './tar.ts';

const decompress = promisify(zlib.zstdDecompress);

/** One file, or a part of one, within a bundle. Sizes and offsets in bytes. */
export type BundleFile = {
  /** Within the data directory; those of a tablespace as pg_tblspc/<oid>/…, as backup_manifest names them. */
  path: string;
  mode: number;
  /** Of the whole file. */
  sizeBytes: number;
  /** Where this part belongs in the file; 0 for a whole one. */
  fileOffset: number;
  /** Where its bytes begin in the raw bundle, and how many they are. */
  offset: number;
  length: number;
};

export type Bundle = {
  key: string;
  /** Of the stored (packed) bytes: what is in the files is proven by backup_manifest, and hashing it twice halves the speed. */
  storedSha256: string;
  sizeBytes: number;
  storedBytes: number;
  files: BundleFile[];
};

export type BackupIndex = {
  format: 1;
  id: string;
  cluster: string;
  systemIdentifier: string;
  majorVersion: number;
  segmentSize: number;
  label: string;
  node: string;
  timeline: number;
  startLsn: string;
  stopLsn: string;
  startedAt: string;
  /** Location as the server had it: absolute, or within the data directory (in place). */
  tablespaces: { oid: string; location: string; sizeBytes: number }[];
  directories: { path: string; mode: number }[];
  bundles: Bundle[];
  /** PostgreSQL's backup_manifest. */
  manifest: { key: string; storedSha256: string; sizeBytes: number };
};

export const backupPrefix = (cluster: Cluster, id: string): string => `${cluster.partition}/backup/${id}/`;

export const bundleKey = (cluster: Cluster, id: string, number: number): string =>
  `${backupPrefix(cluster, id)}bundle-${String(number).padStart(5, '0')}.zst`;

/** A full bundle on its way: `bytes` is lent and taken back when `store` is done. */
export type FullBundle = { number: number; bytes: Buffer; files: BundleFile[] };

/**
 * Fills bundles and hands each full one to `store`, several at a time.
 *
 * Memory: `parallel` + 1 buffers of the bundle size, used again and again, and what `store` makes of them. content() waits
 * where all are on their way, which in the end pauses the server's socket.
 */
export class BundleWriter {
  readonly #capacity: number;
  readonly #parallel: number;
  readonly #store: (bundle: FullBundle) => Promise<void>;
  readonly #free: Buffer[] = [];
  readonly #underWay = new Set<Promise<void>>();
  #failure: unknown;
  #buffer: Buffer | undefined;
  #used = 0;
  #files: BundleFile[] = [];
  #number = 0;
  #file: { path: string; mode: number; sizeBytes: number; done: number } | undefined;
  /** The part being filled, and what it still lacks. */
  #part: BundleFile | undefined;
  #partLeft = 0;

  constructor(options: {
    /** At least 16 KiB. */
    bundleSizeBytes: number;
    parallel: number;
    store: (bundle: FullBundle) => Promise<void>;
  }) {
    this.#capacity = padded(Math.max(options.bundleSizeBytes, 16 * 1024));
    this.#parallel = Math.max(options.parallel, 1);
    this.#store = options.store;
  }

  /** A file begins; exactly `sizeBytes` of content follow. */
  async begin(path: string, mode: number, sizeBytes: number): Promise<void> {
    this.#file = { path, mode, sizeBytes, done: 0 };
    const whole = BLOCK + padded(sizeBytes);
    const room = this.#capacity - END_OF_ARCHIVE;
    // what fits into a bundle is never cut; what does not begins where it stands, unless next to nothing is left there
    const enough = whole <= room ? whole : Math.min(room, room / 8);
    if (this.#used > 0 && this.#used + enough > room) await this.#cut();
    await this.#openPart();
  }

  async content(bytes: Buffer): Promise<void> {
    let at = 0;
    while (at < bytes.length) {
      if (this.#partLeft === 0) {
        await this.#cut();
        await this.#openPart();
      }
      const buffer = this.#buffer;
      if (buffer === undefined || this.#partLeft === 0)
        throw new Error('more content than the file was said to have');
      const take = Math.min(this.#partLeft, bytes.length - at);
      bytes.copy(buffer, this.#used, at, at + take);
      this.#used += take;
      this.#partLeft -= take;
      at += take;
      if (this.#partLeft === 0) this.#closePart();
    }
  }

  /** The last bundle goes; returns when all are stored. @throws what `store` threw first */
  async finish(): Promise<void> {
    if (this.#used > 0) await this.#cut();
    await Promise.all(this.#underWay);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** After a failure: until nothing is on its way any more, so that what was stored can be removed. */
  async settle(): Promise<void> {
    await Promise.allSettled(this.#underWay);
  }

  async #openPart(): Promise<void> {
    const file = this.#file;
    if (file === undefined) throw new Error('content without a file');
    const buffer = await this.#writable();
    const room = this.#capacity - END_OF_ARCHIVE - this.#used - BLOCK;
    const left = file.sizeBytes - file.done;
    const length = Math.min(left, room);
    const inParts = length < file.sizeBytes;
    const partNumber = String(this.#number).padStart(5, '0'); // that of its bundle: parts sort in their order
    fileHeader(inParts ? `${file.path}.part-${partNumber}` : file.path, file.mode, length).copy(
      buffer,
      this.#used,
    );
    this.#used += BLOCK;
    this.#part = {
      path: file.path,
      mode: file.mode,
      sizeBytes: file.sizeBytes,
      fileOffset: file.done,
      offset: this.#used,
      length,
    };
    file.done += length;
    this.#partLeft = length;
    if (length === 0) this.#closePart();
  }

  #closePart(): void {
    const part = this.#part;
    if (part === undefined) return;
    const end = part.offset + padded(part.length);
    this.#buffer?.fill(0, this.#used, end);
    this.#used = end;
    this.#files.push(part);
    this.#part = undefined;
  }

  async #writable(): Promise<Buffer> {
    if (this.#buffer !== undefined) return this.#buffer;
    while (this.#underWay.size >= this.#parallel && this.#failure === undefined) {
      await Promise.race(this.#underWay);
    }
    if (this.#failure !== undefined) throw this.#failure;
    this.#buffer = this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#capacity);
    this.#number += 1;
    return this.#buffer;
  }

  async #cut(): Promise<void> {
    const buffer = this.#buffer;
    if (buffer === undefined) return;
    buffer.fill(0, this.#used, this.#used + END_OF_ARCHIVE);
    const bundle = {
      number: this.#number,
      bytes: buffer.subarray(0, this.#used + END_OF_ARCHIVE),
      files: this.#files,
    };
    this.#buffer = undefined;
    this.#used = 0;
    this.#files = [];
    const task = this.#store(bundle)
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => {
        this.#underWay.delete(task);
        this.#free.push(buffer);
      });
    this.#underWay.add(task);
  }
}

/** How long a vault that does not answer is asked again to take an object: hours of a backup must not be lost by one bad minute. */
const PUT_LIMIT_MS = 5 * 60_000;

/**
 * Puts one object of a backup, packed. A retry brings the same bytes under the same key, so an answer that was lost does no harm.
 *
 * @returns its place, its sizes and the hash of the packed bytes
 * @throws VaultError unreachable (for PUT_LIMIT_MS) | denied | local
 */
export async function putPacked(
  cluster: Cluster,
  key: string,
  raw: Buffer,
  zstdLevel: number,
  facts: { node: string; backup: string },
): Promise<{ key: string; storedSha256: string; sizeBytes: number; storedBytes: number }> {
  const sizeBytes = raw.length;
  const packed = await pack(raw, zstdLevel);
  const storedSha256 = sha256Of(packed);
  const deadline = performance.now() + PUT_LIMIT_MS;
  for (let waitMs = 200; ; waitMs = Math.min(waitMs * 2, 10_000)) {
    try {
      await cluster.vault.bucket.putOnce(key, packed, {
        'stored-sha256': storedSha256,
        size: String(sizeBytes),
        ...facts,
      });
      break;
    } catch (error) {
      const again =
        error instanceof VaultError && error.code === 'unreachable' && performance.now() < deadline;
      if (!again) throw error;
      await delay(waitMs);
    }
  }
  return { key, storedSha256, sizeBytes, storedBytes: packed.length };
}

/**
 * The raw bytes of one object of a backup, checked.
 *
 * @throws VaultError corrupt (gone, damaged, other bytes) | unreachable | denied
 */
export async function getPacked(
  cluster: Cluster,
  object: { key: string; storedSha256?: string; sizeBytes: number },
): Promise<Buffer> {
  const stored = await cluster.vault.bucket.get(object.key);
  const bad = (why: string, cause?: unknown) =>
    new VaultError('corrupt', `${object.key} of the backup ${why}`, {
      cause,
      hint: `Restore another backup: 'walvault backups' lists them.`,
    });
  if (stored === undefined) throw bad('is gone from the bucket');
  if (object.storedSha256 !== undefined && sha256Of(stored) !== object.storedSha256) {
    throw bad(`is damaged (${stored.length} bytes, other than the index says)`);
  }
  const raw = await unpackWhole(stored, object.sizeBytes).catch((error: unknown) => {
    throw bad(`is damaged (${stored.length} bytes do not unpack)`, error);
  });
  if (object.storedSha256 !== undefined && raw.length !== object.sizeBytes) {
    throw bad(`unpacks to ${raw.length} bytes, not ${object.sizeBytes}`);
  }
  return raw;
}

/** Into one buffer of the right size: in pieces, joined at the end, it would take twice the memory and a copy. */
async function unpackWhole(stored: Buffer, sizeBytes: number): Promise<Buffer> {
  const chunkSize = sizeBytes > 256 * MiB ? MiB : sizeBytes + 1024;
  return decompress(stored, { chunkSize, maxOutputLength: Math.max(sizeBytes, 1) });
}
