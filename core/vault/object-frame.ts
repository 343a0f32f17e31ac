/**
 * How an object carries its facts: in its first 2048 bytes, the same in every backend.
 *
 *   50 2A 4D 18  F8 07 00 00   a "skippable frame" of zstd, of 2040 bytes
 *   {"walvault":1,"sizeBytes":…,"sha256":"…","facts":{…}}   JSON, filled up with blanks, a line feed at the end
 *   the body, as it was given
 *
 * One place for both: bytes and facts appear in one step, and survive `aws s3 cp`, rsync and a move from one backend to the
 * other, which user metadata and side files do not. `zstd -d` skips the frame, `head -c 2048` shows it, `tail -c +2049`
 * is the body. The length is fixed, so the body's size is known from a listing and the facts from one small ranged read.
 *
 * (Node's zstdDecompress stops after such a frame without an error, so it is always taken off before the body is handed out.)
 *
 * Source: RFC 8878, "Skippable Frames".
 */
import { hash } from 'node:crypto';
import { VaultError } from '../errors.ts';
import type { ObjectFacts } from './bucket.ts';

/** Bytes in front of each body. */
export const FRAME_BYTES = 2048;

const MAGIC = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 0xf8, 0x07, 0x00, 0x00]);
const FACTS_BYTES = 1536;

export type Frame = { sizeBytes: number; sha256: string; facts: ObjectFacts };

/** @throws RangeError  facts that are not ASCII or too long: a mistake of ours, not of the person's */
export function makeFrame(body: Uint8Array, facts: ObjectFacts): Buffer {
  let factsBytes = 0;
  for (const [name, value] of Object.entries(facts)) {
    if (!/^[a-z0-9-]+$/.test(name)) throw new RangeError(`fact name '${name}' is not of [a-z0-9-]`);
    if (!/^[\x20-\x7e]*$/.test(value)) throw new RangeError(`fact '${name}' is not printable ASCII`);
    factsBytes += name.length + value.length;
  }
  if (factsBytes > FACTS_BYTES) throw new RangeError(`facts of ${factsBytes} bytes exceed ${FACTS_BYTES}`);
  const frame: Frame = { sizeBytes: body.length, sha256: hash('sha256', body, 'hex'), facts };
  const text = JSON.stringify({ walvault: 1, ...frame });
  const room = FRAME_BYTES - MAGIC.length - 1;
  if (text.length > room) throw new RangeError(`facts need ${text.length} bytes, ${room} are there`);
  return Buffer.concat([MAGIC, Buffer.from(`${text.padEnd(room)}\n`, 'latin1')]);
}

/**
 * The frame that an object begins with.
 *
 * @param bytes         the object's beginning, FRAME_BYTES at least where it is whole
 * @param storedBytes   the whole object's size as its store gives it
 * @throws VaultError corrupt  no frame, or a size that is not the one the frame names (truncated, zeroed)
 */
export function readFrame(key: string, bytes: Uint8Array, storedBytes: number): Frame {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, FRAME_BYTES));
  if (head.length < FRAME_BYTES || !head.subarray(0, MAGIC.length).equals(MAGIC))
    throw corrupt(key, 'it has no frame');
  let frame: Partial<Frame> & { walvault?: unknown };
  try {
    frame = JSON.parse(head.toString('latin1', MAGIC.length)) as typeof frame;
  } catch (cause) {
    throw corrupt(key, 'its frame is damaged', cause);
  }
  const { walvault, sizeBytes, sha256, facts } = frame;
  if (walvault !== 1) {
    throw new VaultError('format', `object '${key}' has a frame of format ${String(walvault)}, known is 1`, {
      hint: 'install the walvault that wrote it, or a newer one.',
    });
  }
  if (typeof sizeBytes !== 'number' || typeof sha256 !== 'string' || typeof facts !== 'object') {
    throw corrupt(key, 'its frame is damaged');
  }
  if (sizeBytes !== storedBytes - FRAME_BYTES) {
    throw corrupt(key, `${sizeBytes} bytes were put and ${Math.max(0, storedBytes - FRAME_BYTES)} are there`);
  }
  return { sizeBytes, sha256, facts };
}

function corrupt(key: string, why: string, cause?: unknown): VaultError {
  return new VaultError('corrupt', `object '${key}' is not what was put: ${why}`, {
    hint: 'restore it from a copy of the bucket (an older version, the DR vault).',
    cause,
  });
}
