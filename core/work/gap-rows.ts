/** The rows of declared gaps: read so that none is missed, and what changes between two states of them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { keys, type GapRow, type Head } from '../cluster/facts.ts';
import { gapOf, liveGaps, type LiveGap } from '../cluster/gaps.ts';
import type { Change } from '../vault/manifest.ts';
import { isSegmentName, segmentEnd } from '../wal/name.ts';
import { parseLsn } from '../wal/lsn.ts';
import type { Branch } from './branch.ts';
import { asRow, listRows, readHead, type Cluster } from './cluster.ts';

/** A range may lack a row that is there, for a moment; head says how many there are. */
const TRIES = 50;

/**
 * All declared gaps, as many as head says.
 *
 * @param head  as read before; where it changed meanwhile the gaps are those of now: a transaction on its revision fails then
 * @throws VaultError corrupt (rows and head do not agree) | unreachable
 */
export async function readGaps(cluster: Cluster, head: Head): Promise<GapRow[]> {
  let now = head;
  for (let round = 0; ; round++) {
    const count = now.gap?.count ?? 0;
    if (count === 0) return [];
    const rows = await listRows<GapRow>(cluster, 'gap#');
    if (rows.length === count) return rows;
    if (round === TRIES)
      throw new VaultError('corrupt', `head says ${count} declared gap(s), ${rows.length} are there`, {
        hint: 'A row gap# was put or removed by hand. Until they agree nothing can be said of what lies behind it.',
      });
    await sleep(20);
    now = await readHead(cluster);
  }
}

/** The gaps of the live branch, in its order. @throws VaultError as readGaps */
export async function readLiveGaps(
  cluster: Cluster,
  { head, lineage }: Pick<Branch, 'head' | 'lineage'>,
): Promise<LiveGap[]> {
  return liveGaps(await readGaps(cluster, head), lineage, cluster.segmentSize);
}

/** The gap in which this file would lie; undefined: none, or it is no segment. */
export async function findGap(cluster: Cluster, name: string): Promise<GapRow | undefined> {
  if (!isSegmentName(name)) return undefined;
  const head = await readHead(cluster);
  return gapOf(await readGaps(cluster, head), name);
}

/** From `before`, as it was read, to `after`: each row by its revision. head.gap has to be set in the same transaction. */
export function gapChanges(before: readonly GapRow[], after: readonly GapRow[]): Change[] {
  const now = new Map(after.map((row) => [row.sk, row]));
  const was = new Map(before.map((row) => [row.sk, row]));
  const changes: Change[] = [];
  for (const row of before) {
    const next = now.get(row.sk);
    if (next === undefined)
      changes.push({ do: 'delete', key: { pk: row.pk, sk: row.sk }, when: { rev: row.rev } });
    else if (next !== row)
      changes.push({ do: 'put', row: asRow({ ...next, rev: row.rev + 1 }), when: { rev: row.rev } });
  }
  for (const row of after)
    if (!was.has(row.sk)) changes.push({ do: 'put', row: asRow({ ...row, rev: 1 }), when: 'absent' });
  return changes;
}

/**
 * The gaps where a transaction has to know them: one that puts rows below head, for a row may fill one; and one that declares.
 *
 * @returns undefined where none of the names lies below head
 */
export async function gapsBelow(
  cluster: Cluster,
  head: Head,
  names: readonly string[],
): Promise<GapRow[] | undefined> {
  if (head.lsn === null) return undefined;
  const end = parseLsn(head.lsn);
  const isBelow = names.some((name) => isSegmentName(name) && segmentEnd(name, cluster.segmentSize) <= end);
  return isBelow ? readGaps(cluster, head) : undefined;
}

/** That no row of these names came into being: they are being declared. */
export const stillAbsent = (cluster: Cluster, names: readonly string[]): Change[] =>
  names.map((name) => ({ do: 'check', key: keys.wal(cluster.partition, name), when: 'absent' }));
