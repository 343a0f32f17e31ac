/** `walvault status`: where a cluster stands, for people and for programs. */
import { readStatus, type NodeStatus, type Status } from '../../core/work/status.ts';
import { formatAge, formatBytes, formatDuration } from '../ui/format.ts';
import { pairs, table } from '../ui/table.ts';
import type { CommandRow } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';

/** A heartbeat older than this is worth a word, in ms: agents report each few seconds. */
const SILENT_AFTER_MS = 60_000;

export const status: CommandRow = {
  path: 'status',
  summary: 'show where a cluster stands: primary, last segment, nodes and their lag, backups',
  text: `Reads the vault only: it works from anywhere the vault can be reached, and asks no server.
A node's figures are its own last report, with its age.`,
  options: [],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'a table', line: 'walvault status --vault file:///srv/vault --cluster main' },
    { says: 'one value, in a script', line: 'walvault status --json | jq -r .primary' },
  ],
  async run(context) {
    const cluster = await context.cluster();
    const seen = await readStatus(cluster);
    context.answer(seen, () => describeStatus(seen, Date.now()));
    if (seen.backups.every(({ state }) => state !== 'complete'))
      context.next({
        says: 'no backup is complete, and a standby begins with one: on the primary',
        line: `${context.command('backup', ['vault', 'cluster']).join(' ')} --pgdata $P --node ${seen.primary ?? 'NODE'}`,
      });
  },
};

/** The table for people. */
export function describeStatus(seen: Status, nowMs: number): string {
  const { trigger } = seen;
  const parts = [
    pairs([
      ['cluster', seen.cluster],
      ['system identifier', seen.systemIdentifier],
      ['epoch', seen.epoch],
      ['primary', seen.primary],
      ['archiving', seen.archiving ? 'on' : 'OFF'],
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
      ['gaps', seen.gaps.length === 0 ? 'none' : `${seen.gaps.length}`],
    ]),
  ];
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

/** What a node last said of itself, and where the vault says otherwise. */
function roleOf(node: NodeStatus, primary: string | null): string {
  if (node.name === primary && node.role !== 'primary') return `${node.role}, named primary`;
  return node.role === 'primary' && node.name !== primary ? 'primary, FENCED' : node.role;
}

function silence(heartbeatAt: string | null, nowMs: number): string {
  const age = formatAge(heartbeatAt, nowMs);
  return heartbeatAt !== null && nowMs - Date.parse(heartbeatAt) > SILENT_AFTER_MS ? `${age}, SILENT` : age;
}
