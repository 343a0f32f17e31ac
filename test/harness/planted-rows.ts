/** Rows of a cluster's past, put into its manifest as they would stand: for tests of those who only read. No bytes are behind them. */
import {
  keys,
  type GapRow,
  type Head,
  type HistoryRow,
  type TailRow,
  type WalRow,
} from '../../core/cluster/facts.ts';
import { formatHistory } from '../../core/wal/history.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import { asRow, readHead, type Cluster } from '../../core/work/cluster.ts';
import { MiB } from './facts.ts';

const AT = '2026-01-01T00:00:00.000Z';

export async function plant(cluster: Cluster, rows: readonly object[]): Promise<void> {
  for (let first = 0; first < rows.length; first += 100)
    await cluster.vault.manifest.transact(
      rows.slice(first, first + 100).map((row) => ({ do: 'put', row: asRow(row), when: 'any' })),
    );
}

export async function plantHead(cluster: Cluster, changes: Partial<Head>): Promise<void> {
  const head = await readHead(cluster);
  await plant(cluster, [{ ...head, rev: head.rev + 1, ...changes }]);
}

export const walRow = ({ partition }: Cluster, file: string, changes: Partial<WalRow> = {}): WalRow => ({
  ...keys.wal(partition, file),
  ...{ rev: 1, key: `k/${file}`, sha256: 'f'.repeat(64), sizeBytes: MiB, storedBytes: 1000 },
  ...{ compression: 'zstd', node: 'db1', epoch: 1, archivedAt: AT },
  ...changes,
});

export const gapRow = ({ partition }: Cluster, from: string, to: string): GapRow => ({
  ...keys.gap(partition, from),
  ...{ rev: 1, from, to, at: AT, reason: 'archiving was off' },
});

export const tailRow = ({ partition }: Cluster, segment: string, endLsn: string): TailRow => {
  const timeline = Number.parseInt(segment.slice(0, 8), 16);
  return {
    ...keys.tail(partition, timeline),
    ...{ rev: 1, timeline, segment, key: `k/${segment}`, sha256: 'a', prefixSha256: 'b', endLsn },
    ...{ sizeBytes: MiB, storedBytes: 10, why: 'flush', node: 'db1', epoch: 1, archivedAt: AT },
  };
};

/** @param ancestors  [timeline, fork], oldest first; the last is the parent */
export const historyRow = (
  { partition }: Cluster,
  timeline: number,
  ancestors: readonly (readonly [number, string])[],
  changes: Partial<HistoryRow> = {},
): HistoryRow => {
  const [parent, forkLsn] = ancestors.at(-1)!;
  const entries = ancestors.map(([one, fork]) => ({ timeline: one, forkLsn: parseLsn(fork) }));
  return {
    ...keys.history(partition, timeline),
    ...{ rev: 1, text: formatHistory(entries, 'test'), timeline, parent, forkLsn, node: 'db2' },
    ...{ epoch: timeline, forkSegmentWhole: true, key: `k/${timeline}.history`, archivedAt: AT },
    ...changes,
  };
};
