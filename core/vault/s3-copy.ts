/**
 * Has S3 copy an object from one bucket to another by itself, also between regions: the bytes never pass through this machine.
 *
 * `If-None-Match: *` protects the key as in putOnce. Stores that speak S3's language often ignore it on a copy, so the key is looked
 * at first; what a race could still overwrite there is the same object, since every key carries an id of its own.
 *
 * Whether a copy can be had is not known before it is tried: two endpoints may lead to one store or to two, a VPC endpoint
 * serves its own region only, a role may read the source and the store may not. A refusal is therefore no failure but the
 * answer "not this way". ETag and frame exclude that another store's object of the same name is taken for the source.
 * Source: Amazon S3 API Reference, CopyObject: objects up to 5 GB; 409 is a race, try again.
 */
import { CopyObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { VaultError } from '../errors.ts';
import type { AwsFailure } from './aws-client.ts';
import type { Bucket, ObjectStore, StoredObject } from './bucket.ts';
import { readFrame } from './object-frame.ts';
import { otherBytes } from './object-key.ts';
import { readBeginning, readChecksum, type S3Object } from './s3-object.ts';
import { extraMsFor, type Limit, pause } from './time-limit.ts';

/** Largest object that S3 copies in one request. */
const LARGEST_BYTES = 5 * 1024 ** 3;

/** Answers to a copy that mean "not this way"; what is wrong with the buckets themselves the caller's put will say. */
const REFUSALS = new Set([
  'AccessDenied',
  'InvalidArgument',
  'InvalidObjectState',
  'InvalidRequest',
  'MethodNotAllowed',
  'NoSuchBucket',
  'NoSuchKey',
  'NotImplemented',
]);

/** The object as a copy of it needs to know it. @throws VaultError corrupt  it is not what was put: nothing to be copied */
export async function findObject(
  client: S3Client,
  object: S3Object,
  key: string,
  limit: Limit,
): Promise<StoredObject | undefined> {
  const there = await readBeginning(client, object, limit);
  if (there === undefined) return undefined;
  readFrame(key, there.bytes, there.storedBytes);
  return {
    path: [object.Bucket, ...object.Key.split('/')].map(encodeURIComponent).join('/'),
    etag: there.etag,
    beginning: there.bytes,
    storedBytes: there.storedBytes,
    sha256: await readChecksum(client, object, limit),
  };
}

/**
 * @param copier  client that waits for its answer as long as the limit: a store may be silent until it has copied
 * @throws VaultError conflict | corrupt, and whatever else the SDK says
 */
export async function copyObject(
  { client, copier }: { client: S3Client; copier: () => S3Client },
  from: { store: ObjectStore; key: string },
  to: S3Object & { bucket: Pick<Bucket, 'name'>; key: string },
  limit: Limit,
): Promise<'stored' | 'same' | 'absent' | 'refused' | 'too large'> {
  const object = { Bucket: to.Bucket, Key: to.Key };
  let unmet: StoredObject | undefined;
  for (let attempt = 0; ; attempt += 1) {
    const source = await from.store.find(from.key);
    if (source === undefined) return 'absent';
    const there = await readBeginning(client, object, limit);
    if (there !== undefined) {
      const mine = readFrame(from.key, source.beginning, source.storedBytes);
      const old = readFrame(to.key, there.bytes, there.storedBytes);
      if (old.sizeBytes === mine.sizeBytes && old.sha256 === mine.sha256) return 'same';
      throw otherBytes(to.bucket.name, to.key);
    }
    // neither was the key taken nor is the source another: the store that was asked has another object of that name
    if (unmet !== undefined && unmet.etag === source.etag) return 'refused';
    if (source.storedBytes > LARGEST_BYTES) return 'too large';
    if (attempt === 0) limit.extend(extraMsFor(source.storedBytes));
    try {
      await copier().send(
        new CopyObjectCommand({
          ...object,
          CopySource: source.path,
          ...(source.etag === '' ? {} : { CopySourceIfMatch: source.etag }),
          IfNoneMatch: '*',
          ChecksumAlgorithm: 'SHA256',
          // as an object that is put: neither metadata nor tags (to read those would be one more right)
          MetadataDirective: 'REPLACE',
          TaggingDirective: 'REPLACE',
        }),
        { abortSignal: limit.signal },
      );
    } catch (error) {
      const { name, $metadata } = error as AwsFailure;
      const status = $metadata?.httpStatusCode;
      if (status === 404 && (await from.store.find(from.key)) === undefined) return 'absent';
      if (REFUSALS.has(name) || status === 501) return 'refused';
      // 412: the key is taken meanwhile, or the source is another; 409: a race
      if ((status !== 412 && status !== 409) || limit.leftMs() === 0) throw error;
      unmet = status === 412 ? source : undefined;
      await pause(Math.min(50 * 2 ** attempt, 1000));
      continue;
    }
    const copy = await findObject(client, object, to.key, limit);
    const differs = copy === undefined ? 'it is not there' : differenceOf(source, copy);
    if (differs === undefined) return 'stored';
    throw new VaultError(
      'corrupt',
      `the copy '${to.key}' in ${to.bucket.name} is not its source: ${differs}`,
      {
        hint: 'look at the store: it said that it had copied the object.',
      },
    );
  }
}

function differenceOf(source: StoredObject, copy: StoredObject): string | undefined {
  if (copy.storedBytes !== source.storedBytes)
    return `${source.storedBytes} bytes there, ${copy.storedBytes} here`;
  if (!copy.beginning.equals(source.beginning)) return 'its frame is another';
  if (source.sha256 === undefined || copy.sha256 === undefined || source.sha256 === copy.sha256)
    return undefined;
  return `SHA-256 ${source.sha256} there, ${copy.sha256} here`;
}
