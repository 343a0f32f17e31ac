/**
 * Clients that write to whichever server accepts, one for each node, and keep their own log of what was acknowledged and when: by one clock,
 * that of the test, so that two servers that accept at one time are seen.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { parseLsn, type Lsn } from '../../core/wal/lsn.ts';
import type { TestServer } from './postgres.ts';

export type Ack = {
  node: string;
  n: number;
  /** When the statement was sent and when its answer was here, ms (performance.now). */
  sentAt: number;
  ackAt: number;
  /** Past its commit record; undefined: the server died before it said. */
  lsn: Lsn | undefined;
};

const EVERY_MS = 10;

const all = new Set<Clients>();

export class Clients {
  readonly acks: Ack[] = [];
  readonly #ended = new AbortController();
  #running: Promise<void>[] = [];
  #n = 0;

  /** One for each of `servers`; the primary among them gets the table. */
  static async start(primary: TestServer, servers: ReadonlyMap<string, TestServer>): Promise<Clients> {
    await primary.query('CREATE TABLE IF NOT EXISTS written (node text, n int)');
    const clients = new Clients();
    all.add(clients);
    clients.#running = [...servers].map(([node, server]) => clients.#write(node, server));
    return clients;
  }

  /** Those of `node` by time. */
  of(node: string): Ack[] {
    return this.acks.filter((ack) => ack.node === node);
  }

  /** The nodes in the order in which their answers came, each run of one node once: [db1, db2] is one change, [db1, db2, db1] two primaries. */
  turns(): string[] {
    const sorted = [...this.acks].sort((one, other) => one.ackAt - other.ackAt);
    return sorted.map(({ node }) => node).filter((node, at, all) => node !== all[at - 1]);
  }

  async stop(): Promise<void> {
    all.delete(this);
    this.#ended.abort();
    await Promise.race([Promise.all(this.#running), sleep(1000)]); // a client of a frozen server waits for it
  }

  async #write(node: string, server: TestServer): Promise<void> {
    while (!this.#ended.signal.aborted) {
      const client = new pg.Client({
        ...{ host: server.sockets, port: server.port, user: 'postgres', database: 'postgres' },
        connectionTimeoutMillis: 1000,
      });
      client.on('error', () => {});
      try {
        await client.connect();
        while (!this.#ended.signal.aborted) {
          const ack: Ack = { node, n: ++this.#n, sentAt: performance.now(), ackAt: 0, lsn: undefined };
          await client.query('INSERT INTO written VALUES ($1, $2)', [node, ack.n]);
          ack.ackAt = performance.now();
          this.acks.push(ack);
          const { rows } = await client.query<{ lsn: string }>(
            'SELECT pg_current_wal_insert_lsn()::text AS lsn',
          );
          ack.lsn = parseLsn(rows[0]!.lsn);
          await sleep(EVERY_MS);
        }
      } catch {
        await sleep(EVERY_MS); // a standby, or a server that is down: again
      }
      client.end().catch(() => {});
    }
  }
}

// those of a test that failed would write on into the next file's time
afterAll(async () => {
  for (const clients of all) await clients.stop();
});
