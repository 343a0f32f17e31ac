/** `walvault standby create`: a new standby from a base backup in the vault. */
import { VaultError } from '../../core/errors.ts';
import { createStandby } from '../../core/work/standby.ts';
import type { CommandRow } from '../command.ts';
import { CONFIGURE_SETTINGS, installationOf } from '../installation.ts';
import { modeOption, parametersOf, PARAMETER_OPTIONS, tellStandby } from '../standby-parameters.ts';
import { formatBytes, formatDuration } from '../ui/format.ts';
import { byteProgress } from '../ui/progress.ts';
import { pairs } from '../ui/table.ts';
import { untilSignalled } from '../until-signalled.ts';

export const standbyCreate: CommandRow = {
  path: 'standby create',
  summary: 'make a standby in an empty directory, from the vault alone',
  text: `Restores a base backup into PGDATA (which must be empty, or absent), compares every file with PostgreSQL's own
backup_manifest, makes the state directory, and leaves a standby that is ready to be started: it follows the vault and
answers queries meanwhile (--mode hot). No other server is asked. Broken off, the same command goes on where it was.

Run it as the user who will run the server.`,
  options: [
    { flags: '--backup <id>', summary: 'which backup (default: the last complete one)' },
    { flags: '--waldir <directory>', summary: 'put pg_wal there, and a link in PGDATA' },
    { flags: '--tablespace-mapping <old=new>', summary: 'where a tablespace goes', many: true },
    modeOption('hot'),
    ...PARAMETER_OPTIONS,
  ],
  settings: CONFIGURE_SETTINGS,
  examples: [
    { says: 'on another machine', line: 'walvault standby create --pgdata $S --node db2' },
    {
      says: 'beside the primary: another port',
      line: 'walvault standby create --pgdata $S --node db2 --port 5433',
    },
    {
      says: 'with less memory than the primary',
      line: 'walvault standby create --pgdata $S --node db2 --set shared_buffers=1GB',
    },
    {
      says: 'without queries and without an agent, as pg_standby did it',
      line: 'walvault standby create --pgdata $S --node db2 --mode wait',
    },
  ],
  async run(context) {
    const { settings } = context;
    const [node, target] = [settings.need('node'), settings.need('pgdata')];
    const parameters = parametersOf(context, 'hot');
    const tablespaceMap = tablespacesOf(context.list('tablespaceMapping'));
    const cluster = await context.cluster();
    const startedMs = Date.now();
    const bar = byteProgress(context.io, 'restoring', { quiet: context.json });
    const made = await untilSignalled((signal) =>
      createStandby(cluster, {
        node,
        target,
        backup: context.text('backup') ?? 'latest',
        waldir: context.text('waldir'),
        tablespaceMap,
        installation: installationOf(settings, cluster.vault.url),
        parameters,
        parallel: settings.uploadParallel,
        signal,
        onProgress: ({ doneBytes, totalBytes }) => bar.update(doneBytes, totalBytes),
      }),
    )
      .catch((error: unknown) => {
        throw error instanceof Error && error.name === 'AbortError'
          ? new VaultError('refused', 'broken off; nothing can be started there yet', {
              hint: 'The same command goes on where it was.',
            })
          : error;
      })
      .finally(() => bar.finish());
    const { id, sizeBytes, files } = made.backup;
    const tookMs = Date.now() - startedMs;
    const { pgdata, stateDir, firstSegment, notices } = made;
    context.answer(
      {
        node,
        pgdata,
        stateDir,
        mode: made.mode,
        backup: id,
        firstSegment,
        notices,
        sizeBytes,
        files,
        tookMs,
      },
      () =>
        pairs([
          ['standby', `${node}, ${pgdata} (${made.mode})`],
          [
            'from backup',
            `${id}: ${formatBytes(sizeBytes)} in ${files} files, checked, after ${formatDuration(tookMs)}`,
          ],
          ['begins with', firstSegment],
        ]),
    );
    tellStandby(context, made);
  },
};

export function tablespacesOf(given: readonly string[]): Record<string, string> {
  const map: Record<string, string> = {};
  for (const text of given) {
    const [, from, to] = /^(\/[^=]*)=(\/.*)$/.exec(text) ?? [];
    if (from === undefined || to === undefined)
      throw new VaultError('usage', `--tablespace-mapping '${text}' is not /old/place=/new/place`);
    map[from] = to;
  }
  return map;
}
