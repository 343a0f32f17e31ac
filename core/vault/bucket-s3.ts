/**
 * A bucket in S3, or in a store that speaks its language.
 *
 * A key is put with `If-None-Match: *`, so the store itself refuses a second content. 412 may be the answer to one's own first
 * attempt whose answer was lost: what is there is compared before anybody is told of a conflict.
 * Source: Amazon S3 User Guide, "Preventing object overwrites with conditional writes": 412 exists, 409 a race, try again.
 */
import {
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { hash } from 'node:crypto';
import { VaultError } from '../errors.ts';
import { attemptMsOf, awsFailure, type AwsFailure, type AwsPlace, clientSettings } from './aws-client.ts';
import type { Bucket } from './bucket.ts';
import { FRAME_BYTES, makeFrame, readFrame } from './object-frame.ts';
import { checkKey, otherBytes } from './object-key.ts';
import { DEFAULT_TIMEOUT_MS, extraMsFor, type Limit, pause, withLimit } from './time-limit.ts';

export type S3BucketPlace = AwsPlace & {
  bucket: string;
  /** '' or parts without '/' at either end. */
  prefix: string;
};

export function s3Bucket(name: string, place: S3BucketPlace, options: { timeoutMs?: number } = {}): Bucket {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const { hasEndpoint, settings } = clientSettings('S3', place, attemptMsOf(timeoutMs), false);
  const client = new S3Client({
    ...settings,
    forcePathStyle: hasEndpoint,
    // waiting for "100 Continue" costs a second or more where a proxy does not pass it on
    expectContinueHeader: false,
    // the body's own SHA-256 is given where it matters; a second one in a trailer breaks older stores
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
  const Bucket = place.bucket;
  const before = place.prefix === '' ? '' : `${place.prefix}/`;
  const store = `bucket '${Bucket}'`;
  const missing = `look at the bucket's name and the region in the vault's URL, or make it: aws s3 mb s3://${Bucket}`;

  const guarded = async <T>(
    what: string,
    limitMs: number,
    work: (limit: Limit) => Promise<T>,
  ): Promise<T> => {
    try {
      return await withLimit(limitMs, `${what} in ${store}`, work);
    } catch (error) {
      throw awsFailure(error, what, store, missing, place);
    }
  };
  const fullKey = (key: string): string => {
    checkKey(key);
    return before + key;
  };

  /** The object's first bytes and its whole size; undefined when absent. */
  const beginning = async (Key: string, limit: Limit) => {
    try {
      const found = await client.send(
        new GetObjectCommand({ Bucket, Key, Range: `bytes=0-${FRAME_BYTES - 1}` }),
        { abortSignal: limit.signal },
      );
      const bytes = await collect(found.Body, limit, found.ContentLength ?? FRAME_BYTES);
      const whole = /\/(\d+)$/.exec(found.ContentRange ?? '')?.[1];
      return { bytes, storedBytes: whole === undefined ? bytes.length : Number(whole) };
    } catch (error) {
      if (isAbsent(error)) return undefined;
      if ((error as AwsFailure).name === 'InvalidRange') return { bytes: Buffer.alloc(0), storedBytes: 0 };
      throw error;
    }
  };

  return {
    name,

    async putOnce(key, body, facts = {}) {
      const Key = fullKey(key);
      const frame = makeFrame(body, facts);
      const bytes = Buffer.concat([frame, body]);
      const ChecksumSHA256 = hash('sha256', bytes, 'base64');
      return guarded(`store '${key}'`, timeoutMs + extraMsFor(bytes.length), async (limit) => {
        for (let attempt = 0; ; attempt += 1) {
          try {
            await client.send(
              new PutObjectCommand({
                Bucket,
                Key,
                Body: bytes,
                ContentLength: bytes.length,
                ChecksumSHA256,
                IfNoneMatch: '*',
              }),
              { abortSignal: limit.signal },
            );
            return 'stored';
          } catch (error) {
            const status = (error as AwsFailure).$metadata?.httpStatusCode;
            if (status === 412) {
              const there = await beginning(Key, limit);
              if (there !== undefined) {
                const old = readFrame(key, there.bytes, there.storedBytes);
                const mine = readFrame(key, frame, bytes.length);
                if (old.sizeBytes === mine.sizeBytes && old.sha256 === mine.sha256) return 'same';
                throw otherBytes(name, key);
              }
            } else if (status !== 409) {
              throw error;
            }
            if (limit.leftMs() === 0) throw error;
            await pause(Math.min(50 * 2 ** attempt, 1000)); // a race with another put, or a delete: look again
          }
        }
      });
    },

    async get(key) {
      const Key = fullKey(key);
      return guarded(`read '${key}'`, timeoutMs, async (limit) => {
        for (let attempt = 1; ; attempt += 1) {
          try {
            const found = await client.send(new GetObjectCommand({ Bucket, Key }), {
              abortSignal: limit.signal,
            });
            const sizeBytes = found.ContentLength ?? 0;
            limit.extend(attempt === 1 ? extraMsFor(sizeBytes) : 0);
            const bytes = await collect(found.Body, limit, sizeBytes);
            readFrame(key, bytes, bytes.length);
            return bytes.subarray(FRAME_BYTES);
          } catch (error) {
            if (isAbsent(error)) return undefined;
            // the SDK tries again until the answer begins; a body that breaks off is for us
            if (error !== brokenOff || attempt === 3 || limit.leftMs() === 0) throw error;
          }
        }
      });
    },

    async facts(key) {
      const Key = fullKey(key);
      return guarded(`read '${key}'`, timeoutMs, async (limit) => {
        const there = await beginning(Key, limit);
        return there && readFrame(key, there.bytes, there.storedBytes).facts;
      });
    },

    async *list(prefix) {
      let ContinuationToken: string | undefined;
      do {
        const page = await guarded(`list '${prefix}'`, timeoutMs, (limit) =>
          client.send(new ListObjectsV2Command({ Bucket, Prefix: before + prefix, ContinuationToken }), {
            abortSignal: limit.signal,
          }),
        );
        for (const { Key, Size, LastModified } of page.Contents ?? []) {
          if (Key === undefined || Key.endsWith('/')) continue; // "folders" that a console makes
          yield {
            key: Key.slice(before.length),
            sizeBytes: Math.max(0, (Size ?? 0) - FRAME_BYTES),
            storedAt: LastModified ?? new Date(0),
          };
        }
        ContinuationToken = page.IsTruncated === true ? page.NextContinuationToken : undefined;
      } while (ContinuationToken !== undefined);
    },

    async delete(key) {
      const Key = fullKey(key);
      await guarded(`delete '${key}'`, timeoutMs, async (limit) => {
        await client.send(new DeleteObjectCommand({ Bucket, Key }), { abortSignal: limit.signal });
      });
    },

    async close() {
      client.destroy();
    },
  };
}

/** The answer ended before its announced length. */
const brokenOff = new VaultError('unreachable', 'the bucket broke off in the middle of an object', {
  hint: 'look at the network between here and the bucket.',
});

async function collect(body: unknown, limit: Limit, sizeBytes: number): Promise<Buffer> {
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

function isAbsent(error: unknown): boolean {
  const { name } = error as AwsFailure;
  return name === 'NoSuchKey' || name === 'NotFound';
}
