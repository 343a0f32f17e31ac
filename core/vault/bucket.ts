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

/** An object as its store knows it. */
export type StoredObject = {
  /** Bucket and key, encoded as the store's own copy wants them. */
  path: string;
  /** '' where the store gives none. */
  etag: string;
  /** Frame and body. */
  storedBytes: number;
  /** The frame. */
  beginning: Buffer;
  /** Base64, of frame and body, as the store keeps it; undefined where it keeps none. */
  sha256: string | undefined;
};

/** What another bucket must know of this one to have the store copy from it. */
export type ObjectStore = {
  /** Only buckets of one service can be copied between; that they are of one does not yet mean that they can. */
  readonly service: string;
  readonly bucket: string;
  /** Undefined when absent. @throws VaultError unreachable | denied | corrupt (not what was put) */
  find(key: string): Promise<StoredObject | undefined>;
};

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

  /**
   * Stores the object `from.key` of another bucket here under `key`, frame and body as they are, where the store does that without
   * the bytes passing through this machine: 'stored' or 'same' as putOnce; 'absent': there is no such source.
   * Undefined: not this way, now at least; the caller reads and puts. The copy was read back: its frame, its size, and the SHA-256
   * where the store keeps one are the source's; whether the source's body is what its frame says is for those who read it.
   *
   * @throws VaultError conflict | corrupt (the source is not whole, the copy is not the source) | unreachable | denied
   */
  copyFrom(
    from: { bucket: Bucket; key: string },
    key: string,
  ): Promise<'stored' | 'same' | 'absent' | undefined>;

  /** Only where copyFrom of another bucket could make use of it. */
  store?(): Promise<ObjectStore | undefined>;

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
