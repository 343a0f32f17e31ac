/**
 * A base backup into the vault: proves first that WAL arrives, holds the WAL it will need, streams the server's files into
 * bundles, and is complete only when its WAL from start to stop is in the manifest.
 *
 * A row of state 'running' and a hold stand from before BASE_BACKUP until the end. A backup that died leaves both: the next
 * one finds that its hold was not refreshed for HOLD_STALE_MS, marks it failed and removes what it stored.
 */
import type { Client } from 'pg';
import { VaultError } from '../errors.ts';
import type { BackupRow } from '../cluster/facts.ts';
import { withConnection, type ConnectOptions } from '../postgres/sql.ts';
import { parseLsn, type Lsn } from '../wal/lsn.ts';
import {
  beginBackup,
  completeBackup,
  failBackup,
  keepHold,
  proveSegments,
  sweepInterrupted,
} from './backup-rows.ts';
import { copyServer } from './backup-stream.ts';
import { readControl, type Cluster } from './cluster.ts';
import { waitForWal } from './wal-arrival.ts';

export type BackupProgress = {
  phase: 'archiving' | 'checkpoint' | 'copy' | 'finish';
  /** Raw bytes taken from the server, and what it estimated beforehand. */
  doneBytes: number;
  totalBytes: number;
  storedBytes: number;
};

export type BackupRequest = {
  /** The node that is backed up. */
  node: string;
  connection: ConnectOptions;
  label?: string;
  bundleSizeBytes: number;
  uploadParallel: number;
  zstdLevel: number;
  /** How long WAL may take to arrive, at the beginning and at the end. An archiver that failed three times sleeps 60 s. */
  walLimitMs?: number;
  /** Ends the backup: row failed, objects removed. */
  signal?: AbortSignal;
  onProgress?: (progress: BackupProgress) => void;
};

const WAL_LIMIT_MS = 90_000;

/**
 * Takes a base backup.
 *
 * @returns its row, of state complete
 * @throws VaultError unreachable (server or vault; WAL does not arrive) | refused | denied | corrupt (the files as they came
 *   do not agree with PostgreSQL's own manifest). The row is failed then, its hold and objects are gone.
 */
export async function takeBackup(cluster: Cluster, request: BackupRequest): Promise<BackupRow> {
  await sweepInterrupted(cluster);
  if (!(await readControl(cluster)).archiving)
    throw new VaultError('refused', 'archiving is off: a backup without the WAL up to its end is none', {
      hint: `Run 'walvault archiving on' first.`,
    });
  return withConnection(request.connection, async (client) => {
    const server = await serverFacts(cluster, client);
    report(request, 'archiving', 0, 0, 0);
    await proveArchiving(cluster, request, client, server);
    const started = await beginBackup(cluster, { node: request.node, label: request.label ?? '', ...server });
    const keeper = keepHold(cluster, started.id);
    try {
      report(request, 'checkpoint', 0, 0, 0);
      const copied = await copyServer(cluster, {
        ...request,
        id: started.id,
        startedAt: started.startedAt,
        label: request.label ?? `walvault ${started.id}`,
        onProgress: (done, total, stored) => report(request, 'copy', done, total, stored),
      });
      report(request, 'finish', copied.sizeBytes, copied.sizeBytes, copied.storedBytes);
      await waitForWal(cluster, {
        ...copied.stop,
        client,
        limitMs: limitOf(request),
        signal: request.signal,
      });
      await proveSegments(cluster, copied);
      keeper.check();
      return await completeBackup(cluster, started, copied);
    } catch (error) {
      await failBackup(cluster, started.id, request.node, error);
      throw error;
    } finally {
      keeper.stop();
    }
  });
}

type ServerFacts = { standby: boolean; timeline: number; redo: { timeline: number; lsn: Lsn } };

/** @throws VaultError refused  when the server is not of this cluster */
async function serverFacts(cluster: Cluster, client: Client): Promise<ServerFacts> {
  const { rows } = await client.query<{
    id: string;
    version: string;
    standby: boolean;
    mode: string;
    timeline: string;
    redo: string;
  }>(
    `SELECT s.system_identifier::text AS id, current_setting('server_version_num') AS version, pg_is_in_recovery() AS standby,
            current_setting('archive_mode') AS mode, c.timeline_id::text AS timeline, c.redo_lsn::text AS redo
       FROM pg_control_system() s, pg_control_checkpoint() c`,
  );
  const row = rows[0];
  if (row === undefined) throw new VaultError('unreachable', 'the server says nothing of itself');
  if (row.id !== cluster.systemIdentifier) {
    throw new VaultError(
      'refused',
      `the server has system identifier ${row.id}, cluster ${cluster.name} is ${cluster.systemIdentifier}`,
      { hint: 'Give the --cluster of this database, or the --pgdata of that cluster.' },
    );
  }
  if (!row.standby && row.mode === 'off') {
    throw new VaultError('refused', 'archive_mode is off: without WAL a base backup cannot be used', {
      hint: `Run 'walvault configure primary', then restart the server.`,
    });
  }
  const redo = { timeline: Number(row.timeline), lsn: parseLsn(row.redo) };
  return { standby: row.standby, timeline: redo.timeline, redo };
}

/**
 * A primary writes a record, switches the segment, and the vault must show it. A standby cannot switch: what it has replayed
 * must be in the vault up to the last whole segment.
 */
async function proveArchiving(
  cluster: Cluster,
  request: BackupRequest,
  client: Client,
  server: ServerFacts,
): Promise<void> {
  const lsn = server.standby
    ? await replayedSegmentStart(cluster, client)
    : await switchSegment(client, server);
  await waitForWal(cluster, {
    timeline: server.timeline,
    lsn,
    client,
    limitMs: limitOf(request),
    signal: request.signal,
  });
}

async function switchSegment(client: Client, server: ServerFacts): Promise<Lsn> {
  try {
    // an idle server has nothing to switch: hence a record of our own
    await client.query(`SELECT pg_logical_emit_message(true, 'walvault', 'base backup')`);
    const { rows } = await client.query<{ lsn: string; timeline: string }>(
      `SELECT pg_switch_wal()::text AS lsn, left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline`,
    );
    const row = rows[0];
    if (row === undefined) throw new Error('pg_switch_wal() answered nothing');
    server.timeline = parseInt(row.timeline, 16); // pg_control may still show the one before a promotion
    return parseLsn(row.lsn);
  } catch (error) {
    throw new VaultError('denied', `the WAL segment cannot be switched: ${(error as Error).message}`, {
      cause: error,
      hint: 'Connect as a superuser (PGUSER), or GRANT EXECUTE ON FUNCTION pg_switch_wal() to this one.',
    });
  }
}

async function replayedSegmentStart(cluster: Cluster, client: Client): Promise<Lsn> {
  const { rows } = await client.query<{ lsn: string | null }>('SELECT pg_last_wal_replay_lsn()::text AS lsn');
  const replayed = parseLsn(rows[0]?.lsn ?? '0/0');
  return replayed - (replayed % BigInt(cluster.segmentSize));
}

function limitOf(request: BackupRequest): number {
  return request.walLimitMs ?? WAL_LIMIT_MS;
}

function report(
  request: BackupRequest,
  phase: BackupProgress['phase'],
  done: number,
  total: number,
  stored: number,
): void {
  request.onProgress?.({ phase, doneBytes: done, totalBytes: Math.max(total, done), storedBytes: stored });
}
