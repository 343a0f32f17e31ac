/**
 * One region of a deployment: the vault (bucket and table), the functions that work for it, what wakes them, what they tell, who watches
 * them, and the roles. Both regions are the same stack; what differs is which one it calls the other.
 *
 * Bucket, table and key outlive the stack. Deployed again beside them it takes up bucket and table by their names, and the key by its ARN:
 * `npm run deploy -- --import-existing-resources`, with kms.primary and kms.dr. The key's alias stays, too: it says which key that is, and a
 * new key cannot take its place unseen, under which no role could read the old objects.
 *
 * Rests on: AWS Lambda Developer Guide, "Using AWS Lambda with Amazon DynamoDB" (partial batch responses, bisecting, failure destinations);
 * Amazon S3 User Guide, "Enforcing conditional writes" (a policy on s3:if-none-match refuses CopyObject, too).
 */
import path from 'node:path';
import { Aws, CfnOutput, Duration, RemovalPolicy, Stack, type StackProps, Tags, Token } from 'aws-cdk-lib';
import { Alarm, Dashboard, GraphWidget, MathExpression, Metric } from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import { AttributeType, BillingMode, StreamViewType, Table } from 'aws-cdk-lib/aws-dynamodb';
import { Rule, RuleTargetInput, Schedule } from 'aws-cdk-lib/aws-events';
import { LambdaFunction as LambdaTarget } from 'aws-cdk-lib/aws-events-targets';
import {
  AccountPrincipal,
  AnyPrincipal,
  ArnPrincipal,
  CompositePrincipal,
  Effect,
  InstanceProfile,
  PolicyDocument,
  PolicyStatement,
  Role,
  type RoleProps,
  ServicePrincipal,
} from 'aws-cdk-lib/aws-iam';
import { Alias, type IKey, Key } from 'aws-cdk-lib/aws-kms';
import {
  Architecture,
  CfnEventSourceMapping,
  Code,
  Function as LambdaFunction,
  Runtime,
} from 'aws-cdk-lib/aws-lambda';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import {
  BlockPublicAccess,
  Bucket,
  BucketEncryption,
  ObjectLockRetention,
  ObjectOwnership,
} from 'aws-cdk-lib/aws-s3';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import { Queue, QueueEncryption } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';
import { METRICS, NAMESPACE } from '../core/cluster/metrics.ts';
import { environmentOf, type FunctionName } from '../core/settings/environment.ts';
import { parseSetting } from '../core/settings/read.ts';
import { SETTINGS } from '../core/settings/settings.ts';
import { ALARMS, comparisonOf, linkOf, missingOf, THROTTLED, type Watched } from './alarms.ts';
import type { Configuration } from './configuration.ts';
import { namesOf, type Region } from './names.ts';
import { checkPolicySize } from './policy-size.ts';
import { statementsOf, type Places, type RoleName } from './roles.ts';

export type VaultStackProps = StackProps & {
  configuration: Configuration;
  /** Which of the configuration's regions this is. */
  side: 'primary' | 'dr';
  /** Folder of the bundles: dist/lambdas. */
  bundles: string;
};

/** Lambda's longest run; a pass or a run that does not end in it is taken up again. */
const LONGEST = Duration.minutes(15);
/** Below a queue's own limit of 14 days, above any weekend. */
const KEPT = Duration.days(14);

/** Changes that bring something to a replica. The head moves with each of them and with each heartbeat: it would wake the relay for nothing. */
const RELAYED = ['wal#', 'tail#', 'history#', 'backup#', 'spill#'];

export class VaultStack extends Stack {
  readonly #configuration: Configuration;
  readonly #side: 'primary' | 'dr';
  readonly #bundles: string;
  readonly #own: Region;
  readonly #other: Region | undefined;
  readonly #key: IKey;
  readonly #table: Table;

