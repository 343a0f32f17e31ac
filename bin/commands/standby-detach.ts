/** `walvault standby detach`: opens a standby for a test, for good out of the vault. */
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { duration } from '../../core/settings/kinds.ts';
import { checkDetach, detachStandby } from '../../core/work/detach.ts';
import type { CommandRow } from '../command.ts';
import { findStateDirectory } from '../state-directory.ts';
import { pairs } from '../ui/table.ts';
import { SERVER_SETTINGS } from '../reach-settings.ts';

const WAIT = duration('1s', '1d');

export const standbyDetach: CommandRow = {
  path: 'standby detach',
  summary: 'open a standby for a test; it can never write to this vault again',
  text: `The primary goes on, no epoch changes, and the other standbys do not notice. First the node is marked as detached
(in its state directory and in the vault), its archiving is switched off and its restoring too; then PostgreSQL opens
it with what it has replayed. From then on nothing that is called on it writes to the vault, and no trigger can name
it. The way back is 'walvault rejoin' when the test is over: what was written meanwhile is thrown away.`,
  options: [
    { flags: '-y, --yes', summary: 'do not ask' },
    { flags: '--wait <duration>', summary: 'how long PostgreSQL may take to open (default 60s)' },
  ],
  settings: SERVER_SETTINGS,
  examples: [{ says: 'try an upgrade on real data', line: 'walvault standby detach --pgdata $S --node db3' }],
  async run(context) {
    const { settings } = context;
    const node = settings.need('node');
    const pgdata = await readPgdata(settings.need('pgdata'));
    const { dir: stateDir } = await findStateDirectory(settings, pgdata);
    const limitMs = context.duration('wait', '60s', WAIT);
    const cluster = await context.cluster();
    const request = { node, pgdata, stateDir, connection: { settings, env: context.io.env }, limitMs };
    await checkDetach(cluster, request);
    await context.confirm([
      `open ${node} (${pgdata.path}) for writing; the primary goes on`,
      `take it out of ${cluster.name} for good: it can never write to the vault, nor follow it, nor be triggered`,
    ]);
    const opened = await detachStandby(cluster, request);
    context.answer({ cluster: cluster.name, node, ...opened }, () =>
      pairs([
        ['detached', `${node}, ${opened.pgdata}`],
        ['open since', `${opened.lsn}, timeline ${opened.timeline} of its own`],
      ]),
    );
    context.next({
      says: `when the test is over: stop it, and make the standby anew (its directory is moved aside)`,
      line: ['walvault', 'rejoin', '--replace', '--pgdata', opened.pgdata],
    });
  },
};
