import {
  decideLeaseSettings,
  decideRenewal,
  decideWatchdog,
  LEAST_LEASE_MS,
  leaseOf,
  leaseTimes,
  leaseToOutlast,
  renewalLimit,
  silenceNeeded,
  startLimit,
  type KeptLease,
  type Lease,
  type WatchdogFacts,
} from '../../../core/cluster/lease.ts';
import type { Promotion } from '../../../core/cluster/facts.ts';
import { control, head, standby } from '../../harness/facts.ts';

const lengths = [LEAST_LEASE_MS, 7000, 30_000, 600_000];
const lease = (changes: Partial<Lease> = {}): Lease => ({
  ...{ epoch: 1, count: 7, ms: 30_000, watchdog: 'process' },
  ...changes,
});

describe('the times of a lease', () => {
  test('fast, immediate and kill follow each other, and all is quiet before the end', () => {
    expect(leaseTimes(30_000)).toEqual({ fast: 20_000, immediate: 25_000, kill: 27_500, end: 30_000 });
    for (const ms of lengths) {
      const { fast, immediate, kill, end } = leaseTimes(ms);
      expect([0, fast, immediate, kill, end]).toEqual(
        [0, fast, immediate, kill, end].toSorted((a, b) => a - b),
      );
      expect(end).toBe(ms);
      expect(end - kill).toBeGreaterThanOrEqual(250);
    }
  });

  test('a renewal that hangs leaves time for another before the fast stop, with the longest heartbeat_interval', () => {
    for (const ms of lengths)
      expect(ms / 4 + 2 * renewalLimit(ms) + ms / 12).toBeLessThanOrEqual(leaseTimes(ms).fast);
  });

  test('a server that starts on an old renewal has as long again until its stop begins', () => {
    for (const ms of lengths) expect(leaseTimes(ms).fast - startLimit(ms)).toBeGreaterThanOrEqual(ms / 3);
  });

  test('a witness waits longer than the lease, by a second at least, by clocks of which one runs a hundredth too fast', () => {
    expect(silenceNeeded(3000)).toBe(4000);
    expect(silenceNeeded(30_000)).toBe(31_500);
    expect(silenceNeeded(600_000)).toBe(630_000);
    for (const ms of lengths) expect(silenceNeeded(ms) * 0.99).toBeGreaterThan(ms * 1.01);
  });
});

describe('settings of a lease', () => {
  const good = {
    ...{
      leaseMs: 30_000,
      heartbeatMs: 7500,
      watchdog: 'process' as const,
      agent: true,
      roles: 'own' as const,
    },
  };

  test.each([
    ['with a watchdog of its own', good],
    ['with one of systemd', { ...good, watchdog: 'systemd' as const }],
    ['the shortest', { ...good, leaseMs: 3000, heartbeatMs: 750 }],
    ['none, whatever else is set', { ...good, leaseMs: 0, watchdog: 'none' as const, agent: false }],
    ['none, with roles of another tool', { ...good, leaseMs: 0, roles: 'external' as const }],
  ])('are taken: %s', (_what, settings) => {
    expect(decideLeaseSettings(settings)).toBeUndefined();
  });

  test.each([
    ['no watchdog', { ...good, watchdog: 'none' as const }, /wants a watchdog/],
    ['too short', { ...good, leaseMs: 2999, heartbeatMs: 100 }, /2.999 s is too short/],
    ['renewed too rarely', { ...good, heartbeatMs: 7501 }, /renewed too rarely .* 7.501 s/],
    ['no agent', { ...good, agent: false }, /agent is off/],
    ['roles of another tool', { ...good, roles: 'external' as const }, /roles = "external"/],
  ])('are refused, with what to set instead: %s', (_what, settings, message) => {
    const refused = decideLeaseSettings(settings);
    expect(refused?.message).toMatch(message);
    expect(refused?.hint).not.toBe('');
  });
});

describe('a renewal', () => {
  const me = { node: 'db1', writerEpoch: 1, ms: 30_000, watchdog: 'process' as const };
  const row = standby({ name: 'db1', role: 'primary' });

  test('counts on, under the reign that was confirmed', () => {
    const first = decideRenewal(control(), row, me);
    expect(first).toEqual({ do: 'renew', lease: lease({ count: 1 }) });
    const held = { ...row, lease: lease({ count: 41, ms: 10_000, watchdog: 'systemd' as const }) };
    expect(decideRenewal(control(), held, me)).toEqual({ do: 'renew', lease: lease({ count: 42 }) });
    expect(decideRenewal(control(), undefined, me)).toEqual(first);
  });

  test('goes on counting where the lease is of an earlier reign of this node', () => {
    const ctl = control({ epoch: 3, reign: 3 });
    const old = { ...row, lease: lease({ epoch: 1, count: 41 }) };
    expect(decideRenewal(ctl, old, { ...me, writerEpoch: 3 })).toEqual({
      ...{ do: 'renew', lease: lease({ epoch: 3, count: 42 }) },
    });
  });

  test('holds though the epoch was raised without a change of primary', () => {
    expect(decideRenewal(control({ epoch: 5, reign: 1 }), row, me)).toMatchObject({ lease: { epoch: 1 } });
  });

  test.each([
    ['another node is the primary', control({ epoch: 2, primary: 'db2' }), 'fenced', /db2 holds epoch 2/],
    ['nobody is', control({ primary: null }), 'fenced', /nobody holds epoch 1/],
    ['the vault is a replica', control({ role: 'replica' }), 'fenced', /a replica, not active/],
    ['the vault is being made one', control({ role: 'converging' }), 'fenced', /a converging, not active/],
    ['it was named again and has not opened', control({ epoch: 4 }), 'refused', /has not taken up epoch 4/],
  ] as const)('is refused where %s', (_what, ctl, code, message) => {
    expect(decideRenewal(ctl, row, me)).toEqual({
      do: 'refuse',
      code,
      message: expect.stringMatching(message),
    });
  });
});

