/**
 * The witness, each minute for nearly two: for every cluster of the vault what `walvault witness` does, by the same loop. Called by a
 * schedule; by a person with `{"cluster": "main", "seconds": 20}`.
 *
 * Nothing is remembered from one call to the next (core/cluster/decide-watch.ts says why), and two calls at once are as good as one: of two
 * triggers one finds that the other was faster.
 */
import { keys, type NodeRow } from '../core/cluster/facts.ts';
import { decideWatch, WATCH_MS } from '../core/cluster/decide-watch.ts';
import type { WitnessDecision } from '../core/cluster/decide-witness.ts';
import { leaseOf } from '../core/cluster/lease.ts';
import { VaultError } from '../core/errors.ts';
import type { Settings } from '../core/settings/read.ts';
import { parseVaultUrl } from '../core/vault/vault-url.ts';
import { openCluster, readControl, type Cluster } from '../core/work/cluster.ts';
import { runWitness, type WitnessSeen } from '../core/work/witness.ts';
import {
  forAWhile,
  functionSettings,
  keptVault,
  log,
  throwFailures,
  withEachCluster,
  type Call,
} from './function.ts';
import { putMetrics, type Figure } from './metrics.ts';

export type WitnessCall = { cluster?: string; seconds?: number };

/** What it saw last, and whether it heard nothing of the primary at any time. */
export type Watched = WitnessDecision & { silentMs: number; wasSilent: boolean };

/** @throws Error  where a cluster could not be watched: the others were */
export async function handler(event: WitnessCall, call: Call): Promise<Record<string, Watched>> {
  const settings = functionSettings();
  const vault = await keptVault(settings.need('vault'), settings);
  const signal = forAWhile(call, watchMs(event));
  const place = parseVaultUrl(vault.url);
  const tell = async (figures: Figure[]) => {
    if (place.kind === 's3') await putMetrics(place.table, figures);
  };
  const names = event.cluster === undefined ? undefined : [event.cluster];
  const ends = await withEachCluster(vault, names, async (cluster) => {
    await sayLongLease(cluster);
    // people are not to wait for the end of the watch
    let rung: Promise<void> | undefined;
    const watched = await watch(cluster, settings, signal, () => {
      rung ??= tell([{ metric: 'primarySilent', cluster: cluster.name, value: 1 }]).catch(
        logTrouble(cluster),
      );
    });
    await rung;
    return watched;
  });
  const done = ends.filter(({ result }) => result !== undefined);
  await tell([
    ...done.map(({ cluster, result }): Figure => ({
      ...{ metric: 'primarySilent', cluster, value: result!.wasSilent ? 1 : 0 },
    })),
    // a vault that holds nothing yet is watched, too: its alarm must not ring for ever
    ...(ends.length === 0 ? [null] : done.map(({ cluster }) => cluster)).map((cluster): Figure => ({
      ...{ metric: 'witnessDone', cluster, value: 1 },
    })),
  ]);
  throwFailures('the watch', ends);
  return Object.fromEntries(ends.map(({ cluster, result }) => [cluster, result!]));
}

/** @throws VaultError usage */
function watchMs({ seconds }: WitnessCall): number {
  if (seconds === undefined) return WATCH_MS;
  if (typeof seconds === 'number' && seconds > 0 && seconds * 1000 <= WATCH_MS) return seconds * 1000;
  throw new VaultError(
    'usage',
    `'seconds' is no number up to ${WATCH_MS / 1000}: ${JSON.stringify(seconds)}`,
    {
      hint: `{"cluster": "main", "seconds": 20}`,
    },
  );
}

/** @throws VaultError unreachable  it never saw the table well enough to decide anything */
async function watch(
  cluster: Cluster,
  settings: Settings,
  signal: AbortSignal,
  onSilence: () => void,
): Promise<Watched> {
  const { autoFailover, maxLag: maxLagMs, coolDown: coolDownMs, drFailover, witnessInterval } = settings;
  const trouble = logTrouble(cluster);
  let last: Watched | undefined;
  let isSeen = false;
  await runWitness(cluster, {
    policy: { autoFailover, maxLagMs, coolDownMs },
    ...{ drFailover, everyMs: witnessInterval, by: 'function', dryRun: false, signal },
    open: async (url) => openCluster(await keptVault(url, settings), cluster.name),
    onDecision: (seen) => {
      const { decision, silentMs, isNew } = seen;
      const wasSilent = isSilence(seen) || last?.wasSilent === true;
      if (isSilence(seen)) onSilence();
      isSeen ||= decision.state !== 'blind';
      last = { ...decision, silentMs: Math.round(silentMs), wasSilent };
      if (isNew) log({ level: 'info', cluster: cluster.name, ...decision, silentMs: last.silentMs });
    },
    onTrouble: trouble,
  });
  if (last !== undefined && isSeen) return last;
  throw new VaultError('unreachable', last?.why ?? `${cluster.vault.url} was not seen once`);
}

const isSilence = ({ decision: { do: does, state } }: WitnessSeen): boolean =>
  does !== 'nothing' && (state === 'silent' || state === 'no lease');

/** The same trouble once, until another comes. */
function logTrouble({ name }: Cluster): (error: unknown) => void {
  let said = '';
  return (error) => {
    const { message } = error as Error;
    if (said === message) return;
    said = message;
    // 'refused': something came between what was seen and the trigger, and that is what it is asked for
    const level = error instanceof VaultError && error.code === 'refused' ? 'info' : 'error';
    log({ level, cluster: name, trouble: message });
  };
}

/** Once for each watch of a cluster whose lease is longer than it can see. */
async function sayLongLease(cluster: Cluster): Promise<void> {
  const control = await readControl(cluster);
  const key = keys.node(cluster.partition, control.primary ?? '');
  const lease = leaseOf(control, (await cluster.vault.manifest.get(key)) as NodeRow | undefined);
  const verdict = lease && decideWatch(lease.ms);
  if (lease === undefined || verdict === undefined) return;
  const what = {
    late: 'a failover without a person may come up to a minute late',
    never: 'it warns, and never triggers',
  }[verdict];
  log({
    ...{ level: 'error', cluster: cluster.name, leaseMs: lease.ms },
    trouble: `the lease of ${control.primary} is too long for a watch of ${WATCH_MS / 1000} s: ${what}; run 'walvault witness' as a process for this cluster`,
  });
}
