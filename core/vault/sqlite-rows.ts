/**
 * Rows in a SQLite file, in whatever thread calls it: the reading side and the transaction of manifest-file.ts.
 *
 * sqliteRows() is handed to a worker thread as its own source text, since a bundled hook is one file and has no second one
 * to start a thread from. So it may use nothing from outside its body; types are erased and do not count.
 */
import type * as fsModule from 'node:fs';
import type * as sqliteModule from 'node:sqlite';
import type { Change, Condition, Key, Outcome, Row } from './manifest.ts';

/** What the manifest's file looks like inside; PRAGMA user_version. */
export const SCHEMA = 1;

/** Made within one transaction; journal_mode first, outside it. */
export const MAKE_TABLE = `
  CREATE TABLE IF NOT EXISTS rows (
    pk TEXT NOT NULL, sk TEXT NOT NULL, rev INTEGER NOT NULL, row TEXT NOT NULL, PRIMARY KEY (pk, sk)
  ) STRICT, WITHOUT ROWID;
  PRAGMA user_version = ${SCHEMA};`;

export type Page = {
  pk: string;
  from: string;
  to: string | undefined;
  afterSk: string | undefined;
  descending: boolean;
  limit: number;
};

export type SqliteRows = {
  version(): number;
  read(key: Key): Row | undefined;
  page(range: Page): Row[];
  /** @param busyMs  longest wait for another process's transaction */
  transact(changes: readonly Change[], busyMs: number): Outcome;
  close(): void;
};

/**
 * @param file    the database
 * @param uri     the same as a URL with `mode=rw`: an absent one is an error (errcode 14), not made
 * @param busyMs  longest wait of a read for a process that repairs the file after a crash
 */
export function sqliteRows(
  sqlite: typeof sqliteModule,
  fs: Pick<typeof fsModule, 'statSync'>,
  file: string,
  uri: string,
  busyMs: number,
): SqliteRows {
  let db: sqliteModule.DatabaseSync | undefined;
  let inode: string | undefined;
  const statements = new Map<string, sqliteModule.StatementSync>();
  const close = (): void => {
    statements.clear();
    const closing = db;
    db = undefined;
    closing?.close();
  };
  /**
   * The open database, while it is the one that has the name. A vault that was removed and made again, or whose disk was
   * mounted anew, would otherwise go on taking commits into a deleted file.
   */
  const connection = (): sqliteModule.DatabaseSync => {
    const found = fs.statSync(file, { throwIfNoEntry: false });
    const there = found && `${found.dev}:${found.ino}`;
    if (db !== undefined && there === inode) return db;
    close();
    const opening = new sqlite.DatabaseSync(new URL(uri), { timeout: busyMs });
    try {
      // FULL: in WAL mode only this syncs each commit; fullfsync: macOS alone, where fsync does not reach the disk
      opening.exec('PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;');
    } catch (error) {
      opening.close();
      throw error;
    }
    db = opening;
    inode = there;
    return db;
  };
  const prepared = (text: string): sqliteModule.StatementSync => {
    const connected = connection();
    const statement = statements.get(text) ?? connected.prepare(text);
    statements.set(text, statement);
    return statement;
  };
  const parsed = (found: unknown): Row => JSON.parse((found as { row: string }).row) as Row;
  const read = ({ pk, sk }: Key): Row | undefined => {
    const found = prepared('SELECT row FROM rows WHERE pk = ? AND sk = ?').get(pk, sk);
    return found === undefined ? undefined : parsed(found);
  };
  const holds = (condition: Condition, row: Row | undefined): boolean => {
    if (condition === 'any') return true;
    if (condition === 'absent') return row === undefined;
    if (condition === 'present') return row !== undefined;
    return row?.rev === condition.rev;
  };
  const apply = (changes: readonly Change[]): Outcome => {
    const failed = changes.flatMap((change, index) => {
      if (change.when === 'any') return [];
      const row = read(change.do === 'put' ? change.row : change.key);
      return holds(change.when, row) ? [] : [{ index, row }];
    });
    if (failed.length > 0) return { done: false, failed };
    for (const change of changes) {
      if (change.do === 'put') {
        const { pk, sk, rev } = change.row;
        prepared('INSERT OR REPLACE INTO rows (pk, sk, rev, row) VALUES (?, ?, ?, ?)').run(
          pk,
          sk,
          rev,
          JSON.stringify(change.row),
        );
      } else if (change.do === 'delete') {
        prepared('DELETE FROM rows WHERE pk = ? AND sk = ?').run(change.key.pk, change.key.sk);
      }
    }
    return { done: true };
  };
  return {
    version() {
      const found = prepared('PRAGMA user_version').get() as { user_version: number };
      return found.user_version;
    },
    read,
    page({ pk, from, to, afterSk, descending, limit }) {
      const conditions = ['pk = ?', 'sk >= ?'];
      const values: (string | number)[] = [pk, from];
      if (to !== undefined) {
        conditions.push('sk < ?');
        values.push(to);
      }
      if (afterSk !== undefined) {
        conditions.push(descending ? 'sk < ?' : 'sk > ?');
        values.push(afterSk);
      }
      const order = descending ? 'DESC' : 'ASC';
      const text = `SELECT row FROM rows WHERE ${conditions.join(' AND ')} ORDER BY sk ${order} LIMIT ?`;
      return prepared(text)
        .all(...values, limit)
        .map(parsed);
    },
    transact(changes, waitMs) {
      const connected = connection();
      connected.exec(`PRAGMA busy_timeout = ${Math.max(0, Math.floor(waitMs))}`);
      connected.exec('BEGIN IMMEDIATE');
      let outcome: Outcome;
      try {
        outcome = apply(changes);
        connected.exec(outcome.done ? 'COMMIT' : 'ROLLBACK');
      } catch (error) {
        if (connected.isTransaction) connected.exec('ROLLBACK');
        throw error;
      }
      connected.exec(`PRAGMA busy_timeout = ${busyMs}`);
      if (connection() !== connected) {
        throw Object.assign(new Error('the database was replaced during a transaction'), { errcode: 5 });
      }
      return outcome;
    },
    close,
  };
}
