/**
 * Starts the agent from a hook: detached, in a session of its own, with /dev/null for its three streams.
 *
 * Node closes every other descriptor on the way (it marks what it inherited as close-on-exec when it starts) and sets the signals
 * that PostgreSQL ignores back to their defaults: an agent that kept the hook's stderr would keep the old log collector alive, and one
 * that kept a socket would hold the server's port. test/system/agent.test.ts looks into /proc.
 */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { askAgent, NoAgent, type AgentAnswer, type AgentRequest } from '../core/work/agent-socket.ts';

/** How long a fresh agent may take until it listens, in ms (measured: about 150). */
const START_LIMIT_MS = 5000;

/** Absolute state directory; the process works in it. */
export function startAgent(stateDir: string): void {
  const child = spawn(
    path.join(stateDir, 'node'),
    [path.join(stateDir, 'program/dist/agent.cjs'), stateDir],
    {
      cwd: stateDir,
      detached: true,
      stdio: 'ignore',
      env: process.env,
    },
  );
  child.on('error', () => {}); // no Node there: the socket stays silent, the hook does it alone
  child.unref();
}

/**
 * The agent's answer, from one that was started for it if need be; undefined when none could be had.
 *
 * An agent of another version answers so and ends: the next one is of ours.
 */
export async function askOrStart(
  stateDir: string,
  request: AgentRequest,
  build: string,
  mayStart: boolean,
): Promise<AgentAnswer | undefined> {
  const deadline = Date.now() + START_LIMIT_MS;
  let started = false;
  for (;;) {
    try {
      const answer = await askAgent(request, build);
      if (answer.ok || answer.code !== 'version') return answer;
    } catch (error) {
      if (!(error instanceof NoAgent)) throw error;
    }
    if (!mayStart || Date.now() > deadline) return undefined;
    if (!started) startAgent(stateDir);
    started = true;
    await sleep(10);
  }
}
