/**
 * The facts of the vault: rows in one table, changed by transactions with conditions.
 *
 * This room knows rows, conditions and durability; what the rows mean and which change is allowed is decided in
 * core/cluster and carried out in core/work. Backends: manifest-memory.ts (tests), manifest-file.ts (SQLite),
 * manifest-dynamodb.ts; one contract, test/contract/manifest.test.ts.
 */

/** A plain JSON value; LSNs and times are text in rows. Absent members are left out, never undefined inside arrays. */
export type Json = string | number | boolean | null | Json[] | { [name: string]: Json | undefined };

/** A row's place: `pk` is a partition (`main`, or `main/7301…`), `sk` its name within (`control`, `wal#0000…`). */
export type Key = { readonly pk: string; readonly sk: string };

/** A row: its place, its revision (1 when it was made, one higher at each change) and its members. */
export type Row = Key & { rev: number } & { [name: string]: Json | undefined };

/**
 * What must hold of the row as it stands: 'absent', 'present', or just this revision.
 * A `put` writes the whole row; its `rev` is set by the caller (seen + 1, or 1).
 */
export type Condition = 'absent' | 'present' | 'any' | { rev: number };
export type Change =
  | { do: 'put'; row: Row; when: Condition }
  | { do: 'delete'; key: Key; when: Condition }
  | { do: 'check'; key: Key; when: Condition };

/** Refused: each change whose condition did not hold, by its index, with the row as it stood (undefined: absent). */
export type Outcome = { done: true } | { done: false; failed: { index: number; row: Row | undefined }[] };

export interface Manifest {
  readonly name: string;

  /** The row as of now (strongly consistent), or undefined. @throws VaultError unreachable | denied | unconfigured (no table) */
  get(key: Key): Promise<Row | undefined>;

  /**
   * Rows of one partition in ascending byte order of `sk` (or descending), from >= `from` and < `to`, at most `limit`.
   * Each row is consistent in itself, the range as a whole is not: never conclude "not there" from it.
   * Reads only the pages it yields.
   */
  query(range: {
    pk: string;
    from?: string;
    to?: string;
    descending?: boolean;
    limit?: number;
  }): AsyncIterable<Row>;

  /**
   * All of `changes` or none; durable when it answers `done`. At most 100 changes, each row once.
   * Conflicts with other transactions and throttling are tried again inside, up to the time limit.
   * When the answer is lost it throws `unreachable`: the change may have happened, or may still happen; the caller looks it up by content or id.
   *
   * @throws VaultError unreachable | denied | unconfigured | local (disk full)
   */
  transact(changes: readonly Change[]): Promise<Outcome>;

  close(): Promise<void>;
}

/** Where a prefix ends in byte order: for `query({ from: 'wal#', to: after('wal#') })`. */
export function after(prefix: string): string {
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}
