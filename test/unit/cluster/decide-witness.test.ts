import {
  chooseStandby,
  coolDownLeft,
  decideBrokenOff,
  decideWitness,
  plannedStop,
  QUIET_MS,
  remember,
  sightOf,
  signOf,
  SLOW_LOOK_MS,
  type Sight,
  type WitnessFacts,
  type WitnessLook,
  type WitnessMemory,
  type WitnessStandby,
} from '../../../core/cluster/decide-witness.ts';
import type { NodeRow, Promotion, WitnessPolicy } from '../../../core/cluster/facts.ts';
import type { LiveGap } from '../../../core/cluster/gaps.ts';
import type { Lease } from '../../../core/cluster/lease.ts';
import { control, head, MiB, standby } from '../../harness/facts.ts';

const HOUR = 3_600_000;
const NOW = Date.parse('2026-01-01T03:00:00.000Z');
const iso = (ms: number): string => new Date(ms).toISOString();
const size = 16 * MiB;

const lease = (count = 7, changes: Partial<Lease> = {}): Lease => ({
  ...{ epoch: 1, count, ms: 30_000, watchdog: 'process' },
  ...changes,
});
const primary = (changes: Partial<NodeRow> = {}): NodeRow =>
  standby({ name: 'db1', role: 'primary', lastRestored: null, lease: lease(), ...changes });
const node = (name: string, changes: Partial<NodeRow> = {}, more: Partial<WitnessStandby> = {}) => ({
  ...{ row: standby({ name, ...changes }), behindMs: 0, gap: undefined },
  ...more,
});
const facts = (changes: Partial<WitnessFacts> = {}): WitnessFacts => ({
  ...{ control: control(), head: head(), primary: primary(), standbys: [node('db2')], segmentSize: size },
  ...changes,
});
const sight = (changes: Partial<Sight> = {}): Sight => ({
  ...{ silentMs: 31_500, heard: new Set(['db2', 'db3', 'db4']), blind: undefined },
  ...changes,
});
const policy: WitnessPolicy = { autoFailover: true, maxLagMs: 60_000, coolDownMs: HOUR };
const decide = (
  seen: Partial<WitnessFacts> = {},
  how: Partial<Sight> = {},
  rules: Partial<WitnessPolicy> = {},
  coolMs = 0,
) => decideWitness(facts(seen), sight(how), { ...policy, ...rules }, { nowMs: NOW, coolMs });

const pending = (state: Promotion['state']) =>
  head({
    promotion: { ...{ id: 't1', epoch: 2, node: 'db2', mode: 'smart', state, at: iso(NOW) } },
  });
const gap: LiveGap = {
  ...{ from: '000000010000000000000005', to: '000000010000000000000005', at: iso(NOW), reason: 'off' },
  ...{ timeline: 1, begins: 0x500_0000n, ends: 0x600_0000n },
};
const until = (ms: number) => ({ at: iso(NOW), until: iso(ms), by: 'ann: new kernel' });

describe('the primary is heard, or need not be', () => {
  const calm: [string, string, string, Partial<WitnessFacts>, Partial<Sight>][] = [
    ['a replica', 'not active', 'this vault is a replica', { control: control({ role: 'replica' }) }, {}],
    ['no primary', 'no primary', 'names no primary', { control: control({ primary: null }) }, {}],
    ['a trigger', 'pending', 'promotion of db2 .*epoch 2, triggered', { head: pending('triggered') }, {}],
    ['a seal', 'pending', 'epoch 2, sealed', { head: pending('sealed') }, {}],
    ['maintenance', 'planned', 'ann: new kernel', { control: control({ maintenance: until(NOW + 1) }) }, {}],
    ['a flush', 'planned', 'flushed at 0/5', { head: head({ flush: { lsn: '0/5000000', rev: 1 } }) }, {}],
    ['archiving off', 'planned', 'archiving is off', { control: control({ archiving: false }) }, {}],
    ['bad sight', 'blind', 'seen badly', {}, { blind: 'the table was seen badly' }],
    ['a renewal', 'well', 'db1 renews its lease', {}, { silentMs: 19_999 }],
    ['no lease', 'no lease', 'needs a person', { primary: primary({ lease: null }) }, { silentMs: 59_999 }],
    ['a lease of before', 'no lease', 'without a lease', { control: control({ epoch: 2 }) }, { silentMs: 0 }],
  ];
  test.each(calm)('%s: %s, and nothing is done', (_what, state, why, seen, how) => {
    expect(decide(seen, how)).toEqual({
      ...{ do: 'nothing', state, why: expect.stringMatching(why), reasons: [], to: null },
    });
  });

  test('what forbids a failover is asked in this order', () => {
    const all: Partial<WitnessFacts> = {
      control: control({ role: 'replica', primary: null, archiving: false }),
      head: pending('triggered'),
    };
    expect(decide(all, { blind: 'x' }).state).toBe('not active');
    expect(decide({ ...all, control: control({ primary: null, archiving: false }) }).state).toBe(
      'no primary',
    );
    expect(decide({ ...all, control: control({ archiving: false }) }, { blind: 'x' }).state).toBe('pending');
    expect(decide({ control: control({ archiving: false }) }, { blind: 'x' }).state).toBe('planned');
    expect(decide({}, { blind: 'x' }).state).toBe('blind');
  });

  test('an open promotion, and maintenance that is over, hold nothing up', () => {
    expect(decide({ head: pending('open') }).do).toBe('trigger');
    expect(decide({ control: control({ maintenance: until(NOW) }) }).do).toBe('trigger');
    expect(decide({ control: control({ maintenance: null }) }).do).toBe('trigger');
  });
});

