/**
 * The worst of a partition: the primary reaches the DR vault but not its own, and the operator, who reaches only that one, fails over
 * there and gives up what may lie in the DR vault. Nothing that the old primary put there ever reaches a standby of it.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { DrSite } from '../harness/dr-site.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';

describe.each(pairs)('a primary cut off from its own vault only, on $title', (pair) => {
  let site: DrSite;
  let db1: TestServer, db2: TestServer, dr1: TestServer;

  beforeAll(async () => {
    site = await DrSite.open({
      pair,
      segmentSizeMiB: 1,
      settings: { archive_timeout: '1h' }, // each segment that is ended is one of the test's
      nodes: ['db1', 'db2', 'dr1'],
      walvault: {
        WALVAULT_DR_AFTER: '2s',
        WALVAULT_VAULT_TIMEOUT: '2s',
        WALVAULT_ARCHIVE_TIMEOUT: '5s',
        WALVAULT_HEARTBEAT_INTERVAL: '1s',
      },
    });
    db1 = await site.makePrimary('db1');
    await site.backup();
    await site.relayOnce();
    db2 = await site.addStandby('db2');
    dr1 = await site.addDrStandby('dr1');
    await site.ok(
      'configure',
      'primary',
      '--pgdata',
      db1.pgdata,
      '--node',
      'db1',
      '--dr-vault',
      site.url('B', 'db1'),
    );
    await site.caughtUp('db2');
    await site.relayOnce();
  });
  afterAll(() => site.close());

  const spilled = async () =>
    (await site.view('B').rows('spill#')).map(({ sk }) => sk.slice('spill#'.length));
  /** db1 archives what it writes, into whatever it reaches. @returns the segment */
  const archiveAtDb1 = async (table: string) => {
    await db1.query(`CREATE TABLE ${table} AS SELECT generate_series(1, 100) AS x`);
    const name = String(await db1.value('SELECT pg_walfile_name(pg_current_wal_insert_lsn())'));
    await db1.query('SELECT pg_switch_wal()');
    await waitFor(`${name} is archived`, 60_000, async () =>
      Boolean(await db1.value('SELECT last_archived_wal >= $1 FROM pg_stat_archiver', [name])),
    );
    return name;
  };
  const tableOn = (server: TestServer, table: string) => server.value(`SELECT to_regclass('${table}')::text`);

  test('a failover is refused while the armed vault may hold what the primary archived, unless that is given up by word', async () => {
    site.cut('A', 'db1');
    const before = await archiveAtDb1('spilled_before');
    expect(await spilled()).toContain(before);
    // the armed URL of a file: vault is that of db1's way
    for (const party of ['person', 'db1']) site.cut('B', party);
    const words = ['trigger', 'smart', '--to', 'db2', '--yes'];
    const refused = await site.walvault(...words);
    expect(refused.status).toBe(3);
    expect(refused.stderr).toMatch(/--lose-direct/);
    expect(await site.statusOf('A')).toMatchObject({ epoch: 1, primary: 'db1' });
    await site.ok(...words, '--lose-direct');
    await site.promoted('db2', 60_000);
    expect(await site.view('A').events('lose-direct')).toHaveLength(1);
    site.mend('B', 'db1');
  });

  test('the old primary goes on spilling, and what follows B sees nothing of it', async () => {
    const after = await archiveAtDb1('spilled_after');
    expect((await spilled()).length).toBeGreaterThan(1);
    expect(await spilled()).toContain(after);
    expect(await site.view('B').heart()).toMatchObject({ control: { epoch: 1, role: 'replica' } });
    expect(await tableOn(dr1, 'spilled_before')).toBeNull();
  });

  test('the relay brings the new epoch: the spills are salvage, listed, and the old primary is refused there too', async () => {
    const names = await spilled();
    await db2.query('CREATE TABLE of_db2 AS SELECT generate_series(1, 100) AS x');
    await site.archiveNow('db2');
    const relay = site.startRelay();
    await site.relayed();
    await waitFor('no spills', 60_000, async () => (await spilled()).length === 0);
    site.mend('B', 'person');
    const listed = JSON.parse(await site.ok('salvage', '--list', '--json', '--vault', site.url('B'))) as {
      aside: { file: string; node: string; epoch: number }[];
    };
    expect(listed.aside.map(({ file, node, epoch }) => ({ file, node, epoch }))).toEqual(
      names.map((file) => ({ file, node: 'db1', epoch: 1 })),
    );
    const failures = await db1.number('SELECT failed_count FROM pg_stat_archiver');
    await db1.query('CREATE TABLE refused (x int)');
    await db1.query('SELECT pg_switch_wal()');
    await waitFor('a refusal', 90_000, async () => {
      return (await db1.number('SELECT failed_count FROM pg_stat_archiver')) > failures;
    });
    expect(await spilled()).toEqual([]);
    await site.caughtUp('dr1', 'db2');
    for (const table of ['spilled_before', 'spilled_after', 'refused'])
      expect(await tableOn(dr1, table)).toBeNull();
    expect(await dr1.number('SELECT count(*) FROM of_db2')).toBe(100);
    expect(await relay.stop()).toBe(0);
  });

  test('back at its own vault the old primary is fenced', async () => {
    site.mend('A', 'db1');
    await waitFor('fenced', 60_000, async () => {
      const { nodes } = await site.statusOf('A');
      return nodes.find(({ name }) => name === 'db1')?.role === 'fenced';
    });
    expect((await site.walvaultAt('db1', 'guard', '--pgdata', db1.pgdata)).status).not.toBe(0);
  });
});
