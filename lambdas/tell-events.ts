/**
 * Events that the manifest's stream brings, told to people. A destination that does not answer keeps neither the others nor the records
 * behind from being told: the first record that is not told to all is where the stream begins again, and marks say who was told.
 */
import type { DynamoDBBatchResponse, DynamoDBRecord, DynamoDBStreamEvent } from 'aws-lambda';
import { decideNotice } from '../core/cluster/decide-notice.ts';
import { keys, type Control, type EventRow } from '../core/cluster/facts.ts';
import { VaultError } from '../core/errors.ts';
import type { Vault } from '../core/vault/vault.ts';
import { tellOnce, type Destination } from '../core/work/tell-once.ts';
import { log } from './function.ts';
import { rowChanges } from './stream.ts';

/** As long a destination may be away. After it the others have been told, and what comes behind a whole batch must get its turn. */
const GIVE_UP_MS = 3_600_000;

/** @returns the first record that is to be brought again, with all behind it */
export async function tellEvents(
  { Records }: DynamoDBStreamEvent,
  to: { vault: Vault; destinations: readonly Destination[]; signal: AbortSignal },
): Promise<DynamoDBBatchResponse> {
  let failed: string | undefined;
  for (const record of Records) {
    const found = eventOf(record);
    if (found === undefined) continue;
    try {
      to.signal.throwIfAborted();
      await tellEvent(found, to);
    } catch (error) {
      // a table that does not answer is no destination: nobody may have been told
      const isTried = !to.signal.aborted && !(error instanceof VaultError);
      const givenUp = isTried && ageMs(record) > GIVE_UP_MS;
      log({
        level: 'error',
        cluster: found.cluster,
        event: found.event.sk,
        failure: inWords(error),
        givenUp,
      });
      if (!givenUp) failed ??= found.sequence;
    }
  }
  return { batchItemFailures: failed === undefined ? [] : [{ itemIdentifier: failed }] };
}

type Found = { cluster: string; sequence: string; event: EventRow };

/** undefined: no new event; or one that nobody can read, now or later, and that must not hold up those behind it. */
function eventOf(record: DynamoDBRecord): Found | undefined {
  try {
    const [change] = rowChanges({ Records: [record] });
    if (change?.change !== 'INSERT' || !change.sk.startsWith('event#') || change.pk.startsWith('#'))
      return undefined;
    const { cluster, sequence } = change;
    const event = change.row as unknown as EventRow | undefined;
    const texts = [event?.kind, event?.at, event?.text, cluster];
    if (event === undefined || !texts.every((text) => typeof text === 'string' && text !== ''))
      throw new Error(`${change.sk} is no event`);
    return { cluster, sequence, event: { ...event, node: event.node ?? null, epoch: event.epoch ?? 0 } };
  } catch (error) {
    log({ level: 'error', passedOver: record.dynamodb?.SequenceNumber, failure: inWords(error) });
    return undefined;
  }
}

async function tellEvent(
  { cluster, event }: Found,
  { vault, destinations }: { vault: Vault; destinations: readonly Destination[] },
): Promise<void> {
  const control = (await vault.manifest.get(keys.control(cluster))) as Control | undefined;
  const notice = decideNotice(event, { cluster, vault: vault.url, role: control?.role ?? 'active' });
  if (notice === undefined) return;
  await tellOnce(vault.manifest, notice, destinations);
  log({ level: 'info', cluster, kind: notice.kind, told: notice.subject });
}

const ageMs = ({ dynamodb }: DynamoDBRecord): number =>
  Date.now() - (dynamodb?.ApproximateCreationDateTime ?? Infinity) * 1000;

const inWords = (error: unknown): string => (error instanceof Error ? error.message : String(error));
