/** What restore_command does in wait mode, by table: nothing but a seal makes it say that a segment is not there. */
import {
  decideWait,
  placeForWaiting,
  placeUnderSeal,
  retryPause,
  type WaitState,
} from '../../../core/cluster/decide-wait.ts';
import { formatHistory } from '../../../core/wal/history.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { at, branch, name } from '../../harness/branches.ts';

describe('where a name lies for a server that cannot change its timeline', () => {
  test.each([
    ['a segment before the fork', name(1, 4), 'due'],
    ['the segment of the fork, though others are served it', name(1, 5), 'ended'],
    ['a segment of the old timeline past the fork', name(1, 6), 'ended'],
    ['the first segment of the new timeline', name(3, 5), 'due'],
    ['the segment after head', name(3, 8), 'beyond'],
    ['a segment of the new timeline from before its fork', name(3, 4), 'unknown'],
    ['a timeline that is not on the branch', name(2, 6), 'unknown'],
    ['a timeline that nobody has opened: never waited for', name(4, 8), 'unknown'],
    ['the history of the live timeline', '00000003.history', 'due'],
    ['the history of a number that was given up', '00000002.history', 'perhaps'],
    ['the history of a number that nobody has opened', '00000004.history', 'beyond'],
    ['a name that is none', 'RECOVERYXLOG', 'unknown'],
    ['a name of another segment size', '000000010000000000000FFF', 'unknown'],
  ])('%s', (_, file, place) => {
    expect(placeForWaiting(file, branch())).toBe(place);
  });

  test('a fork at the very end of a segment leaves that segment whole, and ends the timeline after it', () => {
    const text = formatHistory([{ timeline: 1, forkLsn: at(6) }], 'test');
    const clean = branch({ lineage: lineageOf(3, text), wholeForks: new Set() });
    expect(placeForWaiting(name(1, 5), clean)).toBe('due');
    expect(placeForWaiting(name(1, 6), clean)).toBe('ended');
  });

  test('the segment of a tail is unfinished before the seal, and due under it', () => {
    const flushed = branch({ tail: name(3, 8) });
    expect(placeForWaiting(name(3, 8), flushed)).toBe('unfinished');
    expect(placeForWaiting(name(3, 9), flushed)).toBe('beyond');
    expect(placeUnderSeal(name(3, 8), flushed)).toBe('due');
  });

  test('under a seal whatever lies past it is not there', () => {
    expect(placeUnderSeal(name(1, 6), branch())).toBe('beyond');
    expect(placeUnderSeal(name(3, 8), branch())).toBe('beyond');
    expect(placeUnderSeal(name(2, 6), branch())).toBe('unknown');
  });
});

const state = (change: Partial<WaitState> = {}): WaitState => ({
  place: 'due',
  isSegment: true,
  row: 'seen',
  sealed: false,
  promotion: 'none',
  isNext: false,
  isUpTo: false,
  given: true,
  flushed: false,
  quietMs: 0,
  maxWaitMs: 0,
  failures: 0,
  retries: 3,
  ...change,
});
const does = (change: Partial<WaitState>) => decideWait(state(change)).do;

