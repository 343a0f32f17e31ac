/** The two files by which agent, guard and watchdog know of each other: overwritten in place, and read by whoever comes in between. */
import { createHash } from 'node:crypto';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { leaseAge, type KeptLease } from '../../../core/cluster/lease.ts';
import { bootId, bootMs } from '../../../core/work/boot-clock.ts';
import {
  beatWatchdog,
  endLease,
  forgetLease,
  keepLease,
  livingWatchdog,
  readLease,
  shortenLease,
} from '../../../core/work/lease-file.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';

let scratch: string;
let file: string;
beforeEach(() => {
  scratch = makeScratch();
  file = path.join(scratch, 'lease');
});
afterEach(() => removeScratch(scratch));

const keep = (sentAt: number, changes: Partial<{ ms: number; epoch: number }> = {}) =>
  keepLease(file, { sentAt, ms: 30_000, epoch: 1, ...changes });
const until = () => readLease(file)?.until;
const over: KeptLease = { boot: '', until: 0, ms: 1, epoch: 0 };
/** What stands there, as if it were of another boot. */
function move(boot: string): void {
  const text = JSON.stringify({ ...readLease(file), boot });
  const sum = createHash('sha256').update(text).digest('hex').slice(0, 16);
  writeFileSync(file, `${`${sum} ${text}`.padEnd(511)}\n`);
}

test('a lease is kept from the sending of its renewal, and none is none', () => {
  expect(readLease(file)).toBeUndefined();
  const sentAt = bootMs();
  keep(sentAt);
  expect(readLease(file)).toEqual({ boot: bootId(), until: sentAt + 30_000, ms: 30_000, epoch: 1 });
});

test('a renewal is written into the same file, of the same size', () => {
  keep(bootMs() - 5000);
  const before = statSync(file);
  expect(before.size).toBe(512);
  expect(before.mode & 0o777).toBe(0o600);
  keep(bootMs());
  endLease(file);
  keep(bootMs(), { ms: 600_000, epoch: 123_456_789 });
  expect(statSync(file)).toMatchObject({ ino: before.ino, size: 512 });
});

test('a renewal that is confirmed late never shortens what a later one gave', () => {
  const now = bootMs();
  keep(now);
  keep(now - 1000);
  expect(until()).toBe(now + 30_000);
  keep(now, { ms: 20_000 }); // another length
  expect(until()).toBe(now + 20_000);
  keep(now - 1000, { ms: 20_000, epoch: 2 }); // another epoch
  expect(until()).toBe(now + 19_000);
});

test('what is kept of another boot, or of a clock that began anew, does not stand in the way', () => {
  const now = bootMs();
  keep(now);
  move('another');
  keep(now - 1000);
  expect(until()).toBe(now + 29_000);
  keep(now + 9_000_000);
  keep(now - 1000);
  expect(until()).toBe(now + 29_000);
});

test('a lease of another boot is over', () => {
  keep(bootMs());
  move('another');
  expect(leaseAge(readLease(file)!, bootId(), bootMs())).toBe(Infinity);
});

describe('half a write', () => {
  const halves: [string, () => void][] = [
    ['an empty file', () => writeFileSync(file, '')],
    ['a short one', () => truncateSync(file, 60)],
    ['zeros', () => writeFileSync(file, Buffer.alloc(512))],
    [
      'a part of another',
      () => writeFileSync(file, readFileSync(file, 'latin1').replace(/"epoch":1/, '"epoch":2')),
    ],
  ];
  test.each(halves)('is known by its sum: %s', (_what, damage) => {
    keep(bootMs());
    const known = readLease(file)!;
    damage();
    expect(readLease(file, known)).toEqual(known);
    expect(readLease(file)).toEqual(over);
    // a confirmed renewal mends it
    keep(bootMs());
    expect(readLease(file)).toMatchObject({ epoch: 1, ms: 30_000 });
  });

  test('a file that cannot be read is as half a write', () => {
    const folder = scratch;
    expect(readLease(folder)).toEqual(over);
    expect(readLease(path.join(scratch, 'none', 'lease'))).toBeUndefined();
  });
});

describe('a lease that the vault has ended', () => {
  const age = () => leaseAge(readLease(file)!, bootId(), bootMs());

  test('is as old as a fast stop wants it', () => {
    keep(bootMs());
    endLease(file);
    expect(age()).toBeGreaterThanOrEqual(20_000);
    expect(age()).toBeLessThan(22_000);
  });

  test('is not made younger where it was older', () => {
    keep(bootMs() - 25_000);
    const before = readLease(file);
    endLease(file);
    expect(readLease(file)).toEqual(before);
  });

  test('is left alone where it is of another boot, or there is none', () => {
    endLease(file);
    expect(readLease(file)).toBeUndefined();
    keep(bootMs());
    move('another');
    const before = readLease(file);
    endLease(file);
    expect(readLease(file)).toEqual(before);
  });
});

test('a shorter lease holds before the vault has it, a longer one only when it is confirmed', () => {
  const sentAt = bootMs() - 4000;
  keep(sentAt);
  shortenLease(file, 60_000);
  expect(readLease(file)).toMatchObject({ ms: 30_000, until: sentAt + 30_000 });
  shortenLease(file, 10_000);
  expect(readLease(file)).toMatchObject({ ms: 10_000, until: sentAt + 10_000 });
  forgetLease(file);
  shortenLease(file, 10_000);
  expect(readLease(file)).toBeUndefined();
});

test('a lease that is forgotten is none', () => {
  keep(bootMs());
  forgetLease(file);
  forgetLease(file);
  expect(readLease(file)).toBeUndefined();
});

test('a watchdog lives as long as it beats', async () => {
  const beat = { pid: process.pid, build: 'a', kind: 'process' } as const;
  expect(livingWatchdog(file, 1000)).toBeUndefined();
  beatWatchdog(file, beat);
  expect(livingWatchdog(file, 1000)).toMatchObject(beat);
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(livingWatchdog(file, 20)).toBeUndefined();
  expect(livingWatchdog(file, Infinity)).toMatchObject({ pid: process.pid });
  const { ino } = statSync(file);
  beatWatchdog(file, beat);
  expect(statSync(file)).toMatchObject({ ino, size: 512 });
  truncateSync(file, 60);
  expect(livingWatchdog(file, 1000)).toBeUndefined();
});

test('what does not fit into its place is refused, and what was there stands', () => {
  keep(bootMs());
  const before = readFileSync(file);
  expect(() => beatWatchdog(file, { pid: 1, build: 'b'.repeat(600), kind: 'process' })).toThrow(RangeError);
  expect(readFileSync(file)).toEqual(before);
});
