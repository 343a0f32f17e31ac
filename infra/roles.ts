/**
 * Who may do what: one table, from which the policies are made. Fewest actions on fewest keys; a test records what the program really asks
 * for and compares both ways.
 *
 * Partitions of the table: `<cluster>` holds `control` (epoch, primary), `<cluster>/<system id>` everything else of a cluster, `#clusters`
 * their list, `#notices#<cluster>` what functions keep of whom they told what. IAM knows the partition (dynamodb:LeadingKeys) and not the
 * row, so whoever writes one row of a partition may write each of it. A transaction is allowed by its single items.
 *
 * ListBucket stands wherever an object is read: without it S3 says 403 of a key that is not there, and absence must be told from refusal.
 * Source: Amazon DynamoDB Developer Guide, "Using IAM policy conditions for fine-grained access control"; Amazon S3 API Reference, GetObject.
 */
import { Aws } from 'aws-cdk-lib';
import { Effect, PolicyStatement } from 'aws-cdk-lib/aws-iam';
import { NAMESPACE } from '../core/cluster/metrics.ts';
import type { Region } from './names.ts';

export const ROLE_NAMES = [
  'node-writer',
  'node-reader',
  'operator',
  'retention',
  'relay',
  'notify',
  'witness',
] as const;
export type RoleName = (typeof ROLE_NAMES)[number];

/** The role's own region, or the other one: a grant on the other is left out where there is none. */
type Side = 'own' | 'other';
/** `control`: pk `<cluster>`; `rows`: pk `<cluster>/<system id>`. */
type Partition = 'control' | 'rows' | 'clusters' | 'notices';
/** Below `<cluster>/<system id>/`; 'node': what a node proves its rights with. `control` lies beside them, below the cluster. */
type Folder = 'wal' | 'history' | 'backup' | 'aside' | 'logs' | 'stream' | 'node' | 'control';

/** What the configuration asks of the witness beyond watching: it has the right to no more. */
export type Asked = 'auto_failover' | 'dr_failover';

/** `if`: only where one of these is asked for. */
type Grant = { if?: readonly Asked[] } & (
  | { objects: Folder[]; on: Side; actions: ('s3:GetObject' | 's3:PutObject' | 's3:DeleteObject')[] }
  | { list: true; on: Side }
  | {
      table: Partition[];
      on: Side;
      actions: ('GetItem' | 'Query' | 'PutItem' | 'DeleteItem' | 'ConditionCheckItem')[];
    }
  | { key: ('kms:Decrypt' | 'kms:GenerateDataKey')[]; on: Side }
  | { publish: 'notices' | 'arrivals'; on: Side }
  | { metrics: true }
  /** What an operator asks the functions for, and the redrive of what a queue of the dead holds. */
  | { functions: true }
);

const WAL: Folder[] = ['wal', 'history', 'backup', 'aside'];

/** Nodes of either region: with DR a primary may spill into the other vault, and a standby of one may come to follow the other. */
const node = (on: Side): Grant[] => [
  { objects: [...WAL, 'logs', 'stream', 'node'], on, actions: ['s3:GetObject', 's3:PutObject'] },
  { list: true, on },
  { table: ['control', 'rows'], on, actions: ['GetItem', 'Query', 'ConditionCheckItem'] },
  { table: ['rows'], on, actions: ['PutItem'] },
  { key: ['kms:Decrypt', 'kms:GenerateDataKey'], on },
];

/** Triggers across vaults, salvage, converging: in either region the same. It deletes no object: the functions do. */
const operator = (on: Side): Grant[] => [
  { objects: [...WAL, 'logs', 'node', 'control'], on, actions: ['s3:GetObject', 's3:PutObject'] },
  { list: true, on },
  {
    table: ['control', 'rows', 'clusters'],
    on,
    actions: ['GetItem', 'Query', 'PutItem', 'DeleteItem', 'ConditionCheckItem'],
  },
  { key: ['kms:Decrypt', 'kms:GenerateDataKey'], on },
];

