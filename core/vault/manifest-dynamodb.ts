/**
 * A manifest in one DynamoDB table: keys pk and sk (text), a row's members as attributes of their own.
 *
 * Source: Amazon DynamoDB Developer Guide, "Amazon DynamoDB Transactions": a cancelled transaction gives one reason per item, in
 * order; the SDK does not try a cancelled one again; the same ClientRequestToken is carried out once within ten minutes.
 */
import {
  type CancellationReason,
  CreateTableCommand,
  DescribeTableCommand,
  DynamoDBClient,
  GetItemCommand,
  QueryCommand,
  type AttributeValue,
  type TransactWriteItem,
  TransactWriteItemsCommand,
} from '@aws-sdk/client-dynamodb';
import { marshall, unmarshall } from '@aws-sdk/util-dynamodb';
import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { VaultError } from '../errors.ts';
import {
  attemptMsOf,
  awsFailure,
  type AwsFailure,
  type AwsPlace,
  clientSettings,
  isAnswerLost,
} from './aws-client.ts';
import { checkChanges, keyOf } from './changes.ts';
import type { Change, Condition, Manifest, Outcome, Row } from './manifest.ts';
import { DEFAULT_TIMEOUT_MS, pause, withLimit } from './time-limit.ts';

export type DynamoPlace = AwsPlace & { table: string };
type Options = { timeoutMs?: number };
type Item = Record<string, AttributeValue>;

/** How long a new table may take until it serves, in ms. */
const TABLE_MS = 120_000;

function connect(place: DynamoPlace, timeoutMs: number): DynamoDBClient {
  return new DynamoDBClient(clientSettings('DYNAMODB', place, attemptMsOf(timeoutMs), true));
}

function explained(error: unknown, what: string, place: DynamoPlace): unknown {
  const missing = `look at table and region in the vault's URL, or make it: walvault init --create-table`;
  return awsFailure(error, what, `table '${place.table}'`, missing, place);
}

/** Makes the table unless it is there, and waits until it serves: on-demand billing, keys pk and sk. */
export async function createDynamoTable(place: DynamoPlace, options: Options = {}): Promise<void> {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const client = connect(place, timeoutMs);
  const TableName = place.table;
  const describe = () =>
    withLimit(timeoutMs, `a look at table '${TableName}'`, async ({ signal }) => {
      try {
        return (await client.send(new DescribeTableCommand({ TableName }), { abortSignal: signal })).Table;
      } catch (error) {
        if ((error as AwsFailure).name === 'ResourceNotFoundException') return undefined;
        throw error;
      }
    });
  const until = performance.now() + TABLE_MS;
  try {
    let table = await describe();
    if (table === undefined) {
      try {
        await withLimit(timeoutMs, `making table '${TableName}'`, ({ signal }) =>
          client.send(
            new CreateTableCommand({
              TableName,
              BillingMode: 'PAY_PER_REQUEST',
              AttributeDefinitions: ['pk', 'sk'].map((AttributeName) => ({
                AttributeName,
                AttributeType: 'S',
              })),
              KeySchema: [
                { AttributeName: 'pk', KeyType: 'HASH' },
                { AttributeName: 'sk', KeyType: 'RANGE' },
              ],
            }),
            { abortSignal: signal },
          ),
        );
      } catch (error) {
        // somebody else makes it at the same time, or our first attempt had come through
        if ((error as AwsFailure).name !== 'ResourceInUseException') throw error;
      }
    }
    while ((table = await describe())?.TableStatus !== 'ACTIVE') {
      if (performance.now() > until) {
        throw new VaultError('unreachable', `table '${TableName}' does not serve after ${TABLE_MS} ms`, {
          hint: 'look at it in the AWS console, then try again.',
        });
      }
      await pause(200);
    }
    const schema = (table?.KeySchema ?? [])
      .map(({ AttributeName, KeyType }) => `${KeyType} ${AttributeName}`)
      .join(', ');
    if (schema !== 'HASH pk, RANGE sk') {
      throw new VaultError(
        'unconfigured',
        `table '${TableName}' has the keys ${schema}, walvault's are HASH pk, RANGE sk`,
        {
          hint: 'name another table in the URL: …?table=walvault',
        },
      );
    }
  } catch (error) {
    throw explained(error, `make table '${TableName}'`, place);
  } finally {
    client.destroy();
  }
}

