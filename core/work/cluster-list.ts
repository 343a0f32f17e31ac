/**
 * Which clusters a vault holds: a partition of its own in the manifest, so that whoever works for all of them (retention, relay, notify,
 * `--all`) reads a few rows and never the table.
 */
import { CLUSTERS, keys, type ClusterEntry } from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import type { Vault } from '../vault/vault.ts';
import { asRow, type Cluster } from './cluster.ts';

/** Part of the transaction that makes a cluster, or a replica of one. */
export function entryChange({ name, systemIdentifier }: Cluster): Change {
  const entry: ClusterEntry = {
    ...keys.clusterEntry(name),
    rev: 1,
    systemIdentifier,
    at: new Date().toISOString(),
  };
  return { do: 'put', row: asRow(entry), when: 'any' };
}

/** For a cluster that was made before there was a list. */
export async function registerCluster(cluster: Cluster): Promise<void> {
  const { manifest } = cluster.vault;
  if ((await manifest.get(keys.clusterEntry(cluster.name))) === undefined)
    await manifest.transact([entryChange(cluster)]);
}

/** Names of the clusters of this vault, in byte order. @throws VaultError unreachable | denied | unconfigured */
export async function listClusters(vault: Vault): Promise<string[]> {
  const names: string[] = [];
  for await (const { sk } of vault.manifest.query({ pk: CLUSTERS })) names.push(sk);
  return names;
}
