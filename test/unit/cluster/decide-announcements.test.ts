/** What a region's topic is told of its replica: each arrival, in order, and none twice as long as the row keeps up. */
import fc from 'fast-check';
import {
  decideAnnouncements,
  type Announcement,
  type Arrived,
  type Told,
} from '../../../core/cluster/decide-announcements.ts';
import type { BackupRow, HistoryRow } from '../../../core/cluster/facts.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { MiB } from '../../harness/facts.ts';

const AT = '2026-02-02T02:02:02.000Z';
/** LSN of the beginning of segment `number`; half: in its middle. */
const lsn = (number: number): string =>
  `0/${Math.round(number * 16 * MiB)
    .toString(16)
    .toUpperCase()}`;
const file = (timeline: number, number: number): string =>
  [timeline, 0, number].map((each) => each.toString(16).toUpperCase().padStart(8, '0')).join('');

/** A replica on the timeline after these forks (segments, in order); `end`: the segment that its head wants next. */
function replica(
  { forks = [], begin = 1, end }: { forks?: number[]; begin?: number; end: number | null },
  changes: Partial<Arrived> = {},
): Arrived {
  const timeline = forks.length + 1;
  const text = (to: number) =>
    forks
      .slice(0, to - 1)
      .map((fork, index) => `${index + 1}\t${lsn(fork)}\tno reason`)
      .join('\n');
  const rows = forks.map((fork, index): [number, HistoryRow] => {
    const number = index + 2;
    const row = { timeline: number, parent: number - 1, forkLsn: lsn(fork), text: text(number) };
    return [number, row as HistoryRow];
  });
  return {
    ...{ cluster: 'main', vault: 'file:///b', vaultId: 'bbbb', segmentSize: 16 * MiB },
    head: { timeline, lsn: end === null ? null : lsn(end), firstLsn: end === null ? null : lsn(begin) },
    lineage: lineageOf(timeline, forks.length === 0 ? undefined : text(timeline)),
    histories: new Map(rows),
    ...{ backups: [], horizon: {}, ...changes },
  };
}

const backup = (id: string, changes: Partial<BackupRow> = {}): BackupRow =>
  ({
    ...{ id, state: 'complete', label: `label of ${id}`, timeline: 1, startLsn: lsn(2), stopLsn: lsn(3) },
    ...{ startedAt: `2026-01-0${id.at(-1)}T00:00:00.000Z`, finishedAt: null },
    ...changes,
  }) as BackupRow;

const told = (changes: Partial<Told> = {}): Told => ({
  ...{ vaultId: 'bbbb', ends: {}, histories: [], backups: [], ...changes },
});

const inShort = ({ arrival }: Announcement): string => {
  if (arrival.kind === 'history') return arrival.file;
  if (arrival.kind === 'backup') return `backup ${arrival.id}`;
  return `${arrival.first}-${arrival.last} (${arrival.count}) to ${arrival.lsn}`;
};
const stretch = (timeline: number, first: number, last: number): string =>
  `${file(timeline, first)}-${file(timeline, last)} (${last - first + 1}) to ${lsn(last + 1)}`;

test.each<[string, Told | undefined, Arrived, string[]]>([
  ['an empty replica: nothing', undefined, replica({ end: null }), []],
  [
    'opened before anything was archived',
    undefined,
    replica({ end: 3 }, { head: { timeline: 1, lsn: lsn(3), firstLsn: null } }),
    [],
  ],
  ['the first segments', undefined, replica({ end: 4 }), [stretch(1, 1, 3)]],
  ['what came since', told({ ends: { '1': lsn(4) } }), replica({ end: 6 }), [stretch(1, 4, 5)]],
  ['nothing came since', told({ ends: { '1': lsn(6) } }), replica({ end: 6 }), []],
  ['one that holds a million: one message', undefined, replica({ end: 250 }), [stretch(1, 1, 249)]],
  [
    'one whose retention has taken the first ones',
    undefined,
    replica({ end: 9 }, { horizon: { '1': file(1, 5) } }),
    [stretch(1, 5, 8)],
  ],
  ['one that begins late', undefined, replica({ begin: 7, end: 9 }), [stretch(1, 7, 8)]],
  [
    'a new timeline: its history before its segments, what is left of the old one before both',
    told({ ends: { '1': lsn(3) } }),
    replica({ forks: [5.5], end: 8 }),
    [stretch(1, 3, 4), '00000002.history', stretch(2, 5, 7)],
  ],
  [
    'a fork on a border',
    undefined,
    replica({ forks: [5], end: 7 }),
    [stretch(1, 1, 4), '00000002.history', stretch(2, 5, 6)],
  ],
  [
    'a timeline without a segment of its own yet',
    told({ ends: { '1': lsn(5) } }),
    replica({ forks: [5.5], end: 5.5 }),
    ['00000002.history'],
  ],
  [
    'a fast promotion that left segments behind which were told: the new timeline from its fork',
    told({ ends: { '1': lsn(9) } }),
    replica({ forks: [5], end: 6 }),
    ['00000002.history', stretch(2, 5, 5)],
  ],
  [
    'two timelines passed at once, the middle one without a whole segment',
    told({ ends: { '1': lsn(4) } }),
    replica({ forks: [5.2, 5.4], end: 7 }),
    [stretch(1, 4, 4), '00000002.history', '00000003.history', stretch(3, 5, 6)],
  ],
  [
    'a branch that was told and is dead: the live one from its fork',
    told({ ends: { '1': lsn(5), '2': lsn(9) }, histories: [2] }),
    {
      ...replica({ forks: [5], end: 8 }),
      lineage: lineageOf(3, `1\t${lsn(5)}\tno reason\n`),
      head: { timeline: 3, lsn: lsn(8), firstLsn: lsn(1) },
      histories: new Map([[3, { timeline: 3, parent: 1, forkLsn: lsn(5) } as HistoryRow]]),
    },
    ['00000003.history', stretch(3, 5, 7)],
  ],
  [
    'complete backups, by their age, after the WAL',
    told(),
    replica(
      { end: 4 },
      {
        backups: [
          backup('b2'),
          backup('b1'),
          backup('b3', { state: 'running' }),
          backup('b4', { state: 'deleting' }),
        ],
      },
    ),
    [stretch(1, 1, 3), 'backup b1', 'backup b2'],
  ],
  [
    'a backup that was told',
    told({ ends: { '1': lsn(4) }, backups: ['b1'] }),
    replica({ end: 4 }, { backups: [backup('b1'), backup('b2')] }),
    ['backup b2'],
  ],
  [
    'a replica that was made anew: everything',
    told({ vaultId: 'aaaa', ends: { '1': lsn(9) }, histories: [2], backups: ['b1'] }),
    replica({ forks: [3], end: 5 }, { backups: [backup('b1')] }),
    [stretch(1, 1, 2), '00000002.history', stretch(2, 3, 4), 'backup b1'],
  ],
])('%s', (_what, before, now, expected) => {
  expect(decideAnnouncements(before, now, AT).map(inShort)).toEqual(expected);
});

