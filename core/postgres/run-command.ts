/**
 * A command line of the operator's own (on_role_change): run by sh, with a time limit, and with what it said kept short.
 *
 * It runs in a process group of its own, so that the limit reaches whatever it started and waits for.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';

export type CommandEnd = {
  /** Exit status; null where a signal ended it. */
  code: number | null;
  signal: NodeJS.Signals | null;
  timedOut: boolean;
  /** The end of standard output and error together. */
  said: string;
};

/** How much of its output is kept, in characters. */
const KEPT = 2000;
/** Between SIGTERM at the limit and SIGKILL, in ms. */
const GRACE_MS = 2000;

/**
 * @param line  as sh takes it; `args` are its $1, $2, …
 * @param options.env  added to this process's own
 * @param options.output  file for standard output and error, written anew: no pipe, whose end would kill a command that
 *                        outlives this process
 * @returns how it ended; never throws: a command that cannot be started is 127, as in a shell
 */
export function runCommandLine(
  line: string,
  args: readonly string[],
  options: { env: Record<string, string>; limitMs: number; output: string },
): Promise<CommandEnd> {
  return new Promise((resolve) => {
    const output = openSync(options.output, 'w', 0o600);
    const child = spawn('/bin/sh', ['-c', line, 'on_role_change', ...args], {
      cwd: '/', // the agent's own directory may be removed and made again meanwhile
      detached: true,
      stdio: ['ignore', output, output],
      env: { ...process.env, ...options.env },
    });
    closeSync(output);
    let timedOut = false;
    const timers = [
      setTimeout(() => {
        timedOut = true;
        signalGroup(child.pid, 'SIGTERM');
      }, options.limitMs),
      setTimeout(() => signalGroup(child.pid, 'SIGKILL'), options.limitMs + GRACE_MS),
    ];
    const end = (code: number | null, signal: NodeJS.Signals | null, said: string) => {
      for (const timer of timers) clearTimeout(timer);
      resolve({ code, signal, timedOut, said });
    };
    child.on('error', (error) => end(127, null, error.message));
    child.on('exit', (code, signal) => end(code, signal, endOf(options.output)));
  });
}

function endOf(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim().slice(-KEPT);
  } catch {
    return '';
  }
}

function signalGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // gone already
  }
}
