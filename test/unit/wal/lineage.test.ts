import fc from 'fast-check';
import { formatHistory, type HistoryEntry } from '../../../core/wal/history.ts';
import { lineageOf, segmentsFrom, timelineAt, type Lineage } from '../../../core/wal/lineage.ts';
import { LAST_LSN, parseLsn, type Lsn } from '../../../core/wal/lsn.ts';
import { MiB, nextSegment, parseWalName, segmentEnd, segmentStart } from '../../../core/wal/name.ts';
import { CLUSTERS } from './samples.ts';

const SIZE = 16 * MiB;
const anySize = fc.constantFrom(MiB, 16 * MiB, 64 * MiB, 1024 * MiB);

/** Ancestors 1, 2, 3 … with forks within the first few segments, often on a boundary, in whatever order. */
const anyFamily = fc
  .array(
    fc.oneof(
      fc.bigInt({ min: 0n, max: 8n * 1024n * BigInt(MiB) }),
      fc.bigInt({ min: 0n, max: 8n }).map((n) => n * 1024n * BigInt(MiB)),
    ),
    { maxLength: 6 },
  )
  .map((forks) => forks.map((forkLsn, index): HistoryEntry => ({ timeline: index + 1, forkLsn })));

function lineage(entries: HistoryEntry[]): Lineage {
  return lineageOf(entries.length + 1, entries.length === 0 ? undefined : formatHistory(entries, 'x'));
}

/** What PostgreSQL does with the list as it stands (xlogrecovery.c, XLogFileReadAnyTLI): newest first, skip what begins later. */
function asPostgres(entries: HistoryEntry[], start: Lsn, size: number): number {
  for (let index = entries.length; index > 0; index -= 1) {
    const begins = entries[index - 1]!.forkLsn;
    if (start / BigInt(size) >= begins / BigInt(size)) return index + 1;
  }
  return 1;
}

test('timeline 1 has no ancestors and holds everything', () => {
  expect(lineageOf(1, undefined)).toEqual([{ timeline: 1, begins: 0n, ends: null }]);
});

test('a timeline begins at its fork, its parent ends there', () => {
  const text = '1\t0/5000000\tx\n\n2\t0/60000A0\tx\n';
  expect(lineageOf(4, text)).toEqual([
    { timeline: 1, begins: 0n, ends: parseLsn('0/5000000') },
    { timeline: 2, begins: parseLsn('0/5000000'), ends: parseLsn('0/60000A0') },
    { timeline: 4, begins: parseLsn('0/60000A0'), ends: null },
  ]);
});

test.each([
  ['well before the fork', '0/4000000', 1],
  ['the segment before one whose first byte is the fork', '0/5000000', 1],
  ['the segment that begins at the fork', '0/6000000', 2],
  ['the segment that holds a fork', '0/8000000', 3],
  ['after it', '0/9000000', 3],
])('%s is named on the timeline PostgreSQL asks for', (_, start, timeline) => {
  const family = lineageOf(3, '1\t0/6000000\tx\n2\t0/8123456\tx\n');
  expect(timelineAt(family, parseLsn(start), SIZE)).toBe(timeline);
});

test.each(CLUSTERS)('$title: the fork lies in the segment that the new primary wrote on', ({ cluster }) => {
  const family = lineageOf(2, cluster.forked.history);
  const names = segmentsFrom(family, family[1]!.begins, cluster.segmentSize);
  expect(names.next().value).toBe(cluster.forked.file);
});

test('measured (15.18, 18.4): a recovery along timeline 2 that stops before its fork still writes 2 as the parent', () => {
  const text = '1\t0/12000A0\tno recovery target specified\n\n2\t0/E00068\tafter LSN 0/E00028\n';
  expect(lineageOf(3, text)).toEqual([
    { timeline: 1, begins: 0n, ends: parseLsn('0/E00068') },
    { timeline: 2, begins: parseLsn('0/E00068'), ends: parseLsn('0/E00068') },
    { timeline: 3, begins: parseLsn('0/E00068'), ends: null },
  ]);
});

