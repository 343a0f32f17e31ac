/**
 * The agent on a primary: it pushes ahead of archive_command, and kill -9 of it loses nothing and claims nothing.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';

const pair = onePair(0);

describe(`pushing ahead on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1 });
    db1 = await site.makePrimary('db1');
    await db1.query('CREATE TABLE filling (x int)');
    await site.archiveNow('db1');
  });
  afterEach(() => void delete db1.env['WALVAULT_CRASH_AT']); // a test that failed leaves no agent that dies to the next one
  afterAll(() => site.close());

  /** What PostgreSQL believes archived is in the vault. */
  async function nothingIsClaimed(): Promise<void> {
    // what is claimed first: a hook that was left alone goes on, and archives meanwhile
    const claimed = db1.archiveStatus('done').filter((name) => /^[0-9A-F]{24}$/.test(name));
    const { wal, histories } = await site.contents();
    expect(claimed.filter((name) => !wal.has(name))).toEqual([]);
    expect(histories).toBeDefined();
  }

  test('64 ready segments are archived with at most two starts of Node', async () => {
    const command = String(await db1.value('SHOW archive_command'));
    await db1.query(`ALTER SYSTEM SET archive_command = ''`);
    await db1.reload();
    await killHard(site.agentPids('db1'));
    for (let segment = 0; segment < 64; segment++) {
      await db1.query('INSERT INTO filling SELECT generate_series(1, 10)');
      await db1.query('SELECT pg_switch_wal()');
    }
    const ready = db1.archiveStatus('ready');
    expect(ready.length).toBeGreaterThanOrEqual(64);
    const starts = site.countNodeStarts('db1');
    const since = performance.now();
    await db1.query(`ALTER SYSTEM SET archive_command = '${command.replaceAll("'", "''")}'`);
    await db1.reload();
    await db1.allArchived();
    const tookMs = performance.now() - since;
    const { wal } = await site.contents();
    expect(ready.filter((name) => !wal.has(name))).toEqual([]);
    const started = readFileSync(starts, 'utf8').trim().split('\n');
    // The hook and its agent. An answer does not wait for longer than five seconds for the markers of the others: one more hook for each.
    expect(started.length).toBeLessThanOrEqual(2 + Math.floor(tookMs / 5000));
  });

  test('kill -9 of agent and hooks at any moment under load: nothing is lost, nothing is claimed that is not there', async () => {
    const writer = await SteadyWriter.start(db1, { pauseMs: 0 });
    for (let round = 0; round < 12; round++) {
      await db1.query('SELECT pg_switch_wal()');
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 200));
      await killHard(site.agentPids('db1'));
      await nothingIsClaimed();
    }
    await writer.stop();
    await site.archiveNow('db1');
    await nothingIsClaimed();
    expect((await site.status()).gaps).toEqual([]);
    await site.backup();
    const db2 = await site.addStandby('db2');
    await site.caughtUp('db2');
    expect(await missingRows(db2, writer.acknowledged.at(-1)!.id)).toBe(0);
  });

  test.each(['push-stored', 'push-committed', 'push-marked'])(
    'killed at %s each time it comes there: nothing is claimed, and the next start goes on',
    async (point) => {
      await db1.stop('fast');
      await waitFor('the end of the agent', 30_000, () => site.agentPids('db1').length === 0);
      db1.env['WALVAULT_CRASH_AT'] = point;
      const before = site.agentsBegun('db1');
      await db1.start();
      for (let segment = 0; segment < 3; segment++) {
        await db1.query('INSERT INTO filling SELECT generate_series(1, 10)');
        await db1.query('SELECT pg_switch_wal()');
      }
      // one that does not come to the point lives on
      await waitFor('an agent started and died', 30_000, () => {
        const begun = site.agentsBegun('db1') - before;
        return begun > 1 || (begun === 1 && site.agentPids('db1').length === 0);
      });
      await nothingIsClaimed();
      delete db1.env['WALVAULT_CRASH_AT'];
      await db1.kill9();
      await waitFor('the end of the agent', 30_000, () => site.agentPids('db1').length === 0);
      await db1.start();
      await db1.query('INSERT INTO filling VALUES (1)');
      await site.archiveNow('db1');
      await db1.allArchived();
      await nothingIsClaimed();
    },
  );

  test('killed at alone-committed, without an agent: the same', async () => {
    const state = site.state('db1');
    expect(readFileSync(path.join(state, 'settings.toml'), 'utf8')).not.toContain('agent = "off"');
    await site.ok('configure', 'primary', '--pgdata', db1.pgdata, '--node', 'db1', '--agent', 'off');
    await db1.stop('fast');
    await waitFor('the end of the agent', 30_000, () => site.agentPids('db1').length === 0);
    db1.env['WALVAULT_CRASH_AT'] = 'alone-committed';
    await db1.start();
    const failures = await db1.number('SELECT failed_count FROM pg_stat_archiver');
    await db1.query('INSERT INTO filling VALUES (2)');
    await db1.query('SELECT pg_switch_wal()');
    await waitFor(
      'a counted failure',
      30_000,
      async () => (await db1.number('SELECT failed_count FROM pg_stat_archiver')) > failures,
    );
    await nothingIsClaimed();
    delete db1.env['WALVAULT_CRASH_AT'];
    await db1.stop('fast');
    await db1.start();
    await db1.query('INSERT INTO filling VALUES (3)');
    await site.archiveNow('db1');
    expect(site.agentPids('db1')).toEqual([]);
    await nothingIsClaimed();
  });
});
