/** How much one transaction of a relay brings: bounded by what a transaction holds, and by what a relay that is broken off has to bring again. */
import { batchOf } from '../../../core/work/relay-rows.ts';
import { MiB } from '../../harness/facts.ts';

test.each([
  [1, 28],
  [16, 28],
  [32, 16],
  [64, 8],
  [512, 1],
  [1024, 1],
])('segments of %d MiB: %d at a time', (size, expected) => expect(batchOf(size * MiB)).toBe(expected));
