/** Rows as a fresh cluster has them, for tables of decisions: each test changes what it is about. */
import type { Control, Head, NodeRow } from '../../core/cluster/facts.ts';

export const MiB = 1 << 20;

export function control(changes: Partial<Control> = {}): Control {
  return {
    pk: 'main',
    sk: 'control',
    rev: 1,
    format: 1,
    vaultId: 'a000000000000000',
    systemIdentifier: '7300000000000000001',
    segmentSize: 16 * MiB,
    majorVersion: 18,
    epoch: 1,
    reign: changes.epoch ?? 1,
    primary: 'db1',
    archiving: true,
    role: 'active',
    source: null,
    supersedes: null,
    supersededBy: null,
    direct: null,
    trigger: null,
    ...changes,
  };
}

export function head(changes: Partial<Head> = {}): Head {
  return {
    pk: 'main/7300000000000000001',
    sk: 'head',
    rev: 1,
    epoch: 1,
    timeline: 1,
    lsn: '0/5000000',
    firstLsn: '0/1000000',
    lastFile: '000000010000000000000004',
    lastArchivedAt: '2026-01-01T00:00:00.000Z',
    lastTimeline: 1,
    writer: { node: 'db1', nonce: 'n1', place: 'host1:/pg' },
    promotion: null,
    flush: null,
    tail: null,
    spill: null,
    ...changes,
  };
}

export function standby(changes: Partial<NodeRow> = {}): NodeRow {
  return {
    pk: 'main/7300000000000000001',
    sk: 'node#db2',
    rev: 1,
    name: 'db2',
    role: 'standby',
    heartbeatAt: '2026-01-01T00:00:00.000Z',
    walvaultVersion: '0.1.0',
    postgresVersion: '18.4',
    place: 'host2:/pg',
    lastArchived: null,
    lastRestored: '000000010000000000000004',
    lastReplayedLsn: null,
    restartPoint: null,
    consistent: true,
    trouble: null,
    ...changes,
  };
}
