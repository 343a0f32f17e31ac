/** `walvault switchover`: flush here, smart trigger there, one command with an account of each step. */
import { VaultError } from '../../core/errors.ts';
import { MAX_LAG_SEGMENTS, switchover, type SwitchoverStep } from '../../core/work/switchover.ts';
import { formatCount, formatDuration } from '../ui/format.ts';
import type { CommandRow } from '../command.ts';
import { directWay, LOSE_DIRECT_OPTION } from '../direct-way.ts';
import { untilSignalled } from '../until-signalled.ts';
import { FLUSH_SETTINGS, flushRequest, flushWords, GRACE_OPTION, WITHOUT_DR_OPTION } from './flush.ts';

export const switchoverCommand: CommandRow = {
  path: 'switchover',
  summary: 'planned change of roles: flush here, then make a standby the primary',
  text: `Run on the primary. Looks first: the target is a consistent standby that is heard of now and at most
${MAX_LAG_SEGMENTS} segments behind, and the primary can be flushed. Then the flush ('walvault help flush'), a smart trigger, and the
wait until the target is open. Every transaction that was acknowledged is on the new primary. Reports each step, and the time
without a primary.

Broken off anywhere, the same command goes on; before the trigger 'walvault flush --undo' goes back. Afterwards this server
can be started: it is a standby, with no new base backup. The way back (switchback) is the same command on the other node.`,
  options: [
    { flags: '--to <node>', summary: 'the standby that becomes the primary' },
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
    await context.confirm([
      `end every session of ${node}, transactions after ${formatDuration(request.graceMs)}, and stop its server`,
      `make ${to} the primary of ${cluster.name}, with everything that ${node} has acknowledged`,
      `leave ${node} stopped: started again it is a standby of ${to}`,
    ]);
    const startedMs = Date.now();
    const { promotion, flushed, withoutPrimaryMs } = await untilSignalled((signal) =>
      switchover(cluster, {
        ...request,
        to,
        direct: directWay(context, cluster),
        signal,
        onStep: (step) => context.say(stepWords(step, node, to)),
      }),
    );
    const tookMs = Date.now() - startedMs;
    const { epoch, timeline, lsn, reserved, state } = promotion;
    context.answer(
      {
        cluster: cluster.name,
        from: node,
        to,
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
    context.next(
      { says: `start ${node}: it is a standby now, as it is`, line: ['pg_ctl', '-D', pgdata, 'start'] },
      { says: 'see where the cluster stands', line: context.command('status', ['vault', 'cluster']) },
    );
  },
};

function stepWords(step: SwitchoverStep, node: string, to: string): string {
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
    default:
      return flushWords(step, node);
  }
}