export function dynamoManifest(name: string, place: DynamoPlace, options: Options = {}): Manifest {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const client = connect(place, timeoutMs);
  /** Transactions are tried again here, not by the SDK, so that it is known whether an answer was lost. */
  const once = new DynamoDBClient({ ...connectOnce(place, timeoutMs), maxAttempts: 1 });
  const TableName = place.table;

  const guarded = async <T>(what: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> => {
    try {
      return await withLimit(timeoutMs, `${what} in table '${TableName}'`, ({ signal }) => work(signal));
    } catch (error) {
      throw explained(error, what, place);
    }
  };

  return {
    name,

    async get({ pk, sk }) {
      return guarded(`read '${sk}'`, async (abortSignal) => {
        const { Item } = await client.send(
          new GetItemCommand({ TableName, Key: { pk: { S: pk }, sk: { S: sk } }, ConsistentRead: true }),
          { abortSignal },
        );
        return Item && rowOf(Item);
      });
    },

    async *query({ pk, from, to, descending = false, limit = Infinity }) {
      const conditions = ['pk = :pk'];
      const values: Item = { ':pk': { S: pk } };
      // DynamoDB takes one condition on the sort key: >= and < together are a BETWEEN, whose upper end is then left out here
      if (from !== undefined) values[':from'] = { S: from };
      if (to !== undefined) values[':to'] = { S: to };
      if (from !== undefined && to !== undefined) conditions.push('sk BETWEEN :from AND :to');
      else if (from !== undefined) conditions.push('sk >= :from');
      else if (to !== undefined) conditions.push('sk < :to');
      if (from !== undefined && to !== undefined && Buffer.compare(Buffer.from(from), Buffer.from(to)) >= 0)
        return;
      let left = limit;
      let ExclusiveStartKey: Item | undefined;
      while (left > 0) {
        const page = await guarded(`read '${pk}'`, (abortSignal) =>
          client.send(
            new QueryCommand({
              TableName,
              KeyConditionExpression: conditions.join(' AND '),
              ExpressionAttributeValues: values,
              ScanIndexForward: !descending,
              ConsistentRead: true,
              ...(ExclusiveStartKey === undefined ? {} : { ExclusiveStartKey }),
              ...(left === Infinity ? {} : { Limit: left + 1 }),
            }),
            { abortSignal },
          ),
        );
        for (const item of page.Items ?? []) {
          const row = rowOf(item);
          if (row.sk === to) continue;
          yield row;
          left -= 1;
          if (left <= 0) return;
        }
        ExclusiveStartKey = page.LastEvaluatedKey;
        if (ExclusiveStartKey === undefined) return;
      }
    },

    async transact(changes) {
      checkChanges(changes);
      const asked = changes.flatMap((change, index) => {
        const item = itemOf(change, TableName);
        return item === undefined ? [] : [{ change, index, item }];
      });
      if (asked.length === 0) return { done: true };
      const command = new TransactWriteItemsCommand({
        TransactItems: asked.map(({ item }) => item),
        ClientRequestToken: randomUUID(),
      });
      return guarded(`change ${changes.length} rows`, async (abortSignal) => {
        let isLost = false;
        for (let attempt = 0; ; attempt += 1) {
          try {
            await once.send(command, { abortSignal });
            return { done: true };
          } catch (error) {
            if (abortSignal.aborted) throw error;
            const reasons = (error as { CancellationReasons?: CancellationReason[] }).CancellationReasons;
            if (reasons === undefined) {
              if (!isAnswerLost(error)) throw error;
              isLost = true;
            } else {
              const outcome = refusal(reasons, asked);
              if (outcome !== undefined)
                return isLost && hasLanded(outcome, changes) ? { done: true } : outcome;
              if (!reasons.every(({ Code }) => Code === undefined || PASSING.has(Code))) throw error;
            }
          }
          await pause(Math.min(20 * 2 ** attempt, 1000));
        }
      });
    },

    async close() {
      client.destroy();
      once.destroy();
    },
  };
}

function connectOnce(place: DynamoPlace, timeoutMs: number) {
  return clientSettings('DYNAMODB', place, attemptMsOf(timeoutMs), true);
}

/** Reasons of a cancelled transaction that another attempt may not meet. */
const PASSING = new Set([
  'None',
  'TransactionConflict',
  'ThrottlingError',
  'ProvisionedThroughputExceeded',
  'RequestLimitExceeded',
  'InternalServerError',
]);

function rowOf(item: Item): Row {
  return unmarshall(item) as Row;
}

function refusal(
  reasons: readonly CancellationReason[],
  asked: readonly { index: number }[],
): Outcome | undefined {
  const failed = reasons.flatMap(({ Code, Item }, position) => {
    if (Code !== 'ConditionalCheckFailed') return [];
    const index = asked[position]?.index ?? position;
    return [{ index, row: Item === undefined || Object.keys(Item).length === 0 ? undefined : rowOf(Item) }];
  });
  return failed.length === 0 ? undefined : { done: false, failed };
}

/**
 * After a lost answer: is what refuses us just what we wrote? DynamoDB itself knows the token and answers "done";
 * a store that forgets tokens (some emulators, ten minutes) would have us take our own rows for another's.
 */
function hasLanded(outcome: Outcome, changes: readonly Change[]): boolean {
  return (
    !outcome.done &&
    outcome.failed.every(({ index, row }) => {
      const change = changes[index];
      if (change?.do === 'delete') return row === undefined;
      return change?.do === 'put' && isDeepStrictEqual(row, JSON.parse(JSON.stringify(change.row)));
    })
  );
}

function itemOf(change: Change, TableName: string): TransactWriteItem | undefined {
  const condition = conditionOf(change.when);
  if (change.do === 'put') {
    const Item = marshall(change.row, { removeUndefinedValues: true });
    return { Put: { TableName, Item, ...condition } };
  }
  const { pk, sk } = keyOf(change);
  const Key: Item = { pk: { S: pk }, sk: { S: sk } };
  if (change.do === 'delete') return { Delete: { TableName, Key, ...condition } };
  return condition === undefined ? undefined : { ConditionCheck: { TableName, Key, ...condition } };
}

function conditionOf(when: Condition) {
  if (when === 'any') return undefined;
  const old = { ReturnValuesOnConditionCheckFailure: 'ALL_OLD' } as const;
  if (when === 'absent') return { ConditionExpression: 'attribute_not_exists(pk)', ...old };
  if (when === 'present') return { ConditionExpression: 'attribute_exists(pk)', ...old };
  return {
    ConditionExpression: '#rev = :rev',
    ExpressionAttributeNames: { '#rev': 'rev' },
    ExpressionAttributeValues: { ':rev': { N: String(when.rev) } },
    ...old,
  };
}
