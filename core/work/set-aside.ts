/**
 * pg_wal of a server that becomes a standby as it is: PostgreSQL reads there what restore_command does not give, so whatever is not of
 * the live branch is moved to <state>/aside/<time>/; nothing that holds a record is deleted.
 */
import { copyFile, mkdir, open, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { keys, type HistoryRow } from '../cluster/facts.ts';
import { syncDirectory } from '../postgres/durable-write.ts';
import type { Pgdata } from '../postgres/pgdata.ts';
import { parseWalName, segmentStart } from '../wal/name.ts';
import type { Branch } from './branch.ts';
import type { Cluster } from './cluster.ts';
import { compareWithVault, type LocalSegment, type LocalWal } from './local-wal.ts';

export type AsidePlan = {
  /** Moved: they hold records that are not of the live branch, or histories that the vault does not have. */
  move: string[];
  /** Recycled and preallocated files: no record of their own. */
  empty: string[];
};

/** @throws VaultError corrupt | unreachable */
export async function planAside(
  cluster: Cluster,
  branch: Branch,
  pgdata: Pgdata,
  wal: LocalWal,
): Promise<AsidePlan> {
  const plan: AsidePlan = { move: [], empty: [] };
  for (const [file, text] of wal.histories) {
    const timeline = parseInt(file.slice(0, 8), 16);
    const row = (await cluster.vault.manifest.get(keys.history(cluster.partition, timeline))) as
      HistoryRow | undefined;
    if (row?.text !== text) plan.move.push(file);
  }
  for (const segment of wal.segments) {
    if (segment.ends <= segmentStart(segment.name, cluster.segmentSize)) plan.empty.push(segment.file);
    else if (!(await isLive(cluster, branch, pgdata, segment))) plan.move.push(segment.file);
  }
  return plan;
}

/** All that it holds is on the live branch, and the vault has the same. */
async function isLive(
  cluster: Cluster,
  branch: Branch,
  pgdata: Pgdata,
  segment: LocalSegment,
): Promise<boolean> {
  const timeline = parseWalName(segment.file)?.timeline;
  const part = branch.lineage.find((one) => one.timeline === timeline);
  if (part === undefined || segment.file !== segment.name) return false;
  if (part.ends !== null && segment.ends > part.ends) return false;
  const held = await compareWithVault(cluster, branch, pgdata, segment);
  return held.is === 'same' && held.upTo >= segment.ends;
}

/**
 * Carries the plan out. Broken off, it may be done again: what was moved is no longer there.
 *
 * @returns where the moved files lie; undefined: none was moved
 * @throws VaultError local
 */
export async function setAside(
  walDirectory: string,
  stateDir: string,
  plan: AsidePlan,
  at: Date,
): Promise<string | undefined> {
  const target = path.join(stateDir, 'aside', at.toISOString().replace(/[-:]|\.\d+/g, ''));
  try {
    if (plan.move.length > 0) await mkdir(target, { recursive: true, mode: 0o700 });
    for (const file of plan.move) await move(path.join(walDirectory, file), path.join(target, file));
    if (plan.move.length > 0) await syncDirectory(target);
    for (const file of plan.empty) await rm(path.join(walDirectory, file), { force: true });
    const gone = new Set([...plan.move, ...plan.empty]);
    const status = path.join(walDirectory, 'archive_status');
    for (const entry of await readdir(status)) {
      if (gone.has(entry.replace(/\.(ready|done)$/, ''))) await rm(path.join(status, entry), { force: true });
    }
    await syncDirectory(status);
    await syncDirectory(walDirectory);
  } catch (cause) {
    throw new VaultError('local', `cannot set WAL aside into ${target}: ${(cause as Error).message}`, {
      cause,
      hint: 'The state directory must be writable and have room; then run the same command again.',
    });
  }
  return plan.move.length > 0 ? target : undefined;
}

/** pg_wal and the state directory may lie on two file systems. */
async function move(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    await copyFile(from, to);
    const handle = await open(to, 'r');
    await handle.sync().finally(() => handle.close());
    await rm(from);
  }
}
