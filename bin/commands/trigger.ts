/** `walvault trigger`: makes a standby the primary; waits for the three committed steps and reports them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../../core/errors.ts';
import { decideTrigger } from '../../core/cluster/decide-roles.ts';
import { keys, type NodeRow, type Promotion, type TriggerMode } from '../../core/cluster/facts.ts';
import { readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { triggerPromotion } from '../../core/work/trigger.ts';
import { duration } from '../../core/settings/kinds.ts';
import { formatDuration } from '../ui/format.ts';
import type { CommandRow, Context } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';

/** Between two looks at head, in ms: one consistent read of one small item. */
const LOOK_EVERY_MS = 100;

/** How long a standby is waited for that has not reported itself as one yet, in ms. */
const REPORT_MS = 15_000;
const WAIT = duration('1s', '1d');

export const trigger: CommandRow = {
  path: 'trigger',
  summary: 'make a standby the primary; the old one is fenced',
  text: `Raises the epoch in the vault: from that moment the old primary cannot archive. The target's agent then seals
the point up to which it will replay, PostgreSQL promotes itself, and the new timeline is opened in the vault.
smart: everything archived is replayed first. fast: opens with what the standby has by now.
Waits until the promotion is open (--wait, 60 s) and reports each step; ending the wait does not end the promotion.
Refused while another promotion is pending, unless --supersede names its epoch. What the old primary had not
archived stays in its pg_wal and is not on the new one.`,
  argument: { name: 'mode', summary: 'smart or fast', choices: ['smart', 'fast'] },
  options: [
    { flags: '--to <node>', summary: 'the standby that becomes the primary' },
    { flags: '-y, --yes', summary: 'do not ask' },
    { flags: '--supersede <epoch>', summary: 'give up the pending promotion of this epoch' },
    { flags: '--wait <duration>', summary: 'how long to wait for the promotion (default 60s)' },
    { flags: '--no-wait', summary: 'return as soon as the trigger is committed' },
  ],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'planned or after a failure: nothing archived is lost', line: 'walvault trigger smart --to db2' },
    { says: 'from a script', line: 'walvault trigger smart --to db2 --yes --json' },
    { says: 'open at once with what db2 has replayed', line: 'walvault trigger fast --to db2' },
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
    await untilReported(context, cluster, to, Math.min(waitMs, REPORT_MS));
    const primary = await checkTrigger(cluster, { mode, to, supersede });
    await context.confirm(consequences(mode, to, cluster.name, primary));
    const startedMs = Date.now();
    const asked = await triggerPromotion(cluster, { mode, to, supersede });
    context.say(`triggered: epoch ${asked.epoch} names ${to}; the old primary can archive nothing more`);
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

/**
 * A standby that was started a moment ago has not said yet that it is a target: worth a wait, or a script that starts one and triggers
 * it would fail now and then.
 */
async function untilReported(context: Context, cluster: Cluster, to: string, limitMs: number): Promise<void> {
  const startedMs = Date.now();
  for (let said = false; Date.now() - startedMs < limitMs; said = true) {
    const node = (await cluster.vault.manifest.get(keys.node(cluster.partition, to))) as NodeRow | undefined;
    if (node?.role !== 'standby' || node.consistent || node.trouble !== null) return;
    if (!said) context.say(`waiting until ${to} reports that it has reached the end of its base backup`);
    await sleep(200);
  }
}

/**
 * Would it be refused? Said before anybody is asked; what counts is the decision in the transaction itself.
 *
 * @returns the present primary
 */
async function checkTrigger(
  cluster: Cluster,
  options: { mode: TriggerMode; to: string; supersede: number | undefined },
): Promise<string | null> {
  const [control, head, node] = await Promise.all([
    readControl(cluster),
    readHead(cluster),
    cluster.vault.manifest.get(keys.node(cluster.partition, options.to)),
  ]);
  const request = { id: '', at: new Date().toISOString(), ...options };
  const decision = decideTrigger(control, head, node as NodeRow | undefined, request);
  if (decision.do === 'refuse')
    throw new VaultError(decision.code, decision.message, { hint: decision.hint });
  return control.primary;
}

function consequences(mode: TriggerMode, to: string, cluster: string, primary: string | null): string[] {
  return [
    `fence ${primary ?? 'whoever was primary'}: it can archive nothing more into ${cluster}`,
    mode === 'smart'
      ? `promote ${to} once it has replayed everything that is archived`
      : `promote ${to} with what it has replayed by now, even where more is archived`,
    `leave behind what ${primary ?? 'the old primary'} has not archived yet (its pg_wal keeps it)`,
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
