/**
 * The bytes of the vault, by key. A key is written once and never overwritten.
 *
 * Facts and bytes are one object in every backend, in the layout of object-frame.ts; sizes here are the body's.
 *
 * Backends: bucket-memory.ts (tests), bucket-file.ts (file:), bucket-s3.ts (s3:); one contract, test/contract/bucket.test.ts.
 */

/** What an object says of itself beside its bytes; repeats its manifest row, so that a lost table can be made again. */
export type ObjectFacts = Readonly<Record<string, string>>;

export type ObjectInfo = { key: string; sizeBytes: number; storedAt: Date };

export interface Bucket {
  /** For people: `file:///srv/vault` or `s3://bucket/prefix`. */
  readonly name: string;

  /**
   * Stores `body` if `key` is free: 'stored'. If the same bytes are there already: 'same'.
   * Durable when it returns (file: fsync of file and directory). Facts: ASCII keys [a-z0-9-], ASCII values, 1.5 KiB at most in all.
   *
   * @throws VaultError conflict (other bytes under this key) | unreachable | denied | local (disk full)
   */
  putOnce(key: string, body: Uint8Array, facts?: ObjectFacts): Promise<'stored' | 'same'>;

  /** The bytes, or undefined when absent: absence is an answer, not an error. @throws VaultError unreachable | denied | corrupt (truncated, zeroed) */
  get(key: string): Promise<Buffer | undefined>;

  /** The facts put with the object, or undefined when absent. */
  facts(key: string): Promise<ObjectFacts | undefined>;

  /** Objects under `prefix` in ascending byte order of their keys, every page followed, none repeated. */
  list(prefix: string): AsyncIterable<ObjectInfo>;

  /** Removes the object; absent already is fine. Only retention and clean-up of broken backups call it. */
  delete(key: string): Promise<void>;

  close(): Promise<void>;
}
