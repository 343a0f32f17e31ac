/**
 * Retention, each day: for every cluster of the vault what `walvault retention` does, by the same decision. Called by a schedule; called
 * by a person with `{"cluster": "main", "dryRun": true}` it answers what it would do.
 */
import { parseVaultUrl } from '../core/vault/vault-url.ts';
import { runRetention, type RetentionReport } from '../core/work/retention.ts';
import {
  forEachCluster,
  functionSettings,
  keptVault,
  log,
  throwFailures,
  untilDeadline,
  type Call,
} from './function.ts';
import { putMetrics } from './metrics.ts';

export type RetentionCall = { cluster?: string; dryRun?: boolean };

/** @throws Error  where it failed for a cluster: the others are done */
export async function handler(event: RetentionCall, call: Call): Promise<Record<string, RetentionReport>> {
  const settings = functionSettings();
  const { keepBackups, keepDays, pitrWindow, nodeLease, relayLease } = settings;
  const policy = {
    ...{ keepBackups, keepDays, pitrWindowMs: pitrWindow },
    ...{ nodeLeaseMs: nodeLease, relayLeaseMs: relayLease },
  };
  const vault = await keptVault(settings.need('vault'), settings);
  const { dryRun = false } = event;
  const signal = untilDeadline(call);
  const names = event.cluster === undefined ? undefined : [event.cluster];
  const ends = await forEachCluster(vault, names, async (cluster) => {
    const report = await runRetention(cluster, policy, { dryRun, signal });
    const { cut, why, wal, tails, orphans } = report;
    log({ level: 'info', cluster: cluster.name, dryRun, cut, why, wal, tails, orphans });
    return report;
  });
  // a vault that holds nothing yet has been looked after, too: its alarm must not ring for ever
  const done =
    ends.length === 0
      ? [null]
      : ends.filter(({ result }) => result !== undefined).map(({ cluster }) => cluster);
  const place = parseVaultUrl(vault.url);
  if (!dryRun && place.kind === 's3')
    await putMetrics(
      place.table,
      done.map((cluster) => ({ metric: 'retentionDone', cluster, value: 1 })),
    );
  throwFailures('retention', ends);
  return Object.fromEntries(ends.map(({ cluster, result }) => [cluster, result!]));
}
