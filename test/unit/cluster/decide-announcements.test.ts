import {
  decideAnnouncements,
  type Announced,
  type Arrived,
} from '../../../core/cluster/decide-announcements.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';

const MiB = 1 << 20;
const arrived = (lsn: string | null, more: Partial<Arrived> = {}): Arrived => ({
  head: { lsn, firstLsn: lsn === null ? null : '0/100000' },
  lineage: lineageOf(1, undefined),
  ...{ histories: [], backups: [], segmentSize: MiB },
  ...more,
});
const told = (lsn: string | null, timelines: number[] = [], backups: string[] = []): Announced => ({
  lsn,
  timelines,
  backups,
});
const name = (timeline: number, number: number) =>
  `0000000${timeline}00000000000000${number.toString(16).toUpperCase().padStart(2, '0')}`;
const run = (timeline: number, from: number, to: number) => ({
  ...{
    kind: 'segments',
    timeline,
    first: name(timeline, from),
    last: name(timeline, to),
    count: to - from + 1,
  },
  lsn: `0/${((to + 1) * MiB).toString(16).toUpperCase()}`,
});
const history = (timeline: number, forkLsn: string) => ({ timeline, parent: timeline - 1, forkLsn });
const text = (fork: string) => `1\t${fork}\tno recovery target specified\n`;
/** Timeline 2 forks within segment 4, or at its begin. */
const onTwo = (lsn: string, fork: string): Arrived =>
  arrived(lsn, { lineage: lineageOf(2, text(fork)), histories: [history(2, fork)] });

describe('segments and histories', () => {
  test.each<[string, Announced | undefined, Arrived, unknown[]]>([
    ['nothing there', undefined, arrived(null), []],
    ['the first time all of it, in one message', undefined, arrived('0/6400000'), [run(1, 1, 99)]],
    ['what is new', told('0/400000'), arrived('0/600000'), [run(1, 4, 5)]],
    ['nothing new', told('0/400000'), arrived('0/400000'), []],
    [
      'a fork within a segment: that one on the new timeline',
      told('0/300000'),
      onTwo('0/600000', '0/480000'),
      [run(1, 3, 3), { kind: 'history', timeline: 2, parent: 1, fork: '0/480000' }, run(2, 4, 5)],
    ],
    [
      'a fork at the end of one',
      told('0/300000'),
      onTwo('0/600000', '0/400000'),
      [run(1, 3, 3), { kind: 'history', timeline: 2, parent: 1, fork: '0/400000' }, run(2, 4, 5)],
    ],
    [
      'a promotion with nothing archived since',
      told('0/400000'),
      onTwo('0/480000', '0/480000'),
      [{ kind: 'history', timeline: 2, parent: 1, fork: '0/480000' }],
    ],
    [
      'the fork was announced, its segment is there now',
      told('0/480000', [2]),
      onTwo('0/500000', '0/480000'),
      [run(2, 4, 4)],
    ],
    ['a branch that was set back', told('0/900000', [2]), onTwo('0/600000', '0/480000'), []],
  ])('%s', (_, before, state, expected) => {
    expect(decideAnnouncements(before, state).announcements).toEqual(expected);
  });
});

test('a backup once it is complete, after the WAL', () => {
  const backup = (id: string, state: 'complete' | 'running') => ({
    ...{ id, state, startSegment: name(1, 2), stopSegment: name(1, 2), sizeBytes: 5 },
  });
  const state = arrived('0/300000', {
    backups: [backup('a', 'complete'), backup('b', 'running'), backup('c', 'complete')],
  });
  const { announcements, next } = decideAnnouncements(told('0/200000', [], ['a', 'gone']), state);
  expect(announcements).toEqual([
    run(1, 2, 2),
    { kind: 'backup', id: 'c', startSegment: name(1, 2), stopSegment: name(1, 2), sizeBytes: 5 },
  ]);
  expect(next).toEqual({ lsn: '0/300000', timelines: [], backups: ['a', 'c'] });
});

test('what was decided once is never decided again', () => {
  const states = [arrived('0/300000'), onTwo('0/480000', '0/480000'), onTwo('0/700000', '0/480000')];
  let before: Announced | undefined;
  for (const state of states) {
    before = decideAnnouncements(before, state).next;
    expect(decideAnnouncements(before, state).announcements).toEqual([]);
  }
});
