/**
 * The demo's two servers, each with a directory and a port of its own below one scratch directory, and their end: whatever happened
 * before, no process of theirs is left.
 */
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { findOwnBinDir, freePorts, initDatabase } from '../../core/postgres/new-server.ts';
import { runningServer } from '../../core/postgres/pgdata.ts';
import { startServer, stopServer } from '../../core/postgres/server.ts';
import { connect } from '../../core/postgres/sql.ts';
import { livingAgent } from '../../core/work/living-agent.ts';
import { takeNodeLock, type NodeLock } from '../../core/work/node-lock.ts';
import { stateDirOf, statePaths, type StatePaths } from '../../core/work/node-state.ts';
import { programRoot } from '../program-root.ts';
import { endProcessesIn } from './processes.ts';

export const SUPERUSER = 'postgres';

export type DemoServer = { name: string; pgdata: string; port: number; logFile: string };
export type SqlClient = Awaited<ReturnType<typeof connect>>;

/** A socket's path may have 107 bytes: in a deep temporary directory the servers listen on TCP only. */
const SOCKET_DIRECTORY_LIMIT = 85;

export class DemoServers {
  readonly db1: DemoServer;
  readonly db2: DemoServer;
  readonly binDir: string;
  readonly #clients = new Set<SqlClient>();
  readonly #locks: NodeLock[] = [];

  private constructor(binDir: string, db1: DemoServer, db2: DemoServer) {
    this.binDir = binDir;
    this.db1 = db1;
    this.db2 = db2;
  }

  static async prepare(scratch: string): Promise<DemoServers> {
    const binDir = await findOwnBinDir(programRoot());
    const [port1 = 0, port2 = 0] = await freePorts(2);
    const server = (name: string, port: number): DemoServer => ({
      name,
      port,
      pgdata: path.join(scratch, name),
      logFile: path.join(scratch, `${name}.log`),
    });
    return new DemoServers(binDir, server('db1', port1), server('db2', port2));
  }

  /** initdb, and the few settings that a server among others on one machine needs. Small segments, so that there is much to see. */
  async makePrimary(segmentMiB: number): Promise<void> {
    const { pgdata, port } = this.db1;
    await initDatabase({ binDir: this.binDir, pgdata, superuser: SUPERUSER, segmentMiB });
    const sockets = path.join(path.dirname(pgdata), 'sockets');
    await mkdir(sockets, { mode: 0o700 });
    const lines = [
      `port = ${port}`,
      `listen_addresses = '127.0.0.1'`,
      `unix_socket_directories = '${Buffer.byteLength(sockets) > SOCKET_DIRECTORY_LIMIT ? '' : sockets.replaceAll("'", "''")}'`,
      `shared_buffers = 32MB`,
      `log_min_messages = warning`,
    ];
    await writeFile(path.join(pgdata, 'postgresql.conf'), `\n# the demo's own\n${lines.join('\n')}\n`, {
      flag: 'a',
    });
  }

  async start(server: DemoServer): Promise<void> {
    await startServer(server.pgdata, { binDir: this.binDir, logFile: server.logFile });
  }

  /** Ends it at once, its agent too, and removes its directories. */
  async remove(server: DemoServer): Promise<void> {
    await stopServer(server.pgdata, 'immediate');
    (await this.#endAgent(server, 0))?.release();
    await endProcessesIn(foldersOf(server));
    for (const folder of foldersOf(server)) await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async connect(server: DemoServer): Promise<SqlClient> {
    const client = await connect({
      settings: { pgHost: '127.0.0.1', pgPort: server.port, pgUser: SUPERUSER, pgDatabase: 'postgres' },
      env: {},
    });
    this.#clients.add(client);
    return client;
  }

  /**
   * The end without a warning, as when the machine dies: when this returns, the postmaster, its children, their hooks and the agent
   * are gone, one that was just starting too. (A hook that outlived its server started an agent which outlived the demo.)
   */
  async kill(server: DemoServer): Promise<number> {
    const running = await runningServer(server.pgdata);
    if (running === undefined) throw new Error(`the server ${server.name} does not run`);
    process.kill(-running.pid, 'SIGKILL');
    await endProcessesIn(foldersOf(server));
    // held on to where processes cannot be listed: a hook that outlives its server must not start another agent on a dead machine
    const lock = await this.#endAgent(server, 0);
    if (lock !== undefined) this.#locks.push(lock);
    return running.pid;
  }

  /** Stops everything that runs. @param gentle  by a fast stop first, so that the last segment can be archived */
  async stopAll(gentle: boolean): Promise<void> {
    for (const client of this.#clients) await client.end().catch(() => {});
    for (const lock of this.#locks.splice(0)) lock.release();
    for (const server of [this.db1, this.db2]) {
      if (gentle) await stopServer(server.pgdata, 'fast', 15_000).catch(() => {});
      await stopServer(server.pgdata, 'immediate', 15_000).catch(() => {});
      (await this.#endAgent(server, gentle ? 5000 : 0))?.release();
      await endProcessesIn(foldersOf(server));
    }
  }

  /**
   * An agent ends by itself when its server is gone; after `patienceMs` it is ended. Its lock tells whether it lives: a pid in a file
   * may be another's by now.
   *
   * @returns the lock, now ours; undefined where the server never had an agent
   */
  async #endAgent(server: DemoServer, patienceMs: number): Promise<NodeLock | undefined> {
    const askAt = Date.now() + patienceMs;
    const killAt = patienceMs === 0 ? askAt : askAt + 3000;
    for (;;) {
      const paths = stateOf(server);
      if (paths === undefined) return undefined;
      const lock = await takeNodeLock(paths.lock, 50);
      if (lock !== undefined) return lock;
      const pid = livingAgent(paths)?.pid;
      if (pid !== undefined && Date.now() >= askAt) signal(pid, Date.now() >= killAt ? 'SIGKILL' : 'SIGTERM');
    }
  }
}

/** Data and state directory, whether they are there or not: the scratch directory's path is a real one. */
function foldersOf({ pgdata }: DemoServer): string[] {
  return [pgdata, `${pgdata}.walvault`];
}

function stateOf(server: DemoServer): StatePaths | undefined {
  if (!existsSync(server.pgdata)) return undefined;
  const paths = statePaths(stateDirOf(server.pgdata));
  return existsSync(paths.dir) ? paths : undefined;
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // gone meanwhile, which is what is wanted
  }
}
