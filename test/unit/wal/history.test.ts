import fc from 'fast-check';
import { formatHistory, parseHistory, type HistoryEntry } from '../../../core/wal/history.ts';
import { LAST_LSN, parseLsn } from '../../../core/wal/lsn.ts';
import { CLUSTERS } from './samples.ts';

const anyEntries: fc.Arbitrary<HistoryEntry[]> = fc
  .uniqueArray(fc.integer({ min: 1, max: 0xffff_fffe }), { maxLength: 8 })
  .chain((timelines) =>
    fc
      .array(fc.bigInt({ min: 0n, max: LAST_LSN }), {
        minLength: timelines.length,
        maxLength: timelines.length,
      })
      .map((forks) =>
        timelines.sort((a, b) => a - b).map((timeline, index) => ({ timeline, forkLsn: forks[index]! })),
      ),
  );

test.each(CLUSTERS)('$title: the history it wrote is read', ({ cluster }) => {
  const entries = parseHistory(cluster.forked.history);
  expect(entries).toEqual([{ timeline: 1, forkLsn: expect.any(BigInt) }]);
  expect(entries[0]!.forkLsn % BigInt(cluster.segmentSize)).toBe(0xa0n);
  expect(formatHistory(entries, 'no recovery target specified')).toBe(cluster.forked.history);
});

test('comments, blank lines, other white space and a missing last line feed are no matter', () => {
  const text =
    '# who knows\n\n1\t0/5000000\tno recovery target specified\n\n  2 0/60000A0 before 2000-01-01\r\n4\tA/1';
  expect(parseHistory(text)).toEqual([
    { timeline: 1, forkLsn: parseLsn('0/5000000') },
    { timeline: 2, forkLsn: parseLsn('0/60000A0') },
    { timeline: 4, forkLsn: parseLsn('A/1') },
  ]);
});

test('no ancestors: an empty file, or comments only', () => {
  expect(parseHistory('')).toEqual([]);
  expect(parseHistory('# a comment line will do\n')).toEqual([]);
});

test.each([
  ['zeros', '\0\0\0\0'],
  ['a number alone', '1\n'],
  ['an LSN that is none', '1\t0/50000000000\tx\n'],
  ['something glued to the LSN', '1\t0/5000000x\n'],
  ['timeline 0', '0\t0/5000000\tx\n'],
  ['a timeline past 32 bits', '4294967296\t0/5000000\tx\n'],
  ['a negative timeline', '-1\t0/5000000\tx\n'],
  ['numbers that stand still', '1\t0/5000000\tx\n1\t0/6000000\tx\n'],
  ['numbers that fall', '2\t0/5000000\tx\n1\t0/6000000\tx\n'],
  ['one bad line among good ones', '1\t0/5000000\tx\nnonsense\n3\t0/7000000\tx\n'],
])('%s: refused, never half read', (_, text) => {
  expect(() => parseHistory(text)).toThrow(RangeError);
});

test('the message names the line', () => {
  expect(() => parseHistory('1\t0/5000000\tx\n\nnonsense\n')).toThrow('line 3');
});

test('forks need not ascend: a recovery along timeline 2 may stop before the fork of 2', () => {
  expect(parseHistory('1\t0/9000000\tx\n\n2\t0/5000000\tbefore 0/5000000\n')).toHaveLength(2);
});

test('what is written is read back', () => {
  fc.assert(
    fc.property(anyEntries, (entries) => {
      expect(parseHistory(formatHistory(entries, 'a reason # with signs'))).toEqual(entries);
    }),
  );
});

test('nothing is written that would not be read back', () => {
  const lsn = parseLsn('0/5000000');
  expect(() => formatHistory([{ timeline: 1, forkLsn: lsn }], 'two\nlines')).toThrow(RangeError);
  expect(() => formatHistory([{ timeline: 0, forkLsn: lsn }], 'x')).toThrow(RangeError);
  const twice = [
    { timeline: 2, forkLsn: lsn },
    { timeline: 2, forkLsn: lsn },
  ];
  expect(() => formatHistory(twice, 'x')).toThrow('ascend');
});

test('whatever the text: entries with ascending numbers, or a RangeError', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(...'012/ \t\n#A') })), (text) => {
      try {
        const timelines = parseHistory(text).map(({ timeline }) => timeline);
        return timelines.every((timeline, index) => index === 0 || timeline > timelines[index - 1]!);
      } catch (error) {
        return error instanceof RangeError;
      }
    }),
  );
});
