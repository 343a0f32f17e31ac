import fc from 'fast-check';
import { crc32c } from '../../../core/wal/crc32c.ts';
import { formatLsn, parseLsn, type Lsn } from '../../../core/wal/lsn.ts';
import { MiB, segmentAt, segmentEnd, segmentStart } from '../../../core/wal/name.ts';
import {
  isShutdownCheckpoint,
  isSwitch,
  walkRecords,
  type Carry,
  type Walk,
} from '../../../core/wal/records.ts';
import { RUNS, segmentsOf, type WalRun } from './wal-runs.ts';

type Segments = { name: string; bytes: Uint8Array }[];
type Place = { segmentSize: number; systemIdentifier: string; majorVersion?: number };

/** Walks a run, and adds to the last walk the end and the last record of the run (a segment may hold no end at all). */
function walkRun(segments: Segments, place: Place): Walk[] {
  const walks: Walk[] = [];
  let carry: Carry | undefined;
  for (const { name, bytes } of segments) {
    const walk = walkRecords(bytes, { name, ...place, carry });
    walks.push(walk);
    carry = walk.carry;
    if (carry === undefined) break;
  }
  return walks;
}

const aligned = (total: number) => BigInt((total + 7) & ~7);
const lastOf = (walks: Walk[]) => walks.filter(({ last }) => last !== undefined).at(-1)!;

describe.each(RUNS)('$title', ({ run, majorVersion }) => {
  const { segmentSize, systemIdentifier } = run;
  const place = { segmentSize, systemIdentifier, majorVersion };
  const segments = segmentsOf(run);
  const walks = walkRun(segments, place);
  const end = lastOf(walks);

  test('ends where the server says', () => {
    expect(walks).toHaveLength(segments.length);
    if (run.ends !== undefined) expect(formatLsn(end.ends)).toBe(run.ends);
    if (run.redoDone !== undefined) expect(formatLsn(end.last!.lsn)).toBe(run.redoDone);
    if (run.contentEnds !== undefined) {
      expect(formatLsn(end.contentEnds)).toBe(run.contentEnds);
      expect(isSwitch(end.last!)).toBe(true);
      expect(end).toMatchObject({ ends: segmentEnd(segments.at(-1)!.name, segmentSize), why: 'switch' });
    }
    if (run.checkpointLsn !== undefined) {
      expect(formatLsn(end.last!.lsn)).toBe(run.checkpointLsn);
      expect(isShutdownCheckpoint(end.last!)).toBe(true);
      expect(end.ends).toBe(end.last!.lsn + aligned(end.last!.total));
      if (run.title.endsWith('archiving')) expect(end.ends % BigInt(segmentSize)).toBe(0xa0n);
    }
  });

  test('one segment alone, what began before it skipped, gives the same end', () => {
    for (const [at, { name, bytes }] of segments.entries()) {
      const alone = walkRecords(bytes, { name, ...place });
      const { ends, contentEnds, why } = walks[at]!;
      // where the only record that ends here began before, it is told apart as unverified
      if (alone.last === undefined && ends > segmentStart(name, segmentSize)) {
        expect(alone.skippedTo).toBe(ends);
      } else expect(alone).toMatchObject({ ends, contentEnds, why });
    }
  });

  test('padded with zeros or cut after its end it says the same', () => {
    const { name, bytes } = segments.at(-1)!;
    const carry = walks.at(-2)?.carry;
    const last = walks.at(-1)!;
    if (last.why !== 'zeros') return;
    const padded = new Uint8Array(segmentSize);
    const used = Number(last.ends - segmentStart(name, segmentSize));
    padded.set(bytes.subarray(0, used));
    expect(walkRecords(padded, { name, ...place, carry })).toEqual(last);
    expect(walkRecords(bytes.subarray(0, used), { name, ...place, carry })).toEqual(last);
  });
});

const ofKind = (kind: string): (WalRun & { majorVersion: number })[] =>
  RUNS.filter(({ run }) => run.title === kind && run.segmentSize === MiB).map(({ run, majorVersion }) => ({
    ...run,
    majorVersion,
  }));

