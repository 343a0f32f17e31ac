/** `walvault trigger`: makes a standby the primary; waits for the three committed steps and reports them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../../core/errors.ts';
import { decideTrigger } from '../../core/cluster/decide-roles.ts';
import { decideTakeOver } from '../../core/cluster/decide-takeover.ts';
import type { Control, Promotion, TriggerMode } from '../../core/cluster/facts.ts';
import { gapText, type LiveGap } from '../../core/cluster/gaps.ts';
import { openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { lastHeard, lookAtPeer, openKnown } from '../../core/work/peer.ts';
import { takeOver } from '../../core/work/takeover.ts';
import { readTarget, REPORT_MS, untilReported, type TargetFacts } from '../../core/work/target-report.ts';
import { triggerPromotion } from '../../core/work/trigger.ts';
import { duration } from '../../core/settings/kinds.ts';
import { formatDuration } from '../ui/format.ts';
import type { CommandRow, Context } from '../command.ts';
import { directWay, LOSE_DIRECT_OPTION } from '../direct-way.ts';
import { refuseSilent, takeOverConsequences, takeOverWords, type TakeOverFacts } from '../take-over.ts';
import { untilSignalled } from '../until-signalled.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';

/** Between two looks at head, in ms: one consistent read of one small item. */
const LOOK_EVERY_MS = 100;

const WAIT = duration('1s', '1d');

export const trigger: CommandRow = {
  path: 'trigger',
  summary: 'make a standby the primary; the old one is fenced',
  text: `Raises the epoch in the vault: from that moment the old primary cannot archive. The target's agent then seals
the point up to which it will replay, PostgreSQL promotes itself, and the new timeline is opened in the vault.
smart: everything archived is replayed first. fast: opens with what the standby has by now.
Waits until the promotion is open (--wait, 60 s) and reports each step; ending the wait does not end the promotion.
Refused while another promotion is pending, unless --supersede names its epoch. What the old primary had not
archived stays in its pg_wal and is not on the new one. Where the old primary has a lease, the target opens only once that one has said that its
server is stopped, which takes a second or two where it reaches the vault, or once the lease is over; --primary-down does not wait. While a DR vault is armed (dr_vault), it is fenced first, and what the old
primary spilled there comes home; where it does not answer the trigger is refused, unless --lose-direct gives up what lies there.

On a replica (--vault names the DR vault, --to a standby that follows it) this is the disaster: that vault takes the place of the
active one. The active one is tried first. Where it answers it is fenced in the same step, what it holds is carried over, and nothing
that is archived is lost; its primary's lease is waited for as above. Where it does not (--peer-wait, 10 s), its primary cannot be fenced now, and what was not relayed may be
lost: it says what is known of that, and wants --unfenced. The other vault is then superseded: the first relay, or the new primary's
agent, that reaches it makes it a replica. Broken off, the same command goes on.`,
  argument: { name: 'mode', summary: 'smart or fast', choices: ['smart', 'fast'] },
  options: [
    { flags: '--to <node>', summary: 'the standby that becomes the primary' },
    { flags: '-y, --yes', summary: 'do not ask' },
    {
      flags: '--accept-gap',
      summary:
        'go on though a declared gap lies ahead of the target: what is archived after it is left behind',
    },
    { flags: '--supersede <epoch>', summary: 'give up the pending promotion of this epoch' },
    LOSE_DIRECT_OPTION,
    {
      flags: '--primary-down',
      summary: 'the old primary is certainly down: do not wait for the end of its lease',
    },
    { flags: '--wait <duration>', summary: 'how long to wait for the promotion (default 60s)' },
    { flags: '--unfenced', summary: 'on a replica: go on without the active vault, which does not answer' },
    {
      flags: '--peer <url>',
      summary: 'on a replica: the active vault, where this machine has another URL for it',
    },
    {
      flags: '--peer-wait <duration>',
      summary: 'on a replica: how long the active vault is tried (default 10s)',
    },
    { flags: '--no-wait', summary: 'return as soon as the trigger is committed' },
  ],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'planned or after a failure: nothing archived is lost', line: 'walvault trigger smart --to db2' },
    { says: 'from a script', line: 'walvault trigger smart --to db2 --yes --json' },
    { says: 'open at once with what db2 has replayed', line: 'walvault trigger fast --to db2' },
    {
      says: 'region A is lost: dr1, which follows the DR vault, takes over',
      line: 'walvault trigger smart --to dr1 --vault file:///mnt/vault --cluster main --unfenced',
    },
  ],
  async run(context) {
    const mode = context.argument as TriggerMode;
    const to = context.text('to');
    if (to === undefined)
      throw new VaultError('usage', 'the target is missing', {
        hint: `Name a standby: 'walvault trigger ${mode} --to NODE'; 'walvault status' lists them.`,
      });
    const waitMs = context.duration('wait', '60s', WAIT);
    const supersede = context.number('supersede', { from: 1, to: Number.MAX_SAFE_INTEGER });
    const cluster = await context.cluster();
    await untilReported(cluster, to, {
      limitMs: Math.min(waitMs, REPORT_MS),
      onWait: () => context.say(`waiting until ${to} reports that it has reached the end of its base backup`),
    });
    const control = await readControl(cluster);
    const wanted: Wanted = {
      mode,
      to,
      supersede,
      acceptGap: context.flag('acceptGap'),
      primaryDown: context.flag('primaryDown'),
    };
    const { asked, startedMs } =
      control.role === 'active' && !context.flag('unfenced') && context.text('peer') === undefined
        ? await triggerHere(context, cluster, wanted)
        : await triggerReplica(context, cluster, control, wanted);
    const reached = context.declined('wait') ? asked : await waitForOpen(context, cluster, asked, waitMs);
    const tookMs = Date.now() - startedMs;
    context.answer({ cluster: cluster.name, ...reached, tookMs }, () =>
      reached.state === 'open'
        ? `${to} is the primary of ${cluster.name}: epoch ${reached.epoch}, timeline ${reached.reserved ?? '-'}, after ${formatDuration(tookMs)}`
        : `the promotion of ${to} is ${reached.state} (epoch ${reached.epoch})`,
    );
    context.next({
      says: 'see where the cluster stands',
      line: context.command('status', ['vault', 'cluster']),
    });
  },
};

