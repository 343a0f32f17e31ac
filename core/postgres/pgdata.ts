/**
 * A data directory: what it is, whose it is, and whether a server runs on it.
 *
 *   PG_VERSION           major version, as text
 *   global/pg_control    identity and state (core/wal/control-file.ts reads the bytes)
 *   postmaster.pid       lines: pid, data directory, start time, port, socket directory, listen address, shared memory, status
 *   postmaster.opts      the last start's command line: where the configuration lies when it is not in here
 *
 * Source: PostgreSQL docs, "Database Physical Storage: Database File Layout"; src/include/utils/pidfile.h.
 */
import { readFile, readlink, realpath, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { parseControlFile, type ControlFile } from '../wal/control-file.ts';

/** The postmaster of a data directory, by postmaster.pid. `ready` is what the server says of itself (status line). */
export type RunningServer = {
  pid: number;
  port: number;
  /** Where its socket lies; '' where it has none. */
  socketDir: string;
  /** First listen address ('*' and '0.0.0.0' are answered as 127.0.0.1); '' where it listens on none. */
  host: string;
  status: 'starting' | 'ready' | 'standby' | 'stopping' | 'unknown';
};

export type Pgdata = {
  /** The real path. */
  path: string;
  majorVersion: number;
  control: ControlFile;
  running: RunningServer | undefined;
  /** The real path of pg_wal (it may be a link). */
  walDirectory: string;
  /** postgresql.conf, as the last start named it; it may lie outside (Debian). */
  configFile: string;
  owner: { uid: number; name: string };
};

/**
 * Reads a data directory.
 *
 * @param options.anyOwner  for who only looks: otherwise a directory of another user is refused, since what root writes
 *                          there the server could not read
 * @throws VaultError pgdata (no data directory, not readable, another user's, pg_control damaged)
 */
export async function readPgdata(directory: string, options: { anyOwner?: boolean } = {}): Promise<Pgdata> {
  const found = await realpath(directory).catch((error: unknown) => {
    throw unreadable(directory, error);
  });
  const version = await readFile(path.join(found, 'PG_VERSION'), 'utf8').catch((error: unknown) => {
    throw (error as NodeJS.ErrnoException).code === 'ENOENT' ||
      (error as NodeJS.ErrnoException).code === 'ENOTDIR'
      ? notPgdata(found)
      : unreadable(found, error);
  });
  const majorVersion = Number(version.trim());
  if (!Number.isInteger(majorVersion)) throw notPgdata(found);
  const owner = await ownerOf(found);
  const control = await readControl(found);
  if (options.anyOwner !== true && process.getuid !== undefined && process.getuid() !== owner.uid) {
    throw new VaultError(
      'pgdata',
      `${found} belongs to ${owner.name}, walvault runs as ${userName(process.getuid())}`,
      {
        hint: `Run it as the user who runs the server, for instance: sudo -u ${owner.name} -E walvault …`,
      },
    );
  }
  const walDirectory = await realpath(path.join(found, 'pg_wal')).catch((error: unknown) => {
    throw new VaultError('pgdata', `${found}/pg_wal cannot be followed: ${(error as Error).message}`, {
      cause: error,
      hint: 'pg_wal is missing or a link to nowhere: mount its file system, or restore the data directory.',
    });
  });
  const running = await runningServer(found);
  return {
    path: found,
    majorVersion,
    control,
    running,
    walDirectory,
    configFile: await configFileOf(found),
    owner,
  };
}

/** pg_control of a data directory; a running server may be met while it writes it, so a wrong checksum is read again. @throws VaultError pgdata */
export async function readControl(pgdata: string): Promise<ControlFile> {
  const file = path.join(pgdata, 'global', 'pg_control');
  for (let left = 10; ; left -= 1) {
    const bytes = await readFile(file).catch((error: unknown) => {
      throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? notPgdata(pgdata) : unreadable(file, error);
    });
    try {
      return parseControlFile(bytes);
    } catch (error) {
      if (left === 0) throw error;
      await setTimeout(10);
    }
  }
}

/**
 * The postmaster that runs on this (real) path, or undefined. A postmaster.pid left by a crash is told from a living one:
 * its process is gone, or is another program (the number was given again), or works in another directory.
 *
 * @throws VaultError pgdata (postmaster.pid not readable: then nobody can tell)
 */
export async function runningServer(pgdata: string): Promise<RunningServer | undefined> {
  const file = path.join(pgdata, 'postmaster.pid');
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw unreadable(file, error);
  });
  const server = text === undefined ? undefined : parsePostmasterPid(text);
  if (server === undefined || !(await isPostmaster(server.pid, pgdata))) return undefined;
  return server;
}

