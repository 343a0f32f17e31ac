/**
 * How a file of a data directory becomes durable: written beside its place, flushed, renamed, and the directory flushed.
 *
 * Without the flush of the directory a crash can bring the old file back (or none), after PostgreSQL acted on the new one.
 */
import { open, rename, rm } from 'node:fs/promises';
import path from 'node:path';

/** Flushes a directory's entries. @throws the system's error (ENOENT, EACCES) */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Replaces `file` by `text` so that a crash leaves the old file or the new one, never a part. Mode applies to a new file. */
export async function replaceFile(file: string, text: string | Uint8Array, mode = 0o600): Promise<void> {
  const beside = `${file}.walvault.tmp`;
  await rm(beside, { force: true });
  const handle = await open(beside, 'wx', mode);
  try {
    await handle.writeFile(text);
    await handle.chmod(mode); // the caller's umask must not take away what the server needs
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(beside, file);
  await syncDirectory(path.dirname(file));
}
