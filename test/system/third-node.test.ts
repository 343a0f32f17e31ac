/**
 * A timeline switch while a third node follows: it follows to the new timeline by itself, never past the fork.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(1);

describe(`a third node on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer, behind: TestServer, ahead: TestServer;

  beforeAll(async () => {
    site = await TestSite.open({ pair });
    db1 = await site.makePrimary('db1');
    await site.backup();
    db2 = await site.addStandby('db2');
    behind = await site.addStandby('behind');
    ahead = await site.addStandby('ahead');
    await db1.query('CREATE TABLE before_the_fork (x int)');
    for (const node of ['db2', 'behind', 'ahead']) await site.caughtUp(node);
    await behind.stop('fast');
    // db2 stays where it is, and the old primary archives more: later segments of the old timeline lie in the vault
    await db2.query('SELECT pg_wal_replay_pause()');
    // it may be asking for the next segment just now: what it is given a fast trigger replays
    await waitFor('replay stands still', 20_000, async () => {
      return (await db2.value('SELECT pg_get_wal_replay_pause_state()')) === 'paused';
    });
    await db1.query('CREATE TABLE past_the_fork (x int)');
    for (let segment = 0; segment < 3; segment++) {
      await db1.query('INSERT INTO past_the_fork SELECT generate_series(1, 100)');
      await site.archiveNow('db1');
    }
    await waitFor(
      'ahead has replayed it',
      60_000,
      async () => (await ahead.value(`SELECT to_regclass('past_the_fork')`)) !== null,
    );
    await site.trigger('fast', 'db2');
    await site.promoted('db2', 20_000);
    await waitFor(
      'the promotion is open in the vault',
      20_000,
      async () => (await site.status()).trigger === null,
    );
    await db2.query('CREATE TABLE after_the_fork (x int)');
    await db2.query('INSERT INTO after_the_fork VALUES (1)');
  });
  afterAll(() => site.close());

  test('a node that was behind follows to the new timeline, and replays nothing of the old one past the fork', async () => {
    expect(await db2.value(`SELECT to_regclass('past_the_fork')`)).toBeNull();
    await behind.start();
    await site.caughtUp('behind', 'db2');
    expect(await behind.number('SELECT count(*) FROM after_the_fork')).toBe(1);
    expect(await behind.value(`SELECT to_regclass('past_the_fork')`)).toBeNull();
    expect(
      await behind.number(
        'SELECT received_tli FROM (SELECT timeline_id AS received_tli FROM pg_control_checkpoint()) AS c',
      ),
    ).toBeLessThanOrEqual(2);
  });

  test('a node that had replayed past the fork stays up, and is reported as diverged', async () => {
    await waitFor('the trouble of ahead is told', 60_000, async () => {
      return (await site.status()).nodes.find(({ name }) => name === 'ahead')?.trouble?.includes('diverged');
    });
    expect(await ahead.value('SELECT pg_is_in_recovery()')).toBe(true);
    expect(await ahead.value(`SELECT to_regclass('after_the_fork')`)).toBeNull();
  });

  test('a node that diverged is no target of a smart trigger', async () => {
    const answer = await site.walvault('trigger', 'smart', '--to', 'ahead', '--yes');
    expect(answer.status).not.toBe(0);
    expect(answer.stderr).toMatch(/walvault: \[refused\] .*ahead/);
    expect(await site.status()).toMatchObject({ epoch: 2, primary: 'db2', trigger: null });
  });

  test('a node that follows all the while comes to the third timeline, too', async () => {
    await site.trigger('smart', 'behind');
    await site.promoted('behind', 20_000);
    await waitFor(
      'the promotion is open in the vault',
      20_000,
      async () => (await site.status()).trigger === null,
    );
    const late = await site.addStandby('late');
    await behind.query('CREATE TABLE of_the_third (x int)');
    await site.caughtUp('late', 'behind');
    expect(await late.value(`SELECT to_regclass('of_the_third')`)).not.toBeNull();
    expect(await late.number('SELECT count(*) FROM after_the_fork')).toBe(1);
  });
});
