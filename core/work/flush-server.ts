/**
 * A flush, as far as the running server goes: first the look whether all of it can succeed, then the steps up to its stop.
 *
 * All of them can be taken back but the last: a fast stop that has begun ends in a stopped server. What was acknowledged by then is in
 * the WAL whatever happens; whether it is in the vault too is seen after the stop.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { DatabaseError, type Client } from 'pg';
import { VaultError } from '../errors.ts';
import type { Pgdata } from '../postgres/pgdata.ts';
import { stopServer } from '../postgres/server.ts';
import { connect, type ConnectOptions } from '../postgres/sql.ts';
import { parseLsn, type Lsn } from '../wal/lsn.ts';
import { segmentAt } from '../wal/name.ts';
import type { Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { findHbaFile, refuseConnections } from './refuse-connections.ts';
import { waitForWal } from './wal-arrival.ts';
import { commandsOf, isCombined } from './wrappers.ts';

/** How long a terminated session may take to go, in ms: it may hold up an operation that cannot be interrupted. */
const TERMINATE_LIMIT_MS = 15_000;

export type FlushStep =
  | { step: 'checking' }
  /** Up to the end of this segment everything is in the vault: archiving works. */
  | { step: 'checked'; segment: string }
  | { step: 'refusing' }
  | { step: 'waiting'; sessions: number; graceMs: number }
  | { step: 'ended'; idle: number; terminated: number }
  | { step: 'stopping' }
  | { step: 'stopped' }
  | { step: 'archived'; files: number }
  | { step: 'committed'; segment: string; lsn: string }
  | { step: 'logs'; files: number }
  | { step: 'no logs'; why: string };

/** Sessions that were ended: idle ones at once, the others when their grace was over. */
export type EndedSessions = { idle: number; terminated: number };

export type ServerFlush = {
  pgdata: Pgdata;
  stateDir: string;
  /** To the server of `pgdata`, as a superuser. */
  connection: ConnectOptions;
  /** How long other sessions may go on with what they do, ms. */
  graceMs: number;
  /** How long nothing may arrive in the vault, and how long the stop may take, ms. */
  waitMs: number;
  /** Called when archiving is proven and nothing is changed yet; again just before the stop. @throws what forbids the flush */
  check(when: 'first' | 'last'): Promise<void>;
  signal?: AbortSignal;
  onStep?: (step: FlushStep) => void;
};

/** @returns what was ended, and when the server began to refuse (performance.now()) @throws VaultError  why it is not stopped */
export async function stopForFlush(
  cluster: Cluster,
  flush: ServerFlush,
): Promise<{ sessions: EndedSessions; refusedAtMs: number }> {
  const say = flush.onStep ?? (() => {});
  const client = await openSession(flush);
  try {
    say({ step: 'checking' });
    const hbaFile = await checkServer(client, flush);
    flush.signal?.throwIfAborted();
    const segment = await proveArchiving(cluster, client, flush);
    say({ step: 'checked', segment });
    await flush.check('first');
    flush.signal?.throwIfAborted();
    // while everybody still works: the shutdown's own checkpoint then has little to write
    await client.query('CHECKPOINT');
    const { stateDir, connection, signal } = flush;
    await refuseConnections(stateDir, { hbaFile, pgdata: flush.pgdata.path, client, connection, signal });
    const refusedAtMs = performance.now();
    say({ step: 'refusing' });
    const sessions = await endSessions(client, flush, say);
    say({ step: 'ended', ...sessions });
    crashPoint('flush-ended');
    await client.query('SELECT pg_switch_wal()');
    await flush.check('last');
    flush.signal?.throwIfAborted();
    say({ step: 'stopping' });
    await stopServer(flush.pgdata.path, 'fast', flush.waitMs);
    crashPoint('flush-stopped');
    say({ step: 'stopped' });
    return { sessions, refusedAtMs };
  } catch (error) {
    throw isOfServer(error)
      ? new VaultError('unreachable', `the server does not do what the flush asks of it: ${error.message}`, {
          cause: error,
          hint: 'Its log says why.',
        })
      : error;
  } finally {
    await client.end().catch(() => {});
  }
}

/** An error that PostgreSQL answered, or a connection that was lost; anything else is a failure of its own, or a bug. */
function isOfServer(error: unknown): error is Error {
  if (error instanceof DatabaseError) return true;
  return (
    error instanceof Error &&
    /^(Connection terminated|Client has encountered|read ECONN|write E)/.test(error.message)
  );
}

/** The own session; after a killed flush the server may need a moment until it lets anybody in again. */
async function openSession(flush: ServerFlush): Promise<Client> {
  const deadline = performance.now() + 5000;
  for (;;) {
    try {
      const client = await connect(flush.connection);
      await client.query('SET statement_timeout = 0');
      await client.query('SET idle_session_timeout = 0');
      return client;
    } catch (error) {
      const again = error instanceof VaultError && error.code === 'denied' && performance.now() < deadline;
      if (!again) throw error;
      await sleep(50);
    }
  }
}

