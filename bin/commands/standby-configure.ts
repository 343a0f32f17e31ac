/** `walvault standby configure`: has a data directory that is there already follow the vault. */
import { configureStandby } from '../../core/work/standby.ts';
import type { CommandRow } from '../command.ts';
import { CONFIGURE_SETTINGS, installationOf } from '../installation.ts';
import { modeOption, parametersOf, PARAMETER_OPTIONS, tellStandby } from '../standby-parameters.ts';
import { pairs } from '../ui/table.ts';

export const standbyConfigure: CommandRow = {
  path: 'standby configure',
  summary: 'have a data directory that is there already follow the vault',
  text: `For a base backup taken with another tool, or a standby that followed by other means. The server must be
stopped. Empties pg_wal (its contents, where it is a link): from then on WAL comes from the vault alone. Refused where
this directory is the vault's primary, belongs to another database, or needs WAL that the vault lacks.`,
  options: [modeOption('hot'), ...PARAMETER_OPTIONS],
  settings: CONFIGURE_SETTINGS,
  examples: [
    {
      says: 'a copy made with pg_basebackup',
      line: 'walvault standby configure --pgdata $S --node db2 --port 5433',
    },
    {
      says: 'a hot standby goes over to wait mode (stopped, as for everything here)',
      line: 'walvault standby configure --pgdata $S --node db2 --mode wait',
    },
  ],
  async run(context) {
    const { settings } = context;
    const [node, pgdata] = [settings.need('node'), settings.need('pgdata')];
    const parameters = parametersOf(context, 'hot');
    const cluster = await context.cluster();
    const installation = installationOf(settings, cluster.vault.url);
    const made = await configureStandby(cluster, { node, pgdata, installation, parameters });
    context.answer({ node, ...made }, () =>
      pairs([
        ['standby', `${node}, ${made.pgdata} (${made.mode})`],
        ['begins with', made.firstSegment],
      ]),
    );
    tellStandby(context, made);
  },
};
