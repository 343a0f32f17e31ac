/**
 * A failover without a person: real servers, agents, watchdogs and two witnesses at once, and clients that write to whichever server accepts.
 * Whatever fails, never two servers accept writes at one time, and what was acknowledged and archived is there.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { readFileSync, renameSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { silenceNeeded } from '../../core/cluster/lease.ts';
import { Clients } from '../harness/clients.ts';
import { DrSite } from '../harness/dr-site.ts';
import {
  freezeMachine,
  hasLease,
  killMachine,
  leaseCount,
  missingOn,
  signal,
  startGuarded,
  wakeMachine,
} from '../harness/lease-nodes.ts';
import { onePair } from '../harness/pairs.ts';
import { killHard, PATIENCE, waitFor } from '../harness/scratch.ts';

const pair = onePair(0);
/** A frozen agent is replaced after a half of it, and the stop begins at two thirds: the sixth between has to do on a slow machine, too. */
const LEASE_MS = 15_000;
const NEEDED_MS = silenceNeeded(LEASE_MS);
/** By when a failover of a silent primary is over, in a wait that knows patience. */
const FAILOVER_MS = 2 * NEEDED_MS;

describe(`a failover without a person, ${pair.title}`, () => {
  let site: DrSite;
  let clients: Clients;
  const state = async () => {
    const { primary, epoch, trigger } = await site.status();
    return { primary, epoch, trigger };
  };
  /** Everybody is where they were, after a time in which a failover would have been. */
  const nothingHappens = async (forMs = NEEDED_MS + 3000) => {
    const before = { ...(await state()), pid: site.server('db1').pid(), turns: clients.turns() };
    await sleep(forMs);
    expect({ ...(await state()), pid: site.server('db1').pid(), turns: clients.turns() }).toEqual(before);
  };
  /** From a renewal of db1's lease on: the next one is a second away. */
  const renewed = async () => {
    const before = (await leaseCount(site, 'db1')) ?? 0;
    await waitFor(
      'db1 renews its lease',
      20_000,
      async () => ((await leaseCount(site, 'db1')) ?? 0) > before,
    );
  };
  const failedOver = async (to: string, epoch: number) => {
    await waitFor(`${to} is the primary of epoch ${epoch}`, FAILOVER_MS, async () => {
      const now = await state();
      return now.primary === to && now.epoch === epoch && now.trigger === null;
    });
    await waitFor(`clients write to ${to}`, 20_000, () => clients.of(to).length > 0);
  };

  beforeAll(async () => {
    site = await DrSite.open({
      pair,
      segmentSizeMiB: 1,
      nodes: ['db1', 'db2', 'db3', 'w1', 'w2'],
      walvault: {
        WALVAULT_LEASE: `${LEASE_MS}ms`,
        WALVAULT_WATCHDOG: 'process',
        WALVAULT_HEARTBEAT_INTERVAL: '1s',
        WALVAULT_VAULT_TIMEOUT: '2s',
      },
      // one an hour ahead, another an hour behind: nobody compares clocks
      nodeEnv: { db1: clockOf(3_600_000), db2: clockOf(-3_600_000) },
    });
    await site.makePrimary('db1');
    await site.backup();
    await site.addStandby('db2', { args: ['--failover-priority', '50'] });
    await site.addStandby('db3', { args: ['--failover-priority', '200'] });
    clients = await Clients.start(site.server('db1'), site.servers);
    for (const node of ['db2', 'db3']) {
      await site.caughtUp(node);
      await site.canBeTarget(node);
    }
    await hasLease(site, 'db1');
    for (const party of ['w1', 'w2'])
      site.startAt(party, [
        ...['witness', '--json', '--witness-interval', '200ms', '--auto-failover', 'on', '--max-lag', '1m'],
        ...['--cool-down', '0'],
      ]);
  });
  afterAll(async () => {
    await clients.stop();
    await site.close();
  });

  test('silences that end before the lease does, again and again: nothing happens', async () => {
    const pid = site.server('db1').pid();
    for (let round = 0; round < 3; round++) {
      await renewed();
      site.cut('A', 'db1');
      await sleep(LEASE_MS / 4);
      site.mend('A', 'db1');
    }
    await renewed();
    expect(await state()).toEqual({ primary: 'db1', epoch: 1, trigger: null });
    expect(site.server('db1').pid()).toBe(pid);
  });

  test('cut off from its clients only: nothing happens', async () => {
    const socket = path.join(site.scratch, 's', `.s.PGSQL.${site.server('db1').port}`);
    renameSync(socket, `${socket}.away`);
    try {
      await nothingHappens();
    } finally {
      renameSync(`${socket}.away`, socket);
    }
  });

  test('its agent killed, and frozen: the watchdog has another one start, nothing else happens', async () => {
    const pid = site.server('db1').pid();
    await killHard(site.agentPids('db1'));
    await waitFor('another agent', 10_000, () => site.agentPids('db1').length > 0);
    await nothingHappens(3000);
    for (const agent of site.agentPids('db1')) signal(agent, 'SIGSTOP');
    // replaced in time, or stopped in time and perhaps replaced by a standby: never two, which the last test looks for
    await waitFor('a living agent or a failover', FAILOVER_MS, async () => {
      const now = await state();
      return now.epoch > 1 || site.agentPids('db1').some((agent) => !isStopped(agent));
    });
    expect(await state()).toMatchObject({ primary: 'db1', epoch: 1 });
    await renewed();
    expect(site.server('db1').pid()).toBe(pid);
  });

  test('stopped on purpose, in maintenance: nothing happens; it starts again', async () => {
    await site.ok('maintenance', 'on', '--for', '2h', '--reason', 'a test');
    await site.server('db1').stop('fast');
    await sleep(NEEDED_MS + 3000);
    expect(await state()).toEqual({ primary: 'db1', epoch: 1, trigger: null });
    expect(await startGuarded(site, 'db1')).toBe(0);
    await hasLease(site, 'db1');
    await site.ok('maintenance', 'off');
    await nothingHappens(2000);
  });

  test('its machine is gone: the standby of the highest priority takes over, once, and nothing archived is lost', async () => {
    await site.archiveNow();
    const silences = (await site.events('silent')).length; // an agent that was replaced may have been one
    await renewed();
    const killedAt = performance.now();
    await killMachine(site, 'db1');
    await failedOver('db3', 2);
    expect(clients.of('db3')[0]!.ackAt - killedAt).toBeGreaterThan(LEASE_MS - 2000); // not before the lease can be over
    expect(await missingOn(site, 'db3', clients, { old: 'db1', timeline: 2 })).toEqual([]);
    const triggers = await site.events('trigger');
    expect(triggers).toHaveLength(1);
    expect(triggers[0]).toMatch(
      new RegExp(
        `db3 shall be the primary, epoch 2 .* by the witness .*its lease of ${LEASE_MS / 1000} s is over`,
      ),
    );
    expect(await site.events('silent')).toHaveLength(silences + 1);
    expect(clients.turns()).toEqual(['db1', 'db3']);
  });

  test('the old primary is not let in', async () => {
    expect(await startGuarded(site, 'db1')).toBe(77);
  });

  test('its machine frozen, and woken after the failover: it takes nothing more', async () => {
    await hasLease(site, 'db3');
    await site.caughtUp('db2', 'db3');
    await site.archiveNow('db3');
    freezeMachine(site, 'db3');
    await failedOver('db2', 3);
    const wokenAt = performance.now();
    wakeMachine(site, 'db3');
    await site.server('db3').ended(10_000);
    expect(await missingOn(site, 'db2', clients, { old: 'db3', timeline: 3 })).toEqual([]);
    // What a paused machine had in hand may be acknowledged in the instant of its waking (docs/witness.md); nothing that was sent after it.
    const late = clients.of('db3').filter(({ ackAt }) => ackAt > wokenAt);
    expect(late.filter(({ sentAt }) => sentAt > wokenAt + 1000 * PATIENCE)).toEqual([]);
    clients.acks.splice(0, Infinity, ...clients.acks.filter((ack) => !late.includes(ack)));
    expect(clients.turns()).toEqual(['db1', 'db3', 'db2']);
  });
});

const isStopped = (pid: number): boolean => {
  try {
    return / T /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
};

function clockOf(aheadMs: number): NodeJS.ProcessEnv {
  return {
    NODE_OPTIONS: `--require ${path.resolve(import.meta.dirname, '../harness/clock.cjs')}`,
    TEST_CLOCK_AHEAD_MS: String(aheadMs),
  };
}