describe('the primary is silent', () => {
  test('it is replaced as soon as its lease is over with the margin', () => {
    expect(decide()).toEqual({
      ...{ do: 'trigger', state: 'silent', to: 'db2' },
      why: 'nothing was heard of db1 for 31 s, neither heartbeat nor WAL: its lease of 30 s is over, db2 takes its place',
      reasons: ['db2: fit, priority 100, 0 s behind'],
    });
    expect(decide({}, { silentMs: 31_499 })).toMatchObject({
      ...{ do: 'warn', state: 'silent', to: 'db2' },
      why: expect.stringContaining('its lease may run for 1 s more, then db2 takes its place'),
    });
    expect(decide({}, { silentMs: 20_000 })).toMatchObject({ do: 'warn', to: 'db2' });
  });

  test('the time goes by the lease that it holds', () => {
    const short = { primary: primary({ lease: lease(7, { ms: 3000 }) }) };
    expect(decide(short, { silentMs: 1999 }).state).toBe('well');
    expect(decide(short, { silentMs: 3999 }).do).toBe('warn');
    expect(decide(short, { silentMs: 4000 }).do).toBe('trigger');
  });

  const warned: [string, ReturnType<typeof decide>, RegExp, string | null][] = [
    [
      'auto_failover is off',
      decide({}, {}, { autoFailover: false }),
      /auto_failover is off; db2 would/,
      'db2',
    ],
    ['no standby is fit', decide({ standbys: [] }), /no standby is fit/, null],
    ['a failover was just now', decide({}, {}, {}, 1500), /short time ago; for 2 s more a person/, 'db2'],
  ];
  test.each(warned)('it is warned, and a person decides: %s', (_what, decision, why, to) => {
    expect(decision).toMatchObject({ do: 'warn', state: 'silent', why: expect.stringMatching(why), to });
  });

  test.each([
    ['its row says none', { primary: primary({ lease: null }) }],
    ['its row says nothing', { primary: primary({ lease: undefined }) }],
    ['it is of an earlier reign', { control: control({ epoch: 2 }) }],
    ['it has no row', { primary: undefined }],
  ])('without a lease nobody knows that it is stopped: %s', (_what, seen) => {
    expect(decide(seen, { silentMs: QUIET_MS - 1 }).do).toBe('nothing');
    expect(decide(seen, { silentMs: 100 * HOUR })).toMatchObject({
      ...{
        do: 'warn',
        state: 'no lease',
        why: expect.stringMatching(/runs without a lease.*a person decides/),
      },
    });
  });
});

test('a stop on purpose is maintenance that lasts, a flush, or archiving off', () => {
  expect(plannedStop(control(), head(), NOW)).toBeUndefined();
  expect(plannedStop(control({ maintenance: until(NOW + 1) }), head(), NOW)).toBe(
    `maintenance until ${iso(NOW + 1)} (ann: new kernel)`,
  );
  expect(plannedStop(control({ maintenance: until(NOW) }), head(), NOW)).toBeUndefined();
  expect(plannedStop(control(), head({ flush: { lsn: '0/5000000', rev: 1 } }), NOW)).toContain(
    'db1 was flushed',
  );
  expect(plannedStop(control({ archiving: false }), head(), NOW)).toContain('archiving is off');
});

