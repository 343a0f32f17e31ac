/**
 * `standby detach`: a standby is opened for a test while the primary goes on. From the mark in its state directory on it can never
 * write to this vault again, whatever is called on it: the wrappers, the hooks, the agent, `claim` and the nonce store each look.
 *
 * The order is the safety: mark (fsync), row, look for a trigger, parameters, and only then PostgreSQL is promoted. Broken
 * off anywhere, the same call goes on; the node stays a standby that follows nobody until then.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { VaultError } from '../errors.ts';
import { controlLine } from '../postgres/control-words.ts';
import { reloadServer, writeParameters } from '../postgres/auto-conf.ts';
import type { Pgdata } from '../postgres/pgdata.ts';
import { promote } from '../postgres/server.ts';
import { recoveryMode } from '../postgres/signal-files.ts';
import { withConnection, type ConnectOptions } from '../postgres/sql.ts';
import { checkDatabase } from './configure.ts';
import { putEvent, readControl, readHead, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { reportNode } from './heartbeat.ts';
import { dropHold, readHolds } from './holds.ts';
import {
  isWaitNode,
  checkIdentity,
  readDetached,
  readSeal,
  removeDurably,
  statePaths,
  writeDetached,
  type StatePaths,
} from './node-state.ts';
import { DETACHED_TROUBLE } from './nodes.ts';
import { withoutAgent } from './without-agent.ts';

export type DetachRequest = {
  node: string;
  pgdata: Pgdata;
  stateDir: string;
  connection: Omit<ConnectOptions, 'pgdata'>;
  /** How long PostgreSQL may take to open, ms. */
  limitMs: number;
};

export type DetachedServer = {
  pgdata: string;
  /** Where it opened, and on which timeline. */
  lsn: string;
  timeline: number;
};

/**
 * archive_command says "archived" to everything: PostgreSQL would keep the WAL of an empty one for ever. restore_command
 * finds nothing, and nobody is told of the promotion.
 */
const PARAMETERS = {
  archive_command: 'true',
  restore_command: '',
  archive_cleanup_command: '',
  recovery_end_command: '',
};

/**
 * Would it be refused? Said before anybody is asked.
 *
 * @throws VaultError refused (not a standby, not running, the primary, a target) | fenced (detached and open already) | pgdata
 */
export async function checkDetach(cluster: Cluster, request: DetachRequest): Promise<void> {
  const { node, pgdata } = request;
  const paths = statePaths(request.stateDir);
  checkDatabase(cluster, pgdata);
  checkIdentity(paths);
  const marked = readDetached(paths);
  if (pgdata.running === undefined)
    throw new VaultError('refused', `no server runs on ${pgdata.path}`, {
      hint: `Start the standby first: ${controlLine(pgdata.path, 'start')}`,
    });
  const mode = await recoveryMode(pgdata.path);
  if (mode === 'archive' && isWaitNode(paths))
    throw new VaultError('refused', `${node} is in wait mode: PostgreSQL promotes only a standby`, {
      hint: `Stop it, run 'walvault standby configure --mode hot' for it, start it, then detach.`,
    });
  if (mode !== 'standby')
    throw marked === undefined
      ? new VaultError('refused', `${pgdata.path} is not a standby: it takes writes already`, {
          hint: `detach opens a standby; 'walvault standby create' makes one.`,
        })
      : new VaultError('refused', `${node} was detached at ${marked.at}, and is open`);
  const control = await readControl(cluster);
  if (control.primary === node) throw isPrimary(cluster, node, control.epoch);
  if (readSeal(paths) !== undefined)
    throw new VaultError('refused', `a promotion of ${node} is under way`, {
      hint: `'walvault status' shows it.`,
    });
  await checkNoTrigger(cluster, node);
}

