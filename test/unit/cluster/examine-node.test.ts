/** What is found wrong with a node's own files, by table: each row is one thing amiss in a node that is otherwise well. */
import {
  examineAgent,
  examineErrors,
  examineIdentity,
  examineMarks,
  examinePermissions,
  examineProgram,
  examineSettings,
  examineSignals,
  examineStateDirectory,
  examineWrappers,
  isConfigured,
  type FileFacts,
  type SettingsFacts,
  type SignalFacts,
  type StateFacts,
} from '../../../core/cluster/examine-node.ts';
import type { Finding } from '../../../core/cluster/finding.ts';
import { COMMANDS } from '../../harness/examined.ts';

const ME = { uid: 70, name: 'postgres' };
const OTHER = { uid: 1000, name: 'ann' };
const S = '/pg.walvault';
const file = (name: string, changes: Partial<FileFacts> = {}): FileFacts => ({
  ...{ path: `${S}/${name}`, kind: 'file', mode: 0o600, uid: 70 },
  ...changes,
});

function state(changes: Partial<StateFacts> = {}): StateFacts {
  const identity = { machineId: 'm', pgdata: '/pg', inode: '7' };
  return {
    dir: { path: S, kind: 'directory', mode: 0o700, uid: 70 },
    isInside: false,
    files: ['settings.toml', 'identity.json', 'writer.json'].map((name) => file(name)),
    wrappers: [{ file: file('archive', { mode: 0o700, text: 'script' }), wanted: 'script' }],
    links: [
      { name: 'program', path: `${S}/program`, target: '/opt/walvault', resolves: true },
      { name: 'node', path: `${S}/node`, target: '/opt/node', resolves: true },
    ],
    lacks: [],
    version: '1.0.0',
    identity: { kept: identity, present: identity },
    agent: { isWanted: true, runs: { pid: 42, version: '1.0.0' }, answers: 'yes' },
    lease: {
      ms: 0,
      watchdog: 'none',
      refused: undefined,
      runs: undefined,
      ageMs: undefined,
      spillsAfterMs: undefined,
    },
    marks: { detached: undefined, seal: undefined, refused: undefined, refusing: false, rewinding: false },
    failures: [],
    ...changes,
  };
}

const PRIMARY = { runs: true, inRecovery: false };

function examine(facts: StateFacts, person = ME): Finding[] {
  const directory = examineStateDirectory(facts, person, COMMANDS);
  if (!isConfigured(facts)) return directory;
  return [
    ...directory,
    ...examinePermissions(facts, ME),
    ...examineIdentity(facts, COMMANDS),
    ...examineWrappers(facts, COMMANDS),
    ...examineProgram(facts, '1.0.0', COMMANDS),
    ...examineAgent(facts, PRIMARY, COMMANDS),
    ...examineMarks(facts, PRIMARY, 3, COMMANDS),
    ...examineErrors(facts, []),
  ];
}

const amiss = (findings: Finding[]) => findings.filter(({ state: how }) => how !== 'ok');

test('of a node that is well nothing is found, and every check says what it saw', () => {
  const findings = examine(state());
  expect(amiss(findings)).toEqual([]);
  expect(findings.map(({ what }) => what)).toEqual([
    ...['state directory', 'permissions', 'identity', 'wrappers', 'program', 'agent', 'marks', 'last errors'],
  ]);
});

const wrapper = (changes: Partial<FileFacts>) => ({
  wrappers: [{ file: file('archive', { mode: 0o700, text: 'script', ...changes }), wanted: 'script' }],
});
const identity = (changes: object) => {
  const kept = { machineId: 'm', pgdata: '/pg', inode: '7' };
  return { identity: { kept: { ...kept, ...changes }, present: kept } };
};
const marks = (changes: Partial<StateFacts['marks']>) => ({ marks: { ...state().marks, ...changes } });

