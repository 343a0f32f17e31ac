/**
 * Random histories of a vault: archives, gaps, promotions that lose and such that do not, nodes that come, go, sleep and return, backups
 * and restores that end or die, a replica that stands still, clocks an hour off; and retention between any two of them. Who truly needs
 * what is kept by the test itself, segment by segment.
 */
import fc from 'fast-check';
import {
  decideRetention,
  decideRow,
  isBelowHorizon,
  type RetentionFacts,
  type RetentionPolicy,
} from '../../../core/cluster/decide-retention.ts';
import type { BackupRow, HoldsRow, NodeRow, RelayRow } from '../../../core/cluster/facts.ts';
import { lineageOf, timelineAt, type Lineage } from '../../../core/wal/lineage.ts';
import { segmentStart } from '../../../core/wal/name.ts';
import { control, head } from '../../harness/facts.ts';
import {
  at,
  backup,
  DAY,
  historyOf,
  HOUR,
  lsnOf,
  NOW,
  relay,
  seg,
  SIZE,
  vaultOf,
  type Fork,
} from '../../harness/retention-facts.ts';

type Place = { timeline: number; segment: number };
type Server = Place & { clockMs: number; heardMs: number; isUp: boolean; isLost: boolean };

class World {
  forks: Fork[] = [];
  timeline = 1;
  last = 1;
  /** The next segment of the live timeline. */
  next = 1;
  rows = new Set<string>();
  nowMs = NOW.getTime();
  readonly nodes = new Map<string, Server>();
  backups: (BackupRow & Place)[] = [];
  readonly holds = new Map<string, Place & { kind: 'backup' | 'restore'; heardMs: number; of: string }>();
  horizon: HoldsRow['horizon'] = {};
  gaps: RetentionFacts['gaps'] = [];
  replica: (Place & { heardMs: number }) | undefined;
  primary = 'db1';
  number = 0;
  readonly policy: RetentionPolicy;

  constructor(policy: RetentionPolicy) {
    this.policy = policy;
  }

  lineage(timeline = this.timeline): Lineage {
    return lineageOf(timeline, historyOf(timeline, this.forks));
  }

  archive(count: number): void {
    for (; count > 0; count--) this.rows.add(seg(this.timeline, this.next++));
  }

  /** Those who need WAL, as the world knows it: not what retention thinks. */
  needs(): (Place & { who: string })[] {
    const found: (Place & { who: string })[] = [];
    for (const [who, node] of this.nodes)
      if (!node.isLost && who !== this.primary && this.nowMs - node.heardMs < this.policy.nodeLeaseMs)
        found.push({ who, ...node });
    for (const [who, hold] of this.holds)
      if (this.nowMs - hold.heardMs < this.policy.nodeLeaseMs) found.push({ who, ...hold });
    for (const row of this.backups)
      if (row.state === 'complete')
        found.push({ who: `backup ${row.id}`, timeline: row.timeline, segment: row.segment });
    if (this.replica && this.nowMs - this.replica.heardMs < this.policy.relayLeaseMs)
      found.push({ who: 'replica', ...this.replica });
    return found;
  }

  /** Everything that was archived, on its own branch and on the live one, from the place on or from where the two part. */
  missing(place: Place): string[] {
    const [own, live] = [this.lineage(place.timeline), this.lineage()];
    let parted = 0n;
    for (const [index, mine] of own.entries()) {
      const theirs = live[index];
      if (theirs?.timeline !== mine.timeline || theirs.begins !== mine.begins) break;
      parted = [mine.ends, theirs.ends].reduce<bigint>(
        (least, each) => (each !== null && each < least ? each : least),
        2n ** 63n,
      );
      if (mine.ends !== theirs.ends) break;
    }
    const from = lsnOf(place.segment) < parted ? lsnOf(place.segment) : parted;
    return this.gone.filter((name) => {
      const start = segmentStart(name, SIZE);
      if (start + BigInt(SIZE) <= from) return false;
      return [own, live].some(
        (lineage) => timelineAt(lineage, start, SIZE) === Number.parseInt(name.slice(0, 8), 16),
      );
    });
  }

  /** Names of what was deleted. */
  gone: string[] = [];

