/** `walvault archiving switch`: ends the running WAL segment, so that it is archived now. */
import { duration } from '../../core/settings/kinds.ts';
import { switchWal, untilArchived } from '../../core/work/switch-wal.ts';
import type { CommandRow } from '../command.ts';
import { SERVER_SETTINGS } from '../reach-settings.ts';
import { formatDuration } from '../ui/format.ts';
import { pairs } from '../ui/table.ts';
import { untilSignalled } from '../until-signalled.ts';

const LIMIT = duration('1s', '1d');

export const archivingSwitch: CommandRow = {
  path: 'archiving switch',
  summary: 'end the running WAL segment, so that it is archived now; --wait until the vault has it',
  text: `A checkpoint, then pg_switch_wal(). Where nothing was written since the last switch there is nothing to switch: PostgreSQL leaves an empty
segment as it is, which is said. --wait returns when the vault has the segment; as long as segments before it arrive it waits on, and
gives up when none has for --limit (60 s). While archiving is off the segment is declared lost, which is said as well.`,
  options: [
    { flags: '--wait', summary: 'until the vault has the segment' },
    { flags: '--limit <duration>', summary: 'how long nothing may arrive meanwhile (default 60s)' },
  ],
  settings: SERVER_SETTINGS,
  examples: [
    {
      says: 'everything that was committed so far is in the vault then',
      line: 'walvault archiving switch --wait --pgdata $P',
    },
  ],
  async run(context) {
    const { settings } = context;
    const limitMs = context.duration('limit', '60s', LIMIT);
    const connection = { pgdata: settings.need('pgdata'), settings, env: context.io.env };
    const cluster = await context.cluster();
    const startedMs = performance.now();
    const done = await switchWal(cluster, connection, () => context.say('checkpoint'));
    const { switched, segment, lsn } = done;
    let became: 'archived' | 'gap' | 'not waited for' = 'not waited for';
    if (context.flag('wait')) {
      // with nothing to switch, what was ended before may still be on its way
      if (switched) context.say(`${segment} is ended; waiting until the vault has it`);
      became = await untilSignalled((signal) =>
        untilArchived(cluster, done, { limitMs, signal, connection }),
      );
    }
    const tookMs = Math.round(performance.now() - startedMs);
    context.answer({ cluster: cluster.name, switched, segment, lsn, became, tookMs }, () =>
      pairs([
        ['segment', switched ? segment : `nothing was to switch: no WAL was written since ${lsn}`],
        ['vault', inWords(became, switched, tookMs)],
      ]),
    );
  },
};

function inWords(became: 'archived' | 'gap' | 'not waited for', switched: boolean, tookMs: number): string {
  if (became === 'not waited for') return 'not waited for (--wait)';
  if (became === 'gap') return 'NOT ARCHIVED: archiving is off, and it is declared lost';
  return `has ${switched ? 'it' : 'all before that'}, after ${formatDuration(tookMs)}`;
}
