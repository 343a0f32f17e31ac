/** Objects and rows from a vault into its replica, any number of them: what a relay carries in order, and what a sweep finds missing. */
import { VaultError } from '../errors.ts';
import { keys, type WalRow } from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import { asRow, putEvent } from './cluster.ts';
import { copyWalObject } from './copy-object.ts';
import { crashPoint } from './crash-points.ts';
import { eachOf } from './each-of.ts';
import type { Reading, Target } from './replica.ts';
import { fileOf } from './store-file.ts';
import { notSwept } from './tombstones.ts';

export type RelayStep =
  | { step: 'rows'; rows: number; bytes: number; lastFile: string }
  | { step: 'gap'; from: string; to: string }
  | { step: 'history'; timeline: number; fork: string }
  | { step: 'tail'; segment: string; lsn: string }
  | { step: 'backup'; id: string; objects: number; of: number; bytes: number }
  | { step: 'facts'; epoch: number; primary: string | null }
  | { step: 'home'; files: number }
  | { step: 'salvage'; files: number }
  | { step: 'aside'; rows: number }
  | { step: 'turned'; message: string };

export type CarryOptions = {
  /** Objects on their way at a time. */
  parallel: number;
  signal?: AbortSignal;
  onStep(step: RelayStep): void;
};

/** The objects of rows that the replica lacks, and the changes that put their rows. What the primary spilled there is taken as it lies. */
export async function copyRows(
  source: Reading,
  target: Target,
  rows: readonly WalRow[],
  options: CarryOptions,
): Promise<{ changes: Change[]; rows: number; bytes: number }> {
  const { cluster } = target.side;
  const { manifest } = cluster.vault;
  const slots = await eachOf(rows, options.parallel, async (row): Promise<Change[]> => {
    options.signal?.throwIfAborted();
    const name = fileOf(row);
    const held = (await manifest.get(keys.wal(cluster.partition, name))) as WalRow | undefined;
    if (held !== undefined && held.sha256 !== row.sha256) throw await conflict(source, target, name);
    if (held !== undefined) return [];
    const spill =
      target.head.spill === null
        ? undefined
        : ((await manifest.get(keys.spill(cluster.partition, name))) as WalRow | undefined);
    if (spill !== undefined && spill.sha256 !== row.sha256) throw await conflict(source, target, name);
    const key = spill?.key ?? (await copyWalObject(source.cluster, row, cluster));
    crashPoint('relay-copied');
    const put: Change = {
      do: 'put',
      row: asRow({ ...row, pk: cluster.partition, rev: 1, key }),
      when: 'absent',
    };
    if (spill === undefined) return [put, ...notSwept(cluster, [key])];
    return [put, { do: 'delete', key: keys.spill(cluster.partition, name), when: { rev: spill.rev } }];
  });
  const brought = rows.filter((_, index) => slots[index]!.length > 0);
  return {
    changes: slots.flat(),
    rows: brought.length,
    bytes: brought.reduce((sum, { storedBytes }) => sum + storedBytes, 0),
  };
}

/**
 * Said in both vaults: whoever looks at one of them must learn of it. Once: a relay tries again for as long as nobody has looked, and what
 * it said last stands in its row.
 */
export async function conflict(source: Reading, target: Target, name: string): Promise<VaultError> {
  const text = `${source.url} and ${target.side.url} hold different bytes under ${name}`;
  for (const [{ cluster, control }, other] of [
    [source, target.side],
    [target.side, source],
  ] as const) {
    const said = await cluster.vault.manifest
      .get(keys.relay(cluster.partition, other.control.vaultId))
      .catch(() => undefined);
    if (said?.['trouble'] === `conflict: ${text}`) continue;
    await putEvent(cluster, { kind: 'conflict', node: null, epoch: control.epoch, text }).catch(() => {});
  }
  return new VaultError('conflict', text, {
    hint: `nothing was changed; find out which of the two is true ('walvault status' of both), then make the other anew as a replica`,
  });
}
