/** `walvault doctor`: what is wrong, and what to do about it. */
import { controlWords, type ControlAction } from '../../core/postgres/control-words.ts';
import type { Commands } from '../../core/cluster/examine-node.ts';
import { duration } from '../../core/settings/kinds.ts';
import { examineAll, type NodeFound } from '../../core/work/doctor.ts';
import type { CommandRow, Context } from '../command.ts';
import { programVersion } from '../program-root.ts';
import { SERVER_SETTINGS } from '../reach-settings.ts';
import { shellWord } from '../ui/format.ts';
import { table } from '../ui/table.ts';

const LIMIT = duration('100ms', '5m');

export const doctor: CommandRow = {
  path: 'doctor',
  summary: 'examine a node, its server and its vaults, and say what is wrong and how to put it right',
  text: `Looks and changes nothing. With --pgdata (or PGDATA) it examines the node: settings and their origin, state directory,
permissions, identity, scripts, program and agent, signal files, the parameters of the server against what configure would write,
what waits to be archived and how long pg_wal has room for it, tablespaces. With a vault it examines what that one says: reach and
latency, clock, whether this node may write, heartbeats, backups; and every other vault that it names. docs/doctor.md lists each
check.

Whatever cannot be looked at is a finding, and the rest goes on: with the server down, with the vault away, as another user, with
nothing configured yet. Each finding that is not well comes with its fix, a sentence or a command to paste.

Exit 0: all is well. 1: something is worth a look. 2: something is wrong.`,
  options: [
    { flags: '--limit <duration>', summary: 'how long another vault may take to answer (default 5s)' },
    {
      flags: '--probe',
      summary: 'also write, read and delete a small object in the vault, as this node',
    },
  ],
  settings: SERVER_SETTINGS,
  takesBrokenSettings: true,
  examples: [
    { says: 'on a node', line: 'walvault doctor --pgdata $P' },
    {
      says: 'from anywhere, the vaults alone',
      line: 'walvault doctor --vault file:///srv/vault --cluster main',
    },
    { says: 'with a try of what the node may do there', line: 'walvault doctor --pgdata $P --probe' },
    {
      says: 'what is not well, in a script',
      line: `walvault doctor --json | jq -r '.findings[] | select(.state != "ok") | .says'`,
    },
  ],
  async run(context) {
    const limitMs = context.duration('limit', '5s', LIMIT);
    const { cluster, worst, settings, findings } = await examineAll({
      settings: context.settings,
      unread: context.unread,
      names: context.row.settings,
      env: context.io.env,
      version: programVersion(),
      commandsFor: (node) => commandsFor(context, node),
      cluster: () => context.cluster(),
      open: (url) => context.anotherVault(url, { limitMs }),
      limitMs,
      probe: context.flag('probe'),
    });
    const answer = { cluster, worst, settings, findings: findings.map((one) => ({ ...one })) };
    context.answer(answer, () =>
      table(
        ['what', 'state', ''],
        findings.map(({ what, state, says }) => [what, state === 'bad' ? 'BAD' : state, says]),
      ),
    );
    for (const { what, state, says, fix, run } of findings) {
      const lines = [fix, run].filter((line) => line !== undefined);
      if (state !== 'ok' && lines.length > 0)
        context.next({ says: `${what}: ${says}`, line: lines.join('\n      ') });
    }
    context.exit = worst;
  },
};

/** As they mean this node, whatever the environment of who pastes them says of another. */
function commandsFor(context: Context, found: NodeFound): Commands {
  const pgdata = found.pgdata ?? '$PGDATA';
  const node = found.node ?? 'NODE';
  const stateDir = found.stateDir ?? `${pgdata}.walvault`;
  const line = (words: readonly string[]) => words.map(word).join(' ');
  const command = (name: string, ...more: string[]) =>
    line(
      context.command(
        name,
        ['vault', 'cluster', 'stateDir', 'awsRegion', 'awsProfile', 'awsEndpoint'],
        ['--pgdata', pgdata, ...more],
      ),
    );
  const control = (action: ControlAction) => line(controlWords(pgdata, action, `${pgdata}.log`));
  const [start, restart] = [control('start'), control('restart')];
  const around = (work: string) => (found.runs ? `${control('stop')} && ${work} && ${start}` : work);
  const configure = found.isStandby
    ? around(command('standby configure', '--node', node))
    : command('configure primary', '--node', node);
  const agent = [`${stateDir}/node`, `${stateDir}/program/dist/agent.cjs`, stateDir];
  return {
    ...{ configure, start, restart },
    configureRestart: found.isStandby || !found.runs ? configure : `${configure} && ${restart}`,
    reload: control('reload'),
    backup: command('backup', '--node', node),
    guard: command('guard'),
    claim: command('claim', '--yes'),
    rejoin: around(command('rejoin', '--yes')),
    startAgent: `(${line(agent)} </dev/null >/dev/null 2>&1 &)`,
    asOwner: line(['sudo', '-u', found.owner ?? 'postgres', '-E', 'walvault', 'doctor', '--pgdata', pgdata]),
  };
}

/** `$PGDATA` is left for the shell. */
const word = (text: string): string => (text.startsWith('$PGDATA') ? text : shellWord(text));
