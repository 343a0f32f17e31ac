/**
 * The lease of a primary, without a witness: who renews it, who stops the server when nobody can, and who may start it again.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Clients } from '../harness/clients.ts';
import {
  hasLease,
  killMachine,
  leaseCount,
  signal,
  startGuarded,
  watchdogPids,
} from '../harness/lease-nodes.ts';
import { onePair } from '../harness/pairs.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(0);

/**
 * Short enough to wait for its end, long enough for a busy machine: an agent that is frozen is killed no sooner than 2 s after a third of it,
 * and up to 3.5 s, and the next one has the rest of the second third to start and renew.
 */
const LEASE_MS = 24_000;

describe(`the lease of a primary, ${pair.title}`, () => {
  let site: TestSite;
  let clients: Clients;
  const agentLog = () => readFileSync(path.join(site.state('db1'), 'agent.log'), 'utf8');
  const renewed = async () => {
    const before = (await leaseCount(site, 'db1')) ?? 0;
    await waitFor(
      'the lease is renewed',
      10_000,
      async () => ((await leaseCount(site, 'db1')) ?? 0) > before,
    );
  };
  const postmaster = () => site.server('db1').pid();

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      segmentSizeMiB: 1,
      walvault: {
        WALVAULT_LEASE: `${LEASE_MS}ms`,
        WALVAULT_WATCHDOG: 'process',
        WALVAULT_HEARTBEAT_INTERVAL: '1s',
        WALVAULT_VAULT_TIMEOUT: '3s',
      },
    });
    const db1 = await site.makePrimary();
    clients = await Clients.start(db1, site.servers);
    await site.archiveNow(); // the first hook starts the agent
    await hasLease(site, 'db1');
  });
  afterAll(async () => {
    await clients.stop();
    await site.close();
  });

  test.each([
    ['no watchdog', ['--lease', '30s', '--watchdog', 'none'], /watchdog/],
    ['too short', ['--lease', '2s', '--watchdog', 'process'], /too short/],
    ['renewed too rarely', ['--lease', '12s', '--heartbeat-interval', '5s'], /renewed too rarely/],
    ['without an agent', ['--lease', '30s', '--agent', 'off'], /agent/],
    ['with another tool that promotes', ['--lease', '30s', '--roles', 'external'], /external/],
  ])('refused before anything is written: %s', async (_what, args, why) => {
    const before = readFileSync(path.join(site.state('db1'), 'settings.toml'), 'utf8');
    const at = ['--pgdata', site.server('db1').pgdata, '--node', 'db1'];
    const { status, stderr } = await site.walvault('configure', 'primary', ...at, ...args);
    expect({ status, stderr }).toEqual({ status: 2, stderr: expect.stringMatching(why) });
    expect(readFileSync(path.join(site.state('db1'), 'settings.toml'), 'utf8')).toBe(before);
  });

  test('it is renewed with each heartbeat, under a watchdog', async () => {
    await renewed();
    const [row] = await site.rows('node#db1');
    expect(row!['lease']).toMatchObject({ epoch: 1, ms: LEASE_MS, watchdog: 'process' });
    expect(watchdogPids(site, 'db1')).toHaveLength(1);
    const doctor = await site.walvault(
      'doctor',
      '--json',
      '--pgdata',
      site.server('db1').pgdata,
      '--node',
      'db1',
    );
    const { findings } = JSON.parse(doctor.stdout) as { findings: { what: string; says: string }[] };
    expect(findings.filter(({ what }) => what === 'lease')).toEqual([
      expect.objectContaining({ state: 'warn', says: 'no witness has ever looked' }),
    ]);
  });

  test('an agent that is killed is started again, and the server goes on', async () => {
    const [pid, server] = [site.agentPids('db1')[0]!, postmaster()];
    await killHard([pid]);
    await waitFor('another agent', 10_000, () => site.agentPids('db1').some((other) => other !== pid));
    await renewed();
    expect(postmaster()).toBe(server);
  });

  test('an agent that is frozen is replaced before the lease ends', async () => {
    const [pid, server] = [site.agentPids('db1')[0]!, postmaster()];
    signal(pid, 'SIGSTOP');
    await waitFor('another agent', 10_000, () => site.agentPids('db1').some((other) => other !== pid));
    await renewed();
    expect(agentLog()).toMatch(/answers nothing and the lease is not renewed: it is killed/);
    expect(postmaster()).toBe(server);
  });

  test.each(['SIGKILL', 'SIGSTOP'] as const)('a watchdog that gets %s is replaced', async (name) => {
    const [pid, server] = [watchdogPids(site, 'db1')[0]!, postmaster()];
    signal(pid, name);
    await waitFor('another watchdog', 20_000, () => watchdogPids(site, 'db1').some((other) => other !== pid));
    await renewed();
    expect(watchdogPids(site, 'db1')).toHaveLength(1);
    expect(postmaster()).toBe(server);
  });

  test('a vault that is away for a while changes nothing', async () => {
    const server = postmaster();
    await site.vault.goAway();
    await sleep(LEASE_MS / 4);
    await site.vault.comeBack();
    await renewed();
    expect(postmaster()).toBe(server);
    expect(existsSync(path.join(site.state('db1'), 'lease-stop'))).toBe(false);
  });

  test('a vault that is away for longer: the server is stopped before the lease is over', async () => {
    await renewed();
    const away = performance.now();
    await site.vault.goAway('hang');
    await site.server('db1').ended(LEASE_MS);
    await waitFor('the last client is gone', 5_000, () => site.server('db1').pid() === undefined);
    const last = clients.of('db1').at(-1)!;
    // the last renewal was sent before the vault went away
    expect(last.ackAt - away).toBeLessThan(LEASE_MS);
    expect(last.ackAt - away).toBeGreaterThan(LEASE_MS / 3);
    expect(agentLog()).toMatch(/the lease of 24 s was not renewed for .*: stopping the server \(fast\)/);
  });

  test('without the word of the vault it is not started, and with it it is', async () => {
    expect(await startGuarded(site, 'db1')).toBe(77);
    await site.vault.comeBack();
    expect(await startGuarded(site, 'db1')).toBe(0);
    await renewed();
    const acked = clients.of('db1').length;
    await waitFor('clients write again', 10_000, () => clients.of('db1').length > acked);
    expect(await site.status()).toMatchObject({ epoch: 1, primary: 'db1' });
    const [event] = await waitFor('the event', 10_000, async () => {
      const events = await site.events('lease-stop');
      return events.length > 0 && events;
    });
    expect(event).toMatch(/db1 was stopped at .* lease/);
  });

  test('a server that was started by hand after its lease is stopped as soon as anybody looks', async () => {
    await killMachine(site, 'db1');
    await sleep(LEASE_MS);
    await site.vault.goAway();
    await site.server('db1').start();
    // a hook, and so the agent and the watchdog; what was left to archive may have called one before
    await site
      .server('db1')
      .query('SELECT pg_switch_wal()')
      .catch(() => {});
    await site.server('db1').ended(20_000);
    await site.vault.comeBack();
    expect(await startGuarded(site, 'db1')).toBe(0);
  });

  test('a lease that is taken back leaves none', async () => {
    const at = ['--pgdata', site.server('db1').pgdata, '--node', 'db1'];
    await site.ok('configure', 'primary', ...at, '--lease', '0', '--watchdog', 'none');
    await site.archiveNow();
    await waitFor('no lease in the vault', 30_000, async () => (await leaseCount(site, 'db1')) === undefined);
    await waitFor('no lease here', 10_000, () => !existsSync(path.join(site.state('db1'), 'lease'))); // after the vault's
    await site.vault.goAway();
    await sleep(LEASE_MS);
    await site.vault.comeBack();
    expect(postmaster()).toBeDefined();
  });
});
