/**
 * The live branch: head, and the lineage of its timeline from the histories in the manifest.
 */
import { keys, type Head, type HistoryRow } from '../cluster/facts.ts';
import { VaultError } from '../errors.ts';
import { lineageOf, type Lineage } from '../wal/lineage.ts';
import type { Cluster } from './cluster.ts';
import { readHead } from './cluster.ts';

export type Branch = {
  head: Head;
  /** Of head.timeline, oldest first. */
  lineage: Lineage;
  /** History rows of the timelines of the lineage that have one. */
  histories: Map<number, HistoryRow>;
};

/**
 * Histories never change once they are there; a reader that lives long keeps them by this map. An entry is a row, never an absence:
 * a history that was not there a moment ago may be there now.
 */
export type HistoryCache = Map<number, HistoryRow>;

export async function readHistory(
  cluster: Cluster,
  timeline: number,
  cache?: HistoryCache,
): Promise<HistoryRow | undefined> {
  const known = cache?.get(timeline);
  if (known) return known;
  const row = (await cluster.vault.manifest.get(keys.history(cluster.partition, timeline))) as
    HistoryRow | undefined;
  if (row && cache) cache.set(timeline, row);
  return row;
}

/** @throws VaultError corrupt (the live timeline's history is missing) | unreachable */
export async function readBranch(cluster: Cluster, cache?: HistoryCache, head?: Head): Promise<Branch> {
  const now = head ?? (await readHead(cluster));
  const histories = new Map<number, HistoryRow>();
  const own = now.timeline === 1 ? undefined : await readHistory(cluster, now.timeline, cache); // timeline 1 has none
  if (own) histories.set(now.timeline, own);
  if (own === undefined && now.timeline > 1) {
    throw new VaultError('corrupt', `the manifest is on timeline ${now.timeline} but holds no history of it`);
  }
  const lineage = lineageOf(now.timeline, own?.text);
  for (const { timeline } of lineage) {
    if (timeline === now.timeline || timeline === 1) continue;
    const row = await readHistory(cluster, timeline, cache);
    if (row) histories.set(timeline, row);
  }
  return { head: now, lineage, histories };
}