/** A trigger of the witness; where the primary may spill into the other vault, that is fenced and what it took is brought home. */
const trigger = (
  [
    { table: ['control'], on: 'own', actions: ['PutItem'] },
    { table: ['control', 'rows'], on: 'own', actions: ['ConditionCheckItem'] },
    { objects: ['control', 'wal'], on: 'own', actions: ['s3:PutObject'] },
    { objects: ['wal'], on: 'own', actions: ['s3:GetObject'] },
    { list: true, on: 'own' },
    { key: ['kms:Decrypt', 'kms:GenerateDataKey'], on: 'own' },
    { table: ['control', 'rows'], on: 'other', actions: ['PutItem'] },
    { objects: ['control'], on: 'other', actions: ['s3:PutObject'] },
    { objects: ['wal'], on: 'other', actions: ['s3:GetObject'] },
    { list: true, on: 'other' },
    { key: ['kms:Decrypt', 'kms:GenerateDataKey'], on: 'other' },
  ] as const satisfies Grant[]
).map((grant): Grant => ({ ...grant, if: ['auto_failover', 'dr_failover'] }));

/** What a take-over by the witness of a replica asks for besides: it carries as a relay does, and settles what was spilled on either side. */
const takeOver = (
  [
    { table: ['rows'], on: 'own', actions: ['DeleteItem'] },
    { objects: ['history'], on: 'own', actions: ['s3:GetObject', 's3:PutObject'] },
    { table: ['control', 'rows'], on: 'other', actions: ['ConditionCheckItem'] },
    { objects: ['wal'], on: 'other', actions: ['s3:PutObject'] },
  ] as const satisfies Grant[]
).map((grant): Grant => ({ ...grant, if: ['dr_failover'] }));

export const ROLES: Record<RoleName, readonly Grant[]> = {
  'node-writer': [...node('own'), ...node('other')],
  // restores copies; it can take no hold, since a row of a partition cannot be allowed alone
  'node-reader': [
    { objects: [...WAL, 'stream'], on: 'own', actions: ['s3:GetObject'] },
    { list: true, on: 'own' },
    { table: ['control', 'rows'], on: 'own', actions: ['GetItem', 'Query'] },
    { key: ['kms:Decrypt'], on: 'own' },
  ],
  operator: [...operator('own'), ...operator('other'), { functions: true }],
  retention: [
    { objects: ['wal', 'backup'], on: 'own', actions: ['s3:DeleteObject'] },
    { list: true, on: 'own' },
    {
      table: ['control', 'rows', 'clusters'],
      on: 'own',
      actions: ['GetItem', 'Query', 'ConditionCheckItem'],
    },
    { table: ['rows'], on: 'own', actions: ['PutItem', 'DeleteItem'] },
    { metrics: true },
  ],
  relay: [
    // its own vault: reads; says how far it is; brings home what was spilled into the other one
    { objects: WAL, on: 'own', actions: ['s3:GetObject'] },
    { objects: ['wal'], on: 'own', actions: ['s3:PutObject'] },
    { list: true, on: 'own' },
    {
      table: ['control', 'rows', 'clusters'],
      on: 'own',
      actions: ['GetItem', 'Query', 'ConditionCheckItem'],
    },
    { table: ['control', 'rows'], on: 'own', actions: ['PutItem'] },
    { key: ['kms:Decrypt', 'kms:GenerateDataKey'], on: 'own' },
    { objects: [...WAL, 'control'], on: 'other', actions: ['s3:GetObject', 's3:PutObject'] },
    { list: true, on: 'other' },
    { table: ['control', 'rows', 'clusters', 'notices'], on: 'other', actions: ['GetItem', 'PutItem'] },
    { table: ['control', 'rows'], on: 'other', actions: ['Query', 'ConditionCheckItem'] },
    { table: ['rows'], on: 'other', actions: ['DeleteItem'] },
    { key: ['kms:Decrypt', 'kms:GenerateDataKey'], on: 'other' },
    { publish: 'arrivals', on: 'other' },
  ],
  notify: [
    { table: ['control', 'rows', 'clusters', 'notices'], on: 'own', actions: ['GetItem', 'Query'] },
    { table: ['notices'], on: 'own', actions: ['PutItem'] },
    { publish: 'notices', on: 'own' },
    { publish: 'notices', on: 'other' },
    { metrics: true },
  ],
  witness: [
    // watches, here and from a replica, and says what it saw: its row, events
    { table: ['control', 'rows', 'clusters'], on: 'own', actions: ['GetItem', 'Query'] },
    { table: ['control', 'rows'], on: 'other', actions: ['GetItem', 'Query'] },
    { table: ['rows'], on: 'own', actions: ['PutItem'] },
    { metrics: true },
    ...trigger,
    ...takeOver,
  ],
};

