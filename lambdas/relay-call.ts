/**
 * What calls the relay function, and what each caller wants for an answer: records of the manifest's stream, messages of the queue for
 * batches that failed, a schedule, a person. All of them are hints where to look: a pass reads the rows themselves.
 *
 * Source: AWS Lambda Developer Guide, "Implementing partial batch responses": of a stream Lambda repeats everything from the lowest
 * sequence number that is named.
 */
import type { DynamoDBStreamEvent, SQSBatchItemFailure, SQSEvent } from 'aws-lambda';
import { VaultError } from '../core/errors.ts';
import { rowChanges, type RowChange } from './stream.ts';

/** By a person or a schedule: everything is compared, unless `sweep` is false; `cluster` names one of them. */
export type SweepCall = { sweep?: boolean; cluster?: string };
export type RelayCall = DynamoDBStreamEvent | SQSEvent | SweepCall;

export type Wanted = {
  /** undefined: all that the vault holds. */
  clusters: string[] | undefined;
  /** Clusters that are not there are passed over: a hint may be old. */
  isHint: boolean;
  sweep: boolean;
  /** What Lambda has to bring again where these clusters failed; undefined: nobody would bring it again, so the call has to fail. */
  again: ((failed: ReadonlySet<string>) => SQSBatchItemFailure[]) | undefined;
};

/** Rows that a relay carries, by the beginning of their names. */
const CARRIED = ['wal#', 'tail#', 'history#', 'backup#', 'spill#', 'control'];

/** @throws VaultError usage */
export function wantedBy(event: RelayCall): Wanted {
  if ('Records' in event) return isQueue(event) ? byQueue(event) : byStream(event);
  const { cluster, sweep = true } = event;
  if (cluster !== undefined && typeof cluster !== 'string')
    throw new VaultError('usage', `'cluster' is not a name: ${JSON.stringify(cluster)}`, {
      hint: `{"sweep": true, "cluster": "main"}`,
    });
  return {
    clusters: cluster === undefined ? undefined : [cluster],
    ...{ isHint: false, sweep, again: undefined },
  };
}

function isQueue(event: DynamoDBStreamEvent | SQSEvent): event is SQSEvent {
  return event.Records.some((record) => 'messageId' in record);
}

/** What a batch that failed for good says is where it lay in the stream, and none of its rows: so everything is compared. */
function byQueue({ Records }: SQSEvent): Wanted {
  return {
    ...{ clusters: undefined, isHint: false, sweep: true },
    again: (failed) =>
      failed.size === 0 ? [] : Records.map(({ messageId }) => ({ itemIdentifier: messageId })),
  };
}

function byStream(event: DynamoDBStreamEvent): Wanted {
  const changes = rowChanges(event).filter(isCarried);
  return {
    clusters: [...new Set(changes.map(({ cluster }) => cluster))],
    ...{ isHint: true, sweep: false },
    again: (failed) =>
      [...failed].map((name) => ({
        itemIdentifier: changes
          .filter(({ cluster }) => cluster === name)
          .map(({ sequence }) => sequence)
          .reduce(lower),
      })),
  };
}

/** A row that was removed is retention's affair, here as there. */
function isCarried({ change, pk, sk }: RowChange): boolean {
  return change !== 'REMOVE' && !pk.startsWith('#') && CARRIED.some((prefix) => sk.startsWith(prefix));
}

/** Sequence numbers are decimal numbers of up to 40 digits. '' is none, by which Lambda repeats the whole batch: lower than any. */
function lower(one: string, other: string): string {
  if (one.length !== other.length) return one.length < other.length ? one : other;
  return one < other ? one : other;
}
