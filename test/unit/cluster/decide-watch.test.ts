/** How long a lease may be for the witness function: what one watch has to see whole. */
import { decideWatch, WATCH_EVERY_MS, WATCH_MS } from '../../../core/cluster/decide-watch.ts';
import { LEAST_LEASE_MS, silenceNeeded } from '../../../core/cluster/lease.ts';

test.each([
  ['the shortest', LEAST_LEASE_MS, undefined],
  ['the usual one', 30_000, undefined],
  ['the longest that is never late', 47_500, undefined],
  ['one that the next watch alone sees whole', 60_000, 'late'],
  ['one that no watch sees whole', 120_000, 'never'],
])('%s', (_name, leaseMs, verdict) => {
  expect(decideWatch(leaseMs)).toBe(verdict);
});

/** The watches under way at `atMs` that last long enough after it to see a silence of a lease whole. */
function whole(leaseMs: number, atMs: number): number {
  const begun = [...Array(10).keys()].map((number) => number * WATCH_EVERY_MS);
  return begun.filter((from) => from <= atMs && from + WATCH_MS >= atMs + silenceNeeded(leaseMs)).length;
}

test('a silence that begins at any moment is seen whole by a watch that is under way, up to where it is said to be late', () => {
  for (let leaseMs = LEAST_LEASE_MS; leaseMs <= 130_000; leaseMs += 500)
    for (let atMs = 3 * WATCH_EVERY_MS; atMs < 4 * WATCH_EVERY_MS; atMs += 250) {
      if (decideWatch(leaseMs) === undefined) expect([leaseMs, atMs, whole(leaseMs, atMs)]).not.toContain(0);
      if (decideWatch(leaseMs) !== 'never') expect(silenceNeeded(leaseMs)).toBeLessThan(WATCH_MS);
    }
});
