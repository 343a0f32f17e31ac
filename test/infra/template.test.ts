/** What the stacks would make: from the templates, with references put in as an account would. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { buildProgram } from '../../bin/program.ts';
import { METRICS, NAMESPACE, type MetricName } from '../../core/cluster/metrics.ts';
import { createDynamoTable } from '../../core/vault/manifest-dynamodb.ts';
import { ALARMS } from '../../infra/alarms.ts';
import { ROLE_NAMES, type RoleName } from '../../infra/roles.ts';
import { metricData } from '../../lambdas/metrics.ts';
import { listOf, statementsOf, type Policy, type Request } from '../harness/iam.ts';
import { ACCOUNT, synthesise, type DeployedTemplate } from '../harness/template.ts';

const alone = synthesise('[regions]\nprimary = "eu-west-1"').primary;
const pair = synthesise('prefix = "prod"\n[regions]\nprimary = "eu-west-1"\ndr = "eu-central-1"');
const [west, central] = [pair.primary, pair.dr!];
const GIVEN_KEY = `arn:aws:kms:eu-west-1:${ACCOUNT}:key/11111111-2222-3333-4444-555555555555`;
const special = synthesise(`
  name = "acme"
  clusters = ["main", "crm"]
  noncurrent_days = 90
  runbook_url = "https://git.example.com/docs/runbook"
  regions.primary = "eu-west-1"
  retention.keep_backups = 4
  retention.schedule = "cron(30 3 * * ? *)"
  notify.email = "dba@example.com"
  notify.lag_limit = "1h"
  notify.archive_limit = "45m"
  object_lock.mode = "compliance"
  object_lock.days = 60
  kms.primary = "${GIVEN_KEY}"
  nodes.principals = ["arn:aws:iam::${ACCOUNT}:role/db-host"]`).primary;

const every: [string, DeployedTemplate][] = [
  ['one region alone', alone],
  ['the primary region of two', west],
  ['the DR region', central],
  ['one with everything said', special],
];
const both: [string, DeployedTemplate, DeployedTemplate][] = [
  ['from the primary region', west, central],
  ['from the DR region', central, west],
];
const arnOfRole = (name: string): string => `arn:aws:iam::${ACCOUNT}:role/${name}`;

describe.each(every)('%s', (_name, template) => {
  test('keeps bucket, table, key and its alias when the stack goes', () => {
    const kept = ['AWS::S3::Bucket', 'AWS::DynamoDB::Table', 'AWS::KMS::Key', 'AWS::KMS::Alias'];
    const found = kept.flatMap((type) => template.ofType(type));
    expect(found.length).toBe(template === special ? 2 : 4);
    for (const { Type, DeletionPolicy, UpdateReplacePolicy } of found)
      expect([Type, DeletionPolicy, UpdateReplacePolicy]).toEqual([Type, 'Retain', 'Retain']);
  });

  test('has a bucket that is versioned, encrypted by its key, closed to the public, and reached by TLS only', () => {
    const { Properties } = template.one('AWS::S3::Bucket');
    expect(Properties).toMatchObject({
      VersioningConfiguration: { Status: 'Enabled' },
      PublicAccessBlockConfiguration: {
        BlockPublicAcls: true,
        BlockPublicPolicy: true,
        IgnorePublicAcls: true,
        RestrictPublicBuckets: true,
      },
      OwnershipControls: { Rules: [{ ObjectOwnership: 'BucketOwnerEnforced' }] },
      BucketEncryption: {
        ServerSideEncryptionConfiguration: [
          {
            BucketKeyEnabled: true,
            ServerSideEncryptionByDefault: { SSEAlgorithm: 'aws:kms', KMSMasterKeyID: keyOf(template) },
          },
        ],
      },
    });
    expect(statementsOf([template.bucketPolicy])).toContainEqual(
      expect.objectContaining({
        Effect: 'Deny',
        Action: 's3:*',
        Condition: { Bool: { 'aws:SecureTransport': 'false' } },
      }),
    );
  });

  test('ends old versions, delete markers and uploads that were never finished', () => {
    const { Rules } = template.one('AWS::S3::Bucket').Properties['LifecycleConfiguration'] as {
      Rules: object[];
    };
    expect(Rules).toEqual([
      {
        Id: expect.any(String),
        Status: 'Enabled',
        NoncurrentVersionExpiration: { NoncurrentDays: template === special ? 90 : 30 },
        ExpiredObjectDeleteMarker: true,
        AbortIncompleteMultipartUpload: { DaysAfterInitiation: 7 },
      },
    ]);
  });

  test('has the table of walvault init --create-table, with recovery, protection and a stream besides', () => {
    expect(template.one('AWS::DynamoDB::Table').Properties).toMatchObject({
      KeySchema: [
        { AttributeName: 'pk', KeyType: 'HASH' },
        { AttributeName: 'sk', KeyType: 'RANGE' },
      ],
      AttributeDefinitions: [
        { AttributeName: 'pk', AttributeType: 'S' },
        { AttributeName: 'sk', AttributeType: 'S' },
      ],
      BillingMode: 'PAY_PER_REQUEST',
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
      DeletionProtectionEnabled: true,
      StreamSpecification: { StreamViewType: 'NEW_IMAGE' },
      TimeToLiveSpecification: { AttributeName: 'expiresAt', Enabled: true },
    });
  });

  test('runs each function on Node 24 and arm64, logs for three months, and lets nobody else do its work', () => {
    const functions = template.ofType('AWS::Lambda::Function');
    expect(functions.length).toBe([west, central].includes(template) ? 4 : 3);
    for (const { Properties } of functions) {
      expect(Properties).toMatchObject({
        Runtime: 'nodejs24.x',
        Architectures: ['arm64'],
        Handler: 'index.handler',
      });
      const name = String(Properties['FunctionName']);
      template.one('AWS::Logs::LogGroup', { LogGroupName: `/aws/lambda/${name}`, RetentionInDays: 90 });
      const role = template.one('AWS::IAM::Role', {
        RoleName: roleOf(template, name.split('-').at(-1) as RoleName),
      });
      expect(Properties['Role']).toBe(arnOfRole(String(role.Properties['RoleName'])));
    }
    // what a construct adds by itself would stand in a policy of its own
    expect(template.ofType('AWS::IAM::Policy')).toEqual([]);
  });

  test('reads the stream with partial failures, halving, few attempts, and a queue for what is given up', () => {
    const sources = template
      .ofType('AWS::Lambda::EventSourceMapping')
      .map(({ Properties }) => Properties)
      .filter((source) => String(source['EventSourceArn']).includes(':dynamodb:'));
    expect(sources.length).toBe([west, central].includes(template) ? 2 : 1);
    const isQueue = template
      .ofType('AWS::SQS::Queue')
      .map(({ Properties }) => queueArn(template, Properties['QueueName']));
    for (const source of sources) {
      expect(source).toMatchObject({
        FunctionResponseTypes: ['ReportBatchItemFailures'],
        BisectBatchOnFunctionError: true,
        MaximumRetryAttempts: 5,
        MaximumRecordAgeInSeconds: 6 * 3600,
        StartingPosition: 'TRIM_HORIZON',
      });
      const { OnFailure } = source['DestinationConfig'] as { OnFailure: { Destination: string } };
      expect(isQueue).toContain(OnFailure.Destination);
    }
  });

  test('lays a run of retention aside that failed or never reached its function', () => {
    const dead = queueArn(template, `${nameOf(template)}-retention-dead`);
    const retention = template.one('AWS::Lambda::Function', {
      FunctionName: `${nameOf(template)}-retention`,
    });
    expect(retention.Properties['DeadLetterConfig']).toEqual({ TargetArn: dead });
    const [target] = targetsOf(template, 'retention');
    expect(target).toMatchObject({ DeadLetterConfig: { Arn: dead }, RetryPolicy: expect.any(Object) });
    expect(template.may(roleOf(template, 'retention'), on(dead, 'sqs:SendMessage'))).toBe(true);
  });

  test('has alarms that tell the notices topic, say what they mean, and lead to their section', () => {
    const alarms = template.ofType('AWS::CloudWatch::Alarm').map(({ Properties }) => Properties);
    const isPair = [west, central].includes(template);
    const ids = ALARMS.map(({ id }) => id).filter((id) => isPair || !id.startsWith('relay-'));
    expect(alarms.map(({ AlarmName }) => AlarmName).sort()).toEqual(
      ids.map((id) => `${nameOf(template)}-${id}`).sort(),
    );
    const before = template === special ? 'https://git.example.com/docs/runbook/' : 'docs/runbook/';
    const topic = template.outputs['NoticesTopic'];
    for (const alarm of alarms) {
      const id = String(alarm['AlarmName']).slice(nameOf(template).length + 1);
      expect(alarm['AlarmDescription']).toMatch(/^[A-Z].+\. What to do: \S+$/);
      expect(alarm['AlarmDescription']).toMatch(new RegExp(` ${before}alarms\\.md#${id}$`));
      expect([alarm['AlarmActions'], alarm['OKActions']]).toEqual([[topic], [topic]]);
    }
  });

  test('lets CloudWatch tell the notices topic, and none but the alarms of this deployment', () => {
    const topic = template.outputs['NoticesTopic']!;
    const statements = statementsOf(
      template
        .ofType('AWS::SNS::TopicPolicy')
        .filter(({ Properties }) => listOf(Properties['Topics']).includes(topic))
        .map(({ Properties }) => Properties['PolicyDocument'] as Policy),
    );
    const allowed = statements.filter(({ Effect }) => Effect === 'Allow');
    expect(allowed).toEqual([
      {
        Sid: expect.any(String),
        Effect: 'Allow',
        Principal: { Service: 'cloudwatch.amazonaws.com' },
        Action: 'sns:Publish',
        Resource: topic,
        Condition: {
          ArnLike: {
            'aws:SourceArn': `arn:aws:cloudwatch:${template.region}:${ACCOUNT}:alarm:${nameOf(template)}-*`,
          },
          StringEquals: { 'aws:SourceAccount': ACCOUNT },
        },
      },
    ]);
  });

  test('encrypts queues, and takes messages by TLS only', () => {
    const queues = template.ofType('AWS::SQS::Queue').map(({ Properties }) => Properties);
    const policies = template.ofType('AWS::SQS::QueuePolicy').map(({ Properties }) => Properties);
    for (const { QueueName, SqsManagedSseEnabled } of queues) {
      expect([QueueName, SqsManagedSseEnabled]).toEqual([QueueName, true]);
      const [policy] = policies.filter(({ Queues }) =>
        String(listOf(Queues)[0]).endsWith(`/${String(QueueName)}`),
      );
      expect(statementsOf([policy!['PolicyDocument'] as Policy])).toContainEqual(
        expect.objectContaining({ Effect: 'Deny', Condition: { Bool: { 'aws:SecureTransport': 'false' } } }),
      );
    }
  });

  test.each(ROLE_NAMES)('grants %s single actions on named places', (role) => {
    const found = template
      .ofType('AWS::IAM::Role')
      .filter(({ Properties }) => Properties['RoleName'] === roleOf(template, role));
    expect(found.length).toBe(role === 'relay' && ![west, central].includes(template) ? 0 : 1);
    const policies = found.flatMap(
      ({ Properties }) => Properties['Policies'] as { PolicyDocument: Policy }[],
    );
    for (const { Effect, Action, Resource, Condition } of statementsOf(
      policies.map(({ PolicyDocument }) => PolicyDocument),
    )) {
      expect(Effect).toBe('Allow');
      for (const action of listOf(Action)) expect(action).not.toContain('*');
      if (!listOf(Resource).includes('*')) continue;
      // two that IAM allows for everything or for nothing
      if (Action === 'cloudwatch:PutMetricData')
        expect(Condition).toEqual({ StringEquals: { 'cloudwatch:namespace': 'walvault' } });
      else expect(Action).toBe('dynamodb:ListStreams');
    }
  });

  test('lets nodes put and read, never delete, never touch control or its objects', () => {
    const writer = roleOf(template, 'node-writer');
    const may = (request: Request) => template.may(writer, request, [template.bucketPolicy]);
    for (const folder of ['wal/00000001', 'history', 'backup/1', 'aside/3/db1', 'logs/db1', 'node']) {
      const object = objectArn(template, `main/7301/${folder}/file`);
      expect([folder, may(put(object)), may(on(object, 's3:GetObject'))]).toEqual([folder, true, true]);
      expect(may(on(object, 's3:DeleteObject'))).toBe(false);
      expect(may(on(object, 's3:DeleteObjectVersion'))).toBe(false);
    }
    expect(may(put(objectArn(template, 'main/control/7-abc.json')))).toBe(false);
    const table = tableArn(template);
    for (const action of ['PutItem', 'GetItem', 'Query', 'ConditionCheckItem'])
      expect([action, may(row(table, action, 'main/7301'))]).toEqual([action, true]);
    for (const action of ['DeleteItem', 'UpdateItem', 'BatchWriteItem', 'Scan'])
      expect([action, may(row(table, action, 'main/7301'))]).toEqual([action, false]);
    for (const action of ['GetItem', 'ConditionCheckItem'])
      expect([action, may(row(table, action, 'main'))]).toEqual([action, true]);
    for (const partition of ['main', '#clusters', '#notices#main'])
      for (const action of ['PutItem', 'DeleteItem'])
        expect([action, partition, may(row(table, action, partition))]).toEqual([action, partition, false]);
    // a request that names no partition would pass a ForAllValues alone
    expect(may(on(table, 'dynamodb:PutItem'))).toBe(false);
  });

  test('lets nodes put under a free key only, and others copy', () => {
    const object = objectArn(template, 'main/7301/wal/00000001/file');
    const blind = on(object, 's3:PutObject');
    expect(template.may(roleOf(template, 'node-writer'), blind, [template.bucketPolicy])).toBe(false);
    expect(template.may(roleOf(template, 'node-writer'), put(object), [template.bucketPolicy])).toBe(true);
    expect(template.may(roleOf(template, 'operator'), blind, [template.bucketPolicy])).toBe(true);
    const [statement] = statementsOf([template.bucketPolicy]).filter(
      ({ Sid }) => Sid === 'NodesNeverOverwrite',
    );
    const regions = [west, central].includes(template)
      ? [template.region, otherOf(template).region]
      : ['eu-west-1'];
    expect(statement!.Condition!['ArnEquals']).toEqual({
      'aws:PrincipalArn': regions.map((region) => arnOfRole(`${nameOf(template)}-${region}-node-writer`)),
    });
  });

  test('lets readers read, and write nothing', () => {
    const reader = roleOf(template, 'node-reader');
    const object = objectArn(template, 'main/7301/wal/00000001/file');
    expect(template.may(reader, on(object, 's3:GetObject'))).toBe(true);
    expect(template.may(reader, put(object))).toBe(false);
    expect(template.may(reader, row(tableArn(template), 'Query', 'main/7301'))).toBe(true);
    for (const action of ['PutItem', 'DeleteItem', 'UpdateItem'])
      expect(template.may(reader, row(tableArn(template), action, 'main/7301'))).toBe(false);
  });

  test('lets an operator raise an epoch, and delete no object', () => {
    const operator = roleOf(template, 'operator');
    expect(template.may(operator, row(tableArn(template), 'PutItem', 'main'))).toBe(true);
    expect(template.may(operator, put(objectArn(template, 'main/control/7-abc.json')))).toBe(true);
    const object = objectArn(template, 'main/7301/wal/00000001/file');
    expect(template.may(operator, on(object, 's3:DeleteObject'))).toBe(false);
  });

  test('lets retention delete WAL and backups, and raise no epoch', () => {
    const retention = roleOf(template, 'retention');
    for (const folder of ['wal/00000001', 'backup/1'])
      expect(
        template.may(retention, on(objectArn(template, `main/7301/${folder}/f`), 's3:DeleteObject')),
      ).toBe(true);
    for (const folder of ['history', 'aside/3/db1', 'logs/db1'])
      expect(
        template.may(retention, on(objectArn(template, `main/7301/${folder}/f`), 's3:DeleteObject')),
      ).toBe(false);
    expect(
      template.may(retention, on(objectArn(template, 'main/7301/wal/1/f'), 's3:DeleteObjectVersion')),
    ).toBe(false);
    expect(template.may(retention, row(tableArn(template), 'DeleteItem', 'main/7301'))).toBe(true);
    expect(template.may(retention, row(tableArn(template), 'PutItem', 'main'))).toBe(false);
  });

  test('lets notify write its marks and publish, and nothing else', () => {
    const notify = roleOf(template, 'notify');
    expect(template.may(notify, row(tableArn(template), 'PutItem', '#notices#main'))).toBe(true);
    for (const partition of ['main', 'main/7301', '#clusters'])
      expect(template.may(notify, row(tableArn(template), 'PutItem', partition))).toBe(false);
    expect(template.may(notify, on(template.outputs['NoticesTopic']!, 'sns:Publish'))).toBe(true);
    expect(template.may(notify, on(template.outputs['ArrivalsTopic']!, 'sns:Publish'))).toBe(false);
    expect(template.may(notify, on(objectArn(template, 'main/7301/wal/1/f'), 's3:GetObject'))).toBe(false);
  });

  test('lets keys be used for the vault’s objects only, and by S3', () => {
    const role = roleOf(template, 'node-writer');
    const viaS3 = { 'kms:ViaService': `s3.${template.region}.amazonaws.com` };
    const decrypt = (resource: string, context: Request['context']) =>
      template.may(role, { action: 'kms:Decrypt', resource, context });
    expect(decrypt(keyOf(template), viaS3)).toBe(true);
    expect(decrypt(keyOf(template), {})).toBe(false);
    expect(decrypt(`arn:aws:kms:${template.region}:${ACCOUNT}:key/another`, viaS3)).toBe(false);
  });
});

describe('two regions', () => {
  test.each(both)(
    'relay %s: reads its own vault, writes the other, tells the other’s topic',
    (_from, own, other) => {
      const { Variables } = own.one('AWS::Lambda::Function', { FunctionName: 'walvault-relay' }).Properties[
        'Environment'
      ] as { Variables: Record<string, string> };
      expect(Variables).toMatchObject({
        WALVAULT_VAULT: own.outputs['VaultUrl'],
        WALVAULT_RELAY_TO: other.outputs['VaultUrl'],
        WALVAULT_ARRIVALS_TOPIC: other.outputs['ArrivalsTopic'],
      });
      // the names in the URL are those that the other template gives
      const url = new URL(Variables['WALVAULT_RELAY_TO']!);
      expect(url.hostname).toBe(other.one('AWS::S3::Bucket').Properties['BucketName']);
      expect(url.pathname).toBe('/prod');
      expect(url.searchParams.get('table')).toBe(other.one('AWS::DynamoDB::Table').Properties['TableName']);
      expect(url.searchParams.get('region')).toBe(other.region);

      const relay = roleOf(own, 'relay');
      const [from, to] = [own, other].map((side) => objectArn(side, 'main/7301/wal/00000001/file')) as [
        string,
        string,
      ];
      expect(own.may(relay, on(from, 's3:GetObject'))).toBe(true);
      // a copy carries no condition of its own that the bucket's policy could see
      expect(own.may(relay, on(to, 's3:PutObject'), [other.bucketPolicy])).toBe(true);
      expect(own.may(relay, on(to, 's3:DeleteObject'))).toBe(false);
      expect(own.may(relay, row(tableArn(other), 'PutItem', 'main'))).toBe(true);
      expect(own.may(relay, row(tableArn(other), 'DeleteItem', 'main'))).toBe(false);
      expect(own.may(relay, on(other.outputs['ArrivalsTopic']!, 'sns:Publish'))).toBe(true);
      expect(own.may(relay, on(own.outputs['ArrivalsTopic']!, 'sns:Publish'))).toBe(false);
      const viaS3 = { 'kms:ViaService': `s3.${other.region}.amazonaws.com` };
      const generate = (alias: string) =>
        own.may(relay, {
          ...{ action: 'kms:GenerateDataKey', resource: keyOf(other) },
          context: { ...viaS3, 'kms:ResourceAliases': [alias] },
        });
      const { AliasName } = other.one('AWS::KMS::Alias').Properties;
      expect([generate(String(AliasName)), generate('alias/another')]).toEqual([true, false]);
    },
  );

  test.each(both)(
    'stream %s: wakes the relay for what a replica gets, and for a change of control',
    (_from, own) => {
      const source = own.one('AWS::Lambda::EventSourceMapping', {
        FunctionName: 'walvault-relay',
        StartingPosition: 'TRIM_HORIZON',
      });
      const { Filters } = source.Properties['FilterCriteria'] as { Filters: { Pattern: string }[] };
      const wanted = Filters.map(({ Pattern }) => JSON.parse(Pattern) as unknown);
      const eventName = ['INSERT', 'MODIFY'];
      const prefixes = ['wal#', 'tail#', 'history#', 'backup#', 'spill#'].map((prefix) => ({ prefix }));
      expect(wanted).toEqual([
        { eventName, dynamodb: { Keys: { sk: { S: prefixes } } } },
        { eventName, dynamodb: { Keys: { sk: { S: ['control'] } } } },
      ]);
    },
  );

  test.each(both)(
    'what the relay gives up %s is tried again slowly, then laid aside where it can be given back',
    (_from, own) => {
      const [failed, dead] = ['failed', 'dead'].map((what) => queueArn(own, `walvault-relay-${what}`)) as [
        string,
        string,
      ];
      const queue = own.one('AWS::SQS::Queue', { QueueName: 'walvault-relay-failed' }).Properties;
      expect(queue['RedrivePolicy']).toEqual({ deadLetterTargetArn: dead, maxReceiveCount: 5 });
      const { Timeout } = own.one('AWS::Lambda::Function', { FunctionName: 'walvault-relay' }).Properties;
      // shorter, and a message would be given out again while the first call still works on it
      expect(Number(queue['VisibilityTimeout'])).toBeGreaterThanOrEqual(Number(Timeout));
      const source = own.one('AWS::Lambda::EventSourceMapping', { EventSourceArn: failed });
      expect(source.Properties).toMatchObject({
        FunctionName: 'walvault-relay',
        FunctionResponseTypes: ['ReportBatchItemFailures'],
      });
      const operator = roleOf(own, 'operator');
      expect(own.may(operator, on(dead, 'sqs:StartMessageMoveTask'))).toBe(true);
      expect(own.may(operator, on(failed, 'sqs:SendMessage'))).toBe(true);
    },
  );

  test.each(both)('notify %s tells people in both', (_from, own, other) => {
    const { Variables } = own.one('AWS::Lambda::Function', { FunctionName: 'walvault-notify' }).Properties[
      'Environment'
    ] as { Variables: Record<string, string> };
    const topics = [own, other].map(({ outputs }) => outputs['NoticesTopic']);
    expect(Variables['WALVAULT_NOTICE_TOPICS']).toBe(topics.join(','));
    for (const topic of topics) expect(own.may(roleOf(own, 'notify'), on(topic!, 'sns:Publish'))).toBe(true);
  });

  test.each(both)('a node %s may spill into the other vault, by the same rules', (_from, own, other) => {
    const writer = roleOf(own, 'node-writer');
    const object = objectArn(other, 'main/7301/wal/00000001/file');
    expect(own.may(writer, put(object), [other.bucketPolicy])).toBe(true);
    expect(own.may(writer, on(object, 's3:PutObject'), [other.bucketPolicy])).toBe(false);
    expect(own.may(writer, row(tableArn(other), 'PutItem', 'main/7301'))).toBe(true);
    expect(own.may(writer, row(tableArn(other), 'PutItem', 'main'))).toBe(false);
  });

  test('names of roles differ, since they are the account’s', () => {
    const names = [west, central].flatMap((template) =>
      template.ofType('AWS::IAM::Role').map(({ Properties }) => String(Properties['RoleName'])),
    );
    expect(new Set(names).size).toBe(names.length);
    expect(names.length).toBe(2 * ROLE_NAMES.length);
  });
});

test('one region alone has no relay and speaks of no other region', () => {
  expect(alone.ofType('AWS::Lambda::Function').map(({ Properties }) => Properties['FunctionName'])).toEqual([
    'walvault-retention',
    'walvault-notify',
    'walvault-witness',
  ]);
  expect(JSON.stringify(alone.resources)).not.toMatch(/relay|eu-central-1/i);
});

test('schedules: retention as configured, a look and a watch each minute, a pass each five, a sweep each day', () => {
  const schedules = (template: DeployedTemplate) =>
    Object.fromEntries(
      template
        .ofType('AWS::Events::Rule')
        .map(({ Properties }) => [
          Properties['Name'],
          [
            Properties['ScheduleExpression'],
            ...targetsOf(template, String(Properties['Name']).replace(/^[a-z]+-/, '')).map(
              ({ Input }) => Input,
            ),
          ],
        ]),
    );
  expect(schedules(west)).toEqual({
    'walvault-retention': ['rate(1 day)', '{}'],
    'walvault-look': ['rate(1 minute)', '{"look":true}'],
    'walvault-watch': ['rate(1 minute)', '{}'],
    'walvault-pass': ['rate(5 minutes)', '{"sweep":false}'],
    'walvault-sweep': ['rate(1 day)', '{"sweep":true}'],
  });
  expect(schedules(special)['acme-retention']).toEqual(['cron(30 3 * * ? *)', '{}']);
});

test('what the configuration says reaches bucket, functions, alarms and roles', () => {
  expect(special.one('AWS::S3::Bucket').Properties).toMatchObject({
    BucketName: `acme-${ACCOUNT}-eu-west-1`,
    ObjectLockEnabled: true,
    ObjectLockConfiguration: { Rule: { DefaultRetention: { Mode: 'COMPLIANCE', Days: 60 } } },
  });
  const environment = (name: string) =>
    special.one('AWS::Lambda::Function', { FunctionName: `acme-${name}` }).Properties['Environment'];
  expect(environment('retention')).toEqual({
    Variables: { WALVAULT_VAULT: special.outputs['VaultUrl'], WALVAULT_KEEP_BACKUPS: '4' },
  });
  expect(environment('notify')).toMatchObject({ Variables: { WALVAULT_LAG_LIMIT: '1h' } });
  expect(special.one('AWS::SNS::Subscription').Properties).toMatchObject({
    ...{ Protocol: 'email', Endpoint: 'dba@example.com' },
    TopicArn: special.outputs['NoticesTopic'],
  });
  const writer = roleOf(special, 'node-writer');
  expect(
    special.one('AWS::IAM::Role', { RoleName: writer }).Properties['AssumeRolePolicyDocument'],
  ).toMatchObject({
    Statement: [
      { Principal: { AWS: `arn:aws:iam::${ACCOUNT}:role/db-host` } },
      { Principal: { Service: 'ec2.amazonaws.com' } },
    ],
  });
  const mayPut = (cluster: string) =>
    special.may(writer, row(tableArn(special), 'PutItem', `${cluster}/7301`));
  expect(['main', 'crm', 'other'].map(mayPut)).toEqual([true, true, false]);
});

test('a bucket without Object Lock has none', () => {
  expect(alone.one('AWS::S3::Bucket').Properties).not.toHaveProperty('ObjectLockEnabled');
});

test('outputs name the vault and the line to type next', () => {
  const url = `s3://walvault-${ACCOUNT}-eu-west-1/prod?table=walvault&region=eu-west-1`;
  expect(west.outputs).toMatchObject({
    VaultUrl: url,
    InitLine: `walvault init --vault '${url}' --cluster main --pgdata $PGDATA --node db1`,
    KeyArn: keyOf(west),
    NodeWriterRole: arnOfRole('walvault-eu-west-1-node-writer'),
    RelayDeadQueue: `https://sqs.eu-west-1.amazonaws.com/${ACCOUNT}/walvault-relay-dead`,
  });
  expect(central.outputs).not.toHaveProperty('InitLine');
  expect(special.outputs['InitLine']).toContain('--cluster main ');
});

test('each alarm has its section in the runbook, and no section is of an alarm that is not there', () => {
  const page = readFileSync(path.resolve(import.meta.dirname, '../../docs/runbook/alarms.md'), 'utf8');
  const sections = [...page.matchAll(/^## (\S+)$/gm)].map(([, heading]) => heading);
  expect(sections.sort()).toEqual(ALARMS.map(({ id }) => id).sort());
});

test('the table is the one that walvault init --create-table asks for', async () => {
  const { KeySchema, AttributeDefinitions, BillingMode } = await tableAskedFor();
  expect(KeySchema).toHaveLength(2);
  const { Properties } = alone.one('AWS::DynamoDB::Table');
  expect(Properties).toMatchObject({ KeySchema, AttributeDefinitions, BillingMode });
  for (const more of ['LocalSecondaryIndexes', 'GlobalSecondaryIndexes'])
    expect(Properties).not.toHaveProperty(more);
});

test('an alarm on a figure of ours looks at one that is put, as it is put for the vault', () => {
  const names = Object.keys(METRICS) as MetricName[];
  const put = metricData(
    'walvault',
    names.map((metric) => ({ metric, cluster: 'main', value: 1 })),
    new Date(0),
  ).map(({ MetricName: name, Dimensions }) => JSON.stringify([name, Dimensions]));
  const looked = west
    .ofType('AWS::CloudWatch::Alarm')
    .filter(({ Properties }) => Properties['Namespace'] === NAMESPACE)
    .map(({ Properties }) => [Properties['MetricName'], Properties['Dimensions']] as const);
  expect(looked.map(([name]) => name).sort()).toEqual(names.map((name) => METRICS[name].name).sort());
  for (const each of looked) expect(put).toContain(JSON.stringify(each));
});

test('an alarm on a figure of AWS looks at a function or a queue that is there', () => {
  for (const [, template] of every) {
    const there = {
      'AWS/Lambda': template
        .ofType('AWS::Lambda::Function')
        .map(({ Properties }) => [{ Name: 'FunctionName', Value: Properties['FunctionName'] }]),
      'AWS/SQS': template
        .ofType('AWS::SQS::Queue')
        .map(({ Properties }) => [{ Name: 'QueueName', Value: Properties['QueueName'] }]),
    };
    const found = template.ofType('AWS::CloudWatch::Alarm').flatMap(({ Properties }) => {
      const namespace = Properties['Namespace'] as keyof typeof there | undefined;
      return namespace !== undefined && namespace in there ? [{ namespace, ...Properties }] : [];
    });
    expect(found.length).toBe([west, central].includes(template) ? 8 : 5);
    for (const { namespace, ...properties } of found)
      expect(there[namespace]).toContainEqual((properties as Record<string, unknown>)['Dimensions']);
  }
});

test('alarms ring at the limits of the configuration, and silence rings where it is a bad sign', () => {
  const thresholds = (template: DeployedTemplate) =>
    Object.fromEntries(
      template
        .ofType('AWS::CloudWatch::Alarm')
        .map(({ Properties }) => [
          String(Properties['AlarmName']).slice(nameOf(template).length + 1),
          [
            ...['Threshold', 'EvaluationPeriods', 'TreatMissingData'].map((name) => Properties[name]),
            String(Properties['ComparisonOperator']).startsWith('LessThan') ? 'below' : 'from',
          ],
        ]),
    );
  expect(thresholds(west)).toEqual({
    'archive-stalled': [900, 2, 'notBreaching', 'from'],
    'nodes-silent': [1, 3, 'notBreaching', 'from'],
    'relay-lag': [600, 3, 'notBreaching', 'from'],
    'relay-failed': [1, 3, 'notBreaching', 'from'],
    'relay-late': [900_000, 2, 'notBreaching', 'from'],
    'relay-dead-letter': [1, 1, 'notBreaching', 'from'],
    'retention-failed': [1, 1, 'notBreaching', 'from'],
    'retention-silent': [1, 2, 'breaching', 'below'],
    'notify-failed': [1, 3, 'notBreaching', 'from'],
    'notify-dead-letter': [1, 1, 'notBreaching', 'from'],
    'look-silent': [1, 3, 'breaching', 'below'],
    'primary-silent': [1, 1, 'notBreaching', 'from'],
    'witness-silent': [1, 1, 'breaching', 'below'],
    'witness-failed': [1, 1, 'notBreaching', 'from'],
    'table-reads-throttled': [10, 3, 'notBreaching', 'from'],
    'table-throttled': [10, 3, 'notBreaching', 'from'],
    'table-errors': [10, 3, 'notBreaching', 'from'],
  });
  expect(thresholds(special)).toMatchObject({ 'archive-stalled': [2700, 2, 'notBreaching', 'from'] });
});

test.each(every)(
  '%s: the dashboard shows the own figures, each function and each queue',
  (_name, template) => {
    const { Properties } = template.one('AWS::CloudWatch::Dashboard');
    expect(Properties['DashboardName']).toBe(`${nameOf(template)}-${template.region}`);
    const { widgets } = JSON.parse(String(Properties['DashboardBody'])) as {
      widgets: { properties: { region: string; metrics: unknown[] } }[];
    };
    const shown = JSON.stringify(widgets.map(({ properties }) => properties.metrics));
    const named = [
      ...template.ofType('AWS::Lambda::Function').map(({ Properties: each }) => each['FunctionName']),
      ...template.ofType('AWS::SQS::Queue').map(({ Properties: each }) => each['QueueName']),
    ];
    for (const name of named) expect(shown).toContain(`"${String(name)}"`);
    for (const metric of ['archiveWait', 'silentNodes', 'primarySilent'] as const)
      expect(shown).toContain(`Vault=\\"${nameOf(template)}\\" MetricName=\\"${METRICS[metric].name}\\"`);
    expect(shown.includes(METRICS.relayLag.name)).toBe([west, central].includes(template));
    for (const { properties } of widgets) expect(properties.region).toBe(template.region);
  },
);

test.each([
  ['one region alone', alone],
  ['the primary region of two', west],
  ['one with everything said', special],
])('%s: the line to type next is one that the command line takes', (_name, template) => {
  const { stdout } = spawnSync(
    'sh',
    ['-c', `for word in ${template.outputs['InitLine']}; do echo "$word"; done`],
    {
      encoding: 'utf8',
      env: { PATH: process.env['PATH'], PGDATA: '/srv/pg/main' },
    },
  );
  const [command, ...words] = stdout.trimEnd().split('\n');
  expect(command).toBe('walvault');
  let chosen: { row: { path: string }; options: Record<string, unknown> } | undefined;
  buildProgram({ out: () => {}, columns: 100 }, (each) => (chosen = each)).parse(words, { from: 'user' });
  expect(chosen?.row.path).toBe('init');
  expect(chosen?.options).toMatchObject({
    ...{ vault: template.outputs['VaultUrl'], cluster: 'main', pgdata: '/srv/pg/main', node: 'db1' },
  });
});

describe('the witness', () => {
  const asked = (what: string) =>
    synthesise(`[regions]\nprimary = "eu-west-1"\ndr = "eu-central-1"\n[witness]\n${what} = "on"`).primary;
  const may = (template: DeployedTemplate, action: string, partition: string, region = template.region) =>
    template.may(
      `walvault-${template.region}-witness`,
      row(`arn:aws:dynamodb:${region}:${ACCOUNT}:table/walvault`, action, partition),
    );

  const away = ({ region }: DeployedTemplate) => (region === 'eu-west-1' ? 'eu-central-1' : 'eu-west-1');

  test('names no primary and writes nothing in the other region, unless the configuration asks for it', () => {
    for (const template of [alone, west, central]) {
      expect(may(template, 'PutItem', 'main/7301')).toBe(true);
      expect(may(template, 'PutItem', 'main')).toBe(false);
      for (const partition of ['main', 'main/7301'])
        expect(may(template, 'PutItem', partition, away(template))).toBe(false);
      const { Policies } = template.one('AWS::IAM::Role', {
        RoleName: `walvault-${template.region}-witness`,
      }).Properties;
      expect(JSON.stringify(Policies)).not.toMatch(/"(s3|kms):/);
    }
    for (const what of ['auto_failover', 'dr_failover'])
      for (const region of ['eu-west-1', 'eu-central-1'])
        expect([what, region, may(asked(what), 'PutItem', 'main', region)]).toEqual([what, region, true]);
  });

  test('deletes rows only where it takes over, which settles what was spilled there', () => {
    expect(may(asked('auto_failover'), 'DeleteItem', 'main/7301')).toBe(false);
    expect(may(asked('dr_failover'), 'DeleteItem', 'main/7301')).toBe(true);
    expect(may(asked('dr_failover'), 'DeleteItem', 'main')).toBe(false);
    expect(may(asked('dr_failover'), 'DeleteItem', 'main/7301', 'eu-central-1')).toBe(false);
  });
});

test('a silent primary rings within a minute, a silent witness within five', () => {
  const periodOf = (id: string) =>
    alone.one('AWS::CloudWatch::Alarm', { AlarmName: `walvault-${id}` }).Properties['Period'];
  expect(['primary-silent', 'witness-silent'].map(periodOf)).toEqual([60, 300]);
});

test('a witness that is not wanted is not there, nor what watches it', () => {
  const { primary: without } = synthesise('[regions]\nprimary = "eu-west-1"\n[witness]\ndeploy = false');
  const isOfWitness = ({ Type, Properties }: { Type: string; Properties: object }) =>
    Type !== 'AWS::IAM::Role' &&
    /witness|watch"|primary-silent|PrimarySilent/i.test(JSON.stringify(Properties));
  expect(Object.values(alone.resources).filter(isOfWitness).length).toBeGreaterThan(5);
  expect(Object.values(without.resources).filter(isOfWitness)).toEqual([]);
  expect(without.ofType('AWS::IAM::Role').map(({ Properties }) => Properties['RoleName'])).not.toContain(
    'walvault-eu-west-1-witness',
  );
});

test('throttling and errors of the table are looked at where DynamoDB counts them', () => {
  const metricOf = (id: string) => {
    const { MetricName, Dimensions } = alone.one('AWS::CloudWatch::Alarm', { AlarmName: `walvault-${id}` })
      .Properties as { MetricName: string; Dimensions: { Name: string; Value: string }[] };
    return [MetricName, ...Dimensions.map(({ Name, Value }) => `${Name}=${Value}`).sort()];
  };
  expect(metricOf('table-throttled')).toEqual(['WriteThrottleEvents', 'TableName=walvault']);
  expect(metricOf('table-reads-throttled')).toEqual(['ReadThrottleEvents', 'TableName=walvault']);
  expect(metricOf('table-errors')).toEqual([
    'SystemErrors',
    'Operation=TransactWriteItems',
    'TableName=walvault',
  ]);
});

const nameOf = (template: DeployedTemplate): string => (template === special ? 'acme' : 'walvault');
const otherOf = (template: DeployedTemplate): DeployedTemplate => (template === west ? central : west);
const roleOf = (template: DeployedTemplate, role: RoleName): string =>
  `${nameOf(template)}-${template.region}-${role}`;
const keyOf = (template: DeployedTemplate): string => template.outputs['KeyArn']!;
const queueArn = (template: DeployedTemplate, name: unknown): string =>
  `arn:aws:sqs:${template.region}:${ACCOUNT}:${String(name)}`;
const tableArn = (template: DeployedTemplate): string =>
  `arn:aws:dynamodb:${template.region}:${ACCOUNT}:table/${nameOf(template)}`;
const objectArn = (template: DeployedTemplate, key: string): string => {
  const prefix = [west, central].includes(template) ? 'prod/' : '';
  return `arn:aws:s3:::${nameOf(template)}-${ACCOUNT}-${template.region}/${prefix}${key}`;
};
const on = (resource: string, action: string): Request => ({ action, resource, context: {} });
const put = (resource: string): Request => ({
  ...{ action: 's3:PutObject', resource },
  context: { 's3:if-none-match': '*' },
});
const row = (resource: string, action: string, partition: string): Request => ({
  ...{ action: `dynamodb:${action}`, resource },
  context: { 'dynamodb:LeadingKeys': [partition] },
});

/** What createDynamoTable() sends, taken off the wire: a listener says that there is no table yet, and then refuses to make it. */
async function tableAskedFor(): Promise<Record<string, unknown>> {
  let asked: Record<string, unknown> | undefined;
  const server = http.createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      const isCreate = String(request.headers['x-amz-target']).endsWith('.CreateTable');
      if (isCreate) asked = JSON.parse(Buffer.concat(parts).toString()) as Record<string, unknown>;
      response.writeHead(400, { 'content-type': 'application/x-amz-json-1.0' });
      response.end(
        JSON.stringify({
          __type: `com.amazonaws.dynamodb.v20120810#${isCreate ? 'ValidationException' : 'ResourceNotFoundException'}`,
        }),
      );
    });
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as AddressInfo;
  const before = { ...process.env };
  Object.assign(process.env, { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test' });
  try {
    const place = { table: 'walvault', region: 'eu-west-1', endpoint: `http://127.0.0.1:${port}` };
    await expect(createDynamoTable(place)).rejects.toThrow();
  } finally {
    for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'])
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  if (asked === undefined) throw new Error('no table was asked for');
  return asked;
}

type Target = { Input: string; DeadLetterConfig?: { Arn: string }; RetryPolicy?: object };
function targetsOf(template: DeployedTemplate, id: string): Target[] {
  return template.one('AWS::Events::Rule', { Name: `${nameOf(template)}-${id}` }).Properties[
    'Targets'
  ] as Target[];
}
