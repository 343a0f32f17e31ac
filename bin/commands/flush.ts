/** `walvault flush`: stops the primary with everything in the vault, and back again. */
import { controlWords } from '../../core/postgres/control-words.ts';
import { VaultError } from '../../core/errors.ts';
import { duration } from '../../core/settings/kinds.ts';
import type { SettingName } from '../../core/settings/settings.ts';
import { flushPrimary, undoFlushHere, type FlushRequest } from '../../core/work/flush.ts';
import type { FlushStep } from '../../core/work/flush-server.ts';
import type { RelayWaitStep } from '../../core/work/wait-relay.ts';
import { formatCount, formatDuration } from '../ui/format.ts';
import type { CommandRow, Context } from '../command.ts';
import { untilSignalled } from '../until-signalled.ts';
import { SERVER_SETTINGS } from '../reach-settings.ts';

const GRACE = duration('0s', '1h');
const WAIT = duration('1s', '1d');

/** What a command takes that works on the server of PGDATA and on the vault. */
export const FLUSH_SETTINGS: readonly SettingName[] = [...SERVER_SETTINGS, 'zstdLevel'];

export const GRACE_OPTION = {
  flags: '--grace <duration>',
  summary: 'how long a transaction may go on before its session is ended (default 10s)',
};

export const WITHOUT_DR_OPTION = {
  flags: '--without-dr',
  summary: 'do not wait for the vaults that follow this one by a relay',
};

export const flush: CommandRow = {
  path: 'flush',
  summary: 'stop the primary with everything in the vault; --undo goes back',
  text: `Looks first whether all of it can succeed: this node is the vault's primary, archiving works (by a segment that
arrives), the server can be reached by a superuser. Then a checkpoint; nobody new is let in (in the server's memory only:
any reload or restart ends it); idle sessions are ended, the others when --grace is over; a fast stop; what waits is
archived; standby.signal makes the next start read-only; the segment with the shutdown checkpoint is put into the vault.
A trigger then loses nothing, and this server follows the new primary as it is.

A failure, Ctrl-C or kill -9 at any place leaves a server that can be started; run again it goes on. A fast stop that
does not end within --wait cannot be taken back: that is said, nothing is forced. A server that was stopped cleanly is
flushed as well.
Where a relay carries this vault to another (the DR vault), that one is waited for, too: the relay must live before anything
is changed, and have brought all of it after the stop. Not in time: the flush stands, and the exit code is that of 'unreachable'.
--undo: this server may start as the primary again; refused once a standby was triggered.`,
  options: [
    GRACE_OPTION,
    {
      flags: '--wait <duration>',
      summary: 'how long WAL may not arrive, and the stop may take (default 60s)',
    },
    { flags: '--undo', summary: 'end the flush: the next start is that of the primary' },
    WITHOUT_DR_OPTION,
    { flags: '--logs', summary: "keep the server's log files in the vault, too" },
    { flags: '-y, --yes', summary: 'do not ask' },
  ],
  settings: FLUSH_SETTINGS,
  examples: [
    { says: 'before a planned change of roles, or of the machine', line: 'walvault flush --pgdata $P' },
    {
      says: 'from a script; transactions get a minute',
      line: 'walvault flush --pgdata $P --grace 1m --yes --json',
    },
    { says: 'back: then start the server', line: 'walvault flush --undo --pgdata $P' },
  ],
  async run(context) {
    if (context.flag('undo')) return undo(context);
    const request = flushRequest(context);
    const cluster = await context.cluster();
    await context.confirm([
      `end every session of ${request.node}, transactions after ${formatDuration(request.graceMs)}, and stop its server`,
      `leave the vault with everything that ${request.node} has acknowledged`,
      `leave ${cluster.name} without a primary until a standby is triggered, or the flush is undone`,
    ]);
    const startedMs = Date.now();
    const done = await untilSignalled((signal) =>
      flushPrimary(cluster, {
        ...request,
        signal,
        onStep: (step) => context.say(flushWords(step, request.node)),
      }),
    );
    const { already, lsn, segment, timeline, epoch, sessions, logs, relayedTo } = done;
    const tookMs = Date.now() - startedMs;
    context.answer(
      { node: request.node, already, lsn, segment, timeline, epoch, sessions, logs, relayedTo, tookMs },
      () =>
        already
          ? `${request.node} is flushed already: up to ${lsn} in ${segment}`
          : `${request.node} is flushed: up to ${lsn} in ${segment}, timeline ${timeline}, after ${formatDuration(tookMs)}`,
    );
    context.next(
      { says: 'make a standby the primary', line: 'walvault trigger smart --to NODE' },
      { says: 'or go back', line: context.command('flush', ['vault', 'cluster', 'pgdata'], ['--undo']) },
    );
  },
};

