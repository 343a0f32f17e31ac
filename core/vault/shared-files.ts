/**
 * Files and directories of a file: vault: durable, and shared as the vault's own directory says.
 *
 * Where that directory is writable by its group (`chgrp walvault /srv/vault; chmod 2770 /srv/vault`), everything below is too,
 * whatever the umask of a server or an operator is; where it is not, the umask decides. What root makes (`sudo walvault …`)
 * belongs to the directory's owner, or the server could no longer write beside it.
 */
import { constants } from 'node:fs';
import { chmod, chown, link, mkdir, open, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';

export const FILE_MODE = 0o660;
export const DIRECTORY_MODE = 0o2770;

export type Share = { group: boolean; owner: { uid: number; gid: number } | undefined };

/** How things below `directory` are to be shared. */
export async function shareOf(directory: string): Promise<Share> {
  const { mode, uid, gid } = await stat(directory);
  const isRoot = process.getuid?.() === 0;
  return {
    group: (mode & 0o020) !== 0,
    owner: isRoot && (uid !== 0 || gid !== 0) ? { uid, gid } : undefined,
  };
}

/** Modes are given when the file is made, so that it is never open to more people than at the end. */
export async function adopt(file: string, mode: number, share: Share): Promise<void> {
  if (share.owner !== undefined) await chown(file, share.owner.uid, share.owner.gid);
  if (share.group) await chmod(file, mode); // after chown, which takes the set-group bit away
}

/** Makes names in `directory` durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Makes `directory`, which lies below `root`, with all that is missing between, and makes the whole way durable. */
export async function makeDirectory(root: string, directory: string, share: Share): Promise<void> {
  const missing: string[] = [];
  for (let at = directory; at !== root; at = path.dirname(at)) missing.push(at);
  for (const at of missing.reverse()) {
    try {
      await mkdir(at, { mode: DIRECTORY_MODE });
      await adopt(at, DIRECTORY_MODE, share);
    } catch (error) {
      if (errnoOf(error) !== 'EEXIST') throw error;
    }
    // even where it was there: whoever made it may not have come to this line
    await syncDirectory(path.dirname(at));
  }
}

/**
 * Publishes `parts` as `file`, durably: 'stored', or 'exists' where the name was taken.
 * link(2) fails where the name exists; rename would overwrite, and two writers would both believe that theirs is kept.
 */
export async function publishOnce(
  file: string,
  parts: readonly Uint8Array[],
  temporary: string,
  share: Share,
): Promise<'stored' | 'exists'> {
  try {
    const handle = await open(temporary, 'wx', FILE_MODE);
    try {
      const { bytesWritten } = await handle.writev([...parts]);
      const wantedBytes = parts.reduce((sum, part) => sum + part.length, 0);
      if (bytesWritten < wantedBytes) {
        // a short write is no error to the kernel (a disk that fills up, a signal): the rest, or the reason why not
        let rest = Buffer.concat(parts).subarray(bytesWritten);
        while (rest.length > 0) rest = rest.subarray((await handle.write(rest)).bytesWritten);
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    await adopt(temporary, FILE_MODE, share);
    await link(temporary, file);
    await syncDirectory(path.dirname(file));
    return 'stored';
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return 'exists';
    throw error;
  } finally {
    await unlink(temporary).catch(() => undefined); // the sweep takes it otherwise
  }
}

export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

const HINTS: Record<string, string> = {
  ENOSPC: 'free space there, or move the vault; PostgreSQL keeps its segments in pg_wal until then.',
  EDQUOT: 'raise the quota; PostgreSQL keeps its segments in pg_wal until then.',
  EROFS: 'mount it writable; a disk with errors is made read-only by the kernel (see dmesg).',
  EACCES:
    "let the user that runs this read and write it: operator and servers share the directory's group (chmod 2770).",
  EPERM:
    "let the user that runs this read and write it: operator and servers share the directory's group (chmod 2770).",
  EIO: 'look at the disk (dmesg, smartctl).',
  EMFILE: 'raise the limit of open files (ulimit -n).',
  ENOTDIR: 'something else lies where a directory of the vault should be.',
  ENOENT: "the vault's directory is gone: mount it, or restore it.",
};

/** A failure of the operating system as VaultError local, which names the directory and what to do; others as they are. */
export function localFailure(error: unknown, what: string, directory: string): unknown {
  const errno = errnoOf(error);
  if (error instanceof VaultError || errno === undefined || !/^E[A-Z0-9]+$/.test(errno)) return error;
  const words =
    errno === 'ENOSPC'
      ? 'no space left'
      : errno === 'EACCES' || errno === 'EPERM'
        ? 'permission denied'
        : errno;
  const hint = HINTS[errno];
  return new VaultError(
    'local',
    `cannot ${what} in ${directory}: ${words}`,
    hint === undefined ? { cause: error } : { hint, cause: error },
  );
}
