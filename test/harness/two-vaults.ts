/** Two vaults of one cluster, for tests of relay, spill and disaster in which PostgreSQL is played by the test. */
import { keys, type WalRow } from '../../core/cluster/facts.ts';
import { segmentsOf } from '../../core/cluster/gaps.ts';
import { after } from '../../core/vault/manifest.ts';
import { openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { readHead, type Cluster } from '../../core/work/cluster.ts';
import { readGaps } from '../../core/work/gap-rows.ts';
import { fetchFile } from '../../core/work/store-file.ts';
import { fileKind, vaultKinds, type VaultSite } from './open-vaults.ts';
import { names } from './promotions.ts';

let number = 0;

/** One more `memory:` vault. */
export const memoryVault = (): Promise<Vault> => openVault(`memory:two-${process.pid}-${++number}`);

/** Pairs of kinds: each with itself, and a directory relayed into the cloud. */
export const vaultPairs = [
  ...vaultKinds.map((kind) => ({ name: `${kind.name} to ${kind.name}`, from: kind, to: kind })),
  ...vaultKinds
    .filter(({ name }) => name.startsWith('s3'))
    .map((to) => ({ name: `file to ${to.name}`, from: fileKind, to })),
].filter(({ name }) => !name.includes('DynamoDBLocal'));

export async function openPair(
  pair: (typeof vaultPairs)[number],
): Promise<{ from: VaultSite; to: VaultSite; close(): Promise<void> }> {
  const [from, to] = [await pair.from.open(), await pair.to.open()];
  return { from, to, close: async () => void (await Promise.all([from.close(), to.close()])) };
}

/** What a vault holds of the cluster's WAL, by name: content, and nothing that differs between two vaults. */
export async function holdings(cluster: Cluster): Promise<Record<string, string>> {
  const held: Record<string, string> = {};
  for (const prefix of ['wal#', 'history#', 'tail#', 'gap#']) {
    for await (const row of cluster.vault.manifest.query({
      pk: cluster.partition,
      from: prefix,
      to: after(prefix),
    }))
      held[row.sk] = String(row['sha256'] ?? row['text'] ?? row['to']);
  }
  return held;
}

/**
 * What must hold of any vault at any moment: rows of a timeline lie one behind the other up to head, and each object is right.
 *
 * @param read  keys of objects that were read before, and those that are read now: an object is written once
 */
export async function expectSound(cluster: Cluster, read = new Set<string>()): Promise<void> {
  const byTimeline = new Map<string, number[]>();
  for (const name of (await names(cluster)).filter((each) => each.length === 24)) {
    const row = (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow;
    if (!read.has(row.key)) await fetchFile(cluster, row);
    read.add(row.key);
    const list = byTimeline.get(name.slice(0, 8)) ?? [];
    byTimeline.set(name.slice(0, 8), [...list, Number.parseInt(name.slice(16), 16)]);
  }
  const now = await readHead(cluster);
  const gaps = await readGaps(cluster, now);
  for (const gap of gaps)
    for (const name of segmentsOf(gap, cluster.segmentSize)) {
      const list = byTimeline.get(name.slice(0, 8)) ?? [];
      byTimeline.set(name.slice(0, 8), [...list, Number.parseInt(name.slice(16), 16)]);
    }
  for (const numbers of byTimeline.values())
    numbers
      .sort((one, other) => one - other)
      .forEach((each, index) => expect(each).toBe(numbers[0]! + index));
  const head = await readHead(cluster);
  if (head.timeline > 1)
    expect(await cluster.vault.manifest.get(keys.history(cluster.partition, head.timeline))).toBeDefined();
}
