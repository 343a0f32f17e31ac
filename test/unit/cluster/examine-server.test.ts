/** What is found wrong with a server, by table; and the reckonings behind it. */
import {
  examineArchiving,
  examineChain,
  examineDisks,
  examineParameters,
  examinePending,
  examineServer,
  examineTablespaces,
  isStanding,
  minutesUntilFull,
  sameValue,
  walRate,
  type ArchivingFacts,
  type ParameterFacts,
  type ParameterRow,
  type ServerState,
} from '../../../core/cluster/examine-server.ts';
import type { Finding } from '../../../core/cluster/finding.ts';
import { COMMANDS } from '../../harness/examined.ts';

const amiss = (findings: Finding[]) => findings.filter(({ state }) => state !== 'ok');
const brief = (findings: Finding[]) => amiss(findings).map(({ state, run }) => `${state} ${run ?? '-'}`);

test.each([
  ['60s', '1min', true],
  ['200ms', '0.2s', true],
  ['0', '0s', true],
  ['on', 'yes', true],
  ['off', 'FALSE', true],
  ['1min', '61s', false],
  ['on', 'always', false],
  ['a b', 'a  b', false],
  ['', '0', false],
])('PostgreSQL takes %j and %j for the same: %s', (one, other, same) => {
  expect(sameValue(one, other)).toBe(same);
});

function parameters(
  rows: Record<string, Partial<ParameterRow>>,
  wanted: Record<string, string>,
  more: Partial<ParameterFacts> = {},
): ParameterFacts {
  return {
    found: new Map(Object.entries(rows).map(([name, row]) => [name, { value: '', ...row }])),
    ...{ wanted, tooLong: [], refused: [], isRunning: true, isStandby: false },
    ...more,
  };
}

test.each<[string, ParameterFacts, string[], RegExp]>([
  [
    'as configure writes it',
    parameters({ archive_timeout: { value: '1min' } }, { archive_timeout: '60s' }),
    [],
    /^$/,
  ],
  [
    'another archive_command',
    parameters(
      { archive_command: { value: 'cp', file: '/c/postgresql.conf', line: 7 } },
      { archive_command: 'ours' },
    ),
    ['bad configure'],
    /is cp, configure would write ours \(\/c\/postgresql.conf, line 7\)/,
  ],
  [
    'archive_command while archive_mode is off',
    parameters(
      { archive_command: { value: '(disabled)' }, archive_mode: { value: 'off' } },
      { archive_command: 'ours', archive_mode: 'on' },
    ),
    ['bad configureRestart'],
    /archive_mode is off/,
  ],
  [
    'archive_mode of a stopped server',
    parameters({ archive_mode: { value: 'off' } }, { archive_mode: 'on' }, { isRunning: false }),
    ['bad configure'],
    /archive_mode/,
  ],
  [
    'wal_level minimal',
    parameters({ wal_level: { value: 'minimal' } }, { wal_level: 'replica' }),
    ['bad configureRestart'],
    /wal_level/,
  ],
  [
    'an archive_library',
    parameters({ archive_library: { value: 'basic_archive' } }, { archive_library: '' }),
    ['bad configure'],
    /configure would write nothing/,
  ],
  [
    'no walsender',
    parameters({ max_wal_senders: { value: '0' } }, { max_wal_senders: '10' }),
    ['warn configureRestart'],
    /max_wal_senders/,
  ],
  ['no cleanup', parameters({}, { archive_cleanup_command: 'ours' }), ['warn configure'], /is not set/],
  [
    'set on the command line',
    parameters({ archive_command: { value: 'cp', source: 'command line' } }, { archive_command: 'ours' }),
    ['bad -'],
    /is cp/,
  ],
  [
    'a command that is too long',
    parameters({}, {}, { tooLong: [{ name: 'archive_command', bytes: 1100, limit: 1023 }] }),
    ['bad -'],
    /1100 bytes/,
  ],
  [
    'a target of recovery on a standby',
    parameters({ recovery_target_time: { value: '2026-01-01' } }, {}, { isStandby: true }),
    ['bad configure'],
    /this standby stops there/,
  ],
  [
    'the same on a primary, where it says nothing',
    parameters({ recovery_target_time: { value: '2026-01-01' } }, {}),
    [],
    /^$/,
  ],
  [
    'a standby that keeps to a timeline',
    parameters({ recovery_target_timeline: { value: 'current' } }, {}, { isStandby: true }),
    ['bad configure'],
    /recovery_target_timeline is current/,
  ],
  [
    'a standby that follows the latest',
    parameters({ recovery_target_timeline: { value: 'latest' } }, {}, { isStandby: true }),
    [],
    /^$/,
  ],
])('parameters: %s', (_, facts, wanted, says) => {
  const findings = examineParameters(facts, COMMANDS);
  expect(brief(findings)).toEqual(wanted);
  expect(amiss(findings)[0]?.says ?? '').toMatch(says);
});