type Asked = { asked: Promotion; startedMs: number };
type Wanted = {
  mode: TriggerMode;
  to: string;
  supersede: number | undefined;
  acceptGap: boolean;
  primaryDown: boolean;
};

async function triggerHere(context: Context, cluster: Cluster, wanted: Wanted): Promise<Asked> {
  const { control, gap } = await checkTrigger(cluster, wanted);
  await context.confirm(consequences(wanted, cluster.name, control, gap));
  const startedMs = Date.now();
  const asked = await triggerPromotion(cluster, { ...wanted, direct: directWay(context, cluster) });
  context.say(`triggered: epoch ${asked.epoch} names ${wanted.to}; the old primary can archive nothing more`);
  if (asked.after !== undefined)
    context.say(
      `${asked.after.node} had a lease: ${wanted.to} waits for its word that it has stopped, ${formatDuration(asked.after.ms)} at most (--primary-down: not)`,
    );
  return { asked, startedMs };
}

/** The vault is a replica, and takes the place of the one that is active so far. */
async function triggerReplica(
  context: Context,
  replica: Cluster,
  control: Control,
  wanted: Wanted,
): Promise<Asked> {
  const { mode, to } = wanted;
  const open = async (url: string) => openCluster(await context.anotherVault(url), replica.name);
  const named = context.text('peer');
  const { source } = control;
  const peer = async (): Promise<Cluster> => {
    if (named !== undefined) return open(named);
    if (source === null)
      throw new VaultError('unconfigured', `${replica.vault.url} does not say whose replica it is`, {
        hint: 'Name the vault that is active so far with --peer URL.',
      });
    return openKnown(source, open);
  };
  const head = await readHead(replica);
  const facts: TakeOverFacts = {
    ...{ mode, to, replica: replica.vault.url, source: named ?? source?.url ?? 'the active vault' },
    ...{ primary: control.primary, spill: head.spill },
    heard: source === null ? undefined : await lastHeard(replica, source),
  };
  if (control.role !== 'active') {
    const { node, gap } = await readTarget(replica, to);
    const request = { id: '', at: new Date().toISOString(), ...wanted };
    const refusal = decideTakeOver(control, head, node, request, gap);
    if (refusal) throw new VaultError(refusal.code, refusal.message, { hint: refusal.hint });
    const look = await lookAtPeer(replica, peer, context.duration('peerWait', '10s', WAIT));
    if (!look.answers && !context.flag('unfenced')) throw refuseSilent(facts, look.why, Date.now());
    await context.confirm(takeOverConsequences(facts, look, Date.now()));
  } else await context.confirm(consequences(wanted, replica.name, control, undefined));
  const startedMs = Date.now();
  const asked = await untilSignalled((signal) =>
    takeOver(replica, peer, {
      ...wanted,
      ...{ unfenced: context.flag('unfenced'), signal },
      onStep: (step) => context.say(takeOverWords(step, facts)),
    }),
  ).catch((error: unknown) => {
    throw error instanceof Error && error.name === 'AbortError'
      ? new VaultError('refused', `broken off before ${replica.vault.url} was active`, {
          hint: `Run the same command again; 'walvault status' of both vaults shows where they stand.`,
        })
      : error;
  });
  context.say(`triggered: epoch ${asked.epoch} names ${to}`);
  return { asked, startedMs };
}

