/**
 * Random histories of a lease, its watchdog and its witnesses in virtual time (test/harness/lease-world.ts): whatever is killed, frozen,
 * asleep, cut off, slow or an hour off, no two servers take writes at one moment, and nothing triggers that must not.
 *
 * Two things it does not promise, and shows. A machine that was asleep may take writes from its waking to its watchdog's next step. Agent and
 * watchdog fail one at a time: where both are gone at once nobody stops the server.
 *
 * Rules that were removed one at a time, and were found missed (the table of `finds two servers by …`): the lease counts from the sending; a
 * renewal is conditional on control, a trigger on the sign; the watchdog; the margin above the lease; the witness's own observation;
 * a clock that counts sleep; a start renews; no start on a renewal of long ago (found here first: guard took ten seconds for the answer
 * where the lease had three); a look counts from its end.
 */
import fc from 'fast-check';
import { leaseOf, silenceNeeded } from '../../../core/cluster/lease.ts';
import {
  INSTANT_MS,
  LeaseWorld,
  RULES,
  START,
  type Machine,
  type Rules,
  type Terms,
} from '../../harness/lease-world.ts';

const HOUR = 3_600_000;

type Fault = { gapMs: number; what: string; ms: number; who: number };

const primaryOf = ({ machines, control }: LeaseWorld): Machine =>
  machines.find(({ name }) => name === control.primary)!;

/** Of agent and watchdog one at a time: the other is well when it begins. */
const PROCESSES: Record<string, (world: LeaseWorld, machine: Machine, ms: number) => void> = {
  'agent killed': (_world, machine) => {
    if (machine.watchdog.isAwake && machine.isWatched) machine.agent.kill();
  },
  'agent away': (world, machine, ms) => {
    if (!machine.watchdog.isAwake || !machine.isWatched) return;
    machine.agent.kill();
    machine.noAgent = true;
    world.clock.after(ms, () => (machine.noAgent = false));
  },
  'agent frozen': (world, machine, ms) => {
    if (machine.watchdog.isAwake && machine.isWatched) freeze(world, machine.agent, ms);
  },
  'watchdog killed': (_world, machine) => {
    if (machine.agent.isAwake) machine.watchdog.kill();
  },
  'watchdog frozen': (world, machine, ms) => {
    if (machine.agent.isAwake) freeze(world, machine.watchdog, ms);
  },
  'machine asleep': (world, machine, ms) => {
    if (machine.isLost) return;
    machine.sleep();
    world.clock.after(ms, () => machine.wake());
  },
  'server killed': (_world, machine) => {
    if (machine.state === 'open') machine.crash();
  },
  reboot: (_world, machine) => {
    if (machine.state === 'open' && !machine.isLost && !machine.isAsleep) machine.reboot();
  },
};

function freeze(world: LeaseWorld, process: Machine['agent'], ms: number): void {
  const { life } = process;
  process.isFrozen = process.isUp;
  world.clock.after(ms, () => {
    if (process.life !== life) return;
    process.isFrozen = false;
    process.wake();
  });
}

const NETWORK: Record<string, (world: LeaseWorld, who: number) => () => void> = {
  'node away': (world) => cut([primaryOf(world).way]),
  'witness away': ({ witnesses }, who) => cut([witnesses[who % 2]!.way]),
  'all away': ({ witnesses, machines }) => cut([...witnesses, ...machines].map(({ way }) => way)),
  'slow for all': ({ witnesses, machines }, who) =>
    slow(
      [...witnesses, ...machines].map(({ way }) => way),
      200 + 60 * who,
    ),
  'slow for the node': (world, who) => slow([primaryOf(world).way], 200 + 60 * who),
  'answers and requests lost': ({ witnesses, machines }) =>
    worse(
      [...witnesses, ...machines].map(({ way }) => way),
      { loses: 0.4 },
    ),
  'answers and requests late': ({ witnesses, machines }) =>
    worse(
      [...witnesses, ...machines].map(({ way }) => way),
      { late: 0.4 },
    ),
};
const cut = (ways: Machine['way'][]) => worse(ways, { away: true });
const slow = (ways: Machine['way'][], slowMs: number) => worse(ways, { slowMs });
function worse(ways: Machine['way'][], change: Partial<Machine['way']>): () => void {
  for (const way of ways) Object.assign(way, change);
  return () => ways.forEach((way) => Object.assign(way, { away: false, slowMs: 20, loses: 0, late: 0 }));
}

