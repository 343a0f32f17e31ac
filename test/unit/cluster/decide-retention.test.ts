/** What retention keeps, and why: one table for each of those who may need WAL. */
import { decideRetention, decideRow, type RetentionFacts } from '../../../core/cluster/decide-retention.ts';
import { control, head } from '../../harness/facts.ts';
import {
  ago,
  at,
  backup,
  DAY,
  hold,
  HOUR,
  lsnOf,
  node,
  POLICY,
  relay,
  seg,
  vaultOf,
} from '../../harness/retention-facts.ts';

const FORK = [{ timeline: 2, parent: 1, at: lsnOf(10, 512) }];
const after = (part: Parameters<typeof vaultOf>[0], more: Partial<RetentionFacts> = {}) =>
  decideRetention(vaultOf(part, more));
const ids = (decision: ReturnType<typeof after>, what: string) =>
  decision.backups.filter((each) => each.do === what).map(({ row }) => row.id);

describe('how far it goes', () => {
  test.each<[string, Partial<RetentionFacts>, number | null]>([
    ['nobody at all: nothing', {}, null],
    ['a standby alone: up to its restart point', { nodes: [node('db2', seg(1, 7))] }, 7],
    ['two standbys: the slower one', { nodes: [node('db2', seg(1, 9)), node('db3', seg(1, 4))] }, 4],
    ['a backup alone: up to its start', { backups: [backup('a', seg(1, 6), DAY)] }, 6],
    [
      'backup and standby: the lesser',
      { backups: [backup('a', seg(1, 6), DAY)], nodes: [node('db2', seg(1, 9))] },
      6,
    ],
    ['a restart point as .partial', { nodes: [node('db2', `${seg(1, 7)}.partial`)] }, 7],
    [
      '%r of all zeros is no position: nothing',
      { nodes: [node('db2', '0'.repeat(24)), node('db3', seg(1, 9))] },
      null,
    ],
    [
      'a standby that has not said where it is: nothing',
      { nodes: [node('db2', null), node('db3', seg(1, 9))] },
      null,
    ],
    [
      'one on a timeline that is not known: nothing',
      { nodes: [node('db2', seg(7, 9)), node('db3', seg(1, 9))] },
      null,
    ],
    [
      'a detached one needs nothing',
      { nodes: [node('db2', seg(1, 2), { trouble: 'detached since' }), node('db3', seg(1, 9))] },
      9,
    ],
    [
      'a standby that is ahead of the vault: the last segment stays',
      { nodes: [node('db2', seg(1, 40))] },
      19,
    ],
    [
      'the primary needs none of what it wrote',
      { nodes: [node('db1', null, { role: 'primary', lastArchived: seg(1, 3) }), node('db2', seg(1, 9))] },
      9,
    ],
    [
      'a fenced primary goes on from what it archived last',
      { nodes: [node('db0', null, { role: 'primary', lastArchived: seg(1, 3) }), node('db2', seg(1, 9))] },
      3,
    ],
    [
      'so does a flushed one',
      {
        head: head({ lsn: at(20), flush: { lsn: at(20, 40), rev: 3 } }),
        nodes: [node('db1', null, { role: 'primary', lastArchived: seg(1, 3) }), node('db2', seg(1, 9))],
      },
      3,
    ],
    [
      'a former primary is no reason to delete anything',
      { nodes: [node('db0', null, { role: 'primary', lastArchived: seg(1, 3) })] },
      null,
    ],
    [
      'a running backup',
      { nodes: [node('db2', seg(1, 9))], holds: { horizon: {}, holds: { x: hold('backup', seg(1, 5)) } } },
      5,
    ],
    [
      'a running restore',
      { nodes: [node('db2', seg(1, 9))], holds: { horizon: {}, holds: { x: hold('restore', seg(1, 5)) } } },
      5,
    ],
    [
      'a new node',
      { nodes: [node('db2', seg(1, 9))], holds: { horizon: {}, holds: { x: hold('standby', seg(1, 5)) } } },
      5,
    ],
    [
      'a hold alone is no reason to delete',
      { holds: { horizon: {}, holds: { x: hold('backup', seg(1, 5)) } } },
      null,
    ],
    ['what a replica has not got', { nodes: [node('db2', seg(1, 9))], relays: [relay({ lsn: at(6) })] }, 6],
    [
      'a replica that has nothing yet',
      { nodes: [node('db2', seg(1, 9))], relays: [relay({ lsn: null })] },
      null,
    ],
    [
      'the source of a replica needs nothing',
      { nodes: [node('db2', seg(1, 9))], relays: [relay({ direction: 'from', lsn: at(6) })] },
      9,
    ],
    [
      'a vault that was superseded lacks what came after the last relay from it',
      {
        control: control({ supersedes: { id: 'b', url: 'file:///b', sinceEpoch: 1, at: ago(DAY) } }),
        nodes: [node('db2', seg(1, 9))],
        relays: [relay({ direction: 'from', lsn: at(6) })],
      },
      6,
    ],
    [
      'a vault that is being made a replica: nothing',
      { control: control({ role: 'converging' }), nodes: [node('db2', seg(1, 9))] },
      null,
    ],
    [
      'a replica by its own nodes',
      { control: control({ role: 'replica' }), nodes: [node('dr1', seg(1, 9))] },
      9,
    ],
  ])('%s', (_, more, expected) => {
    const decision = after({}, more);
    expect(decision.cut).toBe(expected === null ? null : lsnOf(expected));
    expect(decision.horizon).toEqual(expected === null ? {} : { '1': seg(1, expected) });
    expect(decision.why).toMatch(/\S/);
  });
});

