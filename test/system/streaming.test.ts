/**
 * A standby that also streams is ahead of the vault. The primary dies with segments that it never archived; PostgreSQL marks them done
 * on the standby, so nobody would ever archive them: the open takes them along, and the others follow without a hole.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(1);

describe(`streaming beside the vault on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer;
  let rows = 0;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1 });
    db1 = await site.makePrimary('db1');
    await site.backup();
    const conninfo = `host=${site.scratch}/s port=${db1.port} user=postgres`;
    db2 = await site.addStandby('db2', { settings: { primary_conninfo: conninfo } });
    await site.addStandby('db3');
    await db1.query('CREATE TABLE kept (x int)');
    await site.caughtUp('db2');
    await site.caughtUp('db3');
    await waitFor(
      'a stream',
      60_000,
      async () => (await db1.number('SELECT count(*) FROM pg_stat_replication')) === 1,
    );
  });
  afterAll(() => site.close());

  test('what was streamed and never archived is there after a smart trigger, and a third node follows to it', async () => {
    await db1.allArchived(); // a hook that loses its agent, or finds none, would start another, which pushes ahead
    await db1.query(`ALTER SYSTEM SET archive_command = 'false'`);
    await db1.query('SELECT pg_reload_conf()');
    await killHard(site.agentPids('db1'));
    const { lastSegment } = await site.status();
    for (let round = 0; round < 4; round++) {
      await db1.query('INSERT INTO kept SELECT generate_series(1, 100)');
      rows += 100;
      await db1.query('SELECT pg_switch_wal()');
    }
    await db1.query('INSERT INTO kept VALUES (0)');
    rows++;
    await site.replayed('db2', String(await db1.value('SELECT pg_current_wal_lsn()')));
    expect((await site.status()).lastSegment).toBe(lastSegment);
    await db1.kill9();

    await site.trigger('smart', 'db2');
    await site.promoted('db2', 60_000);
    expect(await db2.number('SELECT count(*) FROM kept')).toBe(rows);
    await waitFor(
      'the promotion is open in the vault',
      60_000,
      async () => (await site.status()).trigger === null,
    );
    await db2.query('INSERT INTO kept VALUES (1)');
    await site.caughtUp('db3', 'db2');
    expect(await site.server('db3').number('SELECT count(*) FROM kept')).toBe(rows + 1);
    expect((await site.status()).nodes.find(({ name }) => name === 'db3')?.trouble).toBeNull();
  });
});
