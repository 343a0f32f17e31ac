/**
 * A bucket within one process, for tests.
 */
import { VaultError } from '../errors.ts';
import type { Bucket, ObjectFacts } from './bucket.ts';
import { checkKey } from './object-frame.ts';
import { makeFrame } from './object-frame.ts';

type Kept = { body: Buffer; facts: ObjectFacts; storedAt: Date };

export function memoryBucket(name: string, objects = new Map<string, Kept>()): Bucket {
  return {
    name,
    async putOnce(key, body, facts = {}) {
      checkKey(key);
      makeFrame(body, facts); // refuses the facts that the other backends refuse
      const there = objects.get(key);
      if (there !== undefined) {
        if (there.body.equals(body)) return 'same';
        throw otherBytes(name, key);
      }
      objects.set(key, { body: Buffer.from(body), facts: { ...facts }, storedAt: new Date() });
      return 'stored';
    },
    async get(key) {
      checkKey(key);
      const there = objects.get(key);
      return there === undefined ? undefined : Buffer.from(there.body);
    },
    async facts(key) {
      checkKey(key);
      const there = objects.get(key);
      return there === undefined ? undefined : { ...there.facts };
    },
    async *list(prefix) {
      const found = [...objects.keys()].filter((key) => key.startsWith(prefix)).sort(byBytes);
      for (const key of found) {
        const there = objects.get(key);
        if (there !== undefined) yield { key, sizeBytes: there.body.length, storedAt: there.storedAt };
      }
    },
    async delete(key) {
      checkKey(key);
      objects.delete(key);
    },
    async close() {},
  };
}

/** Ascending by the bytes of UTF-8, as S3 and SQLite order; JavaScript's own order is that of UTF-16. */
export function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

/** Refusal of a second content; the same words in every backend. */
export function otherBytes(bucket: string, key: string): VaultError {
  return new VaultError('conflict', `${bucket} holds other bytes under '${key}'`, {
    hint: 'nothing was changed; two writers made different content under one name.',
  });
}
