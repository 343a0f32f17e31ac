/**
 * The files by which PostgreSQL is told its role at the next start, and to promote.
 *
 *   standby.signal    start as a standby: read-only, asks restore_command again and again
 *   recovery.signal   archive recovery: read-only until restore_command says "not there" or the target is reached, then opens
 *   promote           with SIGUSR1 to the postmaster: a standby opens
 *
 * Source: PostgreSQL docs, "Write Ahead Log: Archive Recovery"; where both signal files stand, standby.signal rules.
 */
import { access, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { syncDirectory } from './durable-write.ts';

export type SignalFile = 'standby.signal' | 'recovery.signal' | 'promote';

/** What the server would do, or does, by its signal files. */
export type RecoveryMode = 'standby' | 'archive' | 'none';

/** Is the file there? @throws VaultError local (anything but "no such file", since a guess here could open a standby) */
export async function hasSignalFile(pgdata: string, name: SignalFile): Promise<boolean> {
  try {
    await access(path.join(pgdata, name));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw new VaultError('local', `cannot look for ${path.join(pgdata, name)}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Writes the (empty) file, durable when it returns; there already is fine. @throws VaultError local */
export async function writeSignalFile(pgdata: string, name: SignalFile): Promise<void> {
  const file = path.join(pgdata, name);
  try {
    const handle = await open(file, 'a', 0o600);
    await handle.sync().finally(() => handle.close());
    await syncDirectory(pgdata);
  } catch (error) {
    throw new VaultError('local', `cannot write ${file}: ${(error as Error).message}`, { cause: error });
  }
}

/** Removes the file, durable when it returns; absent already is fine. @throws VaultError local */
export async function removeSignalFile(pgdata: string, name: SignalFile): Promise<void> {
  const file = path.join(pgdata, name);
  try {
    await rm(file, { force: true });
    await syncDirectory(pgdata);
  } catch (error) {
    throw new VaultError('local', `cannot remove ${file}: ${(error as Error).message}`, { cause: error });
  }
}

/** The mode that PostgreSQL takes from the signal files of this data directory. */
export async function recoveryMode(pgdata: string): Promise<RecoveryMode> {
  if (await hasSignalFile(pgdata, 'standby.signal')) return 'standby';
  if (await hasSignalFile(pgdata, 'recovery.signal')) return 'archive';
  return 'none';
}
