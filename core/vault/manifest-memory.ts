/**
 * A manifest within one process, for tests.
 */
import { checkChanges, holds, keyOf } from './changes.ts';
import type { Key, Manifest, Row } from './manifest.ts';
import { byBytes } from './object-key.ts';

/** Rows as JSON text, so that nobody shares an object with the table, by partition and name. */
type Table = Map<string, Map<string, string>>;

export function memoryManifest(name: string, table: Table = new Map()): Manifest {
  const read = ({ pk, sk }: Key): Row | undefined => {
    const text = table.get(pk)?.get(sk);
    return text === undefined ? undefined : (JSON.parse(text) as Row);
  };
  return {
    name,
    async get(key) {
      return read(key);
    },
    async *query({ pk, from, to, descending = false, limit = Infinity }) {
      const found = [...(table.get(pk)?.keys() ?? [])]
        .filter(
          (sk) => (from === undefined || byBytes(sk, from) >= 0) && (to === undefined || byBytes(sk, to) < 0),
        )
        .sort(descending ? (a, b) => byBytes(b, a) : byBytes)
        .slice(0, limit);
      for (const sk of found) {
        const row = read({ pk, sk });
        if (row !== undefined) yield row;
      }
    },
    async transact(changes) {
      checkChanges(changes);
      const failed = changes.flatMap((change, index) => {
        const row = read(keyOf(change));
        return holds(change.when, row) ? [] : [{ index, row }];
      });
      if (failed.length > 0) return { done: false, failed };
      for (const change of changes) {
        if (change.do === 'check') continue;
        const { pk, sk } = keyOf(change);
        const partition = table.get(pk) ?? new Map<string, string>();
        table.set(pk, partition);
        if (change.do === 'put') partition.set(sk, JSON.stringify(change.row));
        else partition.delete(sk);
      }
      return { done: true };
    },
    async close() {},
  };
}
