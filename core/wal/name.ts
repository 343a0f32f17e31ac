/**
 * WAL file names, and the arithmetic between names and LSNs.
 *
 *   000000010000000A000000FE                   segment
 *   000000010000000A000000FE.partial           partial segment: the last one of a timeline left behind
 *   000000010000000A000000FE.00000028.backup   backup history file
 *   00000002.history                           timeline history file
 *
 * A segment's name is timeline, log (the upper 32 bits of its LSN) and part (the number of the segment within these 4 GiB),
 * eight hexadecimal digits each, upper case. How many parts a log has depends on the segment size, so a name becomes
 * an LSN only together with it. Timeline 0 does not exist: the 24 zeros that PostgreSQL gives for an unknown %r are no name.
 *
 * Pure: no file, no clock, no network.
 * Source: PostgreSQL docs, "Reliability and the Write-Ahead Log: WAL Internals".
 */
import { LAST_LSN, type Lsn } from './lsn.ts';

export const MiB = 1024 * 1024;

export type WalName =
  | { kind: 'segment' | 'partial'; name: string; timeline: number; log: number; part: number }
  | { kind: 'backup'; name: string; timeline: number; log: number; part: number; offset: number }
  | { kind: 'history'; name: string; timeline: number };

const SHAPE = /^([0-9A-F]{8})(?:([0-9A-F]{8})([0-9A-F]{8})(\.partial|\.([0-9A-F]{8})\.backup)?|\.history)$/;

/** What a file name is, or undefined where it is none of the four (never throws, whatever the text). */
export function parseWalName(name: string): WalName | undefined {
  const found = SHAPE.exec(name);
  if (found === null) return undefined;
  const timeline = parseInt(found[1]!, 16);
  if (timeline === 0) return undefined;
  if (found[2] === undefined) return { kind: 'history', name, timeline };
  const place = { name, timeline, log: parseInt(found[2], 16), part: parseInt(found[3]!, 16) };
  if (found[4] === undefined) return { kind: 'segment', ...place };
  if (found[5] === undefined) return { kind: 'partial', ...place };
  return { kind: 'backup', ...place, offset: parseInt(found[5], 16) };
}

/** True for the 24 digits of a whole segment (not for .partial, .backup and .history). */
export function isSegmentName(name: string): boolean {
  return parseWalName(name)?.kind === 'segment';
}

/** True for a power of two from 1 MiB to 1 GiB (initdb --wal-segsize). */
export function isSegmentSize(size: number): boolean {
  return Number.isInteger(size) && size >= MiB && size <= 1024 * MiB && (size & (size - 1)) === 0;
}

/**
 * Name of the segment that holds the byte at `lsn`.
 *
 * On a boundary this is the segment that begins there, as pg_walfile_name() answers since PostgreSQL 17.
 *
 * @param segmentSize  bytes; a power of two from 1 MiB to 1 GiB
 * @throws RangeError  when segmentSize is not such a size, or timeline or lsn do not exist
 * @example segmentAt(1, 0xA_FE00_0028n, 16 * MiB)   // '000000010000000A000000FE'
 */
export function segmentAt(timeline: number, lsn: Lsn, segmentSize: number): string {
  checkSize(segmentSize);
  checkTimeline(timeline);
  if (lsn < 0n || lsn > LAST_LSN) throw new RangeError(`LSN ${lsn} is outside 64 bits`);
  const log = Number(lsn >> 32n);
  const part = Math.floor(Number(lsn & 0xffff_ffffn) / segmentSize);
  return hex8(timeline) + hex8(log) + hex8(part);
}

/**
 * Where the segment of this name begins. Takes .partial and .backup names too (the segment they belong to).
 *
 * @throws RangeError  when it is not the name of a segment of this size (part too high: another size was meant)
 */
export function segmentStart(name: string, segmentSize: number): Lsn {
  checkSize(segmentSize);
  const parsed = parseWalName(name);
  if (parsed === undefined || parsed.kind === 'history') {
    throw new RangeError(`not the name of a WAL segment: ${JSON.stringify(name)}`);
  }
  if (parsed.part >= partsPerLog(segmentSize)) {
    throw new RangeError(`${name} does not exist where segments have ${segmentSize} bytes`);
  }
  return (BigInt(parsed.log) << 32n) | (BigInt(parsed.part) * BigInt(segmentSize));
}

/** Where the next segment begins (exclusive end). @throws RangeError as segmentStart */
export function segmentEnd(name: string, segmentSize: number): Lsn {
  return segmentStart(name, segmentSize) + BigInt(segmentSize);
}

/**
 * Name of the segment after this one, on the same timeline.
 *
 * @throws RangeError  as segmentStart, and after the last segment of 64 bits
 */
export function nextSegment(name: string, segmentSize: number): string {
  const end = segmentEnd(name, segmentSize);
  return segmentAt(parseInt(name.slice(0, 8), 16), end, segmentSize);
}

/** '00000002.history'. @throws RangeError when the timeline does not exist */
export function historyName(timeline: number): string {
  checkTimeline(timeline);
  return `${hex8(timeline)}.history`;
}

/** @throws RangeError  when it is not a number that PostgreSQL gives to timelines (1 to 2^32 - 1) */
export function checkTimeline(timeline: number): void {
  if (!Number.isInteger(timeline) || timeline < 1 || timeline > 0xffff_ffff) {
    throw new RangeError(`no such timeline: ${timeline}`);
  }
}

/** @throws RangeError  when isSegmentSize says no */
export function checkSize(segmentSize: number): void {
  if (!isSegmentSize(segmentSize)) {
    throw new RangeError(`not a WAL segment size: ${segmentSize} (a power of two from 1 MiB to 1 GiB)`);
  }
}

function partsPerLog(segmentSize: number): number {
  return 0x1_0000_0000 / segmentSize;
}

/** Eight hex digits, as names of WAL files hold timelines and parts of a place: '0000000A'. */
export function hex8(value: number): string {
  return value.toString(16).toUpperCase().padStart(8, '0');
}
