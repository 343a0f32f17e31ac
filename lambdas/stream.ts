/**
 * Records of the manifest's stream, as rows. A stream brings each change at least once, in order for one row; what it says is a hint of
 * what to look at, never the truth about it.
 */
import { unmarshall } from '@aws-sdk/util-dynamodb';
import type { DynamoDBRecord, DynamoDBStreamEvent } from 'aws-lambda';
import type { Row } from '../core/vault/manifest.ts';

export type RowChange = {
  /** What a partial failure names; '' where the record has none. */
  sequence: string;
  change: 'INSERT' | 'MODIFY' | 'REMOVE';
  /** Of `main/7301…` and `main`: main. */
  cluster: string;
  pk: string;
  sk: string;
  /** As the change left it; undefined where it was removed. */
  row: Row | undefined;
};

export function rowChanges(event: DynamoDBStreamEvent): RowChange[] {
  return event.Records.map(rowChange);
}

function rowChange({ eventName, dynamodb }: DynamoDBRecord): RowChange {
  const { pk, sk } = unmarshall((dynamodb?.Keys ?? {}) as Item) as { pk: string; sk: string };
  return {
    sequence: dynamodb?.SequenceNumber ?? '',
    change: eventName ?? 'MODIFY',
    cluster: pk.split('/')[0]!,
    ...{ pk, sk },
    row: dynamodb?.NewImage && (unmarshall(dynamodb.NewImage as Item) as Row),
  };
}

type Item = Parameters<typeof unmarshall>[0];
