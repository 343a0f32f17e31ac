/**
 * The old primary after a failover: it can write nothing into the vault, and loses nothing of its own.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(0);

describe(`a fenced primary on ${pair.title}`, () => {
  let site: TestSite;

  beforeAll(async () => {
    site = await TestSite.open({ pair });
    const db1 = await site.makePrimary('db1');
    await site.backup();
    await site.addStandby('db2');
    await db1.query('CREATE TABLE kept (x int)');
    await site.caughtUp('db2');
    await site.trigger('smart', 'db2');
    await site.promoted('db2', 20_000);
    await waitFor(
      'the promotion is open in the vault',
      20_000,
      async () => (await site.status()).trigger === null,
    );
  });
  afterAll(() => site.close());

  test('archive_command of the old primary is refused and counted, and the log says what to do', async () => {
    const db1 = site.server('db1');
    const before = await site.contents();
    await db1.query('INSERT INTO kept SELECT generate_series(1, 1000)');
    await db1.query('SELECT pg_switch_wal()');
    await waitFor(
      'a counted failure',
      60_000,
      async () => (await db1.number('SELECT failed_count FROM pg_stat_archiver')) > 0,
    );
    expect(db1.log(500)).toMatch(/walvault: \[fenced\] .*db2/);
    expect(db1.log(500)).toMatch(/HINT: \S/);
    const after = await site.contents();
    expect([...after.wal.keys()].filter((name) => name.startsWith('00000001'))).toEqual(
      [...before.wal.keys()].filter((name) => name.startsWith('00000001')),
    );
    expect(await site.status()).toMatchObject({ epoch: 2, primary: 'db2', timeline: 2 });
  });

  test('its pg_wal keeps the segments that were refused, over checkpoints', async () => {
    const db1 = site.server('db1');
    const refused = String(await db1.value('SELECT last_failed_wal FROM pg_stat_archiver'));
    for (let round = 0; round < 3; round++) {
      await db1.query('SELECT pg_create_restore_point($1)', [`round ${round}`]);
      await db1.query('SELECT pg_switch_wal()');
      await db1.query('CHECKPOINT');
    }
    expect(existsSync(path.join(db1.pgdata, 'pg_wal', refused))).toBe(true);
    expect(existsSync(path.join(db1.pgdata, 'pg_wal/archive_status', `${refused}.ready`))).toBe(true);
  });

  test('the wrapper called by hand answers 1, never more', async () => {
    const db1 = site.server('db1');
    const refused = String(await db1.value('SELECT last_failed_wal FROM pg_stat_archiver'));
    const answer = await site.hook('db1', 'archive', `pg_wal/${refused}`, refused);
    expect(answer.status).toBe(1);
    expect(answer.stderr).toMatch(/\[fenced\]/);
    expect((await site.contents()).wal.has(refused)).toBe(false);
  });

  test('the new primary goes on archiving meanwhile', async () => {
    const db2 = site.server('db2');
    await db2.query('CREATE TABLE of_the_new_primary (x int)');
    expect(await site.archiveNow('db2')).toMatch(/^00000002/);
  });

  test('a fast stop of the old primary ends soon, with nothing claimed archived', async () => {
    const db1 = site.server('db1');
    const begun = performance.now();
    await db1.stop('fast');
    expect(performance.now() - begun).toBeLessThan(180_000);
    const { wal } = await site.contents();
    expect([...wal.values()].filter(({ node, epoch }) => node === 'db1' && epoch > 1)).toEqual([]);
  });
});
