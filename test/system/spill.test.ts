/**
 * A primary whose vault is out of reach archives into the armed replica: nothing of it is served before the vault has taken it home, and
 * whatever happens in between, nothing that was archived is lost.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { DrSite } from '../harness/dr-site.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { missingRows, SteadyWriter, tableSum } from '../harness/writer.ts';

describe.each(pairs)('spilling on $title', (pair) => {
  let site: DrSite;
  let db1: TestServer, db2: TestServer, dr1: TestServer;
  let writer: SteadyWriter;

  beforeAll(async () => {
    site = await DrSite.open({
      pair,
      segmentSizeMiB: 1,
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
    writer = await SteadyWriter.start(db1, { pauseMs: 10 });
  });
  afterEach(() => void delete db1.env['WALVAULT_CRASH_AT']); // a test that failed leaves no agent that dies to the next one
  afterAll(() => site.close());

  const spilled = async () =>
    (await site.view('B').rows('spill#')).map(({ sk }) => sk.slice('spill#'.length));
  const walOf = async (vault: 'A' | 'B') =>
    [...(await site.view(vault).contents()).wal.keys()].filter((name) => name.length === 24);
  const configure = (...args: string[]) =>
    site.ok('configure', 'primary', '--pgdata', db1.pgdata, '--node', 'db1', ...args);
  const switchSegment = async () => {
    await db1.query('SELECT pg_switch_wal()');
  };
  /** Ends `count` segments with a mark in each, each when PostgreSQL was told that the one before is archived. @returns ms */
  const archiveMore = async (count: number): Promise<number> => {
    const since = performance.now();
    for (let each = 0; each < count; each++) {
      await db1.query(`INSERT INTO steady_marks SELECT clock_timestamp()`);
      const point = `SELECT pg_walfile_name(lsn) FROM (SELECT pg_create_restore_point('mark') AS lsn) AS point`;
      const name = String(await db1.value(point));
      await switchSegment();
      await waitFor(`${name} is archived`, 60_000, async () =>
        Boolean(await db1.value('SELECT last_archived_wal >= $1 FROM pg_stat_archiver', [name])),
      );
    }
    return performance.now() - since;
  };
  const backAt = async (relayIt = true) => {
    await waitFor('the spills at home', 60_000, async () => {
      const held = new Set(await walOf('A'));
      return (await spilled()).every((name) => held.has(name) || name.length !== 24);
    });
    if (relayIt) await site.relayOnce();
  };
  const expectNoHole = (names: string[]) => {
    const numbers = names.map((name) => Number.parseInt(name.slice(8, 16) + name.slice(22), 16));
    numbers.forEach((number, index) => expect(number).toBe(numbers[0]! + index));
  };

  test('is armed by configure, and a relay takes it along', async () => {
    await db1.query('CREATE TABLE steady_marks (at timestamptz)');
    const before = await site.statusOf('A');
    expect(before.direct).toBeNull();
    await configure('--dr-vault', site.url('B', 'db1'));
    expect((await site.statusOf('A')).direct).toMatchObject({ url: site.url('B', 'db1') });
    await configure(); // again: it stays
    await site.relayOnce();
    expect((await site.view('B').heart()).control.direct).not.toBeNull();
    await site.caughtUp('db2');
    await site.relayOnce();
  });

  test('with the vault away for longer than dr_after archiving goes on, and no standby sees anything of it', async () => {
    const told = (await site.view('B').events('spill')).length;
    const seen = await dr1.value('SELECT pg_last_wal_replay_lsn()');
    site.cut('A');
    await archiveMore(1);
    const atHome = (await walOf('A')).length; // a commit may have been on its way there when it was cut off
    expect(await archiveMore(4)).toBeLessThan(4 * 50_000); // not 50 s for each
    const names = await spilled();
    expect(names.length).toBeGreaterThanOrEqual(5);
    const status = await site.statusOf('B', 'person');
    expect(status.spills).toMatchObject({ node: 'db1', epoch: 1 });
    expect(status.vault.role).toBe('replica');
    expect((await walOf('A')).length).toBe(atHome);
    const { head } = await site.view('B').heart();
    expect(await dr1.value('SELECT pg_last_wal_replay_lsn() <= $1::pg_lsn', [head.lsn])).toBe(true);
    expect(await dr1.value('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn', [seen])).toBe(true);
    expect(await site.view('B').events('spill')).toHaveLength(told + 1);
  });

  test('the vault that is back has them in order, and the standbys of both have every row', async () => {
    site.mend('A');
    await backAt();
    const upTo = writer.acknowledged.at(-1)!.id;
    const lsn = String(await db1.value('SELECT pg_current_wal_lsn()'));
    await site.archiveNow();
    await site.relayOnce();
    expectNoHole(await walOf('A'));
    expect(await walOf('B')).toEqual((await walOf('A')).slice(0, (await walOf('B')).length));
    expect((await site.view('B').heart()).head.spill).toBeNull();
    expect(await spilled()).toEqual([]);
    await site.replayed('db2', lsn);
    await site.replayed('dr1', lsn);
    const sum = await tableSum(db1, upTo);
    expect(await tableSum(db2, upTo)).toEqual(sum);
    expect(await tableSum(dr1, upTo)).toEqual(sum);
    expect(await site.view('A').events('home')).not.toEqual([]);
  });

  test('an agent that is killed while it spills, and again on the way home, loses nothing', async () => {
    await site.relayOnce();
    site.cut('A', 'db1'); // the others reach it: a relay may meet spills
    await archiveMore(2);
    await killHard(site.agentPids('db1'));
    await archiveMore(2);
    site.mend('A', 'db1');
    await killHard(site.agentPids('db1'));
    await switchSegment();
    await backAt();
    await site.caughtUp('db2');
    expectNoHole(await walOf('A'));
    const upTo = writer.acknowledged.at(-1)!.id;
    await site.caughtUp('db2');
    expect(await missingRows(db2, upTo)).toBe(0);
  });

  /** From now on each agent of db1 dies at this point. @returns how many have begun before */
  const restartAt = async (point: string | undefined): Promise<number> => {
    await db1.stop(point === undefined ? 'immediate' : 'fast');
    await waitFor('the end of the agent', 30_000, () => site.agentPids('db1').length === 0);
    if (point === undefined) delete db1.env['WALVAULT_CRASH_AT'];
    else db1.env['WALVAULT_CRASH_AT'] = point;
    const begun = site.agentsBegun('db1');
    await db1.start();
    return begun;
  };

  test.each([
    { point: 'spill-stored', when: 'it spills' },
    { point: 'spill-committed', when: 'it spills' },
    { point: 'spill-copied-home', when: 'spills come home' },
    { point: 'spill-home', when: 'spills come home' },
  ])(
    'killed at $point, each time that $when: nothing is claimed that is not, and the next agent goes on',
    async ({ point, when }) => {
      await site.relayOnce(); // what B lacked and pg_wal no longer had would be a hole
      site.cut('A', 'db1');
      if (when === 'spills come home') await archiveMore(2);
      const begun = await restartAt(point);
      if (when === 'spills come home') site.mend('A', 'db1');
      await db1.query('INSERT INTO steady_marks SELECT clock_timestamp()');
      await switchSegment();
      // no failure needs to be counted: what came home before its agent died the hook finds there
      await waitFor('an agent that died', 60_000, () => {
        return site.agentsBegun('db1') - begun > site.agentPids('db1').length;
      });
      expectNoHole(await walOf('A'));
      await restartAt(undefined);
      if (when === 'it spills') {
        await archiveMore(1);
        expect(await spilled()).not.toEqual([]);
      }
      site.mend('A', 'db1');
      await switchSegment();
      await backAt();
      await site.caughtUp('db2');
      expectNoHole(await walOf('A'));
      const count = 'SELECT count(*) FROM steady_marks';
      expect(await db2.number(count)).toBe(await db1.number(count));
    },
  );

  test('a trigger while the primary is cut off fences both vaults, and the new primary has all that was spilled', async () => {
    await site.relayOnce();
    site.cut('A', 'db1');
    await archiveMore(3);
    const last = (await spilled()).filter((name) => name.length === 24).at(-1)!;
    const words = ['trigger', 'smart', '--to', 'db2', '--yes'];
    const broken = site.startAt('person', words, { WALVAULT_CRASH_AT: 'direct-fenced' });
    expect(await broken.end()).toBe('SIGKILL');
    expect((await site.view('A').heart()).control).toMatchObject({ primary: 'db1', epoch: 1 });
    await site.trigger('smart', 'db2');
    await site.promoted('db2', 60_000);
    expect(await walOf('A')).toContain(last);
    expect((await site.view('B').heart()).control).toMatchObject({
      role: 'replica',
      primary: 'db2',
      epoch: 2,
    });
    const marks = await db2.number('SELECT count(*) FROM steady_marks');
    expect(marks).toBe(await db1.number('SELECT count(*) FROM steady_marks')); // each was archived before the trigger
    // db1 still reaches B, and nothing more goes there
    const held = await spilled();
    const failures = await db1.number('SELECT failed_count FROM pg_stat_archiver');
    await db1.query('INSERT INTO steady_marks SELECT clock_timestamp()');
    await switchSegment();
    await waitFor('a refusal', 90_000, async () => {
      return (await db1.number('SELECT failed_count FROM pg_stat_archiver')) > failures;
    });
    expect((await spilled()).every((name) => held.includes(name))).toBe(true);
    await writer.stop();
  });
});
