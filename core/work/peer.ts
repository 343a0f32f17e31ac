/**
 * The vault that is active so far, seen from a replica that shall take its place: does it answer, what does it hold that is not here,
 * and, where it is silent, what is known of it. Looked at before anybody is asked; what counts is what takeOver finds.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { keys, type Control, type RelayRow, type VaultRef } from '../cluster/facts.ts';
import { VaultError } from '../errors.ts';
import { withLimit } from '../vault/time-limit.ts';
import { readControl, type Cluster } from './cluster.ts';
import { planRelay, type RelayPlan } from './relay-plan.ts';

export type PeerLook =
  /** `plan`: what is still to be carried; undefined where a takeover that was broken off has fenced it before. */
  | { answers: true; url: string; control: Control; plan: RelayPlan | undefined }
  | { answers: false; why: string };

/** These are answers of the vault, or mistakes of the caller: trying again finds the same. */
const SAID = ['usage', 'refused', 'format', 'conflict', 'corrupt', 'busy'];

/**
 * @param open  opens the other vault @param limitMs  how long it is tried
 * @throws VaultError usage | refused | conflict …  it answers, and there is no way from it to the replica
 */
export async function lookAtPeer(
  replica: Cluster,
  open: () => Promise<Cluster>,
  limitMs: number,
): Promise<PeerLook> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    try {
      const leftMs = Math.max(1000, deadline - performance.now());
      return await withLimit(leftMs, 'a look at the vault that is active so far', async () => {
        const peer = await open();
        const control = await readControl(peer);
        return { answers: true, url: peer.vault.url, control, plan: await planOf(peer, replica) };
      });
    } catch (error) {
      if (!(error instanceof VaultError) || SAID.includes(error.code)) throw error;
      if (performance.now() > deadline) return { answers: false, why: `[${error.code}] ${error.message}` };
    }
    await sleep(250);
  }
}

async function planOf(peer: Cluster, replica: Cluster): Promise<RelayPlan | undefined> {
  try {
    return await planRelay(peer, replica);
  } catch (error) {
    if (error instanceof VaultError && error.code === 'fenced') return undefined;
    throw error;
  }
}

/** The vault of this id, opened: at its URL another one may be by now, which says nothing of the one that is meant. */
export async function openKnown(ref: VaultRef, open: (url: string) => Promise<Cluster>): Promise<Cluster> {
  const cluster = await open(ref.url);
  const { vaultId } = await readControl(cluster);
  if (vaultId === ref.id) return cluster;
  throw new VaultError('unconfigured', `${ref.url} is another vault by now: ${vaultId}, not ${ref.id}`, {
    hint: `name the one that is meant with --peer URL.`,
  });
}

/** What the relay from there said last in this replica; undefined: no relay was ever heard of. */
export async function lastHeard(replica: Cluster, source: VaultRef): Promise<RelayRow | undefined> {
  const row = await replica.vault.manifest.get(keys.relay(replica.partition, source.id));
  return row as unknown as RelayRow | undefined;
}
