import fc from 'fast-check';
import { checkFirstPage, LONG_HEADER_BYTES, type ExpectedPage } from '../../../core/wal/page-header.ts';
import { MiB, nextSegment, segmentStart } from '../../../core/wal/name.ts';
import { bytesOf, CLUSTERS, type CapturedCluster } from './samples.ts';

function expectedOf(cluster: CapturedCluster, major: number): ExpectedPage {
  return {
    name: cluster.production.file,
    segmentSize: cluster.segmentSize,
    systemIdentifier: cluster.production.said.systemIdentifier!,
    majorVersion: major,
  };
}

describe.each(CLUSTERS)('$title', ({ cluster, major }) => {
  const expected = expectedOf(cluster, major);
  const page = bytesOf(cluster.production.page);

  test('its segments are right', () => {
    expect(checkFirstPage(page, expected)).toBeUndefined();
    expect(
      checkFirstPage(bytesOf(cluster.standby.page), { ...expected, name: cluster.standby.file }),
    ).toBeUndefined();
    expect(checkFirstPage(page.subarray(0, LONG_HEADER_BYTES), expected)).toBeUndefined();
    expect(checkFirstPage(page, { ...expected, majorVersion: undefined })).toBeUndefined();
    expect(checkFirstPage(page, { ...expected, name: `${expected.name}.partial` })).toBeUndefined();
  });

  test('the first segment of timeline 2 begins with a header of timeline 1, and is right', () => {
    const forked = bytesOf(cluster.forked.page);
    expect(forked.readUInt32LE(4)).toBe(1);
    expect(cluster.forked.file.slice(0, 8)).toBe('00000002');
    expect(checkFirstPage(forked, { ...expected, name: cluster.forked.file })).toBeUndefined();
  });

  test('the next segment, another log, another cluster, another major, another size are refused', () => {
    const next = nextSegment(expected.name, cluster.segmentSize);
    expect(checkFirstPage(page, { ...expected, name: next })).toMatch(/^it begins at 0\/\w+, its name says /);
    const far = `${expected.name.slice(0, 8)}00000001${expected.name.slice(16)}`;
    expect(checkFirstPage(page, { ...expected, name: far })).toMatch('its name says 1/');
    expect(checkFirstPage(page, { ...expected, systemIdentifier: '7301' })).toBe(
      `it belongs to system identifier ${expected.systemIdentifier}, not 7301`,
    );
    for (const other of [15, 16, 17, 18].filter((one) => one !== major)) {
      expect(checkFirstPage(page, { ...expected, majorVersion: other })).toBe(
        `written by PostgreSQL ${major}, not ${other}`,
      );
    }
    for (const size of [MiB, 16 * MiB, 64 * MiB, 512 * MiB].filter((one) => one !== cluster.segmentSize)) {
      expect(checkFirstPage(page, { ...expected, segmentSize: size })).toBeDefined();
    }
  });

  test('changing any byte that the check rests on is noticed', () => {
    const at = [0, 1, 8, 9, 10, 11, 12, 13, 14, 15, ...Array.from({ length: 16 }, (_, i) => 24 + i)];
    for (const index of at) {
      const changed = Buffer.from(page);
      changed[index]! ^= 0x10;
      expect([index, checkFirstPage(changed, expected)]).not.toEqual([index, undefined]);
    }
  });
});

const { cluster, major } = CLUSTERS.find(({ cluster: one }) => one.segmentSize === 16 * MiB)!;
const expected = expectedOf(cluster, major);

function changed(change: (page: Buffer) => void): Buffer {
  const page = bytesOf(cluster.production.page);
  change(page);
  return page;
}

