/** What each function is given, what wakes it and how often, and that each side of a queue, a rule and a topic lets the other one in. */
import path from 'node:path';
import { loadSettings } from '../../core/settings/read.ts';
import { envOf, rowOf, settingsOf } from '../../core/settings/settings.ts';
import { WATCH_EVERY_MS, WATCH_MS } from '../../core/cluster/decide-watch.ts';
import { FUNCTION_NAMES, type FunctionName } from '../../core/settings/environment.ts';
import { parseVaultUrl } from '../../core/vault/vault-url.ts';
import { listOf, statementsOf, type Policy, type Statement } from '../harness/iam.ts';
import { ACCOUNT, synthesise, type DeployedTemplate } from '../harness/template.ts';

const alone = synthesise('regions.primary = "eu-west-1"').primary;
const pair = synthesise(`
  prefix = "prod"
  [regions]
  primary = "eu-west-1"
  dr = "eu-central-1"
  [retention]
  keep_backups = 4
  keep_days = 2
  pitr_window = "14d"
  node_lease = "3d"
  relay_lease = "10d"
  [notify]
  email = "dba@example.com"
  webhook = "https://chat.example.com/hooks/x"
  lag_limit = "1h"
  archive_limit = "30m"
  silence_limit = "10m"
  [witness]
  auto_failover = "on"
  max_lag = "1m"
  cool_down = "6h"
  witness_interval = "5s"
  dr_failover = "on"`);
const every: [string, DeployedTemplate, DeployedTemplate | undefined][] = [
  ['one region alone', alone, undefined],
  ['the primary region of two', pair.primary, pair.dr],
  ['the DR region', pair.dr!, pair.primary],
];
const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

