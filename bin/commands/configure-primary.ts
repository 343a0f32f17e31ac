/** `walvault configure primary`: has the primary's PostgreSQL archive into the vault. */
import { controlWords } from '../../core/postgres/control-words.ts';
import { armSpill, disarmSpill } from '../../core/work/arm.ts';
import { openCluster, readControl, type Cluster } from '../../core/work/cluster.ts';
import { configurePrimary, type Configured, type Installation } from '../../core/work/configure.ts';
import { openKnown } from '../../core/work/peer.ts';
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
are replaced, and named.

--dr-vault names a replica of the vault (walvault relay makes one) and arms it: while the vault is out of reach for longer than
--dr-after, the primary archives there, beside the replica's own rows; nothing of it is served until the vault has taken it over. From
then on every trigger fences both vaults. --dr-vault none takes it back, once everything that was spilled is home.`,
  options: [
    { flags: '--print', summary: 'print the lines for postgresql.conf, and change nothing' },
    { flags: '--no-reload', summary: 'do not reload a running server' },
    {
      flags: '--lose-direct',
      summary: 'with --dr-vault none: that vault is lost, and with it what was spilled there',
    },
  ],
  settings: CONFIGURE_SETTINGS,
  examples: [
    { says: 'what would be written', line: 'walvault configure primary --pgdata $P --node db1 --print' },
    { says: 'write it', line: 'walvault configure primary --pgdata $P --node db1' },
    {
      says: 'a commit is archived after five minutes at the latest',
      line: 'walvault configure primary --pgdata $P --node db1 --force-switch 5m',
    },
    {
      says: 'archive into the DR vault while the vault is out of reach',
      line: 'walvault configure primary --pgdata $P --node db1 --dr-vault file:///mnt/dr',
    },
  ],
  async run(context) {
    const { settings } = context;
    const [node, pgdata] = [settings.need('node'), settings.need('pgdata')];
    const cluster = await context.cluster();
    const print = context.flag('print');
    const direct = print ? undefined : await armDirect(context, cluster);
    const done = await configurePrimary(cluster, {
      node,
      pgdata,
      connection: { settings, env: context.io.env },
      installation: installationWith(context, cluster, direct),
      retrieveRetryMs: settings.retrieveRetryInterval,
      forceSwitchMs: settings.forceSwitch,
      print,
      reload: !context.declined('reload'),
    });
    context.answer({ ...done, printed: print, drVault: direct ?? null }, () => done.lines.join('\n'));
    for (const { name, was } of done.replaced)
      context.say(`${print ? 'would replace' : 'replaced'} ${name}, which was: ${was}`);
    if (done.kept !== null)
      context.say(`kept archive_command, which calls walvault and something else: ${done.kept}`);
    if (print) context.say('printed only: nothing was changed');
    else tellDue(context, done, pgdata, node);
  },
};

/**
 * Before anything is written here: a vault that cannot be armed is no setting of this node.
 *
 * @returns the URL that stands armed; undefined: none
 */
async function armDirect(context: Context, cluster: Cluster): Promise<string | undefined> {
  const { drVault } = context.settings;
  const { direct, primary } = await readControl(cluster);
  if (primary !== context.settings.need('node')) return drVault; // refused in a moment, for that very reason
  const open = async (url: string) => openCluster(await context.anotherVault(url), cluster.name);
  if (drVault === 'none') {
    const replica = direct === null || context.flag('loseDirect') ? undefined : await openKnown(direct, open);
    if (direct !== null && (await disarmSpill(cluster, replica)))
      context.say(`disarmed: ${direct.url} takes no spills any more`);
    return undefined;
  }
  const isSaid = ['flag', 'environment'].includes(context.settings.origin('drVault'));
  if (drVault === undefined || (!isSaid && direct !== null)) return drVault ?? direct?.url;
  const replica = await open(drVault);
  if (await armSpill(cluster, replica))
    context.say(`armed: with the vault out of reach ${primary} archives into ${replica.vault.url}`);
  return replica.vault.url;
}

function installationWith(context: Context, cluster: Cluster, direct: string | undefined): Installation {
  const installation = installationOf(context.settings, cluster.vault.url);
  const { drVault, ...settings } = installation.settings;
  return drVault === undefined || direct === undefined
    ? { ...installation, settings }
    : { ...installation, settings: { ...settings, drVault: direct } };
}

function tellDue(context: Context, done: Configured, pgdata: string, node: string): void {
  context.say(`configured: ${done.stateDir}`);
  if (!done.running)
    context.next({
      says: 'the server is stopped; start it with the new parameters',
      line: controlWords(pgdata, 'start'),
    });
  else if (done.due === 'restart')
    context.next({
      says: 'a RESTART is due before anything is archived',
      line: controlWords(pgdata, 'restart'),
    });
  else if (done.due === 'reload')
    context.next({ says: 'a reload is due', line: controlWords(pgdata, 'reload') });
  else context.say('the server has read it: it archives into the vault from now on');
  context.next({
    says: 'then take a base backup, which proves that WAL arrives',
    line: context.command('backup', ['pgdata'], ['--node', node]),
  });
}
