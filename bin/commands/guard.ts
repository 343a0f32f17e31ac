/** `walvault guard`: before a server starts, puts a promotion right that was killed half way. */
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { guardPromotion } from '../../core/work/guard.ts';
import type { CommandRow } from '../command.ts';
import { findStateDirectory } from '../state-directory.ts';

export const guard: CommandRow = {
  path: 'guard',
  summary: 'before a start: undo a promotion that was killed half way',
  text: `PostgreSQL removes standby.signal before it has taken its new timeline. Killed between the two, it would start
read-write on the OLD timeline and write other content under names that are archived. guard sees that (pg_control says
"in archive recovery", no signal file, no newer timeline), puts standby.signal back and removes what the unborn timeline
left in pg_wal; the promotion is then done again by itself. Everything else it leaves alone, so it may be run before
every start: ExecStartPre of the server's systemd unit is its place. Asks no vault.`,
  options: [],
  settings: ['pgdata', 'stateDir'],
  examples: [
    { says: 'before a start', line: 'walvault guard --pgdata $S && pg_ctl -D $S start' },
    {
      says: 'in the unit of the server',
      line: 'ExecStartPre=/opt/walvault/bin/walvault guard --pgdata /var/lib/postgresql/18/main',
    },
  ],
  async run(context) {
    const pgdata = await readPgdata(context.settings.need('pgdata'));
    const state = await findStateDirectory(context.settings, pgdata);
    const { repaired, removed, why } = await guardPromotion(pgdata.path, state.dir);
    context.answer({ pgdata: pgdata.path, repaired, removed, why }, () =>
      repaired
        ? `put right: ${why}; standby.signal is back, ${removed.length === 0 ? 'nothing had to be removed' : `removed ${removed.join(', ')}`}`
        : `nothing to do: ${why}`,
    );
    if (repaired)
      context.next({
        says: 'start it: it is a standby, and is promoted again by itself where that is still asked for',
        line: ['pg_ctl', '-D', pgdata.path, 'start'],
      });
  },
};
