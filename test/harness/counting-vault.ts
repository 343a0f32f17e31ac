/**
 * A vault that counts what AWS would bill of the work done through it: units of DynamoDB, requests of S3. The vault underneath is
 * real, whichever it is.
 *
 * Source: Amazon DynamoDB Developer Guide, "DynamoDB read and write operations" (a consistent read is 1 unit for each 4 KB begun, of a
 * query for its whole page; a write in a transaction 2 for each KB begun, and a check costs as a write) and "DynamoDB item sizes and
 * formats".
 */
import type { Change, Json, Row } from '../../core/vault/manifest.ts';
import type { Vault } from '../../core/vault/vault.ts';

export type Counted = {
  readUnits: number;
  writeUnits: number;
  transactions: number;
  puts: number;
  gets: number;
  copies: number;
  lists: number;
  deletes: number;
};

export type CountingVault = Vault & {
  /** What was counted since the last call. */
  take(): Counted;
  /** Bytes of the largest row that was written, by the beginning of its sk. */
  largest: Map<string, number>;
};

const none = (): Counted => ({
  ...{ readUnits: 0, writeUnits: 0, transactions: 0 },
  ...{ puts: 0, gets: 0, copies: 0, lists: 0, deletes: 0 },
});

export function countingVault(vault: Vault): CountingVault {
  let counted = none();
  const largest = new Map<string, number>();
  const readUnits = (bytes: number) => Math.max(1, Math.ceil(bytes / 4096));
  const writeUnits = (bytes: number) => 2 * Math.max(1, Math.ceil(bytes / 1024));
  const { manifest, bucket } = vault;

  async function unitsOf(change: Change): Promise<number> {
    if (change.do === 'put') {
      const bytes = itemBytes(change.row);
      const kind = change.row.sk.split('#')[0]!;
      largest.set(kind, Math.max(largest.get(kind) ?? 0, bytes));
      return writeUnits(bytes);
    }
    const there = await manifest.get(change.key);
    return writeUnits(there === undefined ? 0 : itemBytes(there));
  }

  return {
    url: vault.url,
    largest,
    take() {
      const taken = counted;
      counted = none();
      return taken;
    },
    close: () => vault.close(),
    manifest: {
      name: manifest.name,
      close: () => manifest.close(),
      async get(key) {
        const row = await manifest.get(key);
        counted.readUnits += readUnits(row === undefined ? 0 : itemBytes(row));
        return row;
      },
      async *query(range) {
        let bytes = 0;
        try {
          for await (const row of manifest.query(range)) {
            bytes += itemBytes(row);
            yield row;
          }
        } finally {
          counted.readUnits += readUnits(bytes);
        }
      },
      async transact(changes) {
        counted.transactions += 1;
        for (const change of changes) counted.writeUnits += await unitsOf(change);
        return manifest.transact(changes);
      },
    },
    bucket: {
      ...bucket,
      putOnce(key, body, facts) {
        counted.puts += 1;
        return bucket.putOnce(key, body, facts);
      },
      copyFrom(from, key) {
        counted.copies += 1;
        return bucket.copyFrom(from, key);
      },
      get(key) {
        counted.gets += 1;
        return bucket.get(key);
      },
      facts(key) {
        counted.gets += 1;
        return bucket.facts(key);
      },
      list(prefix) {
        counted.lists += 1;
        return bucket.list(prefix);
      },
      delete(key) {
        counted.deletes += 1;
        return bucket.delete(key);
      },
    },
  };
}

/** Bytes of a row as DynamoDB counts them. */
export function itemBytes(row: Row): number {
  return Object.entries(row).reduce(
    (sum, [name, value]) => sum + (value === undefined ? 0 : Buffer.byteLength(name) + valueBytes(value)),
    0,
  );
}

function valueBytes(value: Json): number {
  if (value === null || typeof value === 'boolean') return 1;
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (typeof value === 'number') return Math.ceil(String(value).length / 2) + 1;
  if (Array.isArray(value)) return 3 + value.reduce((sum: number, one) => sum + 1 + valueBytes(one), 0);
  return (
    3 +
    Object.entries(value).reduce(
      (sum, [name, one]) => sum + (one === undefined ? 0 : 1 + Buffer.byteLength(name) + valueBytes(one)),
      0,
    )
  );
}
