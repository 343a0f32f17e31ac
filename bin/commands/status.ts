/** `walvault status`: where a cluster stands, for people and for programs. */
import { lookAtOthers, namedVaults, type OtherVault } from '../../core/work/other-vaults.ts';
import { FAILURES, VaultError } from '../../core/errors.ts';
import { lookAtAll, type Looked } from '../../core/work/health.ts';
import { readStatus, type NodeStatus, type RelayStatus, type Status } from '../../core/work/status.ts';
import { gapText } from '../../core/cluster/gaps.ts';
import { formatAge, formatBytes, formatCount, formatDuration } from '../ui/format.ts';
import { pairs, table } from '../ui/table.ts';
import { keptEach } from '../../core/vault/kept.ts';
import type { Vault } from '../../core/vault/vault.ts';
import type { Answer, CommandRow, Context } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { checkStatus, thresholdOptions } from '../status-check.ts';
import { printMetrics } from '../status-metrics.ts';
import { watchStatus } from '../status-watch.ts';

/** A heartbeat older than this is worth a word, in ms: agents report each few seconds. */
const SILENT_AFTER_MS = 60_000;

/** How long another vault is asked, in ms: what this one says is shown whatever the other does. */
export const OTHER_VAULT_MS = 3_000;

export const status: CommandRow = {
  path: 'status',
  summary: 'show where a cluster stands: primary, last segment, nodes and their lag, backups',
  text: `Reads the vault only: it works from anywhere the vault can be reached, and asks no server.
A node's figures are its own last report, with its age. Where the cluster has a second vault that one is looked at as well,
for three seconds at most: which of the two is active, what the relay has still to bring, what waits there as spills.

--all shows every cluster of the vault, from a list that is kept of them; one that cannot be read does not hide the others.
--check is a monitoring plug-in: one line with its figures, exit 0 (ok), 1 (warning), 2 (critical), 3 (the vault, or one of the clusters,
cannot be read); each threshold is two durations, for warning and critical, or none. --prometheus prints the text format of
Prometheus. --watch shows all of it again and again until Ctrl-C: in its place on a terminal, elsewhere at each change.`,
  options: [
    { flags: '--all', summary: 'every cluster of the vault' },
    { flags: '--check', summary: 'one line for monitoring, exit 0, 1, 2 or 3' },
    ...thresholdOptions,
    { flags: '--prometheus', summary: 'the text format of Prometheus' },
    { flags: '--watch', summary: 'show it again and again' },
    { flags: '--every <duration>', summary: 'how often --watch looks (2s)' },
  ],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'a table', line: 'walvault status --vault file:///srv/vault --cluster main' },
    { says: 'one value, in a script', line: 'walvault status --json | jq -r .primary' },
    { says: 'for a monitoring system', line: 'walvault status --check --all --lag 2m,15m --backup 26h,none' },
    {
      says: 'for the textfile collector of node_exporter',
      line: 'walvault status --all --prometheus > walvault.prom',
    },
    { says: 'beside a switchover', line: 'walvault status --watch --every 1s' },
  ],
  async run(context) {
    const modes = ['check', 'prometheus', 'watch'].filter((mode) => context.flag(mode));
    if (modes.length > 1) throw new VaultError('usage', `--${modes.join(' and --')} do not go together`);
    if (context.text('every') !== undefined && !context.flag('watch'))
      throw new VaultError('usage', '--every goes with --watch');
    if (context.flag('all') && context.settings.origin('cluster') === 'flag')
      throw new VaultError('usage', '--all shows every cluster: it does not go with --cluster');
    if (context.flag('check')) return checkStatus(context);
    if (context.flag('prometheus')) return printMetrics(context);
    const isAll = context.flag('all');
    const other = openOnce(context);
    const look = () => (isAll ? lookAtClusters(context) : lookAtCluster(context, other));
    if (context.flag('watch')) return watchStatus(context, look);
    if (isAll) {
      const { value, text } = await look();
      context.answer(value, text);
      return;
    }
    const { seen, value, text } = await lookAtCluster(context, other);
    context.answer(value, text);
    if (seen.backups.every(({ state }) => state !== 'complete'))
      context.next({
        says: 'no backup is complete, and a standby begins with one: on the primary',
        line: `${context.command('backup', ['vault', 'cluster']).join(' ')} --pgdata $P --node ${seen.primary ?? 'NODE'}`,
      });
  },
};

/** What is shown, as programs and people read it. */
export type Look = { value: Answer; text: () => string };

/** Each other vault is opened once, however often it is looked at; one that cannot be opened is tried again. */
function openOnce(context: Context): (url: string) => Promise<Vault> {
  return keptEach((url: string) => context.anotherVault(url, { limitMs: OTHER_VAULT_MS }));
}

async function lookAtCluster(
  context: Context,
  open: (url: string) => Promise<Vault>,
): Promise<Look & { seen: Status }> {
  const cluster = await context.cluster();
  const seen = await readStatus(cluster);
  const others = await lookAtOthers(cluster.name, namedVaults(seen), open, OTHER_VAULT_MS);
  return { seen, value: { ...seen, others }, text: () => describeStatus(seen, Date.now(), others) };
}

