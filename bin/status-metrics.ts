/** `walvault status --prometheus`: the figures of a cluster, or of all in the vault, for Prometheus. */
import { lookAtAll, readHealth, type Health, type Looked } from '../core/work/health.ts';
import { VaultError } from '../core/errors.ts';
import type { Context } from './command.ts';
import { exposition, type Family, type Sample } from './ui/exposition.ts';

export async function printMetrics(context: Context): Promise<void> {
  if (context.json) throw new VaultError('usage', '--prometheus has a form of its own, and no --json');
  const now = new Date();
  const looked = context.flag('all')
    ? await lookAtAll(await context.vault(), now)
    : [await lookAtOne(context, now)];
  context.io.out(exposition(familiesOf(looked)));
}

async function lookAtOne(context: Context, now: Date): Promise<Looked> {
  const cluster = await context.cluster();
  return { cluster: cluster.name, health: await readHealth(cluster, now), failure: undefined };
}

type Row = Record<string, string | number | null | undefined>;

/** A family's name, what it is, and its samples of one cluster; a value that is not known is no sample. */
type Reading = {
  name: string;
  help: string;
  of: (health: Health) => readonly (readonly [Row, number | null])[];
};

const seconds = (at: string | null | undefined): number | null =>
  at === null || at === undefined ? null : Date.parse(at) / 1000;

const one = (value: number | null): readonly (readonly [Row, number | null])[] => [[{}, value]];

const READINGS: readonly Reading[] = [
  {
    name: 'info',
    help: 'Role of this vault, primary, and system identifier of the cluster.',
    of: ({ status }) => [
      [{ role: status.vault.role, primary: status.primary, system_identifier: status.systemIdentifier }, 1],
    ],
  },
  { name: 'epoch', help: 'Epoch of the cluster.', of: ({ status }) => one(status.epoch) },
  { name: 'timeline', help: 'The live timeline.', of: ({ status }) => one(status.timeline) },
  { name: 'archiving', help: 'Whether archiving is on.', of: ({ status }) => one(Number(status.archiving)) },
  {
    name: 'last_archived_timestamp_seconds',
    help: 'When the last segment was archived.',
    of: ({ status }) => one(seconds(status.lastArchivedAt)),
  },
  {
    name: 'archive_waiting_seconds',
    help: 'How long the oldest finished segment waited on the primary when it reported last.',
    of: ({ waitingMs }) => one(waitingMs === null ? null : waitingMs / 1000),
  },
  { name: 'gaps', help: 'Declared gaps of the WAL.', of: ({ status }) => one(status.gaps.length) },
  {
    name: 'trigger_timestamp_seconds',
    help: 'When the promotion under way was triggered.',
    of: ({ status }) => one(seconds(status.trigger?.at)),
  },
  {
    name: 'spilled_files',
    help: 'Files that wait for the active vault.',
    of: ({ status }) => one(status.spills?.files ?? 0),
  },
  {
    name: 'backups',
    help: 'Backups by state.',
    of: ({ status }) =>
      ['running', 'complete', 'failed', 'deleting'].map((state) => [
        { state },
        status.backups.filter((backup) => backup.state === state).length,
      ]),
  },
  {
    name: 'last_backup_timestamp_seconds',
    help: 'When the newest complete backup was finished.',
    of: ({ backups }) =>
      one(
        backups.length === 0
          ? null
          : Math.max(...backups.map(({ finishedAt }) => Date.parse(finishedAt))) / 1000,
      ),
  },
  {
    name: 'node_info',
    help: 'What a node said last of itself.',
    of: ({ status }) => status.nodes.map(({ name, role, mode }) => [{ node: name, role, mode }, 1]),
  },
  {
    name: 'node_heartbeat_timestamp_seconds',
    help: 'When a node reported last.',
    of: ({ status }) => status.nodes.map(({ name, heartbeatAt }) => [{ node: name }, seconds(heartbeatAt)]),
  },
  {
    name: 'node_lag_segments',
    help: 'Segments of the live branch that a standby has not restored.',
    of: ({ status }) => standbysOf(status).map(({ name, lagSegments }) => [{ node: name }, lagSegments]),
  },
  {
    name: 'node_lag_seconds',
    help: 'Age of the oldest segment that a standby has not restored.',
    of: ({ status }) => standbysOf(status).map(({ name, lagSeconds }) => [{ node: name }, lagSeconds]),
  },
  {
    name: 'node_trouble',
    help: 'Whether a node says that it is not in order.',
    of: ({ status }) => status.nodes.map(({ name, trouble }) => [{ node: name }, Number(trouble !== null)]),
  },
  {
    name: 'lease_seconds',
    help: 'How long the primary may go on without the word of the vault; no sample: for ever.',
    of: ({ status }) =>
      status.lease === null ? [] : [[{ node: status.lease.node }, status.lease.ms / 1000]],
  },
  {
    name: 'lease_renewals',
    help: 'Renewals of the lease, by the counter that a witness goes by.',
    of: ({ status }) => (status.lease === null ? [] : [[{ node: status.lease.node }, status.lease.renewals]]),
  },
  {
    name: 'maintenance',
    help: 'Whether servers are stopped on purpose, so that no witness triggers.',
    of: ({ status }) => one(Number(status.maintenance !== null)),
  },
  {
    name: 'witness_timestamp_seconds',
    help: 'When a witness wrote last what it sees: twice a minute at least.',
    of: ({ status }) => one(seconds(status.witness?.at)),
  },
  {
    name: 'witness_warns',
    help: 'Whether the witness warns, or is about to trigger.',
    of: ({ status }) =>
      status.witness === null ? [] : one(Number(status.witness.decision.do !== 'nothing')),
  },
  ...(['rows', 'bytes', 'seconds'] as const).map((unit) => ({
    name: `relay_lag_${unit}`,
    help: `What a relay has still to bring, in ${unit}.`,
    of: ({ status }: Health) =>
      status.relays.map(
        (relay) => [{ direction: relay.direction, vault: relay.vault.url }, relay[unit]] as const,
      ),
  })),
  {
    name: 'relay_trouble',
    help: 'Whether a relay does not get on.',
    of: ({ status }) =>
      status.relays.map(({ direction, vault, trouble }) => [
        { direction, vault: vault.url },
        Number(trouble !== null),
      ]),
  },
];

const standbysOf = ({ nodes, primary }: Health['status']) => nodes.filter(({ name }) => name !== primary);

export function familiesOf(looked: readonly Looked[]): Family[] {
  const up: Family = {
    name: 'walvault_up',
    help: 'Whether the cluster could be read.',
    type: 'gauge',
    samples: looked.map(({ cluster, failure }) => ({
      labels: { cluster },
      value: Number(failure === undefined),
    })),
  };
  return [
    up,
    ...READINGS.map(({ name, help, of }): Family => ({
      ...{ name: `walvault_${name}`, help, type: 'gauge' },
      samples: looked.flatMap(({ cluster, health }) =>
        health === undefined ? [] : samplesOf(cluster, of(health)),
      ),
    })),
  ];
}

function samplesOf(cluster: string, readings: readonly (readonly [Row, number | null])[]): Sample[] {
  return readings.flatMap(([row, value]) => {
    if (value === null || Number.isNaN(value)) return [];
    const known = Object.entries(row).flatMap(([name, label]) =>
      label === null || label === undefined ? [] : [[name, String(label)] as const],
    );
    return [{ labels: { cluster, ...Object.fromEntries(known) }, value }];
  });
}