const WORDS: Record<string, (world: LeaseWorld, who: number) => () => void> = {
  maintenance: (world) => {
    const { at, until } = { at: '', until: new Date(START + 1000 * HOUR).toISOString() };
    world.control = { ...world.control, rev: world.control.rev + 1, maintenance: { at, until, by: 'me' } };
    return () => (world.control = { ...world.control, rev: world.control.rev + 1, maintenance: null });
  },
  flush: (world) => {
    world.head = { ...world.head, rev: world.head.rev + 1, flush: { lsn: '0/5000000', rev: 1 } };
    return () => (world.head = { ...world.head, rev: world.head.rev + 1, flush: null });
  },
  'archiving off': (world) => {
    world.control = { ...world.control, rev: world.control.rev + 1, archiving: false };
    return () => (world.control = { ...world.control, rev: world.control.rev + 1, archiving: true });
  },
  'witness restarted': ({ witnesses }, who) => {
    witnesses[who % 2]!.restart();
    return () => {};
  },
  'witness frozen': ({ witnesses }, who) => {
    const { process } = witnesses[who % 2]!;
    process.isFrozen = true;
    return () => {
      process.isFrozen = false;
      process.wake();
    };
  },
  'standby silent': ({ machines }, who) => {
    machines[1 + (who % 2)]!.standbyHeard = false;
    return () => (machines[1 + (who % 2)]!.standbyHeard = true);
  },
  'standby behind': ({ machines }, who) => {
    machines[1 + (who % 2)]!.behindMs = who % 3 === 0 ? null : HOUR;
    return () => (machines[1 + (who % 2)]!.behindMs = 0);
  },
  'standby in trouble': (world, who) => {
    const name = `db${2 + (who % 2)}`;
    const tell = (trouble: string | null) => world.put({ ...world.rows.get(name)!, trouble });
    tell('past the fork');
    return () => tell(null);
  },
};

/** Each lane one fault after the other; the lanes side by side, until all is mended. */
function lane(walk: Begun, faults: readonly Fault[], begin: (fault: Fault) => () => void): void {
  const [fault, ...rest] = faults;
  if (fault === undefined) return;
  const { world, ends } = walk;
  world.clock.after(fault.gapMs, () => {
    if (walk.isMended) return;
    const end = begin(fault);
    ends.add(end);
    world.clock.after(fault.ms, () => {
      if (walk.isMended) return;
      ends.delete(end);
      end();
      lane(walk, rest, begin);
    });
  });
}

const unit = fc.integer({ min: 0, max: 1000 }).map((n) => n / 1000);
const faultsOf = (names: string[], leaseMs: number, count: number) =>
  fc.array(
    fc.record({
      gapMs: unit.map((n) => n * 1.5 * leaseMs),
      what: fc.constantFrom(...names),
      // mostly about as long as a lease, where it matters
      ms: unit.map((n) => n * 2.2 * leaseMs),
      who: fc.nat(30),
    }),
    { maxLength: count },
  );

/** What a walk meets: all there is, unless the test is after something rare. */
type Weather = { leases?: number[]; drift?: number[]; processes?: string[]; network?: string[] };

