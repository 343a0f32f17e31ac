/**
 * The server as a process: started by pg_ctl, stopped and promoted by signals, as pg_ctl does it.
 *
 *   SIGTERM smart (waits for sessions)   SIGINT fast   SIGQUIT immediate (crash recovery follows)   SIGUSR1 look for `promote`
 *
 * Source: PostgreSQL docs, "Server Setup and Operation: Shutting Down the Server"; src/bin/pg_ctl/pg_ctl.c.
 */
import { spawn } from 'node:child_process';
import { access, constants, readdir, readFile, readlink } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { controlLine } from './control-words.ts';
import { runningServer, type RunningServer } from './pgdata.ts';
import { removeSignalFile, writeSignalFile } from './signal-files.ts';

export type StopMode = 'smart' | 'fast' | 'immediate';

const STOP_SIGNAL = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const;

/** @throws VaultError pgdata where postmaster.pid cannot be read */
export async function isRunning(pgdata: string): Promise<boolean> {
  return (await runningServer(pgdata)) !== undefined;
}

/** Sends the signal of a stop and does not wait. @returns false: no server runs @throws VaultError pgdata | denied */
export async function signalStop(pgdata: string, mode: StopMode): Promise<boolean> {
  const server = await runningServer(pgdata);
  if (server === undefined) return false;
  try {
    process.kill(server.pid, STOP_SIGNAL[mode]);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw signalFailure(server, error);
  }
  return true;
}

/**
 * Asks a standby to promote, as `pg_ctl promote` does: the file first (durable), then the signal; needs no connection.
 * Returns when PostgreSQL was asked, not when it is done.
 *
 * @param pgdata  the real path
 * @throws VaultError refused (no server runs) | local
 */
export async function promote(pgdata: string): Promise<void> {
  const server = await runningServer(pgdata);
  if (server === undefined) throw notRunning(pgdata);
  await writeSignalFile(pgdata, 'promote');
  try {
    process.kill(server.pid, 'SIGUSR1');
  } catch (error) {
    // left behind it would promote the server at its next start, unasked
    await removeSignalFile(pgdata, 'promote');
    throw signalFailure(server, error);
  }
}

/**
 * Stops the server and waits until it is gone; none running is fine.
 *
 * @param limitMs  deadline; a hanging archive_command holds up smart and fast
 * @throws VaultError unreachable (still running at the deadline) | denied
 */
export async function stopServer(pgdata: string, mode: StopMode, limitMs = 60_000): Promise<void> {
  const server = await runningServer(pgdata);
  if (server === undefined || !(await signalStop(pgdata, mode))) return;
  const deadline = performance.now() + limitMs;
  while ((await runningServer(pgdata))?.pid === server.pid) {
    if (performance.now() > deadline) {
      throw new VaultError(
        'unreachable',
        `the server (pid ${server.pid}) on ${pgdata} did not stop within ${limitMs / 1000} s (${mode})`,
        {
          hint:
            mode === 'immediate'
              ? `Look into its log; kill -9 ${server.pid} is the last resort.`
              : `pg_ctl -D '${pgdata}' stop -m immediate`,
        },
      );
    }
    await delay(20);
  }
}

export type StartOptions = {
  binDir: string;
  /** The server's output is appended here; it must not lie on our own streams, or they never close. */
  logFile: string;
  /** Further words for the postmaster, as pg_ctl -o takes them: `-p 5433`. */
  serverOptions?: string;
  limitMs?: number;
};

/**
 * Starts the server and waits until it answers (hot_standby = off: until it has begun).
 *
 * @throws VaultError refused (it did not come up; the message names the log) | unconfigured (no pg_ctl there)
 */
export async function startServer(pgdata: string, options: StartOptions): Promise<void> {
  const seconds = Math.ceil((options.limitMs ?? 60_000) / 1000);
  const words = ['start', '-D', pgdata, '-w', '-t', String(seconds), '-s', '-l', options.logFile];
  if (options.serverOptions !== undefined) words.push('-o', options.serverOptions);
  const code = await run(path.join(options.binDir, 'pg_ctl'), words);
  if (code === 0) return;
  throw new VaultError('refused', `the server on ${pgdata} did not start (pg_ctl ended with ${code})`, {
    hint: `Its log says why: ${options.logFile}`,
  });
}

/**
 * Where PostgreSQL's programs are: PGBIN, else where the running postmaster's own is, else the PATH, else the places of
 * the packages (Debian, Red Hat); undefined where none has them.
 */