test('a record over four segments is one record, and segments that lie inside it hold no end', () => {
  for (const run of ofKind('with a record over four segments')) {
    const segments = segmentsOf(run);
    const walks = walkRun(segments, run);
    expect(walks.map(({ why }) => why).slice(0, 3)).toEqual(Array(3).fill('crosses into the next segment'));
    for (const inside of [1, 2]) {
      const start = segmentStart(segments[inside]!.name, MiB);
      expect(walks[inside]).toMatchObject({ ends: start, records: 0, last: undefined, first: undefined });
    }
    // the first record that lies in the last segment begins where the large one ends
    expect(formatLsn(walks[3]!.first!)).toBe(run.largeEnds);
    const [before, , , after] = walks;
    expect(before!.carry!.part).toMatchObject({ lsn: before!.ends });
    expect(before!.carry!.part!.total).toBeGreaterThan(3_400_000);
    // one more than alone: the large one
    const alone = walkRecords(segments[3]!.bytes, { ...run, name: segments[3]!.name });
    expect(after!.records).toBe(alone.records + 1);
    expect(formatLsn(alone.skippedTo!)).toBe(run.largeEnds);
  }
});

test('half a record at the end of the WAL is no part of it, and one that was overwritten is passed over', () => {
  for (const run of ofKind('that ends in the middle of a record')) {
    const walks = walkRun(segmentsOf(run), run);
    expect(walks.at(-1)!.why).toBe('crosses into the next segment');
    expect(walks.at(-1)!.records).toBe(0);
  }
  for (const run of ofKind('in which half a record was overwritten')) {
    const walks = walkRun(segmentsOf(run), run);
    expect(walks[1]!.carry!.part).toBeDefined();
    // the link of the first record after it names the last whole one, two segments before
    expect(walks[2]!.first).toBe(segmentStart(segmentsOf(run)[2]!.name, MiB) + 40n);
    expect(walks[2]!.why).toBe('zeros');
  }
});

