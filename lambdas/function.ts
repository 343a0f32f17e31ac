/**
 * What every function does alike: its settings come from its environment, its vaults stay open from one call to the next, its work ends
 * shortly before Lambda would end the process, and all clusters of the vault are worked for, whatever becomes of one of them.
 */
import { describeFailure } from '../core/errors.ts';
import { loadSettings, type Settings } from '../core/settings/read.ts';
import { keptEach } from '../core/vault/kept.ts';
import { openVault } from '../core/vault/open-vault.ts';
import type { Vault } from '../core/vault/vault.ts';
import { listClusters } from '../core/work/cluster-list.ts';
import { openCluster, type Cluster } from '../core/work/cluster.ts';

/** Of Lambda's context: all that is needed here. */
export type Call = { getRemainingTimeInMillis(): number };

/** Left for the answer, and for what cannot be broken off, ms. */
const MARGIN_MS = 8_000;

/** @throws VaultError usage  the stack gave a value that is none */
export function functionSettings(): Settings {
  return loadSettings({ flags: {}, env: process.env });
}

/** Opened at the first call and kept as long as the process lives. */
export const keptVault = keptEach((url: string, settings: Settings): Promise<Vault> =>
  openVault(url, { timeoutMs: settings.vaultTimeout }),
);

/** Aborted when so little time is left that the work should end in order: it is taken up again by the next call. */
export function untilDeadline(call: Call): AbortSignal {
  return AbortSignal.timeout(Math.max(1, Math.floor(call.getRemainingTimeInMillis() - MARGIN_MS)));
}

/** Aborted after `ms`, or at the deadline where that comes sooner. */
export function forAWhile(call: Call, ms: number): AbortSignal {
  return AbortSignal.any([AbortSignal.timeout(Math.ceil(ms)), untilDeadline(call)]);
}

/** The same for the next of `left` clusters: one that has much to do leaves the others their time. */
export function shareOf(call: Call, left: number): AbortSignal {
  const leftMs = Math.max(1, call.getRemainingTimeInMillis() - MARGIN_MS);
  return AbortSignal.timeout(Math.ceil(leftMs / left));
}

/** One line of the function's log: JSON, as CloudWatch Logs Insights reads it. */
export function log(fact: Record<string, unknown>): void {
  process.stdout.write(`${JSON.stringify(fact)}\n`);
}

/**
 * `work` for each cluster, one after the other; a failure of one does not keep the others from it.
 *
 * @param names  undefined: all that the vault holds
 * @returns what became of each; failures are logged
 */
export async function forEachCluster<T>(
  vault: Vault,
  names: readonly string[] | undefined,
  work: (cluster: Cluster) => Promise<T>,
): Promise<{ cluster: string; result?: T; error?: unknown }[]> {
  const ends: { cluster: string; result?: T; error?: unknown }[] = [];
  for (const name of names ?? (await listClusters(vault))) {
    try {
      ends.push({ cluster: name, result: await work(await openCluster(vault, name)) });
    } catch (error) {
      log({ level: 'error', cluster: name, failure: describeFailure(error).text });
      ends.push({ cluster: name, error });
    }
  }
  return ends;
}

/** The same for all clusters side by side: for work that lasts as long as the call. */
export async function withEachCluster<T>(
  vault: Vault,
  names: readonly string[] | undefined,
  work: (cluster: Cluster) => Promise<T>,
): Promise<{ cluster: string; result?: T; error?: unknown }[]> {
  const all = names ?? (await listClusters(vault));
  return (await Promise.all(all.map((name) => forEachCluster(vault, [name], work)))).flat();
}

/** @throws Error  naming the clusters whose work failed, so that Lambda counts an error and tries again */
export function throwFailures(what: string, ends: readonly { cluster: string; error?: unknown }[]): void {
  const failed = ends.filter(({ error }) => error !== undefined);
  if (failed.length === 0) return;
  const words = failed.map(
    ({ cluster, error }) => `${cluster}: ${error instanceof Error ? error.message : String(error)}`,
  );
  throw new Error(`${what} failed for ${words.join('; ')}`, { cause: failed[0]!.error });
}
