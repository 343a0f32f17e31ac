/**
 * The functions of one region: what each is given, what wakes it, where what it could not do is laid aside, and its role. Constructs of the
 * stack itself, by which they are known when it is deployed again.
 *
 * Rests on: AWS Lambda Developer Guide, "Using AWS Lambda with Amazon DynamoDB" (partial batch responses, bisecting, failure destinations).
 */
import path from 'node:path';
import { Duration, RemovalPolicy, type Stack, Token } from 'aws-cdk-lib';
import type { Table } from 'aws-cdk-lib/aws-dynamodb';
import { Rule, RuleTargetInput, Schedule } from 'aws-cdk-lib/aws-events';
import { LambdaFunction as LambdaTarget } from 'aws-cdk-lib/aws-events-targets';
import { PolicyDocument, PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import {
  Architecture,
  CfnEventSourceMapping,
  Code,
  Function as LambdaFunction,
  Runtime,
} from 'aws-cdk-lib/aws-lambda';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import { Queue, QueueEncryption } from 'aws-cdk-lib/aws-sqs';
import { WATCH_EVERY_MS, WATCH_MS } from '../core/cluster/decide-watch.ts';
import { environmentOf, type FunctionName } from '../core/settings/environment.ts';
import type { Configuration } from './configuration.ts';
import { makeRole } from './make-role.ts';
import { statementsOf, type Places } from './roles.ts';

/** Lambda's longest run; a pass or a run that does not end in it is taken up again. */
const LONGEST = Duration.minutes(15);
/** Below a queue's own limit of 14 days, above any weekend. */
const KEPT = Duration.days(14);
/** After a watch: for a trigger that it has begun, with a replica to fence, and for its figures. */
const END_OF_WATCH = Duration.seconds(35);

/** Changes that bring something to a replica. The head moves with each of them and with each heartbeat: it would wake the relay for nothing. */
const RELAYED = ['wal#', 'tail#', 'history#', 'backup#', 'spill#'];

export type FunctionsProps = {
  configuration: Configuration;
  /** Functions need neither each other nor the queue of the dead: those of the places are not looked at. */
  places: Places;
  table: Table;
  /** Folder of the bundles: dist/lambdas. */
  bundles: string;
};

export class Functions {
  readonly all: Record<'retention' | 'notify', LambdaFunction> &
    Record<'relay' | 'witness', LambdaFunction | undefined>;
  readonly dead: Record<'retention' | 'notify', Queue> & { relay: Queue | undefined };
  /** What the stream gave up, which the relay takes up again. */
  readonly relayFailed: Queue | undefined;
  readonly #stack: Stack;
  readonly #configuration: Configuration;
  readonly #places: Places;
  readonly #table: Table;
  readonly #bundles: string;

  constructor(stack: Stack, { configuration, places, table, bundles }: FunctionsProps) {
    this.#stack = stack;
    this.#configuration = configuration;
    this.#places = places;
    this.#table = table;
    this.#bundles = bundles;
    this.dead = {
      retention: this.#makeQueue('retention-dead'),
      notify: this.#makeQueue('notify-dead'),
      relay: places.other && this.#makeQueue('relay-dead'),
    };
    this.relayFailed =
      this.dead.relay &&
      this.#makeQueue('relay-failed', {
        // a message is Lambda's for as long as its function may run; what fails comes back after that
        visibilityTimeout: Duration.minutes(16),
        deadLetterQueue: { queue: this.dead.relay, maxReceiveCount: 5 },
      });
    const { witness } = configuration;
    this.all = {
      retention: this.#makeRetention(this.dead.retention),
      notify: this.#makeNotify(this.dead.notify),
      relay: this.relayFailed && this.#makeRelay(this.relayFailed),
      witness: witness && this.#makeWitness(witness),
    };
  }

  #makeQueue(what: string, more: ConstructorParameters<typeof Queue>[2] = {}): Queue {
    return new Queue(this.#stack, `Queue-${what}`, {
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
      environment: environmentOf('retention', { vault: this.#places.own.url, ...settings }, isKnown),
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
    const topics = [this.#places.own, this.#places.other].flatMap((region) => region?.noticesTopic ?? []);
    const made = this.#makeFunction('notify', {
      environment: environmentOf(
        'notify',
        { vault: this.#places.own.url, noticeTopics: topics.join(','), ...settings },
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
    const other = this.#places.other!;
    const made = this.#makeFunction('relay', {
      environment: environmentOf(
        'relay',
        { vault: this.#places.own.url, relayTo: other.url, arrivalsTopic: other.arrivalsTopic },
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
    new CfnEventSourceMapping(this.#stack, 'RelayFailed', {
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

  /** A watch that failed is not made up for, and laid aside nowhere: the next one begins within the minute. */
  #makeWitness(settings: NonNullable<Configuration['witness']>): LambdaFunction {
    const made = this.#makeFunction('witness', {
      environment: environmentOf('witness', { vault: this.#places.own.url, ...settings }, isKnown),
      grants: [],
      memorySize: 256,
      timeout: Duration.millis(WATCH_MS).plus(END_OF_WATCH),
      ...{ retryAttempts: 0, maxEventAge: Duration.minutes(1) },
    });
    this.#schedule('watch', Schedule.rate(Duration.millis(WATCH_EVERY_MS)), made, {});
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
    const logGroup = new LogGroup(this.#stack, `Log-${name}`, {
      logGroupName: `/aws/lambda/${functionName}`,
      retention: RetentionDays.THREE_MONTHS,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    const role = makeRole(this.#stack, this.#places.own, name, {
      assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
      inlinePolicies: {
        vault: new PolicyDocument({ statements: statementsOf(name, this.#places) }),
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
    return new LambdaFunction(this.#stack, `Function-${name}`, {
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
    new CfnEventSourceMapping(this.#stack, `Stream-${to.node.id}`, {
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
    new Rule(this.#stack, `Schedule-${id}`, {
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
}

/** A token is known when it is deployed. */
const isKnown = (value: string): boolean => !Token.isUnresolved(value);

const sendTo = (queue: Queue): PolicyStatement =>
  new PolicyStatement({ actions: ['sqs:SendMessage'], resources: [queue.queueArn] });
