/**
 * One agent per server: a lock that the kernel frees when its process ends, by kill -9 too.
 *
 * It is SQLite's own file lock, held by an open BEGIN EXCLUSIVE on `agent.lock`: a pid file can outlive its process and be
 * taken for another's, and Node has no flock. The file stays empty. Nobody else may open it in this process: POSIX drops a
 * process's locks when any of its descriptors on the file is closed.
 */
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';

export type NodeLock = { release(): void };

/**
 * Takes the lock, or says undefined when another process holds it until `waitMs` is over.
 *
 * @throws VaultError local  when the file cannot be made (state directory missing, read-only, another user's)
 */
export async function takeNodeLock(file: string, waitMs = 0): Promise<NodeLock | undefined> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    const lock = tryLock(file);
    if (lock !== undefined || performance.now() >= deadline) return lock;
    await sleep(20);
  }
}

function tryLock(file: string): NodeLock | undefined {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(file, { timeout: 0 });
    database.exec('BEGIN EXCLUSIVE');
    const held = database;
    return { release: () => held.close() };
  } catch (cause) {
    database?.close();
    if ((cause as { errcode?: number }).errcode === 5) return undefined; // SQLITE_BUSY
    throw new VaultError('local', `cannot lock ${file}: ${(cause as Error).message}`, {
      cause,
      hint: 'The state directory must belong to the user who runs the server, and be writable.',
    });
  }
}
