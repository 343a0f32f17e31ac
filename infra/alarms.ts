/**
 * The alarms: one table, from which they are made. Each has a section of its own in docs/runbook/alarms.md, under its id, and its
 * description leads there.
 */
import { Duration } from 'aws-cdk-lib';
import { ComparisonOperator, Metric, Stats, TreatMissingData } from 'aws-cdk-lib/aws-cloudwatch';
import type { Function as LambdaFunction } from 'aws-cdk-lib/aws-lambda';
import type { Queue } from 'aws-cdk-lib/aws-sqs';
import { METRICS, NAMESPACE, type MetricName } from '../core/cluster/metrics.ts';

/** What an alarm may look at; relay and its queue only with a second region, the witness where it is deployed. */
export type Watched = {
  table: string;
  functions: Record<'retention' | 'notify', LambdaFunction> &
    Record<'relay' | 'witness', LambdaFunction | undefined>;
  dead: { retention: Queue; notify: Queue; relay: Queue | undefined };
  /** Seconds. */
  limits: { lag: number; archive: number };
};

export type AlarmRow = {
  id: string;
  /** One sentence: what is wrong when it rings. */
  says: string;
  /** undefined: not in this deployment. */
  metric(watched: Watched): Metric | undefined;
  threshold: number | ((watched: Watched) => number);
  /** How many periods of the metric in a row. */
  periods: number;
  /** below: rings where the figure is less than the threshold; else where it is at least as much. */
  below?: true;
  /** Whether no figures at all ring, too. */
  missing: 'rings' | 'is well';
};

/** Of the worst cluster of the vault. */
const own = (name: MetricName, table: string, statistic: string, period: Duration): Metric =>
  new Metric({
    ...{ namespace: NAMESPACE, metricName: METRICS[name].name, statistic, period },
    dimensionsMap: { Vault: table },
  });
const errors = (of: LambdaFunction | undefined, period = Duration.minutes(5)): Metric | undefined =>
  of?.metricErrors({ statistic: Stats.SUM, period });
const waiting = (queue: Queue | undefined): Metric | undefined =>
  queue?.metricApproximateNumberOfMessagesVisible({ statistic: Stats.MAXIMUM, period: Duration.minutes(5) });
/** Of the table as a whole: DynamoDB counts what it throttles so, and ThrottledRequests by operation only. */
export const THROTTLED = ['ReadThrottleEvents', 'WriteThrottleEvents'] as const;

/** DynamoDB counts errors of its own by operation only. */
const ofTable = (table: string, metricName: string, operation?: string): Metric =>
  new Metric({
    ...{ namespace: 'AWS/DynamoDB', metricName, statistic: Stats.SUM, period: Duration.minutes(5) },
    dimensionsMap: { TableName: table, ...(operation === undefined ? {} : { Operation: operation }) },
  });
const MINUTE = Duration.minutes(1);