/**
 * Would it be refused? Said before anybody is asked; what counts is the decision in the transaction itself.
 *
 * @returns what it was decided by
 */
async function checkTrigger(cluster: Cluster, options: Wanted): Promise<TargetFacts> {
  const facts = await readTarget(cluster, options.to);
  const request = { id: '', at: new Date().toISOString(), ...options };
  const decision = decideTrigger(facts.control, facts.head, facts.node, request, facts.gap);
  if (decision.do === 'refuse')
    throw new VaultError(decision.code, decision.message, { hint: decision.hint });
  return facts;
}

function consequences(
  { mode, to }: Pick<Wanted, 'mode' | 'to'>,
  cluster: string,
  { primary, archiving }: Control,
  gap: LiveGap | undefined,
): string[] {
  const everything =
    gap === undefined
      ? `promote ${to} once it has replayed everything that is archived`
      : `promote ${to} once it has replayed what lies before the gap ${gapText(gap)}; what is archived after it is left behind`;
  return [
    `fence ${primary ?? 'whoever was primary'}: it can archive nothing more into ${cluster}`,
    mode === 'smart'
      ? everything
      : `promote ${to} with what it has replayed by now, even where more is archived`,
    `leave behind what ${primary ?? 'the old primary'} has not archived yet (its pg_wal keeps it)`,
    ...(archiving
      ? []
      : [`leave archiving OFF: nothing that ${to} writes is archived until 'walvault archiving on'`]),
  ];
}

/** Follows the promotion through head. @throws VaultError unreachable (not open within the time) | refused (superseded) */
async function waitForOpen(
  context: Context,
  cluster: Cluster,
  asked: Promotion,
  waitMs: number,
): Promise<Promotion> {
  const startedMs = Date.now();
  let said: Promotion['state'] = 'triggered';
  for (;;) {
    const seen = (await readHead(cluster)).promotion;
    if (seen === null || seen.id !== asked.id)
      throw new VaultError(
        'refused',
        `the promotion of ${asked.node} (epoch ${asked.epoch}) was superseded`,
        {
          hint: `'walvault status' says by whom.`,
        },
      );
    if (seen.state !== said && seen.lsn !== undefined && said === 'triggered')
      context.say(
        `sealed: ${seen.node} replays timeline ${seen.timeline} up to ${seen.lsn}, then opens timeline ${seen.reserved}`,
      );
    said = seen.state;
    if (seen.state === 'open') return seen;
    if (Date.now() - startedMs >= waitMs)
      throw new VaultError(
        'unreachable',
        `the promotion of ${asked.node} is ${seen.state}, not open, after ${formatDuration(waitMs)}`,
        {
          hint: `It goes on by itself once ${asked.node} runs and reaches the vault: look at 'walvault status' and at its agent.log. To choose another node: 'walvault trigger ${asked.mode} --to NODE --supersede ${asked.epoch}'.`,
        },
      );
    await sleep(LOOK_EVERY_MS);
  }
}