  constructor(scope: Construct, id: string, { configuration, side, bundles, ...props }: VaultStackProps) {
    super(scope, id, props);
    const { regions } = configuration;
    const [own, other] = side === 'primary' ? [regions.primary, regions.dr] : [regions.dr!, regions.primary];
    this.#configuration = configuration;
    this.#side = side;
    this.#bundles = bundles;
    this.#own = namesOf(configuration, own);
    this.#other = other === undefined ? undefined : namesOf(configuration, other);
    this.#key = this.#makeKey();
    this.#table = this.#makeTable();
    const bucket = this.#makeBucket();

    const notices = this.#makeTopic('notices');
    this.#letAlarmsIn(notices);
    this.#makeTopic('arrivals');
    const { email } = configuration.notify;
    if (email !== undefined) notices.addSubscription(new EmailSubscription(email));

    const dead = {
      retention: this.#makeQueue('retention-dead'),
      notify: this.#makeQueue('notify-dead'),
      relay: this.#other && this.#makeQueue('relay-dead'),
    };
    const relayFailed =
      dead.relay &&
      this.#makeQueue('relay-failed', {
        // a message is Lambda's for as long as its function may run; what fails comes back after that
        visibilityTimeout: Duration.minutes(16),
        deadLetterQueue: { queue: dead.relay, maxReceiveCount: 5 },
      });
    const functions = {
      retention: this.#makeRetention(dead.retention),
      notify: this.#makeNotify(dead.notify),
      relay: relayFailed && this.#makeRelay(relayFailed),
    };

    const places: Places = {
      ...{ own: this.#own, other: this.#other, keyArn: this.#key.keyArn },
      otherKeyArn: configuration.kms[side === 'primary' ? 'dr' : 'primary'],
      ...{ prefix: configuration.prefix, clusters: configuration.clusters },
      functions: Object.values(functions).flatMap((each) => each?.functionArn ?? []),
      queues: relayFailed && dead.relay && { failed: relayFailed.queueArn, dead: dead.relay.queueArn },
    };
    this.#makePersonRoles(places);
    this.#protectObjects(bucket);
    this.#makeAlarms(notices, { table: this.#own.table, functions, dead, limits: this.#limits() });
    this.#makeDashboard(functions, [...Object.values(dead), relayFailed]);
    this.#makeOutputs(dead.relay);
    Tags.of(this).add('walvault', configuration.name);
  }

  #makeKey(): IKey {
    const given = this.#configuration.kms[this.#side];
    if (given !== undefined) return Key.fromKeyArn(this, 'Key', given);
    const key = new Key(this, 'Key', {
      description: `walvault ${this.#configuration.name}: objects of the vault`,
      enableKeyRotation: true,
      removalPolicy: RemovalPolicy.RETAIN,
    });
    new Alias(this, 'KeyAlias', {
      ...{ aliasName: this.#own.keyAlias, targetKey: key },
      removalPolicy: RemovalPolicy.RETAIN,
    });
    return key;
  }

  #makeTable(): Table {
    return new Table(this, 'Table', {
      tableName: this.#own.table,
      partitionKey: { name: 'pk', type: AttributeType.STRING },
      sortKey: { name: 'sk', type: AttributeType.STRING },
      billingMode: BillingMode.PAY_PER_REQUEST,
      stream: StreamViewType.NEW_IMAGE,
      pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
      deletionProtection: true,
      // marks of what was told end so; leases, holds and tombstones never do: it comes days late
      timeToLiveAttribute: 'expiresAt',
      removalPolicy: RemovalPolicy.RETAIN,
    });
  }

  #makeBucket(): Bucket {
    const { objectLock, noncurrentDays } = this.#configuration;
    const lock =
      objectLock &&
      {
        governance: ObjectLockRetention.governance(Duration.days(objectLock.days)),
        compliance: ObjectLockRetention.compliance(Duration.days(objectLock.days)),
      }[objectLock.mode];
    return new Bucket(this, 'Bucket', {
      bucketName: this.#own.bucket,
      versioned: true,
      encryption: BucketEncryption.KMS,
      encryptionKey: this.#key,
      bucketKeyEnabled: true,
      blockPublicAccess: BlockPublicAccess.BLOCK_ALL,
      objectOwnership: ObjectOwnership.BUCKET_OWNER_ENFORCED,
      enforceSSL: true,
      ...(lock === undefined ? {} : { objectLockEnabled: true, objectLockDefaultRetention: lock }),
      lifecycleRules: [
        {
          id: 'end-of-what-was-deleted',
          noncurrentVersionExpiration: Duration.days(noncurrentDays),
          expiredObjectDeleteMarker: true,
          abortIncompleteMultipartUploadAfter: Duration.days(7),
        },
      ],
      removalPolicy: RemovalPolicy.RETAIN,
    });
  }

  /**
   * A key is written once. The condition is for the roles of nodes alone: AWS refuses CopyObject under one for all, and the relay copies.
   * Both regions' nodes may write here.
   */
  #protectObjects(bucket: Bucket): void {
    const nodes = [this.#own, this.#other].flatMap((region) =>
      region === undefined
        ? []
        : [`arn:${Aws.PARTITION}:iam::${Aws.ACCOUNT_ID}:role/${region.role('node-writer')}`],
    );
    bucket.addToResourcePolicy(
      new PolicyStatement({
        sid: 'NodesNeverOverwrite',
        effect: Effect.DENY,
        // by name and not as the principal: the other region's role need not be there yet when this bucket is made
        principals: [new AnyPrincipal()],
        actions: ['s3:PutObject'],
        resources: [bucket.arnForObjects('*')],
        conditions: { ArnEquals: { 'aws:PrincipalArn': nodes }, Null: { 's3:if-none-match': 'true' } },
      }),
    );
  }

  /** Not encrypted by a key of ours: a topic that is would take no alarm unless the key lets CloudWatch use it, and holds nothing anyway. */
  #makeTopic(what: 'notices' | 'arrivals'): Topic {
    const name = `${this.#configuration.name}-${what}`;
    return new Topic(this, what === 'notices' ? 'Notices' : 'Arrivals', {
      topicName: name,
      enforceSSL: true,
    });
  }

  /** A policy of its own (that of enforceSSL) takes the place of a topic's first one, by which alarms of the account were let in. */
  #letAlarmsIn(notices: Topic): void {
    const alarms = `arn:${Aws.PARTITION}:cloudwatch:${this.#own.region}:${Aws.ACCOUNT_ID}:alarm:${this.#configuration.name}-*`;
    notices.addToResourcePolicy(
      new PolicyStatement({
        sid: 'AlarmsOfThisStack',
        principals: [new ServicePrincipal('cloudwatch.amazonaws.com')],
        actions: ['sns:Publish'],
        resources: [notices.topicArn],
        conditions: {
          ArnLike: { 'aws:SourceArn': alarms },
          StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID },
        },
      }),
    );
  }

  #makeQueue(what: string, more: ConstructorParameters<typeof Queue>[2] = {}): Queue {
    return new Queue(this, `Queue-${what}`, {
      queueName: `${this.#configuration.name}-${what}`,
      encryption: QueueEncryption.SQS_MANAGED,
      enforceSSL: true,
      retentionPeriod: KEPT,
      ...more,
    });
  }

  #makeRetention(dead: Queue): LambdaFunction {
    const { schedule, ...settings } = this.#configuration.retention;
    const made = this.#makeFunction('retention', {
      environment: environmentOf('retention', { vault: this.#own.url, ...settings }, isKnown),
      grants: [sendTo(dead)],
      memorySize: 512,
      deadLetterQueue: dead,
    });
    this.#schedule('retention', Schedule.expression(schedule), made, {}, dead);
    return made;
  }

  #makeNotify(dead: Queue): LambdaFunction {
    const { webhook, lagLimit, archiveLimit, silenceLimit } = this.#configuration.notify;
    const settings = { webhook, lagLimit, archiveLimit, silenceLimit };
    const topics = [this.#own, this.#other].flatMap((region) => region?.noticesTopic ?? []);
    const made = this.#makeFunction('notify', {
      environment: environmentOf(
        'notify',
        { vault: this.#own.url, noticeTopics: topics.join(','), ...settings },
        isKnown,
      ),
      grants: [sendTo(dead), ...this.#readStream()],
      memorySize: 256,
      timeout: Duration.minutes(2),
      // a look that failed is not made up for: the next one, a minute later, sees the same and more
      ...{ retryAttempts: 0, maxEventAge: Duration.minutes(5) },
    });
    this.#followStream(made, dead, [
      { eventName: ['INSERT'], dynamodb: { Keys: { sk: { S: [{ prefix: 'event#' }] } } } },
    ]);
    this.#schedule('look', Schedule.rate(Duration.minutes(1)), made, { look: true });
    return made;
  }

  #makeRelay(failed: Queue): LambdaFunction {
    const other = this.#other!;
    const made = this.#makeFunction('relay', {
      environment: environmentOf(
        'relay',
        { vault: this.#own.url, relayTo: other.url, arrivalsTopic: other.arrivalsTopic },
        isKnown,
      ),
      grants: [
        sendTo(failed),
        ...this.#readStream(),
        new PolicyStatement({
          actions: ['sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes'],
          resources: [failed.queueArn],
        }),
      ],
      // a whole processor: verifying and, where the store cannot copy by itself, carrying the bytes
      memorySize: 1769,
    });
    const eventName = ['INSERT', 'MODIFY']; // what retention deletes is the replica's own affair
    this.#followStream(made, failed, [
      { eventName, dynamodb: { Keys: { sk: { S: RELAYED.map((prefix) => ({ prefix })) } } } },
      { eventName, dynamodb: { Keys: { sk: { S: ['control'] } } } },
    ]);
    new CfnEventSourceMapping(this, 'RelayFailed', {
      functionName: made.functionName,
      eventSourceArn: failed.queueArn,
      batchSize: 10,
      functionResponseTypes: ['ReportBatchItemFailures'],
      scalingConfig: { maximumConcurrency: 2 },
    });
    this.#schedule('pass', Schedule.rate(Duration.minutes(5)), made, { sweep: false });
    this.#schedule('sweep', Schedule.rate(Duration.days(1)), made, { sweep: true });
    return made;
  }

  #makeFunction(
    name: FunctionName,
    made: {
      environment: Record<string, string>;
      grants: PolicyStatement[];
      memorySize: number;
      timeout?: Duration;
      deadLetterQueue?: Queue;
      retryAttempts?: number;
      maxEventAge?: Duration;
    },
  ): LambdaFunction {
    const { grants, ...props } = made;
    const functionName = `${this.#configuration.name}-${name}`;
    const logGroup = new LogGroup(this, `Log-${name}`, {
      logGroupName: `/aws/lambda/${functionName}`,
      retention: RetentionDays.THREE_MONTHS,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    const role = this.#makeRole(name, {
      assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
      inlinePolicies: {
        vault: new PolicyDocument({ statements: statementsOf(name, this.#placesOfFunctions()) }),
        service: new PolicyDocument({
          statements: [
            new PolicyStatement({
              actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
              resources: [`${logGroup.logGroupArn}`],
            }),
            ...grants,
          ],
        }),
      },
    });
    return new LambdaFunction(this, `Function-${name}`, {
      functionName,
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      code: Code.fromAsset(path.join(this.#bundles, name)),
      handler: 'index.handler',
      timeout: LONGEST,
      // all that it may do stands in infra/roles.ts: no construct adds to it
      role: role.withoutPolicyUpdates(),
      logGroup,
      ...props,
    });
  }

  /** Functions need neither each other nor the queue of the dead. */
  #placesOfFunctions(): Places {
    const { kms, prefix, clusters } = this.#configuration;
    return {
      ...{ own: this.#own, other: this.#other, keyArn: this.#key.keyArn, prefix, clusters },
      otherKeyArn: kms[this.#side === 'primary' ? 'dr' : 'primary'],
      ...{ functions: [], queues: undefined },
    };
  }

  /** Lambda refuses an event source whose role cannot list streams, which IAM allows for all of them or for none. */
  #readStream(): PolicyStatement[] {
    return [
      new PolicyStatement({
        actions: ['dynamodb:DescribeStream', 'dynamodb:GetRecords', 'dynamodb:GetShardIterator'],
        resources: [this.#table.tableStreamArn!],
      }),
      new PolicyStatement({ actions: ['dynamodb:ListStreams'], resources: ['*'] }),
    ];
  }

  #followStream(to: LambdaFunction, failures: Queue, patterns: object[]): void {
    new CfnEventSourceMapping(this, `Stream-${to.node.id}`, {
      functionName: to.functionName,
      eventSourceArn: this.#table.tableStreamArn!,
      startingPosition: 'TRIM_HORIZON',
      batchSize: 100,
      maximumBatchingWindowInSeconds: 1,
      filterCriteria: { filters: patterns.map((pattern) => ({ pattern: JSON.stringify(pattern) })) },
      functionResponseTypes: ['ReportBatchItemFailures'],
      bisectBatchOnFunctionError: true,
      maximumRetryAttempts: 5,
      maximumRecordAgeInSeconds: Duration.hours(6).toSeconds(),
      destinationConfig: { onFailure: { destination: failures.queueArn } },
    });
  }

  /** @param undelivered  takes calls that did not reach the function */
  #schedule(
    id: string,
    schedule: Schedule,
    target: LambdaFunction,
    event: Record<string, unknown>,
    undelivered?: Queue,
  ): void {
    new Rule(this, `Schedule-${id}`, {
      ruleName: `${this.#configuration.name}-${id}`,
      schedule,
      // the next one comes by itself: an old one is of no use
      targets: [
        new LambdaTarget(target, {
          event: RuleTargetInput.fromObject(event),
          maxEventAge: Duration.minutes(5),
          retryAttempts: 2,
          ...(undelivered === undefined ? {} : { deadLetterQueue: undelivered }),
        }),
      ],
    });
  }

  #makeRole(
    name: RoleName,
    props: Omit<RoleProps, 'roleName'> & { inlinePolicies: Record<string, PolicyDocument> },
  ): Role {
    const roleName = this.#own.role(name);
    checkPolicySize(roleName, Object.values(props.inlinePolicies), this);
    return new Role(this, `Role-${name}`, { roleName, ...props });
  }

  #makePersonRoles(places: Places): void {
    const { principals } = this.#configuration;
    const people =
      principals.length === 0
        ? [new AccountPrincipal(Aws.ACCOUNT_ID)]
        : principals.map((arn) => new ArnPrincipal(arn));
    for (const name of ['node-writer', 'node-reader', 'operator'] as const satisfies RoleName[]) {
      const isNode = name !== 'operator';
      const role = this.#makeRole(name, {
        // a server on EC2 has its role by its instance; any other takes it by STS
        assumedBy: new CompositePrincipal(
          ...people,
          ...(isNode ? [new ServicePrincipal('ec2.amazonaws.com')] : []),
        ),
        inlinePolicies: { vault: new PolicyDocument({ statements: statementsOf(name, places) }) },
        maxSessionDuration: Duration.hours(12),
      });
      if (isNode)
        new InstanceProfile(this, `Profile-${name}`, { role, instanceProfileName: this.#own.role(name) });
    }
  }

  #limits(): Watched['limits'] {
    const { lagLimit, archiveLimit } = this.#configuration.notify;
    const seconds = (name: 'lagLimit' | 'archiveLimit', given: string | undefined): number =>
      Math.round((parseSetting(name, given ?? SETTINGS[name].default, name) as number) / 1000);
    return { lag: seconds('lagLimit', lagLimit), archive: seconds('archiveLimit', archiveLimit) };
  }

  #makeAlarms(notices: Topic, watched: Watched): void {
    for (const row of ALARMS) {
      const metric = row.metric(watched);
      if (metric === undefined) continue;
      const alarm = new Alarm(this, `Alarm-${row.id}`, {
        alarmName: `${this.#configuration.name}-${row.id}`,
        alarmDescription: `${row.says} What to do: ${linkOf(row.id, this.#configuration.runbookUrl)}`,
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

  #makeDashboard(functions: Watched['functions'], queues: readonly (Queue | undefined)[]): void {
    const perCluster = (metric: keyof typeof METRICS) =>
      new MathExpression({
        expression: `SEARCH('{${NAMESPACE},Vault,Cluster} Vault="${this.#own.table}" MetricName="${METRICS[metric].name}"', 'Maximum', 60)`,
        label: '',
        usingMetrics: {},
      });
    const all = Object.values(functions).filter((each) => each !== undefined);
    const ofTable = ['ConsumedReadCapacityUnits', 'ConsumedWriteCapacityUnits', ...THROTTLED].map(
      (metricName) =>
        new Metric({
          ...{ namespace: 'AWS/DynamoDB', metricName, statistic: 'Sum', period: Duration.minutes(1) },
          dimensionsMap: { TableName: this.#own.table },
        }),
    );
    new Dashboard(this, 'Dashboard', {
      dashboardName: `${this.#configuration.name}-${this.#own.region}`,
      widgets: [
        [
          new GraphWidget({
            title: 'Oldest segment that waits on the primary, s',
            left: [perCluster('archiveWait')],
            width: 8,
          }),
          ...(this.#other === undefined
            ? []
            : [
                new GraphWidget({
                  title: 'Other region behind, s',
                  left: [perCluster('relayLag')],
                  width: 8,
                }),
              ]),
          new GraphWidget({ title: 'Silent nodes', left: [perCluster('silentNodes')], width: 8 }),
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

  #makeOutputs(dead: Queue | undefined): void {
    const say = (id: string, value: string, description: string) =>
      new CfnOutput(this, id, { value, description });
    const { url, role, noticesTopic, arrivalsTopic } = this.#own;
    say('VaultUrl', url, 'the vault of this region');
    say(
      'KeyArn',
      this.#key.keyArn,
      'KMS key of the objects: it outlives the stack, and is named when it is deployed again',
    );
    if (this.#side === 'primary') {
      const cluster = this.#configuration.clusters?.[0] ?? 'main';
      say(
        'InitLine',
        `walvault init --vault '${url}' --cluster ${cluster} --pgdata $PGDATA --node db1`,
        'on the primary, as operator',
      );
    }
    for (const name of ['node-writer', 'node-reader', 'operator'] as const)
      say(
        `${name.replaceAll(/(?:^|-)([a-z])/g, (_, letter: string) => letter.toUpperCase())}Role`,
        `arn:${Aws.PARTITION}:iam::${Aws.ACCOUNT_ID}:role/${role(name)}`,
        `role of ${name}s`,
      );
    say('NoticesTopic', noticesTopic, 'for people: what happened, and alarms');
    say('ArrivalsTopic', arrivalsTopic, 'for programs: what the relay brought here');
    if (dead !== undefined) say('RelayDeadQueue', dead.queueUrl, 'what the relay gave up');
  }
}

/** A token is known when it is deployed. */
const isKnown = (value: string): boolean => !Token.isUnresolved(value);

const sendTo = (queue: Queue): PolicyStatement =>
  new PolicyStatement({ actions: ['sqs:SendMessage'], resources: [queue.queueArn] });
