/**
 * The figures that the alarms of infra/alarms.ts look at, in CloudWatch's namespace `walvault`. Each is put twice: for its cluster, for the
 * dashboard; and for the vault, the worst of all clusters, for the alarm, which then needs to know no cluster's name.
 *
 * Source: Amazon CloudWatch API Reference, PutMetricData: 1000 figures a request.
 */
import { CloudWatchClient, PutMetricDataCommand, type MetricDatum } from '@aws-sdk/client-cloudwatch';
import { METRICS, NAMESPACE, type MetricName } from '../core/cluster/metrics.ts';

/** cluster null: of the vault, which holds none yet. */
export type Figure = { metric: MetricName; cluster: string | null; value: number };

let client: CloudWatchClient | undefined;

/** @param vault  its name in alarms and dashboard: its table */
export function metricData(vault: string, figures: readonly Figure[], at: Date): MetricDatum[] {
  const worst = new Map<MetricName, number>();
  const single = figures.flatMap(({ metric, cluster, value }): MetricDatum[] => {
    worst.set(metric, Math.max(worst.get(metric) ?? 0, value));
    return cluster === null ? [] : [datum(metric, value, at, { Vault: vault, Cluster: cluster })];
  });
  return [...single, ...[...worst].map(([metric, value]) => datum(metric, value, at, { Vault: vault }))];
}

function datum(metric: MetricName, value: number, at: Date, dimensions: Record<string, string>): MetricDatum {
  const { name, unit } = METRICS[metric];
  return {
    ...{ MetricName: name, Unit: unit, Value: value, Timestamp: at },
    Dimensions: Object.entries(dimensions).map(([Name, Value]) => ({ Name, Value })),
  };
}

export async function putMetrics(vault: string, figures: readonly Figure[], at = new Date()): Promise<void> {
  client ??= new CloudWatchClient({});
  const data = metricData(vault, figures, at);
  for (let from = 0; from < data.length; from += 500)
    await client.send(
      new PutMetricDataCommand({ Namespace: NAMESPACE, MetricData: data.slice(from, from + 500) }),
    );
}
