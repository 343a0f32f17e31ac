/**
 * The main job: archive, follow, trigger. In every (PostgreSQL, vault) pair of the run.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { segmentEnd } from '../../core/wal/name.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';

const MiB = 1 << 20;

describe.each(pairs)('main job on $title', (pair) => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer, db3: TestServer, db4: TestServer;
  let writer: SteadyWriter;

  beforeAll(async () => {
    // whoever waits for a vault that need not be asked opens long after the test has given up
    site = await TestSite.open({ pair, walvault: { WALVAULT_RESTORE_TIMEOUT: '10m' } });
    db1 = await site.makePrimary('db1');
    await site.backup();
    db2 = await site.addStandby('db2');
    db3 = await site.addStandby('db3');
    db4 = await site.addStandby('db4');
    writer = await SteadyWriter.start(db1);
  });
  afterAll(() => site.close());

  test('init and configure leave one primary of epoch 1 that archives', async () => {
    expect(await site.status()).toMatchObject({
      cluster: 'main',
      epoch: 1,
      primary: 'db1',
      archiving: true,
      trigger: null,
      timeline: 1,
      gaps: [],
      backups: [{ state: 'complete' }],
    });
  });

  test('a hot standby follows the vault and answers queries meanwhile', async () => {
    const before = writer.acknowledged.length;
    await waitFor('more rows', 30_000, () => writer.acknowledged.length > before + 20);
    await site.caughtUp('db2');
    expect(await db2.value('SELECT pg_is_in_recovery()')).toBe(true);
    expect(await db2.number('SELECT max(id) FROM steady')).toBeGreaterThan(before);
    const { nodes } = await site.status();
    expect(nodes.map(({ name }) => name).sort()).toEqual(['db1', 'db2', 'db3', 'db4']);
    await waitFor('no lag in the status', 30_000, async () => {
      const node = (await site.status()).nodes.find(({ name }) => name === 'db2');
      return node?.lagSegments === 0 && node.lagSeconds === 0;
    });
  });

  test('pg_promote() by hand opens at once, and the node is told that it is not the primary of the vault', async () => {
    await site.caughtUp('db3');
    const before = await site.status();
    await db3.query('SELECT pg_promote(wait => false)');
    await site.promoted('db3', 10_000);
    await db3.query('CREATE TABLE written_by_db3 (x int)');
    await db3.query('SELECT pg_switch_wal()');
    await waitFor('a refused archive_command', 60_000, async () => {
      return (await db3.number('SELECT failed_count FROM pg_stat_archiver')) > 0;
    });
    expect(db3.log(200)).toMatch(/walvault: \[(fenced|refused)\] .*db1/);
    expect(db3.log(200)).toMatch(/HINT: .*walvault claim/);
    expect(await site.status()).toMatchObject({ epoch: before.epoch, primary: 'db1', timeline: 1 });
    await db3.stop('immediate');
  });

  test('smart trigger: every row of every archived segment is there, and the standby is open soon', async () => {
    await site.caughtUp('db2');
    await db1.kill9();
    await writer.stop();
    const archived = (await site.status()).lastSegment!;
    await site.trigger('smart', 'db2');
    await site.promoted('db2', 20_000);
    const rows = writer.rowsBefore(segmentEnd(archived, 16 * MiB));
    expect(rows).toBeGreaterThan(20);
    expect(await missingRows(db2, rows)).toBe(0);
    await waitFor('the promotion is open in the vault', 20_000, async () => {
      const { trigger, timeline } = await site.status();
      return trigger === null && timeline === 2;
    });
    expect(await site.status()).toMatchObject({ epoch: 2, primary: 'db2', trigger: null, timeline: 2 });
  });

  test('the new primary archives its timeline, and another standby follows to it by itself', async () => {
    await db2.query(`INSERT INTO steady SELECT id, 'second' FROM generate_series(1000000, 1000100) AS id`);
    await site.caughtUp('db4', 'db2');
    expect(await db4.number('SELECT count(*) FROM steady WHERE id >= 1000000')).toBe(101);
  });

  test('fast trigger opens without applying the rest', async () => {
    await db4.query('SELECT pg_wal_replay_pause()');
    await db2.query('CREATE TABLE never_applied (x int)');
    await site.archiveNow('db2');
    await site.archiveNow('db2');
    await site.trigger('fast', 'db4');
    await site.promoted('db4', 20_000);
    expect(await db4.value(`SELECT to_regclass('never_applied')`)).toBeNull();
    await waitFor(
      'the promotion is open in the vault',
      20_000,
      async () => (await site.status()).trigger === null,
    );
    const { epoch, primary, timeline } = await site.status();
    expect({ epoch, primary }).toEqual({ epoch: 3, primary: 'db4' });
    expect(timeline).toBeGreaterThan(2);
    await db4.query('CREATE TABLE of_the_third_epoch (x int)');
    await site.archiveNow('db4');
  });
});