async function undo(context: Context): Promise<void> {
  const { settings } = context;
  const [node, pgdata] = [settings.need('node'), settings.need('pgdata')];
  const done = await undoFlushHere(await context.cluster(), { node, pgdata, stateDir: settings.stateDir });
  context.answer({ node, ...done }, () =>
    done.undone
      ? `the flush of ${node} is undone: it is the primary as before`
      : done.removedSignal
        ? `no flush of ${node} stands in the vault; standby.signal is removed: it is the primary as before`
        : `nothing to undo: no flush of ${node} stands`,
  );
  if (!done.undone && !done.removedSignal) return;
  const { lease } = settings;
  const says =
    lease === 0
      ? 'start it'
      : `start it within its lease of ${formatDuration(lease)}, or say 'walvault maintenance on' first: a silence after that is a dead primary to a witness`;
  context.next({ says, line: controlWords(pgdata, 'start') });
}

/** From flags and settings. @throws VaultError usage */
export function flushRequest(context: Context): FlushRequest {
  const { settings } = context;
  return {
    node: settings.need('node'),
    pgdata: settings.need('pgdata'),
    stateDir: settings.stateDir,
    connection: { settings, env: context.io.env },
    graceMs: context.duration('grace', '10s', GRACE),
    waitMs: context.duration('wait', '60s', WAIT),
    zstdLevel: settings.zstdLevel,
    logs: context.flag('logs'),
    withoutDr: context.flag('withoutDr'),
  };
}

/** One line a step. */
export function flushWords(step: FlushStep | RelayWaitStep, node: string): string {
  switch (step.step) {
    case 'relaying':
      return `waiting until ${step.url} has it, too: it stands at ${step.lsn ?? 'nothing'}`;
    case 'relayed':
      return `${step.url} has everything up to ${step.lsn}`;
    case 'checking':
      return `switching the WAL segment of ${node}, to see it arrive in the vault`;
    case 'checked':
      return `archiving works: ${step.segment} and all before it are in the vault`;
    case 'refusing':
      return `${node} lets nobody in any more`;
    case 'waiting':
      return `${formatCount(step.sessions, 'session')} in a transaction: ended after ${formatDuration(step.graceMs)}`;
    case 'ended':
      return `sessions ended: ${step.idle} idle, ${step.terminated} in a transaction`;
    case 'stopping':
      return `stopping the server (fast)`;
    case 'stopped':
      return `the server is stopped`;
    case 'archived':
      return step.files === 0
        ? `everything it had to archive is in the vault`
        : `${formatCount(step.files, 'file')} that it had left went to the vault`;
    case 'logs':
      return step.files === 0
        ? `no log files: this server's log goes elsewhere (journal, syslog)`
        : `${formatCount(step.files, 'log file')} kept in the vault`;
    case 'no logs':
      return `the log files are NOT in the vault: ${step.why}`;
    case 'committed':
      return `the shutdown checkpoint is in the vault: ${step.segment} up to ${step.lsn}`;
    default:
      throw new VaultError('usage', `unknown step ${JSON.stringify(step satisfies never)}`);
  }
}
