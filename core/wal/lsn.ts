/**
 * LSNs: positions in the write-ahead log, in bytes from its beginning.
 *
 * Text is two hexadecimal halves, '0/3000060'; a number is always a bigint, since 64 bits do not fit a JavaScript number
 * and a rounded position would name the wrong segment.
 *
 * Pure: no file, no clock, no network.
 * Source: PostgreSQL docs, "Object Identifier Types: pg_lsn Type".
 */

export type Lsn = bigint;

/** The highest position that 64 bits can name. */
export const LAST_LSN: Lsn = 0xffff_ffff_ffff_ffffn;

/**
 * Reads '0/3000060', as PostgreSQL and its tools print it (from 19 on the second half is padded: '0/03000060').
 *
 * @throws RangeError  when the text is not two halves of one to eight hexadecimal digits
 */
export function parseLsn(text: string): Lsn {
  const halves = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/.exec(text);
  if (halves === null) throw new RangeError(`not an LSN: ${JSON.stringify(text)}`);
  return (BigInt(`0x${halves[1]}`) << 32n) | BigInt(`0x${halves[2]}`);
}

/**
 * Text of an LSN as PostgreSQL 15 to 18 print it: '0/3000060'. Compare LSNs as numbers, never as text.
 *
 * @throws RangeError  outside 64 bits
 */
export function formatLsn(lsn: Lsn): string {
  if (lsn < 0n || lsn > LAST_LSN) throw new RangeError(`LSN ${lsn} is outside 64 bits`);
  return `${hex(lsn >> 32n)}/${hex(lsn & 0xffff_ffffn)}`;
}

function hex(half: bigint): string {
  return half.toString(16).toUpperCase();
}
