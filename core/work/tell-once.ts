/**
 * Each notice to each destination once, though a stream brings its records at least once. The mark of a notice, a row in #notices#, says
 * who was told; whoever is about to tell says so there first, so that two who have the same notice do not both tell it.
 *
 * Who died between telling and writing it down is followed by one who tells it again: rather twice than never.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { keys } from '../cluster/facts.ts';
import type { Notice } from '../cluster/notice.ts';
import { VaultError } from '../errors.ts';
import type { Key, Manifest } from '../vault/manifest.ts';
import { asRow, newId } from './cluster.ts';

export type Destination = {
  /** Of the destination, for good: what the mark says. No secret. */
  name: string;
  /** @throws when it is not sure that it was told; names no secret */
  tell(notice: Notice): Promise<void>;
};

/** pk #notices#<cluster>, sk told#<the notice's id>: never event#, which the function's own stream would bring to it. */
type Mark = {
  pk: string;
  sk: string;
  rev: number;
  told: string[];
  /** Who is telling, and until when that is to be believed, ms since 1970; null: nobody. */
  telling: { id: string; until: number } | null;
  /** For the table's TTL, s since 1970. */
  expiresAt: number;
};

export const markOf = ({ cluster, id }: Pick<Notice, 'cluster' | 'id'>): Key =>
  keys.notice(cluster, `told#${id}`);

/** A mark outlives whatever may bring its notice again, s. */
const KEPT_S = 30 * 86_400;
/** Longer than any destination may take, ms. */
const TELLING_MS = 30_000;
const POLL_MS = 200;

export const expiryOf = (now: number): number => Math.floor(now / 1000) + KEPT_S;

/**
 * @throws Error  of the first destination that could not be told; the others were
 * @throws VaultError busy (another tells it, and has not come to its end) | unreachable
 */
export async function tellOnce(
  manifest: Manifest,
  notice: Notice,
  destinations: readonly Destination[],
): Promise<void> {
  const key = markOf(notice);
  const id = newId();
  const mark = await claim(manifest, key, id, destinations);
  if (mark === undefined) return;
  const missing = destinations.filter(({ name }) => !mark.told.includes(name));
  const ends = await Promise.allSettled(missing.map((destination) => destination.tell(notice)));
  const told = missing.filter((_, index) => ends[index]!.status === 'fulfilled').map(({ name }) => name);
  const next: Mark = { ...mark, rev: mark.rev + 1, told: [...mark.told, ...told], telling: null };
  // A condition that fails: this took too long, and another tells it meanwhile.
  await manifest.transact([{ do: 'put', row: asRow(next), when: { rev: mark.rev } }]);
  const failed = ends.find((end) => end.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

/** @returns undefined: all were told */
async function claim(
  manifest: Manifest,
  key: Key,
  id: string,
  destinations: readonly Destination[],
): Promise<Mark | undefined> {
  const deadline = performance.now() + TELLING_MS;
  for (;;) {
    const seen = (await manifest.get(key)) as Mark | undefined;
    if (seen?.telling?.id === id) return seen; // ours, whose answer was lost
    if (seen !== undefined && destinations.every(({ name }) => seen.told.includes(name))) return undefined;
    const now = Date.now();
    if (!seen?.telling || seen.telling.until < now) {
      const mark: Mark = {
        ...{ ...key, rev: (seen?.rev ?? 0) + 1, told: seen?.told ?? [] },
        ...{ telling: { id, until: now + TELLING_MS }, expiresAt: expiryOf(now) },
      };
      const when = seen === undefined ? 'absent' : { rev: seen.rev };
      if ((await manifest.transact([{ do: 'put', row: asRow(mark), when }])).done) return mark;
      continue;
    }
    if (performance.now() > deadline)
      throw new VaultError('busy', `another run of the function tells ${key.sk}`, {
        hint: 'It is tried again.',
      });
    await sleep(POLL_MS);
  }
}