test.each<[string, ParameterFacts, string[]]>([
  ['in force', parameters({ archive_timeout: { value: '1min', written: '60s', context: 'sighup' } }, {}), []],
  [
    'a reload is due',
    parameters({ archive_timeout: { value: '1min', written: '61s', context: 'sighup' } }, {}),
    ['warn reload'],
  ],
  [
    'a restart is due, the server knows',
    parameters({ archive_mode: { value: 'on', written: 'always', pendingRestart: true } }, {}),
    ['warn restart'],
  ],
  [
    'a restart is due, before any reload',
    parameters({ archive_mode: { value: 'on', written: 'always', context: 'postmaster' } }, {}),
    ['warn restart'],
  ],
  [
    'overruled by the command line, which no reload changes',
    parameters({ archive_timeout: { value: '5min', written: '60s', source: 'command line' } }, {}),
    [],
  ],
  [
    'a line that is refused',
    parameters({}, {}, { refused: [{ file: '/c/p.conf', line: 3, name: 'work_mem', error: 'invalid' }] }),
    ['bad reload'],
  ],
])('pending: %s', (_, facts, wanted) => {
  expect(brief(examinePending(facts, COMMANDS))).toEqual(wanted);
});

const NOW = 10_000_000;
const archiving = (count: number, ageMs: number, failed?: number, archived?: number): ArchivingFacts => ({
  waiting: { count, first: 'x', oldestAtMs: NOW - ageMs },
  archiver:
    failed === undefined
      ? undefined
      : { failed: 3, lastFailed: 'x', lastFailedAtMs: failed, lastArchivedAtMs: archived ?? null },
});

test.each([
  ['nothing waits', archiving(0, 0, NOW), false],
  ['one waits for a second', archiving(1, 1000), false],
  ['one waits for ten minutes', archiving(1, 600_000), true],
  ['the last try failed', archiving(1, 1000, NOW - 10), true],
  ['it failed, and went on', archiving(1, 1000, NOW - 10, NOW - 5), false],
])('archiving stands still, %s: %#', (_, facts, standing) => {
  expect(isStanding(facts, NOW)).toBe(standing);
  expect(brief(examineArchiving(facts, NOW))).toEqual(standing ? ['bad -'] : []);
});

test('the rate of WAL is the greatest of all looks, and none where no time went by', () => {
  expect(walRate([])).toBe(0);
  expect(walRate([{ bytes: 5, ms: 0 }])).toBe(0);
  expect(
    walRate([
      { bytes: 1000, ms: 1000 },
      { bytes: 9000, ms: 3000 },
    ]),
  ).toBe(3000);
});

test.each([
  [60_000, 1000, 1],
  [59_999, 1000, 0],
  [3_600_000, 1000, 60],
  [1, 0, undefined],
])('%d bytes free at %d a second: full in %s min', (free, rate, minutes) => {
  expect(minutesUntilFull(free, rate)).toBe(minutes);
});

const GiB = 1 << 30;
const disk = (freeBytes: number) => [
  { name: 'pg_wal' as const, path: '/w', freeBytes, totalBytes: 100 * GiB },
];
const wal = (standing: boolean, bytes = 0) => ({
  standing,
  looks: [{ bytes, ms: 1000 }],
  segmentSize: 16 << 20,
});

