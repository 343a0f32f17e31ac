/**
 * The stream of a BASE_BACKUP into the vault: what is a file goes into bundles, hashed on its way and compared at the end with
 * PostgreSQL's own backup_manifest; then that manifest and the index.
 */
import { createHash, type Hash } from 'node:crypto';
import { VaultError } from '../errors.ts';
import { streamBaseBackup, type BackupEvent, type Tablespace } from '../postgres/replication.ts';
import type { ConnectOptions } from '../postgres/sql.ts';
import { formatLsn, type Lsn } from '../wal/lsn.ts';
import { parseBackupManifest } from './backup-manifest.ts';
import {
  backupPrefix,
  bundleKey,
  BundleWriter,
  putPacked,
  type BackupIndex,
  type Bundle,
} from './bundles.ts';
import type { Cluster } from './cluster.ts';
import { TarReader } from './tar.ts';

export type CopyRequest = {
  /** The backup. */
  id: string;
  startedAt: string;
  label: string;
  node: string;
  connection: ConnectOptions;
  bundleSizeBytes: number;
  uploadParallel: number;
  zstdLevel: number;
  signal?: AbortSignal;
  /** Raw bytes taken from the server, what it estimated beforehand, and packed bytes put so far. */
  onProgress: (doneBytes: number, totalBytes: number, storedBytes: number) => void;
};

export type Copied = {
  start: { timeline: number; lsn: Lsn };
  stop: { timeline: number; lsn: Lsn };
  sizeBytes: number;
  storedBytes: number;
  files: number;
  indexKey: string;
};

/** The stream from the server into bundles, the manifest and the index. */
export async function copyServer(cluster: Cluster, request: CopyRequest): Promise<Copied> {
  const sorter = new Sorter(cluster, request);
  try {
    for await (const event of streamBaseBackup({ ...request.connection, label: request.label })) {
      request.signal?.throwIfAborted();
      await sorter.take(event);
    }
    return await sorter.finish();
  } catch (error) {
    await sorter.settle();
    throw request.signal?.aborted === true ? interrupted() : error;
  }
}

/** Takes the events of one BASE_BACKUP apart: what is a file goes into bundles, hashed on its way. */
class Sorter {
  readonly #cluster: Cluster;
  readonly #request: CopyRequest;
  readonly #writer: BundleWriter;
  readonly #bundles: Bundle[] = [];
  readonly #hashes = new Map<string, string>();
  readonly #directories: BackupIndex['directories'] = [];
  readonly #sizes = new Map<string | null, number>();
  readonly #manifest: Buffer[] = [];
  #tablespaces: Tablespace[] = [];
  #tablespace: Tablespace | null = null;
  #tar = new TarReader();
  #hash: Hash | undefined;
  #start: { timeline: number; lsn: Lsn } | undefined;
  #stop: { timeline: number; lsn: Lsn } | undefined;
  #doneBytes = 0;
  #totalBytes = 0;
  #storedBytes = 0;

