/** The row of what lies beside the live branch: salvage of a server's disk, of spills, of a branch that died with its vault. */
import { keys, type AsideRow } from '../cluster/facts.ts';
import { formatLsn } from '../wal/lsn.ts';
import { isSegmentName, segmentEnd } from '../wal/name.ts';
import type { Cluster } from './cluster.ts';

export type Kept = Pick<
  AsideRow,
  'file' | 'key' | 'sha256' | 'sizeBytes' | 'storedBytes' | 'node' | 'epoch' | 'endLsn'
>;

/** Under the node and epoch that wrote it, by its content: kept twice it is one row. */
export function asideRow(cluster: Cluster, kept: Kept): AsideRow {
  const { file, key, sha256, sizeBytes, storedBytes, node, epoch, endLsn } = kept;
  return {
    ...keys.aside(cluster.partition, { epoch, node }, file, sha256),
    rev: 1,
    ...{ file, key, sha256, sizeBytes, storedBytes, compression: 'zstd', node, epoch, endLsn },
    savedAt: new Date().toISOString(),
  };
}

/** Where a whole file of the log ends; null for what is no segment. */
export function wholeEnd(cluster: Cluster, file: string): string | null {
  return isSegmentName(file) ? formatLsn(segmentEnd(file, cluster.segmentSize)) : null;
}
