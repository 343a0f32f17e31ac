/**
 * A region is lost with work in flight, and comes back with a primary that went on writing: nothing of the dead branch reaches the live
 * one, nothing of the live one is lost, and the way home is a planned switchover, there and back as often as wanted.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { DrSite } from '../harness/dr-site.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { missingRows, SteadyWriter, tableSum } from '../harness/writer.ts';

type Aside = { file: string; node: string; epoch: number };

describe.each(pairs)('the loss of a region on $title', (pair) => {
  let site: DrSite;
  let db1: TestServer, dr1: TestServer;
  let writer: SteadyWriter;

  beforeAll(async () => {
    site = await DrSite.open({
      pair,
      segmentSizeMiB: 1,
      nodes: ['db1', 'dr1'],
      walvault: { WALVAULT_SWEEP_INTERVAL: '1s', WALVAULT_HEARTBEAT_INTERVAL: '1s' },
    });
    db1 = await site.makePrimary('db1');
    await site.backup();
    await site.relayOnce();
    dr1 = await site.addDrStandby('dr1');
    site.startRelay();
    writer = await SteadyWriter.start(db1);
    await waitFor('rows', 60_000, () => writer.acknowledged.length > 200);
    await site.archiveNow();
    await site.relayed();
  });
  afterAll(() => site.close());

  const asideOf = async (): Promise<Aside[]> =>
    (JSON.parse(await site.ok('salvage', '--list', '--json')) as { aside: Aside[] }).aside;
  const until = (what: string, condition: () => Promise<boolean>) => waitFor(what, 60_000, condition);

  let common: number;

  test('a DR vault does not take the place of one that is silent unless that is said, and then promotes at once', async () => {
    await site.caughtUp('dr1');
    await site.canBeTarget('dr1');
    for (const party of ['person', 'relay', 'dr1']) site.cut('A', party);
    const words = ['trigger', 'smart', '--to', 'dr1', '--yes', '--peer-wait', '1s', '--vault', site.url('B')];
    const refused = await site.walvault(...words);
    expect(refused.status).toBe(3);
    expect(refused.stderr).toMatch(/--unfenced/);
    expect((await site.statusOf('B')).epoch).toBe(1);
    await site.ok(...words, '--unfenced');
    await site.promoted('dr1', 60_000);
    common = await dr1.number('SELECT max(id) FROM steady');
    expect(common).toBeGreaterThan(200);
    expect(await missingRows(dr1, common)).toBe(0);
    expect(await site.statusOf('B')).toMatchObject({ epoch: 2, primary: 'dr1', vault: { role: 'active' } });
  });

  test('both primaries write on, and neither knows: the live one archives into B alone', async () => {
    const before = writer.acknowledged.length;
    await waitFor('rows of the dead branch', 60_000, () => writer.acknowledged.length > before + 500);
    const { lastFile } = (await site.view('A').heart()).head;
    await until(
      'db1 archives into A',
      async () => ((await site.view('A').heart()).head.lastFile ?? '') > (lastFile ?? ''),
    );
    await dr1.query('CREATE TABLE of_dr1 AS SELECT generate_series(1, 1000) AS x');
    await site.archiveNow('dr1');
    expect((await site.view('A').heart()).control).toMatchObject({
      role: 'active',
      primary: 'db1',
      epoch: 1,
    });
  });

  test('A returns: it becomes a replica by itself, its dead branch is set aside and listed, and the relay has turned round', async () => {
    for (const party of ['person', 'relay', 'dr1']) site.mend('A', party);
    await until('A is a replica', async () => (await site.view('A').heart()).control.role === 'replica');
    await writer.stop();
    await site.relayed({ from: 'B', to: 'A' });
    await until(
      'the relay has said so',
      async () => (await site.view('B').heart()).control.supersedes === null,
    );
    const contentOf = async (vault: 'A' | 'B') => {
      const { wal, histories } = await site.view(vault).contents();
      return { wal: [...wal].map(([name, { sha256 }]) => [name, sha256]), histories };
    };
    // dr1 may end one more segment by itself (archive_timeout): in B at once, in A when the relay has brought it
    const { wal } = await waitFor('the same in both', 60_000, async () => {
      const b = await contentOf('B');
      expect(await contentOf('A')).toEqual(b);
      return b;
    });
    const aside = await asideOf();
    expect(aside.length).toBeGreaterThan(0);
    for (const row of aside) expect(row).toMatchObject({ node: 'db1', epoch: 1 });
    expect(wal.filter(([name]) => aside.some(({ file }) => file === name))).toEqual([]);
    const status = await site.statusOf('A');
    expect(status).toMatchObject({ primary: 'dr1', vault: { role: 'replica' } });
    expect(status.supersededBy).not.toBeNull();
  });

  test('the old primary is fenced, its tail is salvaged, and it rejoins what follows B', async () => {
    await db1.query('CREATE TABLE never_seen (x int)');
    const switched = await db1.query('SELECT pg_switch_wal()');
    expect(switched).toHaveLength(1);
    await until(
      'a refused archive',
      async () => (await db1.number('SELECT failed_count FROM pg_stat_archiver')) > 0,
    );
    await db1.stop('fast');
    const guard = await site.walvault('guard', '--pgdata', db1.pgdata);
    expect(guard.status).toBe(77);
    const before = (await asideOf()).length;
    await site.ok('rejoin', '--pgdata', db1.pgdata, '--node', 'db1', '--yes');
    expect((await asideOf()).length).toBeGreaterThan(before);
    await db1.start();
    await site.caughtUp('db1', 'dr1');
    expect(await db1.value(`SELECT to_regclass('never_seen')`)).toBeNull();
    expect(await tableSum(db1)).toEqual(await tableSum(dr1));
    expect(await db1.number('SELECT count(*) FROM of_dr1')).toBe(1000);
  });

  test('there and back three times by planned switchovers, the same rows on both each time, and no base backup', async () => {
    let [from, to] = ['dr1', 'db1'];
    for (let time = 1; time <= 6; time++) {
      const load = await SteadyWriter.start(site.server(from));
      await waitFor('rows', 60_000, () => load.acknowledged.length > 50);
      await site.canBeTarget(to);
      await site.ok(
        'switchover',
        '--to',
        to,
        '--pgdata',
        site.server(from).pgdata,
        '--node',
        from,
        '--to-vault',
        site.url(to === 'db1' ? 'A' : 'B', from),
        '--yes',
      );
      await load.stop();
      await site.promoted(to, 60_000);
      const last = load.acknowledged.at(-1)!.id;
      expect(await missingRows(site.server(to), last)).toBe(0);
      await site.server(from).start();
      await site.caughtUp(from, to);
      expect(await tableSum(site.server(from))).toEqual(await tableSum(site.server(to)));
      expect(await site.server(from).value('SELECT pg_is_in_recovery()')).toBe(true);
      [from, to] = [to, from];
    }
    expect(await site.statusOf('B')).toMatchObject({ primary: 'dr1', vault: { role: 'active' } });
    expect((await site.statusOf('B')).backups).toHaveLength(1);
  });
});
