/**
 * The header of a segment's first page, checked against the segment's name.
 *
 * The last net before archive_command or restore_command answers 0: in archive recovery PostgreSQL takes zeros, or another
 * segment's bytes, for the end of the WAL, and opens with data missing (measured, 15 to 18).
 *
 *   byte 0  magic u16      one per major        16  rem_len u32
 *        2  info u16       bit 1: long header   24  system identifier u64
 *        4  timeline u32                        32  segment size u32
 *        8  page address u64                    36  WAL block size u32
 *
 * Little-endian, as on every machine that we run on. Measured on 15.20, 16.14, 17.10 and 18.4, segments of 1, 16 and 64 MiB.
 *
 * Pure: no file, no clock, no network.
 * Source: PostgreSQL, src/include/access/xlog_internal.h, XLogLongPageHeaderData.
 */
import { formatLsn } from './lsn.ts';
import { isSegmentSize, parseWalName, segmentStart } from './name.ts';

/** XLOG_PAGE_MAGIC of each major; the test of fixtures holds them against files of real servers. */
export const PAGE_MAGIC: Readonly<Record<number, number>> = {
  15: 0xd110,
  16: 0xd113,
  17: 0xd116,
  18: 0xd118,
};

/** Bytes of the long header: as many checkFirstPage needs. */
export const LONG_HEADER_BYTES = 40;

const LONG_HEADER = 0x0002;
const KNOWN_FLAGS = 0x000f;
const WAL_BLOCK_BYTES = 8192;
const NEWEST = Math.max(...Object.keys(PAGE_MAGIC).map(Number));

export type ExpectedPage = {
  /** Name of a segment or .partial. */
  name: string;
  /** Bytes. */
  segmentSize: number;
  /** Decimal, as pg_controldata prints it. */
  systemIdentifier: string;
  /** 15 to 18 ask for just this major's magic; a newer one for a magic newer than ours; none for any that we know. */
  majorVersion?: number;
};

/**
 * What is wrong with these bytes as the beginning of the segment of this name, in words for a message; undefined: nothing.
 * Never throws: whatever it cannot judge is wrong.
 *
 * The header's timeline may be lower than the name's, since the first segment of a new timeline begins as a copy of its
 * parent's, but never higher.
 *
 * @param bytes  the first LONG_HEADER_BYTES or more
 */
export function checkFirstPage(bytes: Uint8Array, expected: ExpectedPage): string | undefined {
  const name = parseWalName(expected.name);
  if (name === undefined || (name.kind !== 'segment' && name.kind !== 'partial')) {
    return `${JSON.stringify(expected.name)} is not the name of a WAL segment`;
  }
  if (!isSegmentSize(expected.segmentSize)) return `${expected.segmentSize} is not a WAL segment size`;
  if (name.part >= 0x1_0000_0000 / expected.segmentSize) {
    return `${name.name} does not exist where segments have ${expected.segmentSize} bytes`;
  }
  if (bytes.byteLength < LONG_HEADER_BYTES) {
    return `only ${bytes.byteLength} bytes, a page header needs ${LONG_HEADER_BYTES}`;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return (
    problemOfMagic(view.getUint16(0, true), view.getUint16(0, false), expected.majorVersion) ??
    problemOfFlags(view.getUint16(2, true)) ??
    problemOfPlace(view, name.timeline, segmentStart(expected.name, expected.segmentSize)) ??
    problemOfCluster(view, expected)
  );
}

function problemOfMagic(magic: number, swapped: number, major: number | undefined): string | undefined {
  if (magic === 0) return 'the first page is empty (zeros)';
  const majorOf = (value: number) =>
    Object.keys(PAGE_MAGIC).find((known) => PAGE_MAGIC[Number(known)] === value);
  const found = majorOf(magic);
  if (found === undefined && majorOf(swapped) !== undefined) return 'written by a big-endian machine';
  const shown = `0x${magic.toString(16).toUpperCase().padStart(4, '0')}`;
  if (major === undefined) {
    return found === undefined ? `magic ${shown} belongs to no PostgreSQL that is known` : undefined;
  }
  const wanted = PAGE_MAGIC[major];
  // a major that came after this code: its magic is only known to be higher, all the other checks still hold
  if (wanted === undefined && major > NEWEST) {
    return magic > PAGE_MAGIC[NEWEST]! && magic <= 0xd1ff
      ? undefined
      : `magic ${shown} is not one of PostgreSQL ${major}`;
  }
  if (magic === wanted) return undefined;
  return found === undefined
    ? `magic ${shown} is not the one of PostgreSQL ${major}`
    : `written by PostgreSQL ${found}, not ${major}`;
}

function problemOfFlags(info: number): string | undefined {
  if ((info & LONG_HEADER) === 0) return 'the first page has no long header';
  if ((info & ~KNOWN_FLAGS) !== 0) return `the first page has unknown flags (0x${info.toString(16)})`;
  return undefined;
}

function problemOfPlace(view: DataView, timeline: number, start: bigint): string | undefined {
  const address = view.getBigUint64(8, true);
  if (address !== start) return `it begins at ${formatLsn(address)}, its name says ${formatLsn(start)}`;
  const written = view.getUint32(4, true);
  if (written === 0) return 'the first page has timeline 0';
  if (written > timeline) return `written on timeline ${written}, its name says ${timeline}`;
  return undefined;
}

function problemOfCluster(view: DataView, expected: ExpectedPage): string | undefined {
  const system = view.getBigUint64(24, true).toString();
  if (system !== expected.systemIdentifier) {
    return `it belongs to system identifier ${system}, not ${expected.systemIdentifier}`;
  }
  const size = view.getUint32(32, true);
  if (size !== expected.segmentSize)
    return `written with segments of ${size} bytes, not ${expected.segmentSize}`;
  const block = view.getUint32(36, true);
  if (block !== WAL_BLOCK_BYTES) return `written with WAL blocks of ${block} bytes, not ${WAL_BLOCK_BYTES}`;
  return undefined;
}
