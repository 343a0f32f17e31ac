/**
 * The processes that belong to a server's directories, found in /proc: postmaster, backends, the wrapper of a hook and what it runs,
 * the agent, and each of them in the moment between fork and exec.
 *
 * Descent alone does not find them: each child of the postmaster is a session of its own, so a signal to the postmaster's group
 * reaches nobody else, and a hook that outlives its server (system() does not notice) has lost its parent.
 */
import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** The kernel ends a killed process in milliseconds; one that hangs in a dead disk must not hold up the end of the demo for ever. */
const END_LIMIT_MS = 30_000;

/** Whether this system says what runs on it; without it a caller is left with the pids that it knows. */
export const areProcessesKnown = process.platform === 'linux';

/**
 * Kills every process that works in one of `folders` or names something in it, until a look and one more find none. A process without
 * a parent can be born only of one of these: when there is none left, none comes any more.
 *
 * A process with a terminal is a person's, who looks into a log: it is left alone.
 *
 * @param folders  absolute real paths
 */
export async function endProcessesIn(folders: readonly string[]): Promise<void> {
  if (!areProcessesKnown) return;
  const limit = performance.now() + END_LIMIT_MS;
  // /proc is not read in one moment: a child with a lower number than its parent is seen by the next look
  for (let clean = 0; clean < 2 && performance.now() < limit;) {
    const found = await processesIn(folders);
    for (const pid of found) kill(pid);
    clean = found.length === 0 ? clean + 1 : 0;
    if (found.length > 0) await sleep(5);
  }
}

async function processesIn(folders: readonly string[]): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  const mine = await Promise.all(
    pids.map(async (pid) => pid !== process.pid && (await belongs(`/proc/${pid}`, folders))),
  );
  return pids.filter((_pid, index) => mine[index]);
}

async function belongs(facts: string, folders: readonly string[]): Promise<boolean> {
  try {
    const stat = await readFile(`${facts}/stat`, 'latin1');
    // after the name, which may hold anything: state, parent, group, session, terminal
    const [state, , , , terminal] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (state === 'Z' || terminal !== '0') return false;
    // the link is gone after the files: a process without it holds no lock any more
    const place = await readlink(`${facts}/cwd`);
    const words = (await readFile(`${facts}/cmdline`, 'utf8')).split('\0');
    return folders.some(
      (folder) =>
        isWithin(place.replace(/ \(deleted\)$/, ''), folder) || words.some((word) => isWithin(word, folder)),
    );
  } catch {
    return false; // gone since it was listed, or another user's
  }
}

function isWithin(place: string, folder: string): boolean {
  return place === folder || place.startsWith(`${folder}/`);
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // gone meanwhile, which is what is wanted
  }
}