type ServerFacts = {
  super: boolean;
  recovering: boolean;
  mode: string;
  command: string;
  library: string | null;
};

/** @returns the path of pg_hba.conf */
async function checkServer(client: Client, { pgdata, stateDir }: ServerFlush): Promise<string> {
  const { rows } = await client.query<ServerFacts>(
    `SELECT current_setting('is_superuser') = 'on' AS super, pg_is_in_recovery() AS recovering,
            current_setting('archive_mode') AS mode, current_setting('archive_command') AS command,
            current_setting('archive_library', true) AS library`,
  );
  const [facts] = rows;
  if (facts === undefined) throw new VaultError('unreachable', 'the server says nothing of itself');
  if (!facts.super)
    throw new VaultError('denied', `a flush ends sessions and switches WAL: it wants a superuser`, {
      hint: `Name one with PGUSER or --pg-user.`,
    });
  if (facts.recovering)
    throw new VaultError('refused', `${pgdata.path} is in recovery: only a primary can be flushed`);
  const configure = `Run 'walvault configure primary --pgdata ${pgdata.path}'`;
  if (facts.mode === 'off')
    throw new VaultError('refused', 'archive_mode is off: the last WAL would never reach the vault', {
      hint: `${configure}, then restart the server.`,
    });
  const commands = commandsOf(stateDir);
  const isOurs = facts.command === commands.archiveCommand || isCombined(facts.command, commands);
  if (!isOurs || (facts.library ?? '') !== '')
    throw new VaultError(
      'refused',
      facts.library
        ? `archive_library = ${facts.library} archives in the place of walvault`
        : `archive_command is not walvault's: ${facts.command || '(empty)'}`,
      { hint: `${configure}.` },
    );
  return findHbaFile(client);
}

/** A record, a switch, and the vault must show the segment: with what waits before it. @returns its name */
async function proveArchiving(cluster: Cluster, client: Client, flush: ServerFlush): Promise<string> {
  // an idle server has nothing to switch: hence a record of our own
  await client.query(`SELECT pg_logical_emit_message(true, 'walvault', 'flush')`);
  const { rows } = await client.query<{ lsn: string; timeline: string }>(
    `SELECT pg_switch_wal()::text AS lsn, left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline`,
  );
  const [row] = rows;
  if (row === undefined) throw new VaultError('unreachable', 'pg_switch_wal() answered nothing');
  const lsn: Lsn = parseLsn(row.lsn);
  const timeline = Number.parseInt(row.timeline, 16);
  await waitForWal(cluster, { timeline, lsn, client, limitMs: flush.waitMs, signal: flush.signal });
  return segmentAt(timeline, lsn - 1n, cluster.segmentSize);
}

const OTHERS = `FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`;

/**
 * A session with nothing under way is ended at once: a pool's would never go by itself, and one whose next statement is just arriving
 * has had no answer to it yet. The others may finish their transaction until the grace is over.
 */
async function endSessions(
  client: Client,
  flush: ServerFlush,
  say: (step: FlushStep) => void,
): Promise<EndedSessions> {
  const graceUntil = performance.now() + flush.graceMs;
  let told = false;
  const idle = new Set<number>();
  const terminated = new Set<number>();
  for (;;) {
    flush.signal?.throwIfAborted();
    const isOver = performance.now() >= graceUntil;
    const { rows } = await client.query<{ pid: number; idle: boolean }>(
      `SELECT pid, state = 'idle' AS idle, CASE WHEN $1 OR state = 'idle' THEN pg_terminate_backend(pid) END ${OTHERS}`,
      [isOver],
    );
    if (rows.length === 0) return { idle: idle.size, terminated: terminated.size };
    for (const row of rows) {
      if (row.idle) idle.add(row.pid);
      else if (isOver && !idle.has(row.pid)) terminated.add(row.pid);
    }
    const busy = rows.filter((row) => !row.idle).length;
    if (!told && busy > 0) {
      told = true;
      say({ step: 'waiting', sessions: busy, graceMs: flush.graceMs });
    }
    if (performance.now() >= graceUntil + TERMINATE_LIMIT_MS) {
      const pids = rows.map(({ pid }) => pid).join(', ');
      throw new VaultError(
        'refused',
        `${rows.length} sessions do not end, ${TERMINATE_LIMIT_MS / 1000} s after they were terminated: ${pids}`,
        { hint: `'SELECT * FROM pg_stat_activity' shows what they wait for.` },
      );
    }
    await sleep(50);
  }
}
