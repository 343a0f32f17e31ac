/**
 * Starts a process that outlives this one: in a session of its own, with /dev/null for its three streams.
 *
 * Every other descriptor is closed: an agent that kept the hook's stderr would keep the old log collector alive, and one that kept a
 * pipe of the shell that started the server would have that shell's reader wait for ever. Node marks what it inherits as
 * close-on-exec only up to the first free number above 15 (measured: a pipe at 251 was handed on); the rest is closed here. Signals that
 * PostgreSQL ignores Node sets back by itself. test/system/agent.test.ts looks into /proc.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';

/** What became of it. failed: it cannot run here; left: it ended, since another one is there already. */
export type Started = { end: 'failed' | 'left' | undefined };

/** @param dir  where it works, absolute */
export function startDetached(dir: string, program: string, words: readonly string[]): Started {
  const started: Started = { end: undefined };
  closeInherited();
  const child = spawn(program, words, { cwd: dir, detached: true, stdio: 'ignore', env: process.env });
  child.on('error', () => (started.end = 'failed'));
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