const walkOf = (rules: Rules, weather: Weather = {}) =>
  fc.constantFrom(...(weather.leases ?? [3000, 3000, 12_000])).chain((leaseMs) =>
    fc.record({
      terms: fc.record({
        seed: fc.nat(),
        leaseMs: fc.constant(leaseMs),
        policy: fc.record({
          autoFailover: fc.constantFrom(true, true, true, true, true, true, true, false),
          maxLagMs: fc.constant(60_000),
          coolDownMs: fc.constantFrom(0, 4 * leaseMs, HOUR),
        }),
        rates: fc.record({
          nodes: fc.tuple(...[0, 1, 2].map(() => fc.constantFrom(...(weather.drift ?? [0.995, 1, 1.005])))),
          witnesses: fc.tuple(...[0, 1].map(() => fc.constantFrom(0.995, 1, 1.005))),
        }),
        walls: fc.record({
          nodes: fc.tuple(...[0, 1, 2].map(() => fc.constantFrom(-HOUR, 0, HOUR))),
          witnesses: fc.tuple(...[0, 1].map(() => fc.constantFrom(-HOUR, 0, HOUR))),
        }),
        everyMs: fc.constantFrom(leaseMs / 30, leaseMs / 12, leaseMs / 4),
        rules: fc.constant(rules),
      }),
      processes: faultsOf(weather.processes ?? Object.keys(PROCESSES), leaseMs, 4),
      network: faultsOf(weather.network ?? Object.keys(NETWORK), leaseMs, 4),
      words: faultsOf(Object.keys(WORDS), leaseMs, weather.network === undefined ? 3 : 0),
    }),
  );
type Walk = { terms: Terms; processes: Fault[]; network: Fault[]; words: Fault[] };

type Begun = { world: LeaseWorld; ends: Set<() => void>; isMended: boolean };

function begin({ terms, processes, network, words }: Walk): Begun {
  const world = new LeaseWorld(terms);
  const walk: Begun = { world, ends: new Set(), isMended: false };
  lane(walk, processes, ({ what, ms, who }) => {
    PROCESSES[what]!(world, who % 4 === 0 ? world.machines[0]! : primaryOf(world), ms);
    return () => {};
  });
  lane(walk, network, ({ what, who }) => NETWORK[what]!(world, who));
  lane(walk, words, ({ what, who }) => WORDS[what]!(world, who));
  return walk;
}

function mend(walk: Begun): void {
  walk.isMended = true;
  for (const end of walk.ends) end();
  for (const machine of walk.world.machines) {
    machine.noAgent = false;
    machine.wake();
    for (const process of [machine.agent, machine.watchdog]) {
      process.isFrozen = false;
      process.wake();
    }
  }
}

function walk(given: Walk): LeaseWorld {
  const { world } = begin(given);
  world.runUntil(8 * given.terms.leaseMs);
  return world;
}

/** A busy machine takes several times as long. */
jest.setTimeout(120_000);

const RUNS = Number(process.env['WALVAULT_TEST_RUNS'] ?? 2000);

test('no two servers take writes at one moment, and nothing triggers that must not', () => {
  const seen = { failovers: 0, twice: 0, unhurt: 0, instants: 0, longestMs: 0 };
  fc.assert(
    fc.property(walkOf(RULES), (given) => {
      const { failovers, machines, instants, longestMs } = walk(given);
      seen.failovers += failovers.length;
      if (failovers.length > 1) seen.twice++;
      if (failovers.length === 0 && machines[0]!.state === 'open') seen.unhurt++;
      seen.instants += instants.size;
      seen.longestMs = Math.max(seen.longestMs, longestMs);
    }),
    { numRuns: RUNS },
  );
  expect(seen.failovers).toBeGreaterThan(RUNS / 20);
  expect(seen.twice).toBeGreaterThan(0);
  expect(seen.unhurt).toBeGreaterThan(RUNS / 5);
  // a machine that was asleep: the instant between its waking and its watchdog's next step is there, and is no more than that
  expect(seen.instants).toBeGreaterThan(0);
  expect(seen.longestMs).toBeLessThan(INSTANT_MS);
});

