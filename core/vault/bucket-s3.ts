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
import {
  attemptMsOf,
  awsFailure,
  type AwsFailure,
  type AwsPlace,
  clientSettings,
  endpointOf,
} from './aws-client.ts';
import type { Bucket, ObjectStore } from './bucket.ts';
import { FRAME_BYTES, makeFrame, readFrame } from './object-frame.ts';
import { checkKey, otherBytes } from './object-key.ts';
import { copyObject, findObject } from './s3-copy.ts';
import { brokenOff, collect, isAbsent, readBeginning } from './s3-object.ts';
import { DEFAULT_TIMEOUT_MS, extraMsFor, type Limit, pause, withLimit } from './time-limit.ts';

export type S3BucketPlace = AwsPlace & {
  bucket: string;
  /** '' or parts without '/' at either end. */
  prefix: string;
};

/** Silence that a copy may take: it answers when it is done, and has its own limit. */
const LONGEST_COPY_MS = 2 * 3600 * 1000;

/** A bucket that refused to be copied from is asked again after this time: rights and routes change. */
const ASK_AGAIN_MS = 5 * 60 * 1000;

export function s3Bucket(name: string, place: S3BucketPlace, options: { timeoutMs?: number } = {}): Bucket {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const endpoint = endpointOf('S3', place);
  const connect = (attemptMs: number) =>
    new S3Client({
      ...clientSettings('S3', place, attemptMs, false),
      forcePathStyle: endpoint !== undefined,
      // waiting for "100 Continue" costs a second or more where a proxy does not pass it on
      expectContinueHeader: false,
      // the body's own SHA-256 is given where it matters; a second one in a trailer breaks older stores
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
    });
  const client = connect(attemptMsOf(timeoutMs));
  let patient: S3Client | undefined;
  const Bucket = place.bucket;
  const before = place.prefix === '' ? '' : `${place.prefix}/`;
  const label = `bucket '${Bucket}'`;
  const missing = `look at the bucket's name and the region in the vault's URL, or make it: aws s3 mb s3://${Bucket}`;

  const guarded = async <T>(
    what: string,
    limitMs: number,
    work: (limit: Limit) => Promise<T>,
  ): Promise<T> => {
    try {
      return await withLimit(limitMs, `${what} in ${label}`, work);
    } catch (error) {
      throw awsFailure(error, what, label, missing, place);
    }
  };
  const fullKey = (key: string): string => {
    checkKey(key);
    return before + key;
  };

  const store: ObjectStore = {
    service: isAmazon(endpoint) ? 'aws' : 'compatible',
    bucket: Bucket,
    async find(key) {
      const Key = fullKey(key);
      return guarded(`read '${key}'`, timeoutMs, (limit) => findObject(client, { Bucket, Key }, key, limit));
    },
  };
  /** Until when a bucket is not asked again to be copied from, by performance.now(): each refusal costs four requests. */
  const refusedUntil = new Map<string, number>();

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
              const there = await readBeginning(client, { Bucket, Key }, limit);
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

    store: async () => store,

    async copyFrom(from, key) {
      const Key = fullKey(key);
      const other = await from.bucket.store?.();
      if (other === undefined || other.service !== store.service) return undefined;
      if ((refusedUntil.get(other.bucket) ?? 0) > performance.now()) return undefined;
      const answer = await guarded(`copy '${key}'`, timeoutMs, (limit) =>
        copyObject(
          { client, copier: () => (patient ??= connect(LONGEST_COPY_MS)) },
          { store: other, key: from.key },
          { Bucket, Key, bucket: { name }, key },
          limit,
        ),
      );
      if (answer === 'refused') refusedUntil.set(other.bucket, performance.now() + ASK_AGAIN_MS);
      return answer === 'refused' || answer === 'too large' ? undefined : answer;
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
        const there = await readBeginning(client, { Bucket, Key }, limit);
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
      patient?.destroy();
    },
  };
}

/** AWS itself, by whatever name; its regions and partitions are told apart by the answer to a copy. */
function isAmazon(endpoint: string | undefined): boolean {
  return endpoint === undefined || /(^|\.)amazonaws\.com(\.cn)?$/.test(new URL(endpoint).hostname);
}
