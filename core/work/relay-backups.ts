/** Base backups, carried along: a DR node is made from the replica alone. Objects first, the row when the backup's WAL is there. */
import { VaultError } from '../errors.ts';
import { endOf } from '../cluster/decide-roles.ts';
import { isBelowHorizon } from '../cluster/decide-retention.ts';
import { keys, type BackupRow } from '../cluster/facts.ts';
import { parseLsn } from '../wal/lsn.ts';
import { backupPrefix } from './bundles.ts';
import { asRow, rowsUnder, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { readHolds } from './holds.ts';
import type { CarryOptions } from './relay-copy.ts';
import type { Reading, Target } from './replica.ts';
import { sha256Of } from './store-file.ts';

/**
 * Complete backups of the source that the replica lacks; those that were removed there later are the replica's own affair, and so are
 * those that its own retention has let go.
 */
export async function missingBackups(source: Cluster, target: Cluster): Promise<BackupRow[]> {
  const missing: BackupRow[] = [];
  const horizon = (await readHolds(target))?.horizon ?? {};
  for await (const row of rowsUnder<BackupRow>(source, 'backup#')) {
    if (row.state !== 'complete' || isBelowHorizon(horizon, row.startSegment)) continue;
    if ((await target.vault.manifest.get(keys.backup(target.partition, row.id))) === undefined)
      missing.push(row);
  }
  return missing;
}

/**
 * @param pause  called after each object: a large backup must not keep WAL waiting
 * @returns the ids that are there now
 */
export async function carryBackups(
  source: Reading,
  target: Target,
  missing: readonly BackupRow[],
  options: CarryOptions,
  pause: () => Promise<void>,
): Promise<string[]> {
  const to = target.side.cluster;
  const carried: string[] = [];
  for (const row of missing) {
    const stop = parseLsn(row.stopLsn ?? row.startLsn);
    const end = endOf(target.head);
    if (end === null || end < stop) continue;
    if (!(await carryObjects(source.cluster, to, row, options, pause))) continue;
    crashPoint('relay-backup');
    const outcome = await to.vault.manifest.transact([
      { do: 'put', row: asRow({ ...row, pk: to.partition, rev: 1 }), when: 'absent' },
    ]);
    if (outcome.done) carried.push(row.id);
  }
  return carried;
}

/** @returns false where the source removed the backup meanwhile */
async function carryObjects(
  from: Cluster,
  to: Cluster,
  row: BackupRow,
  options: CarryOptions,
  pause: () => Promise<void>,
): Promise<boolean> {
  const objects: string[] = [];
  for await (const { key } of from.vault.bucket.list(backupPrefix(from, row.id))) objects.push(key);
  // Its retention marks a backup before it deletes the first object: one that is still complete now was listed whole.
  const still = await from.vault.manifest.get(keys.backup(from.partition, row.id));
  if (still?.['state'] !== 'complete') return false;
  const there = new Set<string>();
  for await (const { key } of to.vault.bucket.list(backupPrefix(to, row.id))) there.add(key);
  let bytes = 0;
  for (const [index, key] of objects.entries()) {
    options.signal?.throwIfAborted();
    if (there.has(key)) continue; // written once, whole: what lies under this backup's key is of this backup
    const copied = await to.vault.bucket.copyFrom({ bucket: from.vault.bucket, key }, key);
    if (copied === 'absent') return false;
    if (copied === undefined) {
      const [body, facts] = await Promise.all([from.vault.bucket.get(key), from.vault.bucket.facts(key)]);
      if (body === undefined || facts === undefined) return false;
      const told = facts['stored-sha256'];
      if (told !== undefined && sha256Of(body) !== told)
        throw new VaultError(
          'corrupt',
          `'${key}' of backup ${row.id} is not what was put into ${from.vault.url}`,
          {
            hint: `take a new backup; this one can no more be relied upon`,
          },
        );
      await to.vault.bucket.putOnce(key, body, facts);
      bytes += body.length;
    }
    options.onStep({ step: 'backup', id: row.id, objects: index + 1, of: objects.length, bytes });
    await pause();
  }
  return objects.includes(row.indexKey ?? '');
}
