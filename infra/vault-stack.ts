/**
 * One region of a deployment: the vault (bucket and table), the functions that work for it (infra/functions.ts), who watches them
 * (infra/watching.ts), and the roles (infra/roles.ts). Both regions are the same stack; what differs is which one it calls the other.
 *
 * Bucket, table and key outlive the stack. Deployed again beside them it takes up bucket and table by their names, and the key by its ARN:
 * `npm run deploy -- --import-existing-resources`, with kms.primary and kms.dr. The key's alias stays, too: it says which key that is, and a
 * new key cannot take its place unseen, under which no role could read the old objects.
 *
 * Rests on: Amazon S3 User Guide, "Enforcing conditional writes" (a policy on s3:if-none-match refuses CopyObject, too).
 */
import { Aws, CfnOutput, Duration, RemovalPolicy, Stack, type StackProps, Tags } from 'aws-cdk-lib';
import { AttributeType, BillingMode, StreamViewType, Table } from 'aws-cdk-lib/aws-dynamodb';
import {
  AccountPrincipal,
  AnyPrincipal,
  ArnPrincipal,
  CompositePrincipal,
  Effect,
  InstanceProfile,
  PolicyDocument,
  PolicyStatement,
  ServicePrincipal,
} from 'aws-cdk-lib/aws-iam';
import { Alias, type IKey, Key } from 'aws-cdk-lib/aws-kms';
import {
  BlockPublicAccess,
  Bucket,
  BucketEncryption,
  ObjectLockRetention,
  ObjectOwnership,
} from 'aws-cdk-lib/aws-s3';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import type { Queue } from 'aws-cdk-lib/aws-sqs';
import type { Construct } from 'constructs';
import { askedOf, type Configuration } from './configuration.ts';
import { Functions } from './functions.ts';
import { makeRole } from './make-role.ts';
import { namesOf, type Region } from './names.ts';
import { statementsOf, type Places, type RoleName } from './roles.ts';
import { limitsOf, makeAlarms, makeDashboard } from './watching.ts';

export type VaultStackProps = StackProps & {
  configuration: Configuration;
  /** Which of the configuration's regions this is. */
  side: 'primary' | 'dr';
  /** Folder of the bundles: dist/lambdas. */
  bundles: string;
};

export class VaultStack extends Stack {
  readonly #configuration: Configuration;
  readonly #side: 'primary' | 'dr';
  readonly #own: Region;
  readonly #other: Region | undefined;
  readonly #key: IKey;

  constructor(scope: Construct, id: string, { configuration, side, bundles, ...props }: VaultStackProps) {
    super(scope, id, props);
    const { regions } = configuration;
    const [own, other] = side === 'primary' ? [regions.primary, regions.dr] : [regions.dr!, regions.primary];
    this.#configuration = configuration;
    this.#side = side;
    this.#own = namesOf(configuration, own);
    this.#other = other === undefined ? undefined : namesOf(configuration, other);
    this.#key = this.#makeKey();
    const table = this.#makeTable();
    const bucket = this.#makeBucket();

    const notices = this.#makeTopic('notices');
    this.#letAlarmsIn(notices);
    this.#makeTopic('arrivals');
    const { email } = configuration.notify;
    if (email !== undefined) notices.addSubscription(new EmailSubscription(email));

    const places: Places = {
      ...{ own: this.#own, other: this.#other, keyArn: this.#key.keyArn },
      otherKeyArn: configuration.kms[side === 'primary' ? 'dr' : 'primary'],
      ...{ prefix: configuration.prefix, clusters: configuration.clusters },
      ...{ asked: askedOf(configuration), functions: [], queues: undefined },
    };
    const functions = new Functions(this, { configuration, places, table, bundles });
    const { all, dead, relayFailed } = functions;
    this.#makePersonRoles({
      ...places,
      functions: Object.values(all).flatMap((each) => each?.functionArn ?? []),
      queues: relayFailed && dead.relay && { failed: relayFailed.queueArn, dead: dead.relay.queueArn },
    });
    this.#protectObjects(bucket);
    const watched = { table: this.#own.table, functions: all, dead, limits: limitsOf(configuration) };
    makeAlarms(this, configuration, notices, watched);
    makeDashboard(this, configuration, watched, [...Object.values(dead), relayFailed]);
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

  #makePersonRoles(places: Places): void {
    const { principals } = this.#configuration;
    const people =
      principals.length === 0
        ? [new AccountPrincipal(Aws.ACCOUNT_ID)]
        : principals.map((arn) => new ArnPrincipal(arn));
    for (const name of ['node-writer', 'node-reader', 'operator'] as const satisfies RoleName[]) {
      const isNode = name !== 'operator';
      const role = makeRole(this, this.#own, name, {
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
