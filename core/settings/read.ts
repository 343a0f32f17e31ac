/**
 * Reads settings: flag before environment before settings.toml before default; and says of each where it came from.
 *
 * Hooks and agent pass an empty environment and the state directory they stand in: their environment is the postmaster's,
 * which may have been started from a shell where WALVAULT_NODE or PGDATA name another server of the same machine.
 */
import { realpathSync } from 'node:fs';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { readSettingsFile, SETTINGS_FILE } from './file.ts';
import type { Kind } from './kinds.ts';
import {
  envOf,
  flagOf,
  keyOf,
  rowOf,
  SETTING_NAMES,
  type SettingName,
  type SettingValues,
} from './settings.ts';

export type Origin = 'flag' | 'environment' | 'file' | 'default';

export type Settings = SettingValues & {
  origin(setting: SettingName): Origin;
  /** The setting's value. @throws VaultError usage where it was given nowhere; the hint says how to give it */
  need<N extends SettingName>(setting: N): NonNullable<SettingValues[N]>;
  /** Whose `settings.toml` was looked at (it need not exist), or undefined: no server was named. */
  readonly file: string | undefined;
};

export type Sources = {
  /** As commander gives them: by camel-case name; what is no setting is passed over. */
  flags: Readonly<Record<string, unknown>>;
  env: Readonly<Record<string, string | undefined>>;
  /** Known already (hooks); else from flag, WALVAULT_STATE_DIR, or `<PGDATA>.walvault`. */
  stateDir?: string;
  /** Another settings file (--config). It must exist. */
  config?: string;
  /** For who must go on where the file cannot be read: as if there were none. */
  withoutFile?: boolean;
};

/**
 * @throws VaultError usage  a value that its kind refuses, an unknown key in the file, a state directory inside PGDATA
 * @throws VaultError local  the file is there but cannot be read
 */
export function loadSettings(sources: Sources): Settings {
  const given = (setting: SettingName) => fromFlag(sources, setting) ?? fromEnvironment(sources, setting);
  const stateDir = sources.stateDir ?? placeOfState(given('stateDir'), given('pgdata'));
  const file = sources.config ?? (stateDir === undefined ? undefined : path.join(stateDir, SETTINGS_FILE));
  const lines =
    file === undefined || sources.withoutFile === true
      ? {}
      : readSettingsFile(file, { mustExist: sources.config !== undefined });

  const values: Partial<Record<SettingName, unknown>> = {};
  const origins: Partial<Record<SettingName, Origin>> = {};
  for (const setting of SETTING_NAMES) {
    const found = given(setting) ?? fromFile(lines, setting, file);
    const fallback = rowOf(setting).default;
    if (found !== undefined) values[setting] = parseSetting(setting, found.text, found.place);
    else if (fallback !== undefined) values[setting] = rowOf(setting).kind.parse(fallback);
    origins[setting] = found?.origin ?? 'default';
  }
  if (sources.stateDir !== undefined) values.stateDir = sources.stateDir;
  values.stateDir ??= stateDir ?? (typeof values.pgdata === 'string' ? stateDirOf(values.pgdata) : undefined);
  refuseStateInside(values.pgdata, values.stateDir);

  const settings = values as SettingValues;
  return {
    ...settings,
    file,
    origin: (setting) => origins[setting] ?? 'default',
    need: (setting) => {
      const value = settings[setting];
      if (value === undefined || value === null) throw missing(setting);
      return value;
    },
  };
}

/**
 * The state directory of a server: beside its data directory, links followed, so that every path to one server leads to one
 * state. The data directory need not exist yet.
 */
export function stateDirOf(pgdata: string): string {
  return `${realPlace(pgdata)}.walvault`;
}

/**
 * The value of a setting's text.
 *
 * @param place  where it stood, for the message: '--restore-timeout', 'WALVAULT_NODE', 'restore_timeout in /x/settings.toml'
 * @throws VaultError usage
 */
export function parseSetting(setting: SettingName, text: string, place: string): unknown {
  return parseText(rowOf(setting).kind, text, place, rowOf(setting).example);
}

/**
 * The value of any text of a kind, for options that are no settings: parseText(duration('0', '1d'), text, '--wait').
 *
 * @throws VaultError usage
 */
export function parseText<T>(kind: Kind<T>, text: string, place: string, example?: string): T {
  try {
    return kind.parse(text);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const such = example === undefined ? '' : `, for example ${example}`;
    throw new VaultError('usage', `${place}: ${JSON.stringify(text)} ${cause.message}`, {
      hint: `Expected: ${kind.describe}${such}.`,
      cause,
    });
  }
}

type Found = { text: string; place: string; origin: Origin };

function fromFlag(sources: Sources, setting: SettingName): Found | undefined {
  const flag = sources.flags[setting];
  if (flag === undefined || flag === null) return undefined;
  const text = flag === true ? 'on' : flag === false ? 'off' : String(flag);
  return { text, place: flagOf(setting), origin: 'flag' };
}

/** An empty variable counts as none: that is how shells and units unset them. */
function fromEnvironment(sources: Sources, setting: SettingName): Found | undefined {
  for (const place of [envOf(setting), ...(rowOf(setting).also ?? [])]) {
    const text = sources.env[place];
    if (text !== undefined && text !== '') return { text, place, origin: 'environment' };
  }
  return undefined;
}

function fromFile(
  lines: Partial<Record<SettingName, string>>,
  setting: SettingName,
  file: string | undefined,
): Found | undefined {
  const text = lines[setting];
  return text === undefined ? undefined : { text, place: `${keyOf(setting)} in ${file}`, origin: 'file' };
}

function placeOfState(stateDir: Found | undefined, pgdata: Found | undefined): string | undefined {
  if (stateDir !== undefined) return parseSetting('stateDir', stateDir.text, stateDir.place) as string;
  return pgdata === undefined
    ? undefined
    : stateDirOf(parseSetting('pgdata', pgdata.text, pgdata.place) as string);
}

/** A base backup would carry it to another node, spool, epoch and all. */
function refuseStateInside(pgdata: unknown, stateDir: unknown): void {
  if (typeof pgdata !== 'string' || typeof stateDir !== 'string') return;
  const way = path.relative(realPlace(pgdata), realPlace(stateDir));
  if (way === '..' || way.startsWith(`..${path.sep}`) || path.isAbsolute(way)) return;
  throw new VaultError('usage', `the state directory ${stateDir} lies in the data directory ${pgdata}`, {
    hint: `Name a directory outside it with ${flagOf('stateDir')}; without the flag it is ${stateDirOf(pgdata)}.`,
  });
}

/** The real path of what may not exist yet: links are followed as far as the path is there. */
function realPlace(given: string): string {
  const absolute = path.resolve(given);
  try {
    return realpathSync(absolute);
  } catch {
    const parent = path.dirname(absolute);
    return parent === absolute ? absolute : path.join(realPlace(parent), path.basename(absolute));
  }
}

function missing(setting: SettingName): VaultError {
  const row = rowOf(setting);
  const others = (row.also ?? []).map((variable) => ` or ${variable}`).join('');
  return new VaultError('usage', `${keyOf(setting)} is not given`, {
    hint: `Give ${flagOf(setting)}, or set ${envOf(setting)}${others}; for example ${flagOf(setting)} ${row.example}`,
  });
}
