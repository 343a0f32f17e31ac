/**
 * Tombstones: an object that lay in the bucket for long without a row is about to be deleted, and no row may name it any more.
 *
 * A writer puts the object first and its row later; it may have been asleep in between for a day. So the sweep first puts a tombstone,
 * in a transaction that sees that no row names the object, and then deletes; every transaction that puts a row for a fresh object sees,
 * by condition, that there is no tombstone. Whoever meets one stores the object again, under a new key.
 *
 * The tombstone is a row of its own, by the object's key and not in the place of the row to come: one key may be meant for wal#, spill# or
 * tail#, and no reader of those must ever take a tombstone for a file.
 */
import { VaultError } from '../errors.ts';
import { keys } from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import type { Cluster } from './cluster.ts';

/** The objects named here are gone, or about to go: store them again. */
export class Swept extends VaultError {
  readonly keys: ReadonlySet<string>;

  constructor(swept: readonly string[]) {
    super(
      'busy',
      `${swept.length} object(s) lay for more than a day without a row and were swept: ${swept[0]}`,
      {
        hint: 'they are stored again under new keys',
      },
    );
    this.keys = new Set(swept);
  }
}

/** Conditions for the transaction that puts the rows of these fresh objects. */
export function notSwept(cluster: Cluster, objects: readonly string[]): Change[] {
  return objects.map((key) => ({ do: 'check', key: keys.tombstone(cluster.partition, key), when: 'absent' }));
}

export async function isSwept(cluster: Cluster, object: string): Promise<boolean> {
  return (await cluster.vault.manifest.get(keys.tombstone(cluster.partition, object))) !== undefined;
}

/** After such a transaction was refused. @throws Swept */
export async function checkSwept(cluster: Cluster, objects: readonly string[]): Promise<void> {
  const found = await Promise.all(objects.map((key) => isSwept(cluster, key)));
  const swept = objects.filter((_, index) => found[index]);
  if (swept.length > 0) throw new Swept(swept);
}
