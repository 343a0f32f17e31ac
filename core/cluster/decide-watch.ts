/**
 * The watch of the witness function: it begins anew each minute and lasts nearly two, so that two are under way at any time. A watch knows
 * only what it has seen itself, by its own clock: a process that Lambda freezes between two calls has none that could be trusted.
 *
 * Pure.
 */
import { silenceNeeded } from './lease.ts';

/** How long one watch lasts, and how often one begins, ms. */
export const WATCH_MS = 115_000;
export const WATCH_EVERY_MS = 60_000;

/** What the end of a watch takes: the look that is under way, and the trigger that follows it, ms. */
const END_MS = 5_000;

/**
 * Is this lease too long for a watch? Undefined: it is not. `late`: a silence that begins late in one watch is seen whole by the next one
 * only, up to a minute after it could have been; `never`: none is long enough to be sure that the primary is stopped.
 */
export function decideWatch(leaseMs: number): 'late' | 'never' | undefined {
  const neededMs = silenceNeeded(leaseMs) + END_MS;
  if (neededMs > WATCH_MS) return 'never';
  return neededMs > WATCH_MS - WATCH_EVERY_MS ? 'late' : undefined;
}
