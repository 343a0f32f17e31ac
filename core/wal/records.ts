/**
 * Where the WAL in a segment really ends: the end of its last whole, valid record, as PostgreSQL's own reader finds it.
 *
 * A segment is pages of 8 kB, each with a header (40 bytes on the segment's first page, 24 on the others), and records one after the
 * other, aligned to 8 bytes, which run on from page to page and from segment to segment:
 *
 *   page    0  magic u16        record   0  length u32, header included
 *           2  flags u16                 4  transaction u32
 *           4  timeline u32              8  where the record before begins u64
 *           8  page address u64         16  info u8
 *          16  what is left of a        17  resource manager u8
 *              record begun on the      20  CRC-32C u32: of the body, then of the header up to here
 *              page before, u32         24  body
 *
 * A record counts only where its checksum fits and it names the record before it: a recycled file goes on with old WAL
 * that is well formed. What follows the last record (zeros, older WAL, half a record) is no part of the WAL.
 *
 * Pure: no file, no clock, no network. Keeps a record's header and checksum, never its body, whatever length it claims.
 * Measured on 15 to 18 against pg_waldump, pg_control and what crash recovery logs.
 * Source: PostgreSQL, src/backend/access/transam/xlogreader.c, XLogDecodeNextRecord and XLogReaderValidatePageHeader.
 */
import { crc32c } from './crc32c.ts';
import { formatLsn, type Lsn } from './lsn.ts';
import { segmentStart } from './name.ts';
import { checkFirstPage, LONG_HEADER_BYTES, type ExpectedPage } from './page-header.ts';

/**
 * Why a walk came to its end.
 *
 * - 'zeros'            where the next record or page would begin nothing was written
 * - 'invalid record'   something is there, but not the record that follows: torn, damaged, or left over in a recycled file
 * - 'invalid page'     the same of a page
 * - 'crosses into the next segment', 'end of segment', 'switch'   all of the segment is valid; the next one may hold more
 */
export type WalkEnd =
  'zeros' | 'invalid record' | 'invalid page' | 'crosses into the next segment' | 'end of segment' | 'switch';

/** What the header of a record says; `lsn` is where it begins, `total` its bytes without padding. */
export type WalRecord = { lsn: Lsn; rmgr: number; info: number; total: number };

/** What the walk of one segment hands to the walk of the next; opaque, a few dozen bytes. */
export type Carry = {
  /** Where the next segment begins: no other one can be walked with it. */
  readonly at: Lsn;
  /** Of the latest page; it never goes back. */
  readonly timeline: number;
  /** Where the last whole record begins, undefined where that is not known. */
  readonly previous: Lsn | undefined;
  /** The record that runs on into the next segment. */
  readonly part: Part | undefined;
};

/** A record of which only the beginning has been read; without `lsn` one whose beginning was never seen, so only its length is known. */
type Part = { lsn?: Lsn; total: number; got: number; readonly header: Uint8Array; crc: number };

export type Walk = {
  /**
   * End of the last whole record that ends in this segment, aligned as PostgreSQL's EndRecPtr (pg_current_wal_lsn()); after a
   * switch record the end of the segment. Where no record ends here: the segment's start.
   */
  ends: Lsn;
  /** The same without what a switch record leaves unused: up to here two copies of a segment have to agree. */
  contentEnds: Lsn;
  /** The last whole record that ends here; it may have begun in a segment before, where a carry was given. */
  last: WalRecord | undefined;
  /** Where the first whole record begins that lies in this segment entirely. */
  first: Lsn | undefined;
  /** Whole records that end here. */
  records: number;
  /** End of a record that was begun before this segment and skipped, unverified, for want of a carry. */
  skippedTo: Lsn | undefined;
  why: WalkEnd;
  /** For the next segment; there whenever this one is valid to its end. */
  carry: Carry | undefined;
};

/** Give majorVersion where it is known: without it a first page of any major that we know begins a segment. */
export type WalkOptions = ExpectedPage & {
  /** From the walk of the segment before; without it a record begun there is skipped and the first link is only known to go back. */
  carry?: Carry;
};

const BLOCK = 8192;
const SHORT_HEADER = 24;
const RECORD_HEADER = 24;
const CRC_AT = 20;

