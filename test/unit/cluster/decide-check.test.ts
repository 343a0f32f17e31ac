import {
  checkLine,
  decideCheck,
  exitOf,
  unknownCheck,
  worstOf,
  type CheckFacts,
  type Thresholds,
} from '../../../core/cluster/decide-check.ts';

const S = 1000;
const two = (warning: number | undefined, critical: number | undefined) => ({
  warning: warning === undefined ? undefined : warning * S,
  critical: critical === undefined ? undefined : critical * S,
});
const THRESHOLDS: Thresholds = {
  ...{ silence: two(60, 600), lag: two(300, 1800), waiting: two(120, 600) },
  ...{ backup: two(1000, 2000), relay: two(300, 1800), trigger: two(120, 600) },
};

const primary: CheckFacts['nodes'][number] = {
  name: 'db1',
  role: 'primary',
  silentMs: 2 * S,
  lagMs: 0,
  trouble: null,
};
const standby: CheckFacts['nodes'][number] = {
  name: 'db2',
  role: 'standby',
  silentMs: 2 * S,
  lagMs: 0,
  trouble: null,
};
const segment = (number: number) => `0000000100000000${number.toString(16).toUpperCase().padStart(8, '0')}`;
const relay = {
  ...{ direction: 'to' as const, id: 'b'.repeat(16), url: 'file:///b' },
  ...{ lagMs: 0, silentMs: S, trouble: null },
};

const facts = (changes: Partial<CheckFacts> = {}): CheckFacts => ({
  ...{ cluster: 'main', role: 'active', primary: 'db1', archiving: true, epoch: 3, timeline: 2 },
  ...{
    lastSegment: segment(9),
    nodes: [primary, standby],
    waitingMs: 0,
    flushed: false,
    gaps: [],
    relays: [],
  },
  ...{ backups: [{ startSegment: segment(2), ageMs: 500 * S }], spilledFiles: 0, triggerMs: null },
  ...changes,
});

test.each<[string, Partial<CheckFacts>, string, RegExp | null]>([
  ['all well', {}, 'ok', null],
  ['no primary', { primary: null }, 'critical', /^no primary$/],
  ['archiving off', { archiving: false }, 'warning', /archiving is off/],
  ['a flushed primary', { flushed: true }, 'warning', /flushed: nothing is archived/],
  [
    'an old primary that is fenced',
    { nodes: [primary, { ...standby, role: 'primary' }] },
    'warning',
    /^db2 was the primary, and is fenced$/,
  ],
  ['a node just below its threshold', { nodes: [primary, { ...standby, silentMs: 60 * S - 1 }] }, 'ok', null],
  [
    'a silent standby',
    { nodes: [primary, { ...standby, silentMs: 60 * S }] },
    'warning',
    /db2 is silent for 60 s/,
  ],
  [
    'a dead standby',
    { nodes: [primary, { ...standby, silentMs: 600 * S }] },
    'critical',
    /db2 is silent for 10 min/,
  ],
  ['a silent primary', { nodes: [{ ...primary, silentMs: 90 * S }] }, 'warning', /db1 is silent/],
  ['a primary without a word', { nodes: [standby] }, 'warning', /db1 has never reported/],
  [
    'a standby behind',
    { nodes: [primary, { ...standby, lagMs: 400 * S }] },
    'warning',
    /db2 is behind for 6 min/,
  ],
  [
    'a standby far behind',
    { nodes: [primary, { ...standby, lagMs: 4000 * S }] },
    'critical',
    /db2 is behind/,
  ],
  ['an unknown lag', { nodes: [primary, { ...standby, lagMs: null }] }, 'ok', null],
  [
    'a fenced node has no lag',
    { nodes: [primary, { ...standby, role: 'fenced', lagMs: 1e9 }] },
    'warning',
    /^db2 was the primary, and is fenced$/,
  ],
  [
    'trouble of a standby',
    { nodes: [primary, { ...standby, trouble: 'diverged' }] },
    'warning',
    /db2: diverged/,
  ],
  ['trouble of the primary', { nodes: [{ ...primary, trouble: 'no disk' }] }, 'critical', /db1: no disk/],
  ['archiving that lags', { waitingMs: 130 * S }, 'warning', /waits to be archived for 2 min/],
  ['archiving that stands still', { waitingMs: 600 * S }, 'critical', /waits to be archived/],
  ['no word of what waits', { waitingMs: null }, 'ok', null],
  ['no backup', { backups: [] }, 'warning', /no complete backup/],
  [
    'an old backup',
    { backups: [{ startSegment: segment(2), ageMs: 1500 * S }] },
    'warning',
    /backup is 25 min old/,
  ],
  [
    'an old one and a new one',
    { backups: [1500, 5].map((age) => ({ startSegment: segment(2), ageMs: age * S })) },
    'ok',
    null,
  ],
  [
    'a gap after the backup',
    { gaps: [{ from: segment(3), to: segment(4) }] },
    'critical',
    /no complete backup after it/,
  ],
  ['a gap before the backup', { gaps: [{ from: segment(0), to: segment(1) }] }, 'ok', null],
  ['a promotion just begun', { triggerMs: S }, 'ok', null],
  ['a promotion that hangs', { triggerMs: 700 * S }, 'critical', /a promotion is under way for 11 min/],
  [
    'a relay in trouble',
    { relays: [{ ...relay, trouble: 'no answer' }] },
    'warning',
    /relay to file:\/\/\/b: no answer/,
  ],
  ['a relay behind', { relays: [{ ...relay, lagMs: 301 * S }] }, 'warning', /is behind for 5 min/],
  ['a relay that died', { relays: [{ ...relay, silentMs: 1900 * S }] }, 'critical', /is silent for 31 min/],
  ['spills', { spilledFiles: 3 }, 'warning', /3 files/],
  ['a vault on its way to be a replica', { role: 'converging' }, 'warning', /being made a replica/],
  [
    'a replica asks no primary',
    { role: 'replica', nodes: [{ ...primary, silentMs: 1e9 }], waitingMs: 1e9 },
    'ok',
    null,
  ],
])('%s', (_, changes, level, text) => {
  const check = decideCheck(facts(changes), THRESHOLDS);
  expect(check.level).toBe(level);
  if (text === null) expect(check.findings).toEqual([]);
  else expect(check.findings).toEqual([{ level, text: expect.stringMatching(text) }]);
});

