/**
 * A primary with its lease, two standbys and two witnesses in virtual time: whatever may be slow, lost, late, frozen, killed, or wrong about the
 * time. What is decided is decided by the program's own pure functions; processes, messages and the store are played, each step apart from
 * the next, so that anything may come in between. The store takes transactions on the revisions that the program's are conditional on.
 *
 * Who truly takes writes is known here alone, in true time. Written down as broken: a server that takes writes after a witness's trigger has
 * ended its epoch; a trigger that something forbade.
 */
import {
  coolDownLeft,
  decideWitness,
  plannedStop,
  remember,
  sightOf,
  signOf,
  type WitnessFacts,
  type WitnessMemory,
} from '../../core/cluster/decide-witness.ts';
import { decideTrigger } from '../../core/cluster/decide-roles.ts';
import type { Control, Head, NodeRow, WitnessPolicy, WitnessRow } from '../../core/cluster/facts.ts';
import {
  decideRenewal,
  decideWatchdog,
  leaseOf,
  leaseTimes,
  renewalLimit,
  silenceNeeded,
  startLimit,
  type KeptLease,
} from '../../core/cluster/lease.ts';
import { control, head, MiB, standby } from './facts.ts';

/** The rules that the walk can do without, to show that it sees what they are for. */
export type Rules = {
  leaseFrom: 'sending' | 'answer';
  /** Renewals are conditional on control. */
  renewalOnControl: boolean;
  /** Triggers are conditional on the sign that was seen, and on the row it is in. */
  triggerOnSign: boolean;
  /** Somebody besides the agent stops the server. */
  watchdog: boolean;
  /** The witness waits longer than the lease. */
  margin: boolean;
  silence: 'seen' | 'time stamps';
  /** The node's clock goes on while its machine sleeps. */
  countsSleep: boolean;
  /** A server is started by a renewal, rather than by a look. */
  startRenews: boolean;
  /** No start on a renewal whose lease is nearly over by the time of the answer. */
  startLimit: boolean;
  /** A look counts from its end. */
  lookFrom: 'end' | 'beginning';
};

export const RULES: Rules = {
  ...{ leaseFrom: 'sending', renewalOnControl: true, triggerOnSign: true, watchdog: true, margin: true },
  ...{ silence: 'seen', countsSleep: true, startRenews: true, startLimit: true, lookFrom: 'end' },
};

export type Terms = {
  seed: number;
  leaseMs: number;
  policy: WitnessPolicy;
  /** Of the nodes' and the witnesses' clocks: true ms to theirs. */
  rates: { nodes: readonly number[]; witnesses: readonly number[] };
  /** How far the witnesses' and the nodes' wall clocks are off, ms. */
  walls: { nodes: readonly number[]; witnesses: readonly number[] };
  everyMs: number;
  rules: Rules;
};

const WATCHDOG_MS = 250;
const AGENT_LOOK_MS = 500;
const BEAT_LIMIT_MS = 2000;
const KILL_MS = 60;
const SWITCH_MS = 30;
/** A machine that wakes, or a server that starts, may take writes until the watchdog's next step: one look, the wait for an agent in it, and the kill. */
export const INSTANT_MS = 2 * WATCHDOG_MS + 4 * SWITCH_MS + KILL_MS;

export class Broken extends Error {}

// globals are slow to look up where jest runs a test
const { imul, max, min, round } = Math;

