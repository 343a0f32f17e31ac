/** Rows as retention reads them, for tables and random histories: segments of 1 MiB, numbered. */
import type { RetentionFacts, RetentionPolicy } from '../../core/cluster/decide-retention.ts';
import type { BackupRow, HoldsRow, NodeRow, RelayRow } from '../../core/cluster/facts.ts';
import { lineageOf } from '../../core/wal/lineage.ts';
import { formatLsn } from '../../core/wal/lsn.ts';
import { segmentAt } from '../../core/wal/name.ts';
import { control, head, MiB, standby } from './facts.ts';

export const SIZE = MiB;
export const NOW = new Date('2026-06-15T12:00:00.000Z');
export const DAY = 86_400_000;
export const HOUR = 3_600_000;

/** Where a segment begins; `part`: so far into it. */
export const lsnOf = (segment: number, part = 0): bigint => BigInt(segment) * BigInt(SIZE) + BigInt(part);
export const at = (segment: number, part = 0): string => formatLsn(lsnOf(segment, part));
export const seg = (timeline: number, number: number): string => segmentAt(timeline, lsnOf(number), SIZE);
export const ago = (ms: number): string => new Date(NOW.getTime() - ms).toISOString();

export const POLICY: RetentionPolicy = {
  ...{ keepBackups: 1, keepDays: 0, pitrWindowMs: 0 },
  ...{ nodeLeaseMs: 3 * DAY, relayLeaseMs: 3 * DAY },
};

export type Fork = { timeline: number; parent: number; at: bigint };

/** The text of a timeline's history file, from the forks of all. */
export function historyOf(timeline: number, forks: readonly Fork[]): string | undefined {
  const fork = forks.find((one) => one.timeline === timeline);
  if (fork === undefined) return undefined;
  return `${historyOf(fork.parent, forks) ?? ''}${fork.parent}\t${formatLsn(fork.at)}\tno reason\n`;
}

/** A vault whose live branch is `timeline` up to segment `end` (exclusive); nobody needs anything yet. */
export function vaultOf(
  { timeline = 1, end = 20, forks = [] as readonly Fork[] },
  more: Partial<RetentionFacts> = {},
): RetentionFacts {
  return {
    control: control(),
    head: head({ timeline, lsn: at(end), firstLsn: at(1), lastTimeline: timeline }),
    lineage: lineageOf(timeline, historyOf(timeline, forks)),
    histories: forks.map((fork) => ({ ...fork, forkLsn: formatLsn(fork.at) })),
    ...{ nodes: [], backups: [], relays: [], gaps: [] },
    holds: { horizon: {}, holds: {} },
    policy: POLICY,
    now: NOW,
    segmentSize: SIZE,
    ...more,
  };
}

export const node = (name: string, restartPoint: string | null, more: Partial<NodeRow> = {}): NodeRow =>
  standby({ sk: `node#${name}`, name, restartPoint, heartbeatAt: ago(5000), ...more });

export function backup(
  id: string,
  start: string,
  finishedAgoMs: number,
  more: Partial<BackupRow> = {},
): BackupRow {
  const number =
    Number.parseInt(start.slice(8, 16), 16) * (2 ** 32 / SIZE) + Number.parseInt(start.slice(16), 16);
  return {
    ...{
      pk: 'p',
      sk: `backup#${id}`,
      rev: 1,
      id,
      state: 'complete',
      node: 'db1',
      label: '',
      majorVersion: 18,
    },
    timeline: Number.parseInt(start.slice(0, 8), 16),
    ...{ startLsn: at(number, 40), stopLsn: at(number, 4096), startSegment: start, stopSegment: start },
    ...{ startedAt: ago(finishedAgoMs + 60_000), finishedAt: ago(finishedAgoMs) },
    ...{ sizeBytes: 1, storedBytes: 1, files: 1, indexKey: 'k' },
    ...more,
  };
}

export const hold = (
  kind: HoldsRow['holds'][string]['kind'],
  from: string,
  ageMs = 60_000,
): HoldsRow['holds'][string] => ({ kind, from, node: 'db9', at: ago(ageMs) });

export const relay = (more: Partial<RelayRow>): RelayRow => ({
  ...{ pk: 'p', sk: 'relay#b', rev: 1, direction: 'to', vault: { id: 'b', url: 'file:///b' }, epoch: 1 },
  ...{ timeline: 1, lsn: at(10), tailLsn: null, lastFile: null, rows: 0, bytes: 0, seconds: 0 },
  ...{ at: ago(5000), trouble: null },
  ...more,
});