test.each([
  ['zeros', Buffer.alloc(8192), 'the first page is empty (zeros)'],
  ['nothing', Buffer.alloc(0), 'only 0 bytes, a page header needs 40'],
  ['a cut header', changed(() => {}).subarray(0, 39), 'only 39 bytes, a page header needs 40'],
  ['a text', Buffer.alloc(512, 'not a segment '), 'magic 0x6F6E is not the one of PostgreSQL 15'],
  ['no long header', changed((page) => page.writeUInt16LE(0x0001, 2)), 'the first page has no long header'],
  [
    'unknown flags',
    changed((page) => page.writeUInt16LE(0x0012, 2)),
    'the first page has unknown flags (0x12)',
  ],
  ['timeline 0', changed((page) => page.writeUInt32LE(0, 4)), 'the first page has timeline 0'],
  ['a later timeline', changed((page) => page.writeUInt32LE(2, 4)), 'written on timeline 2, its name says 1'],
  [
    'another segment size',
    changed((page) => page.writeUInt32LE(MiB, 32)),
    'written with segments of 1048576 bytes, not 16777216',
  ],
  [
    'another WAL block size',
    changed((page) => page.writeUInt32LE(4096, 36)),
    'written with WAL blocks of 4096 bytes, not 8192',
  ],
  [
    'the other byte order',
    changed((page) => page.subarray(0, 2).swap16()),
    'written by a big-endian machine',
  ],
])('%s: refused in words', (_, page, problem) => {
  expect(checkFirstPage(page, expected)).toBe(problem);
});

test('a segment recycled by PostgreSQL, with a new name and old content, is refused', () => {
  const start = segmentStart(expected.name, expected.segmentSize);
  const stale = changed((page) => page.writeBigUInt64LE(start - BigInt(expected.segmentSize), 8));
  expect(checkFirstPage(stale, expected)).toMatch('it begins at ');
});

test('only segments and .partial files have a first page to check', () => {
  const page = bytesOf(cluster.production.page);
  for (const name of [
    '00000002.history',
    `${expected.name}.00000028.backup`,
    'nonsense',
    '',
    '../etc/passwd',
  ]) {
    expect(checkFirstPage(page, { ...expected, name })).toMatch('is not the name of a WAL segment');
  }
  expect(checkFirstPage(page, { ...expected, segmentSize: 3 })).toBe('3 is not a WAL segment size');
  expect(checkFirstPage(page, { ...expected, name: '0000000100000000FFFFFFFF' })).toMatch(
    'does not exist where',
  );
});

test('a major that came after ours is held to a newer magic, an older one is refused', () => {
  const as = (magic: number) => changed((page) => page.writeUInt16LE(magic, 0));
  expect(checkFirstPage(as(0xd11a), { ...expected, majorVersion: 19 })).toBeUndefined();
  expect(checkFirstPage(as(0xd118), { ...expected, majorVersion: 19 })).toMatch('not one of PostgreSQL 19');
  expect(checkFirstPage(as(0xd200), { ...expected, majorVersion: 19 })).toMatch('not one of PostgreSQL 19');
  expect(checkFirstPage(as(0xd10d), { ...expected, majorVersion: 14 })).toMatch(
    'not the one of PostgreSQL 14',
  );
  expect(checkFirstPage(as(0xd10d), { ...expected, majorVersion: undefined })).toMatch(
    'belongs to no PostgreSQL',
  );
});

test('a view into a larger buffer is read at its own place', () => {
  const page = bytesOf(cluster.production.page);
  const larger = Buffer.concat([Buffer.alloc(13, 0xff), page]);
  expect(checkFirstPage(larger.subarray(13), expected)).toBeUndefined();
  expect(checkFirstPage(new Uint8Array(page), expected)).toBeUndefined();
});

test('whatever the bytes and the name: an answer, never an exception', () => {
  const bytes = fc.uint8Array({ maxLength: 64 });
  const headed = fc
    .tuple(fc.constantFrom(0xd110, 0xd118), fc.uint8Array({ minLength: 46, maxLength: 46 }))
    .map(([magic, rest]) => Buffer.concat([Buffer.from([magic & 0xff, magic >> 8, 2, 0]), rest]));
  fc.assert(
    fc.property(fc.oneof(bytes, headed), fc.oneof(fc.string(), fc.constant(expected.name)), (page, name) => {
      // the chance of a random address that fits is nil
      expect(typeof checkFirstPage(page, { ...expected, name })).toBe('string');
    }),
  );
});
