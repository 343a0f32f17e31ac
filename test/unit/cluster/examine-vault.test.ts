/** What is found wrong with the vault as one machine sees it, by table. */
import type { Writer } from '../../../core/cluster/decide-archive.ts';
import {
  credentialSource,
  examineBackups,
  examineClock,
  examineCredentials,
  examineDatabase,
  examineLibrary,
  examineNodeRow,
  examineOthers,
  examineProbe,
  examineReachOf,
  examineWriter,
  type CredentialClues,
  type OwnFacts,
  type VaultFacts,
} from '../../../core/cluster/examine-vault.ts';
import type { Finding } from '../../../core/cluster/finding.ts';
import { COMMANDS } from '../../harness/examined.ts';
import { control, head, standby } from '../../harness/facts.ts';

const NOW = Date.parse('2026-01-01T01:00:00.000Z');
const LATELY = '2026-01-01T00:59:58.000Z';
const amiss = (findings: Finding[]) => findings.filter(({ state }) => state !== 'ok');
const brief = (findings: Finding[]) => amiss(findings).map(({ state, run }) => `${state} ${run ?? '-'}`);

const db1 = (changes = {}) =>
  standby({ name: 'db1', role: 'primary', heartbeatAt: LATELY, place: 'h:/pg', ...changes });
const vault = (changes: Partial<VaultFacts> = {}): VaultFacts => ({
  ...{ url: 's3://b', control: control(), head: head(), nodes: [db1()] },
  ...{ backups: [{ id: 'one', state: 'complete' }], manifestMs: 5, refusals: [], clockAheadMs: 0 },
  bucket: { ms: 9, key: 'main/wal/x', isThere: true },
  ...changes,
});

test.each<[string, Parameters<typeof examineReachOf>[0], string[], RegExp]>([
  ['well', vault(), [], /^$/],
  ['away', { unseen: '[unreachable] cannot read', fix: 'network' }, ['bad -'], /unreachable/],
  [
    'its bucket forbids',
    vault({ bucket: { unseen: '[denied] may not' } }),
    ['bad -'],
    /the bucket does not: \[denied\]/,
  ],
  [
    'the last object is gone',
    vault({ bucket: { ms: 9, key: 'k', isThere: false } }),
    ['bad -'],
    /gone from the bucket: k/,
  ],
  ['slow', vault({ manifestMs: 1500 }), ['warn -'], /manifest 1500 ms/],
  ['switched off', vault({ control: control({ archiving: false }) }), ['warn -'], /switched off/],
])('vault: %s', (_, facts, wanted, says) => {
  const findings = examineReachOf(facts);
  expect(brief(findings)).toEqual(wanted);
  expect(amiss(findings)[0]?.says ?? '').toMatch(says);
});

const clues = (
  environment: Record<string, string> = {},
  more: Partial<CredentialClues> = {},
): CredentialClues => ({
  ...{ profile: undefined, environment, hasSharedFile: false },
  ...more,
});

