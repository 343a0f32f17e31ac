/** Looks at a cluster, minute by minute: what is told once, what is told when it is over, and what swings about a limit. */
import { decideLook, NO_LOOK, type LookFacts, type LookState } from '../../../core/cluster/decide-look.ts';

const MIN = 60_000;
const START = Date.parse('2026-01-01T03:00:00.000Z');
const at = (minute: number): Date => new Date(START + minute * MIN);
const iso = (minute: number): string => at(minute).toISOString();
const limits = { lagMs: 10 * MIN, archiveMs: 15 * MIN, silenceMs: 5 * MIN };

type Node = LookFacts['nodes'][number];
const node = (name: string, changes: Partial<Node> = {}): Node => ({
  ...{ name, role: name === 'db1' ? 'primary' : 'standby', heartbeatAt: iso(0), trouble: null },
  ...changes,
});
const B = { id: 'b0', url: 's3://b', rows: 0, seconds: 0, at: iso(0), trouble: null };

const facts = (changes: Partial<LookFacts> = {}): LookFacts => ({
  ...{ cluster: 'main', vault: 's3://a', nodes: [], replicas: [] },
  control: { epoch: 7, primary: 'db1', role: 'active', archiving: true },
  ...changes,
});

/** One look a minute from minute 0 on. @returns '<minute> <kind> <urgency> <title>' of each notice, all notices, the last figures */
function watch(minutes: number, factsAt: (minute: number) => LookFacts, from: LookState = NO_LOOK) {
  let state = from;
  let figures = {};
  const notices = [];
  const told: string[] = [];
  for (let minute = 0; minute <= minutes; minute++) {
    const look = decideLook(state, factsAt(minute), limits, at(minute));
    ({ state, figures } = look);
    for (const notice of look.notices) {
      notices.push(notice);
      told.push(`${minute} ${notice.kind} ${notice.urgency}${notice.node === null ? '' : ` ${notice.node}`}`);
    }
  }
  return { told, notices, figures, state };
}

const replica = (seconds: number, changes = {}) =>
  facts({ replicas: [{ ...B, rows: 3, seconds, ...changes }] });
const waits = (minute: number, waitMin: number | null) =>
  facts({
    nodes: [
      node('db1', {
        heartbeatAt: iso(minute),
        waitingSince: waitMin === null ? null : iso(minute - waitMin),
      }),
    ],
  });

describe('a replica that is behind', () => {
  test('is told once, and once when it has been level for as long as the limit', () => {
    const { told, notices } = watch(60, (minute) => replica(minute < 30 ? minute * 60 : 0));
    expect(told).toEqual(['11 lag alert', '40 lag info']);
    expect(notices[0]).toMatchObject({ cluster: 'main', vault: 's3://a', epoch: 7, at: iso(11) });
    expect(notices[0]!.text).toContain('s3://b lacks 3 segments, the oldest 11 min old (limit 10 min)');
    expect(notices[0]!.text).toContain(
      'the relay was heard of last at 2026-01-01T03:00:00.000Z (11 min ago)',
    );
  });

  const swings: [string, (minute: number) => number][] = [
    ['every other minute', (minute) => (minute % 2 === 0 ? 601 : 0)],
    ['just about the limit', (minute) => (minute % 2 === 0 ? 601 : 599)],
    ['each quarter of an hour', (minute) => (minute % 15) * 60],
    ['between half the limit and the limit', (minute) => (minute === 0 ? 601 : 400)],
  ];
  test.each(swings)('that swings %s is told once in a day', (_, seconds) => {
    expect(watch(1440, (minute) => replica(seconds(minute))).told).toHaveLength(1);
  });

  test('that is just at the limit is not told', () => {
    expect(watch(30, () => replica(600)).told).toEqual([]);
  });

  test('says what its relay says, or that none was ever heard of', () => {
    expect(watch(0, () => replica(3600, { trouble: 'denied' })).notices[0]!.text).toContain(
      'its trouble: denied',
    );
    const never = watch(0, () => replica(3600, { at: null })).notices[0]!;
    expect(never.text).toContain('no relay to it was ever heard of');
  });

  test('each of two is a fact of its own, and the worst of them is the figure', () => {
    const two = () =>
      facts({
        replicas: [
          { ...B, seconds: 700 },
          { ...B, id: 'c0', url: 's3://c', seconds: 900 },
        ],
      });
    const { notices, figures } = watch(5, two);
    expect(notices.map(({ id }) => id)).toEqual([`look#lag#b0#${iso(0)}`, `look#lag#c0#${iso(0)}`]);
    expect(figures).toEqual({ relayLag: 900, silentNodes: 0 });
  });

  test('that is forgotten is told no more', () => {
    const { told, state } = watch(40, (minute) => (minute < 5 ? replica(700) : facts()));
    expect(told).toEqual(['0 lag alert']);
    expect(state.bad).toEqual({});
  });
});

