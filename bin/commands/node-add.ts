/** `walvault node add`: registers a node, and prints the one line that makes it. */
import { addNode, primaryPgdata } from '../../core/work/nodes.ts';
import { envOf, flagOf, rowOf, type SettingName } from '../../core/settings/settings.ts';
import { name as nameKind } from '../../core/settings/kinds.ts';
import { VaultError } from '../../core/errors.ts';
import type { CommandRow, Context } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { shellWord } from '../ui/format.ts';

export const nodeAdd: CommandRow = {
  path: 'node add',
  summary: 'expect a new node, and print the one line to paste on it',
  text: `Writes the node's row into the vault and prints one line for its shell: that line has all the new node needs to
reach the vault (URL, cluster, region, endpoint and name of the profile; never a secret: credentials are the machine's
own, by its role or ~/.aws), tries what it needs both ways, and makes a standby there. Run it on any configured
node, or wherever the vault can be reached.`,
  argument: { name: 'name', summary: 'name of the new node' },
  options: [
    { flags: '--at <directory>', summary: 'PGDATA on the new node (default: as on the primary)' },
    { flags: '--port <number>', summary: 'port of its server (default: that of the primary)' },
  ],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'prints the line', line: 'walvault node add db3' },
    { says: 'beside another server', line: 'walvault node add db3 --at /srv/pg/db3 --port 5433' },
  ],
  async run(context) {
    const node = nodeName(context);
    const port = context.number('port', { from: 1, to: 65535 });
    const cluster = await context.cluster();
    const pgdata = context.text('at') ?? (await primaryPgdata(cluster));
    const was = await addNode(cluster, node);
    const line = pasteLine(context, { node, pgdata, port }, cluster.vault.url);
    context.answer({ cluster: cluster.name, node, was, line }, () => line);
    context.say(
      `${node} is ${was === 'added' ? 'expected' : 'still expected'}; paste the line above on it, as the user of its server`,
    );
    if (cluster.vault.url.startsWith('file:'))
      context.say(
        `notice: ${cluster.vault.url} is a directory of this machine: the new node must be on it too`,
      );
    context.next({ says: 'see it come', line: context.command('node list', ['vault', 'cluster']) });
  },
};

/** @throws VaultError usage */
export function nodeName(context: Context): string {
  const text = context.argument ?? '';
  try {
    return nameKind().parse(text);
  } catch (error) {
    throw new VaultError('usage', `'${text}' ${(error as Error).message}`, { hint: 'For example: db3' });
  }
}

/** Exports first, so that every later command of that shell finds the vault too. */
function pasteLine(
  context: Context,
  made: { node: string; pgdata: string | undefined; port: number | undefined },
  vaultUrl: string,
): string {
  const { settings } = context;
  const exported = [
    [envOf('vault'), vaultUrl],
    [envOf('cluster'), settings.need('cluster')],
    ...(['awsRegion', 'awsProfile', 'awsEndpoint'] as const satisfies readonly SettingName[]).flatMap(
      (name) => {
        const value = settings[name];
        return value === undefined ? [] : [[envOf(name), rowOf(name).kind.format(value)] as const];
      },
    ),
  ].map(([name, value]) => `${name}=${shellWord(value ?? '')}`);
  const words = ['walvault', 'standby', 'create', flagOf('node'), made.node];
  if (made.pgdata !== undefined) words.push(flagOf('pgdata'), made.pgdata);
  if (made.port !== undefined) words.push('--port', String(made.port));
  return `export ${exported.join(' ')} && ${words.map(shellWord).join(' ')}`;
}