export const ALARMS: readonly AlarmRow[] = [
  {
    id: 'archive-stalled',
    says: 'A finished segment waits on the primary and does not get into the vault.',
    metric: ({ table }) => own('archiveWait', table, Stats.MAXIMUM, MINUTE),
    ...{ threshold: ({ limits }) => limits.archive, periods: 2, missing: 'is well' },
  },
  {
    id: 'nodes-silent',
    says: 'A node has said nothing for longer than silence_limit.',
    metric: ({ table }) => own('silentNodes', table, Stats.MAXIMUM, MINUTE),
    ...{ threshold: 1, periods: 3, missing: 'is well' },
  },
  {
    id: 'relay-lag',
    says: 'The vault of the other region is further behind than lag_limit.',
    metric: ({ table, functions }) => functions.relay && own('relayLag', table, Stats.MAXIMUM, MINUTE),
    ...{ threshold: ({ limits }) => limits.lag, periods: 3, missing: 'is well' },
  },
  {
    id: 'relay-failed',
    says: 'The relay function fails again and again.',
    metric: ({ functions }) => errors(functions.relay),
    ...{ threshold: 1, periods: 3, missing: 'is well' },
  },
  {
    id: 'relay-late',
    says: 'The relay function does not keep up with the changes of the table.',
    metric: ({ functions }) =>
      functions.relay?.metric('IteratorAge', { statistic: Stats.MAXIMUM, period: Duration.minutes(5) }),
    ...{ threshold: 15 * 60_000, periods: 2, missing: 'is well' },
  },
  {
    id: 'relay-dead-letter',
    says: 'The relay function has given up some of its work; the sweep may have done it since.',
    metric: ({ dead }) => waiting(dead.relay),
    ...{ threshold: 1, periods: 1, missing: 'is well' },
  },
  {
    id: 'retention-failed',
    says: 'Retention has failed: nothing is lost by it, but nothing is deleted.',
    metric: ({ dead }) => waiting(dead.retention),
    ...{ threshold: 1, periods: 1, missing: 'is well' },
  },
  {
    id: 'retention-silent',
    says: 'Retention has not come to its end for any cluster for two days.',
    metric: ({ table }) => own('retentionDone', table, Stats.SUM, Duration.days(1)),
    ...{ threshold: 1, periods: 2, below: true, missing: 'rings' },
  },
  {
    id: 'notify-failed',
    says: 'The notify function fails again and again: what happens to a cluster may not be told.',
    metric: ({ functions }) => errors(functions.notify),
    ...{ threshold: 1, periods: 3, missing: 'is well' },
  },
  {
    id: 'notify-dead-letter',
    says: 'Something that happened to a cluster could not be told.',
    metric: ({ dead }) => waiting(dead.notify),
    ...{ threshold: 1, periods: 1, missing: 'is well' },
  },
  {
    id: 'look-silent',
    says: 'Nobody has looked at the clusters for a quarter of an hour: other alarms have no figures.',
    metric: ({ functions }) =>
      functions.notify.metricInvocations({ statistic: Stats.SUM, period: Duration.minutes(5) }),
    ...{ threshold: 1, periods: 3, below: true, missing: 'rings' },
  },
  {
    id: 'primary-silent',
    says: 'The witness hears nothing of the primary of a cluster, neither heartbeats nor WAL.',
    metric: ({ table, functions }) => functions.witness && own('primarySilent', table, Stats.MAXIMUM, MINUTE),
    ...{ threshold: 1, periods: 1, missing: 'is well' },
  },
  {
    id: 'witness-silent',
    says: 'No watch of the witness has come to its end for five minutes: nobody sees a primary that is silent.',
    metric: ({ table, functions }) =>
      functions.witness && own('witnessDone', table, Stats.SUM, Duration.minutes(5)),
    ...{ threshold: 1, periods: 1, below: true, missing: 'rings' },
  },
  {
    id: 'witness-failed',
    says: 'The witness function fails: at least one cluster is not watched.',
    metric: ({ functions }) => errors(functions.witness),
    ...{ threshold: 1, periods: 1, missing: 'is well' },
  },
  {
    id: 'table-throttled',
    says: 'DynamoDB throttles writes to the manifest: archiving is slower.',
    metric: ({ table }) => ofTable(table, 'WriteThrottleEvents'),
    ...{ threshold: 10, periods: 3, missing: 'is well' },
  },
  {
    id: 'table-reads-throttled',
    says: 'DynamoDB throttles reads of the manifest: following is slower.',
    metric: ({ table }) => ofTable(table, 'ReadThrottleEvents'),
    ...{ threshold: 10, periods: 3, missing: 'is well' },
  },
  {
    id: 'table-errors',
    says: 'DynamoDB answers writes to the manifest with errors of its own.',
    metric: ({ table }) => ofTable(table, 'SystemErrors', 'TransactWriteItems'),
    ...{ threshold: 10, periods: 3, missing: 'is well' },
  },
];

/** Where its section lies. */
export const linkOf = (id: string, runbookUrl: string): string =>
  `${runbookUrl === '' ? 'docs/runbook/' : runbookUrl.replace(/\/?$/, '/')}alarms.md#${id}`;

export const comparisonOf = ({ below }: AlarmRow): ComparisonOperator =>
  below === true
    ? ComparisonOperator.LESS_THAN_THRESHOLD
    : ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD;
export const missingOf = ({ missing }: AlarmRow): TreatMissingData =>
  missing === 'rings' ? TreatMissingData.BREACHING : TreatMissingData.NOT_BREACHING;
