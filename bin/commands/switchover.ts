/** `walvault switchover`: flush here, smart trigger there, one command with an account of each step. */
import { controlWords } from '../../core/postgres/control-words.ts';
import { VaultError } from '../../core/errors.ts';
import { keys } from '../../core/cluster/facts.ts';
import { openCluster, type Cluster } from '../../core/work/cluster.ts';
import { findFollowed, namedVaults } from '../../core/work/other-vaults.ts';
import { readStatus } from '../../core/work/status.ts';
import { switchoverVault, type VaultSwitchoverStep } from '../../core/work/switchover-vault.ts';
import { MAX_LAG_SEGMENTS, switchover } from '../../core/work/switchover.ts';
import type { TakeOverStep } from '../../core/work/takeover.ts';
import { formatCount, formatDuration } from '../ui/format.ts';
import type { CommandRow, Context } from '../command.ts';
import { takeOverWords } from '../take-over.ts';
import { directWay, LOSE_DIRECT_OPTION } from '../direct-way.ts';
import { untilSignalled } from '../until-signalled.ts';
import { FLUSH_SETTINGS, flushRequest, flushWords, GRACE_OPTION, WITHOUT_DR_OPTION } from './flush.ts';

export const switchoverCommand: CommandRow = {
  path: 'switchover',
  summary: 'planned change of roles: flush here, then make a standby the primary',
  text: `Run on the primary. Looks first: the target is a consistent standby that is heard of now and at most
${MAX_LAG_SEGMENTS} segments behind, and the primary can be flushed. Then the flush ('walvault help flush'), a smart trigger, and the
wait until the target is open. Every transaction that was acknowledged is on the new primary. Reports each step, and the time
without a primary. A DR vault that follows by a relay is waited for as well (--without-dr: not).

To a node of another vault (--to-vault; where this vault does not know the node, those that it knows are asked): after the flush all
of it is relayed there, then that vault takes the place of this one, which becomes its replica. Planned, nothing is lost; the way
home is the same command there. A relay that follows turns round by itself.

Broken off anywhere, the same command goes on; before the trigger 'walvault flush --undo' goes back. Afterwards this server
can be started: it is a standby, with no new base backup. The way back (switchback) is the same command on the other node.`,
  options: [
    { flags: '--to <node>', summary: 'the standby that becomes the primary' },
    { flags: '--to-vault <url>', summary: 'the vault that it follows, where that is another one' },
    GRACE_OPTION,
    WITHOUT_DR_OPTION,
    LOSE_DIRECT_OPTION,
    { flags: '--wait <duration>', summary: 'how long each step may take without getting on (default 60s)' },
    { flags: '-y, --yes', summary: 'do not ask' },
  ],
  settings: FLUSH_SETTINGS,
  examples: [
    { says: 'on db1, the primary', line: 'walvault switchover --to db2 --pgdata $P' },
    { says: 'from a script', line: 'walvault switchover --to db2 --pgdata $P --yes --json' },
    {
      says: 'on dr1: home to the other region',
      line: 'walvault switchover --to db1 --to-vault file:///srv/vault',
    },
  ],
  async run(context) {
    const to = context.text('to');
    if (to === undefined)
      throw new VaultError('usage', 'the target is missing', {
        hint: `Name a standby: 'walvault switchover --to NODE'; 'walvault status' lists them.`,
      });
    const request = flushRequest(context);
    const { node, pgdata } = request;
    const cluster = await context.cluster();
    const there = await vaultOf(context, cluster, to);
    await context.confirm([
      `end every session of ${node}, transactions after ${formatDuration(request.graceMs)}, and stop its server`,
      ...(there === undefined
        ? []
        : [`make ${there.vault.url} the active vault, and ${cluster.vault.url} its replica`]),
      `make ${to} the primary of ${cluster.name}, with everything that ${node} has acknowledged`,
      `leave ${node} stopped: started again it is a standby of ${to}`,
    ]);
    const startedMs = Date.now();
    const says = { node, to, source: cluster.vault.url, replica: there?.vault.url ?? '' };
    const { promotion, flushed, withoutPrimaryMs } = await untilSignalled((signal) => {
      const how = {
        ...{ ...request, to, signal },
        onStep: (step: VaultSwitchoverStep) => context.say(stepWords(step, says)),
      };
      return there === undefined
        ? switchover(cluster, { ...how, direct: directWay(context, cluster) })
        : switchoverVault(cluster, there, how);
    });
    const tookMs = Date.now() - startedMs;
    const { epoch, timeline, lsn, reserved, state } = promotion;
    context.answer(
      {
        cluster: cluster.name,
        from: node,
        to,
        toVault: there?.vault.url,
        relayedTo: flushed?.relayedTo,
        epoch,
        state,
        leftTimeline: timeline,
        lsn,
        timeline: reserved,
        sessions: flushed?.sessions,
        withoutPrimaryMs: withoutPrimaryMs ?? null,
        tookMs,
      },
      () =>
        `${to} is the primary of ${cluster.name}: epoch ${epoch}, timeline ${reserved ?? '-'}, from ${lsn ?? '-'}` +
        (withoutPrimaryMs === undefined ? '' : `; ${formatDuration(withoutPrimaryMs)} without a primary`),
    );
    if (there !== undefined)
      context.next({
        says: `keep this vault level, unless a relay that follows has turned round by now`,
        line: `walvault relay --from '${there.vault.url}' --to '${cluster.vault.url}' --cluster ${cluster.name} --follow`,
      });
    context.next(
      { says: `start ${node}: it is a standby now, as it is`, line: controlWords(pgdata, 'start') },
      { says: 'see where the cluster stands', line: context.command('status', ['vault', 'cluster']) },
    );
  },
};