const STARTS = ['server killed', 'reboot'];
const LATE = ['answers and requests late'];
const without: [string, Partial<Rules>, Weather][] = [
  ['a lease that runs from the answer', { leaseFrom: 'answer' }, { network: LATE }],
  ['a renewal that is not conditional on control', { renewalOnControl: false }, { processes: STARTS }],
  ['a trigger that is not conditional on the sign', { triggerOnSign: false }, {}],
  ['no watchdog', { watchdog: false }, {}],
  ['no margin', { margin: false }, { leases: [3000], drift: [0.995], network: ['node away'] }],
  ['a comparison of time stamps', { silence: 'time stamps' }, {}],
  ['a clock that stands still while the machine sleeps', { countsSleep: false }, {}],
  ['a start that only looks', { startRenews: false }, { processes: STARTS, network: LATE }],
  ['a start on a renewal of long ago', { startLimit: false }, { processes: STARTS, network: LATE }],
  ['a look that counts from its beginning', { lookFrom: 'beginning' }, {}],
];
test.each(without)('finds two servers by %s', (_what, change, weather) => {
  const found = fc.check(
    fc.property(walkOf({ ...RULES, ...change }, weather), (given) => void walk(given)),
    { numRuns: 4 * RUNS, endOnFailure: true },
  );
  expect(String(found.errorInstance)).toMatch(/takes writes .* after db\d was triggered|triggered db\d/);
});

const EAGER = { autoFailover: true, maxLagMs: 60_000, coolDownMs: 0 };

test('with agent and watchdog both gone nobody stops the server, and the witness triggers beside it', () => {
  fc.assert(
    fc.property(walkOf(RULES), ({ terms }) => {
      const world = new LeaseWorld({ ...terms, policy: EAGER });
      const [db1] = world.machines;
      world.clock.after(terms.leaseMs, () => {
        db1!.noAgent = true;
        db1!.agent.kill();
        db1!.watchdog.kill();
      });
      expect(() => world.runUntil(5 * terms.leaseMs)).toThrow(/db1 takes writes/);
    }),
    { numRuns: 50 },
  );
});

test('a primary that is dead for good is replaced as soon as its lease is over, whatever happened before', () => {
  let died = 0;
  fc.assert(
    fc.property(walkOf(RULES), unit, fc.boolean(), (given, n, isOneBlind) => {
      const terms = { ...given.terms, policy: EAGER };
      const walk = begin({ ...given, terms });
      const { world } = walk;
      world.runUntil((4 + 4 * n) * terms.leaseMs);
      // all is well again, and stays so but for one witness
      mend(walk);
      if (isOneBlind) world.witnesses[0]!.way.away = true;
      world.runUntil(world.clock.now + 4 * terms.leaseMs);
      const { control, head, failovers } = world;
      const isPending = head.promotion !== null && head.promotion.state !== 'open';
      const left = world.machines.filter(({ state, isLost }) => state === 'waits' && !isLost);
      if (isPending || left.length === 0) return;
      expect(leaseOf(control, world.rows.get(control.primary!))).toBeDefined();
      died++;
      const count = failovers.length;
      const diedAt = world.clock.now;
      primaryOf(world).lose();
      const looksMs = 4 * (terms.everyMs + 200);
      // seen by a clock that may be slow, of a renewal that was under way
      const limitMs = silenceNeeded(terms.leaseMs) * 1.01 + looksMs + 1000 + terms.leaseMs / 4;
      world.runUntil(diedAt + limitMs);
      expect(world.failovers.length).toBe(count + 1);
    }),
    { numRuns: RUNS / 4 },
  );
  expect(died).toBeGreaterThan(RUNS / 5);
});

test('a vault that answers nothing for a fifth of a lease, an agent or a watchdog killed once: the primary goes on', () => {
  fc.assert(
    fc.property(
      walkOf(RULES, { leases: [12_000] }),
      unit,
      fc.constantFrom('agent killed', 'watchdog killed', 'node away', 'all away'),
      (given, n, what) => {
        const { terms } = given;
        const world = new LeaseWorld({ ...terms, policy: EAGER });
        world.clock.after((2 + n) * terms.leaseMs, () => {
          if (what.endsWith('killed')) return PROCESSES[what]!(world, world.machines[0]!, 0);
          const end = NETWORK[what]!(world, 0);
          world.clock.after(terms.leaseMs / 5, end);
        });
        world.runUntil(6 * terms.leaseMs);
        expect([world.failovers, world.machines[0]!.state, world.machines[0]!.openAt]).toEqual([
          [],
          'open',
          0,
        ]);
      },
    ),
    { numRuns: RUNS / 4 },
  );
});
