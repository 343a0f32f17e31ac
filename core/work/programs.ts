/** The long-lived processes of a state directory: the agent and the watchdog, from the installed version that its links name. */
import path from 'node:path';
import { startDetached, type Started } from '../postgres/start-detached.ts';

/** @param stateDir  absolute */
export const startAgent = (stateDir: string): Started => start(stateDir, 'agent.cjs');

/** The watchdog of a server whose lease wants one as a process (watchdog = "process"). */
export const startWatchdog = (stateDir: string): Started => start(stateDir, 'watchdog.cjs', 'process');

function start(stateDir: string, bundle: string, ...words: string[]): Started {
  const program = path.join(stateDir, 'program/dist', bundle);
  return startDetached(stateDir, path.join(stateDir, 'node'), [program, stateDir, ...words]);
}
