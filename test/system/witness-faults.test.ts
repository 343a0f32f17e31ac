/**
 * What a witness must not take for a failure of the primary, and what it leaves to a person: the vault away for all, a slow vault, a standby
 * that is too far behind, a primary without a lease, a flush, two failovers in a row; and a primary that is cut off from the vault alone.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { silenceNeeded } from '../../core/cluster/lease.ts';
import { Clients } from '../harness/clients.ts';
import { DrSite } from '../harness/dr-site.ts';
import { hasLease, killMachine, leaseCount, missingOn, startGuarded } from '../harness/lease-nodes.ts';
import { onePair } from '../harness/pairs.ts';
import { waitFor } from '../harness/scratch.ts';
import type { RunningCommand } from '../harness/walvault-command.ts';

const pair = onePair(1);
const LEASE_MS = 9000;
const NEEDED_MS = silenceNeeded(LEASE_MS);
const FAILOVER_MS = 2 * NEEDED_MS;
const LEASED = { WALVAULT_LEASE: `${LEASE_MS}ms`, WALVAULT_WATCHDOG: 'process' };

describe(`what is no failure, or not the witness's, ${pair.title}`, () => {
  let site: DrSite;
  let clients: Clients;
  let witness: RunningCommand;
  const state = async () => {
    const { primary, epoch, trigger } = await site.status();
    return { primary, epoch, trigger };
  };
  const unchanged = { primary: 'db1', epoch: 1, trigger: null };
  const watch = (...args: string[]) => {
    witness = site.startAt('w1', [
      ...['witness', '--json', '--witness-interval', '200ms', '--auto-failover', 'on', '--cool-down', '1h'],
      ...args,
    ]);
  };
  const decided = () => witness.said.at(-1) ?? {};
  const decides = (expected: Record<string, unknown>, what = JSON.stringify(expected)) =>
    waitFor(`the witness: ${what}`, FAILOVER_MS, () => {
      expect(decided()).toMatchObject(expected);
      return true;
    });

  beforeAll(async () => {
    site = await DrSite.open({
      pair,
      segmentSizeMiB: 1,
      nodes: ['db1', 'db2', 'db3', 'w1'],
      walvault: { ...LEASED, WALVAULT_HEARTBEAT_INTERVAL: '1s', WALVAULT_VAULT_TIMEOUT: '2s' },
    });
    await site.makePrimary('db1');
    await site.backup();
    await site.addStandby('db2');
    clients = await Clients.start(site.server('db1'), site.servers);
    await site.caughtUp('db2');
    await site.canBeTarget('db2');
    await hasLease(site, 'db1');
    watch();
    await decides({ do: 'nothing', state: 'well' });
  });
  afterAll(async () => {
    await clients.stop();
    await site.close();
  });

  test('the vault is away for all: nobody is triggered; the primary stops by its lease and comes back as it was', async () => {
    site.cut('A', 'everybody', 'hang');
    await site.server('db1').ended(LEASE_MS);
    await sleep(NEEDED_MS);
    site.mend('A');
    await sleep(2000);
    // Seconds later it sees well again, and would rightly trigger where the primary stays down: its next look is when db1 is back, however long that takes.
    site.cut('A', 'w1', 'hang');
    expect(await state()).toEqual(unchanged);
    expect(await startGuarded(site, 'db1')).toBe(0);
    site.mend('A', 'w1');
    await decides({ do: 'nothing', state: 'well' });
    expect(await state()).toEqual(unchanged);
  });

  if (pair.vault === 's3')
    test('a slow vault: leases are renewed, nothing happens', async () => {
      const [before, pid] = [await leaseCount(site, 'db1'), site.server('db1').pid()];
      site.slow('A', 300);
      try {
        await sleep(2 * LEASE_MS);
      } finally {
        site.mend('A');
      }
      expect(await leaseCount(site, 'db1')).toBeGreaterThan((before ?? 0) + 2);
      expect(await state()).toEqual(unchanged);
      expect(site.server('db1').pid()).toBe(pid);
    });

  test('a flush stops the primary on purpose: nothing happens, whoever decides afterwards', async () => {
    const at = ['--pgdata', site.server('db1').pgdata, '--node', 'db1'];
    await site.ok('flush', ...at, '--yes');
    await decides({ do: 'nothing', state: 'planned' });
    await sleep(NEEDED_MS + 1000);
    expect(await state()).toEqual(unchanged);
    expect((await site.status()).maintenance).toBeNull(); // the flush said it, and took it back
    // between undo and start nobody says that this is meant: the witness would give it its lease, which a busy machine may need
    await site.ok('maintenance', 'on', '--for', '1h');
    await site.ok('flush', '--undo', ...at);
    expect(await startGuarded(site, 'db1')).toBe(0);
    await hasLease(site, 'db1');
    await site.ok('maintenance', 'off');
    await decides({ do: 'nothing', state: 'well' });
  });

  test('the standby is further behind than max_lag: it warns, once, and triggers nobody', async () => {
    await witness.stop();
    await site.server('db2').query('SELECT pg_wal_replay_pause()');
    await site.server('db2').query(`ALTER SYSTEM SET restore_command = 'false'`);
    await site.server('db2').query('SELECT pg_reload_conf()');
    // of the first one it may get hold of still
    for (let round = 0; round < 3; round++) {
      await site.archiveNow();
      await sleep(1500);
    }
    watch('--max-lag', '1s');
    await decides({ do: 'nothing', state: 'well' });
    const silences = (await site.events('silent')).length;
    await killMachine(site, 'db1');
    await decides({ do: 'warn', state: 'silent', to: null });
    await sleep(NEEDED_MS);
    expect(decided()).toMatchObject({ reasons: [expect.stringMatching(/db2: .* behind, max_lag is 1 s/)] });
    expect(await state()).toEqual(unchanged);
    expect(await site.events('silent')).toHaveLength(silences + 1);
    expect(await site.ok('status')).toMatch(/if db1 died now .* no standby is fit/);
    expect(await startGuarded(site, 'db1')).toBe(0);
    await decides({ do: 'nothing', state: 'well' });
    expect((await site.events('heard')).length).toBeGreaterThan(0);
    // as it was
    await site.server('db2').query('ALTER SYSTEM RESET restore_command');
    const at = ['--pgdata', site.server('db2').pgdata, '--node', 'db2'];
    await site.ok('standby', 'configure', ...at).catch(async () => {
      await site.server('db2').stop();
      await site.ok('standby', 'configure', ...at);
      await site.server('db2').start();
    });
    await site.caughtUp('db2');
  });

  test('cut off from the vault alone: it is stopped before the standby opens, and what was archived is there', async () => {
    await witness.stop();
    watch();
    await decides({ do: 'nothing', state: 'well' });
    await site.canBeTarget('db2');
    await site.archiveNow();
    site.cut('A', 'db1', 'hang');
    await waitFor('db2 is the primary', FAILOVER_MS, async () => (await state()).primary === 'db2');
    expect(site.server('db1').pid()).toBeUndefined();
    await waitFor('clients write to db2', 20_000, () => clients.of('db2').length > 0);
    expect(await missingOn(site, 'db2', clients, { old: 'db1', timeline: 2 })).toEqual([]);
    expect(clients.turns()).toEqual(['db1', 'db2']);
    site.mend('A', 'db1');
    expect(await startGuarded(site, 'db1')).toBe(77);
  });

  test('a second failover within cool_down is left to a person', async () => {
    const at = ['--pgdata', site.server('db1').pgdata, '--node', 'db1'];
    const conninfo = `host=${site.scratch}/s port=${site.server('db2').port} user=postgres dbname=postgres`;
    const rejoined = await site.walvault('rejoin', ...at, '--yes', '--source', conninfo);
    if (rejoined.status !== 0) {
      // without pg_rewind here: as a new standby
      await site.backup('db2');
      await site.addStandby('db3');
    } else await site.server('db1').start();
    const standby = rejoined.status === 0 ? 'db1' : 'db3';
    await site.caughtUp(standby, 'db2');
    await site.canBeTarget(standby);
    await hasLease(site, 'db2');
    await decides({ do: 'nothing', state: 'well' });
    await killMachine(site, 'db2');
    await decides({ do: 'warn', state: 'silent', to: standby });
    expect(decided()).toMatchObject({
      why: expect.stringMatching(/the last automatic failover was a short time ago/),
    });
    await sleep(NEEDED_MS);
    expect(await state()).toMatchObject({ primary: 'db2', epoch: 2, trigger: null });
  });
});
