/**
 * The backends of a bucket, one line each, for the contract suite.
 *
 * memory and file; s3 (an emulator) too with WALVAULT_TEST_AWS=1, as `npm run test:contract` sets it, and alone with `only`.
 */
import { type BucketLocationConstraint, CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Bucket } from '../../core/vault/bucket.ts';
import { fileBucket } from '../../core/vault/bucket-file.ts';
import { memoryBucket } from '../../core/vault/bucket-memory.ts';
import { s3Bucket } from '../../core/vault/bucket-s3.ts';
import { CREDENTIALS, type Emulator, ownName, startMinistack } from './emulators.ts';

export const isAwsWanted = ['1', 'only'].includes(process.env['WALVAULT_TEST_AWS'] ?? '');
/** Not where `npm test` has just shown it. */
export const isLocalWanted = process.env['WALVAULT_TEST_AWS'] !== 'only';

/** One empty bucket; `open` connects to it once more, as another process would. */
export type Place = {
  open(options?: { timeoutMs?: number; port?: number }): Bucket;
  remove(): Promise<void>;
  /** Port of the server behind it. */
  port?: number;
  /** s3: the bucket's own name, and the URL of a vault in it, whose table is not there. */
  bucket?: string;
  url?: string;
};

export type BucketBackend = {
  name: string;
  start(): Promise<void>;
  stop(): Promise<void>;
  /** @param region  of the bucket, where the kind has regions */
  make(region?: string): Promise<Place>;
};

const nothing = async () => undefined;

export const buckets: BucketBackend[] = [
  ...(isLocalWanted
    ? [
        { name: 'memory', start: nothing, stop: nothing, make: async () => memory() },
        { name: 'file', start: nothing, stop: nothing, make: async () => file() },
      ]
    : []),
  ...(isAwsWanted ? [s3('s3 (ministack)', startMinistack)] : []),
];

function memory(): Place {
  const objects = new Map();
  return { open: () => memoryBucket('memory:test', objects), remove: nothing };
}

function file(): Place {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'walvault-bucket-'));
  return {
    open: (options) => fileBucket(`file://${directory}`, directory, options),
    remove: async () => rmSync(directory, { recursive: true }),
  };
}

function s3(name: string, startEmulator: () => Promise<Emulator>): BucketBackend {
  let emulator: Emulator;
  return {
    name,
    async start() {
      Object.assign(process.env, CREDENTIALS);
      emulator = await startEmulator();
    },
    stop: async () => emulator?.stop(),
    async make(region: string = CREDENTIALS.AWS_REGION) {
      const { endpoint, port } = emulator;
      const bucket = await makeBucket(endpoint, ownName(), region);
      return {
        port,
        bucket,
        url: `s3://${bucket}/a/prefix?region=${region}&endpoint=${encodeURIComponent(endpoint)}`,
        open: (options = {}) =>
          s3Bucket(
            `s3://${bucket}/a/prefix`,
            {
              bucket,
              prefix: 'a/prefix',
              region,
              endpoint: options.port === undefined ? endpoint : `http://127.0.0.1:${options.port}`,
            },
            options,
          ),
        remove: nothing, // the emulator goes as a whole
      };
    },
  };
}

/** A new bucket at this endpoint. */
export async function makeBucket(
  endpoint: string,
  name = ownName(),
  region: string = CREDENTIALS.AWS_REGION,
): Promise<string> {
  const client = new S3Client({ endpoint, region, forcePathStyle: true });
  // AWS's first region is the one that may not be named
  const where =
    region === 'us-east-1'
      ? {}
      : { CreateBucketConfiguration: { LocationConstraint: region as BucketLocationConstraint } };
  await client.send(new CreateBucketCommand({ Bucket: name, ...where }));
  client.destroy();
  return name;
}
