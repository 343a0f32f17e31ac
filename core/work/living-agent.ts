/**
 * Which process is the agent (or the watchdog) of a state directory, for those who would end it or tell of it. agent.json outlives its process and a
 * restart of the machine, and numbers are given again, to the agent of another server too: each runs its bundle and works in its state directory.
 */
import fs from 'node:fs';
import { isThere } from './lease-file.ts';
import type { StatePaths } from './node-state.ts';

export type LivingAgent = { pid: number; version: string };

/** By agent.json, where that process lives and still is this agent; one that has just started has not said yet who it is. */
export function livingAgent(paths: Pick<StatePaths, 'agent' | 'dir'>): LivingAgent | undefined {
  try {
    const { pid, version } = JSON.parse(fs.readFileSync(paths.agent, 'utf8')) as LivingAgent;
    return Number.isInteger(pid) && pid > 1 && isProgram(pid, 'agent', paths.dir)
      ? { pid, version }
      : undefined;
  } catch {
    return undefined; // none has ever run here, or it is just being written
  }
}

/**
 * @param bundle  `agent` or `watchdog`
 * @param dir     the state directory; '' for the working directory
 */
export function isProgram(pid: number, bundle: string, dir: string): boolean {
  if (!isThere(pid)) return false;
  try {
    if (!fs.existsSync('/proc/self')) return true; // macOS: nobody can tell
    return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(bundle) && worksIn(pid, dir);
  } catch {
    return false; // gone meanwhile; a zombie has no words
  }
}

function worksIn(pid: number, dir: string): boolean {
  try {
    return fs.readlinkSync(`/proc/${pid}/cwd`) === fs.realpathSync(dir === '' ? '.' : dir);
  } catch (error) {
    // another user's, of which /proc does not tell where it works
    return (error as NodeJS.ErrnoException).code === 'EACCES';
  }
}
