/**
 * The agent's answer for a hook, from an agent that is started for it where none runs.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Started } from '../core/postgres/start-detached.ts';
import { askAgent, NoAgent, type AgentAnswer, type AgentRequest } from '../core/work/agent-socket.ts';
import { startAgent } from '../core/work/programs.ts';

/**
 * How long a fresh agent may take until it listens, in ms (measured: about 150; seconds on a machine that has no time). One that fails to
 * start is noticed at once, so patience costs nothing: without it the hook would do the file alone, beside an agent that has the lock.
 */
const START_LIMIT_MS = 15_000;

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
  const deadline = performance.now() + START_LIMIT_MS;
  let started: Started | undefined;
  for (;;) {
    try {
      const answer = await askAgent(request, build);
      if (answer.ok || answer.code !== 'version') return answer;
    } catch (error) {
      if (!(error instanceof NoAgent)) throw error;
    }
    if (!mayStart || started?.end === 'failed' || performance.now() > deadline) return undefined;
    if (started === undefined || started.end === 'left') started = startAgent(stateDir);
    await sleep(10);
  }
}
