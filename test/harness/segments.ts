/** Segments as a server of this cluster would write them: a true first page, and bytes that `content` decides. */
import { createHash } from 'node:crypto';
import { PAGE_MAGIC } from '../../core/wal/page-header.ts';
import { segmentStart } from '../../core/wal/name.ts';

export const SEGMENT_SIZE = 1 << 20;
export const SYSTEM_IDENTIFIER = '7300000000000000001';

export function segmentBytes(
  name: string,
  content = 'original',
  { systemIdentifier = SYSTEM_IDENTIFIER, majorVersion = 18, segmentSize = SEGMENT_SIZE } = {},
): Buffer {
  const bytes = Buffer.alloc(segmentSize, createHash('sha256').update(`${name} ${content}`).digest());
  bytes.writeUInt16LE(PAGE_MAGIC[majorVersion] ?? 0, 0);
  bytes.writeUInt16LE(2, 2);
  bytes.writeUInt32LE(Number.parseInt(name.slice(0, 8), 16), 4);
  bytes.writeBigUInt64LE(segmentStart(name.slice(0, 24), segmentSize), 8);
  bytes.writeUInt32LE(0, 16);
  bytes.writeUInt32LE(0, 20);
  bytes.writeBigUInt64LE(BigInt(systemIdentifier), 24);
  bytes.writeUInt32LE(segmentSize, 32);
  bytes.writeUInt32LE(8192, 36);
  return bytes;
}
