/** A backup that is kept until somebody says otherwise: `pinned` in its row, of this vault alone. */
import { VaultError } from '../errors.ts';
import { keys, type BackupRow } from '../cluster/facts.ts';
import { asRow, changing, type Cluster } from './cluster.ts';

/** @returns its row as it is now @throws VaultError absent (no such backup) | refused (not complete) | busy | unreachable */
export async function setPinned(cluster: Cluster, id: string, pinned: boolean): Promise<BackupRow> {
  const { manifest } = cluster.vault;
  return changing<BackupRow>(
    async () => {
      const row = (await manifest.get(keys.backup(cluster.partition, id))) as BackupRow | undefined;
      const hint = `'walvault backups' lists them.`;
      if (row === undefined) throw new VaultError('absent', `no backup ${id}`, { hint });
      if (pinned && row.state !== 'complete')
        throw new VaultError('refused', `backup ${id} is ${row.state}: only a complete one can be kept`, {
          hint,
        });
      if ((row.pinned === true) === pinned) return { result: row };
      const next: BackupRow = { ...row, rev: row.rev + 1, pinned };
      return { changes: [{ do: 'put', row: asRow(next), when: { rev: row.rev } }], result: next };
    },
    (changes) => manifest.transact(changes),
  );
}