test('a threshold that is not set finds nothing, and its figure is still told', () => {
  const nodes = [primary, { ...standby, lagMs: 1e9 }];
  const check = decideCheck(facts({ nodes }), { ...THRESHOLDS, lag: two(undefined, undefined) });
  expect(check.level).toBe('ok');
  expect(checkLine([check])).toContain(' lag_db2=1000000s;;;0');
  expect(decideCheck(facts({ nodes }), { ...THRESHOLDS, lag: two(10, undefined) }).level).toBe('warning');
});

test('one line: level, the worst first, figures with their thresholds', () => {
  const check = decideCheck(facts({ archiving: false, primary: null, nodes: [standby] }), THRESHOLDS);
  expect(checkLine([check])).toBe(
    'WALVAULT CRITICAL - main: no primary, archiving is off | silence_db2=2s;60;600;0 lag_db2=0s;300;1800;0 backup=500s;1000;2000;0',
  );
  expect(checkLine([decideCheck(facts(), THRESHOLDS)])).toMatch(
    /^WALVAULT OK - main: primary db1, epoch 3, timeline 2, last segment 0{7}1\w+, standbys 1 \| waiting=0s;/,
  );
});

test('of several clusters the worst one wins and stands first; figures name their cluster', () => {
  const good = decideCheck(facts(), THRESHOLDS);
  const bad = decideCheck(
    facts({ cluster: 'other', nodes: [{ ...primary, trouble: 'a | b\nc' }] }),
    THRESHOLDS,
  );
  const line = checkLine([good, bad, unknownCheck('third', '[unreachable] no answer')]);
  expect(line).toMatch(
    /^WALVAULT CRITICAL - other: db1: a b c; third: \[unreachable\] no answer; main: primary db1/,
  );
  expect(line).toMatch(/ \| main_waiting=.* other_silence_db1=/);
  expect(line.split('|')).toHaveLength(2);
  expect(checkLine([])).toBe('WALVAULT OK - no clusters');
});

test('what is wrong outweighs what is unknown, which outweighs what is well', () => {
  expect(worstOf(['ok', 'unknown'])).toBe('unknown');
  expect(worstOf(['unknown', 'warning', 'ok'])).toBe('warning');
  expect(worstOf(['warning', 'critical', 'unknown'])).toBe('critical');
  expect(worstOf([])).toBe('ok');
  expect((['ok', 'warning', 'critical', 'unknown'] as const).map(exitOf)).toEqual([0, 1, 2, 3]);
});
