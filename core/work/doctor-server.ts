/**
 * Looks at a node's server for `walvault doctor`: by its files alone where it does not run, or lets nobody in. Changes nothing.
 */
import fs from 'node:fs';
import { readdir, readlink, stat, statfs } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { VaultError } from '../errors.ts';
import type { ServerFacts } from '../cluster/checks.ts';
import type {
  ArchivingFacts,
  ChainFacts,
  DiskFacts,
  ParameterFacts,
  ParameterRow,
  TablespaceFacts,
  WalLook,
} from '../cluster/examine-server.ts';
import { isStanding } from '../cluster/examine-server.ts';
import type { Head } from '../cluster/facts.ts';
import type { Unseen } from '../cluster/finding.ts';
import { MAX_COMMAND_BYTES } from '../postgres/auto-conf.ts';
import { readConfFiles } from '../postgres/conf-files.ts';
import type { Pgdata } from '../postgres/pgdata.ts';
import { connect, type ConnectOptions } from '../postgres/sql.ts';
import { parseLsn, type Lsn } from '../wal/lsn.ts';
import { isSegmentName, segmentAt } from '../wal/name.ts';
import { nodeParameters, type Intervals } from './configure.ts';
import { commandsOf } from './wrappers.ts';

const NAMES = [
  'archive_mode',
  'archive_command',
  'archive_library',
  'archive_timeout',
  'restore_command',
  'archive_cleanup_command',
  'recovery_end_command',
  'wal_level',
  'wal_retrieve_retry_interval',
  'max_wal_senders',
  'recovery_target',
  'recovery_target_lsn',
  'recovery_target_name',
  'recovery_target_time',
  'recovery_target_timeline',
  'recovery_target_xid',
];

/** What the placeholders of a command may become, in bytes: %p is `pg_wal/` and 40 letters at most. */
const LONGEST_ARGUMENTS = 120;
/** Between two looks at the place in the WAL, where archiving stands still. */
const LOOK_MS = 1000;
/** The chain is looked along so far; a longer backlog has its own finding. */
const CHAIN_LIMIT = 4096;

export type ServerRequest = {
  pgdata: Pgdata;
  stateDir: string;
  intervals: Intervals;
  connection: Omit<ConnectOptions, 'pgdata'>;
};

/** The server, and the end of its WAL as it was before pg_wal was listed. */
export type ServerLook = { facts: Omit<ServerFacts, 'chain'>; wal: WalListing };

export type WalListing = {
  walDirectory: string;
  timeline: number;
  segmentSize: number;
  /** Where the server writes; a stopped one's last checkpoint. */
  lsn: Lsn;
  files: ReadonlySet<string>;
  statuses: ReadonlyMap<string, 'ready' | 'done'>;
};

/** @throws VaultError pgdata | local */
export async function lookAtServer(request: ServerRequest): Promise<ServerLook> {
  const { pgdata } = request;
  let client: Client | undefined;
  let noConnection: Unseen | undefined;
  if (pgdata.running !== undefined)
    try {
      client = await connect({ ...request.connection, pgdata: pgdata.path });
    } catch (error) {
      if (!(error instanceof VaultError)) throw error;
      noConnection = { unseen: `[${error.code}] ${error.message}`, fix: error.hint };
    }
  try {
    return await look(request, client, noConnection);
  } finally {
    await client?.end().catch(() => {});
  }
}

async function look(
  { pgdata, stateDir, intervals }: ServerRequest,
  client: Client | undefined,
  noConnection: Unseen | undefined,
): Promise<ServerLook> {
  const { control } = pgdata;
  const live = client === undefined ? undefined : await lookLive(client);
  const running =
    pgdata.running === undefined
      ? 'no'
      : pgdata.running.status === 'starting' || pgdata.running.status === 'stopping'
        ? pgdata.running.status
        : 'yes';
  // pg_control says so of a standby, and of a promotion that died; a server that answers knows better
  const inRecovery = live?.inRecovery ?? (control.state === 5 || control.state === 2);
  const wal = await listWal(pgdata, live);
  const archiving = await lookAtArchiving(wal, live);
  const looks = await lookAtRate(client, live, isStanding(archiving, Date.now()));
  const parameters = await lookAtParameters({ pgdata, stateDir, intervals, inRecovery }, client);
  return {
    wal,
    facts: {
      owner: pgdata.owner,
      server: {
        pgdata: pgdata.path,
        running,
        stateText: control.stateText,
        majorVersion: pgdata.majorVersion,
        noConnection,
        isReplayPaused: live?.isReplayPaused ?? false,
      },
      signals: {
        pgdata: pgdata.path,
        standby: isThere(pgdata.path, 'standby.signal'),
        recovery: isThere(pgdata.path, 'recovery.signal'),
        promote: isThere(pgdata.path, 'promote'),
        inRecovery,
        running: running === 'stopping' ? 'yes' : running,
      },
      database: {
        pgdata: pgdata.path,
        systemIdentifier: control.systemIdentifier,
        segmentSize: control.segmentSize,
        majorVersion: pgdata.majorVersion,
      },
      parameters,
      archiving,
      disks: await lookAtDisks([
        { name: 'pg_wal', path: pgdata.walDirectory },
        { name: 'spool', path: path.join(stateDir, 'spool') },
      ]),
      looks,
      tablespaces: await lookAtTablespaces(pgdata.path),
    },
  };
}