async function lookAtClusters(context: Context): Promise<Look> {
  const now = new Date();
  const looked = await lookAtAll(await context.vault(), now);
  const [failure] = looked.flatMap((one) => one.failure ?? []);
  if (failure !== undefined) context.exit = FAILURES[failure.code].exit;
  return {
    value: looked.map(({ cluster, health, failure: own }) =>
      own === undefined
        ? { ...health.status, error: null }
        : { cluster, error: { code: own.code, message: own.message, hint: own.hint ?? null } },
    ),
    text: () => describeAll(looked, now.getTime()),
  };
}

function describeAll(looked: readonly Looked[], nowMs: number): string {
  if (looked.length === 0) return 'no clusters in this vault';
  return table(
    ['cluster', 'role', 'epoch', 'primary', 'timeline', 'last segment', 'archived', 'standbys', 'backups'],
    looked.map(({ cluster, health, failure }) => {
      if (failure !== undefined) return [cluster, `NOT READ: [${failure.code}] ${failure.message}`];
      const { status: seen, backups } = health;
      const standbys = seen.nodes.filter(({ role }) => role === 'standby').length;
      return [
        ...[cluster, seen.vault.role, String(seen.epoch), seen.primary, String(seen.timeline)],
        ...[
          seen.lastSegment,
          formatAge(seen.lastArchivedAt, nowMs),
          String(standbys),
          String(backups.length),
        ],
      ];
    }),
  );
}

/** The table for people. */
export function describeStatus(seen: Status, nowMs: number, others: readonly OtherVault[] = []): string {
  const { trigger } = seen;
  const parts = [
    pairs([
      ['cluster', seen.cluster],
      ['vault', `${seen.vault.url}: ${roleInWords(seen)}`],
      ['system identifier', seen.systemIdentifier],
      ['epoch', seen.epoch],
      ['primary', seen.primary],
      [
        'archiving',
        seen.archiving
          ? 'on'
          : `OFF${seen.archivingAt === null ? '' : `, since ${formatAge(seen.archivingAt, nowMs)}`}`,
      ],
      [
        'trigger',
        trigger === null
          ? 'none'
          : `${trigger.mode} to ${trigger.to}, epoch ${trigger.epoch}, ${formatAge(trigger.at, nowMs)}: pending`,
      ],
      ['timeline', seen.timeline],
      [
        'last segment',
        seen.lastSegment === null
          ? 'none yet'
          : `${seen.lastSegment} (${formatAge(seen.lastArchivedAt, nowMs)})`,
      ],
      ['gaps', gapsInWords(seen)],
      ...backupInWords(seen, nowMs),
      ...pairInWords(seen, nowMs),
      ...witnessInWords(seen, nowMs),
    ]),
  ];
  if (others.length > 0)
    parts.push(
      table(
        ['other vault', 'role', 'epoch', 'primary', 'timeline', 'last segment'],
        others.map((other) =>
          other.reachable
            ? [other.url, other.role, other.epoch, other.primary, other.timeline, other.lastSegment]
            : [other.url, `NOT REACHED: ${other.why}`],
        ),
      ),
    );
  if (seen.nodes.length > 0)
    parts.push(
      table(
        [
          'node',
          'role',
          'heartbeat',
          'last restored',
          'restart point',
          'segments behind',
          'behind for',
          'trouble',
        ],
        seen.nodes.map((node) => [
          node.name,
          roleOf(node, seen.primary),
          silence(node.heartbeatAt, nowMs),
          node.lastRestored,
          node.restartPoint,
          node.role === 'primary' ? null : node.lagSegments,
          node.role === 'primary' || node.lagSeconds === null ? null : formatDuration(node.lagSeconds * 1000),
          node.trouble,
        ]),
      ),
    );
  parts.push(
    seen.backups.length === 0
      ? 'no backups'
      : table(
          ['backup', 'state', 'from segment', 'to segment', 'size', 'stored'],
          seen.backups.map((backup) => [
            backup.id,
            backup.state,
            backup.startSegment,
            backup.stopSegment,
            formatBytes(backup.sizeBytes),
            formatBytes(backup.storedBytes),
          ]),
        ),
  );
  return parts.join('\n\n');
}

/** A witness that has not looked for so many of its intervals is told as gone. */
const MISSED_LOOKS = 5;
/** Its row is written twice a minute where nothing changes, ms. */
const ROW_AGE_MS = 60_000;

