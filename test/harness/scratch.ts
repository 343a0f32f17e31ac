/**
 * What a test leaves on this machine, and how it goes away: scratch directories, and the processes that run in them.
 *
 * Every process of a test (servers, hooks, agents) names its scratch directory in its command line, its environment or
 * its working directory; that is how those are found which outlived their test, whatever they did to detach.
 */
import { mkdtempSync, readdirSync, readFileSync, readlinkSync, realpathSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * A wait is for a condition, so patience costs nothing where all is well; a slow or busy machine takes several times what the wait
 * names, which is what a machine of its own would do with room to spare.
 */
export const PATIENCE = 5;

/** The value that `condition` comes to (not false, not undefined), asked for again and again; throws after PATIENCE times `withinMs`. */
export async function waitFor<T>(
  what: string,
  withinMs: number,
  condition: () => Promise<T | false | undefined> | T | false | undefined,
): Promise<T> {
  const limitMs = withinMs * PATIENCE;
  const end = performance.now() + limitMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await condition();
      if (value !== false && value !== undefined) return value;
      last = undefined;
    } catch (error) {
      last = error; // a server that is just starting refuses connections; only the deadline decides
    }
    if (performance.now() > end) throw new Error(`not within ${limitMs} ms: ${what}`, { cause: last });
    await sleep(25);
  }
}

/**
 * Whether `work` settles before `limitMs` are over, by a timer that is started with it: where this process stands still both are late, and the
 * one that was due first still comes first.
 */
export async function settlesWithin(limitMs: number, work: Promise<unknown>): Promise<boolean> {
  const over = new AbortController();
  try {
    return await Promise.race([
      work.then(
        () => true,
        () => true,
      ),
      sleep(limitMs, false, { signal: over.signal }),
    ]);
  } finally {
    over.abort();
  }
}

/** A directory of one test file: short enough for socket paths; `name` may hold spaces and quotes. */
export function makeScratch(name = ''): string {
  return mkdtempSync(path.join(realpathSync(os.tmpdir()), `wv${name}-`));
}

export type ProcessFacts = { pid: number; parent: number; command: string; state: string };

/** Every process of this machine that may be looked at. Linux only: reads /proc. */
export function listProcesses(): ProcessFacts[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        const [state = '', parent = ''] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
        return [{ pid: Number(name), parent: Number(parent), command, state }];
      } catch {
        return []; // gone since it was listed
      }
    });
}

/** `pid` and everything it started, oldest first. */
export function processTree(pid: number): number[] {
  const all = listProcesses();
  const found = [pid];
  for (const member of found)
    found.push(...all.filter(({ parent }) => parent === member).map((child) => child.pid));
  return found;
}

/** Processes that belong to `scratch`, by command line, working directory or the environment they were started with. */
export function processesIn(scratch: string): ProcessFacts[] {
  return listProcesses().filter(({ pid, command, state }) => {
    if (pid === process.pid || state === 'Z') return false;
    return (
      command.includes(scratch) ||
      linkOf(pid, 'cwd').startsWith(scratch) ||
      environmentOf(pid).includes(scratch)
    );
  });
}

/** Processes whose working directory is just `folder` (a real path): of a server its postmaster, backends and hooks, not the agent. */
export function processesAt(folder: string): number[] {
  return listProcesses()
    .filter(({ pid, state }) => pid !== process.pid && state !== 'Z' && linkOf(pid, 'cwd') === folder)
    .map(({ pid }) => pid);
}

function linkOf(pid: number, name: string): string {
  try {
    return readlinkSync(`/proc/${pid}/${name}`);
  } catch {
    return '';
  }
}

function environmentOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch {
    return '';
  }
}

/** Until its last thread has ended: while the first one is a zombie the others may still hold a socket on which nobody will answer. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    if (!readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ')) return true;
    return readdirSync(`/proc/${pid}/task`).length > 1;
  } catch {
    return false;
  }
}

/** kill -9, and until the kernel has let go of it. */
export async function killHard(pids: number[]): Promise<void> {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // gone already
    }
  }
  await waitFor(`the end of ${pids.join(', ')}`, 10_000, () => !pids.some(isAlive));
}

/** Ends what still runs in `scratch`, and removes it. */
export async function removeScratch(scratch: string): Promise<void> {
  for (let round = 0; round < 20; round++) {
    const left = processesIn(scratch);
    if (left.length === 0) break;
    await killHard(left.map(({ pid }) => pid));
  }
  rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
}
