/**
 * The vaults beside this one: those that its control row and its relays name, looked at where they can be reached within a few seconds.
 *
 * A vault is the one that is meant when it has the id that is known of it: a URL may name another one by now.
 */
import { keys, type Control, type VaultRef } from '../cluster/facts.ts';
import { VaultError } from '../errors.ts';
import { withLimit } from '../vault/time-limit.ts';
import type { Vault } from '../vault/vault.ts';
import { openCluster, readControl, readHead, type Cluster } from './cluster.ts';
import type { Status } from './status.ts';

export type OtherVault = SeenVault | { id: string; url: string; reachable: false; why: string };

export type SeenVault = {
  id: string;
  url: string;
  role: Control['role'];
  epoch: number;
  primary: string | null;
  timeline: number;
  lastSegment: string | null;
  reachable: true;
  /** How long open and two reads took, ms. */
  tookMs: number;
};

/** Every other vault that `status` names, each once: the vault it follows or is to follow first. */
export function namedVaults(
  status: Pick<Status, 'source' | 'supersedes' | 'supersededBy' | 'direct' | 'vault'> & {
    relays: readonly { vault: VaultRef }[];
  },
): VaultRef[] {
  const named = [
    status.source,
    status.supersedes,
    status.supersededBy,
    status.direct,
    ...status.relays.map((relay) => relay.vault),
  ].filter((ref) => ref !== null);
  const byId = new Map<string, VaultRef>();
  for (const { id, url } of named) if (id !== status.vault.id && !byId.has(id)) byId.set(id, { id, url });
  return [...byId.values()];
}

/**
 * Looks at each of them, all at once.
 *
 * @param open     opens a vault by its URL; whoever gave it closes it
 * @param limitMs  for one vault; one that does not answer costs this long and no more
 */
export async function lookAtOthers(
  cluster: string,
  vaults: readonly VaultRef[],
  open: (url: string) => Promise<Vault>,
  limitMs: number,
): Promise<OtherVault[]> {
  return Promise.all(vaults.map((ref) => lookAt(cluster, ref, open, limitMs)));
}

async function lookAt(
  name: string,
  { id, url }: VaultRef,
  open: (url: string) => Promise<Vault>,
  limitMs: number,
): Promise<OtherVault> {
  const startedMs = performance.now();
  try {
    return await withLimit(limitMs, `a look at ${url}`, async () => {
      const cluster: Cluster = await openCluster(await open(url), name);
      const [control, head] = await Promise.all([readControl(cluster), readHead(cluster)]);
      if (control.vaultId !== id) {
        const why = `another vault is there: ${control.vaultId}, not ${id}`;
        return { id, url, reachable: false, why };
      }
      return {
        ...{ id, url, role: control.role, epoch: control.epoch, primary: control.primary },
        ...{ timeline: head.timeline, lastSegment: head.lastFile, reachable: true },
        tookMs: Math.round(performance.now() - startedMs),
      };
    });
  } catch (error) {
    // whatever it is, it is said of that vault: the one that was asked for is shown all the same
    if (!(error instanceof VaultError)) throw error;
    return { id, url, reachable: false, why: error.message };
  }
}

/**
 * The first of these vaults in which `node` has said that it follows; those that do not answer are passed over.
 *
 * @returns undefined where none of them knows it, with the vaults that could not be asked
 */
export async function findFollowed(
  cluster: string,
  node: string,
  vaults: readonly VaultRef[],
  open: (url: string) => Promise<Vault>,
): Promise<{ followed: Cluster | undefined; silent: string[] }> {
  const silent: string[] = [];
  for (const { url } of vaults) {
    try {
      const other = await openCluster(await open(url), cluster);
      const row = await other.vault.manifest.get(keys.node(other.partition, node));
      if (row !== undefined) return { followed: other, silent };
    } catch (error) {
      if (!(error instanceof VaultError)) throw error;
      silent.push(`${url} ([${error.code}] ${error.message})`);
    }
  }
  return { followed: undefined, silent };
}