describe('a segment under load', () => {
  const run = ofKind('under load')[0]!;
  const segments = segmentsOf(run);
  const [, before, after] = walkRun(segments, run);
  const { name } = segments[2]!;
  const options = { ...run, name, carry: before!.carry };
  const bytes = new Uint8Array(MiB);
  bytes.set(segments[2]!.bytes);
  const start = segmentStart(name, MiB);
  const used = Number(after!.ends - start);

  test('a changed byte never moves its end on', () => {
    fc.assert(
      fc.property(fc.nat(used - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const changed = bytes.slice();
        changed[at]! ^= change;
        const walk = walkRecords(changed, options);
        expect(walk.ends).toBeLessThanOrEqual(after!.ends);
        // either the record of this byte no longer counts, or it lies where nothing does: padding, an unused field of a header
        if (walk.ends !== after!.ends) expect(walk.ends).toBeLessThanOrEqual(start + BigInt(at));
      }),
      { numRuns: 300 },
    );
  });

  test('any changed byte of a record ends the WAL before it', () => {
    const record = after!.last!;
    const at = Number(record.lsn - start);
    for (let byte = at; byte < at + record.total; byte += 1) {
      const changed = bytes.slice();
      changed[byte]! ^= 0x20;
      expect([byte, walkRecords(changed, options).ends]).toEqual([byte, record.lsn]);
    }
  });

  test('zeros from some byte on end it at or before that byte, where they changed anything', () => {
    fc.assert(
      fc.property(fc.nat(used), (at) => {
        const cut = bytes.slice().fill(0, at);
        const walk = walkRecords(cut, options);
        const offset = Number(walk.ends - start);
        // a record that ends in zeros anyway is still whole
        if (offset > at) expect(bytes.subarray(at, offset).every((byte) => byte === 0)).toBe(true);
        expect(walkRecords(bytes.subarray(0, at), options)).toEqual(walk);
      }),
      { numRuns: 300 },
    );
  });

  test('what a recycled file goes on with is not taken for its WAL', () => {
    const old = segments[1]!.bytes;
    for (const from of [used, used + 8, (used + 8191) & ~8191]) {
      const recycled = bytes.slice();
      recycled.set(old.subarray(from), from);
      expect(walkRecords(recycled, options).ends).toBe(after!.ends);
      // records of its own, moved to where they do not belong: well formed, and with the wrong link
      recycled.set(bytes.subarray(Number(after!.first! - start), used), used);
      expect(walkRecords(recycled, options).ends).toBe(after!.ends);
    }
  });

  test('garbage is an answer, never an error', () => {
    const sprinkle = fc.array(fc.tuple(fc.nat(used + 100), fc.nat(255)), { maxLength: 20 });
    fc.assert(
      fc.property(sprinkle, fc.boolean(), (changes, withCarry) => {
        const changed = bytes.slice();
        for (const [at, value] of changes) changed[at] = value;
        const walk = walkRecords(changed, withCarry ? options : { ...options, carry: undefined });
        expect(walk.ends).toBeLessThanOrEqual(segmentEnd(name, MiB));
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 20_000 }), fc.nat(100), (noise, head) => {
        expect(walkRecords(noise, options).ends).toBe(start);
        const begun = bytes.slice(0, head + noise.length);
        begun.set(noise, head);
        expect(walkRecords(begun, options).ends).toBeLessThanOrEqual(after!.ends);
      }),
    );
  });

  test('a length of 4 GB that is not true costs nothing', () => {
    const at = Number(after!.last!.lsn - start);
    const claimed = bytes.slice();
    new DataView(claimed.buffer).setUint32(at, 0xffff_ffff, true);
    const memory = process.memoryUsage().arrayBuffers;
    expect(walkRecords(claimed, options).ends).toBe(after!.last!.lsn);
    expect(process.memoryUsage().arrayBuffers - memory).toBeLessThan(10 * MiB);
  });

  test('a page of a timeline higher than its name, or lower than the page before, ends it', () => {
    let further = 0;
    for (let at = 8192; at < used - 8192; at += 8192) {
      const page = bytes.slice();
      page[at + 4] = 2;
      const higher = walkRecords(page, options);
      expect(higher.why).toBe('invalid page');
      expect(higher.ends).toBeLessThanOrEqual(start + BigInt(at));
      // under a name of timeline 2 that page is right, and the next one goes back
      const lower = walkRecords(page, { ...options, name: `00000002${name.slice(8)}` });
      expect(lower.why).toBe('invalid page');
      expect(lower.ends).toBeLessThanOrEqual(start + BigInt(at + 8192));
      if (lower.ends > higher.ends) further += 1;
    }
    expect(further).toBeGreaterThan(10);
  });

  test('the first segment of a new timeline, begun as a copy of the old one, goes on as its own', () => {
    const page = new DataView(bytes.slice().buffer);
    for (let at = 8192; at < used; at += 8192) page.setUint32(at + 4, 2, true);
    const forked = { ...options, name: `00000002${name.slice(8)}` };
    expect(walkRecords(new Uint8Array(page.buffer), forked).ends).toBe(after!.ends);
  });

  test('another cluster, another place, another carry are told', () => {
    expect(walkRecords(bytes, { ...options, systemIdentifier: '7301' }).why).toBe('invalid page');
    const elsewhere = segmentAt(1, start + BigInt(MiB), MiB);
    expect(walkRecords(bytes, { ...options, name: elsewhere, carry: undefined }).why).toBe('invalid page');
    expect(() => walkRecords(bytes, { ...options, name: elsewhere })).toThrow(RangeError);
    expect(() => walkRecords(bytes, { ...options, name: '00000001.history' })).toThrow(RangeError);
    expect(walkRecords(bytes, options)).toEqual(after);
  });

  test('after a switch nothing counts, whatever the file holds', () => {
    const [switched] = ofKind('after pg_switch_wal()');
    const [segment] = segmentsOf(switched!);
    const place = { ...switched!, name: segment!.name };
    const walk = walkRecords(segment!.bytes, place);
    const noisy = new Uint8Array(MiB).fill(0x5a);
    const kept = Number(walk.contentEnds - segmentStart(place.name, MiB));
    noisy.set(segment!.bytes.subarray(0, kept));
    expect(walkRecords(noisy, place)).toEqual(walk);
    expect(walk.carry).toMatchObject({ at: walk.ends, previous: walk.last!.lsn, part: undefined });
  });
});

