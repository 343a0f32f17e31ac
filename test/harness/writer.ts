/** A primary's steady load, and the knowledge which of its commits lie before an LSN. */
import { parseLsn, type Lsn } from '../../core/wal/lsn.ts';
import type { TestServer } from './postgres.ts';

/** Commits one row after the other until stopped, or until its server is gone. */
export class SteadyWriter {
  /** Acknowledged rows with the WAL position that was reached right after: a row's commit record ends at or before it. */
  readonly acknowledged: { id: number; lsn: Lsn }[] = [];
  private stopping = false;
  private failure: unknown;
  private readonly ended: Promise<void>;

  private constructor(server: TestServer, pauseMs: number) {
    this.ended = this.write(server, pauseMs);
  }

  static async start(server: TestServer, { pauseMs = 2 } = {}): Promise<SteadyWriter> {
    await server.query('CREATE TABLE IF NOT EXISTS steady (id bigint PRIMARY KEY, pad text NOT NULL)');
    return new SteadyWriter(server, pauseMs);
  }

  private async write(server: TestServer, pauseMs: number): Promise<void> {
    const client = await server.connect();
    let id = Number((await client.query('SELECT coalesce(max(id), 0) AS id FROM steady')).rows[0].id);
    try {
      while (!this.stopping) {
        id++;
        await client.query(`INSERT INTO steady VALUES ($1, repeat(md5($1::bigint::text), 20))`, [id]);
        const position = await client.query('SELECT pg_current_wal_insert_lsn()::text AS lsn');
        this.acknowledged.push({ id, lsn: parseLsn(position.rows[0].lsn) });
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
    } catch (error) {
      // a server that was killed or stopped under it is what the test wanted; anything else is said by stop()
      const code = (error as { code?: string }).code ?? '';
      if (/^(?!57P|08)[0-9A-Z]{5}$/.test(code) && code !== 'EPIPE') this.failure = error;
    } finally {
      await client.end().catch(() => {});
    }
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.ended;
    if (this.failure !== undefined) throw this.failure;
  }

  /** Ids of the rows that a server must have which holds the WAL up to `lsn`. */
  rowsBefore(lsn: Lsn): number {
    return this.acknowledged.filter((row) => row.lsn <= lsn).reduce((most, row) => Math.max(most, row.id), 0);
  }
}

/**
 * Ends one segment after the other until stopped, each when the one before is archived (and not sooner than `pauseMs` later): a load
 * that no machine is too slow for.
 */
export class SteadySwitcher {
  private stopping = false;
  private readonly ended: Promise<void>;

  private constructor(server: TestServer, pauseMs: number) {
    this.ended = this.switch(server, pauseMs);
  }

  static start(server: TestServer, { pauseMs = 300 } = {}): SteadySwitcher {
    return new SteadySwitcher(server, pauseMs);
  }

  private async switch(server: TestServer, pauseMs: number): Promise<void> {
    const name = `SELECT pg_walfile_name(pg_switch_wal()) AS name`;
    const archived = `SELECT last_archived_wal >= $1 FROM pg_stat_archiver`;
    const client = await server.connect();
    try {
      while (!this.stopping) {
        const [ended] = (await client.query<{ name: string }>(name)).rows;
        do await new Promise((resolve) => setTimeout(resolve, pauseMs));
        while (
          !this.stopping &&
          Object.values((await client.query(archived, [ended!.name])).rows[0])[0] !== true
        );
      }
    } finally {
      await client.end();
    }
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.ended;
  }
}

/** How many of the rows 1..upTo are missing on `server`. */
export async function missingRows(server: TestServer, upTo: number): Promise<number> {
  return upTo - (await server.number(`SELECT count(*) FROM steady WHERE id BETWEEN 1 AND ${upTo}`));
}

/** All rows of the writer's table in one value: equal on two servers whose tables are equal. */
export type TableSum = { rows: number; lastId: number; md5: string };

/** @param upTo  only the rows 1..upTo: what two servers must have in common while one of them goes on */
export async function tableSum(server: TestServer, upTo?: number): Promise<TableSum> {
  const [row] = await server.query(
    `SELECT count(*) AS rows, coalesce(max(id), 0) AS last,
            coalesce(md5(string_agg(md5(steady::text), '' ORDER BY id)), '') AS md5
     FROM steady WHERE $1::bigint IS NULL OR id BETWEEN 1 AND $1`,
    [upTo ?? null],
  );
  return { rows: Number(row?.['rows']), lastId: Number(row?.['last']), md5: String(row?.['md5']) };
}
