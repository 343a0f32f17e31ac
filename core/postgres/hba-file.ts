/**
 * pg_hba.conf, exchanged for one that rejects everybody and put back.
 *
 *   pg_hba.conf            the file that the postmaster reads at its start and at each reload
 *   pg_hba.conf.walvault   the original, under a second name while the other stands in its place
 *
 * The original is never written again: it gets a second name (the same inode: owner, mode and content stay) and is renamed back.
 *
 * Source: PostgreSQL docs, "Client Authentication: The pg_hba.conf File".
 */
import {
  access,
  constants,
  copyFile,
  link,
  open,
  readFile,
  realpath,
  rename,
  rm,
  stat,
} from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { replaceFile, syncDirectory } from './durable-write.ts';
import { runningServer } from './pgdata.ts';

const FIRST_LINE = '# walvault: nobody is let in while this server is flushed; the original lies beside';

const REJECT = `${FIRST_LINE}
local all         all     reject
host  all         all all reject
local replication all     reject
host  replication all all reject
`;

const savedName = (hbaFile: string): string => `${hbaFile}.walvault`;

/**
 * May the file be exchanged? Looks, and changes nothing.
 *
 * @returns its real path: a link would be replaced by a file
 * @throws VaultError local
 */
export async function checkHbaFile(hbaFile: string): Promise<string> {
  try {
    const file = await realpath(hbaFile);
    await access(file, constants.R_OK);
    await access(path.dirname(file), constants.W_OK | constants.X_OK);
    return file;
  } catch (cause) {
    throw new VaultError('local', `${hbaFile} cannot be exchanged: ${(cause as Error).message}`, {
      cause,
      hint: 'The user who runs the server must be able to write in its directory.',
    });
  }
}

/** Gives the original its second name; durable when it returns. @throws VaultError local */
export async function saveHbaFile(hbaFile: string): Promise<void> {
  const saved = savedName(hbaFile);
  await changing(hbaFile, async () => {
    await rm(saved, { force: true });
    try {
      await link(hbaFile, saved);
    } catch (error) {
      // another's file (protected_hardlinks), or a file system without links
      if (!['EPERM', 'EACCES', 'ENOTSUP', 'EMLINK'].includes((error as NodeJS.ErrnoException).code ?? ''))
        throw error;
      await copyFile(hbaFile, saved);
      const handle = await open(saved, 'r+');
      await handle.sync().finally(() => handle.close());
    }
    await syncDirectory(path.dirname(hbaFile));
  });
}

/** Puts the one that rejects everybody into the place of the saved original. It counts from the next reload on. @throws VaultError local */
export async function rejectEverybody(hbaFile: string): Promise<void> {
  await changing(hbaFile, async () => {
    const { mode } = await stat(hbaFile);
    await replaceFile(hbaFile, REJECT, mode & 0o777);
  });
}

/**
 * Puts the original back, wherever the exchange was broken off. A file that somebody else has put there meanwhile stays, and the
 * original keeps its second name.
 *
 * @returns false where somebody else's file stands there
 * @throws VaultError local
 */
export async function putBackHbaFile(hbaFile: string): Promise<boolean> {
  const saved = savedName(hbaFile);
  return changing(hbaFile, async () => {
    const original = await readFile(saved, 'utf8').catch(absent);
    if (original === undefined) return true;
    const present = await readFile(hbaFile, 'utf8').catch(absent);
    const isOurs = present === undefined || present.startsWith(FIRST_LINE);
    if (!isOurs && present !== original) return false;
    // rename(2) does nothing where both names are one file: then the second name is what goes
    if (isOurs) await rename(saved, hbaFile);
    else await rm(saved, { force: true });
    await syncDirectory(path.dirname(hbaFile));
    return true;
  });
}

/** Has a running postmaster read its files again, without a connection. @returns false where none runs @throws VaultError pgdata | denied */
export async function signalReload(pgdata: string): Promise<boolean> {
  const server = await runningServer(pgdata);
  if (server === undefined) return false;
  try {
    process.kill(server.pid, 'SIGHUP');
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw new VaultError(
      'denied',
      `cannot signal the server (pid ${server.pid}): ${(cause as Error).message}`,
      {
        cause,
        hint: 'Run walvault as the user who runs the server.',
      },
    );
  }
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
  return undefined;
}

async function changing<T>(hbaFile: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new VaultError('local', `cannot change ${hbaFile}: ${(cause as Error).message}`, { cause });
  }
}