/** Two segments of made-up WAL with records of these lengths (negative: a switch record), as PostgreSQL lays them out; links: wrong ones. */
function written(
  totals: readonly number[],
  links: Record<number, Lsn> = {},
): { segments: Segments; ends: Lsn[] } {
  const first = parseLsn('A/FFE00000');
  const all = new Uint8Array(2 * MiB);
  const view = new DataView(all.buffer);
  const ends: Lsn[] = [];
  let at = 0;
  let previous = first - 1000n;
  const page = (left: number) => {
    const isLong = at % MiB === 0;
    view.setUint16(at, 0xd110, true);
    view.setUint16(at + 2, (left > 0 ? 1 : 0) | (isLong ? 2 : 0), true);
    view.setUint32(at + 4, 1, true);
    view.setBigUint64(at + 8, first + BigInt(at), true);
    view.setUint32(at + 16, left, true);
    if (isLong) {
      view.setBigUint64(at + 24, 7301n, true);
      view.setUint32(at + 32, MiB, true);
      view.setUint32(at + 36, 8192, true);
    }
    at += isLong ? 40 : 24;
  };
  for (const [index, signed] of totals.entries()) {
    const total = Math.abs(signed);
    if (at % 8192 === 0) page(0);
    const record = new Uint8Array(total).fill(index + 1);
    const header = new DataView(record.buffer);
    header.setUint32(0, total, true);
    header.setBigUint64(8, links[index] ?? previous, true);
    record.set(signed < 0 ? [0x40, 0] : [0, 10], 16);
    header.setUint32(20, crc32c(record, crc32c(record.subarray(24)), 0, 20), true);
    previous = first + BigInt(at);
    for (let done = 0; done < total;) {
      if (at % 8192 === 0) page(total - done);
      const length = Math.min(total - done, 8192 - (at % 8192));
      all.set(record.subarray(done, done + length), at);
      done += length;
      at += length;
    }
    at = (at + 7) & ~7;
    if (signed < 0) at = Math.ceil(at / MiB) * MiB;
    ends.push(first + BigInt(at));
  }
  const segments = [0, 1].map((index) => ({
    name: segmentAt(1, first + BigInt(index * MiB), MiB),
    bytes: all.subarray(index * MiB, (index + 1) * MiB),
  }));
  return { segments, ends };
}