describe('leases', () => {
  const two = (more: object) => ({ nodes: [node('db2', seg(1, 3), more), node('db3', seg(1, 9))] });
  test.each<[string, Partial<RetentionFacts>, number | null]>([
    ['silent within its lease: holds', two({ heartbeatAt: ago(3 * DAY - 1000) }), 3],
    ['a clock an hour off ends no lease', two({ heartbeatAt: ago(3 * DAY + HOUR - 1000) }), 3],
    ['silent for longer: holds no more', two({ heartbeatAt: ago(3 * DAY + HOUR + 1000) }), 9],
    ['a clock far ahead: holds', two({ heartbeatAt: ago(-30 * DAY) }), 3],
    ['made known, never started: from then on', two({ heartbeatAt: null, registeredAt: ago(DAY) }), 3],
    [
      'made known long ago, never started: no more',
      two({ heartbeatAt: null, registeredAt: ago(5 * DAY) }),
      9,
    ],
    ['no time at all: holds', two({ heartbeatAt: null }), 3],
    [
      'the last standby is silent: nothing says what may go',
      { nodes: [node('db2', seg(1, 3), { heartbeatAt: ago(9 * DAY) })] },
      null,
    ],
    [
      'a process behind a hold that is gone',
      {
        nodes: [node('db3', seg(1, 9))],
        holds: { horizon: {}, holds: { x: hold('restore', seg(1, 2), 5 * DAY) } },
      },
      9,
    ],
    ['a relay that is gone', { nodes: [node('db3', seg(1, 9))], relays: [relay({ at: ago(5 * DAY) })] }, 9],
  ])('%s', (_, more, expected) => {
    const decision = after({}, more);
    expect(decision.cut).toBe(expected === null ? null : lsnOf(expected));
    if (_.match(/longer|long ago|is gone|is silent/)) expect(decision.ended).toHaveLength(1);
    else expect(decision.ended).toEqual([]);
  });

  test('who comes back from below the horizon stops nobody else, and is said', () => {
    const decision = after({}, { ...two({}), holds: { horizon: { '1': seg(1, 6) }, holds: {} } });
    expect(decision.cut).toBe(lsnOf(9));
    expect(decision.ended).toMatchObject([
      { id: 'db2', silentSince: null, why: expect.stringContaining('anew') },
    ]);
  });

  test('a horizon never goes back', () => {
    const holds = { horizon: { '1': seg(1, 12) }, holds: {} };
    expect(after({}, { nodes: [node('db3', seg(1, 12))], holds })).toMatchObject({
      cut: lsnOf(12),
      horizon: holds.horizon,
    });
    expect(after({}, { holds })).toMatchObject({ cut: lsnOf(12), horizon: holds.horizon });
  });
});