type Live = {
  inRecovery: boolean;
  isReplayPaused: boolean;
  lsn: string | null;
  timeline: number;
  archiver: NonNullable<ArchivingFacts['archiver']>;
  /** WAL since the statistics were reset. */
  sinceReset: WalLook;
};

async function lookLive(client: Client): Promise<Live> {
  const { rows } = await client.query<{
    recovering: boolean;
    paused: boolean;
    lsn: string | null;
    timeline: number;
    bytes: string;
    ms: string;
    failed: string;
    last_failed: string | null;
    failed_at: Date | null;
    archived_at: Date | null;
  }>(`
    SELECT pg_is_in_recovery() AS recovering,
           CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS paused,
           CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_lsn()::text END AS lsn,
           CASE WHEN pg_is_in_recovery() THEN 0
                ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END AS timeline,
           w.wal_bytes::text AS bytes, (extract(epoch FROM now() - w.stats_reset) * 1000)::text AS ms,
           a.failed_count::text AS failed, a.last_failed_wal AS last_failed,
           a.last_failed_time AS failed_at, a.last_archived_time AS archived_at
      FROM pg_stat_archiver a, pg_stat_wal w`);
  const row = rows[0];
  if (row === undefined) throw new Error('pg_stat_archiver has no row');
  return {
    inRecovery: row.recovering,
    isReplayPaused: row.paused,
    lsn: row.lsn,
    timeline: row.timeline,
    archiver: {
      failed: Number(row.failed),
      lastFailed: row.last_failed,
      lastFailedAtMs: row.failed_at?.getTime() ?? null,
      lastArchivedAtMs: row.archived_at?.getTime() ?? null,
    },
    sinceReset: { bytes: Number(row.bytes), ms: Number(row.ms) },
  };
}

/** Two looks at what is written just now, where it matters; and the mean since the statistics began. */
async function lookAtRate(
  client: Client | undefined,
  live: Live | undefined,
  isStill: boolean,
): Promise<WalLook[]> {
  if (live === undefined) return [];
  const looks = [live.sinceReset];
  if (client === undefined || !isStill || live.inRecovery) return looks;
  const where = async () => {
    const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
    return { lsn: parseLsn(rows[0]?.lsn ?? '0/0'), ms: performance.now() };
  };
  const before = await where();
  await sleep(LOOK_MS);
  const after = await where();
  looks.push({ bytes: Number(after.lsn - before.lsn), ms: after.ms - before.ms });
  return looks;
}

async function listWal({ control, walDirectory }: Pgdata, live: Live | undefined): Promise<WalListing> {
  const statuses = new Map<string, 'ready' | 'done'>();
  const files = new Set(await readdir(walDirectory).catch(() => []));
  for (const entry of await readdir(path.join(walDirectory, 'archive_status')).catch(() => [])) {
    const found = /^(.*)\.(ready|done)$/.exec(entry);
    if (found?.[1] !== undefined) statuses.set(found[1], found[2] as 'ready' | 'done');
  }
  return {
    walDirectory,
    timeline: live?.timeline || control.timeline,
    segmentSize: control.segmentSize,
    // the place was read before the files were listed: a segment before it has its status by then
    lsn: typeof live?.lsn === 'string' ? parseLsn(live.lsn) : control.checkpointLsn,
    files,
    statuses,
  };
}

/** What lies between the vault's head and the place where the server writes; undefined: they are not on one timeline. */
export function chainOf(
  wal: WalListing,
  head: Pick<Head, 'timeline' | 'lsn'>,
  isSpillAway: boolean,
): ChainFacts | undefined {
  if (head.lsn === null || head.timeline !== wal.timeline) return undefined;
  const { walDirectory, segmentSize, timeline, lsn } = wal;
  const segments: ChainFacts['segments'] = [];
  const size = BigInt(segmentSize);
  const current = segmentAt(timeline, lsn, segmentSize);
  for (let at = parseLsn(head.lsn); segments.length < CHAIN_LIMIT; at += size) {
    const name = segmentAt(timeline, at, segmentSize);
    if (name >= current) break;
    segments.push({ name, status: wal.statuses.get(name) ?? (wal.files.has(name) ? '' : 'absent') });
  }
  return { walDirectory, isSpillAway, segments };
}