describe('the standby that takes its place', () => {
  const choose = (standbys: WitnessStandby[], heard = ['db2', 'db3', 'db4']) =>
    chooseStandby({ head: head(), standbys, segmentSize: size }, { heard: new Set(heard) }, policy);
  const at = (file: string) => ({ lastRestored: file });

  test('has the highest priority, then has replayed most, then comes first by name', () => {
    const [far, near] = [at('000000010000000000000002'), at('000000010000000000000004')];
    expect(choose([node('db2', near), node('db3', { ...far, failoverPriority: 101 })]).to).toBe('db3');
    expect(choose([node('db2', far), node('db3', near), node('db4', far)]).to).toBe('db3');
    expect(choose([node('db4', near), node('db3', near), node('db2', near)]).to).toBe('db2');
    // one that says nothing of its priority has that of the setting's default
    expect(choose([node('db2', { failoverPriority: 99 }), node('db3')]).to).toBe('db3');
    expect(choose([node('db2', { failoverPriority: 101 }), node('db3')]).to).toBe('db2');
  });

  const unfit: [string, WitnessStandby, RegExp][] = [
    ['never by its own word', node('db2', { failoverPriority: 0 }), /^db2: its failover_priority is 0$/],
    ['silent as well', node('db5'), /^db5: silent too$/],
    ['a primary', node('db2', { role: 'primary' }), /^db2: is not a standby/],
    ['new, and not there yet', node('db2', { consistent: false }), /^db2: has not reached the end/],
    ['in trouble', node('db2', { trouble: 'past the fork' }), /^db2: is not in order: past the fork/],
    ['before a gap', node('db2', {}, { gap }), /^db2: stands before a declared gap, .*05/],
    ['of unknown place', node('db2', {}, { behindMs: null }), /^db2: how far it is behind is not known/],
    ['too far behind', node('db2', {}, { behindMs: 60_001 }), /^db2: 60 s behind, max_lag is 60 s/],
  ];
  test.each(unfit)('is not one that is %s', (_what, standbyOf, reason) => {
    const { to, reasons } = choose([standbyOf]);
    expect([to, reasons]).toEqual([null, [expect.stringMatching(reason)]]);
    expect(choose([standbyOf, node('db3')]).to).toBe('db3');
    expect(decide({ standbys: [standbyOf] })).toMatchObject({ do: 'warn', to: null, reasons });
  });

  test('may be behind by max_lag', () => {
    expect(choose([node('db2', {}, { behindMs: 60_000 })])).toEqual({
      ...{ to: 'db2', reasons: ['db2: fit, priority 100, 60 s behind'] },
    });
  });

  test('is nobody where there is no standby, or nothing was ever archived', () => {
    expect(choose([])).toEqual({ to: null, reasons: ['there is no standby'] });
    expect(
      chooseStandby(
        { head: head({ lsn: null }), standbys: [node('db2')], segmentSize: size },
        sight(),
        policy,
      ),
    ).toEqual({ to: null, reasons: ['nothing was archived yet'] });
  });
});

test.each([
  ['none was before', null, 0],
  ['just now', NOW, HOUR],
  ['half an hour ago', NOW - HOUR / 2, HOUR / 2],
  ['an hour ago', NOW - HOUR, 0],
  ['long ago', NOW - 100 * HOUR, 0],
  ['in an hour, by the clock of another witness', NOW + HOUR, HOUR],
])('an automatic failover waits for the one before: %s', (_what, last, left) => {
  const row = last === null ? null : { epoch: 2, to: 'db2', at: iso(last) };
  expect(coolDownLeft(row, policy, NOW)).toBe(left);
  expect(coolDownLeft(row, { coolDownMs: 0 }, NOW)).toBe(0);
});

