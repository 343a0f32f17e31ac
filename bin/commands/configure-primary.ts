/** `walvault configure primary`: has the primary's PostgreSQL archive into the vault. */
import { configurePrimary, type Configured } from '../../core/work/configure.ts';
import type { CommandRow, Context } from '../command.ts';
import { CONFIGURE_SETTINGS, installationOf } from '../installation.ts';

export const configurePrimaryCommand: CommandRow = {
  path: 'configure primary',
  summary: 'have the primary archive into the vault',
  text: `Makes the state directory beside PGDATA (settings.toml and the scripts that PostgreSQL calls) and writes the
parameters of PostgreSQL: by ALTER SYSTEM where the server runs, else into postgresql.auto.conf. A running server is
reloaded; where a restart is due (archive_mode), it says so and does not restart it. What is given here as a flag or
variable is kept in settings.toml for hooks and agent: region, endpoint and profile too, never a secret.

Run it as the user who runs the server. Running it again repairs and updates. The commands of another archiving tool
are replaced, and named.`,
  options: [
    { flags: '--print', summary: 'print the lines for postgresql.conf, and change nothing' },
    { flags: '--no-reload', summary: 'do not reload a running server' },
  ],
  settings: CONFIGURE_SETTINGS,
  examples: [
    { says: 'what would be written', line: 'walvault configure primary --pgdata $P --node db1 --print' },
    { says: 'write it', line: 'walvault configure primary --pgdata $P --node db1' },
    {
      says: 'a commit is archived after five minutes at the latest',
      line: 'walvault configure primary --pgdata $P --node db1 --force-switch 5m',
    },
  ],
  async run(context) {
    const { settings } = context;
    const [node, pgdata] = [settings.need('node'), settings.need('pgdata')];
    const cluster = await context.cluster();
    const print = context.flag('print');
    const done = await configurePrimary(cluster, {
      node,
      pgdata,
      connection: { settings, env: context.io.env },
      installation: installationOf(settings, cluster.vault.url),
      retrieveRetryMs: settings.retrieveRetryInterval,
      forceSwitchMs: settings.forceSwitch,
      print,
      reload: !context.declined('reload'),
    });
    context.answer({ ...done, printed: print }, () => done.lines.join('\n'));
    for (const { name, was } of done.replaced)
      context.say(`${print ? 'would replace' : 'replaced'} ${name}, which was: ${was}`);
    if (print) context.say('printed only: nothing was changed');
    else tellDue(context, done, pgdata, node);
  },
};

function tellDue(context: Context, done: Configured, pgdata: string, node: string): void {
  context.say(`configured: ${done.stateDir}`);
  if (!done.running)
    context.next({
      says: 'the server is stopped; start it with the new parameters',
      line: ['pg_ctl', '-D', pgdata, 'start'],
    });
  else if (done.due === 'restart')
    context.next({
      says: 'a RESTART is due before anything is archived',
      line: ['pg_ctl', '-D', pgdata, 'restart'],
    });
  else if (done.due === 'reload')
    context.next({ says: 'a reload is due', line: ['pg_ctl', '-D', pgdata, 'reload'] });
  else context.say('the server has read it: it archives into the vault from now on');
  context.next({
    says: 'then take a base backup, which proves that WAL arrives',
    line: context.command('backup', ['pgdata'], ['--node', node]),
  });
}
