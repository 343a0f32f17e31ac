/**
 * A trigger by a person while the old primary has a lease: the target opens once the old server has said that it is stopped, or once its lease is
 * over, never beside it; and at once where the person says that it is down.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { Clients } from '../harness/clients.ts';
import { hasLease, killMachine, missingOn, startGuarded } from '../harness/lease-nodes.ts';
import { onePair } from '../harness/pairs.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(1);
const LEASE_MS = 9000;
/** Of the first primary: whoever waited for its end would come too late for every wait here. */
const FIRST_LEASE_MS = 600_000;

describe(`a trigger and the lease of the old primary, ${pair.title}`, () => {
  let site: TestSite;
  let clients: Clients;
  const opens = async (node: string) => {
    await waitFor(`clients write to ${node}`, 60_000, () => clients.of(node).length > 0);
    return clients.of(node)[0]!.ackAt;
  };

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      segmentSizeMiB: 1,
      walvault: {
        WALVAULT_LEASE: `${FIRST_LEASE_MS}ms`,
        WALVAULT_WATCHDOG: 'process',
        WALVAULT_HEARTBEAT_INTERVAL: '1s',
      },
    });
    await site.makePrimary('db1');
    await site.backup();
    for (const node of ['db2', 'db3', 'db4'])
      await site.addStandby(node, { args: ['--lease', `${LEASE_MS}ms`] });
    clients = await Clients.start(site.server('db1'), site.servers);
    for (const node of ['db2', 'db3', 'db4']) await site.caughtUp(node);
    await hasLease(site, 'db1');
  });
  afterAll(async () => {
    await clients.stop();
    await site.close();
  });

  test('the old primary is alive: it stops at once, says so, and only then the target opens', async () => {
    await site.archiveNow();
    const begun = performance.now();
    await site.trigger('smart', 'db2');
    const opened = await opens('db2');
    expect(site.server('db1').pid()).toBeUndefined();
    expect(await missingOn(site, 'db2', clients, { old: 'db1', timeline: 2 })).toEqual([]);
    expect(clients.turns()).toEqual(['db1', 'db2']);
    const [row] = await site.rows('node#db1');
    expect(row!['lease']).toMatchObject({ epoch: 1, released: true });
    expect(opened - begun).toBeLessThan(FIRST_LEASE_MS); // it was not waited for to its end
    expect(await startGuarded(site, 'db1')).toBe(77);
  });

  test('the old primary says nothing: its lease is waited for', async () => {
    await hasLease(site, 'db2');
    await site.caughtUp('db3', 'db2');
    await site.canBeTarget('db3');
    await site.archiveNow('db2');
    await killMachine(site, 'db2');
    const begun = performance.now();
    await site.trigger('smart', 'db3', '--no-wait');
    expect((await site.status()).trigger).toMatchObject({ to: 'db3' });
    expect((await opens('db3')) - begun).toBeGreaterThan(LEASE_MS);
    expect(clients.turns()).toEqual(['db1', 'db2', 'db3']);
  });

  test('the person knows that it is down: nothing is waited for', async () => {
    await hasLease(site, 'db3');
    await site.caughtUp('db4', 'db3');
    await site.canBeTarget('db4');
    await site.archiveNow('db3');
    await killMachine(site, 'db3');
    await site.trigger('smart', 'db4', '--primary-down');
    await opens('db4');
    const row = await site.withVault((vault) => vault.manifest.get({ pk: `${site.cluster}`, sk: 'control' }));
    expect(row).toMatchObject({ epoch: 4, primary: 'db4' });
    expect(clients.turns()).toEqual(['db1', 'db2', 'db3', 'db4']);
  });
});
