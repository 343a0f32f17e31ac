/**
 * What happened to a cluster, as its event# rows tell it: read from the newest back, so that a few of many cost a few; and followed.
 *
 * An event's time is that of the machine that wrote it. Clocks differ, so one that comes late may sort before one that is known:
 * whoever follows looks a while back each time.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { FAILURES, VaultError } from '../errors.ts';
import type { EventKind } from '../cluster/event-kinds.ts';
import type { EventRow } from '../cluster/facts.ts';
import { after } from '../vault/manifest.ts';
import type { Cluster } from './cluster.ts';

export type EventFilter = {
  /** ISO time; undefined: from the beginning. */
  since?: string | undefined;
  /** Any of these; empty: every kind. */
  kinds: readonly EventKind[];
  node?: string | undefined;
};

/** How far an event may come after its own time and still be seen by a follower, in ms. */
const LATE_MS = 120_000;

const PREFIX = 'event#';

/** The last `limit` events that pass, oldest first. @throws VaultError unreachable */
export async function listEvents(
  cluster: Cluster,
  filter: EventFilter,
  limit = Infinity,
): Promise<EventRow[]> {
  const found: EventRow[] = [];
  if (limit < 1) return found;
  const { manifest } = cluster.vault;
  const isPlain = filter.kinds.length === 0 && filter.node === undefined;
  for await (const row of manifest.query({
    pk: cluster.partition,
    from: PREFIX + (filter.since ?? ''),
    to: after(PREFIX),
    descending: true,
    ...(isPlain && Number.isFinite(limit) ? { limit } : {}),
  })) {
    const event = row as unknown as EventRow;
    if (passes(event, filter)) found.push(event);
    if (found.length >= limit) break;
  }
  return found.reverse();
}

/**
 * Events as they come, after those of `known` (what listEvents gave), without end. A vault that is out of reach for a while is
 * asked again; the follower is told once.
 *
 * @throws VaultError what trying again does not mend; AbortError
 */
export async function* followEvents(
  cluster: Cluster,
  filter: EventFilter,
  { known, from, everyMs, signal, onTrouble }: FollowOptions,
): AsyncGenerator<EventRow, void> {
  const seen = new Map(known.map((event) => [event.sk, event.at]));
  // older than the oldest of a list that was cut is no news
  const begin = known[0]?.at ?? filter.since ?? '';
  let newest = known.at(-1)?.at ?? from.toISOString();
  let isTroubled = false;
  for (;;) {
    // an event of a clock that is ahead must not hide those of the others
    const back = new Date(Math.min(Date.parse(newest), Date.now()) - LATE_MS).toISOString();
    const since = back > begin ? back : begin;
    try {
      for (const event of await listEvents(cluster, { ...filter, since })) {
        if (seen.has(event.sk)) continue;
        seen.set(event.sk, event.at);
        if (event.at > newest) newest = event.at;
        yield event;
      }
      isTroubled = false;
    } catch (error) {
      if (!(error instanceof VaultError && FAILURES[error.code].retry)) throw error;
      if (!isTroubled) onTrouble(error);
      isTroubled = true;
    }
    for (const [sk, at] of seen) if (at < since) seen.delete(sk);
    await sleep(everyMs, undefined, { signal });
  }
}

export type FollowOptions = {
  known: readonly EventRow[];
  /** When `known` was read. */
  from: Date;
  everyMs: number;
  signal: AbortSignal;
  onTrouble: (failure: VaultError) => void;
};

function passes({ kind, node }: EventRow, filter: EventFilter): boolean {
  return (
    (filter.kinds.length === 0 || filter.kinds.includes(kind)) &&
    (filter.node === undefined || node === filter.node)
  );
}
