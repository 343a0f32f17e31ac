/**
 * The object of one WAL row, from one vault to another: by relay, and home again for what was spilled.
 *
 * Where the store copies by itself, frame and length are the source's; else the bytes come through here and are verified as a restore
 * would do it: a replica must not find out on the day it is needed that its source was damaged.
 */
import { VaultError } from '../errors.ts';
import type { WalRow } from '../cluster/facts.ts';
import { newId, objectKeys, type Cluster } from './cluster.ts';
import { fileOf, openStored } from './store-file.ts';

/**
 * Copies the object of `row` (wal#, spill#, or a tail as asWalRow gives it) under a key of its own: a copy that is done again, or twice
 * at once, leaves an object without a row and never leans on one that a sweep is about to take.
 *
 * @param key  where to, instead of that key
 * @returns the key in `to`
 * @throws VaultError corrupt (gone, or not what the row says) | unreachable | denied | local
 */
export async function copyWalObject(
  from: Cluster,
  row: WalRow,
  to: Cluster,
  key: string = objectKeys.wal(to, fileOf(row), row.sha256, newId()),
): Promise<string> {
  const source = from.vault.bucket;
  const copied = await to.vault.bucket.copyFrom({ bucket: source, key: row.key }, key);
  if (copied === 'stored' || copied === 'same') return key;
  const [stored, facts] =
    copied === 'absent' ? [] : await Promise.all([source.get(row.key), source.facts(row.key)]);
  if (stored === undefined || facts === undefined) {
    throw new VaultError(
      'corrupt',
      `the object of ${fileOf(row)} is gone from ${from.vault.url} (${row.key})`,
      {
        hint: `look for it among the bucket's older versions; the row says that it was there at ${row.archivedAt}`,
      },
    );
  }
  await openStored(from, row, stored);
  await to.vault.bucket.putOnce(key, stored, { ...facts, cluster: to.name });
  return key;
}
