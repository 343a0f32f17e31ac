/**
 * What a dead server has not archived, brought into the vault from its disk.
 *
 * While it is still the primary of the epoch it goes where it belongs: the finished segments in order, then the last one up to its last
 * valid record as the tail of the timeline, so that the smart failover that follows loses nothing. Once another node holds the epoch it is
 * kept beside, under aside/<epoch>/<node>/: listed and fetched, never served.
 */
import { mkdir, open, rename } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { keys, type AsideRow, type Head, type HistoryRow, type HoldsRow } from '../cluster/facts.ts';
import type { Pgdata } from '../postgres/pgdata.ts';
import { syncDirectory } from '../postgres/durable-write.ts';
import { listReady, readWalFile } from '../postgres/wal-directory.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { parseWalName, segmentEnd, segmentStart } from '../wal/name.ts';
import { segmentsFrom } from '../wal/lineage.ts';
import { asideRow } from './aside-row.ts';
import { readBranch } from './branch.ts';
import { asRow, eventRow, listRows, newId, objectKeys, readControl, type Cluster } from './cluster.ts';
import { commitFiles } from './commit.ts';
import { checkDatabase } from './configure.ts';
import { readHolds } from './holds.ts';
import { compareWithVault, readLocalWal, type LocalSegment, type LocalWal } from './local-wal.ts';
import { pack, sha256Of, storeFile, unpack } from './store-file.ts';
import { commitTail } from './tail.ts';
import type { WriterSeat } from './writer.ts';

export type Salvaged = {
  /** vault: into the live timeline, where it belongs; aside: kept beside it; nothing: the vault has all of it. */
  into: 'vault' | 'aside' | 'nothing';
  /** The epoch under which it lies. */
  epoch: number;
  /** Files that were not in the vault before, in order. */
  files: { file: string; endLsn: string | null }[];
  /** Where the last record ends that the vault now has of this server. */
  endLsn: string;
  timeline: number;
};

export type SalvageRequest = { seat: WriterSeat; pgdata: Pgdata; zstdLevel: number };

/**
 * Salvages a server that does not run. May be done again.
 *
 * @throws VaultError refused (a server runs; a standby; another database) | copied | conflict | corrupt | unreachable
 */
export async function salvage(cluster: Cluster, request: SalvageRequest): Promise<Salvaged> {
  const { pgdata, seat } = request;
  checkDatabase(cluster, pgdata);
  refuseRunning(pgdata);
  const control = await readControl(cluster);
  const wal = await readLocalWal(pgdata);
  return control.primary === seat.node ? intoVault(cluster, request, wal) : keepAside(cluster, request, wal);
}

/** @throws VaultError refused */
export function refuseRunning(pgdata: Pgdata): void {
  if (pgdata.running === undefined) return;
  throw new VaultError('refused', `a server (pid ${pgdata.running.pid}) runs on ${pgdata.path}`, {
    hint: `Stop it first: pg_ctl -D '${pgdata.path}' stop -m fast`,
  });
}

async function intoVault(cluster: Cluster, request: SalvageRequest, wal: LocalWal): Promise<Salvaged> {
  const { seat, pgdata } = request;
  const { head } = await readBranch(cluster);
  const epoch = seat.store.read()?.epoch ?? 0;
  const result: Salvaged = {
    into: 'nothing',
    epoch,
    files: [],
    endLsn: formatLsn(wal.ends),
    timeline: wal.timeline,
  };
  if (head.flush !== null) return { ...result, endLsn: head.flush.lsn };
  if (wal.timeline !== head.timeline) {
    throw new VaultError(
      'refused',
      `the server was on timeline ${wal.timeline}, the vault is on ${head.timeline}: this is not the WAL that the vault waits for`,
      { hint: `'walvault rejoin --dry-run' says where the two parted.` },
    );
  }
  const put = async (file: string): Promise<void> => {
    const bytes = await readWalFile(pgdata.walDirectory, file);
    if (bytes === undefined) throw new VaultError('pgdata', `${file} waits to be archived but is not there`);
    const stored = await storeFile(cluster, { ...seat, epoch }, { name: file, bytes }, request.zstdLevel);
    if (stored === 'same') return;
    const [committed] = await commitFiles(cluster, seat, [stored], undefined, { evenIfOff: true });
    if (committed?.result === 'committed') result.files.push({ file, endLsn: endOf(wal, file) });
  };
  for (const file of await listReady(pgdata.walDirectory, 1_000_000)) await put(file);
  // Finished, but PostgreSQL died before it said so.
  for (;;) {
    const branch = await readBranch(cluster);
    const wanted = nextName(cluster, branch.head.lsn, branch.lineage, wal);
    const segment = wal.segments.find(({ file, onBranch }) => onBranch && file === wanted);
    if (segment === undefined) break;
    if (segment.isFull) {
      await put(segment.file);
      continue;
    }
    await putTail(cluster, request, segment, result);
    break;
  }
  return { ...result, into: result.files.length === 0 ? 'nothing' : 'vault' };
}