/** @throws VaultError as checkDetach; unreachable (it did not open in time: the same call goes on) */
export async function detachStandby(cluster: Cluster, request: DetachRequest): Promise<DetachedServer> {
  const { node, pgdata, stateDir } = request;
  const paths = statePaths(stateDir);
  await checkDetach(cluster, request);
  return withConnection({ ...request.connection, pgdata: pgdata.path }, (client) =>
    withoutAgent(stateDir, async () => {
      const at = readDetached(paths)?.at ?? new Date().toISOString();
      writeDetached(paths, { at, node, vault: cluster.vault.url, cluster: cluster.name });
      crashPoint('detach-marked');
      await reportNode(cluster, {
        name: node,
        role: 'unknown',
        consistent: false,
        restartPoint: null,
        trouble: `${DETACHED_TROUBLE} since ${at}: opened for a test, never writes to this vault again`,
      });
      // A trigger checks this row in its transaction: it was committed before the row, and is seen here, or is refused.
      await checkNoTrigger(cluster, node).catch(async (error: unknown) => {
        await takeBack(cluster, node, paths);
        throw error;
      });
      await releaseHolds(cluster, node);
      crashPoint('detach-reported');
      await writeParameters(pgdata, PARAMETERS, client);
      await reloadServer(client, Object.keys(PARAMETERS));
      crashPoint('detach-configured');
      await promote(pgdata.path);
      const opened = await untilOpen(client, pgdata.path, request.limitMs);
      const text = `${node} was detached: opened for a test at ${opened.lsn} on a timeline ${opened.timeline} of its own`;
      await putEvent(cluster, { kind: 'detach', node, epoch: (await readControl(cluster)).epoch, text });
      return opened;
    }),
  );
}

async function checkNoTrigger(cluster: Cluster, node: string): Promise<void> {
  const { promotion } = await readHead(cluster);
  if (promotion?.node !== node) return;
  if (promotion.state === 'open') {
    const { primary, epoch } = await readControl(cluster);
    if (primary === node) throw isPrimary(cluster, node, epoch);
    return;
  }
  throw new VaultError(
    'refused',
    `${node} is the target of a pending promotion (epoch ${promotion.epoch}, ${promotion.state})`,
    {
      hint: `Wait for it, or name another: 'walvault trigger smart --to NODE --supersede ${promotion.epoch}'.`,
    },
  );
}

function isPrimary(cluster: Cluster, node: string, epoch: number): VaultError {
  return new VaultError('refused', `${node} is the primary of ${cluster.name} (epoch ${epoch})`, {
    hint: `Only a standby is detached; 'walvault status' lists them.`,
  });
}

/** The trigger was faster: the node is what it was. */
async function takeBack(cluster: Cluster, node: string, paths: StatePaths): Promise<void> {
  await reportNode(cluster, { name: node, role: 'standby', consistent: true, trouble: null });
  removeDurably(paths.detached);
}

/** Nothing in the vault is kept for it any more. */
async function releaseHolds(cluster: Cluster, node: string): Promise<void> {
  const row = await readHolds(cluster);
  for (const [id, hold] of Object.entries(row?.holds ?? {}))
    if (hold.node === node) await dropHold(cluster, id);
}

async function untilOpen(client: Client, pgdata: string, limitMs: number): Promise<DetachedServer> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const { rows } = await client.query<{ recovering: boolean }>('SELECT pg_is_in_recovery() AS recovering');
    if (rows[0]?.recovering === false) break;
    if (performance.now() > deadline)
      throw new VaultError('unreachable', `the server on ${pgdata} did not open within ${limitMs / 1000} s`, {
        hint: `It is detached and will open; its log says what it waits for. The same command looks again.`,
      });
    await sleep(50);
  }
  const { rows } = await client.query<{ lsn: string; file: string }>(
    'SELECT pg_current_wal_lsn()::text AS lsn, pg_walfile_name(pg_current_wal_lsn()) AS file',
  );
  const { lsn = '', file = '' } = rows[0] ?? {};
  return { pgdata, lsn, timeline: Number.parseInt(file.slice(0, 8), 16) };
}
