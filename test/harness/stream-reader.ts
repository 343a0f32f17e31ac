/**
 * The stream of a DynamoDB table, read as Lambda's poller does, by the low-level API: each call of `next` gives what came since. (The SDK's
 * client for streams is a package of its own; four requests need none. Emulators take any signature, only its region counts.)
 */
import { DynamoDBClient, UpdateTableCommand } from '@aws-sdk/client-dynamodb';
import type { DynamoDBRecord } from 'aws-lambda';

export type StreamReader = { next(): Promise<DynamoDBRecord[]> };

/** Turns the stream on, with NEW_IMAGE as walvault's stack does, and reads it from here on. */
export async function readStream(endpoint: string, region: string, table: string): Promise<StreamReader> {
  const client = new DynamoDBClient({ endpoint, region });
  const { TableDescription } = await client.send(
    new UpdateTableCommand({
      TableName: table,
      StreamSpecification: { StreamEnabled: true, StreamViewType: 'NEW_IMAGE' },
    }),
  );
  client.destroy();
  const StreamArn = TableDescription?.LatestStreamArn;
  const ask = async <T>(operation: string, input: object): Promise<T> => {
    const response = await fetch(endpoint, {
      method: 'POST',
      headers: {
        'content-type': 'application/x-amz-json-1.0',
        'x-amz-target': `DynamoDBStreams_20120810.${operation}`,
        authorization: `AWS4-HMAC-SHA256 Credential=walvault/20260101/${region}/dynamodb/aws4_request, SignedHeaders=host, Signature=00`,
      },
      body: JSON.stringify(input),
    });
    if (!response.ok) throw new Error(`${operation}: ${response.status} ${await response.text()}`);
    return (await response.json()) as T;
  };
  const { StreamDescription } = await ask<{ StreamDescription: { Shards: { ShardId: string }[] } }>(
    'DescribeStream',
    { StreamArn },
  );
  let iterators = await Promise.all(
    StreamDescription.Shards.map(async ({ ShardId }) => {
      const input = { StreamArn, ShardId, ShardIteratorType: 'TRIM_HORIZON' };
      return (await ask<{ ShardIterator: string }>('GetShardIterator', input)).ShardIterator;
    }),
  );
  return {
    async next() {
      const found: DynamoDBRecord[] = [];
      const following: string[] = [];
      for (let iterator of iterators) {
        for (;;) {
          const page = await ask<{ Records: DynamoDBRecord[]; NextShardIterator?: string }>('GetRecords', {
            ShardIterator: iterator,
          });
          found.push(...page.Records);
          iterator = page.NextShardIterator ?? '';
          if (page.Records.length === 0 || iterator === '') break;
        }
        if (iterator !== '') following.push(iterator);
      }
      iterators = following;
      return found;
    },
  };
}