test.each<[string, Partial<StateFacts>, string, RegExp, RegExp]>([
  [
    'no state directory',
    { dir: { ...state().dir, kind: 'absent' } },
    'state directory bad',
    /is not there: this server is not configured/,
    /^configure$/,
  ],
  [
    'a file in its place',
    { dir: { ...state().dir, kind: 'file' } },
    'state directory bad',
    /is no directory/,
    /^configure$/,
  ],
  [
    'in the data directory',
    { isInside: true },
    'state directory bad',
    /lies in the data directory/,
    /^configure$/,
  ],
  [
    'closed to its own user',
    { dir: { ...state().dir, mode: 0, unseen: 'EACCES' } },
    'state directory bad',
    /closed to its own user \(000\)/,
    /^chmod 700 \/pg.walvault$/,
  ],
  [
    'open to others',
    { dir: { ...state().dir, mode: 0o750 } },
    'permissions warn',
    /750, should be 700/,
    /^chmod 700/,
  ],
  [
    "another user's",
    { dir: { ...state().dir, uid: 0 } },
    'permissions bad',
    /belongs to user 0, the server runs as postgres/,
    /^chown postgres \/pg.walvault$/,
  ],
  [
    'a file of another user',
    { files: [file('writer.json', { uid: 0 })] },
    'permissions bad',
    /writer.json belongs to user 0/,
    /^chown postgres/,
  ],
  [
    'a file that others may write',
    { files: [file('settings.toml', { mode: 0o622 })] },
    'permissions bad',
    /written by others \(622\)/,
    /^chmod 600/,
  ],
  [
    'a file that its own user may not write',
    { files: [file('writer.json', { mode: 0o400 })] },
    'permissions bad',
    /cannot be read and written/,
    /^chmod 600/,
  ],
  ['no wrapper', wrapper({ kind: 'absent' }), 'wrappers bad', /archive is not there/, /^configure$/],
  [
    'a wrapper that cannot be executed',
    wrapper({ mode: 0o600 }),
    'wrappers bad',
    /cannot be executed \(600\)/,
    /^chmod 700/,
  ],
  [
    'a wrapper that others may write',
    wrapper({ mode: 0o722 }),
    'permissions bad',
    /written by others/,
    /^chmod 700/,
  ],
  [
    'a wrapper of another version',
    wrapper({ text: 'other' }),
    'wrappers bad',
    /not what this version writes/,
    /^configure$/,
  ],
  [
    'a wrapper that cannot be read',
    wrapper({ unseen: 'EACCES' }),
    'wrappers bad',
    /cannot be read: EACCES/,
    /^asOwner$/,
  ],
  [
    'no program link',
    { links: [{ name: 'program', path: `${S}/program`, target: undefined, resolves: false }] },
    'program bad',
    /link .*program is not there/,
    /^configure$/,
  ],
  [
    'a Node that is gone',
    { links: [{ name: 'node', path: `${S}/node`, target: '/old/node', resolves: false }] },
    'program bad',
    /leads to \/old\/node, where no Node is/,
    /^configure$/,
  ],
  [
    'a program without its bundles',
    { lacks: ['dist/agent.cjs'] },
    'program bad',
    /lacks dist\/agent.cjs/,
    /^configure$/,
  ],
  [
    'a program of another version',
    { version: '0.9.0', agent: { ...state().agent, runs: undefined } },
    'program warn',
    /hooks and agent are of version 0.9.0, this command is of 1.0.0/,
    /^configure$/,
  ],
  [
    'no identity',
    { identity: { kept: undefined, present: { machineId: 'm', pgdata: '/pg', inode: '7' } } },
    'identity bad',
    /no identity.json/,
    /^configure$/,
  ],
  [
    'an identity that cannot be read',
    { identity: { unseen: 'cannot be read' } },
    'identity bad',
    /cannot be read/,
    /^$/,
  ],
  ['of another machine', identity({ machineId: 'x' }), 'identity bad', /machine x, this is m/, /^configure$/],
  ['of another inode', identity({ inode: '9' }), 'identity bad', /inode 7, was 9/, /^configure$/],
  [
    'of another data directory',
    identity({ pgdata: '/other' }),
    'identity bad',
    /that of \/other, not of \/pg/,
    /^configure$/,
  ],
  [
    'an agent that hangs',
    { agent: { ...state().agent, answers: 'hangs' } },
    'agent bad',
    /agent 42 does not answer/,
    /^kill -9 42; startAgent$/,
  ],
  [
    'no agent',
    { agent: { ...state().agent, answers: 'no', runs: undefined } },
    'agent warn',
    /none runs: this node reports nothing/,
    /^startAgent$/,
  ],
  [
    'an agent of another version',
    { agent: { ...state().agent, runs: { pid: 42, version: '0.9.0' } } },
    'agent warn',
    /of version 0.9.0, the hooks are of 1.0.0/,
    /^kill 42; startAgent$/,
  ],
  [
    'an agent that may not be asked',
    { agent: { ...state().agent, answers: 'unseen' } },
    'agent warn',
    /cannot be asked/,
    /^asOwner$/,
  ],
  [
    'a detached node',
    marks({ detached: '2026-01-01' }),
    'marks warn',
    /detached from its vault at 2026-01-01/,
    /^rejoin$/,
  ],
  [
    'a seal that is under way',
    marks({ seal: { epoch: 3, timeline: 1, reserved: 2 } }),
    'marks warn',
    /sealed and not yet open \(epoch 3/,
    /^$/,
  ],
  [
    'a seal of an epoch that is over',
    marks({ seal: { epoch: 2, timeline: 1, reserved: 2 } }),
    'marks warn',
    /epoch 2, which is over \(the vault is at 3\)/,
    /^$/,
  ],
  ['a killed flush', marks({ refusing: true }), 'marks bad', /refuse every connection/, /^startAgent$/],
  ['a broken rewind', marks({ rewinding: true }), 'marks bad', /neither old nor new/, /^rejoin --replace$/],
])('%s', (_, changes, what, says, run) => {
  const [finding, ...more] = amiss(examine(state(changes)));
  expect(more).toEqual([]);
  expect(`${finding?.what} ${finding?.state}`).toBe(what);
  expect(finding?.says).toMatch(says);
  expect(finding?.run ?? '').toMatch(run);
  expect(finding?.run ?? finding?.fix).toBeDefined();
});

test('another user, who may not look in, is told whose it is', () => {
  const [finding] = examineStateDirectory(
    state({ dir: { ...state().dir, unseen: 'EACCES: permission denied' } }),
    OTHER,
    COMMANDS,
  );
  expect(finding).toMatchObject({
    state: 'bad',
    fix: expect.stringContaining('as the user whom it belongs to'),
    run: 'asOwner',
  });
});

test('no agent is right where no server runs, or none is wanted', () => {
  const none = state({ agent: { isWanted: true, runs: undefined, answers: 'no' } });
  expect(amiss(examineAgent(none, { runs: false, inRecovery: false }, COMMANDS))).toEqual([]);
  const off = state({ agent: { isWanted: false, runs: undefined, answers: 'no' } });
  expect(amiss(examineAgent(off, PRIMARY, COMMANDS))).toEqual([]);
});

const settings = (changes: Partial<SettingsFacts>): SettingsFacts => ({
  given: [{ name: 'vault', value: 'file:///v', origin: 'file' }],
  ...{ missing: [], broken: undefined, closed: undefined, differing: [] },
  ...changes,
});

test('settings: each that is given with its origin', () => {
  expect(examineSettings(settings({}), COMMANDS)).toEqual([
    { what: 'settings', state: 'ok', says: 'vault file:///v (file)' },
  ]);
});

test.each<[string, Partial<SettingsFacts>, string, RegExp]>([
  [
    'nothing is configured',
    {
      missing: [
        { name: 'vault', hint: 'give it' },
        { name: 'cluster', hint: 'give it' },
      ],
    },
    'bad',
    /vault is not given/,
  ],
  [
    'a file that is broken',
    { broken: { unseen: 'unknown setting' } },
    'bad',
    /unknown setting; hooks and agent cannot start/,
  ],
  [
    'a file that is closed to this user',
    { closed: { unseen: 'settings.toml cannot be read' } },
    'bad',
    /cannot be read/,
  ],
  [
    'a file that is closed to this user',
    { closed: { unseen: 'settings.toml cannot be read' } },
    'bad',
    /cannot be read/,
  ],
  [
    'a person who says otherwise',
    { differing: [{ name: 'cluster', here: 'a', origin: 'environment', node: 'b' }] },
    'warn',
    /cluster is a by environment, but b in settings.toml/,
  ],
])('settings: %s', (_, changes, how, says) => {
  const findings = examineSettings(settings(changes), COMMANDS);
  expect(findings[0]).toMatchObject({ state: how, says: expect.stringMatching(says) });
  expect(findings.every(({ fix }) => fix !== undefined)).toBe(true);
});

const signals = (changes: Partial<SignalFacts>): SignalFacts => ({
  ...{ pgdata: '/pg', standby: false, recovery: false, promote: false, inRecovery: false, running: 'yes' },
  ...changes,
});

test.each<[string, Partial<SignalFacts>, boolean | undefined, boolean, string[]]>([
  ['an open primary', {}, true, false, []],
  ['a standby', { standby: true, inRecovery: true }, false, false, []],
  ['a standby, the vault away', { standby: true, inRecovery: true }, undefined, false, []],
  ['a standby being promoted', { standby: true, inRecovery: true, promote: true }, false, false, []],
  ['a flushed primary, stopped', { standby: true, running: 'no' }, true, true, []],
  ['an open primary with standby.signal', { standby: true }, true, false, ['bad rm /pg/standby.signal']],
  [
    'a stopped primary with standby.signal',
    { standby: true, running: 'no' },
    true,
    false,
    ['warn rm /pg/standby.signal'],
  ],
  [
    'both files',
    { standby: true, recovery: true, inRecovery: true },
    false,
    false,
    ['warn rm /pg/recovery.signal'],
  ],
  [
    'recovery.signal',
    { recovery: true, inRecovery: true },
    false,
    false,
    ['warn mv /pg/recovery.signal /pg/standby.signal'],
  ],
  ['promote left behind', { promote: true, running: 'no' }, true, false, ['bad rm /pg/promote']],
  ['a promotion that died', { inRecovery: true, running: 'no' }, false, false, ['bad guard']],
])('signal files: %s', (_, changes, isPrimary, isFlushed, wanted) => {
  const found = amiss(examineSignals(signals(changes), isPrimary, isFlushed, COMMANDS));
  expect(found.map(({ state: how, run }) => `${how} ${run}`)).toEqual(wanted);
});