test('measured (15.18, 18.4): a standby of whole segments forks on their border, and the parent keeps the segment before', () => {
  const family = lineageOf(2, '1\t0/C00000\tno recovery target specified\n');
  const names = segmentsFrom(family, parseLsn('0/B00000'), MiB);
  expect([names.next().value, names.next().value]).toEqual([
    '00000001000000000000000B',
    '00000002000000000000000C',
  ]);
});

test('two forks in one segment: the newest timeline names it', () => {
  const family = lineageOf(3, '1\t0/6000100\tx\n2\t0/6000200\tx\n');
  expect(timelineAt(family, parseLsn('0/6000000'), SIZE)).toBe(3);
});

test('a history that names the timeline itself, or a later one, as ancestor is refused', () => {
  expect(() => lineageOf(2, '2\t0/5000000\tx\n')).toThrow('names timeline 2 as an ancestor');
  expect(() => lineageOf(2, '1\t0/5000000\tx\n3\t0/6000000\tx\n')).toThrow(RangeError);
  expect(() => lineageOf(0, undefined)).toThrow(RangeError);
});

test('the stretches of a lineage lie end to end, from 0 without end', () => {
  fc.assert(
    fc.property(anyFamily, (entries) => {
      const family = lineage(entries);
      expect(family.map(({ timeline }) => timeline)).toEqual([
        ...entries.map((one) => one.timeline),
        entries.length + 1,
      ]);
      expect(family[0]!.begins).toBe(0n);
      expect(family.at(-1)!.ends).toBeNull();
      family.slice(1).forEach((stretch, index) => expect(stretch.begins).toBe(family[index]!.ends));
      for (const { begins, ends } of family) expect(ends === null || begins <= ends).toBe(true);
    }),
  );
});

test('a segment is named as PostgreSQL looks for it, whatever the forks', () => {
  fc.assert(
    fc.property(anyFamily, anySize, fc.integer({ min: 0, max: 12_000 }), (entries, size, index) => {
      const start = BigInt(index) * BigInt(size);
      expect(timelineAt(lineage(entries), start, size)).toBe(asPostgres(entries, start, size));
    }),
    { numRuns: 1000 },
  );
});

test('along the branch each segment begins where the one before ends, and timelines never fall', () => {
  fc.assert(
    fc.property(anyFamily, anySize, (entries, size) => {
      const family = lineage(entries);
      const from = 12_345n;
      let before: string | undefined;
      let steps = 0;
      for (const name of segmentsFrom(family, from, size)) {
        if (before === undefined)
          expect(segmentStart(name, size) <= from && from < segmentEnd(name, size)).toBe(true);
        else {
          expect(segmentStart(name, size)).toBe(segmentEnd(before, size));
          expect(parseWalName(name)!.timeline).toBeGreaterThanOrEqual(parseWalName(before)!.timeline);
          if (name.slice(0, 8) === before.slice(0, 8)) expect(name).toBe(nextSegment(before, size));
        }
        before = name;
        steps += 1;
        if (steps === 40) break;
      }
    }),
  );
});

test('no byte at or past a fork is ever named on the older timeline', () => {
  fc.assert(
    fc.property(anyFamily, anySize, fc.integer({ min: 0, max: 12_000 }), (entries, size, index) => {
      const family = lineage(entries);
      const start = BigInt(index) * BigInt(size);
      const { ends } = family.find(({ timeline }) => timeline === timelineAt(family, start, size))!;
      expect(ends === null || start + BigInt(size) <= ends).toBe(true);
    }),
  );
});

test('the last segment of 64 bits ends the branch with an error, not with a wrong name', () => {
  const names = segmentsFrom(lineageOf(1, undefined), LAST_LSN, 1024 * MiB);
  expect(names.next().value).toBe('00000001FFFFFFFF00000003');
  expect(() => names.next()).toThrow(RangeError);
});
