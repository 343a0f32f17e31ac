/** `walvault backups pin` and `unpin`: a base backup that retention keeps until a person says otherwise. */
import { VaultError } from '../../core/errors.ts';
import { setPinned } from '../../core/work/pin-backup.ts';
import type { CommandRow, Context } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';

const argument = { name: 'id', summary: `id of the backup, as 'walvault backups' shows it` };

export const backupsPin: CommandRow = {
  path: 'backups pin',
  summary: 'keep a base backup, and all WAL from it on, until it is unpinned',
  text: `Retention keeps a pinned backup whatever its policy says, and the WAL from the backup's start to the live end: a pin that is
forgotten fills the bucket. It is of this vault alone: a replica has pins of its own. Only a complete backup can be pinned.`,
  argument,
  options: [],
  settings: REACH_SETTINGS,
  examples: [{ says: 'before an upgrade', line: 'walvault backups pin 20260115T020000Z-1f2e3d' }],
  run: (context) => pin(context, true),
};

export const backupsUnpin: CommandRow = {
  path: 'backups unpin',
  summary: 'leave a base backup to the retention policy again',
  text: `The next run of retention may delete it, and the WAL that only it needed.`,
  argument,
  options: [],
  settings: REACH_SETTINGS,
  examples: [
    {
      says: 'what would go then',
      line: 'walvault backups unpin 20260115T020000Z-1f2e3d && walvault retention --dry-run',
    },
  ],
  run: (context) => pin(context, false),
};

async function pin(context: Context, pinned: boolean): Promise<void> {
  const id = context.argument;
  if (id === undefined) throw new VaultError('usage', 'the id of a backup is wanted');
  const row = await setPinned(await context.cluster(), id, pinned);
  context.answer({ id: row.id, state: row.state, pinned }, () =>
    pinned
      ? `backup ${row.id} is kept, with the WAL from ${row.startSegment} on`
      : `backup ${row.id} is left to the retention policy`,
  );
}