describe('records on the border of two segments', () => {
  const place = { segmentSize: MiB, systemIdentifier: '7301' };
  // what a record of one segment less `short` bytes needs: 128 pages, the first header 40 bytes, the others 24
  const filler = (short: number) => MiB - 40 - 127 * 24 - short;
  const border = parseLsn('A/FFF00000');

  test.each([0, 8, 16, 24, 32, 40, 4096])('with %i bytes left before it', (short) => {
    for (const totals of [
      [24],
      [25],
      [31],
      [32],
      [40, 40],
      [-24],
      [10_000, 24],
      [500_000, 300_000, 24, 8000],
    ]) {
      const { segments, ends } = written([filler(short), ...totals]);
      const walks = walkRun(segments, place);
      const last = lastOf(walks);
      expect([totals, last.ends]).toEqual([totals, ends.at(-1)]);
      expect(walks.reduce((sum, { records }) => sum + records, 0)).toBe(ends.length);
      const inFirst = ends.filter((lsn) => lsn <= border).at(-1)!;
      expect(walks[0]!.ends).toBe(inFirst);
      const isCrossing = ends.find((lsn) => lsn > border) !== undefined && inFirst < border;
      if (isCrossing) expect(walks[0]!.why).toBe('crosses into the next segment');
    }
  });

  test('any lengths, anywhere: the end is the end of the last record, and each byte of the last one counts', () => {
    const lengths = fc.array(
      fc.oneof(fc.integer({ min: 24, max: 200 }), fc.integer({ min: 24, max: 50_000 })),
      {
        minLength: 1,
        maxLength: 12,
      },
    );
    fc.assert(
      fc.property(fc.nat(3000), lengths, fc.nat(), (short, totals, which) => {
        const { segments, ends } = written([filler(short * 8), ...totals]);
        expect(lastOf(walkRun(segments, place)).ends).toBe(ends.at(-1));
        const from = Number(ends.at(-2)! - parseLsn('A/FFE00000'));
        const to = Number(ends.at(-1)! - parseLsn('A/FFE00000')) - 8;
        const at = from + (which % (to - from));
        const { bytes } = segments[Math.floor(at / MiB)]!;
        const isPageHeader = at % 8192 < 40;
        bytes[at % MiB]! ^= 0x10;
        if (!isPageHeader) expect(lastOf(walkRun(segments, place)).ends).toBe(ends.at(-2));
      }),
      { numRuns: 30 },
    );
  });

  test('a continuation of another length, or none, is not taken for it', () => {
    const { segments } = written([filler(16), 5000, 24]);
    const { carry } = walkRecords(segments[0]!.bytes, { ...place, name: segments[0]!.name });
    const options = { ...place, name: segments[1]!.name, carry };
    const { segments: other } = written([filler(16), 5008, 24]);
    expect(walkRecords(other[1]!.bytes, options)).toMatchObject({ ends: border, why: 'invalid record' });
    const { segments: none } = written([filler(0), 5000, 24]);
    expect(walkRecords(none[1]!.bytes, options)).toMatchObject({ ends: border, why: 'invalid record' });
    // one that nobody expects
    const whole = written([filler(0)]).segments;
    const ended = walkRecords(whole[0]!.bytes, { ...place, name: whole[0]!.name });
    expect(ended).toMatchObject({ ends: border, why: 'end of segment' });
    expect(walkRecords(segments[1]!.bytes, { ...options, carry: ended.carry })).toMatchObject({
      ends: border,
      skippedTo: undefined,
      why: 'invalid record',
    });
    // one of no length
    const empty = written([filler(0), 24]).segments[1]!.bytes.slice();
    expect(walkRecords(empty, { ...options, carry: undefined })).toMatchObject({ records: 1, why: 'zeros' });
    empty[2]! |= 1;
    expect(walkRecords(empty, { ...options, carry: undefined }).why).toBe('invalid record');
    // and the attempts, failed or not, have left the carry as it was
    expect(walkRecords(segments[1]!.bytes, options)).toMatchObject({ records: 2, why: 'zeros' });
    expect(carry).toEqual(walkRecords(segments[0]!.bytes, { ...place, name: segments[0]!.name }).carry);
    expect(walkRecords(segments[1]!.bytes, options)).toMatchObject({ records: 2, why: 'zeros' });
  });

  test('a record with a right checksum but a wrong link, forward or to another record, is not the next one', () => {
    const far = border + 0x1000n;
    for (const totals of [
      [24, 100, 24],
      [24, 9000, 24],
      [24, 20_000, 24],
    ]) {
      const { segments, ends } = written([filler(4096), ...totals], { 2: border - 0x8000n });
      expect(lastOf(walkRun(segments, place)).ends).toBe(ends[1]);
      const ahead = written([100, ...totals], { 0: far }).segments;
      expect(walkRun(ahead, place)[0]).toMatchObject({ records: 0, why: 'invalid record' });
    }
    // the same of one whose header is cut in two by the border
    const { segments } = written([filler(16), 100], { 1: far });
    expect(walkRun(segments, place)[1]).toMatchObject({ ends: border, why: 'invalid record' });
  });

  test('a page that says another address, or that less is left of a record than is, ends it', () => {
    const { segments } = written([100, 30_000, 24]);
    const [{ name, bytes }] = segments as [Segments[number], Segments[number]];
    const one = walkRecords(bytes, { ...place, name });
    expect(one.records).toBe(3);
    for (const [at, why] of [
      [8192 + 9, 'invalid page'],
      [8192 + 12, 'invalid page'],
      [2 * 8192 + 16, 'invalid record'],
    ] as const) {
      const changed = bytes.slice();
      changed[at]! ^= 0x20;
      expect(walkRecords(changed, { ...place, name })).toMatchObject({ records: 1, why });
    }
  });

  test('a length shorter than a header is no record, on the last bytes of a page too', () => {
    const { segments } = written([filler(8), 24]);
    const { name, bytes } = segments[0]!;
    bytes[MiB - 8] = 10;
    expect(walkRecords(bytes, { ...place, name })).toMatchObject({
      ends: border - 8n,
      why: 'invalid record',
    });
  });
});
