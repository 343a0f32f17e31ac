/** `walvault backups`: the base backups of a cluster, newest first. */
import type { BackupRow } from '../../core/cluster/facts.ts';
import { after } from '../../core/vault/manifest.ts';
import type { Cluster } from '../../core/work/cluster.ts';
import { formatAge, formatBytes } from '../ui/format.ts';
import { table } from '../ui/table.ts';
import type { CommandRow } from '../command.ts';

export const backups: CommandRow = {
  path: 'backups',
  summary: 'list the base backups in the vault',
  text: `A backup is complete when its files and its WAL from start to stop are in the vault; only such a one can
be restored. running: under way, or broken off without a word. failed: ended with an error; nothing uses it.`,
  options: [],
  settings: [
    'vault',
    'cluster',
    'pgdata',
    'stateDir',
    'vaultTimeout',
    'awsRegion',
    'awsProfile',
    'awsEndpoint',
  ],
  examples: [
    {
      says: 'the id of the newest complete one',
      line: `walvault backups --json | jq -r '[.[]|select(.state=="complete")][0].id'`,
    },
  ],
  async run(context) {
    const cluster = await context.cluster();
    const found = await listBackups(cluster);
    const nowMs = Date.now();
    context.answer(found, () =>
      found.length === 0
        ? `no backups of ${cluster.name} yet`
        : table(
            [
              'backup',
              'state',
              'node',
              'taken',
              'timeline',
              'from segment',
              'to segment',
              'size',
              'stored',
              'files',
            ],
            found.map((row) => [
              row.id,
              row.state,
              row.node,
              formatAge(row.startedAt, nowMs),
              row.timeline,
              row.startSegment,
              row.stopSegment,
              formatBytes(row.sizeBytes),
              formatBytes(row.storedBytes),
              row.files,
            ]),
          ),
    );
    if (found.length === 0)
      context.next({
        says: 'take one, on the primary',
        line: `${context.command('backup', ['vault', 'cluster']).join(' ')} --pgdata $P --node NODE`,
      });
  },
};

/** Newest first. */
async function listBackups(cluster: Cluster): Promise<BackupRow[]> {
  const rows: BackupRow[] = [];
  const range = { pk: cluster.partition, from: 'backup#', to: after('backup#'), descending: true };
  for await (const row of cluster.vault.manifest.query(range)) rows.push(row as unknown as BackupRow);
  return rows.sort((one, other) => (one.startedAt < other.startedAt ? 1 : -1));
}
