/**
 * pg_wal: which files PostgreSQL waits to have archived, and their bytes.
 *
 *   pg_wal/archive_status/<name>.ready   to be archived
 *   pg_wal/archive_status/<name>.done    archived, or came through restore_command
 *
 * Source: PostgreSQL, pgarch.c: history files go first, then the names in byte order.
 */
import { access, opendir, readFile, readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';

/**
 * Names waiting to be archived, in PostgreSQL's order: history files, then by name.
 *
 * One pass over the directory however many files it holds, no stat of any of them; at most about twice `limit` names
 * are kept, so that a backlog of 100,000 costs its directory read (some 100 ms) once for each `limit` names, not for each name.
 *
 * @param walDirectory  the real path of pg_wal
 * @throws VaultError pgdata (no archive_status) | local
 */
export async function listReady(walDirectory: string, limit = 1024): Promise<string[]> {
  let kept: string[] = [];
  const status = path.join(walDirectory, 'archive_status');
  try {
    for await (const entry of await opendir(status, { bufferSize: 1024 })) {
      if (!entry.name.endsWith('.ready')) continue;
      kept.push(entry.name.slice(0, -'.ready'.length));
      if (kept.length >= limit * 2 + 64) kept = kept.sort(readyOrder).slice(0, limit);
    }
  } catch (error) {
    throw readError(status, error);
  }
  return kept.sort(readyOrder).slice(0, limit);
}

/**
 * Since when the file that PostgreSQL will hand in next has waited: its mark is made when it is finished.
 *
 * @returns undefined: none waits @throws VaultError pgdata | local
 */
export async function waitingSince(walDirectory: string): Promise<Date | undefined> {
  for (const name of await listReady(walDirectory, 8)) {
    const mark = await stat(path.join(walDirectory, 'archive_status', `${name}.ready`)).catch(
      () => undefined,
    );
    // archived since it was listed: the next one
    if (mark !== undefined) return mark.mtime;
  }
  return undefined;
}

/** Is this one file waiting? One look, whatever the directory holds. @throws VaultError local */
export async function isReady(walDirectory: string, name: string): Promise<boolean> {
  const file = path.join(walDirectory, 'archive_status', `${name}.ready`);
  try {
    await access(file);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw readError(file, error);
  }
}

/** PostgreSQL's order of archiving. */
export function readyOrder(left: string, right: string): number {
  const history = Number(right.endsWith('.history')) - Number(left.endsWith('.history'));
  if (history !== 0) return history;
  return left < right ? -1 : left > right ? 1 : 0;
}

/** The file's bytes, or undefined where pg_wal lacks it. @throws VaultError local */
export async function readWalFile(walDirectory: string, name: string): Promise<Buffer | undefined> {
  const file = path.join(walDirectory, name);
  try {
    return await readFile(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw readError(file, error);
  }
}

/** The names of the timeline history files in pg_wal, ascending. @throws VaultError local */
export async function listHistories(walDirectory: string): Promise<string[]> {
  try {
    return (await readdir(walDirectory)).filter((name) => /^[0-9A-F]{8}\.history$/.test(name)).sort();
  } catch (error) {
    throw readError(walDirectory, error);
  }
}

function readError(file: string, error: unknown): VaultError {
  const code = (error as NodeJS.ErrnoException).code;
  return new VaultError(
    code === 'ENOENT' ? 'pgdata' : 'local',
    `cannot read ${file}: ${(error as Error).message}`,
    {
      cause: error,
      hint:
        code === 'EACCES'
          ? 'Run walvault as the user who runs the server.'
          : 'Look whether the file system is mounted and whole.',
    },
  );
}
