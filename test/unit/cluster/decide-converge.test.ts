import {
  decideMeeting,
  headAfter,
  isBackupLive,
  isOlderThanAll,
  oldestOf,
} from '../../../core/cluster/decide-converge.ts';
import type { Side } from '../../../core/cluster/decide-relay.ts';
import type { BackupRow, Control, Head } from '../../../core/cluster/facts.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { control, head, MiB } from '../../harness/facts.ts';

const AT = '2026-01-01T00:00:00.000Z';
const SIZE = 16 * MiB;
/** dr1 left timeline 1 in the middle of segment 5. */
const HISTORY = '1\t0/5800000\tno recovery target specified\n';
const name = (timeline: number, segment: number) =>
  `0000000${timeline}00000000000000${segment.toString(16).padStart(2, '0').toUpperCase()}`;

function active(changes: Partial<Control> = {}, at: Partial<Head> = {}): Side {
  return {
    url: 'file:///b',
    control: control({
      vaultId: 'b',
      epoch: 2,
      primary: 'dr1',
      supersedes: { id: 'a', url: 'file:///a', sinceEpoch: 1, at: '' },
      ...changes,
    }),
    head: head({ timeline: 2, lsn: '0/8000000', lastTimeline: 2, ...at }),
    lineage: lineageOf(2, HISTORY),
    histories: new Map([[2, HISTORY]]),
  };
}
function old(changes: Partial<Control> = {}, at: Partial<Head> = {}): Side {
  const facts = control({ vaultId: 'a', ...changes });
  return {
    url: 'file:///a',
    control: facts,
    head: head(at),
    lineage: lineageOf(1, undefined),
    histories: new Map(),
  };
}

describe('two vaults meet', () => {
  test('the epoch of the one that took over is above: the other is marked with it, its head keeps its place', () => {
    expect(decideMeeting(active(), old(), AT)).toMatchObject({
      do: 'mark',
      control: {
        role: 'converging',
        epoch: 2,
        primary: 'dr1',
        source: { id: 'b' },
        supersededBy: { id: 'b', epoch: 2 },
        direct: null,
      },
      head: { lsn: '0/5000000', timeline: 1, flush: null, writer: null, promotion: null },
    });
  });

  test('the other has a higher one: first the active vault is raised above both, and its reign goes on', () => {
    const decision = decideMeeting(active(), old({ epoch: 7 }, { lastTimeline: 5 }), AT);
    expect(decision).toMatchObject({
      do: 'raise',
      control: { epoch: 8, reign: 2, primary: 'dr1' },
      head: { epoch: 8, lastTimeline: 5 },
    });
  });

  test('a higher timeline number is learnt too', () => {
    expect(decideMeeting(active(), old({}, { lastTimeline: 9 }), AT)).toMatchObject({
      do: 'raise',
      control: { epoch: 2 },
      head: { lastTimeline: 9 },
    });
  });

  test('a promotion that is pending on its epoch opens first', () => {
    const promotion = {
      id: 'p',
      epoch: 2,
      node: 'dr1',
      mode: 'smart' as const,
      state: 'sealed' as const,
      at: AT,
    };
    expect(decideMeeting(active({}, { promotion }), old({ epoch: 7 }), AT)).toMatchObject({ do: 'wait' });
    // where nothing is to be raised the other is fenced all the same
    expect(decideMeeting(active({}, { promotion }), old(), AT)).toMatchObject({ do: 'mark' });
  });

  test('marked before: what is left is set aside', () => {
    expect(
      decideMeeting(
        active(),
        old({ role: 'converging', epoch: 2, source: { id: 'b', url: 'file:///b' } }),
        AT,
      ),
    ).toEqual({ do: 'set aside' });
  });
});

describe('what is of the live branch', () => {
  test.each([
    ['older than all that the active vault holds', name(1, 2), name(1, 3), true],
    ['not older', name(1, 3), name(1, 3), false],
    ['past the fork', name(1, 6), name(2, 7), false],
    ['the segment that holds the fork', name(1, 5), name(2, 7), false],
    ['of a timeline that is not on it', name(3, 2), name(1, 3), false],
    ['a history', '00000002.history', name(1, 3), false],
    ['nothing is known', name(1, 2), undefined, false],
  ])('%s', (_, file, oldest, expected) => {
    expect(isOlderThanAll(active(), file, oldest, SIZE)).toBe(expected);
  });

  test('the oldest segment is looked for on the live branch only', () => {
    expect(
      oldestOf(active(), [name(1, 9), name(1, 3), name(2, 5), '00000002.history', name(3, 1)], SIZE),
    ).toBe(name(1, 3));
    expect(oldestOf(active(), [name(1, 9)], SIZE)).toBeUndefined();
  });

  test.each([
    ['before the fork', { timeline: 1, stopLsn: '0/5000000' }, undefined, true],
    ['past the fork', { timeline: 1, stopLsn: '0/6000000' }, undefined, false],
    ['on the live timeline', { timeline: 2, stopLsn: '0/7000000' }, HISTORY, true],
    ['on another timeline of that number', { timeline: 2, stopLsn: '0/7000000' }, 'other', false],
    ['past the end', { timeline: 2, stopLsn: '0/9000000' }, HISTORY, false],
    ['on an unknown timeline', { timeline: 3, stopLsn: '0/7000000' }, 'x', false],
  ])('a backup that ended %s', (_, backup, history, expected) => {
    expect(isBackupLive(active(), backup as BackupRow, history)).toBe(expected);
  });
});

describe('the head of the vault that became a replica', () => {
  const after = (...held: string[]) => headAfter(active(), old().head, held, SIZE);

  test('stands behind the last row in an unbroken line of the live branch', () => {
    expect(after(name(1, 3), name(1, 4))).toMatchObject({
      timeline: 1,
      lsn: '0/5000000',
      firstLsn: '0/3000000',
      lastFile: name(1, 4),
    });
    expect(after(name(1, 3), name(1, 4), name(2, 5), name(2, 6))).toMatchObject({
      timeline: 2,
      lsn: '0/7000000',
    });
  });

  test('a hole ends it, and nothing of the dead life is left', () => {
    expect(after(name(1, 2), name(1, 4))).toMatchObject({
      lsn: '0/3000000',
      writer: null,
      promotion: null,
      flush: null,
      tail: null,
      spill: null,
    });
  });

  test('with nothing left it is empty', () => {
    expect(after('000000010000000000000004.00000028.backup')).toMatchObject({
      timeline: 1,
      lsn: null,
      firstLsn: null,
      lastFile: null,
    });
  });
});
