import fc from 'fast-check';
import {
  byteRate,
  bytes,
  choice,
  directory,
  duration,
  httpUrl,
  integer,
  name,
  share,
  onOff,
  text,
  vaultUrl,
} from '../../../core/settings/kinds.ts';

const KINDS = {
  duration: duration('0', '1d'),
  bytes: bytes('0', '1GiB'),
  integer: integer(-5, 19),
  choice: choice('none', 'stop'),
  onOff: onOff(),
  text: text('anything'),
  name: name(),
  directory: directory(),
  vaultUrl: vaultUrl(),
  httpUrl: httpUrl(),
  byteRate: byteRate('100GB/min'),
  share: share(0.01, 1),
};

test.each([
  ['0', 0],
  ['1ms', 1],
  ['500ms', 500],
  ['1.5s', 1500],
  ['30s', 30_000],
  ['2m', 120_000],
  ['2min', 120_000],
  ['2 min', 120_000],
  ['1h', 3_600_000],
  ['1d', 86_400_000],
])('duration %s is %d ms', (given, ms) => {
  expect(KINDS.duration.parse(given)).toBe(ms);
});

test.each([
  ['30', 'needs a unit: ms, s, m, h or d'],
  ['', 'is not a duration'],
  ['-1s', 'is not a duration'],
  ['1e3s', 'is not a duration'],
  ['s', 'is not a duration'],
  ['1m30s', 'is not a duration'],
  ['3 weeks', 'has an unknown unit weeks: ms, s, m, h and d are known'],
  ['2d', 'is outside 0 to 1d'],
])('duration %j is refused: %s', (given, message) => {
  expect(() => KINDS.duration.parse(given)).toThrow(new RangeError(message));
});

test.each([
  ['0', 0],
  ['512', 512],
  ['512B', 512],
  ['64MiB', 64 * 1024 * 1024],
  ['64MB', 64 * 1024 * 1024],
  ['64 mb', 64 * 1024 * 1024],
  ['8kB', 8192],
  ['0.5GiB', 512 * 1024 * 1024],
])('size %s is %d bytes', (given, size) => {
  expect(KINDS.bytes.parse(given)).toBe(size);
});

test.each(['', 'MiB', '-1MiB', '1TiB', '2GiB', '1 2', '1,5MiB'])('size %j is refused', (given) => {
  expect(() => KINDS.bytes.parse(given)).toThrow(RangeError);
});

test.each(['', '1.5', 'ten', '0x10', '20', '-6', ' 1'])('whole number %j is refused', (given) => {
  expect(() => KINDS.integer.parse(given)).toThrow(RangeError);
});

test.each(['on', 'true', 'YES', '1'])('%s is on', (given) => expect(onOff().parse(given)).toBe(true));
test.each(['off', 'False', 'no', '0'])('%s is off', (given) => expect(onOff().parse(given)).toBe(false));
test('a choice is one of its words, nothing near it', () => {
  expect(KINDS.choice.parse('stop')).toBe('stop');
  expect(() => KINDS.choice.parse('Stop')).toThrow('is none of none, stop');
  expect(() => onOff().parse('maybe')).toThrow('is neither on nor off');
});

test.each(['main', 'db1', '0', 'a.b_c-d', 'x'.repeat(63)])('%s is a name', (given) => {
  expect(name().parse(given)).toBe(given);
});
test.each(['', 'a/b', 'a#b', '.hidden', '-x', 'a b', 'é', 'a\n', 'x'.repeat(64), '..'])(
  '%j is no name: it would cut a key or a line in two',
  (given) => {
    expect(() => name().parse(given)).toThrow(RangeError);
  },
);

test('a directory becomes absolute; spaces and quotes are letters like others', () => {
  expect(directory().parse('/srv/it\'s a "place"/')).toBe('/srv/it\'s a "place"');
  expect(directory().parse('data')).toBe(`${process.cwd()}/data`);
  expect(() => directory().parse('')).toThrow('is empty');
  expect(() => directory().parse('/srv/a\nb')).toThrow('control character');
});

test.each([
  'file:///srv/vault',
  'file:///srv/with%20space',
  's3://acme-wal',
  's3://acme-wal/prod/eu',
  's3://acme.wal/prod?table=walvault&region=eu-west-1',
  's3://acme?table=w',
  'memory:test',
])('%s is a vault', (given) => {
  expect(vaultUrl().parse(given)).toBe(given);
});
test.each([
  ['/srv/vault', 'begins with file: or s3:'],
  ['', 'begins with file: or s3:'],
  ['file://srv/vault', 'three slashes'],
  ['file:/srv/vault', 'three slashes'],
  ['file:///', 'three slashes'],
  ['s3:///prefix', 'names no bucket'],
  ['s3://Upper/prefix', 'names no bucket'],
  ['s3://ab', 'names no bucket'],
  ['http://bucket', 'unknown scheme http:'],
  ['memory:', 'no name'],
  ['file:///srv/\nvault', 'control character'],
])('%j is no vault: %s', (given, message) => {
  expect(() => vaultUrl().parse(given)).toThrow(message);
});

test.each(['http://127.0.0.1:4566', 'https://s3.example.com/x'])('%s is an endpoint', (given) => {
  expect(httpUrl().parse(given)).toBe(given);
});
test.each(['', '127.0.0.1:4566', 'ftp://x', 'http://', 'http:///x'])('%j is no endpoint', (given) => {
  expect(() => httpUrl().parse(given)).toThrow(RangeError);
});

test('a zero with a sign is zero', () => {
  expect(Object.is(integer(-1, 1).parse('-0'), 0)).toBe(true);
});

test('durations and sizes come back from their text', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 86_400_000 }), (ms) => {
      expect(KINDS.duration.parse(KINDS.duration.format(ms))).toBe(ms);
      expect(KINDS.bytes.parse(KINDS.bytes.format(ms))).toBe(ms);
      expect(KINDS.duration.parse(KINDS.duration.format(Math.floor(ms / 1000) * 1000))).toBe(
        Math.floor(ms / 1000) * 1000,
      );
    }),
  );
});

test.each(Object.entries(KINDS))('%s: whatever the text, a value or a RangeError', (_, kind) => {
  const unit = fc.constantFrom(...'019.msGiBkd:/file3-h on', 'é', '\0', '\n');
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit })), (given) => {
      let value: unknown;
      try {
        value = kind.parse(given);
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError);
        return;
      }
      expect(kind.parse((kind.format as (value: unknown) => string)(value))).toEqual(value);
    }),
    { numRuns: 300 },
  );
});

test.each([
  ['0', 0],
  ['1MB/s', 86_400 * 1024 ** 2],
  ['60 MiB / min', 86_400 * 1024 ** 2],
  ['1GiB/h', 24 * 1024 ** 3],
  ['2TB/day', 2 * 1024 ** 4],
  ['1.5kB/sec', 86_400 * 1536],
])('rate %s is %d bytes a day', (given, rate) => {
  expect(KINDS.byteRate.parse(given)).toBe(rate);
});

test.each(['', '16MB', 'MB/min', '16/min', '16MB/min/min', '16MB/fortnight', '-1MB/min', '1e3MB/s', '2TB/s'])(
  'rate %j is refused',
  (given) => {
    expect(() => KINDS.byteRate.parse(given)).toThrow(RangeError);
  },
);

test.each(['', '0', '1.5', '-0.5', '.5', 'half', '0,5'])('share %j is refused', (given) => {
  expect(() => KINDS.share.parse(given)).toThrow(RangeError);
});