  facts(): RetentionFacts {
    const time = (ms: number): string => new Date(ms).toISOString();
    const rows = [...this.nodes].map(([name, node]): NodeRow => ({
      ...{ pk: 'p', sk: `node#${name}`, rev: 1, name, role: name === this.primary ? 'primary' : 'standby' },
      heartbeatAt: time(node.heardMs + node.clockMs),
      ...{
        walvaultVersion: null,
        postgresVersion: null,
        place: null,
        lastArchived: null,
        lastRestored: null,
      },
      ...{
        lastReplayedLsn: null,
        restartPoint: seg(node.timeline, node.segment),
        consistent: true,
        trouble: null,
      },
    }));
    const holds = [...this.holds].map(([id, { kind, timeline, segment, heardMs }]) => [
      id,
      { kind, from: seg(timeline, segment), node: 'x', at: time(heardMs) },
    ]);
    const relays: RelayRow[] =
      this.replica === undefined
        ? []
        : [
            relay({
              timeline: this.replica.timeline,
              lsn: at(this.replica.segment),
              at: time(this.replica.heardMs),
            }),
          ];
    return vaultOf(
      { timeline: this.timeline, forks: this.forks },
      {
        control: control({ primary: this.primary }),
        head: head({ timeline: this.timeline, lastTimeline: this.last, lsn: at(this.next), firstLsn: at(1) }),
        nodes: rows,
        holds: { horizon: this.horizon, holds: Object.fromEntries(holds) },
        ...{ backups: this.backups, relays, gaps: this.gaps, policy: this.policy, now: new Date(this.nowMs) },
      },
    );
  }

  retain(): ReturnType<typeof decideRetention> {
    const facts = this.facts();
    const decision = decideRetention(facts);
    for (const [timeline, name] of Object.entries(this.horizon))
      expect(decision.horizon[timeline]! >= name).toBe(true);
    this.horizon = decision.horizon;
    for (const { kind, id } of decision.ended) if (kind === 'hold') this.holds.delete(id);
    this.checkBackups(decision);
    const gone = new Set(decision.backups.filter((each) => each.do !== 'keep').map(({ row }) => row.id));
    this.backups = this.backups.filter(({ id }) => !gone.has(id));
    for (const name of this.rows)
      if (decideRow(name, facts.lineage, this.horizon, SIZE) === 'delete' && this.rows.delete(name))
        this.gone.push(name);
    return decision;
  }

  /** What a person was promised: the newest, the pinned, and the way to any moment of the window. */
  checkBackups({ backups }: ReturnType<typeof decideRetention>): void {
    const complete = backups.filter(({ row }) => row.state === 'complete');
    const kept = complete.filter((each) => each.do === 'keep').map(({ row }) => row);
    const timeOf = (row: BackupRow): number => Date.parse(row.finishedAt!);
    for (const { row, do: what } of complete) {
      if (what === 'keep') continue;
      expect(row.pinned).not.toBe(true);
      // its clock may have been an hour ahead
      expect(this.nowMs - timeOf(row) + HOUR).toBeGreaterThanOrEqual(this.policy.pitrWindowMs);
      expect(kept.some((one) => timeOf(one) >= timeOf(row) - 2 * HOUR)).toBe(true);
    }
  }

  check(): void {
    for (const need of this.needs())
      expect({ ...need, missing: this.missing(need) }).toEqual({ ...need, missing: [] });
  }
}

type Step = { what: string; a: number; b: number };

