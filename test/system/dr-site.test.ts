/**
 * Two vaults, their relay, and ways between nodes and vaults that fail one by one.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { DrSite } from '../harness/dr-site.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { SteadyWriter, tableSum } from '../harness/writer.ts';

describe.each(pairs)('two vaults on $title', (pair) => {
  let site: DrSite;
  let db1: TestServer, db2: TestServer, dr1: TestServer;
  let writer: SteadyWriter;

  beforeAll(async () => {
    site = await DrSite.open({ pair, walvault: { WALVAULT_ARCHIVE_TIMEOUT: '5s' } });
    db1 = await site.makePrimary('db1');
    await site.backup();
    writer = await SteadyWriter.start(db1);
  });
  afterAll(() => site.close());

  test('one pass of the relay brings WAL and base backup; a standby is made of the second vault alone', async () => {
    const name = await site.archiveNow();
    const { status, stderr } = await site.relayOnce();
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
    expect([...(await site.view('B').contents()).wal.keys()]).toContain(name);
    site.cut('A', 'dr1');
    dr1 = await site.addDrStandby('dr1');
    expect(await dr1.value('SELECT pg_is_in_recovery()')).toBe(true);
    db2 = await site.addStandby('db2');
  });

  test('a relay that stays carries each segment on, and both standbys have the rows of the primary', async () => {
    const relay = site.startRelay();
    await waitFor('more rows', 30_000, () => writer.acknowledged.length > 100);
    await site.caughtUp('db2');
    await site.caughtUp('dr1');
    const upTo = writer.acknowledged.at(-1)!.id;
    await site.caughtUp('db2');
    await site.caughtUp('dr1');
    const sum = await tableSum(db1, upTo);
    expect(sum.rows).toBeGreaterThan(100);
    expect(await tableSum(db2, upTo)).toEqual(sum);
    expect(await tableSum(dr1, upTo)).toEqual(sum);
    expect(relay.ended).toBeUndefined();
    expect(relay.said.length).toBeGreaterThan(0);
    expect(await relay.stop()).toBe(0);
  });

  test('a primary that alone does not reach its vault keeps its WAL, and brings it when the way is back', async () => {
    site.cut('A', 'db1');
    const { lastSegment } = await site.statusOf('A');
    expect((await site.walvaultAt('db1', 'status')).status).not.toBe(0);
    expect((await site.walvaultAt('db2', 'status')).status).toBe(0);
    expect((await site.walvault('status', '--node', 'dr1', '--vault', site.url('B', 'dr1'))).status).toBe(0);
    await db1.query('CREATE TABLE written_while_away (x int)');
    await db1.query('SELECT pg_switch_wal()');
    await waitFor('an archive_command that fails', 60_000, async () => {
      return (await db1.number('SELECT count(*) FROM pg_stat_archiver WHERE failed_count > 0')) > 0;
    });
    expect((await site.statusOf('A')).lastSegment).toBe(lastSegment);
    site.mend('A', 'db1');
    await site.caughtUp('db2');
    expect(await db2.value(`SELECT to_regclass('written_while_away')::text`)).toBe('written_while_away');
  });

  test('a relay killed by kill -9 is started again, and goes on where it was', async () => {
    const killed = site.startRelay();
    await waitFor('its first word', 30_000, () => killed.stdout !== '' || killed.stderr !== '');
    await killed.kill();
    expect(killed.ended).toBe('SIGKILL');
    await site.archiveNow();
    const next = site.startRelay();
    await site.relayed();
    expect(next.ended).toBeUndefined();
    await next.stop();
    await writer.stop();
  });
});
