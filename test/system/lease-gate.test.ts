/**
 * A promotion of a node with a lease whose agent and hook are killed at its gate: nothing opens without the vault's word.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { hasLease, killMachine, startGuarded } from '../harness/lease-nodes.ts';
import { onePair } from '../harness/pairs.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(1);

describe(`the gate of a node with a lease, ${pair.title}`, () => {
  let site: TestSite;

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      segmentSizeMiB: 1,
      walvault: {
        WALVAULT_LEASE: '9s',
        WALVAULT_WATCHDOG: 'process',
        WALVAULT_HEARTBEAT_INTERVAL: '1s',
      },
    });
    await site.makePrimary('db1');
    await site.backup();
  });
  afterAll(() => site.close());

  test('agents and hook killed at the gate: the server stays closed, and started again it takes no second timeline', async () => {
    const db2 = await site.addStandby('db2', { start: false });
    db2.env['WALVAULT_CRASH_AT'] = 'open-asked';
    await db2.start();
    await site.caughtUp('db2');
    await hasLease(site, 'db1');
    await site.canBeTarget('db2');
    await site.archiveNow();
    await killMachine(site, 'db1');
    await site.trigger('smart', 'db2', '--primary-down', '--no-wait');
    await waitFor('the server to stop at its gate', 60_000, () => db2.pid() === undefined);
    expect(existsSync(path.join(db2.pgdata, 'standby.signal'))).toBe(true);
    await killMachine(site, 'db2'); // a watchdog would start agents that die at the gate, too
    delete db2.env['WALVAULT_CRASH_AT'];
    expect(await startGuarded(site, 'db2')).toBe(0);
    const log = path.join(site.state('db2'), 'agent.log');
    await waitFor('the word of its agent', 60_000, () =>
      readFileSync(log, 'utf8').includes('not promoted again'),
    );
    expect(await db2.value('SELECT pg_is_in_recovery()')).toBe(true);
    expect(await site.status()).toMatchObject({ timeline: 1, trigger: { to: 'db2' } });
  });
});