function take(world: World, { what, a, b }: Step): void {
  const pick = <T>(items: readonly T[]): T | undefined => items[a % Math.max(1, items.length)];
  const live = world.lineage();
  const onBranch = (place: Place): boolean => {
    const part = live.find(({ timeline }) => timeline === place.timeline);
    return part !== undefined && (part.ends === null || lsnOf(place.segment) < part.ends);
  };
  const alive = [...world.nodes].filter(
    ([name, node]) => node.isUp && !node.isLost && name !== world.primary,
  );
  const complete = world.backups.filter(({ state }) => state === 'complete');
  const clockMs = (b % 3) * HOUR - HOUR;
  const isHeld = (place: Place): boolean =>
    !isBelowHorizon(world.horizon, seg(place.timeline, place.segment));
  switch (what) {
    case 'archive':
      return world.archive(1 + (a % 6));
    case 'gap': {
      const first = seg(world.timeline, world.next);
      world.next += 1 + (a % 2);
      const to = seg(world.timeline, world.next - 1);
      world.gaps = [
        ...world.gaps,
        { pk: 'p', sk: `gap#${first}`, rev: 1, from: first, to, at: '', reason: 'off' },
      ];
      return;
    }
    case 'time': {
      world.nowMs += (a % 3) * DAY + b * HOUR;
      for (const node of world.nodes.values()) if (node.isUp) node.heardMs = world.nowMs;
      return;
    }
    case 'node': {
      const from = pick(complete);
      if (from === undefined || !isHeld(from)) return;
      const place = { timeline: from.timeline, segment: from.segment };
      world.nodes.set(`n${++world.number}`, {
        ...place,
        clockMs,
        heardMs: world.nowMs,
        isUp: true,
        isLost: false,
      });
      return;
    }
    case 'follow': {
      const node = pick(alive)?.[1];
      if (node === undefined || !onBranch(node) || world.next <= node.segment) return;
      const segment = Math.min(world.next - 1, node.segment + (b % 9));
      Object.assign(node, { segment, timeline: timelineAt(live, lsnOf(segment), SIZE) });
      return;
    }
    case 'sleep': {
      const node = pick(alive)?.[1];
      if (node) node.isUp = false;
      return;
    }
    case 'wake': {
      const node = pick([...world.nodes.values()].filter(({ isUp }) => !isUp));
      if (node === undefined) return;
      // longer than its lease: what it finds is what it finds
      if (world.nowMs - node.heardMs >= world.policy.nodeLeaseMs && world.missing(node).length > 0)
        node.isLost = true;
      Object.assign(node, { isUp: true, heardMs: world.nowMs });
      return;
    }
    case 'promote': {
      const found = pick(alive);
      if (found === undefined || !onBranch(found[1])) return;
      const [name, node] = found;
      const segment = b % 2 === 0 ? world.next : Math.max(node.segment, world.next - (b % 7));
      const fork = lsnOf(segment, b % 3 === 0 ? 0 : 777);
      const parent = timelineAt(live, segment === 0 ? 0n : lsnOf(segment - (b % 3 === 0 ? 1 : 0)), SIZE);
      const begins = live.find(({ timeline }) => timeline === parent)!.begins;
      if (fork <= begins) return;
      world.forks = [...world.forks, { timeline: ++world.last, parent, at: fork }];
      world.timeline = world.last;
      world.next = segment;
      // the one before is fenced: when it is made a standby again it is somebody new, with a place of its own
      world.nodes.delete(world.primary);
      world.primary = name;
      return;
    }
    case 'backup': {
      const segment = Math.max(world.next - 1 - (a % 2), 0);
      const timeline = timelineAt(live, lsnOf(segment), SIZE);
      const id = `b${++world.number}`;
      if (!isHeld({ timeline, segment }) || !world.rows.has(seg(timeline, segment))) return;
      const row = backup(id, seg(timeline, segment), 0, { state: 'running' });
      const times = { startedAt: new Date(world.nowMs + clockMs).toISOString(), finishedAt: null };
      world.backups = [...world.backups, Object.assign(row, times, { segment })];
      world.holds.set(`backup-${id}`, { kind: 'backup', timeline, segment, heardMs: world.nowMs, of: id });
      return;
    }
    case 'end': {
      const found = pick([...world.holds]);
      if (found === undefined) return;
      const [id, hold] = found;
      world.holds.delete(id);
      if (hold.kind === 'restore') return;
      const finishedAt = new Date(world.nowMs + clockMs).toISOString();
      const stopLsn = at(Math.max(hold.segment, world.next - 1), 4096);
      const state = b % 4 === 0 || hold.timeline !== world.timeline ? 'failed' : 'complete';
      world.backups = world.backups.map((row) =>
        row.id === hold.of ? { ...row, state, finishedAt, stopLsn } : row,
      );
      return;
    }
    case 'restore': {
      const from = pick(complete);
      if (from === undefined || !isHeld(from)) return;
      const { timeline, segment, id } = from;
      world.holds.set(`restore-${++world.number}`, {
        kind: 'restore',
        timeline,
        segment,
        heardMs: world.nowMs,
        of: id,
      });
      return;
    }
    case 'pin': {
      const row = pick(complete);
      if (row) row.pinned = b % 3 !== 0;
      return;
    }
    case 'relay': {
      if (
        world.replica !== undefined &&
        onBranch(world.replica) &&
        world.missing(world.replica).length === 0
      ) {
        const segment = Math.min(world.next, world.replica.segment + (b % 9));
        world.replica = { segment, timeline: timelineAt(live, lsnOf(segment), SIZE), heardMs: world.nowMs };
      } else if (
        world.replica === undefined &&
        world.next > 2 &&
        world.rows.has(seg(timelineAt(live, lsnOf(world.next - 1), SIZE), world.next - 1))
      )
        world.replica = {
          segment: world.next - 1,
          timeline: timelineAt(live, lsnOf(world.next - 1), SIZE),
          heardMs: world.nowMs,
        };
      return;
    }
    case 'retain':
      world.retain();
  }
}

