/**
 * core/postgres on a running server: found as psql finds it, stopped and promoted by signals, never mistaken for another.
 */
import { existsSync } from 'node:fs';
import { isRunning, promote, startServer, stopServer } from '../../core/postgres/server.ts';
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { writeSignalFile } from '../../core/postgres/signal-files.ts';
import { connect, withConnection } from '../../core/postgres/sql.ts';
import { pgBin, TestServer } from '../harness/postgres.ts';
import { makeScratch, removeScratch, waitFor } from '../harness/scratch.ts';

describe.each([{ major: 15 }, { major: 18 }])('PostgreSQL $major', ({ major }) => {
  const scratch = makeScratch(`v${major}`);
  const server = new TestServer({ major, pgdata: `${scratch}/one`, sockets: scratch, port: 5432 });
  const other = new TestServer({ major, pgdata: `${scratch}/two`, sockets: scratch, port: 5433 });
  const env = { PGUSER: 'postgres' };
  const start = () => startServer(server.pgdata, { binDir: pgBin(major), logFile: server.logFile });

  beforeAll(async () => {
    await server.initdb();
    await other.initdb();
    await other.start();
    await start();
  });
  afterAll(async () => {
    await server.stop('immediate');
    await other.stop('immediate');
    await removeScratch(scratch);
  });

  test('a running server is found by postmaster.pid alone', async () => {
    const { running, control } = await readPgdata(server.pgdata);
    expect(running).toMatchObject({ port: 5432, socketDir: scratch, status: 'ready' });
    const answer = await withConnection({ pgdata: server.pgdata, env }, (client) =>
      client.query<{ id: string }>('SELECT system_identifier::text AS id FROM pg_control_system()'),
    );
    expect(answer.rows[0]?.id).toBe(control.systemIdentifier);
  });

  test('without PGUSER the first role is taken that the server knows', async () => {
    const { rows } = await withConnection({ pgdata: server.pgdata, env: {} }, (client) =>
      client.query<{ name: string }>('SELECT current_user AS name'),
    );
    expect(rows[0]?.name).toBe('postgres');
  });

  test('PGPORT of another server is refused instead of taken for this one', async () => {
    await expect(
      connect({ pgdata: server.pgdata, env: { ...env, PGHOST: scratch, PGPORT: '5433' } }),
    ).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining(other.pgdata),
    });
    await expect(connect({ pgdata: server.pgdata, settings: { pgPort: 5433 }, env })).rejects.toMatchObject({
      code: 'refused',
    });
  });

  test('a role that is not there, and a server that is not there, are told apart', async () => {
    await expect(connect({ pgdata: server.pgdata, env: { PGUSER: 'nobody here' } })).rejects.toMatchObject({
      code: 'denied',
    });
    await expect(connect({ env: { ...env, PGHOST: scratch, PGPORT: '5999' } })).rejects.toMatchObject({
      code: 'unreachable',
    });
  });

  test('fast and immediate stop end the server; a smart one that waits for a session says so at its deadline', async () => {
    const session = await server.connect();
    await expect(stopServer(server.pgdata, 'smart', 500)).rejects.toMatchObject({
      code: 'unreachable',
      hint: expect.stringContaining('immediate'),
    });
    await stopServer(server.pgdata, 'fast', 20_000);
    await session.end().catch(() => {});
    expect(await isRunning(server.pgdata)).toBe(false);
    await expect(connect({ pgdata: server.pgdata, env })).rejects.toMatchObject({
      code: 'unreachable',
      message: `no server runs on ${server.pgdata}`,
    });
    await start();
    await stopServer(server.pgdata, 'immediate', 20_000);
    await stopServer(server.pgdata, 'fast');
    expect((await readPgdata(server.pgdata)).control.stateText).toBe('in production');
  });

  test('a server killed by -9 leaves a postmaster.pid that is known to be stale', async () => {
    await start();
    await server.kill9();
    expect(existsSync(`${server.pgdata}/postmaster.pid`)).toBe(true);
    expect(await isRunning(server.pgdata)).toBe(false);
  });

  test('a standby is promoted by file and signal, a stopped server is not', async () => {
    await expect(promote(server.pgdata)).rejects.toMatchObject({ code: 'refused' });
    expect(existsSync(`${server.pgdata}/promote`)).toBe(false);
    server.configure({ restore_command: 'false' });
    await start();
    await server.stop();
    await writeSignalFile(server.pgdata, 'standby.signal');
    await start();
    expect(await server.value('SELECT pg_is_in_recovery()')).toBe(true);
    await promote(server.pgdata);
    await waitFor(
      'the promotion',
      20_000,
      async () => (await server.value('SELECT pg_is_in_recovery()')) === false,
    );
    expect(existsSync(`${server.pgdata}/promote`)).toBe(false);
    expect(existsSync(`${server.pgdata}/standby.signal`)).toBe(false);
  });

  test('a server that does not come up is reported with its log', async () => {
    await stopServer(server.pgdata, 'fast');
    server.configure({ max_connections: '-1' });
    await expect(start()).rejects.toMatchObject({
      code: 'refused',
      hint: expect.stringContaining(server.logFile),
    });
  });
});
