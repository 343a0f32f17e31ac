import {
  envOf,
  flagOf,
  keyOf,
  rowOf,
  SETTING_NAMES,
  SETTINGS,
  settingsOf,
} from '../../../core/settings/settings.ts';

describe.each(SETTING_NAMES)('%s', (setting) => {
  const row = rowOf(setting);

  test('its default and its example are values that it takes, and come back from their text', () => {
    for (const text of [row.default, row.example]) {
      if (text === undefined) continue;
      const value = row.kind.parse(text);
      expect(row.kind.parse(row.kind.format(value))).toEqual(value);
    }
  });

  test('it says what it is for, in sentences, and who takes it', () => {
    for (const text of [row.summary, row.text]) expect(text).toMatch(/^\S.*\.$/s);
    expect(row.usedBy.length).toBeGreaterThan(0);
    if (row.default === undefined) expect(row.otherwise).toBeDefined();
  });
});

test('flag, variable and key of one setting are one word in three spellings', () => {
  expect(flagOf('restoreTimeout')).toBe('--restore-timeout');
  expect(envOf('restoreTimeout')).toBe('WALVAULT_RESTORE_TIMEOUT');
  expect(keyOf('restoreTimeout')).toBe('restore_timeout');
  for (const spell of [flagOf, envOf, keyOf]) {
    expect(new Set(SETTING_NAMES.map(spell)).size).toBe(SETTING_NAMES.length);
  }
});

test('durations are milliseconds, sizes bytes', () => {
  expect(SETTINGS.restoreTimeout.kind.parse(SETTINGS.restoreTimeout.default)).toBe(30_000);
  expect(SETTINGS.prefetchBytes.kind.parse(SETTINGS.prefetchBytes.default)).toBe(256 * 1024 * 1024);
});

test('each user is told its own settings only', () => {
  expect(settingsOf('agent')).toContain('pollInterval');
  expect(settingsOf('archive')).not.toContain('pollInterval');
  expect(settingsOf('operator')).toEqual(expect.arrayContaining(['vault', 'cluster', 'node', 'pgdata']));
});

test('a hook waits less for an answer than PostgreSQL pauses after failures', () => {
  expect(SETTINGS.archiveTimeout.kind.parse(SETTINGS.archiveTimeout.default)).toBeLessThan(60_000);
});

test('no setting is a secret', () => {
  for (const setting of SETTING_NAMES) expect(setting).not.toMatch(/secret|password|token|accessKey/i);
});