const KINDS = [
  ...[
    'archive',
    'archive',
    'archive',
    'gap',
    'time',
    'time',
    'node',
    'follow',
    'follow',
    'follow',
    'sleep',
    'wake',
  ],
  ...['promote', 'backup', 'backup', 'end', 'end', 'restore', 'pin', 'relay', 'retain', 'retain', 'retain'],
];
const step = fc.record({ what: fc.constantFrom(...KINDS), a: fc.nat(60), b: fc.nat(30) });
const policy = fc.record({
  keepBackups: fc.integer({ min: 1, max: 3 }),
  keepDays: fc.constantFrom(0, 2),
  pitrWindowMs: fc.constantFrom(0, 3 * DAY),
  nodeLeaseMs: fc.constantFrom(DAY, 4 * DAY),
  relayLeaseMs: fc.constantFrom(DAY, 4 * DAY),
});
const RUNS = Number(process.env['WALVAULT_TEST_RUNS'] ?? 200);

function begin(limits: RetentionPolicy): World {
  const world = new World(limits);
  world.archive(6);
  take(world, { what: 'backup', a: 0, b: 1 });
  take(world, { what: 'end', a: 0, b: 1 });
  take(world, { what: 'node', a: 0, b: 1 });
  return world;
}

test('nothing that anybody needs is ever deleted, and a horizon never goes back', () => {
  let deleted = 0;
  fc.assert(
    fc.property(policy, fc.array(step, { minLength: 20, maxLength: 90 }), (limits, steps) => {
      const world = begin(limits);
      for (const each of steps) {
        take(world, each);
        world.check();
      }
      deleted += world.gone.length;
    }),
    { numRuns: RUNS },
  );
  expect(deleted).toBeGreaterThan(RUNS);
});

test('everything of the live branch that nobody needs goes in the end', () => {
  fc.assert(
    fc.property(policy, fc.array(step, { minLength: 20, maxLength: 60 }), (limits, steps) => {
      const world = begin(limits);
      for (const each of steps) take(world, each);
      world.archive(5);
      const live = world.lineage();
      const segment = world.next - 2;
      const place = { timeline: timelineAt(live, lsnOf(segment), SIZE), segment };
      // a long time later: one standby that keeps up, one backup that is new, nobody else has been heard of
      world.nowMs += 400 * DAY;
      world.backups = world.backups.map((row) => ({ ...row, pinned: false }));
      world.nodes.set('new', { ...place, clockMs: 0, heardMs: world.nowMs, isUp: true, isLost: false });
      const [stopLsn, times] = [
        at(segment, 4096),
        { startedAt: '', finishedAt: new Date(world.nowMs).toISOString() },
      ];
      const fresh = Array.from({ length: limits.keepBackups }, (_, index) =>
        Object.assign(backup(`z${index}`, seg(place.timeline, segment), 0), { ...times, stopLsn, segment }),
      );
      world.backups = [...world.backups, ...fresh];
      // one run for what was kept by the eldest of the window, one for what that had kept
      for (let run = 0; run < 2; run++) {
        world.retain();
        world.nowMs += 10 * DAY;
        world.nodes.get('new')!.heardMs = world.nowMs;
      }
      world.retain();
      expect(world.backups.map(({ id }) => id).sort()).toEqual(fresh.map(({ id }) => id));
      expect([...world.holds]).toEqual([]);
      for (const name of world.rows) {
        const verdict = decideRow(name, live, world.horizon, SIZE);
        expect([name, verdict]).not.toEqual([name, 'delete']);
        const isLate = name.slice(8) >= seg(1, segment).slice(8);
        expect([name, verdict, isLate]).toEqual([
          name,
          isLate && verdict === 'keep' ? 'keep' : 'aside',
          isLate,
        ]);
      }
    }),
    { numRuns: RUNS },
  );
});
