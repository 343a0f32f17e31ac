/** `walvault relay`: carries a vault into another one, and keeps it there. */
import { VaultError } from '../../core/errors.ts';
import { gapText } from '../../core/cluster/gaps.ts';
import { duration } from '../../core/settings/kinds.ts';
import { createVault, openVault, parseVaultUrl } from '../../core/vault/open-vault.ts';
import { openCluster, type Cluster } from '../../core/work/cluster.ts';
import { followRelay } from '../../core/work/relay-follow.ts';
import { forgetVault, planRelay, type RelayPlan } from '../../core/work/relay-plan.ts';
import { reachReplica, relayPass, type RelayReport, type RelayStep } from '../../core/work/relay.ts';
import type { CommandRow, Context } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { formatBytes, formatCount, formatDuration } from '../ui/format.ts';
import { byteProgress, type Progress } from '../ui/progress.ts';
import { pairs } from '../ui/table.ts';
import { untilSignalled } from '../until-signalled.ts';

const INTERVAL = duration('100ms', '1h');

export const relay: CommandRow = {
  path: 'relay',
  summary: 'carry a vault into another one, which standbys of another region follow',
  text: `Makes --to a replica of --from: objects are copied and verified, rows are put in the order of the WAL, histories, base backups
and the cluster's facts come along. A replica takes nothing from a primary; a standby follows it as it would the other:
'walvault standby create --vault <replica>'. Where --to is empty the replica is made; one that was there and is gone (its
disk is not mounted) is never made anew before it was forgotten. One pass, until nothing is left; with --follow
it goes on until Ctrl-C, tries again where a vault is away, and turns round when the two have changed roles.

It may be killed anywhere, and several may run at once: each transaction in the replica is conditional on what was read of it.
Refused: a replica of a newer epoch, another database, different bytes under one name (said in both vaults, nothing is changed).
A vault that was superseded in a disaster is made a replica by the first relay that reaches both: what it holds of the dead branch
is set aside ('walvault salvage --list').

--sweep holds every row against the replica, not only what lies beyond its end; --follow does so when it begins and every ten minutes.
--forget takes a vault that is gone for good out of --from: no flush waits for it any more. It wants --to as 'walvault status' shows it.`,
  options: [
    {
      flags: '--from <url>',
      summary: 'the source, the active vault as a rule (default: the vault of the settings)',
    },
    { flags: '--to <url>', summary: 'the replica' },
    { flags: '--follow', summary: 'go on until Ctrl-C' },
    {
      flags: '--interval <duration>',
      summary: 'with --follow: between two looks at the source (default 1s)',
    },
    { flags: '--sweep', summary: 'compare every row, too' },
    { flags: '--dry-run', summary: 'say what would go, and change nothing' },
    { flags: '--create-table', summary: 's3: make the DynamoDB table of --to where it is missing' },
    { flags: '--forget', summary: 'end it: --from knows of --to no more' },
    { flags: '-y, --yes', summary: 'do not ask (--forget)' },
  ],
  settings: [...REACH_SETTINGS, 'uploadParallel'],
  examples: [
    {
      says: 'a second vault on another disk',
      line: 'walvault relay --from file:///srv/vault --to file:///mnt/vault --cluster main',
    },
    {
      says: 'as a service, to another region',
      line: `walvault relay --from 's3://wal-eu?table=wal&region=eu-west-1' --to 's3://wal-us?table=wal&region=us-east-1' --cluster main --follow`,
    },
    {
      says: 'how much is to go',
      line: 'walvault relay --to file:///mnt/vault --dry-run --json | jq .bytes',
    },
  ],
  async run(context) {
    const { from, to } = ends(context);
    const interval = context.duration('interval', '1s', INTERVAL);
    const source = await openCluster(await context.anotherVault(from), context.settings.need('cluster'));
    if (context.flag('forget')) return forget(context, source, to);
    if (context.flag('dryRun')) return dryRun(context, source, to);
    const target = await reachReplica(source, to, {
      open: () => context.anotherVault(to, { by: openVault }),
      make: () =>
        context.anotherVault(to, {
          by: (url, options) => createVault(url, { ...options, createTable: context.flag('createTable') }),
        }),
    });
    if (context.flag('follow')) await follow(context, source, target, interval);
    else await once(context, source, target);
  },
};

