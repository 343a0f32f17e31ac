import { decideArchive, type Writer } from '../../../core/cluster/decide-archive.ts';
import { decideArchiving } from '../../../core/cluster/decide-archiving.ts';
import { decideRestore } from '../../../core/cluster/decide-restore.ts';
import { decideSeal, decideTrigger } from '../../../core/cluster/decide-roles.ts';
import type { GapRow } from '../../../core/cluster/facts.ts';
import {
  gapAfter,
  liveGaps,
  placeOfNode,
  wantsBackup,
  withDeclared,
  withFilled,
} from '../../../core/cluster/gaps.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { segmentAt } from '../../../core/wal/name.ts';
import { control, head, MiB, standby } from '../../harness/facts.ts';

const size = 16 * MiB;
const seg = (number: number, timeline = 1) => segmentAt(timeline, BigInt(number) * BigInt(size), size);
const lsn = (number: number) => `0/${number.toString(16).toUpperCase()}000000`;
const gap = (from: number, to: number, timeline = 1): GapRow => ({
  ...{ pk: 'p', sk: `gap#${seg(from, timeline)}`, rev: 1 },
  ...{ from: seg(from, timeline), to: seg(to, timeline), at: '2026-01-01T00:00:00Z', reason: 'off' },
});
const places = (gaps: readonly GapRow[]) => gaps.map(({ sk, from, to }) => [sk, from, to]);
const by = { partition: 'p', node: 'db1', epoch: 1, at: '2026-01-02T00:00:00Z', reason: 'off' };
const one = lineageOf(1, undefined);
const two = (fork: string) => lineageOf(2, `1\t${fork}\tx\n`);

describe('a gap grows, shrinks, splits and ends', () => {
  test.each([
    ['the first one', [], 5, [gap(5, 5)]],
    ['the next one', [gap(5, 5)], 6, [gap(5, 6)]],
    ['one that is in it', [gap(5, 7)], 6, [gap(5, 7)]],
    ['one further on', [gap(5, 5)], 7, [gap(5, 5), gap(7, 7)]],
    ['for another reason', [{ ...gap(5, 5), reason: 'local' }], 6, [gap(5, 5), gap(6, 6)]],
  ])('declared: %s', (_what, before, number, after) => {
    expect(places(withDeclared(before, seg(number), by, size))).toEqual(places(after));
  });

  test.each([
    ['the only one', [gap(5, 5)], 5, []],
    ['the first', [gap(5, 7)], 5, [gap(6, 7)]],
    ['the last', [gap(5, 7)], 7, [gap(5, 6)]],
    ['one between', [gap(5, 7)], 6, [gap(5, 5), gap(7, 7)]],
    ['one beside it', [gap(5, 7)], 8, [gap(5, 7)]],
  ])('filled: %s', (_what, before, number, after) => {
    expect(places(withFilled(before, seg(number), size))).toEqual(places(after));
  });
});

describe('which gaps lie on a branch', () => {
  const live = (gaps: GapRow[], lineage = one) =>
    liveGaps(gaps, lineage, size).map(({ begins, ends }) => [Number(begins) / size, Number(ends) / size]);

  test.each([
    ['on the only timeline', [gap(5, 6)], one, [[5, 7]]],
    ['before the fork', [gap(2, 3)], two('0/5000000'), [[2, 4]]],
    ['past the fork', [gap(5, 6)], two('0/5000000'), []],
    ['cut by the fork', [gap(4, 6)], two('0/5000000'), [[4, 5]]],
    ['cut by a fork within a segment, which the child has', [gap(4, 6)], two('0/5800000'), [[4, 5]]],
    ['on the child', [gap(5, 6, 2)], two('0/5000000'), [[5, 7]]],
    ['of a timeline that is none of it', [gap(5, 6, 3)], two('0/5000000'), []],
  ])('%s', (_what, gaps, lineage, expected) => {
    expect(live(gaps, lineage)).toEqual(expected);
  });

  test.each([
    ['nothing complete', [], true],
    ['one from before', [{ start: 4, state: 'complete' }], true],
    ['one from within', [{ start: 6, state: 'complete' }], true],
    ['one that runs', [{ start: 7, state: 'running' }], true],
    ['one from its end on', [{ start: 7, state: 'complete' }], false],
  ])('a new base backup is needed with %s', (_what, backups, isWanted) => {
    const rows = backups.map(({ start, state }) => ({
      ...{ state: state as 'complete', timeline: 1, startLsn: lsn(start), stopLsn: lsn(start + 1) },
    }));
    expect(wantsBackup(liveGaps([gap(5, 6)], one, size), one, rows) !== undefined).toBe(isWanted);
  });
});

