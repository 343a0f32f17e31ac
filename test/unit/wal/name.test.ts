import fc from 'fast-check';
import { LAST_LSN, parseLsn } from '../../../core/wal/lsn.ts';
import {
  historyName,
  isSegmentName,
  isSegmentSize,
  MiB,
  nextSegment,
  parseWalName,
  segmentAt,
  segmentEnd,
  segmentStart,
} from '../../../core/wal/name.ts';
import { CLUSTERS } from './samples.ts';

const SIZES = Array.from({ length: 11 }, (_, power) => MiB * 2 ** power);
const anySize = fc.constantFrom(...SIZES);
const anyTimeline = fc.integer({ min: 1, max: 0xffff_ffff });
const anyLsn = fc.oneof(
  fc.bigInt({ min: 0n, max: LAST_LSN }),
  // near the places where the part starts again at 0 and the log goes up
  fc
    .tuple(fc.bigInt({ min: 1n, max: 0xffff_ffffn }), fc.bigInt({ min: -2048n, max: 2048n }))
    .map(([log, off]) => (log << 32n) + off),
);

describe.each(CLUSTERS)('$title', ({ cluster }) => {
  test('names are those of pg_walfile_name()', () => {
    expect(cluster.names.length).toBe(40);
    for (const { lsn, name } of cluster.names) {
      expect(segmentAt(1, parseLsn(lsn), cluster.segmentSize)).toBe(name);
    }
  });
});

test.each([
  ['00000001000000000000000A', { kind: 'segment', timeline: 1, log: 0, part: 10 }],
  [
    'FFFFFFFFFFFFFFFFFFFFFFFF',
    { kind: 'segment', timeline: 0xffff_ffff, log: 0xffff_ffff, part: 0xffff_ffff },
  ],
  ['000000010000000A000000FE.partial', { kind: 'partial', timeline: 1, log: 10, part: 254 }],
  [
    '000000010000000A000000FE.00000028.backup',
    { kind: 'backup', timeline: 1, log: 10, part: 254, offset: 0x28 },
  ],
  ['0000000B.history', { kind: 'history', timeline: 11 }],
])('%s is recognised', (name, parts) => {
  expect(parseWalName(name)).toEqual({ name, ...parts });
  expect(isSegmentName(name)).toBe(parts.kind === 'segment');
});

test.each([
  '',
  '000000010000000A000000F',
  '000000010000000A000000FE0',
  '000000010000000a000000fe',
  '000000010000000A000000FE.partial.partial',
  '000000010000000A000000FE.backup',
  '000000010000000A000000FE.28.backup',
  '000000010000000A000000FE.history',
  '000000010000000A000000FE\n',
  ' 000000010000000A000000FE',
  '../000000010000000A000000FE',
  '00000002.history.partial',
  '2.history',
  'xlogtemp.123',
  'RECOVERYXLOG',
])('%j is no WAL file', (name) => {
  expect(parseWalName(name)).toBeUndefined();
  expect(isSegmentName(name)).toBe(false);
});

test('the 24 zeros of an unknown %r are no position', () => {
  expect(parseWalName('000000000000000000000000')).toBeUndefined();
  expect(parseWalName('00000000.history')).toBeUndefined();
});

test('sizes are the powers of two from 1 MiB to 1 GiB, nothing else', () => {
  expect(SIZES.filter(isSegmentSize)).toEqual(SIZES);
  for (const size of [
    0,
    -MiB,
    MiB / 2,
    MiB + 1,
    3 * MiB,
    2048 * MiB,
    4096 * MiB,
    NaN,
    Infinity,
    1.5 * MiB,
    2 ** 52,
  ]) {
    expect(isSegmentSize(size)).toBe(false);
    expect(() => segmentAt(1, 0n, size)).toThrow(RangeError);
    expect(() => segmentStart('000000010000000000000001', size)).toThrow(RangeError);
  }
});

test.each(SIZES.map((size) => [size / MiB, size]))(
  'with segments of %d MiB the part starts again at 0 after the last one of a log',
  (_, size) => {
    const parts = 0x1_0000_0000 / size;
    const last = `0000000300000007${(parts - 1).toString(16).toUpperCase().padStart(8, '0')}`;
    expect(segmentEnd(last, size)).toBe(8n << 32n);
    expect(nextSegment(last, size)).toBe('000000030000000800000000');
    const beyond = `0000000300000007${parts.toString(16).toUpperCase().padStart(8, '0')}`;
    expect(() => segmentStart(beyond, size)).toThrow('does not exist where segments have');
  },
);

test('a name and its LSNs lead to each other, for every segment size', () => {
  fc.assert(
    fc.property(anyTimeline, anyLsn, anySize, (timeline, lsn, size) => {
      const name = segmentAt(timeline, lsn, size);
      const start = segmentStart(name, size);
      expect(isSegmentName(name)).toBe(true);
      expect(parseWalName(name)).toMatchObject({ timeline });
      expect(start <= lsn && lsn < segmentEnd(name, size)).toBe(true);
      expect(start % BigInt(size)).toBe(0n);
      expect(segmentEnd(name, size) - start).toBe(BigInt(size));
      expect(segmentAt(timeline, start, size)).toBe(name);
    }),
  );
});

test('the next segment begins where this one ends, and its name sorts after it', () => {
  fc.assert(
    fc.property(anyTimeline, anyLsn, anySize, (timeline, lsn, size) => {
      const name = segmentAt(timeline, lsn, size);
      fc.pre(segmentEnd(name, size) <= LAST_LSN);
      const next = nextSegment(name, size);
      expect(segmentStart(next, size)).toBe(segmentEnd(name, size));
      expect(next > name).toBe(true);
    }),
  );
});

test('after the last segment of all there is none', () => {
  for (const size of SIZES) {
    const last = segmentAt(1, LAST_LSN, size);
    expect(segmentEnd(last, size)).toBe(LAST_LSN + 1n);
    expect(() => nextSegment(last, size)).toThrow(RangeError);
  }
});

test('.partial and .backup lie where their segment lies; a history file lies nowhere', () => {
  const size = 16 * MiB;
  const start = segmentStart('000000010000000A000000FE', size);
  expect(segmentStart('000000010000000A000000FE.partial', size)).toBe(start);
  expect(segmentStart('000000010000000A000000FE.00000028.backup', size)).toBe(start);
  expect(() => segmentStart('00000002.history', size)).toThrow('not the name of a WAL segment');
});

test('history names come back, timelines that do not exist have none', () => {
  fc.assert(
    fc.property(anyTimeline, (timeline) => {
      expect(parseWalName(historyName(timeline))).toEqual({
        kind: 'history',
        name: historyName(timeline),
        timeline,
      });
    }),
  );
  for (const timeline of [0, -1, 1.5, NaN, 2 ** 32]) {
    expect(() => historyName(timeline)).toThrow(RangeError);
    expect(() => segmentAt(timeline, 0n, MiB)).toThrow(RangeError);
  }
});

test('whatever the text, parsing never throws, and what it takes for a name is that name', () => {
  const nearly = fc
    .tuple(
      fc.string({ unit: fc.constantFrom(...'0123456789ABCDEFa.'), minLength: 20, maxLength: 28 }),
      fc.constantFrom('', '.partial', '.history', '.00000028.backup', '\n'),
    )
    .map((parts) => parts.join(''));
  fc.assert(
    fc.property(fc.oneof(fc.string(), nearly), (text) => {
      const parsed = parseWalName(text);
      expect(parsed === undefined || (parsed.name === text && parsed.timeline > 0)).toBe(true);
    }),
  );
});
