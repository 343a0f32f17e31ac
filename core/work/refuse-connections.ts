/**
 * Nobody but the own session is let in while a primary is flushed, by nothing that is written to WAL and nothing that outlives the
 * flush: the rules that reject everybody are in the postmaster's memory only. Their file stands in the place of pg_hba.conf for the
 * moment of the reload, then the original is back: whatever makes the postmaster read it again (a reload, a restart) ends the refusal.
 *
 *   <state>/refusing     pg_hba.conf and data directory, from before the exchange until after the reload that ends it
 *   <state>/flush.lock   held by the flush at work, freed by the kernel when it ends
 *
 * A mark that nobody holds the lock for is that of a flush that was killed: `restoreConnections` ends it.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from 'pg';
import { VaultError } from '../errors.ts';
import {
  checkHbaFile,
  putBackHbaFile,
  rejectEverybody,
  saveHbaFile,
  signalReload,
} from '../postgres/hba-file.ts';
import { connect, type ConnectOptions } from '../postgres/sql.ts';
import { crashPoint } from './crash-points.ts';
import { takeNodeLock } from './node-lock.ts';
import { readText, removeDurably, replaceDurably } from './node-state.ts';

/** How long a postmaster may take to read its files again, in ms. */
const RELOAD_LIMIT_MS = 15_000;

type Mark = { hbaFile: string; pgdata: string };

const markFile = (stateDir: string): string => path.join(stateDir, 'refusing');

/** Where the server's pg_hba.conf lies, proven to be exchangeable. @throws VaultError local | unreachable */
export async function findHbaFile(client: Client): Promise<string> {
  const { rows } = await client.query<{ hba_file: string }>('SHOW hba_file');
  return checkHbaFile(rows[0]?.hba_file ?? '');
}

/**
 * From its return on the server lets nobody in. The caller holds the flush's lock, and ends it by `endRefusal`, whatever happens.
 *
 * @param client  a session of a superuser that goes on
 * @param connection  as `client` was opened: tried until it is refused
 * @throws VaultError local | unreachable (the postmaster does not read its files)
 */
export async function refuseConnections(
  stateDir: string,
  request: {
    hbaFile: string;
    pgdata: string;
    client: Client;
    connection: ConnectOptions;
    signal?: AbortSignal;
  },
): Promise<void> {
  const { hbaFile, pgdata } = request;
  replaceDurably(markFile(stateDir), `${JSON.stringify({ hbaFile, pgdata } satisfies Mark)}\n`);
  await saveHbaFile(hbaFile);
  crashPoint('flush-saved');
  await rejectEverybody(hbaFile);
  crashPoint('flush-exchanged');
  await request.client.query('SELECT pg_reload_conf()');
  await untilRefused(request.connection, request.signal);
  await putBackHbaFile(hbaFile);
  crashPoint('flush-refusing');
}

/** The postmaster reads pg_hba.conf after it has told its sessions to reload: that it refuses is shown by a refusal only. */
async function untilRefused(connection: ConnectOptions, signal: AbortSignal | undefined): Promise<void> {
  const deadline = performance.now() + RELOAD_LIMIT_MS;
  let last: unknown;
  while (performance.now() < deadline) {
    signal?.throwIfAborted();
    try {
      await (await connect(connection)).end();
    } catch (error) {
      if (error instanceof VaultError && error.code === 'denied') return;
      last = error; // no free slot, say: it proves nothing
    }
    await sleep(20);
  }
  throw new VaultError(
    'unreachable',
    `the server did not read pg_hba.conf again within ${RELOAD_LIMIT_MS / 1000} s`,
    { cause: last, hint: 'The log of the server says why.' },
  );
}

/**
 * Ends a refusal; none is fine. The caller holds the flush's lock.
 *
 * @returns false where there was none
 * @throws VaultError local | pgdata | denied
 */
export async function endRefusal(stateDir: string): Promise<boolean> {
  const text = readText(markFile(stateDir));
  if (text === undefined) return false;
  const { hbaFile, pgdata } = JSON.parse(text) as Mark;
  await putBackHbaFile(hbaFile);
  await signalReload(pgdata);
  removeDurably(markFile(stateDir));
  return true;
}

/**
 * Ends the refusal of a flush that was killed; one that is still at work is left alone. Costs one look where there is none, so it may
 * be called at each turn of a loop.
 *
 * @returns true where it was ended
 * @throws VaultError local | pgdata | denied
 */
export async function restoreConnections(stateDir: string): Promise<boolean> {
  if (!fs.existsSync(markFile(stateDir))) return false;
  const lock = await takeNodeLock(path.join(stateDir, 'flush.lock'));
  if (lock === undefined) return false;
  try {
    return await endRefusal(stateDir);
  } finally {
    lock.release();
  }
}

/** Runs `work` as the one flush of this node. @throws VaultError busy (another is at work) | local */
export async function withFlushLock<T>(stateDir: string, work: () => Promise<T>): Promise<T> {
  // an agent that ends a killed flush's refusal holds it for a moment
  const lock = await takeNodeLock(path.join(stateDir, 'flush.lock'), 3000);
  if (lock === undefined)
    throw new VaultError('busy', `another flush of this server is at work (${stateDir})`, {
      hint: `Wait for it, or end it: Ctrl-C there backs out.`,
    });
  try {
    return await work();
  } finally {
    lock.release();
  }
}
