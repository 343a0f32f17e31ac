/** `walvault backup`: a base backup of the server of PGDATA into the vault. */
import { VaultError } from '../../core/errors.ts';
import type { BackupRow } from '../../core/cluster/facts.ts';
import { takeBackup, type BackupProgress } from '../../core/work/backup.ts';
import { formatBytes, formatDuration } from '../ui/format.ts';
import { byteProgress } from '../ui/progress.ts';
import { pairs } from '../ui/table.ts';
import type { CommandRow } from '../command.ts';
import { untilSignalled } from '../until-signalled.ts';
import { SERVER_SETTINGS } from '../reach-settings.ts';

export const backup: CommandRow = {
  path: 'backup',
  summary: 'take a base backup of the running server into the vault',
  text: `Proves first, by a switch of the WAL segment, that WAL arrives in the vault; then streams BASE_BACKUP over the
replication protocol (no tool of PostgreSQL is needed) into bundles. It is complete only when its WAL from start to
stop is in the vault. Works on the primary and on a standby. Wants a role with REPLICATION that pg_hba.conf lets in
for replication, a superuser for instance. Broken off (Ctrl-C), it removes what it stored.`,
  options: [{ flags: '--label <text>', summary: 'a note kept with the backup' }],
  settings: [...SERVER_SETTINGS, 'bundleSize', 'uploadParallel', 'zstdLevel'],
  examples: [
    { says: 'of the server that runs on $P', line: 'walvault backup --pgdata $P --node db1' },
    {
      says: 'vault, cluster and node are in settings.toml once the node is configured',
      line: 'PGDATA=$P walvault backup',
    },
  ],
  async run(context) {
    const { settings } = context;
    const [node, pgdata] = [settings.need('node'), settings.need('pgdata')];
    const cluster = await context.cluster();
    const startedMs = Date.now();
    const bar = byteProgress(context.io, 'backing up', { quiet: context.json });
    const report = phases((text) => context.say(text), bar);
    let row: BackupRow;
    try {
      row = await untilSignalled((signal) =>
        takeBackup(cluster, {
          node,
          connection: { pgdata, settings, env: context.io.env },
          label: context.text('label'),
          bundleSizeBytes: settings.bundleSize,
          uploadParallel: settings.uploadParallel,
          zstdLevel: settings.zstdLevel,
          signal,
          onProgress: report,
        }),
      );
    } catch (error) {
      throw error instanceof Error && error.name === 'AbortError'
        ? new VaultError('refused', 'the backup was broken off; what it had stored is removed')
        : error;
    } finally {
      bar.finish();
    }
    const { id, state, startSegment, stopSegment, sizeBytes, storedBytes, files, timeline } = row;
    const tookMs = Date.now() - startedMs;
    context.answer(
      { id, state, node, timeline, startSegment, stopSegment, sizeBytes, storedBytes, files, tookMs },
      () =>
        pairs([
          ['backup', `${id}, ${state} after ${formatDuration(tookMs)}`],
          ['size', `${formatBytes(sizeBytes)} in ${files} files, stored as ${formatBytes(storedBytes)}`],
          ['WAL', `${startSegment} to ${stopSegment ?? '-'}`],
        ]),
    );
    context.next({
      says: 'make a standby from it, in another folder or on another machine',
      line: `${context.command('standby create', ['vault', 'cluster']).join(' ')} --pgdata $S --node db2`,
    });
  },
};

/** Says each phase once; the copy itself is the bar's. */
function phases(
  say: (text: string) => void,
  bar: ReturnType<typeof byteProgress>,
): (progress: BackupProgress) => void {
  let phase: BackupProgress['phase'] | undefined;
  const words = {
    archiving: 'switching the WAL segment, to see it arrive in the vault',
    checkpoint: 'waiting for the checkpoint that the backup begins with',
    copy: undefined,
    finish: 'files are stored; waiting for the last WAL of the backup',
  };
  return (progress) => {
    if (progress.phase !== phase) {
      const text = words[progress.phase];
      if (progress.phase === 'finish') bar.finish();
      if (text !== undefined) say(text);
      phase = progress.phase;
    }
    if (progress.phase === 'copy') bar.update(progress.doneBytes, progress.totalBytes);
  };
}
