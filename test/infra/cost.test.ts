/** What core/cost reckons with is what infra/ deploys: numbers of both sides, compared. */
import * as deployed from '../../core/cost/deployment.ts';
import { WATCH_MS } from '../../core/cluster/decide-watch.ts';
import { METRICS } from '../../core/cluster/metrics.ts';
import { SETTINGS } from '../../core/settings/settings.ts';
import { metricData } from '../../lambdas/metrics.ts';
import { synthesise, type DeployedTemplate } from '../harness/template.ts';

const alone = synthesise('[regions]\nprimary = "eu-west-1"').primary;
const pair = synthesise('[regions]\nprimary = "eu-west-1"\ndr = "eu-central-1"');
const each: [string, DeployedTemplate, number][] = [
  ['one region alone', alone, deployed.ALARMS.always],
  ['the primary region of two', pair.primary, deployed.ALARMS.always + deployed.ALARMS.relay],
  ['the DR region', pair.dr!, deployed.ALARMS.always + deployed.ALARMS.relay],
];

test.each(each)(
  '%s: as many alarms as are reckoned, by the metrics they look at',
  (_region, template, reckoned) => {
    const metrics = template.ofType('AWS::CloudWatch::Alarm').flatMap(({ Properties }) => {
      const several = Properties['Metrics'] as { MetricStat?: object }[] | undefined;
      return several?.filter(({ MetricStat }) => MetricStat !== undefined) ?? [Properties['MetricName']];
    });
    expect(metrics.length).toBe(reckoned);
  },
);

test.each(each)('%s: no alarm, and no dashboard, of another kind than is reckoned', (_region, template) => {
  for (const { Properties } of template.ofType('AWS::CloudWatch::Alarm')) {
    const periods = [
      Properties['Period'],
      ...((Properties['Metrics'] as { MetricStat?: { Period: number } }[] | undefined) ?? []).map(
        ({ MetricStat }) => MetricStat?.Period,
      ),
    ].filter((period) => period !== undefined);
    // below a minute one is of high resolution, at three times the price
    for (const period of periods) expect(Number(period)).toBeGreaterThanOrEqual(60);
    expect(periods.length).toBeGreaterThan(0);
  }
  expect(template.ofType('AWS::CloudWatch::CompositeAlarm')).toEqual([]);
  expect(template.ofType('AWS::CloudWatch::Dashboard').length).toBe(deployed.DASHBOARDS);
});

test.each(each)('%s: functions of the memory that is reckoned', (_region, template) => {
  const functions = template.ofType('AWS::Lambda::Function').map(({ Properties }) => Properties);
  expect(functions.length).toBe(template === alone ? 3 : 4);
  for (const { FunctionName, MemorySize } of functions) {
    const name = String(FunctionName).replace('walvault-', '') as keyof typeof deployed.FUNCTIONS;
    expect([name, Number(MemorySize) / 1024]).toEqual([name, deployed.FUNCTIONS[name].memoryGb]);
  }
});

test.each(each)('%s: functions called as often as is reckoned', (_region, template) => {
  const schedules = template
    .ofType('AWS::Events::Rule')
    .map(({ Properties }) => [Properties['Name'], msOf(String(Properties['ScheduleExpression']))] as const);
  expect(Object.fromEntries(schedules)).toEqual({
    'walvault-look': deployed.LOOK_EVERY_MS,
    'walvault-watch': deployed.WATCH.everyMs,
    'walvault-retention': deployed.RETENTION_EVERY_MS,
    ...(template === alone
      ? {}
      : {
          'walvault-pass': deployed.RELAY_PASS_EVERY_MS,
          'walvault-sweep': deployed.RELAY_SWEEP_EVERY_MS,
        }),
  });
});

test('a watch lasts as long as is reckoned', () => {
  expect(deployed.WATCH.seconds * 1000).toBe(WATCH_MS);
  expect(deployed.WATCH.lookMs).toBe(SETTINGS.witnessInterval.kind.parse(SETTINGS.witnessInterval.default));
});

test('the stream waits as long to fill a batch as is reckoned', () => {
  const source = pair.primary.one('AWS::Lambda::EventSourceMapping', {
    FunctionName: 'walvault-relay',
    StartingPosition: 'TRIM_HORIZON',
  });
  expect(Number(source.Properties['MaximumBatchingWindowInSeconds']) * 1000).toBe(deployed.RELAY_WINDOW_MS);
});

test('logs are kept as long as is reckoned', () => {
  for (const { Properties } of pair.primary.ofType('AWS::Logs::LogGroup'))
    expect(Number(Properties['RetentionInDays'])).toBe(deployed.LOG_MONTHS * 30);
});

test('as many figures are put as are reckoned: each for the cluster and for the vault', () => {
  const { always, relay, each: times } = deployed.METRICS;
  const names = Object.keys(METRICS) as (keyof typeof METRICS)[];
  expect(names.length).toBe(always + relay);
  for (const metric of names)
    expect(metricData('walvault', [{ metric, cluster: 'main', value: 1 }], new Date(0)).length).toBe(times);
});

/** Of `rate(5 minutes)`, ms. */
function msOf(schedule: string): number {
  const [, count, unit] = /^rate\((\d+) (minute|hour|day)s?\)$/.exec(schedule) ?? [];
  return Number(count) * { minute: 60_000, hour: 3600_000, day: 24 * 3600_000 }[unit as 'minute']!;
}