function witnessInWords(
  { lease, maintenance, witness, ifPrimaryDied, primary }: Status,
  nowMs: number,
): [string, string][] {
  if (primary === null) return [];
  const rows: [string, string][] = [];
  if (lease !== null)
    rows.push([
      'lease',
      `${formatDuration(lease.ms)}, watchdog ${lease.watchdog}, renewed ${lease.renewals} times`,
    ]);
  if (maintenance !== null) rows.push(['maintenance', `until ${maintenance.until}: ${maintenance.by}`]);
  if (witness !== null) {
    const { by, at, everyMs, policy, decision, lastFailover, watches } = witness;
    const isGone = nowMs - Date.parse(at) > Math.max(ROW_AGE_MS, MISSED_LOOKS * everyMs);
    const mode = policy.autoFailover ? 'may trigger' : 'warns only';
    rows.push([
      'witness',
      `${by}, ${mode}, looked ${formatAge(at, nowMs)}${isGone ? ': NOBODY WATCHES NOW' : ''}`,
    ]);
    rows.push([
      'it decided',
      `${decision.do} (${decision.state}) since ${formatAge(decision.since, nowMs)}: ${[decision.why, ...decision.reasons].join('; ')}`,
    ]);
    if (lastFailover !== null)
      rows.push([
        'last failover by it',
        `${lastFailover.to}, epoch ${lastFailover.epoch}, ${formatAge(lastFailover.at, nowMs)}`,
      ]);
    if (decision.state === 'silent' && watches !== '') rows.push(['it watches', watches]);
  }
  if (lease !== null || witness !== null)
    rows.push([`if ${primary} died now`, [ifPrimaryDied.why, ...ifPrimaryDied.reasons].join('; ')]);
  return rows;
}

function gapsInWords({ gaps }: Status): string {
  const last = gaps.at(-1);
  if (last === undefined) return 'none';
  return gaps.length === 1 ? gapText(last) : `${gaps.length}, the last one ${gapText(last)}`;
}

/** Nothing where no backup is needed. */
function backupInWords({ backupNeeded, primary }: Status, nowMs: number): [string, string][] {
  if (backupNeeded === null) return [];
  return [
    [
      'base backup',
      `A NEW ONE IS NEEDED since ${formatAge(backupNeeded.since, nowMs)}: none begins after the gap ${gapText(backupNeeded)}; on ${primary ?? 'the primary'}: walvault backup`,
    ],
  ];
}

/** Which part this vault has among those of the cluster. */
export function roleInWords({ vault, source, supersededBy }: Status): string {
  if (vault.role === 'active') return 'active';
  const by = supersededBy === null ? '' : `, superseded at epoch ${supersededBy.epoch}`;
  return vault.role === 'replica'
    ? `replica of ${source?.url ?? 'nobody'}${by}`
    : `being made a replica of ${source?.url ?? supersededBy?.url ?? 'another vault'}${by}`;
}

/** The lines of two vaults; none where the cluster has one. */
function pairInWords(seen: Status, nowMs: number): [string, string][] {
  const { supersedes, supersededBy, direct, relays, spills } = seen;
  const lines: [string, string][] = [];
  if (supersedes !== null)
    lines.push([
      'supersedes',
      `${supersedes.url} since epoch ${supersedes.sinceEpoch}, ${formatAge(supersedes.at, nowMs)}: it does NOT KNOW it yet`,
    ]);
  if (supersededBy !== null)
    lines.push([
      'superseded by',
      `${supersededBy.url} at epoch ${supersededBy.epoch}, ${formatAge(supersededBy.at, nowMs)}`,
    ]);
  for (const relay of relays)
    lines.push([
      `relay ${relay.direction}`,
      `${relay.vault.url}: ${relayInWords(relay)} (${formatAge(relay.at, nowMs)})`,
    ]);
  if (direct !== null) lines.push(['spills may go to', direct.url]);
  if (spills !== null)
    lines.push([
      'spills',
      `${formatCount(spills.files, 'file')} of ${spills.node}, epoch ${spills.epoch}, ${spills.firstLsn} to ${spills.lsn} (${formatAge(spills.at, nowMs)}): WAITING until the active vault has taken them over`,
    ]);
  return lines;
}

/** How far a relay is, as it said last. */
export function relayInWords({ rows, bytes, seconds, trouble }: RelayStatus): string {
  const lag =
    rows === 0
      ? 'nothing behind'
      : `${formatCount(rows, 'row')} (${formatBytes(bytes)}) behind, for ${formatDuration(seconds * 1000)}`;
  return trouble === null ? lag : `${lag}; IN TROUBLE: ${trouble}`;
}

/** What a node last said of itself, and where the vault says otherwise. */
function roleOf(node: NodeStatus, primary: string | null): string {
  if (node.name !== primary && (node.mode === 'warm' || node.mode === 'wait'))
    return `${node.role} (${node.mode})`;
  if (node.name === primary && node.role !== 'primary') return `${node.role}, named primary`;
  return node.role === 'primary' && node.name !== primary ? 'primary, FENCED' : node.role;
}

function silence(heartbeatAt: string | null, nowMs: number): string {
  const age = formatAge(heartbeatAt, nowMs);
  return heartbeatAt !== null && nowMs - Date.parse(heartbeatAt) > SILENT_AFTER_MS ? `${age}, SILENT` : age;
}
