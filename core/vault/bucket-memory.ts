/**
 * A bucket within one process, for tests.
 */
import type { Bucket, ObjectFacts } from './bucket.ts';
import { makeFrame } from './object-frame.ts';
import { byBytes, checkKey, otherBytes } from './object-key.ts';

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
    async copyFrom(_, key) {
      checkKey(key);
      return undefined;
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