test.each<[string, Finding[], string[]]>([
  ['room', examineDisks(disk(50 * GiB), wal(false, GiB)), []],
  ['little room', examineDisks(disk(4 * GiB), wal(false)), ['warn']],
  ['no room for two segments', examineDisks(disk(30 << 20), wal(false)), ['bad']],
  ['standing still, and written fast', examineDisks(disk(60 * GiB), wal(true, GiB)), ['bad']],
  ['standing still, and written slowly', examineDisks(disk(60 * GiB), wal(true, 1000)), ['warn']],
  ['standing still, and nothing written', examineDisks(disk(60 * GiB), wal(true, 0)), []],
])('disk: %s', (_, findings, wanted) => {
  expect(amiss(findings).map(({ state }) => state)).toEqual(wanted);
});

test('how long pg_wal has room is said in minutes', () => {
  const findings = examineDisks(disk(60 * GiB), wal(true, GiB));
  expect(findings.map(({ says }) => says).join()).toContain('pg_wal is full in about 1 min');
});

test.each<[string, ('ready' | 'done' | '' | 'absent')[], string[], RegExp]>([
  ['the vault has all', [], [], /^$/],
  ['all wait', ['ready', 'ready'], [], /^$/],
  ['the last one has no status yet', ['ready', ''], [], /^$/],
  ['the last one is not there yet', ['ready', 'absent'], [], /^$/],
  [
    'one was told archived',
    ['done', 'ready'],
    ['bad'],
    /^mv \/w\/archive_status\/s0.done \/w\/archive_status\/s0.ready && startAgent$/,
  ],
  ['one was never marked', ['', 'ready'], ['bad'], /^touch \/w\/archive_status\/s0.ready && startAgent$/],
  ['one is lost', ['absent', 'ready'], ['bad'], /^$/],
])('chain: %s', (_, statuses, wanted, run) => {
  const segments = statuses.map((status, index) => ({ name: `s${index}`, status }));
  const findings = examineChain({ walDirectory: '/w', isSpillAway: false, segments }, COMMANDS);
  expect(amiss(findings).map(({ state }) => state)).toEqual(wanted);
  expect(amiss(findings)[0]?.run ?? '').toMatch(run);
});

test('chain: what was spilled is archived, though the vault has not got it', () => {
  const segments = [{ name: 's0', status: 'done' as const }];
  const facts = { walDirectory: '/w', isSpillAway: true, segments };
  expect(brief(examineChain(facts, COMMANDS))).toEqual(['warn -']);
});

test('tablespaces: a link to nothing, and one into the state directory', () => {
  const space = (target: string, state: 'there' | 'absent') => ({ oid: '1', link: '/pg/1', target, state });
  expect(amiss(examineTablespaces([], '/s'))).toEqual([]);
  expect(amiss(examineTablespaces([space('/t', 'there')], '/s'))).toEqual([]);
  expect(amiss(examineTablespaces([space('/t', 'absent')], '/s'))[0]?.fix).toContain('mount /t');
  expect(amiss(examineTablespaces([space('/s/x', 'there')], '/s'))).toHaveLength(1);
});

test.each<[string, Partial<ServerState>, string[]]>([
  ['it runs', {}, []],
  ['it does not run', { running: 'no' }, ['warn start']],
  ['it is starting', { running: 'starting', noConnection: { unseen: 'starting up' } }, ['warn -']],
  ['it lets nobody in', { noConnection: { unseen: '[denied] no', fix: 'name a superuser' } }, ['bad -']],
  ['its replay is paused', { isReplayPaused: true }, ['warn -']],
])('server: %s', (_, changes, wanted) => {
  const facts: ServerState = {
    ...{ pgdata: '/pg', running: 'yes', stateText: 'in production', majorVersion: 18 },
    ...{ noConnection: undefined, isReplayPaused: false },
    ...changes,
  };
  expect(brief(examineServer(facts, COMMANDS))).toEqual(wanted);
});