/** The name after head; a vault that holds nothing yet begins where the server's own WAL does. */
function nextName(
  cluster: Cluster,
  lsn: string | null,
  lineage: LocalWal['lineage'],
  wal: LocalWal,
): string | undefined {
  if (lsn === null) return wal.segments.find(({ onBranch }) => onBranch)?.name;
  return segmentsFrom(lineage, parseLsn(lsn), cluster.segmentSize).next().value;
}

async function putTail(
  cluster: Cluster,
  request: SalvageRequest,
  segment: LocalSegment,
  result: Salvaged,
): Promise<void> {
  if (segment.ends <= segmentStart(segment.name, cluster.segmentSize)) return;
  const bytes = await readWalFile(request.pgdata.walDirectory, segment.file);
  if (bytes === undefined) return;
  const before = await readBranch(cluster);
  const tail = before.head.tail;
  if (tail !== null && tail.timeline === result.timeline && parseLsn(tail.lsn) >= segment.ends) return;
  await commitTail(cluster, request.seat, { segment: segment.name, bytes, lsn: segment.ends }, 'salvage');
  result.files.push({ file: segment.file, endLsn: formatLsn(segment.ends) });
}

function endOf(wal: LocalWal, file: string): string | null {
  const segment = wal.segments.find((one) => one.file === file);
  return segment === undefined ? null : formatLsn(segment.ends);
}

/** After a failover: whatever the vault does not have with just these bytes, as far as it holds any record. */
async function keepAside(cluster: Cluster, request: SalvageRequest, wal: LocalWal): Promise<Salvaged> {
  const { seat, pgdata, zstdLevel } = request;
  const epoch = seat.store.read()?.epoch ?? 0;
  const branch = await readBranch(cluster);
  const holds = await readHolds(cluster);
  const result: Salvaged = {
    into: 'nothing',
    epoch,
    files: [],
    endLsn: formatLsn(wal.ends),
    timeline: wal.timeline,
  };
  const keep = async (file: string, bytes: Buffer, endLsn: Lsn | null): Promise<void> => {
    const end = endLsn === null ? null : formatLsn(endLsn);
    await putAside(cluster, { node: seat.node, epoch }, { file, bytes, endLsn: end }, zstdLevel);
    result.files.push({ file, endLsn: end });
  };
  for (const [file, text] of wal.histories) {
    const timeline = parseInt(file.slice(0, 8), 16);
    const row = (await cluster.vault.manifest.get(keys.history(cluster.partition, timeline))) as
      HistoryRow | undefined;
    // the comment that stands for a number given up was put here by restore
    if (row?.text !== text && !text.startsWith('#')) await keep(file, Buffer.from(text), null);
  }
  for (const segment of wal.segments) {
    if (segment.ends <= segmentStart(segment.name, cluster.segmentSize)) continue;
    if (wasDropped(segment.name, branch.head, holds?.horizon ?? {}, cluster.segmentSize)) continue;
    const held = await compareWithVault(cluster, branch, pgdata, segment);
    if (held.is === 'same' && held.upTo >= segment.ends) continue;
    const bytes = await readWalFile(pgdata.walDirectory, segment.file);
    if (bytes !== undefined) await keep(segment.file, bytes, segment.ends);
  }
  return { ...result, into: result.files.length === 0 ? 'nothing' : 'aside' };
}

