/**
 * A standby stopped, or killed, at any moment and started again: it never promotes, and goes on where it was.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { missingRows, SteadySwitcher, SteadyWriter } from '../harness/writer.ts';

const pair = onePair(0);

describe(`stop and start of a standby on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer;
  let writer: SteadyWriter;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1 });
    db1 = await site.makePrimary('db1');
    await site.backup();
    db2 = await site.addStandby('db2');
    writer = await SteadyWriter.start(db1);
  });
  afterAll(async () => {
    await writer.stop();
    await site.close();
  });

  test.each(['fast', 'fast', 'fast', 'immediate', 'kill -9', 'fast'] as const)(
    'after a stop (%s) it is a standby that goes on',
    async (how) => {
      const switcher = SteadySwitcher.start(db1);
      const moment = Math.round(Math.random() * 1500);
      await new Promise((resolve) => setTimeout(resolve, moment));
      const begun = performance.now();
      if (how === 'kill -9') await db2.kill9();
      else await db2.stop(how);
      expect(performance.now() - begun).toBeLessThan(60_000);
      expect(existsSync(path.join(db2.pgdata, 'standby.signal'))).toBe(true);
      await db2.start();
      expect(await db2.value('SELECT pg_is_in_recovery()')).toBe(true);
      const written = writer.acknowledged.at(-1)!.id;
      await switcher.stop();
      await site.caughtUp('db2');
      expect(await missingRows(db2, written)).toBe(0);
      expect(existsSync(path.join(db2.pgdata, 'pg_wal/00000002.history'))).toBe(false);
    },
  );

  test('with an agent that dies each time it has fetched a segment it still follows, and serves no half of one', async () => {
    // it starts where it stopped: each segment from before would cost one more agent until it answers
    await db1.query('CHECKPOINT');
    await site.caughtUp('db2');
    await db2.query('CHECKPOINT');
    await db2.stop('fast');
    await waitFor('the end of the agent', 30_000, () => site.agentPids('db2').length === 0);
    const switcher = SteadySwitcher.start(db1);
    db2.env['WALVAULT_CRASH_AT'] = 'follow-fetched';
    await db2.start();
    const log = path.join(site.state('db2'), 'agent.log');
    const begun = () => readFileSync(log, 'utf8').match(/ agent \d+ of db2 /g)?.length ?? 0;
    const before = begun();
    await waitFor('the death of three agents', 60_000, () => begun() > before + 3);
    await switcher.stop();
    const written = writer.acknowledged.at(-1)!.id;
    delete db2.env['WALVAULT_CRASH_AT'];
    await db2.stop('fast');
    await db2.start();
    await site.caughtUp('db2');
    expect(await missingRows(db2, written)).toBe(0);
  });

  test('a stop of the primary ends its agent, and a start of it brings archiving back', async () => {
    await writer.stop();
    await db1.stop('fast');
    await waitFor('the end of the agent', 30_000, () => site.agentPids('db1').length === 0);
    await db1.start();
    await db1.query('CREATE TABLE after_the_start (x int)');
    await site.caughtUp('db2');
    expect(await db2.value(`SELECT to_regclass('after_the_start')`)).not.toBeNull();
  });

  test('a stop of the standby ends its agent', async () => {
    await db2.stop('fast');
    await waitFor('the end of the agent', 30_000, () => site.agentPids('db2').length === 0);
  });
});