/** The two URLs. @throws VaultError usage */
function ends(context: Context): { from: string; to: string } {
  const from = context.text('from') ?? context.settings.vault;
  const to = context.text('to');
  if (from === undefined)
    throw new VaultError('usage', 'the source is missing', {
      hint: 'Name it: walvault relay --from URL --to URL; or set WALVAULT_VAULT.',
    });
  if (to === undefined)
    throw new VaultError('usage', 'the replica is missing', {
      hint: `Name it: walvault relay --from ${from} --to URL`,
    });
  return { from: parseVaultUrl(from).url, to: parseVaultUrl(to).url };
}

async function once(context: Context, source: Cluster, target: Cluster): Promise<void> {
  const startedMs = Date.now();
  const teller = stepTeller(context);
  const before = context.io.drawable ? await planRelay(source, target).catch(() => undefined) : undefined;
  teller.expect(before);
  const report = await untilSignalled((signal) =>
    relayPass(source, target, {
      ...{ signal, sweep: context.flag('sweep'), parallel: context.settings.uploadParallel },
      onStep: teller.step,
    }),
  )
    .catch((error: unknown) => {
      throw error instanceof Error && error.name === 'AbortError'
        ? new VaultError('refused', 'the relay was broken off', {
            hint: 'What it brought stays; the same command goes on.',
          })
        : error;
    })
    .finally(teller.end);
  const tookMs = Date.now() - startedMs;
  context.answer(answerOf(report, source, target, tookMs), () =>
    describeReport(report, source, target, tookMs),
  );
  context.next({
    says: 'keep it there',
    line: `walvault relay --from '${source.vault.url}' --to '${target.vault.url}' --cluster ${source.name} --follow`,
  });
}

async function follow(context: Context, source: Cluster, target: Cluster, everyMs: number): Promise<void> {
  const teller = stepTeller(context);
  context.say(`from ${source.vault.url} to ${target.vault.url}, until Ctrl-C`);
  await untilSignalled((signal) =>
    followRelay(source, target, {
      ...{ everyMs, signal, parallel: context.settings.uploadParallel },
      onStep: teller.step,
      onPass(report, from, to) {
        teller.end();
        if (context.json) context.io.out(`${JSON.stringify(answerOf(report, from, to))}\n`);
        else context.say(passInWords(report));
      },
      onTrouble(error) {
        teller.end();
        const { code, message } = error;
        if (context.json) context.io.err(`${JSON.stringify({ error: { code, retry: true, message } })}\n`);
        else context.say(`[${code}] ${message}; tried again`);
      },
    }),
  ).finally(teller.end);
  context.say('ended; the same command goes on');
}

function answerOf(report: RelayReport, source: Cluster, target: Cluster, tookMs?: number) {
  const { lag, ...brought } = report;
  return {
    ...{ cluster: source.name, from: source.vault.url, to: target.vault.url },
    ...brought,
    lag,
    ...(tookMs === undefined ? {} : { tookMs }),
  };
}

function describeReport(report: RelayReport, source: Cluster, target: Cluster, tookMs: number): string {
  const { rows, bytes, backups, timelines, lsn, timeline, epoch, aside, home, salvaged } = report;
  const more: [string, string][] = [];
  if (timelines.length > 0) more.push(['timelines', timelines.join(', ')]);
  if (backups.length > 0) more.push(['backups', backups.join(', ')]);
  if (home > 0) more.push(['spills taken home', `${home}`]);
  if (salvaged > 0) more.push(['kept as salvage', formatCount(salvaged, 'file')]);
  if (aside > 0) more.push(['set aside', `${formatCount(aside, 'row')}: 'walvault salvage --list'`]);
  return pairs([
    ['relay', `${source.vault.url} to ${target.vault.url}, after ${formatDuration(tookMs)}`],
    ['brought', `${formatCount(rows, 'row')}, ${formatBytes(bytes)}`],
    ...more,
    ['stands at', `${lsn ?? 'nothing'}, timeline ${timeline}, epoch ${epoch}`],
    ['behind', lagInWords(report)],
  ]);
}

const lagInWords = ({ lag }: RelayReport): string =>
  lag.rows === 0
    ? 'nothing'
    : `${formatCount(lag.rows, 'row')} (${formatBytes(lag.bytes)}), for ${formatDuration(lag.seconds * 1000)}`;

/** One line for a pass of a relay that stays. */
function passInWords(report: RelayReport): string {
  const { rows, bytes, lsn, timeline } = report;
  const brought = rows === 0 ? 'nothing new' : `${formatCount(rows, 'row')}, ${formatBytes(bytes)}`;
  return `${brought}; at ${lsn ?? 'nothing'} on timeline ${timeline}, behind: ${lagInWords(report)}`;
}

