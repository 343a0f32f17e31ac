/**
 * The flush of a primary: everything acknowledged is in the vault, the way back is open until a trigger, and whatever breaks it off
 * leaves a server that can be started and that lets people in.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import path from 'node:path';
import { CRASH_POINTS } from '../../core/work/crash-points.ts';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite, walvaultFile } from '../harness/site.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';

const pair = onePair(0);
const points = CRASH_POINTS.filter((point) => point.startsWith('flush-') && point !== 'flush-undone');

type Flushing = {
  pid: number;
  said(): string;
  ended: Promise<{ status: number | null; signal: NodeJS.Signals | null; stdout: string; stderr: string }>;
};

describe(`flush on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer;
  let rows = 0;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1 });
    db1 = await site.makePrimary('db1');
    await site.backup();
    db2 = await site.addStandby('db2');
    await db1.query('CREATE TABLE kept (x int)');
    await site.caughtUp('db2');
  });
  afterAll(() => site.close());

  const words = (...more: string[]) => ['flush', '--pgdata', db1.pgdata, '--node', 'db1', ...more];

  /** A flush that a test watches, signals, or has killed at a point. */
  function flushing(more: string[] = [], env: NodeJS.ProcessEnv = {}): Flushing {
    const child = spawn(walvaultFile, words('--yes', ...more), {
      env: { ...site.personEnv, ...env },
      cwd: site.scratch,
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (text) => (stdout += text));
    child.stderr.on('data', (text) => (stderr += text));
    const ended = new Promise<Awaited<Flushing['ended']>>((resolve) =>
      child.on('close', (status, signal) => resolve({ status, signal, stdout, stderr })),
    );
    return { pid: child.pid!, said: () => stderr, ended };
  }

  async function write(): Promise<void> {
    await db1.query('INSERT INTO kept VALUES (1)');
    rows++;
  }

  /** Back as the primary, whole, archiving, and followed. */
  async function goesOn(): Promise<void> {
    expect(await db1.value('SELECT pg_is_in_recovery()')).toBe(false);
    await write();
    expect(await db1.number('SELECT count(*) FROM kept')).toBe(rows);
    await site.caughtUp('db2');
    expect(await db2.number('SELECT count(*) FROM kept')).toBe(rows);
  }

  async function undoAndStart(): Promise<void> {
    await site.ok(...words('--undo'));
    expect(existsSync(path.join(db1.pgdata, 'standby.signal'))).toBe(false);
    await db1.start();
  }

  test('stops the server with everything in the vault, under load', async () => {
    const writer = await SteadyWriter.start(db1);
    await waitFor('some rows', 10_000, () => writer.acknowledged.length > 50);
    const answer = JSON.parse(await site.ok(...words('--yes', '--json'))) as { lsn: string; segment: string };
    await writer.stop();
    expect(db1.pid()).toBeUndefined();
    expect(existsSync(path.join(db1.pgdata, 'standby.signal'))).toBe(true);
    // it ends 0xA0 bytes into the segment after the last archived one
    expect(answer.lsn).toMatch(/0A0$/);
    const { lastSegment } = await site.status();
    expect(answer.segment > lastSegment!).toBe(true);
    const acknowledged = writer.acknowledged.at(-1)!.id;
    await undoAndStart();
    await goesOn();
    expect(await missingRows(db2, acknowledged)).toBe(0);
  });

  test('done again it says that it stands', async () => {
    const first = JSON.parse(await site.ok(...words('--yes', '--json'))) as object;
    const again = JSON.parse(await site.ok(...words('--yes', '--json'))) as object;
    expect(again).toMatchObject({ already: true, lsn: (first as { lsn: string }).lsn });
  });

  test('started without the undo the server is read-only, and cannot be undone while it runs', async () => {
    await db1.start();
    expect(await db1.value('SELECT pg_is_in_recovery()')).toBe(true);
    const refused = await site.walvault(...words('--undo'));
    expect(refused).toMatchObject({ status: 3, stderr: expect.stringContaining('runs, read-only') });
    await db1.stop();
  });

  test('undone and started it goes on in the same segment, nothing is refused, the standby follows', async () => {
    await undoAndStart();
    await goesOn();
    expect(await site.events('conflict')).toEqual([]);
    expect(await site.walvault(...words('--undo'))).toMatchObject({ status: 0 });
  });

  test('a server that was stopped cleanly before is flushed as well', async () => {
    await db1.stop('fast');
    await site.ok(...words('--yes'));
    await undoAndStart();
    await goesOn();
  });

  test('its log files are kept where that is asked for', async () => {
    const answer = JSON.parse(await site.ok(...words('--yes', '--json', '--logs'))) as { logs: string[] };
    expect(answer.logs).toEqual([expect.stringMatching(/\/logs\/db1\/.*\/db1\.log\.zst$/)]);
    expect((await site.contents()).objects).toContain(answer.logs[0]);
    await undoAndStart();
    await goesOn();
  });

  test('one that crashed is refused, and can be started', async () => {
    await db1.kill9();
    const refused = await site.walvault(...words('--yes'));
    expect(refused).toMatchObject({ status: 3, stderr: expect.stringContaining('not stopped cleanly') });
    await db1.start();
    await goesOn();
  });

  test('a client that hangs in a transaction is ended after the grace, and leaves nothing behind', async () => {
    const client = await db1.connect();
    await client.query('BEGIN');
    await client.query('INSERT INTO kept VALUES (-1)');
    const answer = JSON.parse(await site.ok(...words('--yes', '--json', '--grace', '1s'))) as object;
    expect(answer).toMatchObject({ sessions: { terminated: 1 } });
    await client.end().catch(() => {});
    await undoAndStart();
    await goesOn();
  });

  test('Ctrl-C while it waits for a client: nothing is flushed, and everybody is let in', async () => {
    const client = await db1.connect();
    await client.query('BEGIN');
    await client.query('SELECT txid_current()');
    const running = flushing(['--grace', '1m']);
    await waitFor('the wait for the client', 30_000, () => running.said().includes('in a transaction'));
    await expect(db1.connect()).rejects.toMatchObject({ code: '28000' });
    process.kill(running.pid, 'SIGINT');
    const { status, stderr } = await running.ended;
    expect(status).toBe(3);
    expect(stderr).toContain('the flush was broken off');
    await waitFor('a connection', 5000, () => db1.value('SELECT 1').then(() => true));
    await client.query('COMMIT');
    await client.end();
    await goesOn();
  });

  test('archiving that is broken: refused before anything is changed', async () => {
    const program = path.join(site.state('db1'), 'program');
    renameSync(program, `${program}.away`);
    try {
      for (const pid of site.agentPids('db1')) process.kill(pid, 'SIGKILL');
      const refused = await site.walvault(...words('--yes', '--wait', '2s'));
      expect(refused.status).toBe(75);
      expect(refused.stderr).toContain('did not arrive in the vault');
      expect(refused.stderr).toContain('the server runs and takes connections');
      await write();
    } finally {
      renameSync(`${program}.away`, program);
    }
    await goesOn();
  });

  test('the own session killed while it waits: nothing is flushed, and everybody is let in', async () => {
    const client = await db1.connect();
    await client.query('BEGIN');
    await client.query('SELECT txid_current()');
    const running = flushing(['--grace', '1m']);
    await waitFor('the wait for the client', 30_000, () => running.said().includes('in a transaction'));
    await client.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walvault'`,
    );
    const { status, stderr } = await running.ended;
    expect(status).toBe(75);
    expect(stderr).toContain('the server runs and takes connections');
    await client.query('COMMIT');
    await client.end();
    await waitFor('a connection', 5000, () => db1.value('SELECT 1').then(() => true));
    await goesOn();
  });

  test('a fast stop that does not end: said, nothing forced, and done again it goes on', async () => {
    const [agent] = site.agentPids('db1');
    const client = await db1.connect();
    await client.query('BEGIN');
    await client.query('SELECT txid_current()');
    const running = flushing(['--grace', '1m', '--wait', '5s']);
    await waitFor('the wait for the client', 30_000, () => running.said().includes('in a transaction'));
    process.kill(agent!, 'SIGSTOP'); // the hook of the last segment waits for it
    let end: Awaited<Flushing['ended']>;
    try {
      await client.end(); // and the flush goes on
      end = await running.ended;
    } finally {
      process.kill(agent!, 'SIGCONT');
    }
    const { status, stderr } = end;
    expect(status).toBe(75);
    expect(stderr).toContain('did not stop within 5 s (fast)');
    expect(stderr).toContain('The server is still stopping, which cannot be taken back; nothing is flushed');
    await db1.ended(60_000);
    expect(existsSync(path.join(db1.pgdata, 'standby.signal'))).toBe(false);
    await site.ok(...words('--yes'));
    await undoAndStart();
    await goesOn();
  });

  describe.each(points)('killed at %s', (point) => {
    test('done again it goes on', async () => {
      const { signal } = await flushing([], { WALVAULT_CRASH_AT: point }).ended;
      expect(signal).toBe('SIGKILL');
      await site.ok(...words('--yes'));
      expect(existsSync(path.join(db1.pgdata, 'standby.signal'))).toBe(true);
      await undoAndStart();
      await goesOn();
    });

    test('the server lets people in, or can be started as the primary after an undo', async () => {
      const original = readFileSync(path.join(db1.pgdata, 'pg_hba.conf'), 'utf8');
      const { signal } = await flushing([], { WALVAULT_CRASH_AT: point }).ended;
      expect(signal).toBe('SIGKILL');
      if (db1.pid() === undefined) await undoAndStart();
      // nobody does anything: the agent sees that the flush is gone
      const mark = path.join(site.state('db1'), 'refusing');
      await waitFor('the end of the refusal', 30_000, () => !existsSync(mark));
      await waitFor('a connection', 30_000, () => db1.value('SELECT 1').then(() => true));
      expect(readFileSync(path.join(db1.pgdata, 'pg_hba.conf'), 'utf8')).toBe(original);
      expect(existsSync(path.join(db1.pgdata, 'pg_hba.conf.walvault'))).toBe(false);
      await goesOn();
    });
  });

  test('an undo killed between vault and data directory is done again', async () => {
    await site.ok(...words('--yes'));
    const killed = flushing(['--undo'], { WALVAULT_CRASH_AT: 'flush-undone' });
    expect((await killed.ended).signal).toBe('SIGKILL');
    expect(existsSync(path.join(db1.pgdata, 'standby.signal'))).toBe(true);
    await undoAndStart();
    await goesOn();
  });

  test('after a trigger it cannot be undone: the server must not start as a primary', async () => {
    await site.ok(...words('--yes'));
    await site.ok('trigger', 'smart', '--to', 'db2', '--yes', '--no-wait');
    const refused = await site.walvault(...words('--undo'));
    expect(refused).toMatchObject({ status: 77, stderr: expect.stringContaining('walvault rejoin') });
    expect(existsSync(path.join(db1.pgdata, 'standby.signal'))).toBe(true);
  });
});