describe.each(every)('%s', (_name, own, other) => {
  const names: FunctionName[] =
    other === undefined ? ['retention', 'notify', 'witness'] : ['retention', 'notify', 'witness', 'relay'];
  const settingsFor = (name: FunctionName) => {
    const { Variables } = functionOf(own, name)['Environment'] as { Variables: Record<string, string> };
    return { settings: loadSettings({ flags: {}, env: Variables }), variables: Object.keys(Variables) };
  };

  test.each(names)('%s finds in its environment what it needs, and nothing that it does not know', (name) => {
    const { settings, variables } = settingsFor(name);
    const known = settingsOf(`${name} function`);
    for (const variable of variables) expect(known.map(envOf)).toContain(variable);
    for (const setting of known.filter((each) => rowOf(each).default === undefined))
      expect([setting, settings.origin(setting)]).toEqual([setting, 'environment']);
    expect(parseVaultUrl(settings.need('vault'))).toMatchObject({
      kind: 's3',
      ...{ bucket: `walvault-${ACCOUNT}-${own.region}`, table: 'walvault', region: own.region },
      prefix: other === undefined ? '' : 'prod',
    });
  });

  test('retention keeps what the configuration says', () => {
    const { keepBackups, keepDays, pitrWindow, nodeLease, relayLease } = settingsFor('retention').settings;
    const defaults = loadSettings({ flags: {}, env: {} });
    expect({ keepBackups, keepDays, pitrWindow, nodeLease, relayLease }).toEqual(
      other === undefined
        ? {
            ...{ keepBackups: defaults.keepBackups, keepDays: defaults.keepDays },
            ...{ pitrWindow: defaults.pitrWindow, nodeLease: defaults.nodeLease },
            relayLease: defaults.relayLease,
          }
        : { keepBackups: 4, keepDays: 2, pitrWindow: 14 * DAY, nodeLease: 3 * DAY, relayLease: 10 * DAY },
    );
  });

  test('notify tells where, and from when on, the configuration says', () => {
    const { settings } = settingsFor('notify');
    expect(settings.noticeTopics).toEqual(
      [own, ...(other === undefined ? [] : [other])].map(({ outputs }) => outputs['NoticesTopic']),
    );
    const { webhook, lagLimit, archiveLimit, silenceLimit } = settings;
    if (other === undefined) expect(webhook).toBe('none');
    else
      expect({ webhook, lagLimit, archiveLimit, silenceLimit }).toEqual({
        webhook: 'https://chat.example.com/hooks/x',
        ...{ lagLimit: 60 * MINUTE, archiveLimit: 30 * MINUTE, silenceLimit: 10 * MINUTE },
      });
  });

  test('the witness triggers where the configuration says so, and else it warns', () => {
    const { autoFailover, maxLag, coolDown, witnessInterval, drFailover } = settingsFor('witness').settings;
    const defaults = loadSettings({ flags: {}, env: {} });
    expect({ autoFailover, maxLag, coolDown, witnessInterval, drFailover }).toEqual(
      other === undefined
        ? {
            ...{ autoFailover: false, maxLag: defaults.maxLag, coolDown: defaults.coolDown },
            ...{ witnessInterval: defaults.witnessInterval, drFailover: false },
          }
        : {
            ...{ autoFailover: true, maxLag: MINUTE, coolDown: 360 * MINUTE },
            ...{ witnessInterval: 5000, drFailover: true },
          },
    );
  });

  test('a watch overlaps the next one by nearly a minute, and has time left for the trigger that it ends with', () => {
    const seconds = Number(functionOf(own, 'witness')['Timeout']);
    expect(WATCH_MS).toBeGreaterThan(WATCH_EVERY_MS + 45_000);
    // fencing a replica that does not answer takes 15 s
    expect(seconds * 1000 - WATCH_MS).toBeGreaterThanOrEqual(30_000);
    const rule = own.one('AWS::Events::Rule', { Name: 'walvault-watch' }).Properties;
    expect(rule['ScheduleExpression']).toBe(`rate(${WATCH_EVERY_MS / MINUTE} minute)`);
  });

  test('a function has Lambda’s longest time for its work, a look two minutes', () => {
    expect(Object.fromEntries(names.map((name) => [name, functionOf(own, name)['Timeout']]))).toEqual({
      ...{ retention: 900, notify: 120, witness: 150 },
      ...(other === undefined ? {} : { relay: 900 }),
    });
  });

  test('a look or a watch that failed is not made up for, and every other call is tried again', () => {
    const configs = own
      .ofType('AWS::Lambda::EventInvokeConfig')
      .map(({ Properties }) =>
        ['FunctionName', 'MaximumRetryAttempts', 'MaximumEventAgeInSeconds'].map((name) => Properties[name]),
      );
    expect(configs).toEqual([
      ['walvault-notify', 0, 300],
      ['walvault-witness', 0, 60],
    ]);
  });

  test('the stream wakes notify for events, and for nothing else', () => {
    const [source] = own
      .ofType('AWS::Lambda::EventSourceMapping')
      .filter(({ Properties }) => Properties['FunctionName'] === 'walvault-notify');
    const { Filters } = source!.Properties['FilterCriteria'] as { Filters: { Pattern: string }[] };
    expect(Filters.map(({ Pattern }) => JSON.parse(Pattern) as unknown)).toEqual([
      { eventName: ['INSERT'], dynamodb: { Keys: { sk: { S: [{ prefix: 'event#' }] } } } },
    ]);
    expect(source!.Properties['DestinationConfig']).toEqual({
      OnFailure: { Destination: queueArn(own, 'walvault-notify-dead') },
    });
  });

  test.each(names)('%s may read what wakes it, lay aside what it gave up, and write its log', (name) => {
    const may = (action: string, resource: string) =>
      own.may(`walvault-${own.region}-${name}`, { action, resource, context: {} });
    const sources = own
      .ofType('AWS::Lambda::EventSourceMapping')
      .map(({ Properties }) => Properties)
      .filter(({ FunctionName }) => FunctionName === `walvault-${name}`);
    for (const { EventSourceArn, DestinationConfig } of sources) {
      const from = String(EventSourceArn);
      const actions = from.includes(':sqs:')
        ? ['sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes']
        : ['DescribeStream', 'GetRecords', 'GetShardIterator'].map((action) => `dynamodb:${action}`);
      for (const action of actions) expect([action, may(action, from)]).toEqual([action, true]);
      if (!from.includes(':sqs:')) expect(may('dynamodb:ListStreams', '*')).toBe(true);
      const { OnFailure } = (DestinationConfig ?? {}) as { OnFailure?: { Destination: string } };
      if (OnFailure !== undefined) expect(may('sqs:SendMessage', OnFailure.Destination)).toBe(true);
    }
    const log = (of: string) =>
      `arn:aws:logs:${own.region}:${ACCOUNT}:log-group:/aws/lambda/walvault-${of}:log-stream:x`;
    expect(may('logs:PutLogEvents', log(name))).toBe(true);
    expect(may('logs:PutLogEvents', log('another'))).toBe(false);
    expect(may('logs:CreateLogGroup', log(name))).toBe(false);
  });

  test('each schedule calls its function with what it is for, and the function lets it', () => {
    const rules = own.ofType('AWS::Events::Rule').map(({ Properties }) => Properties);
    const called = rules.map(({ Name, State, Targets }) => {
      const [target, ...more] = Targets as { Arn: string; Input: string }[];
      expect([State, more]).toEqual(['ENABLED', []]);
      const permission = own.one('AWS::Lambda::Permission', {
        SourceArn: `arn:aws:events:${own.region}:${ACCOUNT}:rule/${String(Name)}`,
      }).Properties;
      expect(permission).toMatchObject({
        ...{ Action: 'lambda:InvokeFunction', Principal: 'events.amazonaws.com' },
        FunctionName: target!.Arn,
      });
      return [Name, target!.Arn.split(':function:')[1], JSON.parse(target!.Input)];
    });
    expect(called.sort()).toEqual(
      [
        ['walvault-look', 'walvault-notify', { look: true }],
        ['walvault-retention', 'walvault-retention', {}],
        ['walvault-watch', 'walvault-witness', {}],
        ...(other === undefined
          ? []
          : [
              ['walvault-pass', 'walvault-relay', { sweep: false }],
              ['walvault-sweep', 'walvault-relay', { sweep: true }],
            ]),
      ].sort(),
    );
    expect(own.ofType('AWS::Lambda::Permission').length).toBe(rules.length);
  });

  test('a queue keeps two weeks, and takes of EventBridge only what did not reach retention', () => {
    const open = own.ofType('AWS::SQS::Queue').map(({ Properties }) => {
      expect(Properties['MessageRetentionPeriod']).toBe(14 * 24 * 3600);
      const name = String(Properties['QueueName']);
      const allowed = policyOf(own, 'AWS::SQS::QueuePolicy', 'Queues', (place) =>
        place.endsWith(`/${name}`),
      ).filter(({ Effect }) => Effect === 'Allow');
      return [name, allowed] as const;
    });
    const [[name, statements] = ['', []], ...more] = open.filter(([, allowed]) => allowed.length > 0);
    expect([name, more]).toEqual(['walvault-retention-dead', []]);
    expect(statements).toEqual([
      expect.objectContaining({
        Principal: { Service: 'events.amazonaws.com' },
        Action: 'sqs:SendMessage',
        Condition: {
          ArnEquals: { 'aws:SourceArn': `arn:aws:events:${own.region}:${ACCOUNT}:rule/walvault-retention` },
        },
      }),
    ]);
  });

  test('topics take messages by TLS only, and one of people mails to the address that is given', () => {
    const topics = own.ofType('AWS::SNS::Topic').map(({ Properties }) => String(Properties['TopicName']));
    expect(topics.sort()).toEqual(['walvault-arrivals', 'walvault-notices']);
    for (const name of topics) {
      const arn = `arn:aws:sns:${own.region}:${ACCOUNT}:${name}`;
      expect(policyOf(own, 'AWS::SNS::TopicPolicy', 'Topics', (place) => place === arn)).toContainEqual(
        expect.objectContaining({
          ...{ Effect: 'Deny', Action: 'sns:Publish', Resource: arn },
          Condition: { Bool: { 'aws:SecureTransport': 'false' } },
        }),
      );
    }
    expect(own.ofType('AWS::SNS::Subscription').map(({ Properties }) => Properties)).toEqual(
      other === undefined
        ? []
        : [{ Protocol: 'email', Endpoint: 'dba@example.com', TopicArn: own.outputs['NoticesTopic'] }],
    );
  });
});

/** What is bundled is one file, which has to export what the template names. */
test.each(FUNCTION_NAMES)('%s has the handler that Lambda calls', async (name) => {
  const [, exported] = String(functionOf(pair.primary, name)['Handler']).split('.');
  const module = (await import(path.resolve(import.meta.dirname, `../../lambdas/${name}.ts`))) as Record<
    string,
    unknown
  >;
  expect(typeof module[exported!]).toBe('function');
});

const functionOf = (template: DeployedTemplate, name: FunctionName) =>
  template.one('AWS::Lambda::Function', { FunctionName: `walvault-${name}` }).Properties;
const queueArn = (template: DeployedTemplate, name: string): string =>
  `arn:aws:sqs:${template.region}:${ACCOUNT}:${name}`;
const policyOf = (
  template: DeployedTemplate,
  type: string,
  property: string,
  isOf: (place: string) => boolean,
): Statement[] =>
  statementsOf(
    template
      .ofType(type)
      .filter(({ Properties }) => listOf(Properties[property] as string[]).some(isOf))
      .map(({ Properties }) => Properties['PolicyDocument'] as Policy),
  );