test.each<[CredentialClues, RegExp]>([
  [clues(), /role of this instance/],
  [clues({}, { hasSharedFile: true }), /~\/.aws/],
  [clues({ AWS_PROFILE: 'p' }), /profile p \(AWS_PROFILE\)/],
  [clues({ AWS_PROFILE: 'p', AWS_ACCESS_KEY_ID: 'AKIAVERYSECRET' }), /^the key AKIA… of/],
  [clues({ AWS_ACCESS_KEY_ID: 'AKIA' }, { profile: 'q' }), /profile q \(setting/],
  [clues({ AWS_WEB_IDENTITY_TOKEN_FILE: '/t' }), /web identity/],
  [clues({ AWS_CONTAINER_CREDENTIALS_FULL_URI: 'http://x' }), /container/],
])('credentials %j: %s', (given, says) => {
  expect(credentialSource(given)).toMatch(says);
  expect(credentialSource(given)).not.toContain('SECRET');
});

test('credentials that the person has and the server has not', () => {
  const key = clues({ AWS_ACCESS_KEY_ID: 'AKIAX' });
  expect(amiss(examineCredentials(true, key, key))).toEqual([]);
  expect(amiss(examineCredentials(true, key, undefined))).toEqual([]);
  expect(amiss(examineCredentials(false, key, clues()))).toEqual([]);
  expect(amiss(examineCredentials(true, key, clues()))).toMatchObject([
    {
      state: 'warn',
      says: 'here the key AKIA… of AWS_ACCESS_KEY_ID; the server and its hooks have the role of this instance',
    },
  ]);
});

test.each<[string, Partial<VaultFacts>, string[], RegExp]>([
  ['right', {}, [], /^$/],
  [
    'five minutes ahead of the store',
    { clockAheadMs: -300_000 },
    ['bad sudo chronyc makestep'],
    /5 min ahead of/,
  ],
  ['a minute behind the store', { clockAheadMs: 60_000 }, ['warn sudo chronyc makestep'], /60 s behind/],
  ['ten seconds off', { clockAheadMs: 10_000 }, [], /^$/],
  [
    'behind a heartbeat',
    { clockAheadMs: undefined, nodes: [db1({ heartbeatAt: '2026-01-01T01:10:00.000Z' })] },
    ['warn -'],
    /heartbeat of db1 is 10 min in the future/,
  ],
  [
    'behind the last segment',
    { clockAheadMs: undefined, head: head({ lastArchivedAt: '2026-01-01T03:00:00.000Z' }) },
    ['warn -'],
    /the last segment is 2 h/,
  ],
])('clock: %s', (_, changes, wanted, says) => {
  const findings = examineClock(vault(changes), NOW);
  expect(brief(findings)).toEqual(wanted);
  expect(amiss(findings)[0]?.says ?? '').toMatch(says);
});

const writer = (changes: Partial<Writer> = {}): Writer => ({
  ...{ node: 'db1', epoch: 1, nonces: ['n1'], place: 'h:/pg' },
  ...changes,
});

test.each<[string, Partial<VaultFacts>, Writer | undefined, string[], RegExp]>([
  ['the primary', {}, writer(), [], /^$/],
  ['fenced', { control: control({ epoch: 2, primary: 'db2' }) }, writer(), ['bad rejoin'], /^\[fenced\]/],
  ['copied', {}, writer({ nonces: ['other'] }), ['bad claim'], /^\[copied\]/],
  [
    'set back',
    { control: control({ epoch: 3 }) },
    writer(),
    ['bad -'],
    /^\[fenced\] db1 has taken up epoch 1/,
  ],
  [
    'flushed',
    { head: head({ flush: { lsn: '0/5', rev: 1 } }) },
    writer(),
    ['bad -'],
    /^\[refused\] db1 was flushed/,
  ],
  [
    'a replica',
    { control: control({ role: 'replica' }) },
    writer(),
    ['bad -'],
    /^\[fenced\] this vault is a replica/,
  ],
  ['never wrote', {}, undefined, ['bad claim'], /no writer.json/],
])('writer: %s', (_, changes, who, wanted, says) => {
  const findings = examineWriter(vault(changes), who, COMMANDS);
  expect(brief(findings)).toEqual(wanted);
  expect(amiss(findings)[0]?.says ?? '').toMatch(says);
});

const own = (changes: Partial<OwnFacts> = {}): OwnFacts => ({
  ...{ node: 'db1', place: 'h:/pg', version: '1', runs: true, inRecovery: false, heartbeatMs: 5000 },
  ...changes,
});

test.each<[string, object | undefined, Partial<OwnFacts>, string[], RegExp]>([
  ['well', {}, {}, [], /^$/],
  ['no row', undefined, {}, ['warn startAgent'], /no row of db1/],
  ['no row, and no server', undefined, { runs: false }, [], /^$/],
  ['silent', { heartbeatAt: '2026-01-01T00:50:00.000Z' }, {}, ['warn startAgent'], /10 min ago/],
  [
    'silent, as it should be with that interval',
    { heartbeatAt: '2026-01-01T00:50:00.000Z' },
    { heartbeatMs: 600_000 },
    [],
    /^$/,
  ],
  ['silent, the server stopped', { heartbeatAt: '2026-01-01T00:50:00.000Z' }, { runs: false }, [], /^$/],
  ['in trouble', { trouble: 'diverged' }, {}, ['bad -'], /diverged/],
  ['at another place', { place: 'x:/pg' }, {}, ['warn -'], /reports from x:\/pg, this is h:\/pg/],
  ['of another role', {}, { inRecovery: true }, ['warn -'], /has it as a primary, it is a standby/],
])('node row: %s', (_, changes, mine, wanted, says) => {
  const nodes = changes === undefined ? [] : [db1(changes)];
  const findings = examineNodeRow(vault({ nodes }), own(mine), NOW, COMMANDS);
  expect(brief(findings)).toEqual(wanted);
  expect(amiss(findings)[0]?.says ?? '').toMatch(says);
});

test('the others: those that fell silent or are in trouble, not this one', () => {
  const nodes = [db1({ heartbeatAt: null }), standby({ heartbeatAt: '2026-01-01T00:00:00.000Z' })];
  expect(amiss(examineOthers(vault({ nodes }), 'db1', NOW))).toMatchObject([
    { state: 'warn', says: expect.stringContaining('db2 (standby) was last heard of 60 min ago') as string },
  ]);
  expect(amiss(examineOthers(vault({ nodes: [standby({ heartbeatAt: LATELY })] }), 'db1', NOW))).toEqual([]);
  const troubled = [standby({ heartbeatAt: LATELY, trouble: 'diverged' })];
  expect(amiss(examineOthers(vault({ nodes: troubled }), undefined, NOW))).toMatchObject([{ state: 'warn' }]);
});

test('backups, library, database', () => {
  expect(amiss(examineBackups(vault(), COMMANDS))).toEqual([]);
  expect(brief(examineBackups(vault({ backups: [{ id: 'x', state: 'failed' }] }), COMMANDS))).toEqual([
    'warn backup',
  ]);
  const mixed = vault({ nodes: [db1({ library: 'glibc 2.36' })] });
  expect(amiss(examineLibrary(mixed, 'db2', 'glibc 2.36'))).toEqual([]);
  expect(amiss(examineLibrary(mixed, 'db2', 'glibc 2.41'))).toHaveLength(1);
  expect(amiss(examineLibrary(mixed, 'db1', 'glibc 2.41'))).toEqual([]);
  const database = {
    pgdata: '/pg',
    systemIdentifier: control().systemIdentifier,
    segmentSize: 16 << 20,
    majorVersion: 18,
  };
  expect(amiss(examineDatabase(vault(), database))).toEqual([]);
  for (const other of [{ systemIdentifier: '9' }, { majorVersion: 17 }, { segmentSize: 1 << 20 }])
    expect(amiss(examineDatabase(vault(), { ...database, ...other }))).toMatchObject([{ state: 'bad' }]);
});

test('a key that may not delete is right for a node; one that may not write is not', () => {
  const step = (what: string, isDone: boolean) => ({ what, isDone, text: 'text' });
  const findings = examineProbe([step('bucket', true), step('manifest', true), step('delete', false)]);
  expect(amiss(findings)).toEqual([]);
  expect(findings.at(-1)?.says).toMatch(/not allowed, which is right for the key of a node/);
  expect(amiss(examineProbe([step('bucket', false)]))).toMatchObject([{ state: 'bad' }]);
  expect(amiss(examineProbe(undefined))).toEqual([]);
});