/** Older than all that the vault ever had, or than what retention keeps: the vault lacks it for a reason. */
function wasDropped(name: string, head: Head, horizon: HoldsRow['horizon'], segmentSize: number): boolean {
  if (head.firstLsn !== null && segmentEnd(name, segmentSize) <= parseLsn(head.firstLsn)) return true;
  const kept = horizon[String(parseInt(name.slice(0, 8), 16))];
  return kept !== undefined && name < kept;
}

/** Object first, then row; there already with these bytes is fine. */
export async function putAside(
  cluster: Cluster,
  origin: { node: string; epoch: number },
  file: { file: string; bytes: Buffer; endLsn: string | null },
  zstdLevel: number,
): Promise<void> {
  const { manifest, bucket } = cluster.vault;
  const sha256 = sha256Of(file.bytes);
  const key = keys.aside(cluster.partition, origin, file.file, sha256);
  if ((await manifest.get(key)) !== undefined) return;
  const packed = await pack(file.bytes, zstdLevel);
  const row = asideRow(cluster, {
    ...origin,
    file: file.file,
    key: objectKeys.aside(cluster, origin, file.file, sha256, newId()),
    sha256,
    sizeBytes: file.bytes.length,
    storedBytes: packed.length,
    endLsn: file.endLsn,
  });
  await bucket.putOnce(row.key, packed, {
    cluster: cluster.name,
    'system-identifier': cluster.systemIdentifier,
    file: file.file,
    sha256,
    size: String(file.bytes.length),
    node: origin.node,
    epoch: String(origin.epoch),
  });
  const text = `${origin.node}: ${file.file} of epoch ${origin.epoch} was kept aside${file.endLsn === null ? '' : `, up to ${file.endLsn}`}`;
  const event = eventRow(cluster, { at: row.savedAt, kind: 'aside', ...origin, text });
  const outcome = await manifest.transact([
    { do: 'put', row: asRow(row), when: 'absent' },
    { do: 'put', row: asRow(event), when: 'absent' },
  ]);
  if (!outcome.done && (await manifest.get(key)) === undefined)
    throw new VaultError('busy', `the row of ${file.file} could not be put`, { hint: 'try again' });
}

/** What was kept aside, by epoch, node and file. */
export async function listAside(cluster: Cluster): Promise<AsideRow[]> {
  return listRows<AsideRow>(cluster, 'aside#');
}

/**
 * Fetches what was kept aside into <directory>/<epoch>-<node>/, verified; files that are there already with these bytes stay.
 *
 * @returns the files, absolute
 * @throws VaultError corrupt | local | unreachable
 */
export async function fetchAside(cluster: Cluster, directory: string): Promise<string[]> {
  const made: string[] = [];
  const seen = new Set<string>();
  for (const row of await listAside(cluster)) {
    const bytes = await readAside(cluster, row);
    const folder = path.resolve(directory, `${row.epoch}-${row.node}`);
    // salvaged twice, and grown in between: both are kept
    const name = seen.has(path.join(folder, row.file)) ? `${row.file}.${row.sha256.slice(0, 16)}` : row.file;
    const file = path.join(folder, name);
    seen.add(file);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const beside = await open(`${file}.tmp`, 'w', 0o600);
      try {
        await beside.writeFile(bytes);
        await beside.sync();
      } finally {
        await beside.close();
      }
      await rename(`${file}.tmp`, file);
      await syncDirectory(folder);
    } catch (cause) {
      throw new VaultError('local', `cannot write ${file}: ${(cause as Error).message}`, { cause });
    }
    made.push(file);
  }
  return made;
}

async function readAside(cluster: Cluster, row: AsideRow): Promise<Buffer> {
  const stored = await cluster.vault.bucket.get(row.key);
  if (stored === undefined) throw new VaultError('corrupt', `the object of ${row.file} is gone (${row.key})`);
  const bytes = await unpack(stored, row.sizeBytes).catch((cause: unknown) => {
    throw new VaultError('corrupt', `the object of ${row.file} does not unpack (${row.key})`, { cause });
  });
  if (sha256Of(bytes) !== row.sha256 || parseWalName(row.file) === undefined)
    throw new VaultError('corrupt', `${row.file} is not what its row says (${row.key})`);
  return bytes;
}