async function lookAtArchiving(wal: WalListing, live: Live | undefined): Promise<ArchivingFacts> {
  const ready = [...wal.statuses].filter(([, status]) => status === 'ready').map(([name]) => name);
  const first = ready.filter(isSegmentName).sort()[0] ?? ready[0];
  const found =
    first === undefined
      ? undefined
      : await stat(path.join(wal.walDirectory, 'archive_status', `${first}.ready`)).catch(() => undefined);
  return {
    waiting: { count: ready.length, first, oldestAtMs: found?.mtimeMs },
    archiver: live === undefined || live.inRecovery ? undefined : live.archiver,
  };
}

type ParameterRequest = Omit<ServerRequest, 'connection'> & { inRecovery: boolean };

async function lookAtParameters(
  { pgdata, stateDir, intervals, inRecovery }: ParameterRequest,
  client: Client | undefined,
): Promise<ParameterFacts> {
  const commands = commandsOf(stateDir);
  const found = client === undefined ? await fromFiles(pgdata) : await fromServer(client);
  const current = new Map([...found].map(([name, { value }]) => [name, value]));
  return {
    found,
    wanted: nodeParameters(commands, intervals, current),
    tooLong: Object.entries({
      archive_command: commands.archiveCommand,
      restore_command: commands.restoreCommand,
      archive_cleanup_command: commands.cleanupCommand,
      recovery_end_command: commands.recoveredCommand,
    }).flatMap(([name, command]) => {
      const bytes = Buffer.byteLength(command) + LONGEST_ARGUMENTS;
      return bytes > MAX_COMMAND_BYTES ? [{ name, bytes, limit: MAX_COMMAND_BYTES }] : [];
    }),
    refused: client === undefined ? [] : await refusedLines(client),
    isRunning: pgdata.running !== undefined,
    isStandby: inRecovery,
  };
}

async function fromFiles(pgdata: Pgdata): Promise<Map<string, ParameterRow>> {
  const all = await readConfFiles(pgdata.path, pgdata.configFile);
  return new Map(NAMES.flatMap((name) => (all.has(name) ? [[name, { value: all.get(name) ?? '' }]] : [])));
}

async function fromServer(client: Client): Promise<Map<string, ParameterRow>> {
  const { rows } = await client.query<{
    name: string;
    value: string;
    source: string;
    sourcefile: string | null;
    sourceline: number | null;
    pending_restart: boolean;
    context: string;
  }>(
    `SELECT name, current_setting(name) AS value, source, sourcefile, sourceline, pending_restart, context
       FROM pg_settings WHERE name = ANY($1)`,
    [NAMES],
  );
  const written = await client
    .query<{ name: string; setting: string }>(
      `SELECT lower(name) AS name, setting FROM pg_file_settings WHERE lower(name) = ANY($1) AND setting IS NOT NULL
        AND (error IS NULL OR error LIKE '%without restarting%') ORDER BY seqno`,
      [NAMES],
    )
    .then((answer) => new Map(answer.rows.map(({ name, setting }) => [name, setting])))
    .catch(() => new Map<string, string>()); // only a superuser may read the files
  return new Map(
    rows.map((row) => [
      row.name,
      {
        value: row.value,
        source: row.source,
        pendingRestart: row.pending_restart,
        context: row.context,
        ...(row.sourcefile === null ? {} : { file: row.sourcefile }),
        ...(row.sourceline === null ? {} : { line: row.sourceline }),
        ...(written.has(row.name) ? { written: written.get(row.name) ?? '' } : {}),
      },
    ]),
  );
}

/** A change that waits for a restart is told as an error too; it is none. */
async function refusedLines(client: Client): Promise<ParameterFacts['refused']> {
  return client
    .query<{ file: string; line: number; name: string | null; error: string }>(
      `SELECT sourcefile AS file, sourceline AS line, name, error FROM pg_file_settings
        WHERE error IS NOT NULL AND error NOT LIKE '%without restarting%' ORDER BY seqno`,
    )
    .then(({ rows }) => rows.map((row) => ({ ...row, name: row.name ?? 'syntax' })))
    .catch(() => []);
}

async function lookAtDisks(places: { name: DiskFacts['name']; path: string }[]): Promise<DiskFacts[]> {
  const disks: DiskFacts[] = [];
  for (const place of places) {
    const found = await statfs(place.path).catch(() => undefined);
    if (found === undefined) continue;
    disks.push({ ...place, freeBytes: found.bavail * found.bsize, totalBytes: found.blocks * found.bsize });
  }
  return disks;
}

async function lookAtTablespaces(pgdata: string): Promise<TablespaceFacts[]> {
  const folder = path.join(pgdata, 'pg_tblspc');
  const found: TablespaceFacts[] = [];
  for (const oid of await readdir(folder).catch(() => [])) {
    const link = path.join(folder, oid);
    const target = await readlink(link).catch(() => undefined);
    if (target === undefined) continue; // a tablespace in place, which PostgreSQL's own tests make
    const there = await stat(link).then(
      (facts) => facts.isDirectory(),
      () => false,
    );
    found.push({ oid, link, target, state: there ? 'there' : 'absent' });
  }
  return found;
}

function isThere(pgdata: string, name: string): boolean {
  return fs.existsSync(path.join(pgdata, name));
}
