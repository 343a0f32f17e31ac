/**
 * Relay: carries what this region's vault takes into that of the other region, by the very pass of `walvault relay`, and tells that
 * region's topic what has arrived. Called by the manifest's stream within a second; by the queue of batches that failed for good; by a
 * schedule each few minutes, and once a day with a comparison of every row; by a person with `{"sweep": true, "cluster": "main"}`.
 *
 * Both regions have it: the one whose vault is active carries, the other one's does nothing.
 */
import { VaultError } from '../core/errors.ts';
import { keys } from '../core/cluster/facts.ts';
import { listClusters } from '../core/work/cluster-list.ts';
import { carryCluster, type Carried } from '../core/work/carry-cluster.ts';
import { reachReplica } from '../core/work/relay.ts';
import type { SQSBatchResponse } from 'aws-lambda';
import type { Vault } from '../core/vault/vault.ts';
import {
  forEachCluster,
  functionSettings,
  keptVault,
  log,
  shareOf,
  throwFailures,
  type Call,
} from './function.ts';
import { wantedBy, type RelayCall, type Wanted } from './relay-call.ts';
import { publishJson } from './topics.ts';

/**
 * @returns to stream and queue: what has to come again, a cluster that is unfinished too, since perhaps nothing else would call; to a
 *          schedule or a person: what became of each cluster (an unfinished one goes on at the next call)
 * @throws Error  by a schedule or a person: where it failed for a cluster, the others are done
 */
export async function handler(
  event: RelayCall,
  call: Call,
): Promise<SQSBatchResponse | Record<string, Carried>> {
  const settings = functionSettings();
  const topics = settings.need('arrivalsTopic');
  const wanted = wantedBy(event);
  const [from, to] = await Promise.all(
    [settings.need('vault'), settings.need('relayTo')].map((url) => keptVault(url, settings)),
  );
  const names = await namesOf(from!, wanted);
  const other = async (): Promise<Vault> => to!;
  const ends = await forEachCluster(from!, names, async (cluster) => {
    const carried = await carryCluster(
      cluster,
      () => reachReplica(cluster, to!.url, { open: other, make: other }),
      {
        sweep: wanted.sweep,
        signal: shareOf(call, names.length - names.indexOf(cluster.name)),
        publish: (arrival) => publishJson(topics, arrival, { kind: arrival.kind, cluster: arrival.cluster }),
      },
    );
    log({ level: 'info', cluster: cluster.name, sweep: wanted.sweep, ...carried });
    return carried;
  });
  if (wanted.again !== undefined) {
    const failed = ends.filter(({ result }) => result === undefined || result.end === 'unfinished');
    return { batchItemFailures: wanted.again(new Set(failed.map(({ cluster }) => cluster))) };
  }
  throwFailures('the relay', ends);
  return Object.fromEntries(ends.map(({ cluster, result }) => [cluster, result!]));
}

async function namesOf(vault: Vault, { clusters, isHint }: Wanted): Promise<string[]> {
  if (clusters === undefined) return listClusters(vault);
  const there = await Promise.all(clusters.map((name) => vault.manifest.get(keys.control(name))));
  const missing = clusters.filter((_, index) => there[index] === undefined);
  if (!isHint && missing.length > 0)
    throw new VaultError('unconfigured', `no cluster ${missing[0]} in ${vault.url}`);
  return clusters.filter((name) => !missing.includes(name));
}
