/**
 * Waiting until the vault has WAL up to an LSN, and saying why it does not come.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { VaultError } from '../errors.ts';
import type { Head } from '../cluster/facts.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { segmentAt } from '../wal/name.ts';
import { readBranch } from './branch.ts';
import { readHead, type Cluster } from './cluster.ts';

const POLL_MS = 100;

/**
 * Has the live branch everything of `timeline` below `lsn` (from the first byte ever archived: there are no holes)? What lies in a declared gap
 * counts as come: who cannot do without it asks for the gaps (gap-rows.ts) as well.
 *
 * @throws VaultError refused (the timeline is not on the live branch, or was left before `lsn`)
 */
export async function hasWalUpTo(
  cluster: Cluster,
  timeline: number,
  lsn: Lsn,
  head?: Head,
): Promise<boolean> {
  const now = head ?? (await readHead(cluster));
  if (now.lsn === null || now.timeline < timeline) return false;
  if (now.timeline === timeline) return parseLsn(now.lsn) >= lsn;
  const part = (await readBranch(cluster, undefined, now)).lineage.find((one) => one.timeline === timeline);
  if (part !== undefined && (part.ends === null || part.ends >= lsn)) return parseLsn(now.lsn) >= lsn;
  throw new VaultError(
    'refused',
    `timeline ${timeline} at ${formatLsn(lsn)} is not on the live branch: the cluster went on to timeline ${now.timeline}`,
    { hint: `Run it on a node that follows the live branch: 'walvault status' lists them.` },
  );
}

/**
 * Waits until the vault has the WAL below `lsn`.
 *
 * @param limitMs  how long nothing at all may arrive: a backlog that shrinks is waited for
 * @param client  a connection to the server that ought to archive it: asked why, when the time is over
 * @throws VaultError unreachable (it did not come in time; the hint says what the archiver says) | refused
 */
export async function waitForWal(
  cluster: Cluster,
  options: { timeline: number; lsn: Lsn; limitMs: number; client?: Client; signal?: AbortSignal },
): Promise<void> {
  const { timeline, lsn, limitMs } = options;
  let deadline = performance.now() + limitMs;
  let seen: string | null = null;
  let silence: unknown;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      const head = await readHead(cluster);
      if (await hasWalUpTo(cluster, timeline, lsn, head)) return;
      if (head.lsn !== seen && seen !== null) deadline = performance.now() + limitMs;
      seen = head.lsn;
      silence = undefined;
    } catch (error) {
      // a vault that is away for a moment is asked again
      if (!(error instanceof VaultError && error.code === 'unreachable')) throw error;
      silence = error;
    }
    if (performance.now() > deadline) break;
    await delay(POLL_MS);
  }
  if (silence !== undefined) throw silence;
  const segment = segmentAt(timeline, lsn > 0n ? lsn - 1n : lsn, cluster.segmentSize);
  throw new VaultError(
    'unreachable',
    `${segment} did not arrive in the vault within ${Math.round(limitMs / 1000)} s`,
    {
      hint: await explainArchiver(options.client),
    },
  );
}

/** What the server itself says of its archiving, as a hint. */
async function explainArchiver(client: Client | undefined): Promise<string> {
  const elsewhere = `Look into the log of the primary; 'walvault status' shows what arrived last.`;
  if (client === undefined) return elsewhere;
  const found = await client
    .query<{ mode: string; command: string; wal: string | null; failed: string; standby: boolean }>(
      `SELECT current_setting('archive_mode') AS mode, current_setting('archive_command') AS command,
              last_failed_wal AS wal, failed_count::text AS failed, pg_is_in_recovery() AS standby FROM pg_stat_archiver`,
    )
    .catch(() => undefined);
  const row = found?.rows[0];
  if (row === undefined) return elsewhere;
  if (row.standby) return `This is a standby: run 'SELECT pg_switch_wal()' on the primary. ${elsewhere}`;
  if (row.mode === 'off')
    return `archive_mode is off: 'walvault configure primary', then restart the server.`;
  if (row.command === '') return `archive_command is empty: 'walvault configure primary'.`;
  if (row.wal !== null) {
    return `The archiver failed ${row.failed} times, last on ${row.wal}; the server's log has the message of archive_command = ${row.command}`;
  }
  return `archive_command = ${row.command}; is it walvault's ('walvault configure primary')? The server's log tells what it answered.`;
}
