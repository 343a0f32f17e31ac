/**
 * A witness in the DR region, which watches the primary of the other one: it warns where a person must decide, and takes over only where the
 * active vault answers, its primary is certainly stopped, and no standby there is fit.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { silenceNeeded } from '../../core/cluster/lease.ts';
import { Clients } from '../harness/clients.ts';
import { DrSite } from '../harness/dr-site.ts';
import { hasLease, killMachine, missingOn, startGuarded } from '../harness/lease-nodes.ts';
import { onePair } from '../harness/pairs.ts';
import { waitFor } from '../harness/scratch.ts';
import type { RunningCommand } from '../harness/walvault-command.ts';

const pair = onePair(1);
const LEASE_MS = 9000;
const NEEDED_MS = silenceNeeded(LEASE_MS);

describe(`the witness of the DR region, ${pair.title}`, () => {
  let site: DrSite;
  let clients: Clients;
  let witness: RunningCommand;
  const watch = (...args: string[]) => {
    witness = site.startAt('dr1', [
      ...[
        'witness',
        '--json',
        '--witness-interval',
        '200ms',
        '--cool-down',
        '0',
        '--vault',
        site.url('B', 'dr1'),
      ],
      ...args,
    ]);
  };
  const decides = (expected: Record<string, unknown>, withinMs = 2 * NEEDED_MS) =>
    waitFor(`the witness: ${JSON.stringify(expected)}`, withinMs, () => {
      expect(witness.said.at(-1) ?? {}).toMatchObject(expected);
      return true;
    });
  const stateOf = async (vault: 'A' | 'B') => {
    const { primary, epoch, role } = (await site.view(vault).heart()).control;
    return { primary, epoch, role };
  };

  beforeAll(async () => {
    site = await DrSite.open({
      pair,
      segmentSizeMiB: 1,
      nodes: ['db1', 'dr1'],
      walvault: {
        WALVAULT_LEASE: `${LEASE_MS}ms`,
        WALVAULT_WATCHDOG: 'process',
        WALVAULT_HEARTBEAT_INTERVAL: '1s',
        WALVAULT_VAULT_TIMEOUT: '2s',
      },
    });
    await site.makePrimary('db1');
    await site.backup();
    await site.relayOnce();
    await site.addDrStandby('dr1');
    site.startRelay({}, { args: ['--interval', '200ms'] });
    clients = await Clients.start(site.server('db1'), site.servers);
    await site.archiveNow();
    await site.relayed();
    await site.caughtUp('dr1');
    await site.canBeTarget('dr1');
    await hasLease(site, 'db1');
    watch();
    await decides({ do: 'nothing', state: 'well' });
  });
  afterAll(async () => {
    await clients.stop();
    await site.close();
  });

  test('the active vault is out of its reach: the primary may be well, so it only warns, in its own vault', async () => {
    // by the URL under which the relay knows it; on S3 by the way of its own
    for (const party of ['relay', 'dr1']) site.cut('A', party);
    await decides({ do: 'nothing', state: 'blind' });
    await decides({ do: 'warn', state: 'silent', to: 'dr1' }, 90_000);
    expect(witness.said.at(-1)).toMatchObject({
      why: expect.stringMatching(/a person decides .*--unfenced/),
    });
    await waitFor('the event', 10_000, async () => (await site.view('B').events('silent')).length === 1);
    expect(await stateOf('B')).toEqual({ primary: 'db1', epoch: 1, role: 'replica' });
    for (const party of ['relay', 'dr1']) site.mend('A', party);
    await decides({ do: 'nothing', state: 'well' });
    await waitFor('the event', 10_000, async () => (await site.view('B').events('heard')).length === 1);
  });

  test('the primary is gone and nobody there can take its place: with dr_failover off it warns', async () => {
    await site.archiveNow();
    await killMachine(site, 'db1');
    await decides({ do: 'warn', state: 'silent', to: 'dr1' });
    expect(witness.said.at(-1)).toMatchObject({
      why: expect.stringMatching(/dr_failover is off: 'walvault trigger smart --to dr1'/),
    });
    await sleep(NEEDED_MS);
    expect(await stateOf('A')).toEqual({ primary: 'db1', epoch: 1, role: 'active' });
    expect(await stateOf('B')).toEqual({ primary: 'db1', epoch: 1, role: 'replica' });
  });

  test('with dr_failover on it takes over: the active vault is fenced first, and what it holds is there', async () => {
    await witness.stop();
    watch('--dr-failover', 'on');
    await waitFor('dr1 is the primary', 2 * NEEDED_MS, async () => {
      const { primary, role } = await stateOf('B');
      return primary === 'dr1' && role === 'active';
    });
    await waitFor('clients write to dr1', 30_000, () => clients.of('dr1').length > 0);
    expect(await missingOn(site, 'dr1', clients, { old: 'db1', timeline: 2 })).toEqual([]);
    expect(clients.turns()).toEqual(['db1', 'dr1']);
    expect((await stateOf('A')).role).not.toBe('active');
    expect(await startGuarded(site, 'db1')).toBe(77);
    await decides({ do: 'nothing' });
  });
});