describe('the sign of a primary', () => {
  const base = signOf(facts());

  test.each<[string, Partial<WitnessFacts>]>([
    ['a renewal', { primary: primary({ lease: lease(8) }) }],
    ['a commit', { head: head({ writer: { node: 'db1', nonce: 'n2', place: '' } }) }],
    ['another reign', { control: control({ epoch: 2 }) }],
    [
      'the same count in another reign',
      { control: control({ epoch: 2 }), primary: primary({ lease: lease(7, { epoch: 2 }) }) },
    ],
    ['another primary', { control: control({ primary: 'db3' }) }],
    ['a lease given up', { primary: primary({ lease: null }) }],
    ['its row gone', { primary: undefined }],
  ])('moves with %s', (_what, seen) => {
    expect(signOf(facts(seen))).not.toBe(base);
  });

  test.each<[string, Partial<WitnessFacts>]>([
    ['a row that others wrote', { primary: primary({ rev: 9, trouble: 'x', heartbeatAt: iso(NOW) }) }],
    ['an epoch that was raised without another primary', { control: control({ epoch: 3, reign: 1 }) }],
    ['a control that others changed', { control: control({ rev: 9, archiving: false }) }],
    ['a head that others changed', { head: head({ rev: 9 }) }],
    ['a standby', { standbys: [node('db2', { rev: 9 })] }],
  ])('does not move with %s', (_what, seen) => {
    expect(signOf(facts(seen))).toBe(base);
  });

  test('is each heartbeat, where there is no lease', () => {
    const of = (rev: number) => signOf(facts({ primary: primary({ lease: null, rev }) }));
    expect(of(1)).not.toBe(of(2));
  });
});