const FIRST_IS_CONTINUED = 0x0001;
const LONG_HEADER = 0x0002;
const FIRST_OVERWRITES_CONTINUED = 0x0008;
const KNOWN_FLAGS = 0x000f;

const RMGR_XLOG = 0;
const SHUTDOWN_CHECKPOINT = 0x00;
const SWITCH = 0x40;
/** The other bits of info belong to the resource manager. */
const INFO_OF_ALL = 0x0f;

/** True for the record that a clean stop leaves as the last one. */
export function isShutdownCheckpoint(record: Pick<WalRecord, 'rmgr' | 'info'>): boolean {
  return record.rmgr === RMGR_XLOG && (record.info & ~INFO_OF_ALL) === SHUTDOWN_CHECKPOINT;
}

/** True for the record of pg_switch_wal(), archive_timeout and the archiving stop: the rest of its segment is unused. */
export function isSwitch(record: Pick<WalRecord, 'rmgr' | 'info'>): boolean {
  return record.rmgr === RMGR_XLOG && (record.info & ~INFO_OF_ALL) === SWITCH;
}

/**
 * Walks the records of one segment from its beginning. Never throws for what the bytes hold.
 *
 * Bytes that are missing at the end count as zeros, as a copy padded with zeros would have them; what is beyond segmentSize is not
 * looked at. A run of segments is walked one by one, the carry of each handed to the next; the WAL ends in the last one in which a
 * record ends.
 *
 * @throws RangeError  name or segmentSize do not exist, or the carry is for another segment
 * @example
 *   const { ends, last } = walkRecords(bytes, { name, segmentSize, systemIdentifier, carry });
 *   if (last !== undefined && isShutdownCheckpoint(last) && last.lsn === control.checkpointLsn) // `ends` is where the primary stopped
 */
export function walkRecords(bytes: Uint8Array, options: WalkOptions): Walk {
  return new Walker(bytes, options).walk();
}

class Walker {
  readonly #bytes: Uint8Array;
  readonly #options: WalkOptions;
  readonly #start: Lsn;
  readonly #nameTimeline: number;
  /** The page under work: the bytes of the segment, or a padded copy of the last page of a short one. */
  #page: Uint8Array;
  #view: DataView;
  /** Where the page begins in #page, and in the segment. */
  #base = 0;
  #offset = 0;
  #magic = 0;
  #timeline = 0;
  #part: Part | undefined;
  /** Halves of the LSN of the last whole record (numbers: a bigint for each of 200,000 records would cost as much as their checksums). */
  #previousHigh = -1;
  #previousLow = 0;
  readonly #high: number;
  readonly #startLow: number;
  #records = 0;
  #last: Omit<WalRecord, 'lsn'> | undefined;
  #first: number | undefined;
  #ends = 0;
  #contentEnds = 0;
  #skippedTo: number | undefined;

  constructor(bytes: Uint8Array, options: WalkOptions) {
    const { name, segmentSize, carry } = options;
    this.#start = segmentStart(name, segmentSize);
    if (carry !== undefined && carry.at !== this.#start) {
      throw new RangeError(
        `the carry is for ${formatLsn(carry.at)}, ${name} is at ${formatLsn(this.#start)}`,
      );
    }
    this.#bytes = bytes.length > segmentSize ? bytes.subarray(0, segmentSize) : bytes;
    this.#options = options;
    this.#nameTimeline = parseInt(name.slice(0, 8), 16);
    this.#page = this.#bytes;
    this.#view = viewOf(this.#bytes);
    this.#high = highOf(this.#start);
    this.#startLow = lowOf(this.#start);
    if (carry === undefined) return;
    this.#timeline = carry.timeline;
    if (carry.previous !== undefined) {
      this.#previousHigh = highOf(carry.previous);
      this.#previousLow = lowOf(carry.previous);
    }
    // a copy: the same carry may be tried with several files of one name
    if (carry.part !== undefined) this.#part = { ...carry.part, header: carry.part.header.slice() };
  }

  walk(): Walk {
    for (; this.#offset < this.#options.segmentSize; this.#offset += BLOCK) {
      const why = this.#walkPage();
      if (why !== undefined) return this.#result(why);
    }
    return this.#result(this.#part === undefined ? 'end of segment' : 'crosses into the next segment');
  }