test('what a message of each kind says', () => {
  const now = replica({ forks: [3], end: 4 }, { backups: [backup('b1')] });
  const common = { cluster: 'main', vault: 'file:///b', at: AT };
  expect(decideAnnouncements(told({ ends: { '1': lsn(3) } }), now, AT).map(({ arrival }) => arrival)).toEqual(
    [
      { ...common, kind: 'history', timeline: 2, file: '00000002.history', parent: 1, forkLsn: lsn(3) },
      {
        ...common,
        kind: 'segments',
        timeline: 2,
        first: file(2, 3),
        last: file(2, 3),
        count: 1,
        lsn: lsn(4),
      },
      {
        ...common,
        kind: 'backup',
        timeline: 1,
        id: 'b1',
        label: 'label of b1',
        startLsn: lsn(2),
        stopLsn: lsn(3),
      },
    ],
  );
});

test('a backup that is gone is forgotten with the next one that is told', () => {
  const [next] = decideAnnouncements(
    told({ ends: { '1': lsn(4) }, backups: ['b1', 'b2'] }),
    replica({ end: 4 }, { backups: [backup('b2'), backup('b3')] }),
    AT,
  );
  expect(next!.told.backups).toEqual(['b2', 'b3']);
});

test('killed after any message, with or without its row: nothing is left out, nothing before what lies below it', () => {
  const history = fc.array(
    fc.record({
      grow: fc.integer({ min: 0, max: 5 }),
      fork: fc.boolean(),
      dieAt: fc.integer({ min: 0, max: 4 }),
      moved: fc.boolean(),
    }),
    { minLength: 1, maxLength: 12 },
  );
  fc.assert(
    fc.property(history, (steps) => {
      let row: Told | undefined;
      let end = 1;
      const forks: number[] = [];
      const said: string[] = [];
      const tell = (limit: number, moved: boolean) => {
        const due = decideAnnouncements(row, replica({ forks, end }), AT);
        due.slice(0, limit).forEach(({ arrival, told: next }, index) => {
          if (arrival.kind === 'history') said.push(arrival.file);
          if (arrival.kind === 'segments') {
            const first = Number.parseInt(arrival.first.slice(16), 16);
            for (let each = 0; each < arrival.count; each++) said.push(file(arrival.timeline, first + each));
          }
          if (moved || index + 1 < limit) row = next;
        });
      };
      for (const { grow, fork, dieAt, moved } of steps) {
        if (fork) forks.push(end);
        end += grow;
        tell(dieAt, moved);
      }
      tell(Infinity, true);
      const expected: string[] = [];
      for (let timeline = 1, at = 1; timeline <= forks.length + 1; timeline++) {
        if (timeline > 1)
          expected.push(
            `${String(timeline).padStart(8, '0')}.history`.replace(/^.{8}/, file(timeline, 0).slice(0, 8)),
          );
        for (const stop = forks[timeline - 1] ?? end; at < stop; at++) expected.push(file(timeline, at));
      }
      expect([...new Set(said)]).toEqual(expected);
      expect(decideAnnouncements(row, replica({ forks, end }), AT)).toEqual([]);
    }),
  );
});