/** Which run of the server this is: another one has forgotten what its signals said to the last. undefined: none runs. @throws VaultError pgdata */
export async function serverRun(pgdata: string): Promise<string | undefined> {
  if ((await runningServer(pgdata)) === undefined) return undefined;
  const text = await readFile(path.join(pgdata, 'postmaster.pid'), 'utf8').catch(() => '');
  const [pid = '', , startedAt = ''] = text.split('\n').map((line) => line.trim());
  return pid === '' ? undefined : `${pid} ${startedAt}`;
}

/** The lines of postmaster.pid; undefined while the postmaster has not yet written the first. */
export function parsePostmasterPid(text: string): RunningServer | undefined {
  const lines = text.split('\n').map((line) => line.trim());
  const pid = Math.abs(Number(lines[0])); // a single-user server writes its number negated
  if (!Number.isInteger(pid) || pid === 0) return undefined;
  const listen = lines[5] ?? '';
  const states = ['starting', 'ready', 'standby', 'stopping'] as const;
  return {
    pid,
    port: Number(lines[3] ?? '') || 0,
    socketDir: lines[4] ?? '',
    host: listen === '*' || listen === '0.0.0.0' || listen === '::' ? '127.0.0.1' : listen,
    status: states.find((state) => state === lines[7]) ?? 'unknown',
  };
}

async function isPostmaster(pid: number, pgdata: string): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  // Not the parent: in a container the postmaster is process 1, and the parent of every agent that was detached.
  if (pid === process.pid) return false;
  if (await isZombie(pid)) return false;
  try {
    return (await readlink(`/proc/${pid}/cwd`)) === pgdata; // the postmaster works in its data directory
  } catch {
    // another user's process, or no /proc here: go by its name, and where there is none by its being alive
  }
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => undefined);
  return name === undefined || /^(postgres|postmaster)/.test(name);
}

async function isZombie(pid: number): Promise<boolean> {
  const line = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return /\) [ZX] /.test(line);
}

/** The start's own words for where the configuration lies, else PGDATA/postgresql.conf. */
async function configFileOf(pgdata: string): Promise<string> {
  const words = await readFile(path.join(pgdata, 'postmaster.opts'), 'utf8').catch(() => '');
  return path.resolve(pgdata, configFileIn(words) ?? 'postgresql.conf');
}

/** The configuration file that a command line names, as postmaster.opts keeps it. */
export function configFileIn(words: string): string | undefined {
  return /"?(?:--config[-_]file|config_file)=([^"\n]+)"/.exec(words)?.[1];
}

async function ownerOf(directory: string): Promise<{ uid: number; name: string }> {
  const { uid } = await stat(directory);
  return { uid, name: await nameOfUser(uid) };
}

/** The name of a user id, by /etc/passwd (`#501` where it is not there: macOS, LDAP). */
export async function nameOfUser(uid: number): Promise<string> {
  if (process.getuid?.() === uid) return userName(uid);
  const table = await readFile('/etc/passwd', 'utf8').catch(() => '');
  for (const line of table.split('\n')) {
    const [name, , id] = line.split(':');
    if (id === String(uid) && name !== undefined) return name;
  }
  return `#${uid}`;
}

function userName(uid: number): string {
  try {
    return os.userInfo().username;
  } catch {
    return `#${uid}`; // a container's user without an entry in passwd
  }
}

function notPgdata(directory: string): VaultError {
  return new VaultError('pgdata', `${directory} is not a PostgreSQL data directory`, {
    hint: `Give the directory that holds PG_VERSION with --pgdata; in psql 'SHOW data_directory' says it.`,
  });
}

function unreadable(file: string, error: unknown): VaultError {
  const code = (error as NodeJS.ErrnoException).code;
  return new VaultError(
    'pgdata',
    `cannot read ${file}: ${code === 'ENOENT' ? 'it does not exist' : (error as Error).message}`,
    {
      cause: error,
      hint:
        code === 'EACCES' || code === 'EPERM'
          ? 'Run walvault as the user who runs the server (often postgres).'
          : 'Give the data directory with --pgdata, or PGDATA.',
    },
  );
}