/** What stands in the policies' resources. */
export type Places = {
  own: Region;
  other: Region | undefined;
  /** ARN of the key of the own region; the other's is known by its alias only. */
  keyArn: string;
  /** ARN of a key of the other region that was there already. */
  otherKeyArn: string | undefined;
  prefix: string;
  clusters: readonly string[] | undefined;
  asked: readonly Asked[];
  /** ARNs. */
  functions: readonly string[];
  queues: { failed: string; dead: string } | undefined;
};

export function statementsOf(role: RoleName, places: Places): PolicyStatement[] {
  return ROLES[role]
    .filter(({ if: asked }) => asked === undefined || asked.some((each) => places.asked.includes(each)))
    .flatMap((grant) => statements(grant, places));
}

function statements(grant: Grant, places: Places): PolicyStatement[] {
  const allow = (
    actions: string[],
    resources: string[],
    conditions?: Record<string, Record<string, unknown>>,
  ) =>
    new PolicyStatement({
      effect: Effect.ALLOW,
      actions,
      resources,
      ...(conditions === undefined ? {} : { conditions }),
    });
  if ('metrics' in grant)
    return [
      allow(['cloudwatch:PutMetricData'], ['*'], { StringEquals: { 'cloudwatch:namespace': NAMESPACE } }),
    ];
  if ('functions' in grant) {
    const { functions, queues } = places;
    const redrive = queues && [
      allow(
        ['sqs:StartMessageMoveTask', 'sqs:ReceiveMessage', 'sqs:DeleteMessage', 'sqs:GetQueueAttributes'],
        [queues.dead],
      ),
      allow(['sqs:SendMessage'], [queues.failed]),
    ];
    return [
      ...(functions.length === 0 ? [] : [allow(['lambda:InvokeFunction'], [...functions])]),
      ...(redrive ?? []),
    ];
  }
  const place = grant.on === 'own' ? places.own : places.other;
  if (place === undefined) return [];
  if ('publish' in grant)
    return [allow(['sns:Publish'], [grant.publish === 'notices' ? place.noticesTopic : place.arrivalsTopic])];
  if ('list' in grant) return [allow(['s3:ListBucket'], [place.bucketArn])];
  const clusters = places.clusters ?? ['*'];
  if ('objects' in grant) {
    const before = places.prefix === '' ? '' : `${places.prefix}/`;
    const keys = clusters.flatMap((cluster) =>
      grant.objects.map((folder) =>
        folder === 'control' ? `${cluster}/control/*` : `${cluster}/*/${folder}/*`,
      ),
    );
    return [
      allow(
        grant.actions,
        keys.map((key) => `${place.bucketArn}/${before}${key}`),
      ),
    ];
  }
  if ('table' in grant) {
    const patterns = grant.table.flatMap((partition) =>
      clusters.map((cluster) => PATTERNS[partition](cluster)),
    );
    return [
      allow(
        grant.actions.map((action) => `dynamodb:${action}`),
        [place.tableArn],
        {
          'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': [...new Set(patterns)] },
          // ForAllValues holds of no key at all: a request without one is none of ours
          Null: { 'dynamodb:LeadingKeys': 'false' },
        },
      ),
    ];
  }
  const viaS3 = { StringEquals: { 'kms:ViaService': `s3.${place.region}.${Aws.URL_SUFFIX}` } };
  if (grant.on === 'own') return [allow(grant.key, [places.keyArn], viaS3)];
  if (places.otherKeyArn !== undefined) return [allow(grant.key, [places.otherKeyArn], viaS3)];
  return [
    allow(grant.key, [`arn:${Aws.PARTITION}:kms:${place.region}:${Aws.ACCOUNT_ID}:key/*`], {
      ...viaS3,
      'ForAnyValue:StringEquals': { 'kms:ResourceAliases': place.keyAlias },
    }),
  ];
}

/** A cluster's name has neither '/' nor '#', but IAM's `*` matches both: 'control' of any cluster is therefore any partition. */
const PATTERNS: Record<Partition, (cluster: string) => string> = {
  control: (cluster) => cluster,
  rows: (cluster) => `${cluster}/*`,
  clusters: () => '#clusters',
  notices: (cluster) => `#notices#${cluster}`,
};
