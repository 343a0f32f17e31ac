/**
 * A vault is a bucket and a manifest, named by one URL.
 *
 *   file:///srv/vault                                        a directory and a SQLite manifest: one machine
 *   s3://bucket/prefix?table=walvault&region=eu-west-1       S3 and one DynamoDB table
 *   memory:name                                              within one process, for tests
 */
import type { Bucket } from './bucket.ts';
import type { Manifest } from './manifest.ts';

export interface Vault {
  /** As given, normalised. */
  readonly url: string;
  readonly bucket: Bucket;
  readonly manifest: Manifest;
  close(): Promise<void>;
}

export type VaultOptions = {
  /** Longest that one operation of bucket or manifest may take before it throws `unreachable`, in ms. */
  timeoutMs?: number;
  /**
   * For a process that does a few things and ends (a lone hook, a command): the file manifest then works in this thread,
   * which may block it, and saves the start of a second one (20 to 40 ms).
   */
  oneShot?: boolean;
  /** Where to find AWS when neither the URL nor the environment says so. */
  aws?: { region?: string; endpoint?: string; profile?: string };
};