describe('timelines go by lineage', () => {
  const on2 = (nodes: RetentionFacts['nodes'], more: Partial<RetentionFacts> = {}) =>
    after({ timeline: 2, forks: FORK }, { nodes, ...more });

  test('a segment of timeline 1 that lies behind the cut stays, whatever its name', () => {
    const { horizon } = on2([node('db2', seg(2, 12)), node('db3', seg(1, 8))]);
    expect(horizon).toEqual({ '1': seg(1, 8) });
  });
  test('the segment of the fork goes on both timelines together', () => {
    expect(on2([node('db2', seg(2, 10))]).horizon).toEqual({ '1': seg(1, 10) });
    expect(on2([node('db2', seg(1, 10))]).horizon).toEqual({ '1': seg(1, 10) });
    expect(on2([node('db2', seg(2, 11))]).horizon).toEqual({ '1': seg(1, 11), '2': seg(2, 11) });
  });
  test('one past the fork of its timeline keeps the branch from the fork on', () => {
    expect(on2([node('db2', seg(1, 15))])).toMatchObject({ cut: lsnOf(10) });
  });
  test('one on a branch that leads nowhere keeps the branch from where it was left', () => {
    const forks = [...FORK, { timeline: 3, parent: 1, at: lsnOf(6, 9) }];
    expect(
      after({ timeline: 2, forks }, { nodes: [node('db2', seg(3, 14)), node('db3', seg(2, 12))] }).cut,
    ).toBe(lsnOf(6));
  });
  test('after a fork behind the horizon nothing of the new timeline is taken for gone', () => {
    const holds = { horizon: { '1': seg(1, 12) }, holds: {} };
    const { cut, backups } = on2([], { holds, backups: [backup('a', seg(2, 10), DAY)] });
    expect(backups).toMatchObject([{ do: 'keep' }]);
    expect(cut).toBe(lsnOf(10));
  });
  test.each([
    [seg(1, 4), 'delete'],
    [`${seg(1, 4)}.partial`, 'delete'],
    [`${seg(1, 4)}.00000028.backup`, 'delete'],
    [seg(1, 10), 'delete'],
    [seg(1, 11), 'aside'],
    [seg(2, 11), 'delete'],
    [seg(2, 12), 'keep'],
    [seg(3, 1), 'aside'],
    ['00000002.history', 'keep'],
  ])('%s: %s', (name, expected) => {
    const { lineage } = vaultOf({ timeline: 2, forks: FORK });
    expect(decideRow(name, lineage, { '1': seg(1, 12), '2': seg(2, 12) }, 1 << 20)).toBe(expected);
  });
});

