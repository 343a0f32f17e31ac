/**
 * The WAL that lies in a stopped server's pg_wal, read to its last record: which branch the server was on, how far it wrote, what each
 * file there holds of its own, and whether the vault has the same.
 *
 * Never trust PostgreSQL to refuse a diverged server: after a crash it starts as a standby without an error and replays its own pg_wal
 * past the fork (measured). So the files are read, and compared by their bytes, not by their names.
 */
import { readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { keys, type WalRow } from '../cluster/facts.ts';
import type { HeldVerdict, LocalServer } from '../cluster/decide-rejoin.ts';
import type { Pgdata } from '../postgres/pgdata.ts';
import { recoveryMode, type RecoveryMode } from '../postgres/signal-files.ts';
import { readWalFile } from '../postgres/wal-directory.ts';
import { lineageOf, segmentsFrom, type Lineage } from '../wal/lineage.ts';
import { parseLsn, type Lsn } from '../wal/lsn.ts';
import { historyName, parseWalName, segmentAt, segmentEnd, segmentStart } from '../wal/name.ts';
import { walkRecords, type Carry, type Walk } from '../wal/records.ts';
import type { Branch } from './branch.ts';
import type { Cluster } from './cluster.ts';
import { isWaitNode, readOpened, readSeal, type StatePaths } from './node-state.ts';
import { fetchFile, sha256Of } from './store-file.ts';
import { asWalRow, readTail } from './tail.ts';

export type LocalSegment = {
  /** As it lies in pg_wal, '.partial' included. */
  file: string;
  /** Name of the segment. */
  name: string;
  /** '' : archive_status says nothing. */
  status: 'ready' | 'done' | '';
  /** On the branch that the server was on, read one after the other from its redo point. */
  onBranch: boolean;
  /** End of the last whole record in it; its start where it has none: a recycled or preallocated file. */
  ends: Lsn;
  /** Valid to its end: the next segment may go on. */
  isFull: boolean;
};

export type LocalWal = {
  /** The newest timeline the server was on, by pg_control. */
  timeline: number;
  /** The text of its history file, as it lies in pg_wal. */
  historyText: string | undefined;
  lineage: Lineage;
  /** End of the last record along the server's branch. */
  ends: Lsn;
  /** Where that record begins; undefined: nothing could be read. */
  lastRecord: Lsn | undefined;
  /** Every segment and .partial of pg_wal, by name. */
  segments: LocalSegment[];
  /** History files in pg_wal, by name, with their text. */
  histories: Map<string, string>;
};

export type LocalBranch = Pick<LocalWal, 'timeline' | 'historyText' | 'lineage'>;

/** The branch that the server was on, by pg_control and its history file. */
export async function readLocalBranch(pgdata: Pgdata): Promise<LocalBranch> {
  const { control, walDirectory } = pgdata;
  const timeline = Math.max(control.timeline, control.minRecoveryTimeline);
  const historyText = (await readWalFile(walDirectory, historyName(timeline)))?.toString('utf8');
  return { timeline, historyText, lineage: localLineage(timeline, historyText) };
}

/** Marks a data directory that pg_rewind is working on: broken off, it can only be made anew. */
export const rewindMark = (paths: StatePaths): string => path.join(paths.dir, 'rewinding');

/** What a stopped server says of itself. @throws VaultError pgdata | local */
export async function readLocalServer(pgdata: Pgdata, paths: StatePaths, node: string): Promise<LocalServer> {
  const { control } = pgdata;
  const branch = await readLocalBranch(pgdata);
  const ready = path.join(pgdata.walDirectory, 'archive_status', `${historyName(branch.timeline)}.ready`);
  return {
    node,
    state: control.state,
    stateText: control.stateText,
    signal: await followedBy(pgdata, paths),
    hasBackupLabel: await isThere(path.join(pgdata.path, 'backup_label')),
    isHalfRewound: await isThere(rewindMark(paths)),
    ...branch,
    openedHere:
      readOpened(paths)?.timeline === branch.timeline ||
      readSeal(paths)?.reserved === branch.timeline ||
      (await isThere(ready)),
    checkpoint: control.checkpointLsn,
    minRecovery: control.minRecoveryLsn > control.redoLsn ? control.minRecoveryLsn : control.redoLsn,
  };
}

/** In wait mode recovery.signal is what standby.signal is elsewhere: the server follows, and opens by a promotion only. */
async function followedBy(pgdata: Pgdata, paths: StatePaths): Promise<RecoveryMode> {
  const mode = await recoveryMode(pgdata.path);
  return mode === 'archive' && isWaitNode(paths) ? 'standby' : mode;
}

/** Reads pg_wal. The server must not run. @throws VaultError pgdata | local */
export async function readLocalWal(pgdata: Pgdata): Promise<LocalWal> {
  const { control, walDirectory } = pgdata;
  const branch = await readLocalBranch(pgdata);
  const { lineage } = branch;
  const files = await readdir(walDirectory);
  const statuses = await statusesOf(walDirectory);
  const histories = new Map<string, string>();
  for (const file of files) {
    if (parseWalName(file)?.kind === 'history')
      histories.set(file, (await readWalFile(walDirectory, file))?.toString('utf8') ?? '');
  }
  const chain = await walkChain(pgdata, lineage, new Set(files));
  const segments: LocalSegment[] = [];
  for (const file of files.sort()) {
    const parsed = parseWalName(file);
    if (parsed?.kind !== 'segment' && parsed?.kind !== 'partial') continue;
    const name = file.slice(0, 24);
    const known = chain.walks.get(file);
    const walk = known ?? (await walkAlone(pgdata, file));
    const start = segmentStart(name, control.segmentSize);
    segments.push({
      file,
      name,
      status: statuses.get(file) ?? '',
      onBranch: known !== undefined,
      ends: walk === undefined || walk.records === 0 ? (walk?.skippedTo ?? start) : walk.ends,
      isFull: walk?.carry !== undefined,
    });
  }
  return {
    ...branch,
    ends: chain.ends,
    lastRecord: chain.lastRecord,
    segments,
    histories,
  };
}

/** A history that is lost or no history makes the timeline one without known ancestors: it will not be that of the vault. */
function localLineage(timeline: number, historyText: string | undefined): Lineage {
  try {
    return lineageOf(timeline, historyText);
  } catch {
    return lineageOf(timeline, undefined);
  }
}

async function statusesOf(walDirectory: string): Promise<Map<string, 'ready' | 'done'>> {
  const statuses = new Map<string, 'ready' | 'done'>();
  const entries = await readdir(path.join(walDirectory, 'archive_status')).catch(() => []);
  for (const entry of entries) {
    const found = /^(.*)\.(ready|done)$/.exec(entry);
    if (found?.[1] !== undefined) statuses.set(found[1], found[2] as 'ready' | 'done');
  }
  return statuses;
}

type Chain = { ends: Lsn; lastRecord: Lsn | undefined; walks: Map<string, Walk> };

/** Along the server's branch from its redo point, as crash recovery would read it, to where the WAL ends. */
async function walkChain(pgdata: Pgdata, lineage: Lineage, files: ReadonlySet<string>): Promise<Chain> {
  const { control, walDirectory } = pgdata;
  const { segmentSize, systemIdentifier } = control;
  const walks = new Map<string, Walk>();
  const chain: Chain = { ends: control.checkpointLsn, lastRecord: undefined, walks };
  let carry: Carry | undefined;
  for (const wanted of segmentsFrom(lineage, control.redoLsn, segmentSize)) {
    const name = nameOnDisk(wanted, lineage, files, segmentSize);
    const bytes = name === undefined ? undefined : await readWalFile(walDirectory, name);
    if (name === undefined || bytes === undefined) break;
    const walk = walkRecords(bytes, { name, segmentSize, systemIdentifier, carry });
    if (walk.records === 0 && walk.skippedTo === undefined && walk.carry === undefined) break;
    walks.set(name, walk);
    if (walk.records > 0) {
      chain.ends = walk.ends;
      chain.lastRecord = walk.last?.lsn;
    }
    carry = walk.carry;
    if (carry === undefined) break;
  }
  return chain;
}

/** PostgreSQL takes the newest timeline's file that is there, as XLogFileReadAnyTLI does. */
function nameOnDisk(
  wanted: string,
  lineage: Lineage,
  files: ReadonlySet<string>,
  segmentSize: number,
): string | undefined {
  if (files.has(wanted)) return wanted;
  const start = segmentStart(wanted, segmentSize);
  return lineage
    .toReversed()
    .filter(({ timeline }) => timeline < parseInt(wanted.slice(0, 8), 16))
    .map(({ timeline }) => segmentAt(timeline, start, segmentSize))
    .find((name) => files.has(name));
}

async function walkAlone(pgdata: Pgdata, file: string): Promise<Walk | undefined> {
  const { segmentSize, systemIdentifier } = pgdata.control;
  const bytes = await readWalFile(pgdata.walDirectory, file);
  if (bytes === undefined) return undefined;
  return walkRecords(bytes, { name: file.slice(0, 24), segmentSize, systemIdentifier });
}

/**
 * What the vault has in the place of a local segment, up to the local end of it: by its row, by the tail of its timeline, or by the
 * first segment of a child timeline, which begins as a copy of it.
 *
 * @param branch  the vault's live one
 * @throws VaultError corrupt | unreachable
 */
export async function compareWithVault(
  cluster: Cluster,
  branch: Branch,
  pgdata: Pgdata,
  segment: LocalSegment,
): Promise<HeldVerdict> {
  const { segmentSize } = cluster;
  const start = segmentStart(segment.name, segmentSize);
  const local = await readWalFile(pgdata.walDirectory, segment.file);
  if (local === undefined) throw new VaultError('pgdata', `${segment.file} is gone from pg_wal`);
  const row = await walRow(cluster, segment.name);
  if (row !== undefined && row.sha256 === sha256Of(local)) return { is: 'same', upTo: segment.ends };
  let best: HeldVerdict = { is: 'absent' };
  for (const twin of await twins(cluster, branch, segment.name, row)) {
    const theirs = await fetchFile(cluster, twin.row);
    const upTo = twin.upTo < segment.ends ? twin.upTo : segment.ends;
    const length = Number(upTo - start);
    const differsAt = firstDifference(local, theirs, length);
    if (differsAt < length) return { is: 'differs', at: start + BigInt(differsAt) };
    if (best.is === 'absent' || upTo > best.upTo) best = { is: 'same', upTo };
  }
  return best;
}

type Twin = { row: WalRow; upTo: Lsn };

async function twins(
  cluster: Cluster,
  branch: Branch,
  name: string,
  row: WalRow | undefined,
): Promise<Twin[]> {
  const timeline = parseInt(name.slice(0, 8), 16);
  const end = segmentEnd(name, cluster.segmentSize);
  const start = segmentStart(name, cluster.segmentSize);
  const found: Twin[] = row === undefined ? [] : [{ row, upTo: end }];
  const tail = await readTail(cluster, timeline);
  if (tail?.segment === name) found.push({ row: asWalRow(cluster, tail), upTo: parseLsn(tail.endLsn) });
  for (const part of branch.lineage) {
    if (part.timeline <= timeline || part.begins <= start || part.begins >= end) continue;
    const child = await walRow(cluster, segmentAt(part.timeline, start, cluster.segmentSize));
    if (child !== undefined) found.push({ row: child, upTo: part.begins });
  }
  return found;
}

async function walRow(cluster: Cluster, name: string): Promise<WalRow | undefined> {
  return (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow | undefined;
}

/** @returns `length` where the first `length` bytes agree */
function firstDifference(one: Buffer, other: Buffer, length: number): number {
  if (one.compare(other, 0, length, 0, length) === 0) return length;
  let low = 0;
  let high = length; // the first difference lies in [low, high)
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (one.compare(other, low, middle, low, middle) === 0) low = middle;
    else high = middle;
  }
  return low;
}

/** True where the file is there. */
export async function isThere(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}
