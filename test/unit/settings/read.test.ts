import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { VaultError } from '../../../core/errors.ts';
import { readSettingsFile, writeSettingsFile } from '../../../core/settings/file.ts';
import { duration } from '../../../core/settings/kinds.ts';
import { loadSettings, parseText, stateDirOf, type Sources } from '../../../core/settings/read.ts';
import { SETTING_NAMES, type SettingValues } from '../../../core/settings/settings.ts';

let scratch = '';
let state = '';
beforeEach(() => {
  scratch = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'walvault-settings-')));
  state = path.join(scratch, 'data.walvault');
  mkdirSync(path.join(scratch, 'data'));
  mkdirSync(state);
});
afterEach(() => rmSync(scratch, { recursive: true, force: true }));

const load = (sources: Partial<Sources> = {}) => loadSettings({ flags: {}, env: {}, ...sources });
const inFile = (content: string) => {
  writeFileSync(path.join(state, 'settings.toml'), content);
  return state;
};

function failureOf(run: () => unknown): VaultError {
  try {
    run();
  } catch (error) {
    if (error instanceof VaultError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('precedence', () => {
  test('flag before environment before file before default, and each says where it came from', () => {
    const stateDir = inFile('restore_timeout = "40s"\nnode = "filed"\narchive_timeout = "40s"\n');
    const env = { WALVAULT_RESTORE_TIMEOUT: '50s', WALVAULT_NODE: 'environed' };
    const settings = load({ flags: { restoreTimeout: '1m' }, env, stateDir });
    expect(settings.restoreTimeout).toBe(60_000);
    expect(settings.origin('restoreTimeout')).toBe('flag');
    expect(settings.node).toBe('environed');
    expect(settings.origin('node')).toBe('environment');
    expect(settings.archiveTimeout).toBe(40_000);
    expect(settings.origin('archiveTimeout')).toBe('file');
    expect(settings.vaultTimeout).toBe(10_000);
    expect(settings.origin('vaultTimeout')).toBe('default');
  });

  test('the variables of PostgreSQL and AWS are honoured after our own', () => {
    const env = { PGDATA: path.join(scratch, 'data'), PGPORT: '5433', AWS_DEFAULT_REGION: 'eu-west-1' };
    const settings = load({ env });
    expect(settings).toMatchObject({
      pgdata: path.join(scratch, 'data'),
      pgPort: 5433,
      awsRegion: 'eu-west-1',
    });
    expect(load({ env: { ...env, AWS_REGION: 'eu-west-2' } }).awsRegion).toBe('eu-west-2');
    expect(load({ env: { ...env, WALVAULT_AWS_REGION: 'eu-west-3' } }).awsRegion).toBe('eu-west-3');
  });

  test('an empty variable counts as none', () => {
    expect(load({ env: { WALVAULT_NODE: '' } }).node).toBeUndefined();
  });

  test('a hook that passes no environment is not led astray by the shell that started its server', () => {
    const stateDir = inFile('node = "db2"\n');
    process.env.WALVAULT_NODE = 'db1';
    try {
      expect(load({ stateDir }).node).toBe('db2');
    } finally {
      delete process.env.WALVAULT_NODE;
    }
  });

  test('flags may be booleans and numbers, and what is no setting is passed over', () => {
    expect(load({ flags: { agent: false, pgPort: 5433, yes: true } })).toMatchObject({
      agent: false,
      pgPort: 5433,
    });
  });

  test('nothing given: every setting has its default or none, and no file was looked at', () => {
    const settings = load();
    expect(settings.file).toBeUndefined();
    for (const name of SETTING_NAMES) expect(settings.origin(name)).toBe('default');
    for (const name of ['vault', 'cluster', 'node', 'stateDir'] as const)
      expect(settings[name]).toBeUndefined();
    expect(settings).toMatchObject({
      agent: true,
      zstdLevel: 1,
      onFenced: 'none',
    });
  });
});

describe('the state directory', () => {
  test('lies beside the data directory, found through links, and its file is read', () => {
    inFile('node = "db1"\n');
    symlinkSync(path.join(scratch, 'data'), path.join(scratch, 'link'));
    const settings = load({ flags: { pgdata: path.join(scratch, 'link') } });
    expect(settings.stateDir).toBe(state);
    expect(settings.node).toBe('db1');
    expect(settings.file).toBe(path.join(state, 'settings.toml'));
  });

  test('of a data directory that is not there yet: the same as when it will be', () => {
    symlinkSync(scratch, `${scratch}/here`);
    expect(stateDirOf(path.join(scratch, 'here', 'new', 'data'))).toBe(
      path.join(scratch, 'new', 'data.walvault'),
    );
    expect(stateDirOf(path.join(scratch, 'data/'))).toBe(state);
  });

  test('may be another one by flag or variable, but not inside the data directory', () => {
    const flags = { pgdata: path.join(scratch, 'data') };
    const elsewhere = path.join(scratch, 'elsewhere');
    expect(load({ flags: { ...flags, stateDir: elsewhere } }).stateDir).toBe(elsewhere);
    expect(load({ flags, env: { WALVAULT_STATE_DIR: elsewhere } }).stateDir).toBe(elsewhere);
    for (const inside of ['data', 'data/state', 'data/../data/x']) {
      const failure = failureOf(() => load({ flags: { ...flags, stateDir: path.join(scratch, inside) } }));
      expect(failure).toMatchObject({
        code: 'usage',
        message: expect.stringContaining('lies in the data directory'),
      });
    }
    expect(load({ flags: { ...flags, stateDir: path.join(scratch, '..data') } }).stateDir).toMatch('..data');
  });

  test('--config names a file of its own, which must be there', () => {
    const config = path.join(scratch, 'other.toml');
    expect(failureOf(() => load({ config }))).toMatchObject({
      code: 'local',
      hint: expect.stringContaining('--config'),
    });
    writeFileSync(config, 'node = "db9"\n');
    expect(load({ config })).toMatchObject({ node: 'db9', file: config });
  });
});

describe('what is wrong is said where it stands, and what is right beside it', () => {
  test('flag, variable and line of the file', () => {
    expect(failureOf(() => load({ flags: { restoreTimeout: '5' } }))).toMatchObject({
      code: 'usage',
      message: '--restore-timeout: "5" needs a unit: ms, s, m, h or d',
      hint: 'Expected: duration, 1s to 10m, for example 2m.',
    });
    expect(failureOf(() => load({ env: { PGPORT: 'x' } })).message).toBe('PGPORT: "x" is not a whole number');
    const stateDir = inFile('zstd_level = 99\n');
    expect(failureOf(() => load({ stateDir })).message).toBe(
      `zstd_level in ${state}/settings.toml: "99" is outside 1 to 19`,
    );
  });

  test('a setting that is needed and missing', () => {
    expect(failureOf(() => load().need('vault'))).toMatchObject({
      code: 'usage',
      message: 'vault is not given',
      hint: expect.stringContaining('Give --vault, or set WALVAULT_VAULT; for example --vault s3://'),
    });
    expect(failureOf(() => load().need('pgdata')).hint).toContain('WALVAULT_PGDATA or PGDATA');
    expect(load({ flags: { vault: 'file:///srv/vault' } }).need('vault')).toBe('file:///srv/vault');
  });

  test.each([
    ['restore-timeout = "30s"', 'restore_timeout'],
    ['restoreTimeout = "30s"', 'restore_timeout'],
    ['restor_timeout = "30s"', 'restore_timeout'],
    ['on_fence = "stop"', 'on_fenced'],
  ])('a misspelt key is not passed over: %s', (line, meant) => {
    const stateDir = inFile(`${line}\n`);
    expect(failureOf(() => load({ stateDir }))).toMatchObject({
      code: 'usage',
      hint: `Perhaps ${meant} is meant.`,
    });
  });

  test('an unknown key, a table, a list, a broken line, a relative directory', () => {
    const message = (content: string) => failureOf(() => load({ stateDir: inFile(content) })).message;
    expect(message('colour = "red"\n')).toContain('has an unknown setting "colour"');
    expect(message('[vault]\nurl = "file:///srv/vault"\n')).toBe(
      `vault in ${state}/settings.toml is neither a text nor a number`,
    );
    expect(message('node = ["db1"]\n')).toContain('is neither a text nor a number');
    expect(message('node = "db1"\nvault = file:///srv/vault\n')).toMatch(`${state}/settings.toml, line 2: `);
    expect(message('pgdata = "data"\n')).toContain('is a relative path: data');
  });

  test('a text of an option that is no setting', () => {
    expect(parseText(duration('0', '1d'), '90s', '--wait')).toBe(90_000);
    expect(failureOf(() => parseText(duration('0', '1d'), 'soon', '--wait'))).toMatchObject({
      code: 'usage',
      message: '--wait: "soon" is not a duration',
      hint: 'Expected: duration, 0 to 1d.',
    });
  });
});

describe('settings.toml', () => {
  const values: Partial<SettingValues> = {
    node: 'db1',
    pgdata: '/srv/a "b" \\ c/ü',
    restoreTimeout: 90_000,
    prefetchBytes: 1000,
    prefetchCount: 16,
    agent: false,
  };

  test('what is written is read back, by whatever path the values take', () => {
    const file = path.join(state, 'settings.toml');
    writeSettingsFile(file, values);
    expect(load({ stateDir: state })).toMatchObject(values);
    expect(load({ stateDir: state }).origin('agent')).toBe('file');
    expect(load({ stateDir: state }).origin('vault')).toBe('default');
  });

  test('belongs to its owner alone, replaces the old one, and leaves nothing beside it', () => {
    const file = path.join(state, 'settings.toml');
    writeSettingsFile(file, { node: 'db1' });
    chmodSync(file, 0o644);
    writeSettingsFile(file, { node: 'db2' });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(readSettingsFile(file)).toEqual({ node: 'db2' });
    expect(readdirSync(state)).toEqual(['settings.toml']);
  });

  test('a value that its kind refuses is not written, and the old file stays', () => {
    const file = path.join(state, 'settings.toml');
    writeSettingsFile(file, { node: 'db1' });
    expect(failureOf(() => writeSettingsFile(file, { node: 'a/b' }))).toMatchObject({ code: 'usage' });
    expect(failureOf(() => writeSettingsFile(file, { restoreTimeout: 5 }))).toMatchObject({
      message: 'restore_timeout: "5ms" is outside 1s to 10m',
    });
    expect(readSettingsFile(file)).toEqual({ node: 'db1' });
  });

  test('a directory that is not there, or is a file, is named with a hint', () => {
    for (const file of [
      path.join(scratch, 'none', 'settings.toml'),
      path.join(scratch, 'file', 'settings.toml'),
    ]) {
      writeFileSync(path.join(scratch, 'file'), '');
      expect(failureOf(() => writeSettingsFile(file, { node: 'db1' }))).toMatchObject({
        code: 'local',
        message: expect.stringContaining(`${file} cannot be written`),
        hint: expect.stringContaining(path.dirname(file)),
      });
      expect(readSettingsFile(file)).toEqual({});
    }
  });

  test('numbers and booleans without quotes are understood', () => {
    const stateDir = inFile('zstd_level = 3\nagent = false\n');
    expect(load({ stateDir })).toMatchObject({ zstdLevel: 3, agent: false });
  });

  test('a file that is there but is none is an error, not an absence', () => {
    mkdirSync(path.join(state, 'settings.toml'));
    expect(failureOf(() => load({ stateDir: state }))).toMatchObject({ code: 'local' });
  });
});