export async function findBinDir(
  majorVersion: number,
  running: RunningServer | undefined,
  env: NodeJS.ProcessEnv = process.env,
): Promise<string | undefined> {
  if (env.PGBIN !== undefined && env.PGBIN !== '') return env.PGBIN;
  const exe =
    running === undefined ? undefined : await readlink(`/proc/${running.pid}/exe`).catch(() => undefined);
  const places = [
    ...(exe === undefined ? [] : [path.dirname(exe.replace(/ \(deleted\)$/, ''))]),
    `/usr/lib/postgresql/${majorVersion}/bin`,
    `/usr/pgsql-${majorVersion}/bin`,
    ...(env.PATH ?? '').split(':').filter((place) => path.isAbsolute(place)),
  ];
  for (const place of places) {
    const found = await access(path.join(place, 'postgres'), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return place;
  }
  return undefined;
}

/** The major version of the programs in `binDir`, or undefined where they do not say. */
export async function binMajorVersion(binDir: string): Promise<number | undefined> {
  const { code, output } = await capture(path.join(binDir, 'postgres'), ['--version']).catch(() => ({
    code: 1,
    output: '',
  }));
  const found = /\(PostgreSQL\) (\d+)/.exec(output);
  return code === 0 && found?.[1] !== undefined ? Number(found[1]) : undefined;
}

/**
 * Has PostgreSQL itself judge a parameter: `postgres -C` prints its value and starts nothing, needs no data directory.
 *
 * @returns its complaint, or undefined where name and value are right (or it cannot tell: it does not run as root)
 */
export async function judgeParameter(
  binDir: string,
  name: string,
  value: string,
): Promise<string | undefined> {
  const words = ['-D', '/', '-c', 'config_file=/dev/null', '-c', `${name}=${value}`, '-C', name];
  const { code, output } = await capture(path.join(binDir, 'postgres'), words).catch(() => ({
    code: 0,
    output: '',
  }));
  if (code === 0) return undefined;
  return /(?:FATAL|LOG|ERROR): +(.*(?:parameter|range|value).*)/.exec(output)?.[1];
}

function run(program: string, words: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: 'ignore' });
    child.on('error', (error) => reject(noProgram(program, error)));
    child.on('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)));
  });
}

function capture(program: string, words: string[]): Promise<{ code: number; output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C' },
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.on('error', (error) => reject(noProgram(program, error)));
    child.on('close', (code) => resolve({ code: code ?? 1, output }));
  });
}

function noProgram(program: string, cause: Error): VaultError {
  return new VaultError('unconfigured', `cannot run ${program}: ${cause.message}`, {
    cause,
    hint: 'Say with PGBIN where the programs of PostgreSQL are.',
  });
}

function notRunning(pgdata: string): VaultError {
  return new VaultError('refused', `no server runs on ${pgdata}`, { hint: controlLine(pgdata, 'start') });
}

function signalFailure(server: RunningServer, cause: unknown): VaultError {
  return new VaultError(
    'denied',
    `cannot signal the server (pid ${server.pid}): ${(cause as Error).message}`,
    {
      cause,
      hint: 'Run walvault as the user who runs the server.',
    },
  );
}

/**
 * Kills everything that runs on this data directory: the postmaster, first halted so that it starts nobody meanwhile, and each of its
 * processes, orphans of a postmaster that is dead, too. The next start recovers as after a power failure; nothing that was acknowledged is lost.
 *
 * Linux: processes are found by their working directory in /proc.
 *
 * @returns how many were killed
 * @throws VaultError unreachable  some are left (a process in a system call that does not end takes no signal, and no write of a client)
 */
export async function killServer(pgdata: string, limitMs = 5000): Promise<number> {
  const server = await runningServer(pgdata).catch(() => undefined);
  if (server !== undefined) signal(server.pid, 'SIGSTOP');
  const killed = new Set<number>();
  const deadline = performance.now() + limitMs;
  for (;;) {
    const pids = await serverProcesses(pgdata);
    if (server !== undefined && killed.size === 0 && !pids.includes(server.pid)) pids.push(server.pid);
    if (pids.length === 0) return killed.size;
    for (const pid of pids) {
      killed.add(pid);
      signal(pid, 'SIGKILL');
    }
    if (performance.now() > deadline)
      throw new VaultError(
        'unreachable',
        `${pids.length} processes on ${pgdata} do not end: ${pids.join(', ')}`,
        {
          hint: 'Restart the machine.',
        },
      );
    await delay(20);
  }
}

/** Processes of a server, whether its postmaster lives or not. */
export async function serverProcesses(pgdata: string): Promise<number[]> {
  const found: number[] = [];
  for (const entry of await readdir('/proc').catch(() => [])) {
    if (!/^\d+$/.test(entry)) continue;
    const cwd = await readlink(`/proc/${entry}/cwd`).catch(() => undefined);
    if (cwd !== pgdata) continue;
    const name = await readFile(`/proc/${entry}/comm`, 'utf8').catch(() => '');
    const state = await readFile(`/proc/${entry}/stat`, 'utf8').catch(() => '');
    if (/^(postgres|postmaster)/.test(name) && !/^\d+ \(.*\) Z/.test(state)) found.push(Number(entry));
  }
  return found;
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // gone already
  }
}
