/**
 * Switchover to a node that follows another vault, and home: nothing that was acknowledged is lost, no base backup, and what was broken
 * off by kill -9 is taken up by the same command.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { DrSite } from '../harness/dr-site.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { SteadyWriter, missingRows } from '../harness/writer.ts';

describe.each(pairs)('two vaults on $title', (pair) => {
  let site: DrSite;
  let db1: TestServer, dr1: TestServer;
  let relay: ReturnType<DrSite['startRelay']>;

  beforeAll(async () => {
    site = await DrSite.open({ pair, walvault: { WALVAULT_HEARTBEAT_INTERVAL: '1s' } });
    db1 = await site.makePrimary('db1');
    await site.backup();
    await site.relayOnce();
    dr1 = await site.addDrStandby('dr1');
    relay = site.startRelay();
    await site.caughtUp('dr1');
  });
  afterAll(() => site.close());

  const words = (node: string, to: string, ...more: string[]) => [
    ...['switchover', '--to', to, '--pgdata', site.server(node).pgdata, '--node', node, '--yes', ...more],
  ];

  /** A standby that follows and says so: the target of a switchover. */
  const follows = (node: string) =>
    waitFor(`${node} follows`, 60_000, async () => {
      const { nodes } = await site.status(node);
      const found = nodes.find(({ name }) => name === node);
      return found?.role === 'standby' && found.lagSegments === 0 && found.trouble === null;
    });

  test('a flush waits until the DR vault has the shutdown checkpoint; with a dead relay nothing is changed, or it is left behind', async () => {
    const flush = (...more: string[]) =>
      site.walvault('flush', '--pgdata', db1.pgdata, '--node', 'db1', '--yes', ...more);
    const undo = async () => {
      await site.ok('flush', '--undo', '--pgdata', db1.pgdata, '--node', 'db1');
      await db1.start();
    };
    const answer = await flush('--json');
    expect(JSON.parse(answer.stdout)).toMatchObject({ relayedTo: [site.url('B', 'relay')] });
    expect((await site.view('B').heart()).head.tail).toMatchObject({
      lsn: (JSON.parse(answer.stdout) as { lsn: string }).lsn,
    });
    await undo();
    await relay.stop();
    const refused = await flush('--wait', '4s');
    expect(refused.status).toBe(3);
    expect(refused.stderr).toMatch(/was not heard of for 4 s [^]*--without-dr/);
    expect(await db1.value('SELECT 1')).toBe(1);
    expect((await flush('--without-dr')).status).toBe(0);
    await undo();
    relay = site.startRelay();
    await site.archiveNow();
    await site.relayed();
  });

  test('there: every acknowledged row is on dr1, whose vault is active', async () => {
    const writer = await SteadyWriter.start(db1);
    await waitFor('some rows', 30_000, () => writer.acknowledged.length > 50);
    await follows('dr1');
    const url = site.url('B', 'db1');
    const broken = site.startAt('db1', words('db1', 'dr1', '--to-vault', url), {
      WALVAULT_CRASH_AT: 'takeover-fenced',
    });
    await waitFor('its end', 90_000, () => broken.ended !== undefined);
    expect(broken.ended).toBe('SIGKILL');
    const answer = await site.walvault(...words('db1', 'dr1', '--to-vault', url));
    expect({ status: answer.status, stderr: answer.status === 0 ? '' : answer.stderr }).toEqual({
      ...{ status: 0, stderr: '' },
    });
    await writer.stop();
    expect(await missingRows(dr1, writer.acknowledged.at(-1)!.id)).toBe(0);
    const [inA, inB] = [await site.statusOf('A'), await site.statusOf('B')];
    expect(inA).toMatchObject({ primary: 'dr1', vault: { role: 'replica' } });
    expect(inB).toMatchObject({ primary: 'dr1', vault: { role: 'active' }, supersedes: null });
    // done already: the same command says so again
    expect(await site.walvault(...words('db1', 'dr1', '--to-vault', url))).toMatchObject({ status: 0 });
  });

  test('the old primary follows as it is, through its own vault: the relay has turned round', async () => {
    await db1.start();
    await site.caughtUp('db1', 'dr1');
    expect(await db1.value('SELECT pg_is_in_recovery()')).toBe(true);
    await follows('db1');
  });

  test('home: the other vault is found by the name of its node, and takes over again', async () => {
    const writer = await SteadyWriter.start(dr1);
    await waitFor('some rows', 30_000, () => writer.acknowledged.length > 50);
    const broken = site.startAt('dr1', words('dr1', 'db1'), { WALVAULT_CRASH_AT: 'takeover-active' });
    await waitFor('its end', 90_000, () => broken.ended !== undefined);
    expect(broken.ended).toBe('SIGKILL');
    const answer = await site.walvault(...words('dr1', 'db1', '--json'));
    expect({ status: answer.status, stderr: answer.stderr }).toEqual({ status: 0, stderr: '' });
    await writer.stop();
    expect(await missingRows(db1, writer.acknowledged.at(-1)!.id)).toBe(0);
    expect(await site.statusOf('A')).toMatchObject({ primary: 'db1', vault: { role: 'active' } });
    await dr1.start();
    await site.caughtUp('dr1', 'db1');
    // what a relay and nodes say of themselves is some moments old
    await waitFor('nothing is found', 30_000, async () => {
      expect(await site.walvault('doctor', '--json')).toMatchObject({ status: 0 });
      return true;
    });
  });
});
