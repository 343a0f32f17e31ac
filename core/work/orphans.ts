/**
 * The sweep of objects that no row names: uploads whose commit never came, what a run of retention left that was killed between row
 * and object. Only WAL: backups go by their rows, histories are a few bytes, salvage is left alone.
 */
import { isBelowHorizon } from '../cluster/decide-retention.ts';
import { keys, type HoldsRow } from '../cluster/facts.ts';
import { type Change, type Row } from '../vault/manifest.ts';
import { parseWalName } from '../wal/name.ts';
import { asRow, rowsUnder, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';

/** How old an object must be, by the store's clock and ours, which may differ by an hour. */
export const ORPHAN_MS = 25 * 60 * 60_000;

export type Orphan = { key: string; file: string; sizeBytes: number; storedAt: string };

/** In this order: a file goes from spill# to wal#, and from wal# to aside#, never back, so that none is missed on its way. */
const OWNERS = ['spill#', 'wal#', 'tail#', 'aside#'] as const;

/** Old objects that no row names, as far as a look says; sweepOrphan looks again, by condition. */
export async function* findOrphans(cluster: Cluster, now: Date): AsyncGenerator<Orphan, void> {
  const { bucket } = cluster.vault;
  const old: Orphan[] = [];
  for await (const { key, sizeBytes, storedAt } of bucket.list(`${cluster.partition}/wal/`)) {
    const file = fileOfKey(key);
    if (file === undefined || now.getTime() - storedAt.getTime() < ORPHAN_MS) continue;
    old.push({ key, file, sizeBytes, storedAt: storedAt.toISOString() });
  }
  // rows after objects: an object is there before its row, and a row that is read now names no object that was not listed
  const owned = new Set<string>();
  for (const prefix of OWNERS)
    for await (const { key } of rowsUnder<{ key: string }>(cluster, prefix)) owned.add(key);
  for (const orphan of old) if (!owned.has(orphan.key)) yield orphan;
}

/** The file that an object of wal/ is of. */
function fileOfKey(key: string): string | undefined {
  const found = /\/([^/]+)-[0-9a-f]{16}-[0-9a-f]{16}\.zst$/.exec(key)?.[1];
  return found !== undefined && parseWalName(found) !== undefined ? found : undefined;
}

/** @returns false where a row names it after all */
export async function sweepOrphan(
  cluster: Cluster,
  { key, file }: Orphan,
  horizon: HoldsRow['horizon'],
  now: Date,
): Promise<boolean> {
  const { bucket, manifest } = cluster.vault;
  const { partition } = cluster;
  const timeline = Number.parseInt(file.slice(0, 8), 16);
  const places = [keys.spill(partition, file), keys.wal(partition, file), keys.tail(partition, timeline)];
  const rows = await Promise.all(places.map((place) => manifest.get(place)));
  if (rows.some((row) => row?.['key'] === key)) return false;
  // Below the horizon a row that comes late is of no use to anybody, and goes with the next run.
  if (!isBelowHorizon(horizon, file)) {
    const unchanged = (row: Row | undefined): Change['when'] =>
      row === undefined ? 'absent' : { rev: row.rev };
    const tombstone = { ...keys.tombstone(partition, key), rev: 1, key, file, at: now.toISOString() };
    const stone = await manifest.get(tombstone);
    const outcome = await manifest.transact([
      ...(stone === undefined ? [{ do: 'put', row: asRow(tombstone), when: 'absent' } as const] : []),
      ...places.map((place, index): Change => ({ do: 'check', key: place, when: unchanged(rows[index]) })),
    ]);
    if (!outcome.done) return false;
    crashPoint('retention-tombstone');
  }
  await bucket.delete(key);
  return true;
}

/** Below the horizon nobody's row can matter any more. */
export async function removeTombstones(cluster: Cluster, horizon: HoldsRow['horizon']): Promise<void> {
  const { manifest } = cluster.vault;
  for await (const { pk, sk, rev, file } of rowsUnder<Row>(cluster, 'tombstone#'))
    if (isBelowHorizon(horizon, String(file)))
      await manifest.transact([{ do: 'delete', key: { pk, sk }, when: { rev } }]);
}
