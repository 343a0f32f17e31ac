/** `walvault backups`: the base backups of a cluster, newest first. */
import { listBackups } from '../../core/work/restore-backup.ts';
import { formatAge, formatBytes } from '../ui/format.ts';
import { table } from '../ui/table.ts';
import type { CommandRow } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';

export const backups: CommandRow = {
  path: 'backups',
  summary: 'list the base backups in the vault',
  text: `A backup is complete when its files and its WAL from start to stop are in the vault; only such a one can
be restored. running: under way, or broken off without a word. failed: ended with an error; nothing uses it. deleting: retention has
let it go. pinned: kept until 'walvault backups unpin'.`,
  options: [],
  settings: REACH_SETTINGS,
  examples: [
    {
      says: 'the id of the newest complete one',
      line: `walvault backups --json | jq -r '[.[]|select(.state=="complete")][0].id'`,
    },
  ],
  async run(context) {
    const cluster = await context.cluster();
    const found = (await listBackups(cluster)).reverse();
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
              row.pinned === true ? `${row.state}, pinned` : row.state,
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
