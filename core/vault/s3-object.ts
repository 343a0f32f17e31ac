/**
 * Reading one object of S3, whole or as far as a question needs.
 */
import { GetObjectCommand, HeadObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { VaultError } from '../errors.ts';
import type { AwsFailure } from './aws-client.ts';
import { FRAME_BYTES } from './object-frame.ts';
import type { Limit } from './time-limit.ts';

export type S3Object = { Bucket: string; Key: string };

export type Beginning = {
  /** The first FRAME_BYTES, fewer where the object has no more. */
  bytes: Buffer;
  /** Size of the whole object, frame and body. */
  storedBytes: number;
  /** '' from a store that gives none. */
  etag: string;
};

/** The answer ended before its announced length. */
export const brokenOff = new VaultError('unreachable', 'the bucket broke off in the middle of an object', {
  hint: 'look at the network between here and the bucket.',
});

/** The object's first bytes; undefined when absent. */
export async function readBeginning(
  client: S3Client,
  object: S3Object,
  limit: Limit,
): Promise<Beginning | undefined> {
  try {
    const found = await client.send(
      new GetObjectCommand({ ...object, Range: `bytes=0-${FRAME_BYTES - 1}` }),
      { abortSignal: limit.signal },
    );
    const bytes = await collect(found.Body, limit, found.ContentLength ?? FRAME_BYTES);
    const whole = /\/(\d+)$/.exec(found.ContentRange ?? '')?.[1];
    return { bytes, storedBytes: whole === undefined ? bytes.length : Number(whole), etag: found.ETag ?? '' };
  } catch (error) {
    if (isAbsent(error)) return undefined;
    if ((error as AwsFailure).name === 'InvalidRange')
      return { bytes: Buffer.alloc(0), storedBytes: 0, etag: '' };
    throw error;
  }
}

/** SHA-256 of the whole object as the store itself keeps it, base64; undefined where it keeps none, or one made of parts. */
export async function readChecksum(
  client: S3Client,
  object: S3Object,
  limit: Limit,
): Promise<string | undefined> {
  try {
    const { ChecksumSHA256: sum } = await client.send(
      new HeadObjectCommand({ ...object, ChecksumMode: 'ENABLED' }),
      { abortSignal: limit.signal },
    );
    return sum?.includes('-') === true ? undefined : sum;
  } catch (error) {
    if (isAbsent(error)) return undefined; // deleted meanwhile
    throw error;
  }
}

/** @throws VaultError brokenOff  when fewer than `sizeBytes` came */
export async function collect(body: unknown, limit: Limit, sizeBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let received = 0;
  const stream = body as AsyncIterable<Buffer> & { destroy(): void };
  const end = () => stream.destroy(); // the socket would stay in use until the last byte trickled in
  limit.signal.addEventListener('abort', end, { once: true });
  try {
    for await (const chunk of stream) {
      chunks.push(chunk);
      received += chunk.length;
    }
  } catch {
    throw brokenOff;
  } finally {
    limit.signal.removeEventListener('abort', end);
  }
  if (received < sizeBytes) throw brokenOff;
  return Buffer.concat(chunks, received);
}

export function isAbsent(error: unknown): boolean {
  const { name } = error as AwsFailure;
  return name === 'NoSuchKey' || name === 'NotFound';
}
