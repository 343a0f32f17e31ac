/**
 * Changing a state directory while no agent works in it: one that runs is asked to end, and none can start until it is done.
 * An agent that went on would keep the old settings, and write into a spool that is no longer there.
 */
import { existsSync } from 'node:fs';
import { VaultError } from '../errors.ts';
import { livingAgent } from './living-agent.ts';
import { takeNodeLock } from './node-lock.ts';
import { statePaths } from './node-state.ts';

/** An agent ends within a second; one that is in the middle of an upload takes a little longer. */
const END_LIMIT_MS = 15_000;
/** Between two times that it is asked, ms. */
const ASK_EVERY_MS = 100;

/**
 * Runs `work` with the agent's lock held. The next hook starts an agent again.
 *
 * @throws VaultError busy  when the agent does not end
 */
export async function withoutAgent<T>(stateDir: string, work: () => Promise<T>): Promise<T> {
  if (!existsSync(stateDir)) return work();
  const paths = statePaths(stateDir);
  let lock = await takeNodeLock(paths.lock);
  const deadline = performance.now() + END_LIMIT_MS;
  // Who has the lock is asked anew each time: one that has just started has it before it has said who it is, and of those that wait for the
  // same lock (a hook or the watchdog has started them) one may be faster than this process.
  while (lock === undefined) {
    const pid = livingAgent(paths)?.pid;
    if (performance.now() > deadline) {
      throw new VaultError('busy', `the agent of ${stateDir} (pid ${pid ?? 'unknown'}) does not end`, {
        hint: `Look into ${paths.log}; 'kill -9 ${pid ?? 'its pid'}' does no harm: nothing is lost by it.`,
      });
    }
    if (pid !== undefined) signalEnd(pid);
    lock = await takeNodeLock(paths.lock, ASK_EVERY_MS);
  }
  try {
    return await work();
  } finally {
    lock.release();
  }
}

function signalEnd(pid: number): void {
  try {
    process.kill(pid, 'SIGTERM');
  } catch {
    // gone already, or another user's: the lock decides
  }
}