describe('what a witness remembers', () => {
  const seenAt = (at: number, changes: Partial<WitnessFacts> = {}, tookMs = 10): WitnessLook => ({
    ...{ at, tookMs, everyMs: 1000, facts: facts(changes) },
  });
  const failedAt = (at: number): WitnessLook => ({ at, tookMs: 10, everyMs: 1000, failure: 'away' });
  const after = (...looks: WitnessLook[]): WitnessMemory =>
    looks.reduce<WitnessMemory | undefined>(remember, undefined)!;
  const rev = (count: number): Partial<WitnessFacts> => ({ standbys: [node('db2', { rev: count })] });
  /** One look a second; `at` says what is seen in each second. */
  const watch = (seconds: number, at: (second: number) => WitnessLook): WitnessMemory =>
    after(...Array.from({ length: seconds + 1 }, (_, second) => at(second)));

  test('silence counts from the end of the first look that saw the sign as it stands', () => {
    const moved = { primary: primary({ lease: lease(8) }) };
    const memory = after(seenAt(5000), seenAt(6000), seenAt(7000, moved), seenAt(8000, moved));
    expect(sightOf(memory, 8000, 30_000).silentMs).toBe(1000);
    expect(sightOf(memory, 8500, 30_000).silentMs).toBe(1500);
    expect(sightOf(after(seenAt(5000), seenAt(6000)), 6000, 30_000).silentMs).toBe(1000);
  });

  test('the first look after a start knows nobody silent, and nobody heard', () => {
    expect(sightOf(after(seenAt(5000)), 5000, 30_000)).toEqual({
      ...{ silentMs: 0, heard: new Set(), blind: undefined },
    });
    expect(remember(undefined, failedAt(0))).toBeUndefined();
  });

  test('a standby is heard by what it wrote after the last sign of the primary, and within the time looked back', () => {
    const heardAt = (memory: WitnessMemory, at: number) => [...sightOf(memory, at, 30_000).heard];
    const still = watch(40, (second) => seenAt(second * 1000));
    expect(heardAt(still, 40_000)).toEqual([]);
    const moves = watch(40, (second) => seenAt(second * 1000, rev(1 + Math.floor(second / 10))));
    expect(heardAt(moves, 40_000)).toEqual(['db2']);
    const stopped = watch(40, (second) => seenAt(second * 1000, rev(second < 8 ? second : 8)));
    expect(heardAt(stopped, 39_500)).toEqual(['db2']);
    expect(heardAt(stopped, 39_501)).toEqual([]);
    // it died together with the primary, or before it: what it wrote until then says nothing of now
    const together = watch(3, (second) =>
      seenAt(second * 1000, {
        ...rev(Math.min(second, 2)),
        primary: primary({ lease: lease(Math.min(second, 2)) }),
      }),
    );
    expect(heardAt(together, 3000)).toEqual([]);
  });

  test('a standby that was not there before is heard when it moves', () => {
    const memory = after(seenAt(0, { standbys: [] }), seenAt(1000, rev(1)));
    expect([...sightOf(memory, 1000, 30_000).heard]).toEqual([]);
    expect([...sightOf(remember(memory, seenAt(2000, rev(2)))!, 2000, 30_000).heard]).toEqual(['db2']);
  });

  test('a look that fails, or takes long, makes it blind until the next good one', () => {
    const good = watch(40, (second) => seenAt(second * 1000));
    expect(sightOf(good, 40_000, 30_000).blind).toBeUndefined();
    const failed = remember(good, failedAt(41_000))!;
    expect(sightOf(failed, 41_000, 30_000)).toMatchObject({ silentMs: 41_000, blind: expect.any(String) });
    const slow = remember(good, seenAt(41_000, {}, SLOW_LOOK_MS + 1))!;
    expect(sightOf(slow, 41_000, 30_000).blind).toMatch(/1 of the last 32 looks .* longer than 3 s/);
    expect(sightOf(remember(good, seenAt(41_000, {}, SLOW_LOOK_MS))!, 41_000, 30_000).blind).toBeUndefined();
    expect(sightOf(remember(failed, seenAt(42_000))!, 42_000, 30_000).blind).toBeUndefined();
  });

  test('more than a fifth of bad looks makes it blind, though the last one was good, for as long as they are looked back at', () => {
    // 32 looks lie within the 31.5 s
    const bad = (count: number) =>
      watch(40, (second) =>
        second > 20 && second <= 20 + count ? failedAt(second * 1000) : seenAt(second * 1000),
      );
    expect(sightOf(bad(6), 40_000, 30_000).blind).toBeUndefined();
    expect(sightOf(bad(7), 40_000, 30_000).blind).toMatch(/7 of the last 32 looks/);
    const later = Array.from({ length: 20 }, (_, second) => seenAt((41 + second) * 1000)).reduce<
      WitnessMemory | undefined
    >(remember, bad(7))!;
    expect(sightOf(later, 60_000, 30_000).blind).toBeUndefined();
  });

  test('a failed look moves no sign and hears nobody', () => {
    const memory = after(seenAt(0), failedAt(1000), seenAt(2000));
    expect(sightOf(memory, 2000, 30_000).silentMs).toBe(2000);
  });

  test('one that slept forgets: what it did not see is no silence', () => {
    const before = watch(40, (second) => seenAt(second * 1000, rev(second)));
    const awake = remember(before, seenAt(40_000 + 4000 + SLOW_LOOK_MS, rev(41)))!;
    expect(sightOf(awake, 47_000, 30_000)).toMatchObject({ silentMs: 47_000, heard: new Set(['db2']) });
    const slept = remember(before, seenAt(40_000 + 4001 + SLOW_LOOK_MS, rev(41)))!;
    expect(sightOf(slept, 47_001, 30_000)).toEqual({ silentMs: 0, heard: new Set(), blind: undefined });
    expect(remember(before, failedAt(40_000 + 4001 + SLOW_LOOK_MS))).toBeUndefined();
  });

  test('without a lease it looks back for a minute', () => {
    const memory = watch(70, (second) => seenAt(second * 1000, rev(second < 20 ? second : 20)));
    expect([...sightOf(memory, 70_000, undefined).heard]).toEqual(['db2']);
    expect([...sightOf(memory, 70_000, 30_000).heard]).toEqual([]);
  });

  test('it does not grow for ever', () => {
    const memory = watch(700, (second) => seenAt(second * 1000));
    expect(memory.looks).toHaveLength(600);
    expect(sightOf(memory, 700_000, 30_000)).toMatchObject({ silentMs: 700_000, blind: undefined });
  });
});

test.each([
  ['a take-over is at work', { silentMs: 29_000 }, 'nothing', /is under way/],
  [
    'it was broken off, and a person has to go on',
    { drFailover: false },
    'warn',
    /trigger smart --to dr1' in s3:\/\/b goes on/,
  ],
  ['it was broken off, and may be gone on with', {}, 'trigger', /stands still for 31 s/],
  ['the node that it names is not here', { isThere: false }, 'warn', /goes on with it/],
  ['it names nobody', { to: null }, 'nothing', /under way/],
] as const)('from a replica for which the other vault was fenced: %s', (_what, changes, does, why) => {
  const facts = { to: 'dr1', isThere: true, silentMs: 31_000, drFailover: true, url: 's3://b' };
  expect(decideBrokenOff({ ...facts, ...changes })).toMatchObject({
    do: does,
    why: expect.stringMatching(why),
  });
});
