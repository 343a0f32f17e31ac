/** What an event of the relay function asks for. Only which clusters to look at is taken from it: the rows are read again. */
import type { DynamoDBStreamEvent, SQSEvent } from 'aws-lambda';
import { rowChanges } from './stream.ts';

/**
 * By a schedule, or by a person. pass: what lies beyond the replica's head, which is all that a lost event can be about; sweep: every row
 * besides, which costs a read for each.
 */
export type PassCall = ({ pass: true } | { sweep: true }) & { cluster?: string };
export type RelayEvent = DynamoDBStreamEvent | SQSEvent | PassCall;

/** Of Lambda: records that are to be tried again. For a stream everything from the lowest of them on is. */
export type PartialFailure = { batchItemFailures: { itemIdentifier: string }[] };

export type RelayWork = {
  /** undefined: all that the vault holds. */
  clusters: readonly string[] | undefined;
  /** Hold every row against the replica. */
  sweep: boolean;
  /** The answer where the work failed for these clusters; undefined: the function itself must fail. */
  answer: ((failed: ReadonlySet<string>) => PartialFailure) | undefined;
};

/** @throws TypeError  an event of another kind */
export function readRelayEvent(event: RelayEvent): RelayWork {
  if (!('Records' in event)) {
    const sweep = 'sweep' in event && event.sweep === true;
    if (!sweep && !('pass' in event && event.pass === true))
      throw new TypeError('the event is none of a batch, {"pass": true} and {"sweep": true}');
    return { clusters: event.cluster === undefined ? undefined : [event.cluster], sweep, answer: undefined };
  }
  if (isStream(event)) return readStream(event);
  const messages = event.Records.map(({ messageId }) => ({ itemIdentifier: messageId }));
  return {
    // a batch that was given up says which shard it was of, and no row
    clusters: undefined,
    sweep: false,
    answer: (failed) => ({ batchItemFailures: failed.size === 0 ? [] : messages }),
  };
}

function isStream(event: DynamoDBStreamEvent | SQSEvent): event is DynamoDBStreamEvent {
  const [record] = event.Records;
  return record !== undefined && 'dynamodb' in record;
}

function readStream(event: DynamoDBStreamEvent): RelayWork {
  /** The first record of each. */
  const lowest = new Map<string, string>();
  // the list of clusters, and what functions keep for themselves
  for (const { cluster, sequence } of rowChanges(event).filter(({ pk }) => !pk.startsWith('#'))) {
    const seen = lowest.get(cluster);
    if (seen === undefined || BigInt(sequence) < BigInt(seen)) lowest.set(cluster, sequence);
  }
  return {
    clusters: [...lowest.keys()],
    sweep: false,
    answer: (failed) => ({
      batchItemFailures: [...failed]
        .flatMap((cluster) => lowest.get(cluster) ?? [])
        .sort((one, other) => (BigInt(one) < BigInt(other) ? -1 : 1))
        .map((itemIdentifier) => ({ itemIdentifier })),
    }),
  };
}