test('a lease says something of the reign it was confirmed in, and of no other', () => {
  const row = standby({ lease: lease() });
  expect(leaseOf(control(), row)).toEqual(lease());
  expect(leaseOf(control({ epoch: 2 }), row)).toBeUndefined();
  expect(leaseOf(control({ epoch: 2, reign: 1 }), row)).toEqual(lease());
  expect(leaseOf(control(), standby({ lease: null }))).toBeUndefined();
  expect(leaseOf(control(), standby())).toBeUndefined();
  expect(leaseOf(control(), undefined)).toBeUndefined();
});

describe('the watchdog', () => {
  const sentAt = 1_000_000;
  const kept: KeptLease = { boot: 'b1', until: sentAt + 30_000, ms: 30_000, epoch: 1 };
  const at = (age: number, changes: Partial<WatchdogFacts> = {}) =>
    decideWatchdog({ boot: 'b1', now: sentAt + age, lease: kept, server: 'open', ...changes });

  test.each([
    [0, { do: 'watch', leftMs: 20_000 }],
    [19_999, { do: 'watch', leftMs: 1 }],
    [20_000, { do: 'stop', how: 'fast' }],
    [24_999, { do: 'stop', how: 'fast' }],
    [25_000, { do: 'stop', how: 'immediate' }],
    [27_499, { do: 'stop', how: 'immediate' }],
    [27_500, { do: 'stop', how: 'kill' }],
    [30_000, { do: 'stop', how: 'kill' }],
    [9_000_000, { do: 'stop', how: 'kill' }],
  ])('%s ms after the sending of the last renewal', (age, action) => {
    expect(at(age)).toEqual(action);
  });

  test('takes a lease of before the machine’s last start for one that is over, whatever its times say', () => {
    for (const age of [-900_000, 0, 40_000])
      expect(at(age, { boot: 'b2' })).toEqual({ do: 'stop', how: 'kill' });
  });

  test('takes one that was sent in the future for one of another clock, which is over', () => {
    expect(at(-1)).toEqual({ do: 'stop', how: 'kill' });
    expect(at(-5_000_000)).toEqual({ do: 'stop', how: 'kill' });
  });

  test('leaves a server alone that takes no writes, and one that never had a lease', () => {
    for (const age of [0, 26_000, 90_000]) {
      expect(at(age, { server: 'waits' })).toEqual({ do: 'nothing' });
      expect(at(age, { server: 'none' })).toEqual({ do: 'nothing' });
      expect(at(age, { lease: undefined })).toEqual({ do: 'nothing' });
    }
  });
});

describe('what a target has to outlast', () => {
  const old = standby({
    name: 'db1',
    role: 'primary',
    lease: { epoch: 1, count: 3, ms: 30_000, watchdog: 'process' },
  });
  const pending = (after?: Promotion['after']): Promotion => ({
    ...{ id: 'p', epoch: 2, node: 'db2', mode: 'smart', state: 'triggered', at: '2026-01-01T00:00:00.000Z' },
    ...(after === undefined ? {} : { after }),
  });
  const opened: Promotion = { ...pending(), state: 'open', leaseMs: 30_000 };
  const present = control({ primary: 'db1', epoch: 1, reign: 1 });

  test.each<[string, Parameters<typeof leaseToOutlast>, Promotion['after']]>([
    ['the lease of the primary', [present, head(), old, false], { node: 'db1', ms: 31_500 }],
    ['nothing, where it is known to be over', [present, head(), old, true], undefined],
    ['nothing of one without a lease', [present, head(), { ...old, lease: null }, false], undefined],
    ['nothing of an earlier reign', [{ ...present, reign: 2 }, head(), old, false], undefined],
    [
      'nothing of one that was flushed',
      [present, head({ flush: { lsn: '0/1', rev: 1 } }), old, false],
      undefined,
    ],
    [
      'nothing of one that released it',
      [present, head(), { ...old, lease: { ...old.lease!, released: true } }, false],
      undefined,
    ],
    [
      'the lease that began with the open, where no renewal came',
      [{ ...present, primary: 'db2', reign: 2 }, head({ promotion: opened }), standby(), false],
      { node: 'db2', ms: 31_500 },
    ],
    [
      'nothing of one that has gone on without a lease since',
      [
        { ...present, primary: 'db2', reign: 2 },
        head({ promotion: opened }),
        standby({ role: 'primary', lease: null }),
        false,
      ],
      undefined,
    ],
    [
      'nothing of an open of an earlier reign',
      [{ ...present, primary: 'db2', reign: 3 }, head({ promotion: opened }), standby(), false],
      undefined,
    ],
    ['nobody', [{ ...present, primary: null }, head(), undefined, false], undefined],
    [
      'what the target that is given up had to outlast',
      [
        { ...present, primary: 'db2', reign: 2 },
        head({ promotion: pending({ node: 'db1', ms: 7 }) }),
        undefined,
        false,
      ],
      { node: 'db1', ms: 7 },
    ],
    [
      'nothing of a target that never opened',
      [{ ...present, primary: 'db2', reign: 2 }, head({ promotion: pending() }), old, false],
      undefined,
    ],
  ])('%s', (_what, facts, expected) => {
    expect(leaseToOutlast(...facts)).toEqual(expected);
  });
});
