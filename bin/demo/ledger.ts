/**
 * The demo's table, and who writes it: numbered rows in small transactions, with a note of each one that the server acknowledged and of
 * the WAL position behind it, so that afterwards it can be said of every single one whether it had to survive.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseLsn, type Lsn } from '../../core/wal/lsn.ts';
import type { SqlClient } from './servers.ts';

const ROWS_A_COMMIT = 100;
/** About 1.5 MB of WAL a second. */
const PAUSE_MS = 20;

export type Commit = { lastId: number; lsn: Lsn };

export class LedgerWriter {
  /** Acknowledged transactions, oldest first; `lsn` is a position behind the commit record. */
  readonly commits: Commit[] = [];
  readonly #client: SqlClient;
  #stopping = false;
  #running: Promise<void> | undefined;

  constructor(client: SqlClient) {
    this.#client = client;
  }

  get acknowledged(): number {
    return this.commits.at(-1)?.lastId ?? 0;
  }

  async makeTable(): Promise<void> {
    await this.#client.query(
      'CREATE TABLE ledger (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text NOT NULL)',
    );
  }

  start(): void {
    // the end of the connection is what the demo is about: the writer simply stops there
    this.#running = this.#write().catch(() => {});
  }

  /** Ends when the transaction under way has ended, or the connection is gone. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#running;
  }

  async #write(): Promise<void> {
    while (!this.#stopping) {
      const from = this.acknowledged + 1;
      const to = this.acknowledged + ROWS_A_COMMIT;
      await this.#client.query(
        `INSERT INTO ledger SELECT id, now(), repeat(md5(id::text), 6) FROM generate_series(${from}::bigint, ${to}) id`,
      );
      const { rows } = await this.#client.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn() AS lsn');
      this.commits.push({ lastId: to, lsn: parseLsn(rows[0]?.lsn ?? '') });
      await sleep(PAUSE_MS);
    }
  }

  /** How many rows were committed in front of `lsn`: all of them must be there once everything up to it is replayed. */
  rowsBefore(lsn: Lsn): number {
    return this.commits.findLast((commit) => commit.lsn <= lsn)?.lastId ?? 0;
  }
}

/** What a server holds of the ledger: how many rows, the highest number, and how many numbers are missing among them. */
export async function readLedger(
  client: SqlClient,
): Promise<{ rows: number; highest: number; missing: number }> {
  const { rows } = await client.query<{ rows: string; highest: string }>(
    'SELECT count(*) AS rows, coalesce(max(id), 0) AS highest FROM ledger',
  );
  const [count, highest] = [Number(rows[0]?.rows), Number(rows[0]?.highest)];
  return { rows: count, highest, missing: highest - count };
}

/** The highest number alone: cheap enough for a live view. */
export async function highestRow(client: SqlClient): Promise<number> {
  const { rows } = await client.query<{ highest: string }>(
    'SELECT coalesce(max(id), 0) AS highest FROM ledger',
  );
  return Number(rows[0]?.highest ?? 0);
}