  #result(why: WalkEnd): Walk {
    const last = this.#last;
    const previous =
      this.#previousHigh < 0 ? undefined : (BigInt(this.#previousHigh) << 32n) | BigInt(this.#previousLow);
    const lsnAt = (offset: number) => this.#start + BigInt(offset);
    const isWhole = why === 'switch' || why === 'end of segment' || why === 'crosses into the next segment';
    return {
      ends: lsnAt(this.#ends),
      contentEnds: lsnAt(this.#contentEnds),
      last: last === undefined || previous === undefined ? undefined : { lsn: previous, ...last },
      first: this.#first === undefined ? undefined : lsnAt(this.#first),
      records: this.#records,
      skippedTo: this.#skippedTo === undefined ? undefined : lsnAt(this.#skippedTo),
      why,
      carry: isWhole
        ? { at: lsnAt(this.#options.segmentSize), timeline: this.#timeline, previous, part: this.#part }
        : undefined,
    };
  }

  #walkPage(): WalkEnd | undefined {
    if (!this.#turnPage()) return 'zeros';
    const why = this.#checkPage();
    if (why !== undefined) return why;

    const flags = this.#view.getUint16(this.#base + 2, true);
    const headerBytes = flags & LONG_HEADER ? LONG_HEADER_BYTES : SHORT_HEADER;
    // after a crash in the middle of a record its continuation may be overwritten: this page begins anew, the half record never was
    if (flags & FIRST_OVERWRITES_CONTINUED) this.#part = undefined;

    const left = this.#view.getUint32(this.#base + 16, true);
    const isUnknown = this.#offset === 0 && this.#options.carry === undefined;
    if (flags & FIRST_IS_CONTINUED && this.#part === undefined && isUnknown) {
      this.#part = { total: left, got: 0, header: new Uint8Array(RECORD_HEADER), crc: 0 };
    }
    if ((flags & FIRST_IS_CONTINUED) === 0) {
      return this.#part === undefined ? this.#walkFrom(headerBytes) : 'invalid record';
    }
    const part = this.#part;
    if (part === undefined || left === 0 || part.total !== part.got + left) return 'invalid record';
    const length = Math.min(left, BLOCK - headerBytes);
    if (!this.#take(part, headerBytes, length)) return 'invalid record';
    if (part.got < part.total) return undefined;
    return this.#finish(part, headerBytes + length) ?? this.#walkFrom(align(headerBytes + length));
  }

  /** Takes up the page at #offset; false where the bytes have ended before it. */
  #turnPage(): boolean {
    const left = this.#bytes.length - this.#offset;
    if (left <= 0) return false;
    this.#base = this.#offset;
    if (left < BLOCK) {
      this.#page = new Uint8Array(BLOCK);
      this.#page.set(this.#bytes.subarray(this.#offset));
      this.#view = viewOf(this.#page);
      this.#base = 0;
    }
    return true;
  }

  #checkPage(): WalkEnd | undefined {
    const view = this.#view;
    const base = this.#base;
    if (this.#page.subarray(base, base + SHORT_HEADER).every((byte) => byte === 0)) return 'zeros';
    const flags = view.getUint16(base + 2, true);
    const timeline = view.getUint32(base + 4, true);
    if (this.#offset === 0) this.#magic = view.getUint16(base, true);
    const isRight =
      view.getUint16(base, true) === this.#magic &&
      (flags & ~KNOWN_FLAGS) === 0 &&
      view.getUint32(base + 8, true) === this.#startLow + this.#offset &&
      view.getUint32(base + 12, true) === this.#high &&
      timeline >= this.#timeline &&
      timeline <= this.#nameTimeline &&
      (this.#offset > 0 || checkFirstPage(this.#page.subarray(base), this.#options) === undefined) &&
      (this.#offset === 0 || (flags & LONG_HEADER) === 0 || this.#isLongHeaderRight());
    if (!isRight) return 'invalid page';
    this.#timeline = timeline;
    return undefined;
  }

  /** PostgreSQL writes none but on first pages, and reads one anywhere. */
  #isLongHeaderRight(): boolean {
    return (
      this.#view.getBigUint64(this.#base + 24, true).toString() === this.#options.systemIdentifier &&
      this.#view.getUint32(this.#base + 32, true) === this.#options.segmentSize &&
      this.#view.getUint32(this.#base + 36, true) === BLOCK
    );
  }

  /** The records from here to the end of the page; the last one may run on. */
  #walkFrom(from: number): WalkEnd | undefined {
    const page = this.#page;
    const base = this.#base;
    for (let at = from; at < BLOCK;) {
      const total = this.#view.getUint32(base + at, true);
      if (total === 0) return 'zeros';
      if (total < RECORD_HEADER) return 'invalid record';
      const low = this.#startLow + this.#offset + at;
      if (total > BLOCK - at) {
        const part = { lsn: this.#start + BigInt(this.#offset + at), total, got: 0, crc: 0 };
        this.#part = { ...part, header: new Uint8Array(RECORD_HEADER) };
        return this.#take(this.#part, at, BLOCK - at) ? undefined : 'invalid record';
      }
      if (!this.#isHeaderRight(this.#view, base + at, this.#high, low)) return 'invalid record';
      const body = crc32c(page, 0, base + at + RECORD_HEADER, base + at + total);
      if (
        crc32c(page, body, base + at, base + at + CRC_AT) !== this.#view.getUint32(base + at + CRC_AT, true)
      )
        return 'invalid record';
      this.#first ??= this.#offset + at;
      this.#previousHigh = this.#high;
      this.#previousLow = low;
      const why = this.#count(total, page[base + at + 16]!, page[base + at + 17]!, at + total);
      if (why !== undefined) return why;
      at = align(at + total);
    }
    return undefined;
  }

  /** Adds what this page holds of a record in pieces; false where its header, now whole, does not fit. */
  #take(part: Part, at: number, length: number): boolean {
    const from = this.#base + at;
    const ofHeader = part.lsn === undefined ? 0 : Math.min(length, Math.max(0, RECORD_HEADER - part.got));
    if (ofHeader > 0) {
      part.header.set(this.#page.subarray(from, from + ofHeader), part.got);
      if (part.got + ofHeader === RECORD_HEADER) {
        const lsn = part.lsn!;
        if (!this.#isHeaderRight(viewOf(part.header), 0, highOf(lsn), lowOf(lsn))) return false;
      }
    }
    if (part.lsn !== undefined) part.crc = crc32c(this.#page, part.crc, from + ofHeader, from + length);
    part.got += length;
    return true;
  }

  #finish(part: Part, end: number): WalkEnd | undefined {
    this.#part = undefined;
    if (part.lsn === undefined) {
      this.#skippedTo = this.#offset + align(end);
      return undefined;
    }
    const { header, lsn, total } = part;
    if (crc32c(header, part.crc, 0, CRC_AT) !== viewOf(header).getUint32(CRC_AT, true))
      return 'invalid record';
    if (lsn >= this.#start) this.#first ??= Number(lsn - this.#start);
    this.#previousHigh = highOf(lsn);
    this.#previousLow = lowOf(lsn);
    return this.#count(total, header[16]!, header[17]!, end);
  }

  /** A whole record; `end` is where its last byte ends on this page. */
  #count(total: number, info: number, rmgr: number, end: number): WalkEnd | undefined {
    this.#records += 1;
    this.#last = { rmgr, info, total };
    this.#ends = this.#offset + align(end);
    this.#contentEnds = this.#ends;
    if (!isSwitch(this.#last)) return undefined;
    this.#ends = this.#options.segmentSize;
    return 'switch';
  }

  /** The link to the record before is what tells the record from an older one in a recycled file. */
  #isHeaderRight(view: DataView, at: number, high: number, low: number): boolean {
    const linkLow = view.getUint32(at + 8, true);
    const linkHigh = view.getUint32(at + 12, true);
    if (this.#previousHigh >= 0) return linkHigh === this.#previousHigh && linkLow === this.#previousLow;
    return linkHigh < high || (linkHigh === high && linkLow < low);
  }
}

function align(at: number): number {
  return (at + 7) & ~7;
}

function highOf(lsn: Lsn): number {
  return Number(lsn >> 32n);
}

function lowOf(lsn: Lsn): number {
  return Number(lsn & 0xffff_ffffn);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
