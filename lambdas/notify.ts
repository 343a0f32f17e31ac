/**
 * Notify: what happened to a cluster, as one readable message each, to the SNS topics of both regions and to a webhook. Called by the
 * stream of the vault's table for each event; and by a schedule each minute, or by a person, with `{"look": true}`: it puts the figures that
 * alarms look at, and tells of a replica that is behind, WAL that waits, and nodes that are silent.
 *
 * It writes nothing but #notices#: whom it told what, and what it saw last.
 */
import type { DynamoDBBatchResponse, DynamoDBStreamEvent } from 'aws-lambda';
import type { LookFigures } from '../core/cluster/decide-look.ts';
import type { MetricName } from '../core/cluster/metrics.ts';
import type { Settings } from '../core/settings/read.ts';
import { parseVaultUrl } from '../core/vault/vault-url.ts';
import type { Vault } from '../core/vault/vault.ts';
import { lookAt } from '../core/work/look.ts';
import { destinationsOf } from './destinations.ts';
import {
  forEachCluster,
  functionSettings,
  keptVault,
  log,
  throwFailures,
  untilDeadline,
  type Call,
} from './function.ts';
import { putMetrics, type Figure } from './metrics.ts';
import { tellEvents } from './tell-events.ts';

export type LookCall = { look: true; cluster?: string };

/** @throws Error  a look that failed for a cluster: the others were looked at */
export async function handler(
  event: DynamoDBStreamEvent | LookCall,
  call: Call,
): Promise<DynamoDBBatchResponse | Record<string, LookFigures>> {
  const settings = functionSettings();
  const vault = await keptVault(settings.need('vault'), settings);
  if (!('Records' in event)) return look(event, vault, settings);
  const destinations = destinationsOf(settings);
  return tellEvents(event, { vault, destinations, signal: untilDeadline(call) });
}

async function look(
  { cluster: only }: LookCall,
  vault: Vault,
  settings: Settings,
): Promise<Record<string, LookFigures>> {
  const { lagLimit: lagMs, archiveLimit: archiveMs, silenceLimit: silenceMs } = settings;
  const limits = { lagMs, archiveMs, silenceMs };
  const destinations = destinationsOf(settings);
  const seen: Record<string, LookFigures> = {};
  const ends = await forEachCluster(vault, only === undefined ? undefined : [only], async (cluster) => {
    const onFigures = (figures: LookFigures) => void (seen[cluster.name] = figures);
    const { notices } = await lookAt(cluster, { limits, destinations, now: new Date(), onFigures });
    for (const { kind, subject } of notices)
      log({ level: 'info', cluster: cluster.name, kind, told: subject });
  });
  const place = parseVaultUrl(vault.url);
  if (place.kind === 's3') await putMetrics(place.table, figuresOf(seen));
  throwFailures('a look', ends);
  return seen;
}

function figuresOf(seen: Record<string, LookFigures>): Figure[] {
  return Object.entries(seen).flatMap(([cluster, figures]) =>
    Object.entries(figures).map(([metric, value]) => ({ metric: metric as MetricName, cluster, value })),
  );
}
