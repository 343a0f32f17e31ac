/** Who watches a region: its alarms, made from the table in infra/alarms.ts, and its dashboard. */
import { Duration, type Stack } from 'aws-cdk-lib';
import { Alarm, Dashboard, GraphWidget, MathExpression, Metric } from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import type { Topic } from 'aws-cdk-lib/aws-sns';
import type { Queue } from 'aws-cdk-lib/aws-sqs';
import { METRICS, NAMESPACE } from '../core/cluster/metrics.ts';
import { parseSetting } from '../core/settings/read.ts';
import { SETTINGS } from '../core/settings/settings.ts';
import { ALARMS, comparisonOf, linkOf, missingOf, THROTTLED, type Watched } from './alarms.ts';
import type { Configuration } from './configuration.ts';

export function limitsOf({ notify }: Configuration): Watched['limits'] {
  const { lagLimit, archiveLimit } = notify;
  const seconds = (name: 'lagLimit' | 'archiveLimit', given: string | undefined): number =>
    Math.round((parseSetting(name, given ?? SETTINGS[name].default, name) as number) / 1000);
  return { lag: seconds('lagLimit', lagLimit), archive: seconds('archiveLimit', archiveLimit) };
}

export function makeAlarms(
  stack: Stack,
  { name, runbookUrl }: Configuration,
  notices: Topic,
  watched: Watched,
): void {
  for (const row of ALARMS) {
    const metric = row.metric(watched);
    if (metric === undefined) continue;
    const alarm = new Alarm(stack, `Alarm-${row.id}`, {
      alarmName: `${name}-${row.id}`,
      alarmDescription: `${row.says} What to do: ${linkOf(row.id, runbookUrl)}`,
      metric,
      threshold: typeof row.threshold === 'number' ? row.threshold : row.threshold(watched),
      evaluationPeriods: row.periods,
      comparisonOperator: comparisonOf(row),
      treatMissingData: missingOf(row),
    });
    alarm.addAlarmAction(new SnsAction(notices));
    alarm.addOkAction(new SnsAction(notices));
  }
}

export function makeDashboard(
  stack: Stack,
  { name }: Configuration,
  { table, functions }: Watched,
  queues: readonly (Queue | undefined)[],
): void {
  const perCluster = (metric: keyof typeof METRICS) =>
    new MathExpression({
      expression: `SEARCH('{${NAMESPACE},Vault,Cluster} Vault="${table}" MetricName="${METRICS[metric].name}"', 'Maximum', 60)`,
      label: '',
      usingMetrics: {},
    });
  const all = Object.values(functions).filter((each) => each !== undefined);
  const ofTable = ['ConsumedReadCapacityUnits', 'ConsumedWriteCapacityUnits', ...THROTTLED].map(
    (metricName) =>
      new Metric({
        ...{ namespace: 'AWS/DynamoDB', metricName, statistic: 'Sum', period: Duration.minutes(1) },
        dimensionsMap: { TableName: table },
      }),
  );
  new Dashboard(stack, 'Dashboard', {
    dashboardName: `${name}-${stack.region}`,
    widgets: [
      [
        new GraphWidget({
          title: 'Oldest segment that waits on the primary, s',
          left: [perCluster('archiveWait')],
          width: 8,
        }),
        ...(functions.relay === undefined
          ? []
          : [
              new GraphWidget({
                title: 'Other region behind, s',
                left: [perCluster('relayLag')],
                width: 8,
              }),
            ]),
      ],
      [
        new GraphWidget({ title: 'Silent nodes', left: [perCluster('silentNodes')], width: 8 }),
        ...(functions.witness === undefined
          ? []
          : [new GraphWidget({ title: 'Primary silent', left: [perCluster('primarySilent')], width: 8 })]),
      ],
      [
        new GraphWidget({
          title: 'Errors of functions',
          left: all.map((each) => each.metricErrors()),
          width: 8,
        }),
        new GraphWidget({
          title: 'Duration of functions, ms',
          left: all.map((each) => each.metricDuration()),
          width: 8,
        }),
        new GraphWidget({
          title: 'Messages in queues',
          left: queues.flatMap((each) => each?.metricApproximateNumberOfMessagesVisible() ?? []),
          width: 8,
        }),
      ],
      [new GraphWidget({ title: 'Table', left: ofTable, width: 24 })],
    ],
  });
}
