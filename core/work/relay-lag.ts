/** How far a replica is behind its source, and the rows in both manifests that say so. */
import { keys, type Head, type RelayRow, type WalRow } from '../cluster/facts.ts';
import { after } from '../vault/manifest.ts';
import { parseLsn } from '../wal/lsn.ts';
import { hex8, isSegmentName, segmentEnd } from '../wal/name.ts';
import { segmentsFrom } from '../wal/lineage.ts';
import { asRow, listRows, type Cluster } from './cluster.ts';
import { fileOf } from './store-file.ts';
import type { Reading } from './replica.ts';

export type Lag = {
  /** Segments of the live branch that the replica lacks. */
  rows: number;
  /** Their objects, as stored; counted up to COUNTED rows, beyond that reckoned from them. */
  bytes: number;
  /** Age of the oldest of them, s; 0: none. */
  seconds: number;
};

const COUNTED = 2000;

/** What a lag is reckoned from: the source's branch, and the place of the replica's head on it. */
export type Behind = {
  source: Pick<Reading, 'head' | 'lineage' | 'cluster'>;
  target: { head: Pick<Head, 'timeline' | 'lsn'> };
};

/** @param now  for the age */
export async function relayLag(
  source: Behind['source'],
  target: Behind['target'],
  now: Date = new Date(),
): Promise<Lag> {
  const { head, lineage, cluster } = source;
  const { segmentSize, partition, vault } = cluster;
  if (head.lsn === null) return { rows: 0, bytes: 0, seconds: 0 };
  const end = parseLsn(head.lsn);
  const begin = beginOf(source, target);
  const rows = end <= begin ? 0 : Number((end - begin + BigInt(segmentSize) - 1n) / BigInt(segmentSize));
  if (rows === 0) return { rows, bytes: 0, seconds: 0 };
  const first = segmentsFrom(lineage, begin, segmentSize).next().value;
  let [counted, stored, oldest] = [0, 0, undefined as string | undefined];
  for (const { timeline, ends } of lineage.slice(
    lineage.findIndex((part) => first.startsWith(hex8(part.timeline))),
  )) {
    const prefix = `wal#${hex8(timeline)}`;
    const from = first.startsWith(hex8(timeline)) ? `wal#${first}` : prefix;
    for await (const found of vault.manifest.query({ pk: partition, from, to: after(prefix) })) {
      const row = found as unknown as WalRow;
      const name = fileOf(row);
      if (!isSegmentName(name)) continue;
      if (counted >= Math.min(COUNTED, rows) || (ends !== null && segmentEnd(name, segmentSize) > ends))
        break;
      counted++;
      stored += row.storedBytes;
      oldest ??= row.archivedAt;
    }
  }
  return {
    rows,
    bytes: counted === 0 ? 0 : Math.round((stored / counted) * rows),
    seconds: oldest === undefined ? 0 : Math.max(0, Math.round((now.getTime() - Date.parse(oldest)) / 1000)),
  };
}

/** Where the replica goes on along the source's branch: never past the fork of the timeline it is on. */
function beginOf(source: Behind['source'], target: Behind['target']): bigint {
  const { head, lineage } = source;
  const lsn =
    target.head.lsn === null ? parseLsn(head.firstLsn ?? head.lsn ?? '0/0') : parseLsn(target.head.lsn);
  const part = lineage.find(({ timeline }) => timeline === target.head.timeline);
  const ends = part?.ends ?? null;
  return ends !== null && ends < lsn ? ends : lsn;
}

/** Says in both vaults how far the relay is; a vault that does not answer is not told. @throws never */
export async function reportRelay(
  source: Cluster,
  target: Cluster,
  told: { source: Reading; target: Reading; lag: Lag; trouble: string | null },
): Promise<void> {
  const [from, to] = [told.source.control, told.target.control];
  const { head } = told.target;
  const fact = {
    epoch: to.epoch,
    timeline: head.timeline,
    lsn: head.lsn,
    tailLsn: head.tail?.lsn ?? null,
    lastFile: head.lastFile,
    ...told.lag,
    at: new Date().toISOString(),
    trouble: told.trouble,
  };
  await Promise.allSettled([
    put(source, { ...fact, direction: 'to', vault: { id: to.vaultId, url: target.vault.url } }),
    put(target, { ...fact, direction: 'from', vault: { id: from.vaultId, url: source.vault.url } }),
  ]);
}

/** The relays between this vault and the one at `url`. */
export async function relaysWith(cluster: Cluster, url: string): Promise<RelayRow[]> {
  return (await listRows<RelayRow>(cluster, 'relay#')).filter(({ vault }) => vault.url === url);
}

/** A pass that could not begin, or broke off: the trouble goes beside what was known last. */
export async function reportTrouble(cluster: Cluster, otherId: string, trouble: string): Promise<void> {
  const seen = (await cluster.vault.manifest.get(keys.relay(cluster.partition, otherId))) as
    RelayRow | undefined;
  if (seen !== undefined) await put(cluster, { ...seen, trouble, at: new Date().toISOString() });
}

async function put(cluster: Cluster, row: Omit<RelayRow, 'pk' | 'sk' | 'rev'>): Promise<void> {
  const key = keys.relay(cluster.partition, row.vault.id);
  const seen = await cluster.vault.manifest.get(key);
  // Whoever comes second has the same to say: a condition that fails is no failure.
  await cluster.vault.manifest.transact([
    {
      do: 'put',
      row: asRow({ ...row, ...key, rev: (seen?.rev ?? 0) + 1 }),
      when: seen === undefined ? 'absent' : { rev: seen.rev },
    },
  ]);
}
