/**
 * Waiting for the vaults that follow this one: a flush whose last WAL has not reached the DR vault would leave it behind just when it
 * may be needed.
 *
 * A relay says where it is in the row relay#<other vault>, and its row moves while it lives: that is seen here, since two machines'
 * clocks cannot be compared.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import type { RelayRow } from '../cluster/facts.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { listRows, type Cluster } from './cluster.ts';

/** A relay whose row did not move for this long is one that does not run, in ms: one that follows says a word each few seconds. */
const SILENT_AFTER_MS = 5 * 60_000;

/** A replica further behind is refused before anything is changed: what it lacks would be time without a primary. */
const MAX_LAG_ROWS = 16;

const LOOK_EVERY_MS = 100;

export type RelayWaitStep =
  { step: 'relaying'; url: string; lsn: string | null } | { step: 'relayed'; url: string; lsn: string };

type Waiting = { waitMs: number; signal?: AbortSignal; onStep?: (step: RelayWaitStep) => void };

const HINT = `Look at the machine that runs 'walvault relay --follow'; or leave the DR vault behind, knowingly, with --without-dr.`;

/** The relays that carry this vault's rows to others. */
export async function outgoingRelays(cluster: Cluster): Promise<RelayRow[]> {
  return (await listRows<RelayRow>(cluster, 'relay#')).filter(({ direction }) => direction === 'to');
}

/** Does the other vault hold the live branch up to `lsn` of `timeline`, as its relay said last? */
export function isRelayed(
  row: Pick<RelayRow, 'timeline' | 'lsn' | 'tailLsn'>,
  goal: { timeline: number; lsn: Lsn },
): boolean {
  if (row.timeline !== goal.timeline) return row.timeline > goal.timeline;
  return [row.lsn, row.tailLsn].some((end) => end !== null && parseLsn(end) >= goal.lsn);
}

/**
 * Every relay from this vault lives, seen by its row that moves, is not in trouble, and has brought nearly all. Nothing is changed.
 *
 * @throws VaultError refused  one of them is in trouble, was not heard of for `waitMs` (or five minutes), or is too far behind
 */
export async function checkRelays(cluster: Cluster, { waitMs, signal }: Waiting): Promise<void> {
  const first = new Map((await outgoingRelays(cluster)).map((row) => [row.sk, row.rev]));
  const limitMs = Math.min(waitMs, SILENT_AFTER_MS);
  const deadline = performance.now() + limitMs;
  for (;;) {
    signal?.throwIfAborted();
    const rows = await outgoingRelays(cluster);
    const isOver = performance.now() > deadline;
    // What stands in the row at first may be long over: a word that was said since is awaited.
    const why = rows
      .map((row) => notReady(row, first.get(row.sk) !== row.rev, isOver, limitMs))
      .filter((each) => each !== undefined);
    if (why.length === 0) return;
    const [refusal] = why.filter((each) => each !== 'wait');
    if (refusal !== undefined) throw new VaultError('refused', refusal, { hint: HINT });
    await sleep(LOOK_EVERY_MS);
  }
}

/** Why a flush does not begin with this relay as it is; 'wait': it may be ready yet; undefined: it is ready. */
function notReady(row: RelayRow, isHeard: boolean, isOver: boolean, limitMs: number): string | undefined {
  const { url } = row.vault;
  if (isHeard && row.trouble !== null) return `the relay to ${url} does not get on: ${row.trouble}`;
  if (isHeard && row.rows <= MAX_LAG_ROWS) return undefined;
  if (!isOver) return 'wait';
  if (isHeard) return `the relay to ${url} is ${row.rows} rows behind, more than ${MAX_LAG_ROWS}`;
  const trouble = row.trouble === null ? '' : `: ${row.trouble}`;
  return `the relay to ${url} was not heard of for ${Math.round(limitMs / 1000)} s (its last word is of ${row.at}${trouble})`;
}

/**
 * Waits until every vault that follows this one holds the live branch up to `goal`.
 *
 * @param waiting.waitMs  how long a relay may bring nothing
 * @returns the URLs of those vaults
 * @throws VaultError unreachable  one of them does not have it in time
 */
export async function untilRelayed(
  cluster: Cluster,
  goal: { timeline: number; lsn: Lsn },
  waiting: Waiting,
): Promise<string[]> {
  const { waitMs, signal } = waiting;
  const say = waiting.onStep ?? (() => {});
  const ends = new Map<string, string>();
  const done = new Map<string, string>();
  let deadline = performance.now() + waitMs;
  for (;;) {
    signal?.throwIfAborted();
    const rows = await outgoingRelays(cluster);
    const behind = rows.filter((row) => !isRelayed(row, goal));
    for (const row of rows) {
      const { url } = row.vault;
      if (behind.includes(row)) {
        if (!ends.has(row.sk)) say({ step: 'relaying', url, lsn: row.lsn });
      } else if (!done.has(row.sk)) {
        done.set(row.sk, url);
        say({ step: 'relayed', url, lsn: formatLsn(goal.lsn) });
      }
      const end = `${row.timeline} ${row.lsn} ${row.tailLsn}`;
      if (ends.has(row.sk) && ends.get(row.sk) !== end) deadline = performance.now() + waitMs;
      ends.set(row.sk, end);
    }
    const [last] = behind;
    if (last === undefined) return rows.map(({ vault }) => vault.url);
    if (performance.now() > deadline) {
      const why = last.trouble === null ? '' : `: ${last.trouble}`;
      throw new VaultError(
        'unreachable',
        `${last.vault.url} stands at ${last.lsn ?? 'nothing'}, not at ${formatLsn(goal.lsn)}, and nothing came there for ${Math.round(waitMs / 1000)} s${why}`,
        { hint: HINT },
      );
    }
    await sleep(LOOK_EVERY_MS);
  }
}