describe('the decision', () => {
  test.each<[string, Partial<WaitState>, string]>([
    ['it is there', {}, 'serve'],
    ['its row is not seen', { row: 'unseen' }, 'wait'],
    ['its row cannot be asked for', { row: 'silent' }, 'wait'],
    ['the vault is silent', { place: undefined }, 'wait'],
    ['the vault is silent, a history asked for', { place: undefined, isSegment: false }, 'wait'],
    ['the segment after head', { place: 'beyond', isNext: true }, 'wait'],
    [
      'the history that nobody has written: never waited for',
      { place: 'beyond', isSegment: false },
      'absent',
    ],
    [
      'a history that was given up, its row not there',
      { place: 'perhaps', isSegment: false, row: 'unseen' },
      'absent',
    ],
    ['the same, the vault silent', { place: 'perhaps', isSegment: false, row: 'silent' }, 'wait'],
    ['the unfinished segment', { place: 'unfinished' }, 'wait'],
    ['its timeline ended', { place: 'ended' }, 'stop'],
    ['not on the live branch', { place: 'unknown' }, 'stop'],
    ['it failed as often as it may', { failures: 3 }, 'serve'],
    ['it failed more often', { failures: 4 }, 'stop'],
    ['another node is being promoted', { promotion: 'other' }, 'wait'],
    [
      'another node is being promoted, a history asked for',
      { promotion: 'other', place: 'beyond', isSegment: false },
      'wait',
    ],
    ['smart, and there is more', { promotion: 'smart' }, 'serve'],
    ['smart in front of a gap', { promotion: 'smart', isUpTo: true }, 'seal'],
    [
      'fast in front of it, with nothing given',
      { promotion: 'fast', isUpTo: true, row: 'gap', given: false },
      'wait',
    ],
    ['a segment in a declared gap, and no trigger', { row: 'gap' }, 'wait'],
    ['smart, and nothing more', { promotion: 'smart', place: 'beyond', isNext: true }, 'seal'],
    ['smart, beyond but not the next of the live timeline', { promotion: 'smart', place: 'beyond' }, 'wait'],
    ['smart, at the unfinished segment', { promotion: 'smart', place: 'unfinished' }, 'seal'],
    ['smart, a history asked for', { promotion: 'smart', place: 'beyond', isSegment: false }, 'absent'],
    ['fast, however much more there is', { promotion: 'fast' }, 'seal'],
    ['fast, the vault silent', { promotion: 'fast', place: undefined }, 'wait'],
    ['fast, before anything was given', { promotion: 'fast', given: false }, 'serve'],
    ['fast, a corrupt object ahead', { promotion: 'fast', failures: 9 }, 'seal'],
    ['sealed in the vault, not here', { promotion: 'sealed', place: 'beyond' }, 'seal'],
    ['sealed, below the end', { sealed: true }, 'serve'],
    ['sealed, past the end', { sealed: true, place: 'beyond' }, 'absent'],
    ['sealed, below the end, the vault silent', { sealed: true, row: 'silent' }, 'wait'],
    [
      'sealed, and superseded in the vault: the gate decides',
      { sealed: true, promotion: 'other', place: 'beyond' },
      'absent',
    ],
  ])('%s', (_, change, action) => {
    expect(does(change)).toBe(action);
  });

  test('restore_max_wait ends only a wait for what is not archived, and only where it is set', () => {
    const over = { place: 'beyond', isNext: true, quietMs: 60_000 } as const;
    expect(does({ ...over, maxWaitMs: 0 })).toBe('wait');
    expect(does({ ...over, maxWaitMs: 60_001 })).toBe('wait');
    expect(does({ ...over, maxWaitMs: 60_000 })).toBe('failover');
    for (const change of [
      { flushed: true },
      { place: undefined },
      { place: 'unfinished' },
      { place: 'due', row: 'unseen' },
      { promotion: 'other' },
    ] as const)
      expect(does({ ...over, maxWaitMs: 1, ...change })).toBe('wait');
    expect(does({ ...over, maxWaitMs: 1, place: 'ended' })).toBe('stop');
  });

  test('without a seal no state whatever makes a segment absent, but a file that nobody promised', () => {
    const places = [undefined, 'due', 'unfinished', 'perhaps', 'beyond', 'ended', 'unknown'] as const;
    for (const place of places)
      for (const row of ['seen', 'unseen', 'silent', 'gap'] as const)
        for (const promotion of ['none', 'other', 'smart', 'fast', 'sealed'] as const)
          for (const isNext of [true, false])
            for (const given of [true, false])
              for (const [maxWaitMs, failures] of [
                [0, 0],
                [1, 0],
                [0, 9],
              ] as const) {
                const change = { place, row, promotion, isNext, given, maxWaitMs, failures, quietMs: 10 };
                if (does(change) === 'absent') expect([place, row]).toEqual(['perhaps', 'unseen']);
              }
  });

  test('pauses grow with each failure, up to a minute', () => {
    expect([1, 2, 3].map((failures) => retryPause(failures, 100))).toEqual([100, 200, 300]);
    expect(retryPause(1000, 5000)).toBe(60_000);
  });
});
