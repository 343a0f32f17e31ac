/** What restore_command answers, by table: invariant 6, silence is not absence. */
import {
  decideRestore,
  placeOnBranch,
  restoreLimit,
  type RestoreState,
} from '../../../core/cluster/decide-restore.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { at, branch, name } from '../../harness/branches.ts';

describe('where a name lies', () => {
  test.each([
    ['a segment before the fork', name(1, 4), 'due'],
    ['the segment of the fork, consumed whole by the node that forked', name(1, 5), 'due'],
    ['the first segment of the new timeline', name(3, 5), 'due'],
    ['a segment of the old timeline past the fork', name(1, 6), 'off'],
    ['the last segment below head', name(3, 7), 'due'],
    ['the segment after head', name(3, 8), 'beyond'],
    ['a segment of the new timeline from before its fork', name(3, 4), 'off'],
    ['a timeline that is not on the branch', name(2, 6), 'unknown'],
    ['a timeline that nobody has opened', name(4, 8), 'beyond'],
    ['the history of the live timeline', '00000003.history', 'due'],
    ['the history of a number that was given up', '00000002.history', 'perhaps'],
    ['the history of a number that nobody has opened', '00000004.history', 'beyond'],
    ['a backup history file', `${name(1, 2)}.00000028.backup`, 'perhaps'],
    ['a name that is none', 'RECOVERYXLOG', 'unknown'],
    ['a name of another segment size', '000000010000000000000FFF', 'unknown'],
  ])('%s', (_, file, place) => {
    expect(placeOnBranch(file, branch())).toBe(place);
  });

  test('the segment of the fork is never served where the node that forked had not consumed all of it', () => {
    expect(placeOnBranch(name(1, 5), branch({ wholeForks: new Set() }))).toBe('off');
  });

  test('right after a promotion the segment that holds the fork is the next to come, not one that is missing', () => {
    expect(placeOnBranch(name(3, 5), branch({ end: at(5) + 0x2000n }))).toBe('beyond');
    expect(placeOnBranch(name(1, 5), branch({ end: at(5) + 0x2000n }))).toBe('due');
  });

  test('the unfinished segment of a tail is there, the one after it is not', () => {
    const flushed = branch({ tail: name(3, 8) });
    expect(placeOnBranch(name(3, 8), flushed)).toBe('due');
    expect(placeOnBranch(name(3, 9), flushed)).toBe('beyond');
  });

  test('an empty vault holds nothing', () => {
    expect(placeOnBranch(name(3, 1), branch({ end: null, lineage: lineageOf(3, undefined) }))).toBe('beyond');
  });
});

const standby = { mode: 'standby', promotionPending: false } as const;
const pending = { mode: 'standby', promotionPending: true } as const;
const archive = { mode: 'archive', promotionPending: false } as const;
const state = (change: Partial<RestoreState> = {}): RestoreState => ({
  place: 'due',
  row: 'seen',
  held: false,
  waitedMs: 0,
  limitMs: 1000,
  ...change,
});
const over = { waitedMs: 1000 };

describe('what is answered', () => {
  test.each([
    ['a row that is seen is served', state(), archive, { do: 'serve' }],
    ['a name beyond head is absent', state({ place: 'beyond' }), archive, { do: 'absent' }],
    ['a name off the branch is absent', state({ place: 'off', row: 'seen' }), standby, { do: 'absent' }],
    ['a name up to head without a row is asked for again', state({ row: 'unseen' }), archive, { do: 'wait' }],
    ['and is never absent', state({ row: 'unseen', ...over }), archive, { do: 'fail', code: 'unsafe' }],
    [
      'a standby is told to ask again',
      state({ row: 'unseen', ...over }),
      standby,
      { do: 'fail', code: 'unreachable' },
    ],
    [
      'silence of the vault is waited for',
      state({ place: undefined, row: 'silent' }),
      archive,
      { do: 'wait' },
    ],
    [
      'silence stops archive recovery',
      state({ place: undefined, row: 'silent', ...over }),
      archive,
      { do: 'fail', code: 'unsafe' },
    ],
    [
      'silence stops a pending promotion',
      state({ row: 'silent', ...over }),
      pending,
      { do: 'fail', code: 'unsafe' },
    ],
    [
      'silence leaves a standby up',
      state({ place: undefined, row: 'silent', ...over }),
      standby,
      { do: 'fail', code: 'unreachable' },
    ],
    [
      'from trigger to open a standby gets not yet',
      state({ held: true }),
      standby,
      { do: 'fail', code: 'refused' },
    ],
    [
      'from trigger to open nothing is absent',
      state({ held: true, place: 'beyond' }),
      archive,
      { do: 'wait' },
    ],
    [
      'an unknown timeline stops archive recovery',
      state({ place: 'unknown' }),
      archive,
      { do: 'fail', code: 'unsafe' },
    ],
    [
      'an unknown timeline leaves a standby up',
      state({ place: 'unknown' }),
      standby,
      { do: 'fail', code: 'refused' },
    ],
    [
      'a file that nobody promised is absent by the word of its row',
      state({ place: 'perhaps', row: 'unseen' }),
      archive,
      { do: 'absent' },
    ],
    ['but not by silence', state({ place: 'perhaps', row: 'silent' }), archive, { do: 'wait' }],
  ])('%s', (_, seen, request, action) => {
    expect(decideRestore(seen, request)).toMatchObject(action);
  });

  test('absence is never said while the vault is silent, held or behind its own head, whatever else holds', () => {
    for (const place of [undefined, 'due', 'perhaps', 'beyond', 'off', 'unknown'] as const)
      for (const row of ['seen', 'unseen', 'silent'] as const)
        for (const held of [true, false])
          for (const waitedMs of [0, 5000])
            for (const request of [standby, pending, archive]) {
              const action = decideRestore({ place, row, held, waitedMs, limitMs: 1000 }, request);
              if (action.do === 'absent') {
                expect(held).toBe(false);
                expect(
                  place === 'beyond' || place === 'off' || (place === 'perhaps' && row === 'unseen'),
                ).toBe(true);
              }
              if (action.do === 'serve') expect([row, held]).toEqual(['seen', false]);
              if (action.do === 'fail' && request !== standby) expect(action.code).toBe('unsafe');
            }
  });

  test('a plain standby waits for a second at most, everybody else as long as the setting says', () => {
    expect([standby, pending, archive].map((request) => restoreLimit(request, 30_000))).toEqual([
      1000, 30_000, 30_000,
    ]);
  });
});