/** A bar on a terminal; elsewhere a line for each step. What is no copying is a line everywhere. */
function stepTeller(context: Context) {
  let total: number | undefined;
  let bar: Progress | undefined;
  let done = 0;
  const backups = new Map<string, number>();
  const end = () => {
    bar?.finish();
    bar = undefined;
    done = 0;
  };
  const copied = (bytes: number, words: string) => {
    done += bytes;
    if (!context.io.drawable || context.json) return context.say(words);
    bar ??= byteProgress(context.io, 'relaying');
    bar.update(done, total === undefined ? undefined : Math.max(total, done));
  };
  return {
    expect: (plan: RelayPlan | undefined) => void (total = plan === undefined ? undefined : bytesOf(plan)),
    end,
    step(step: RelayStep) {
      if (step.step === 'rows') return copied(step.bytes, relayStepWords(step));
      if (step.step === 'backup') {
        const before = backups.get(step.id) ?? 0;
        backups.set(step.id, step.bytes);
        return copied(step.bytes - before, relayStepWords(step));
      }
      end();
      context.say(relayStepWords(step));
    },
  };
}

/** One line a step. */
export function relayStepWords(step: RelayStep): string {
  switch (step.step) {
    case 'rows':
      return `${formatCount(step.rows, 'row')} (${formatBytes(step.bytes)}), up to ${step.lastFile}`;
    case 'gap':
      return `declared gap: ${gapText(step)} was never archived`;
    case 'history':
      return `timeline ${step.timeline}, forked at ${step.fork}`;
    case 'tail':
      return `the unfinished ${step.segment}, up to ${step.lsn}`;
    case 'backup':
      return `backup ${step.id}: ${step.objects} of ${formatCount(step.of, 'object')}`;
    case 'facts':
      return `epoch ${step.epoch}, primary ${step.primary ?? 'none'}`;
    case 'home':
      return `${formatCount(step.files, 'spilled file')} taken home into the active vault`;
    case 'salvage':
      return `${formatCount(step.files, 'spilled file')} of an epoch that is over, kept as salvage`;
    case 'aside':
      return `${formatCount(step.rows, 'row')} of the dead branch set aside: 'walvault salvage --list'`;
    case 'turned':
      return `TURNED: ${step.message}`;
    default:
      throw new VaultError('usage', `unknown step ${JSON.stringify(step satisfies never)}`);
  }
}

const bytesOf = ({ lag, backups }: RelayPlan): number =>
  backups.reduce((sum, { storedBytes }) => sum + storedBytes, lag.bytes);

async function dryRun(context: Context, source: Cluster, to: string): Promise<void> {
  const plan = await planRelay(source, await replicaThere(context, source, to));
  const { would, lag, backups } = plan;
  context.answer(
    { cluster: source.name, from: source.vault.url, to, would, ...{ lag, backups }, bytes: bytesOf(plan) },
    () =>
      pairs([
        [
          'would',
          { make: `make ${to} a replica`, relay: 'relay', converge: `make ${to} a replica again` }[would],
        ],
        ['rows', `${formatCount(lag.rows, 'row')}, ${formatBytes(lag.bytes)}`],
        ['backups', backups.length === 0 ? 'none' : backups.map(({ id }) => id).join(', ')],
        ['in all', formatBytes(bytesOf(plan))],
      ]),
  );
}

/** The replica as it is; undefined where its vault, or the cluster in it, is not there yet. */
async function replicaThere(context: Context, source: Cluster, to: string): Promise<Cluster | undefined> {
  try {
    return await openCluster(await context.anotherVault(to, { by: openVault }), source.name);
  } catch (error) {
    if (error instanceof VaultError && error.code === 'unconfigured') return undefined;
    throw error;
  }
}

async function forget(context: Context, source: Cluster, to: string): Promise<void> {
  await context.confirm([
    `take ${to} out of ${source.vault.url}: no flush waits for it, nobody looks for it any more`,
    `leave ${to} as it is: where it still takes archives, nobody tells it that it must not`,
  ]);
  const forgotten = await forgetVault(source, to);
  context.answer({ vault: source.vault.url, forgotten: forgotten ? to : null }, () =>
    forgotten ? `${source.vault.url} knows of ${to} no more` : `${source.vault.url} knew nothing of ${to}`,
  );
}
