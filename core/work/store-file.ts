/**
 * The path of one WAL file's bytes: into the bucket (checked, compressed, put under a key of its own) and back (fetched, unpacked,
 * checked against its row and its name). The row is put by core/work/commit.ts, always after the object.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { promisify } from 'node:util';
import zlib from 'node:zlib';
import { VaultError } from '../errors.ts';
import { keys, type WalRow } from '../cluster/facts.ts';
import { checkFirstPage } from '../wal/page-header.ts';
import { parseWalName } from '../wal/name.ts';
import { newId, objectKeys, readHead, type Cluster } from './cluster.ts';
import type { WriterSeat } from './writer.ts';

const compress = promisify(zlib.zstdCompress);
const decompress = promisify(zlib.zstdDecompress);

/** A file whose bytes are durable in the bucket and that wants its row. */
export type StoredFile = {
  name: string;
  key: string;
  sha256: string;
  sizeBytes: number;
  storedBytes: number;
  archivedAt: string;
  /** History files: their text, which goes into the row. */
  text?: string;
};

/** A file that was not stored since archiving was seen to be off. `sha256` undefined: nobody has its bytes any more. */
export type UnstoredFile = { name: string; sha256: string | undefined; unstored: true };

/** What became of a file before its commit: stored, not stored since archiving is off, or there already. */
export type Handed = StoredFile | UnstoredFile | 'same';

export const isStored = (file: StoredFile | UnstoredFile): file is StoredFile => !('unstored' in file);

export const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/**
 * Checks a file as its name promises: a segment has the cluster's segment size and a first page of this cluster, timeline and place.
 *
 * @throws VaultError corrupt  with what is wrong
 */
export function checkWalFile(cluster: Cluster, name: string, bytes: Uint8Array): void {
  const parsed = parseWalName(name);
  if (parsed === undefined) throw new VaultError('corrupt', `${name} is not the name of a WAL file`);
  if (parsed.kind === 'history' || parsed.kind === 'backup') {
    if (bytes.length === 0) throw new VaultError('corrupt', `${name} is empty`);
    return;
  }
  const { segmentSize, systemIdentifier, majorVersion } = cluster;
  if (bytes.length !== segmentSize) {
    throw new VaultError(
      'corrupt',
      `${name} has ${bytes.length} bytes, a segment of this cluster has ${segmentSize}`,
      {
        hint: `compare 'SHOW wal_segment_size' with the cluster's; a disk error or a foreign file is the usual cause`,
      },
    );
  }
  const problem = checkFirstPage(bytes, {
    name: name.slice(0, 24),
    segmentSize,
    systemIdentifier,
    majorVersion,
  });
  if (problem !== undefined) {
    throw new VaultError('corrupt', `${name}: ${problem}`, {
      hint: `this file does not belong to cluster ${cluster.name}, or is damaged`,
    });
  }
}

/**
 * Puts the bytes of a file into the bucket, unless the manifest has a row with the same content: 'same'.
 *
 * Each put has a key of its own, so that a retry never leans on an object that a sweep of orphans is about to take.
 *
 * @param zstdLevel  1 to 19
 * @throws VaultError corrupt | conflict (the row says other bytes) | unreachable | denied | local
 */
