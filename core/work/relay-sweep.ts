/** The comparison of every row of a vault with its replica: what no head shows to be missing is found by it. */
import { isBelowHorizon } from '../cluster/decide-retention.ts';
import type { WalRow } from '../cluster/facts.ts';
import { parseLsn } from '../wal/lsn.ts';
import { segmentEnd } from '../wal/name.ts';
import { rowsUnder } from './cluster.ts';
import { readHolds } from './holds.ts';
import { copyRows, type CarryOptions } from './relay-copy.ts';
import { BATCH, facts } from './relay-rows.ts';
import type { Reading, Target } from './replica.ts';
import { fileOf } from './store-file.ts';

/**
 * Rows that no head shows to be missing (put later below it, lost by a person's hand): every row of the source is held against the
 * replica. @returns how many were brought
 */
export async function sweepRows(source: Reading, target: Target, options: CarryOptions): Promise<number> {
  let brought = 0;
  let batch: WalRow[] = [];
  const flush = async (): Promise<void> => {
    const copied = await copyRows(source, target, batch, options);
    batch = [];
    if (copied.changes.length === 0) return;
    await target.commit(copied.changes, { head: facts(source, target) });
    brought += copied.rows;
    options.onStep({
      step: 'rows',
      rows: copied.rows,
      bytes: copied.bytes,
      lastFile: target.head.lastFile ?? '',
    });
  };
  // What the replica's own retention has let go stays gone.
  const horizon = (await readHolds(target.side.cluster))?.horizon ?? {};
  const held = rowsUnder<WalRow>(target.side.cluster, 'wal#');
  let other = await held.next();
  for await (const row of rowsUnder<WalRow>(source.cluster, 'wal#')) {
    options.signal?.throwIfAborted();
    while (other.done !== true && other.value.sk < row.sk) other = await held.next();
    const isSame = other.done !== true && other.value.sk === row.sk && other.value.sha256 === row.sha256;
    if (isSame || !isCovered(source, target, row) || isBelowHorizon(horizon, fileOf(row))) continue;
    batch.push(row);
    if (batch.length >= BATCH) await flush();
  }
  if (batch.length > 0) await flush();
  return brought;
}

/** On the live branch and below the replica's head: what lies beyond comes in its turn, what lies off it is served by nobody. */
function isCovered(source: Reading, target: Target, row: WalRow): boolean {
  const name = fileOf(row);
  const part = source.lineage.find(({ timeline }) => timeline === Number.parseInt(name.slice(0, 8), 16));
  const { lsn, firstLsn } = target.head;
  if (part === undefined || lsn === null || firstLsn === null) return false;
  const end = segmentEnd(name.slice(0, 24), source.cluster.segmentSize);
  const upTo = part.ends !== null && part.ends < parseLsn(lsn) ? part.ends : parseLsn(lsn);
  return end > parseLsn(firstLsn) && end > part.begins && end <= upTo;
}