  constructor(cluster: Cluster, request: CopyRequest) {
    this.#cluster = cluster;
    this.#request = request;
    this.#writer = new BundleWriter({
      bundleSizeBytes: request.bundleSizeBytes,
      parallel: request.uploadParallel,
      store: async ({ number, bytes, files }) => {
        const key = bundleKey(cluster, request.id, number);
        const stored = await putPacked(cluster, key, bytes, request.zstdLevel, {
          node: request.node,
          backup: request.id,
        });
        this.#bundles.push({ ...stored, files });
        this.#storedBytes += stored.storedBytes;
      },
    });
  }

  async take(event: BackupEvent): Promise<void> {
    if (event.kind === 'start') {
      this.#start = { timeline: event.timeline, lsn: event.lsn };
      this.#tablespaces = event.tablespaces;
      this.#totalBytes = event.estimatedBytes;
    } else if (event.kind === 'archive') {
      this.#tar.end();
      this.#tar = new TarReader();
      this.#tablespace = event.tablespace;
    } else if (event.kind === 'data') {
      await this.#takeData(event.bytes);
      this.#doneBytes += event.bytes.length;
      this.#request.onProgress(this.#doneBytes, this.#totalBytes, this.#storedBytes);
    } else if (event.kind === 'manifest') {
      this.#manifest.push(event.bytes);
    } else {
      this.#stop = { timeline: event.timeline, lsn: event.lsn };
    }
  }

  async #takeData(bytes: Buffer): Promise<void> {
    for (const piece of this.#tar.read(bytes)) {
      if (piece.kind === 'content') {
        this.#hash?.update(piece.bytes);
        await this.#writer.content(piece.bytes);
        continue;
      }
      const { entry } = piece;
      const path = this.#tablespace === null ? entry.path : `pg_tblspc/${this.#tablespace.oid}/${entry.path}`;
      if (entry.kind === 'directory') {
        if (piece.kind === 'entry') this.#directories.push({ path, mode: entry.mode });
      } else if (entry.kind === 'file') {
        if (piece.kind === 'entry') {
          this.#hash = createHash('sha256');
          const key = this.#tablespace?.oid ?? null;
          this.#sizes.set(key, (this.#sizes.get(key) ?? 0) + entry.sizeBytes);
          await this.#writer.begin(path, entry.mode, entry.sizeBytes);
        } else if (this.#hash !== undefined) {
          this.#hashes.set(path, this.#hash.digest('hex'));
          this.#hash = undefined;
        }
      }
      // links are those of the tablespaces, which the server has listed
    }
  }

  async settle(): Promise<void> {
    await this.#writer.settle();
  }

  async finish(): Promise<Copied> {
    const { start, stop } = { start: this.#start, stop: this.#stop };
    if (start === undefined || stop === undefined)
      throw new VaultError('unreachable', 'the base backup ended before its end');
    this.#tar.end();
    await this.#writer.finish();
    const manifest = Buffer.concat(this.#manifest);
    this.#compare(manifest.toString('utf8'));
    const { id, node, label, startedAt, zstdLevel } = this.#request;
    const facts = { node, backup: id };
    const prefix = backupPrefix(this.#cluster, id);
    const kept = await putPacked(this.#cluster, `${prefix}backup_manifest.zst`, manifest, zstdLevel, facts);
    const sizeBytes = [...this.#sizes.values()].reduce((sum, size) => sum + size, 0);
    const index: BackupIndex = {
      format: 1,
      id,
      cluster: this.#cluster.name,
      systemIdentifier: this.#cluster.systemIdentifier,
      majorVersion: this.#cluster.majorVersion,
      segmentSize: this.#cluster.segmentSize,
      label,
      node,
      timeline: start.timeline,
      startLsn: formatLsn(start.lsn),
      stopLsn: formatLsn(stop.lsn),
      startedAt,
      tablespaces: this.#tablespaces.map((one) => ({ ...one, sizeBytes: this.#sizes.get(one.oid) ?? 0 })),
      directories: this.#directories,
      bundles: this.#bundles.sort((left, right) => (left.key < right.key ? -1 : 1)),
      manifest: { key: kept.key, storedSha256: kept.storedSha256, sizeBytes: kept.sizeBytes },
    };
    const put = await putPacked(
      this.#cluster,
      `${prefix}index.json.zst`,
      Buffer.from(JSON.stringify(index)),
      3,
      facts,
    );
    const storedBytes = this.#storedBytes + kept.storedBytes + put.storedBytes;
    return { start, stop, sizeBytes, storedBytes, files: this.#hashes.size, indexKey: put.key };
  }

  /** What came over the wire and was cut must be what the server read, file by file. */
  #compare(text: string): void {
    const manifest = parseBackupManifest(text);
    const differing = [...manifest.files.values()].filter(
      ({ path, algorithm, checksum }) => algorithm === 'sha256' && this.#hashes.get(path) !== checksum,
    );
    const extra = [...this.#hashes.keys()].filter((path) => !manifest.files.has(path));
    const bad = [...differing.map(({ path }) => path), ...extra];
    if (bad.length === 0) return;
    throw new VaultError(
      'corrupt',
      `${bad.length} files differ from the server's backup_manifest: ${bad.slice(0, 3).join(', ')}`,
      {
        hint: 'Take the backup again; if it differs again, suspect memory or network of this machine.',
      },
    );
  }
}

function interrupted(): VaultError {
  return new VaultError('refused', 'the backup was interrupted', {
    hint: 'What it had stored was removed; take it again.',
  });
}