describe('while archiving is off', () => {
  const writer: Writer = { node: 'db1', epoch: 1, nonces: ['n1'], place: 'host1:/pg' };
  const decide = (name: string, given: Partial<Parameters<typeof decideArchive>[0]> = {}) =>
    decideArchive(
      {
        control: control({ archiving: false }),
        head: head(),
        lineage: one,
        held: undefined,
        gaps: [],
        ...given,
      },
      writer,
      { name, sha256: 'aa' },
      size,
    );

  test.each([
    [
      'the next segment is declared and moves head',
      seg(5),
      {},
      { do: 'gap', moves: { lsn: lsn(6), firstLsn: lsn(1) } },
    ],
    ['one that is declared already changes nothing', seg(4), { gaps: [gap(4, 4)] }, { do: 'gap' }],
    ['one below head without a row is declared where it is', seg(3), {}, { do: 'gap', moves: null }],
    ['one further on is a hole', seg(6), {}, { do: 'refuse', code: 'hole' }],
    ['what is there is the same', seg(4), { held: 'aa' }, { do: 'same' }],
    ['other bytes are a conflict', seg(4), { held: 'bb' }, { do: 'refuse', code: 'conflict' }],
    ['a .backup file is ignored', `${seg(4)}.00000028.backup`, {}, { do: 'gap' }],
    [
      'before the first the vault begins after it',
      seg(5),
      { head: head({ lsn: null, firstLsn: null }) },
      { do: 'gap', moves: { lsn: lsn(6), firstLsn: lsn(6) } },
    ],
    [
      'a fenced node declares nothing',
      seg(5),
      { control: control({ archiving: false, primary: 'db2' }) },
      { do: 'refuse', code: 'fenced' },
    ],
    [
      'the word of the node alone',
      seg(5),
      { control: control(), offHere: true },
      { do: 'gap', moves: { lsn: lsn(6) } },
    ],
    ['a history is taken all the same', '00000002.history', { lineage: two('0/5000000') }, { do: 'commit' }],
  ])('%s', (_what, name, given, expected) => {
    expect(decide(name, given)).toMatchObject(expected);
  });

  test.each([
    ['on to off', control(), head(), false, 'set'],
    ['off again', control({ archiving: false }), head(), false, 'already'],
    ['off in a replica', control({ role: 'replica' }), head(), false, 'refuse'],
    ['off after a flush', control(), head({ flush: { lsn: lsn(5), rev: 1 } }), false, 'refuse'],
    [
      'on after a flush',
      control({ archiving: false }),
      head({ flush: { lsn: lsn(5), rev: 1 } }),
      true,
      'set',
    ],
  ])('%s', (_what, ctl, hd, archiving, expected) => {
    expect(decideArchiving(ctl, hd, archiving, '2026-01-01T00:00:00Z').do).toBe(expected);
  });
});

describe('with a gap ahead', () => {
  const ahead = gapAfter(
    liveGaps([gap(3, 3)], one, size),
    placeOfNode(standby({ lastRestored: seg(2) }), size),
  )!;
  const request = { id: 'i', mode: 'smart', to: 'db2', at: '' } as const;

  test('a trigger is refused unless that is said, and then it ends where the gap begins', () => {
    expect(decideTrigger(control(), head(), standby(), request, ahead)).toMatchObject({ do: 'refuse' });
    const decision = decideTrigger(control(), head(), standby(), { ...request, acceptGap: true }, ahead);
    if (decision.do !== 'trigger') throw new Error(decision.message);
    const seal = (number: number) =>
      decideSeal(decision.control, decision.head, one, {
        node: 'db2',
        timeline: 1,
        lsn: BigInt(number) * BigInt(size),
      }).do;
    expect([seal(2), seal(3)]).toEqual(['refuse', 'seal']);
  });

  test('a node that has passed it is not held up by it', () => {
    const live = liveGaps([gap(3, 3)], one, size);
    expect(gapAfter(live, placeOfNode(standby({ lastRestored: seg(3) }), size))).toBeUndefined();
    expect(
      gapAfter(live, placeOfNode(standby({ lastRestored: seg(2), lastReplayedLsn: lsn(4) }), size)),
    ).toBeUndefined();
  });

  test.each([
    ['standby', false, 'refused'],
    ['standby', true, 'unsafe'],
    ['archive', false, 'unsafe'],
  ] as const)(
    'restore on %s (promotion pending: %s) fails at once, and never says absent',
    (mode, promotionPending, code) => {
      const state = { place: 'due', row: 'gap', held: false, waitedMs: 0, limitMs: 1000 } as const;
      expect(decideRestore(state, { mode, promotionPending })).toMatchObject({ do: 'fail', code });
    },
  );
});
