/**
 * Starts the agent from a hook: detached, in a session of its own, with /dev/null for its three streams.
 *
 * Every other descriptor is closed: an agent that kept the hook's stderr would keep the old log collector alive, and one that kept a
 * pipe of the shell that started the server would have that shell's reader wait for ever. Node marks what it inherits as
 * close-on-exec only up to the first free number above 15 (measured: a pipe at 251 was handed on); the rest is closed here. Signals that
 * PostgreSQL ignores Node sets back by itself. test/system/agent.test.ts looks into /proc.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { askAgent, NoAgent, type AgentAnswer, type AgentRequest } from '../core/work/agent-socket.ts';

/**
 * How long a fresh agent may take until it listens, in ms (measured: about 150; seconds on a machine that has no time). One that fails to
 * start is noticed at once, so patience costs nothing: without it the hook would do the file alone, beside an agent that has the lock.
 */
const START_LIMIT_MS = 15_000;

/** What became of an agent that was started. failed: it cannot run here; left: another one has the lock, or had it for too long. */
type Started = { end: 'failed' | 'left' | undefined };

/** Absolute state directory; the process works in it. */
export function startAgent(stateDir: string): Started {
  const started: Started = { end: undefined };
  closeInherited();
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
  child.on('error', () => (started.end = 'failed')); // no Node there: the hook does it alone
  child.on('exit', (code) => (started.end = code === 0 ? 'left' : 'failed'));
  child.unref();
  return started;
}

/** Closes what this process inherited and would hand on: its own descriptors are all close-on-exec. Elsewhere than on Linux not known. */
function closeInherited(): void {
  const closeOnExec = 0o2000000;
  let numbers: string[];
  try {
    numbers = fs.readdirSync('/proc/self/fd');
  } catch {
    return;
  }
  for (const number of numbers.map(Number).filter((each) => each > 2)) {
    try {
      const flags = /^flags:\s+([0-7]+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${number}`, 'utf8'))?.[1];
      if (flags !== undefined && (parseInt(flags, 8) & closeOnExec) === 0) fs.closeSync(number);
    } catch {
      // closed meanwhile: the descriptor of the directory that was just read
    }
  }
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
  let started: Started | undefined;
  for (;;) {
    try {
      const answer = await askAgent(request, build);
      if (answer.ok || answer.code !== 'version') return answer;
    } catch (error) {
      if (!(error instanceof NoAgent)) throw error;
    }
    if (!mayStart || started?.end === 'failed' || Date.now() > deadline) return undefined;
    if (started === undefined || started.end === 'left') started = startAgent(stateDir);
    await sleep(10);
  }
}