describe('WAL that waits on the primary', () => {
  test('is told once, and once when it goes again', () => {
    const { told } = watch(60, (minute) => waits(minute, minute < 20 ? minute : null));
    expect(told).toEqual(['16 archive-wait alert db1', '30 archive-wait info db1']);
  });

  test('is reckoned by the primary alone: its clock may be an hour off', () => {
    for (const off of [-60, 60]) {
      const { notices, figures } = watch(2, (minute) => waits(minute + off, 14));
      expect(figures).toMatchObject({ archiveWait: 840 });
      expect(notices.filter(({ kind }) => kind === 'archive-wait')).toEqual([]);
    }
  });

  const nothing: [string, LookFacts][] = [
    ['an agent that does not say it', facts({ nodes: [node('db1')] })],
    [
      'a primary that never reported',
      facts({ nodes: [node('db1', { heartbeatAt: null, waitingSince: null })] }),
    ],
    ['another node than the primary', facts({ nodes: [node('db2', { waitingSince: iso(-600) })] })],
    ['archiving that is off', { ...waits(0, 600), control: { ...facts().control, archiving: false } }],
    ['a replica', { ...waits(0, 600), control: { ...facts().control, role: 'replica' } }],
  ];
  test.each(nothing)('nothing is known of it from %s', (_, given) => {
    const { told, figures } = watch(0, () => given);
    expect(told).toEqual([]);
    expect(figures).not.toHaveProperty('archiveWait');
  });

  test('a primary that has nothing to archive, or says nothing, is not late', () => {
    expect(watch(0, () => waits(0, null)).figures).toEqual({ archiveWait: 0, silentNodes: 0 });
    const { figures, told } = watch(60, () => waits(0, 1));
    expect(figures).toEqual({ archiveWait: 60, silentNodes: 1 });
    expect(told).toEqual(['6 silence alert db1']);
  });
});

describe('a node that is silent', () => {
  const speaks =
    (minutes: (minute: number) => number, changes: Partial<Node> = {}) =>
    (minute: number) =>
      facts({ nodes: [node('db2', { heartbeatAt: iso(minutes(minute)), ...changes })] });

  test('is told once, and once when it has been heard of for as long as the limit', () => {
    const { told, notices } = watch(
      60,
      speaks((minute) => (minute >= 10 && minute < 30 ? 9 : minute)),
    );
    expect(told).toEqual(['15 silence warning db2', '35 silence info db2']);
    expect(notices[0]!.text).toContain('db2 has said nothing for 6 min');
    expect(notices[0]!.text).toContain(`its last word was at ${iso(9)}`);
    expect(notices[0]!.text).toContain('walvault node drop db2');
  });

  test('that speaks once each six minutes floods nobody', () => {
    expect(
      watch(
        1440,
        speaks((minute) => minute - (minute % 7)),
      ).told,
    ).toHaveLength(1);
  });

  test('is counted while it is silent', () => {
    expect(
      watch(
        5,
        speaks(() => 0),
      ).figures,
    ).toEqual({ silentNodes: 0 });
    expect(
      watch(
        6,
        speaks(() => 0),
      ).figures,
    ).toEqual({ silentNodes: 1 });
  });

  test('is the primary: an alert that names the failover', () => {
    const { notices } = watch(6, () => facts({ nodes: [node('db1')] }));
    expect(notices).toMatchObject([{ urgency: 'alert', node: 'db1' }]);
    expect(notices[0]!.text).toContain('docs/runbook/failover.md');
  });

  test('of the name of the primary of another vault is no primary here', () => {
    const control = { ...facts().control, role: 'replica' } as const;
    expect(watch(6, () => facts({ control, nodes: [node('db1')] })).notices).toMatchObject([
      { urgency: 'warning' },
    ]);
  });

  test.each([
    ['detached', { trouble: 'detached since 2026: opened for a test' }],
    ['never heard of', { heartbeatAt: null }],
  ])('but %s is not told', (_, changes) => {
    const { told, figures } = watch(
      60,
      speaks(() => 0, changes),
    );
    expect(told).toEqual([]);
    expect(figures).toEqual({ silentNodes: 0 });
  });

  test('and is dropped is told no more', () => {
    expect(watch(60, (minute) => (minute < 10 ? facts({ nodes: [node('db2')] }) : facts())).told).toEqual([
      '6 silence warning db2',
    ]);
  });

  test('that was silent for a day when the first look was taken is told by the second', () => {
    expect(
      watch(
        5,
        speaks(() => -1440),
      ).told,
    ).toEqual(['1 silence warning db2']);
  });

  test('is found after the function itself was away for hours', () => {
    const { state } = watch(
      3,
      speaks((minute) => minute),
    );
    const later = decideLook(state, speaks(() => 3)(0), limits, at(300));
    expect(later.notices).toMatchObject([{ kind: 'silence', node: 'db2' }]);
  });
});