describe('backups', () => {
  const four = [
    backup('d', seg(1, 3), 20 * DAY),
    backup('c', seg(1, 6), 10 * DAY),
    backup('b', seg(1, 9), 4 * DAY),
    backup('a', seg(1, 12), DAY),
  ];
  const policy = (more: Partial<typeof POLICY>) => ({ backups: four, policy: { ...POLICY, ...more } });
  test.each<[string, Partial<RetentionFacts>, string[], number]>([
    ['the newest', policy({}), ['a'], 12],
    ['never none', policy({ keepBackups: 0 }), ['a'], 12],
    [
      'of two that end at the same place the one that finished last, whatever their ids',
      {
        backups: [...four.slice(0, 2), backup('z', seg(1, 12), 2 * DAY), backup('y', seg(1, 12), DAY)],
        policy: POLICY,
      },
      ['y'],
      12,
    ],
    ['two', policy({ keepBackups: 2 }), ['a', 'b'], 9],
    ['those of five days', policy({ keepDays: 5 }), ['a', 'b'], 9],
    ['a window: those in it, and the one before', policy({ pitrWindowMs: 3 * DAY }), ['a', 'b'], 9],
    ['a window that reaches behind all', policy({ pitrWindowMs: 30 * DAY }), ['a', 'b', 'c', 'd'], 3],
    ['a clock an hour off takes none too early', policy({ keepDays: 4 }), ['a', 'b'], 9],
    ['pinned', { backups: [{ ...four[0]!, pinned: true }, ...four.slice(1)] }, ['a', 'd'], 3],
    [
      'being restored',
      { backups: four, holds: { horizon: {}, holds: { x: hold('restore', seg(1, 6)) } } },
      ['a', 'c'],
      6,
    ],
    [
      'one that cannot reach the live end is not counted',
      {
        backups: four,
        gaps: [
          { pk: 'p', sk: 'gap#', rev: 1, from: seg(1, 10), to: seg(1, 10), at: ago(2 * DAY), reason: 'off' },
        ],
        policy: { ...POLICY, keepBackups: 2 },
      },
      ['a', 'b'],
      9,
    ],
  ])('kept: %s', (_, more, kept, cut) => {
    const decision = after({}, more);
    expect(ids(decision, 'keep').sort()).toEqual(kept);
    expect(ids(decision, 'delete')).toHaveLength(4 - kept.length);
    expect(decision.cut).toBe(lsnOf(cut));
  });

  test('one of a branch that was left does not stand for one that can be followed', () => {
    const backups = [backup('live', seg(1, 5), 9 * DAY), backup('dead', seg(1, 15), DAY)];
    const decision = after({ timeline: 2, forks: FORK }, { backups });
    expect(ids(decision, 'keep').sort()).toEqual(['dead', 'live']);
    expect(decision.cut).toBe(lsnOf(5));
  });

  test('nor is it kept for ever because its WAL had come further', () => {
    const backups = [
      backup('dead', seg(1, 19), 9 * DAY),
      backup('old', seg(2, 11), 8 * DAY),
      backup('new', seg(2, 12), DAY),
    ];
    const policy = { ...POLICY, pitrWindowMs: 3 * DAY };
    expect(ids(after({ timeline: 2, forks: FORK }, { backups, policy }), 'delete')).toEqual(['dead']);
  });

  test('one whose WAL is gone goes; pinned it stays, and keeps nothing', () => {
    const holds = { horizon: { '1': seg(1, 5) }, holds: {} };
    const old = backup('old', seg(1, 3), DAY);
    const more = { holds, nodes: [node('db2', seg(1, 9))] };
    expect(ids(after({}, { ...more, backups: [old] }), 'delete')).toEqual(['old']);
    const pinned = after({}, { ...more, backups: [{ ...old, pinned: true }] });
    expect(ids(pinned, 'keep')).toEqual(['old']);
    expect(pinned.cut).toBe(lsnOf(9));
  });

  test.each<[string, Parameters<typeof backup>, Partial<RetentionFacts>, string]>([
    [
      'running, with its hold',
      ['r', seg(1, 5), 0, { state: 'running', startedAt: ago(9 * DAY) }],
      { holds: { horizon: {}, holds: { 'backup-r': hold('backup', seg(1, 5)) } } },
      'keep',
    ],
    ['running, just begun', ['r', seg(1, 5), 0, { state: 'running', startedAt: ago(HOUR) }], {}, 'keep'],
    [
      'running, its process gone for longer than a lease',
      ['r', seg(1, 5), 0, { state: 'running', startedAt: ago(9 * DAY) }],
      {},
      'fail',
    ],
    ['failed today', ['r', seg(1, 5), HOUR, { state: 'failed' }], {}, 'keep'],
    ['failed days ago', ['r', seg(1, 5), 3 * DAY, { state: 'failed' }], {}, 'delete'],
    ['half deleted', ['r', seg(1, 5), 3 * DAY, { state: 'deleting' }], {}, 'delete'],
  ])('%s', (_, [id, start, age, row], more, expected) => {
    const decision = after(
      {},
      { nodes: [node('db2', seg(1, 9))], backups: [backup(id, start, age, row)], ...more },
    );
    expect(decision.backups).toMatchObject([{ do: expected }]);
    expect(decision.cut).toBe(lsnOf(expected === 'keep' && row?.state === 'running' ? 5 : 9));
  });
});