/** mulberry32 */
function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = imul(state ^ (state >>> 15), 1 | state);
    t = (t + imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Runs what is due in the order of true time. */
class Clockwork {
  now = 0;
  #number = 0;
  readonly #heap: { at: number; number: number; run: () => void }[] = [];

  after(ms: number, run: () => void): void {
    const heap = this.#heap;
    const item = { at: this.now + max(0, ms), number: this.#number++, run };
    let index = heap.push(item) - 1;
    while (index > 0) {
      const up = (index - 1) >> 1;
      if (!isBefore(item, heap[up]!)) break;
      heap[index] = heap[up]!;
      index = up;
    }
    heap[index] = item;
  }

  /** @param each  called before each step, with the time of the step */
  runUntil(end: number, each: () => void): void {
    for (let next = this.#heap[0]; next !== undefined && next.at <= end; next = this.#heap[0]) {
      this.#take();
      this.now = next.at;
      each();
      next.run();
    }
    this.now = end;
    each();
  }

  #take(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let index = 0;
    for (;;) {
      let least = 2 * index + 1;
      if (least >= heap.length) break;
      if (least + 1 < heap.length && isBefore(heap[least + 1]!, heap[least]!)) least++;
      if (!isBefore(heap[least]!, last)) break;
      heap[index] = heap[least]!;
      index = least;
    }
    heap[index] = last;
  }
}

const isBefore = (a: { at: number; number: number }, b: { at: number; number: number }): boolean =>
  a.at < b.at || (a.at === b.at && a.number < b.number);

/** Something that runs, sleeps and dies. What comes due while it sleeps is done when it wakes; what it began before it died is not done. */
class Process {
  readonly #world: LeaseWorld;
  readonly #bed: { isAsleep: boolean } | undefined;
  life = 0;
  isUp = true;
  isFrozen = false;
  #waiting: (() => void)[] = [];

  constructor(world: LeaseWorld, bed?: { isAsleep: boolean }) {
    this.#world = world;
    this.#bed = bed;
  }

  get isAwake(): boolean {
    return this.isUp && !this.isFrozen && this.#bed?.isAsleep !== true;
  }

  after(ms: number, run: () => void): void {
    const { life } = this;
    this.#world.clock.after(ms, () => this.#due(life, run));
  }

  #due(life: number, run: () => void): void {
    if (life !== this.life || !this.isUp) return;
    if (this.isAwake) run();
    // a timer counts no sleep of the machine: it is due as long after as it was before
    else this.#waiting.push(() => this.after(this.#world.random() * WATCHDOG_MS, run));
  }

  kill(): void {
    this.isUp = false;
    this.isFrozen = false;
    this.life++;
    this.#waiting = [];
  }

  start(): void {
    this.kill();
    this.isUp = true;
  }

  wake(): void {
    if (!this.isAwake) return;
    for (const run of this.#waiting.splice(0)) run();
  }
}

/** How a party is connected to the vault. */
export type Way = { away: boolean; slowMs: number; loses: number; late: number };

export class Machine {
  readonly world: LeaseWorld;
  readonly name: string;
  readonly index: number;
  readonly way: Way = { away: false, slowMs: 20, loses: 0, late: 0 };
  boot = 1;
  #bootedAt = 0;
  #sleptMs = 0;
  #sleepsSince = 0;
  isAsleep = false;
  isLost = false;
  wokeAt = -Infinity;
  readonly agent: Process;
  readonly watchdog: Process;
  readonly guard: Process;
  readonly server: Process;
  /** open: takes writes, under `epoch`, since `openAt`. */
  state: 'open' | 'waits' | 'none' = 'none';
  epoch = 0;
  openAt = 0;
  seat = 0;
  lease: KeptLease | undefined;
  beat = { boot: 0, at: -Infinity };
  /** Nobody can start them. */
  noAgent = false;
  behindMs: number | null = 0;
  standbyHeard = true;
  #did: { watchdog?: string | undefined; agent?: string | undefined } = {};
  #ends = 0;
  #missed = 0;
  #caredAt = -Infinity;
  #isStarting = false;

  constructor(world: LeaseWorld, index: number) {
    this.world = world;
    this.index = index;
    this.name = `db${index + 1}`;
    this.#bootedAt = -100_000 * (index + 1);
    this.agent = new Process(world, this);
    this.watchdog = new Process(world, this);
    this.guard = new Process(world, this);
    this.server = new Process(world, this);
  }

  /** The node's clock, ms. */
  bootMs(): number {
    const { terms, clock } = this.world;
    const slept = terms.rules.countsSleep
      ? 0
      : this.#sleptMs + (this.isAsleep ? clock.now - this.#sleepsSince : 0);
    return round(((clock.now - this.#bootedAt - slept) * terms.rates.nodes[this.index]!) / 10) * 10;
  }

  get bootId(): string {
    return `${this.name} ${this.boot}`;
  }

  run(): void {
    this.watchdog.after(this.world.random() * WATCHDOG_MS, () => this.#watch());
    this.agent.after(this.world.random() * 100, () => this.#beat());
    this.agent.after(this.world.random() * AGENT_LOOK_MS, () => this.#agentLooks());
    this.agent.after(this.world.random() * 300, () => this.#follow());
  }

  // the server

  open(epoch: number): void {
    this.state = 'open';
    this.epoch = epoch;
    this.openAt = this.world.clock.now;
    this.#ends = 0;
  }

  #end(how: 'fast' | 'immediate' | 'kill'): void {
    const { random } = this.world;
    if (how !== 'kill' && random() < 0.4) return; // hangs
    const ms = how === 'fast' ? random() * 3000 : how === 'immediate' ? random() * 500 : random() * KILL_MS;
    this.#ends++;
    this.server.after(ms, () => this.crash());
  }

  /** Gone at once; systemd starts it again by guard. */
  crash(): void {
    if (this.state === 'none') return;
    this.state = 'none';
    this.#ends = 0;
    this.server.start();
    if (!this.#isStarting) this.guard.after(200 + this.world.random() * 1500, () => this.#start());
    this.#isStarting = true;
  }

  sleep(): void {
    this.isAsleep = true;
    this.#sleepsSince = this.world.clock.now;
  }

  wake(): void {
    if (!this.isAsleep) return;
    this.#sleptMs += this.world.clock.now - this.#sleepsSince;
    this.isAsleep = false;
    this.wokeAt = this.world.clock.now;
    for (const process of [this.agent, this.watchdog, this.guard, this.server]) process.wake();
  }

  lose(): void {
    this.isLost = true;
    this.state = 'none';
    for (const process of [this.agent, this.watchdog, this.guard, this.server]) process.kill();
  }

  reboot(): void {
    this.state = 'none';
    for (const process of [this.agent, this.watchdog, this.guard, this.server]) process.kill();
    this.boot++;
    this.#bootedAt = this.world.clock.now;
    this.#did = {};
    for (const process of [this.guard, this.server]) process.start();
    this.#isStarting = true;
    this.guard.after(500 + this.world.random() * 3000, () => this.#start());
  }

  // the state directory

  #keep(sentAt: number, epoch: number): void {
    const { leaseMs: ms } = this.world.terms;
    const until = sentAt + ms;
    const kept = this.lease;
    if (kept?.boot === this.bootId && kept.epoch === epoch && kept.ms === ms && kept.until > until) return;
    this.lease = { boot: this.bootId, until, ms, epoch };
  }

  #endLease(): void {
    const kept = this.lease;
    const until = this.bootMs() + (kept?.ms ?? 0) / 3;
    if (kept === undefined || kept.boot !== this.bootId || kept.until <= until) return;
    this.lease = { ...kept, until };
  }

  // the watchdog, and the agent where it does the same

  #look(by: 'watchdog' | 'agent'): void {
    if (!this.world.terms.rules.watchdog && by === 'watchdog') return;
    const action = decideWatchdog({
      ...{ boot: this.bootId, now: this.bootMs(), lease: this.lease, server: this.state },
    });
    if (action.do !== 'stop') {
      this.#did[by] = undefined;
      return;
    }
    if (action.how === 'kill' || this.#did[by] !== action.how) this.#end(action.how);
    this.#did[by] = action.how;
  }

  #watch(): void {
    this.beat = { boot: this.boot, at: this.bootMs() };
    this.#look('watchdog');
    this.#care();
    this.watchdog.after(WATCHDOG_MS + this.world.random() * SWITCH_MS, () => this.#watch());
  }

  #care(): void {
    const { clock, terms, random } = this.world;
    if (this.noAgent || clock.now - this.#caredAt < 1000) return;
    this.#caredAt = clock.now;
    if (!this.agent.isUp) return this.watchdog.after(random() * 300, () => this.startAgent());
    const ageMs = this.lease === undefined ? 0 : this.bootMs() - (this.lease.until - this.lease.ms);
    if (ageMs <= leaseTimes(terms.leaseMs).fast / 2 || this.agent.isAwake) this.#missed = 0;
    else if (++this.#missed === 2) {
      this.#missed = 0;
      this.agent.kill();
    }
  }

  startAgent(): void {
    if (this.noAgent || this.agent.isUp || this.isLost) return;
    this.agent.start();
    const { random } = this.world;
    this.agent.after(random() * 200, () => this.#beat());
    this.agent.after(random() * AGENT_LOOK_MS, () => this.#agentLooks());
    this.agent.after(random() * 300, () => this.#follow());
  }

  get isWatched(): boolean {
    return this.beat.boot === this.boot && this.bootMs() - this.beat.at <= BEAT_LIMIT_MS;
  }

  /** One that is frozen gives way. */
  #startWatchdog(): void {
    this.watchdog.start();
    this.watchdog.after(this.world.random() * 200, () => this.#watch());
  }

  #agentLooks(): void {
    this.#look('agent');
    this.agent.after(AGENT_LOOK_MS, () => this.#agentLooks());
  }

  // the agent

  #beat(): void {
    const { terms } = this.world;
    const again = (ms: number) => this.agent.after(ms, () => this.#beat());
    if (this.state === 'waits') {
      if (this.standbyHeard) this.#report();
      return again(terms.leaseMs / 4);
    }
    if (this.state !== 'open') return again(500);
    if (!this.isWatched) {
      this.#startWatchdog();
      return again(300);
    }
    let isOver = false;
    const over = (ms: number) => {
      if (!isOver) again(ms);
      isOver = true;
    };
    this.agent.after(renewalLimit(terms.leaseMs), () => over(terms.leaseMs / 12));
    this.#renew(
      this.agent,
      (sentAt, epoch) => {
        this.#keep(sentAt, epoch);
        if (this.world.random() < 0.5) this.#swapNonce();
        over(terms.leaseMs / 4);
      },
      (code) => {
        if (code === 'fenced') this.#endLease();
        over(terms.leaseMs / 12);
      },
    );
  }

  /** One renewal, by the agent or by guard. */
  #renew(by: Process, done: (sentAt: number, epoch: number) => void, failed: (code: string) => void): void {
    const { world } = this;
    const { terms, random } = world;
    world.ask(this.way, by, () => {
      const read = { control: world.control, row: world.rows.get(this.name) };
      return () => {
        const me = {
          node: this.name,
          writerEpoch: this.seat,
          ms: terms.leaseMs,
          watchdog: 'process' as const,
        };
        const decision = decideRenewal(read.control, read.row, me);
        if (decision.do === 'refuse') return failed(decision.code);
        const sentAt = this.bootMs();
        by.after(random() * 3, () =>
          world.ask(this.way, by, () => {
            const isFenced = terms.rules.renewalOnControl && world.control.rev !== read.control.rev;
            const isDone = !isFenced && world.rows.get(this.name)!.rev === read.row!.rev;
            if (isDone) {
              const heartbeatAt = new Date(world.clock.now + terms.walls.nodes[this.index]!).toISOString();
              world.put({ ...read.row!, role: 'primary', lease: decision.lease, heartbeatAt });
            }
            return () => {
              if (isDone)
                done(terms.rules.leaseFrom === 'sending' ? sentAt : this.bootMs(), decision.lease.epoch);
              else by.after(random() * 100, () => this.#renew(by, done, failed));
            };
          }),
        );
      };
    });
  }

  #swapNonce(): void {
    const { world } = this;
    world.ask(this.way, this.agent, () => {
      const [ctl, hd] = [world.control, world.head];
      return () =>
        world.ask(this.way, this.agent, () => {
          if (world.control.rev === ctl.rev && world.head.rev === hd.rev && ctl.primary === this.name)
            world.head = {
              ...hd,
              rev: hd.rev + 1,
              writer: { node: this.name, nonce: `n${hd.rev}`, place: '' },
            };
          return () => {};
        });
    });
  }

  #report(): void {
    const { world } = this;
    world.ask(this.way, this.agent, () => {
      const row = world.rows.get(this.name)!;
      // on condition of what was read, as every row is written: one that lands late, when this node renews a lease already, does not
      return () => {
        if (this.state !== 'waits') return; // promoted meanwhile: it is no news any more
        world.ask(this.way, this.agent, () => {
          if (world.rows.get(this.name)!.rev === row.rev) world.put({ ...row, role: 'standby', lease: null });
          return () => {};
        });
      };
    });
  }

  /** A standby that finds itself triggered opens; where the answer was lost, it asks again. */
  #follow(): void {
    const { world } = this;
    this.agent.after(300, () => this.#follow());
    const { promotion } = world.head;
    if (this.state !== 'waits' || promotion?.node !== this.name) return;
    if (!this.isWatched) return this.#startWatchdog();
    const sentAt = this.bootMs();
    world.ask(this.way, this.agent, () => {
      const { head: now } = world;
      const isMine = now.promotion?.id === promotion.id;
      const writer = { node: this.name, nonce: `o${now.rev}`, place: '' };
      if (isMine && now.promotion?.state === 'triggered')
        world.head = { ...now, rev: now.rev + 1, writer, promotion: { ...promotion, state: 'open' } };
      return () => {
        if (!isMine || this.state !== 'waits') return;
        this.seat = promotion.epoch;
        this.#keep(sentAt, promotion.epoch);
        this.open(promotion.epoch);
      };
    });
  }

  // the start of a server that was the primary

  #start(): void {
    const { world } = this;
    const { random, terms } = world;
    const again = () => this.guard.after(300 + random() * 1500, () => this.#start());
    let isOver = false;
    const over = (then: () => void) => {
      if (!isOver) then();
      isOver = true;
    };
    if (!this.isWatched) this.#startWatchdog();
    const start = (epoch: number) =>
      this.server.after(random() * 400, () => {
        this.#isStarting = false;
        this.open(epoch);
        if (!this.agent.isUp) this.startAgent();
      });
    this.guard.after(10_000, () => over(again));
    if (terms.rules.startRenews)
      this.#renew(
        this.guard,
        (sentAt, epoch) => {
          this.#keep(sentAt, epoch);
          const isLate = terms.rules.startLimit && this.bootMs() - sentAt > startLimit(terms.leaseMs);
          over(isLate ? again : () => start(epoch));
        },
        () => over(again),
      );
    else
      world.ask(this.way, this.guard, () => {
        const ctl = world.control;
        return () =>
          over(() => {
            if (ctl.primary !== this.name || this.seat < ctl.reign) return again();
            this.#keep(this.bootMs(), ctl.reign); // by its own word
            start(ctl.reign);
          });
      });
  }
}

export class Witness {
  readonly world: LeaseWorld;
  readonly index: number;
  readonly way: Way = { away: false, slowMs: 20, loses: 0, late: 0 };
  readonly process: Process;
  memory: WitnessMemory | undefined;

  constructor(world: LeaseWorld, index: number) {
    this.world = world;
    this.index = index;
    this.process = new Process(world);
  }

  get nowMs(): number {
    return this.world.clock.now * this.world.terms.rates.witnesses[this.index]!;
  }

  get wallMs(): number {
    return START + this.nowMs + this.world.terms.walls.witnesses[this.index]!;
  }

  run(): void {
    this.process.after(this.world.random() * this.world.terms.everyMs, () => this.#look());
  }

  restart(): void {
    this.process.start();
    this.memory = undefined;
    this.run();
  }

  #look(): void {
    const { world } = this;
    const { everyMs } = world.terms;
    const started = this.nowMs;
    const next = () => this.process.after(max(10, everyMs - (this.nowMs - started)), () => this.#look());
    let isOver = false;
    const ended = (facts?: WitnessFacts, row?: WitnessRow) => {
      if (isOver) return;
      isOver = true;
      const at = this.nowMs;
      const look = { at: world.terms.rules.lookFrom === 'end' ? at : started, tookMs: at - started, everyMs };
      this.memory = remember(
        this.memory,
        facts === undefined ? { ...look, failure: 'away' } : { ...look, facts },
      );
      if (facts === undefined) next();
      else this.#decide(facts, row, next);
    };
    this.process.after(6000, () => ended());
    if (this.way.away) return this.process.after(world.random() * 1000, () => ended());
    world.ask(this.way, this.process, () => {
      const ctl = world.control;
      return () =>
        world.ask(this.way, this.process, () => {
          const { head: hd, witness } = world;
          const primary = world.rows.get(ctl.primary!);
          const standbys = world.machines
            .filter(({ name }) => name !== ctl.primary)
            .map(({ name, behindMs }) => ({ row: world.rows.get(name)!, behindMs, gap: undefined }));
          return () => ended({ control: ctl, head: hd, primary, standbys, segmentSize: 16 * MiB }, witness);
        });
    });
  }

  #decide(facts: WitnessFacts, row: WitnessRow | undefined, next: () => void): void {
    const { terms } = this.world;
    const { policy, rules, leaseMs } = terms;
    const sight = sightOf(this.memory!, this.nowMs, leaseOf(facts.control, facts.primary)?.ms);
    if (!rules.margin) sight.silentMs += silenceNeeded(leaseMs) - leaseMs;
    if (rules.silence === 'time stamps')
      sight.silentMs = this.wallMs - START - (Date.parse(facts.primary?.heartbeatAt ?? '') || 0);
    const coolMs = coolDownLeft(row?.lastFailover ?? null, policy, this.wallMs);
    const decision = decideWitness(facts, sight, policy, { nowMs: this.wallMs, coolMs });
    if (decision.do !== 'trigger') return next();
    this.world.decided++;
    this.#trigger(facts, decision.to!, `${this.index} ${this.world.clock.now}`, this.world.clock.now, next);
  }

  #trigger(seen: WitnessFacts, to: string, id: string, since: number, next: () => void): void {
    const { world } = this;
    const { rules, policy } = world.terms;
    let isOver = false;
    const over = () => {
      if (!isOver) next();
      isOver = true;
    };
    const again = () => {
      if (isOver) return;
      isOver = true;
      if (world.clock.now - since > 30_000) return next();
      this.process.after(world.random() * 300, () => this.#trigger(seen, to, id, since, next));
    };
    this.process.after(10_000, again);
    const { way, process } = this;
    world.ask(way, process, () => {
      const read = { control: world.control, head: world.head, target: world.rows.get(to) };
      return () => {
        if (read.head.promotion?.id === id) return over();
        const at = new Date(this.wallMs).toISOString();
        const decision = decideTrigger(read.control, read.head, read.target, { id, at, mode: 'smart', to });
        if (decision.do === 'refuse') return over();
        world.ask(way, process, () => {
          const judged = { primary: world.rows.get(seen.control.primary!)!, row: world.witness };
          return () => {
            const facts = { control: read.control, head: read.head, primary: judged.primary };
            if (rules.triggerOnSign && signOf(facts) !== signOf(seen)) return over();
            if (plannedStop(read.control, read.head, this.wallMs) !== undefined) return over();
            if (coolDownLeft(judged.row?.lastFailover ?? null, policy, this.wallMs) > 0) return over();
            process.after(world.random() * 3, () =>
              world.ask(way, process, () => {
                const isDone =
                  world.control.rev === read.control.rev &&
                  world.head.rev === read.head.rev &&
                  world.rows.get(to)!.rev === read.target!.rev &&
                  (!rules.triggerOnSign || world.rows.get(judged.primary.name)!.rev === judged.primary.rev) &&
                  world.witness?.rev === judged.row?.rev;
                if (isDone) world.triggered(this, decision, judged.row, to, at);
                return isDone ? over : again;
              }),
            );
          };
        });
      };
    });
  }
}

export const START = Date.parse('2026-01-01T00:00:00.000Z');

/** The failovers that happened, in true time; `decidedAt`: when its witness wrote down that it triggers, from which the cool-down counts. */
export type Failover = { at: number; decidedAt: number; by: number; to: string; from: string };

export class LeaseWorld {
  readonly terms: Terms;
  readonly clock = new Clockwork();
  readonly random: () => number;
  readonly machines: Machine[];
  readonly witnesses: Witness[];
  control: Control = control({ epoch: 1 });
  head: Head = head();
  readonly rows = new Map<string, NodeRow>();
  witness: WitnessRow | undefined;
  readonly failovers: Failover[] = [];
  decided = 0;
  /** How often, and for how long at most, a woken machine took writes beside the new primary, ms. */
  instants = new Set<string>();
  longestMs = 0;

  constructor(terms: Terms) {
    this.terms = terms;
    this.random = random(terms.seed);
    this.machines = [0, 1, 2].map((index) => new Machine(this, index));
    this.witnesses = [0, 1].map((index) => new Witness(this, index));
    const [db1, ...others] = this.machines as [Machine, Machine, Machine];
    const none = { restartPoint: null, failoverPriority: 100 };
    for (const { name } of this.machines) this.rows.set(name, standby({ name, sk: `node#${name}`, ...none }));
    this.rows.set('db1', { ...this.rows.get('db1')!, role: 'primary' });
    db1.seat = 1;
    db1.lease = { boot: db1.bootId, until: db1.bootMs() + terms.leaseMs, ms: terms.leaseMs, epoch: 1 };
    db1.open(1);
    for (const other of others) other.state = 'waits';
    for (const each of [...this.machines, ...this.witnesses]) each.run();
  }

  put(row: NodeRow): void {
    this.rows.set(row.name, { ...row, rev: this.rows.get(row.name)!.rev + 1 });
  }

  /**
   * A request: it reaches the store, which carries out `act`, and the answer comes back, if its asker is still there. Away: it does not arrive.
   * Lost: it does not arrive, or its answer does not. Late: it arrives a long time after its asker has given up.
   */
  ask(way: Way, by: Process, act: () => () => void): void {
    const { random } = this;
    const travel = () => (random() < 0.02 ? random() * way.slowMs * 20 : random() * way.slowMs);
    if (way.away || random() < way.loses / 2) return;
    const lateMs = random() < way.late ? random() * 2 * this.terms.leaseMs : 0;
    const { life } = by;
    this.clock.after(travel() + lateMs, () => {
      const answer = act();
      if (way.away || random() < way.loses / 2 || by.life !== life) return;
      by.after(travel() + (random() < way.late ? random() * 3 * this.terms.leaseMs : 0), answer);
    });
  }

  triggered(
    witness: Witness,
    decision: { control: Control; head: Head },
    row: WitnessRow | undefined,
    to: string,
    at: string,
  ): void {
    const { control: ctl, head: hd, clock, terms } = this;
    const from = ctl.primary!;
    const refuse = (why: string) => {
      throw new Broken(`at ${clock.now.toFixed(0)}: witness ${witness.index} triggered ${to}: ${why}`);
    };
    if (ctl.maintenance && Date.parse(ctl.maintenance.until) > witness.wallMs) refuse('maintenance');
    if (hd.flush !== null) refuse('flushed');
    if (!ctl.archiving) refuse('archiving is off');
    if (hd.promotion !== null && hd.promotion.state !== 'open') refuse('a promotion is pending');
    if (leaseOf(ctl, this.rows.get(from)) === undefined) refuse('no lease');
    if (!terms.policy.autoFailover) refuse('auto_failover is off');
    if (witness.memory?.looks.at(-1)?.ok !== true) refuse('blind');
    const last = this.failovers.at(-1);
    if (last !== undefined) {
      // between two witnesses it is shorter by as much as the clock of the second is ahead
      const { witnesses } = terms.walls;
      const aheadMs = max(0, witnesses[witness.index]! - witnesses[last.by]!);
      if (clock.now - last.decidedAt < terms.policy.coolDownMs * 0.98 - aheadMs) refuse('within cool_down');
    }
    const decidedAt =
      (Date.parse(at) - START - terms.walls.witnesses[witness.index]!) /
      terms.rates.witnesses[witness.index]!;
    this.failovers.push({ at: clock.now, decidedAt, by: witness.index, to, from });
    this.control = decision.control;
    this.head = decision.head;
    const lastFailover = { epoch: decision.control.epoch, to, at };
    this.witness = {
      ...(row ?? ({ pk: 'p', sk: 'witness' } as WitnessRow)),
      rev: (row?.rev ?? 0) + 1,
      lastFailover,
    };
  }

  /** Before each step: what stood until now. */
  check(): void {
    if (this.failovers.length === 0) return;
    for (const machine of this.machines) {
      if (machine.state !== 'open' || machine.isAsleep || machine.epoch >= this.control.reign) continue;
      const { now } = this.clock;
      const since = this.failovers.findLast(({ from }) => from === machine.name)!.at;
      // by then no server of this machine takes writes, unless it was asleep since its lease was confirmed
      const wokeMs = now - machine.wokeAt;
      if (now <= since) continue;
      const openMs = min(wokeMs, now - machine.openAt);
      if (machine.wokeAt > since - this.terms.leaseMs && openMs <= INSTANT_MS) {
        this.instants.add(`${machine.name} ${machine.wokeAt}`);
        this.longestMs = max(this.longestMs, openMs);
        continue;
      }
      throw new Broken(
        `at ${now.toFixed(0)}: ${machine.name} takes writes ${(now - since).toFixed(0)} ms after ${this.control.primary} was triggered`,
      );
    }
  }

  runUntil(ms: number): void {
    this.clock.runUntil(ms, () => this.check());
  }
}