describe('a clock that is wrong by an hour', () => {
  const off =
    (hours: number, until = Infinity) =>
    (minute: number) =>
      facts({
        nodes: [node('db2', { heartbeatAt: iso(minute > until ? until : minute + hours * 60) })],
        replicas: [B],
      });

  test.each([
    ['ahead', 1, 'the clock of db2 is at least 60 min ahead of that of the notify function'],
    ['behind', -1, 'the clock of db2 is at least 59 min behind that of the notify function'],
  ])('%s is told once, and the node is not taken for silent', (_, hours, words) => {
    const { told, notices, figures } = watch(120, off(hours));
    expect(told.map((line) => line.replace(/^\d+ /, ''))).toEqual(['clock warning db2']);
    expect(notices[0]!.text).toContain(words);
    expect(figures).toMatchObject({ silentNodes: 0 });
  });

  test('does not hide that the node falls silent', () => {
    const given = (minute: number) =>
      facts({ nodes: [node('db2', { heartbeatAt: iso(Math.min(minute, 20) + 60) })] });
    expect(watch(40, given).told).toEqual(['0 clock warning db2', '26 silence warning db2']);
  });

  test('is told when it is right again', () => {
    const given = (minute: number) =>
      facts({ nodes: [node('db2', { heartbeatAt: iso(minute < 20 ? minute + 60 : minute) })] });
    expect(watch(60, given).told).toEqual(['0 clock warning db2', '30 clock info db2']);
  });

  test('of the primary is said where the age of what a replica lacks depends on it', () => {
    const given = (minute: number) => ({
      ...replica(minute < 2 ? 0 : 700),
      nodes: [node('db1', { heartbeatAt: iso(minute + 60) })],
    });
    const lag = watch(3, given).notices.find(({ kind }) => kind === 'lag')!;
    expect(lag.text).toContain('; the clock of db1 is at least 60 min ahead of that of the notify function');
  });
});

describe('a standby that has diverged', () => {
  const says = (trouble: (minute: number) => string | null) => (minute: number) =>
    facts({ nodes: [node('db2', { heartbeatAt: iso(minute), trouble: trouble(minute) })] });

  test('is told once, and once when it is in order again', () => {
    const { told, notices } = watch(
      60,
      says((minute) => (minute >= 5 && minute < 20 ? 'it has diverged' : null)),
    );
    expect(told).toEqual(['5 trouble warning db2', '25 trouble info db2']);
    expect(notices[0]!.text).toContain('db2: it has diverged');
  });

  test.each(['flushed at 0/3000028, hence read-only', 'detached since 2026'])(
    'but %s was meant',
    (trouble) => {
      expect(
        watch(
          10,
          says(() => trouble),
        ).told,
      ).toEqual([]);
    },
  );
});

test('what is told twice by two looks of the same moment has one id, and by another moment another', () => {
  const ids = (minute: number) =>
    decideLook(NO_LOOK, replica(700), limits, at(minute)).notices.map(({ id }) => id);
  expect(ids(1)).toEqual(ids(1));
  expect(ids(1)).not.toEqual(ids(2));
});