export async function storeFile(
  cluster: Cluster,
  origin: { node: string; epoch: number; place?: string },
  file: { name: string; bytes: Buffer },
  zstdLevel = 1,
): Promise<StoredFile | 'same'> {
  const { name, bytes } = file;
  checkWalFile(cluster, name, bytes);
  const sha256 = sha256Of(bytes);
  const parsed = parseWalName(name);
  if (parsed?.kind === 'history') {
    const row = await cluster.vault.manifest.get(keys.history(cluster.partition, parsed.timeline));
    const text = bytes.toString('utf8');
    if (row) {
      const held = sha256Of(Buffer.from(String(row.text)));
      return sameOrConflict(cluster, origin, name, { held, sha256, by: String(row.node) });
    }
    const key = objectKeys.history(cluster, name.slice(0, 8), sha256);
    const archivedAt = new Date().toISOString();
    await cluster.vault.bucket.putOnce(
      key,
      bytes,
      factsOf(cluster, origin, { name, sha256, sizeBytes: bytes.length, archivedAt }),
    );
    return { name, key, sha256, sizeBytes: bytes.length, storedBytes: bytes.length, archivedAt, text };
  }
  const row = (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow | undefined;
  if (row) return sameOrConflict(cluster, origin, name, { held: row.sha256, sha256, by: row.node });
  const packed = await pack(bytes, zstdLevel);
  const key = objectKeys.wal(cluster, name, sha256, newId());
  const archivedAt = new Date().toISOString();
  await cluster.vault.bucket.putOnce(
    key,
    packed,
    factsOf(cluster, origin, { name, sha256, sizeBytes: bytes.length, archivedAt }),
  );
  return { name, key, sha256, sizeBytes: bytes.length, storedBytes: packed.length, archivedAt };
}

/** Archiving is off: the file as it would be stored. @throws VaultError conflict (the row says other bytes) | unreachable */
export async function declineFile(
  cluster: Cluster,
  origin: { node: string; place?: string },
  { name, bytes }: { name: string; bytes: Buffer },
): Promise<UnstoredFile | 'same'> {
  const sha256 = sha256Of(bytes);
  const row = (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow | undefined;
  if (row) return sameOrConflict(cluster, origin, name, { held: row.sha256, sha256, by: row.node });
  return { name, sha256, unstored: true };
}

/**
 * Stores a file, or, where archiving was seen to be off, does not: the commit decides by the vault's word as it is then. Histories are
 * stored either way.
 *
 * @throws VaultError  as storeFile and declineFile
 */
export async function handIn(
  cluster: Cluster,
  seat: WriterSeat,
  file: { name: string; bytes: Buffer },
  { isOff, zstdLevel }: { isOff: boolean; zstdLevel: number },
): Promise<Handed> {
  if (isOff && !file.name.endsWith('.history')) return declineFile(cluster, seat, file);
  const epoch = seat.store.read()?.epoch ?? 0;
  return storeFile(cluster, { ...seat, epoch }, file, zstdLevel);
}

/** @throws VaultError pgdata  with the path, when PostgreSQL's file is not there or not readable */
export async function readWhole(file: string): Promise<Buffer> {
  try {
    return await fs.promises.readFile(file);
  } catch (cause) {
    throw new VaultError('pgdata', `cannot read ${file}: ${(cause as Error).message}`, { cause });
  }
}

/** Both sides are named: where two copies of one node write, its name alone tells nobody which to stop. */
async function sameOrConflict(
  cluster: Cluster,
  origin: { node: string; place?: string },
  name: string,
  { held, sha256, by }: { held: string; sha256: string; by: string },
): Promise<'same'> {
  if (held === sha256) return 'same';
  const { writer } = await readHead(cluster);
  const holder = writer?.node === by ? `${by}, which writes from ${writer.place}` : by;
  throw new VaultError(
    'conflict',
    `the vault holds other bytes under ${name} (sha256 ${held.slice(0, 16)}…, here ${sha256.slice(0, 16)}…), ` +
      `archived by ${holder}; this is ${origin.node}${origin.place === undefined ? '' : ` at ${origin.place}`}`,
    {
      hint: `another server, or this one set back to an older state, has archived this name; nothing was changed`,
    },
  );
}

function factsOf(
  cluster: Cluster,
  origin: { node: string; epoch: number },
  file: { name: string; sha256: string; sizeBytes: number; archivedAt: string },
): Record<string, string> {
  return {
    cluster: cluster.name,
    'system-identifier': cluster.systemIdentifier,
    file: file.name,
    sha256: file.sha256,
    size: String(file.sizeBytes),
    node: origin.node,
    epoch: String(origin.epoch),
    'archived-at': file.archivedAt,
  };
}

/** One zstd frame with its checksum. Never ZSTD_c_nbWorkers: Node 24 then returned truncated frames without an error (measured). */
export async function pack(bytes: Uint8Array, level: number): Promise<Buffer> {
  const { ZSTD_c_compressionLevel, ZSTD_c_checksumFlag } = zlib.constants;
  return compress(bytes, {
    chunkSize: 1 << 20,
    params: { [ZSTD_c_compressionLevel]: level, [ZSTD_c_checksumFlag]: 1 },
  });
}

/** @param sizeBytes  the raw size expected: a frame that unpacks to more is refused before it fills the memory */
export async function unpack(bytes: Uint8Array, sizeBytes: number): Promise<Buffer> {
  return decompress(bytes, { chunkSize: 1 << 20, maxOutputLength: Math.max(sizeBytes, 1) });
}

/**
 * The raw bytes of a row's file, checked: length and sha256 as the row says, first page as the name says.
 *
 * Exit 0 from restore_command with zeros or another segment's bytes makes PostgreSQL end recovery and open with data missing
 * (measured), so nothing is served that did not pass here.
 *
 * @throws VaultError corrupt | unreachable | denied
 */
export async function fetchFile(cluster: Cluster, row: WalRow): Promise<Buffer> {
  const name = fileOf(row);
  const stored = await cluster.vault.bucket.get(row.key);
  if (stored === undefined) {
    throw new VaultError('corrupt', `the object of ${name} is gone from the bucket (${row.key})`, {
      hint: `look for it among the bucket's older versions; the row says that it was there at ${row.archivedAt}`,
    });
  }
  return openStored(cluster, row, stored);
}

/** The file that a row is of: wal#<file>, spill#<file>. */
export const fileOf = (row: { sk: string }): string => row.sk.slice(row.sk.indexOf('#') + 1);

/** What fetchFile does once it has the object: unpacks it and checks it against its row and its name. @throws VaultError corrupt */
export async function openStored(cluster: Cluster, row: WalRow, stored: Uint8Array): Promise<Buffer> {
  const name = fileOf(row);
  let bytes: Buffer;
  try {
    bytes = await unpack(stored, row.sizeBytes);
  } catch (cause) {
    throw new VaultError(
      'corrupt',
      `the object of ${name} does not unpack (${stored.length} bytes, the row says ${row.storedBytes})`,
      { cause },
    );
  }
  if (bytes.length !== row.sizeBytes)
    throw new VaultError(
      'corrupt',
      `${name} unpacks to ${bytes.length} bytes, its row says ${row.sizeBytes}`,
    );
  const sha256 = sha256Of(bytes);
  if (sha256 !== row.sha256)
    throw new VaultError(
      'corrupt',
      `${name} has sha256 ${sha256.slice(0, 16)}…, its row says ${row.sha256.slice(0, 16)}…`,
    );
  checkWalFile(cluster, name, bytes);
  return bytes;
}