/** The other vault that `to` follows; undefined: it follows this one, or nobody knows it (then the switchover says so). */
async function vaultOf(context: Context, cluster: Cluster, to: string): Promise<Cluster | undefined> {
  const open = (url: string) => context.anotherVault(url);
  const named = context.text('toVault');
  if (named !== undefined) return openCluster(await open(named), cluster.name);
  if ((await cluster.vault.manifest.get(keys.node(cluster.partition, to))) !== undefined) return undefined;
  const vaults = namedVaults(await readStatus(cluster));
  const { followed, silent } = await findFollowed(cluster.name, to, vaults, open);
  if (followed === undefined && silent.length > 0)
    throw new VaultError(
      'refused',
      `no node ${to} is known here, and not every other vault answers: ${silent.join('; ')}`,
      {
        hint: `Name the vault that ${to} follows, as this machine reaches it: --to-vault URL.`,
      },
    );
  return followed;
}

type Says = { node: string; to: string; source: string; replica: string };

function stepWords(step: VaultSwitchoverStep, says: Says): string {
  const { node, to } = says;
  switch (step.step) {
    case 'target':
      return `${to} follows, ${step.behind === 0 ? 'with nothing' : formatCount(step.behind, 'segment')} behind`;
    case 'flushed':
      return step.already ? `${node} was flushed before, up to ${step.lsn}` : `${node} is flushed`;
    case 'triggered':
      return step.already
        ? `the trigger of epoch ${step.epoch} names ${to} already`
        : `triggered: epoch ${step.epoch} names ${to}`;
    case 'sealed':
      return `sealed: ${to} has replayed timeline ${step.timeline} up to ${step.lsn}, and opens timeline ${step.reserved}`;
    case 'level':
      return `${says.replica} is level: ${formatCount(step.rows, 'row')} came now`;
    default:
      return isTakeOver(step) ? takeOverWords(step, says) : flushWords(step, node);
  }
}

const TAKE_OVER: readonly string[] = [
  ...['rows', 'history', 'tail', 'backup', 'facts', 'home', 'salvage', 'aside', 'turned'],
  ...['silent', 'fenced', 'carried', 'adopted', 'active'],
];

const isTakeOver = (step: { step: string }): step is TakeOverStep => TAKE_OVER.includes(step.step);
