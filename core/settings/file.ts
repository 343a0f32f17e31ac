/**
 * settings.toml of one server: flat, snake-case keys, every value as a person writes it on the command line.
 *
 *   vault = "file:///srv/vault"
 *   restore_timeout = "30s"
 *   prefetch_count = 8
 *
 * Secrets are never written here.
 */
import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parse, stringify, TomlError } from 'smol-toml';
import { VaultError } from '../errors.ts';
import { keyOf, rowOf, SETTING_NAMES, type SettingName, type SettingValues } from './settings.ts';

export const SETTINGS_FILE = 'settings.toml';

/**
 * The texts in a settings file, by setting; empty where the file is absent.
 *
 * @throws VaultError usage  not TOML, an unknown key (a misspelt one would silently leave the default in force), a value
 *                           that is neither text, number nor boolean, a relative directory
 * @throws VaultError local  it cannot be read
 */
export function readSettingsFile(
  file: string,
  options: { mustExist?: boolean } = {},
): Partial<Record<SettingName, string>> {
  const content = read(file, options.mustExist ?? false);
  if (content === undefined) return {};
  const texts: Partial<Record<SettingName, string>> = {};
  for (const [key, value] of Object.entries(parseToml(content, file))) {
    const setting = SETTING_NAMES.find((one) => keyOf(one) === key);
    if (setting === undefined) throw unknownKey(key, file);
    if (typeof value === 'string') texts[setting] = value;
    else if (typeof value === 'boolean') texts[setting] = value ? 'on' : 'off';
    else if (typeof value === 'number') texts[setting] = String(value);
    else throw new VaultError('usage', `${key} in ${file} is neither a text nor a number`);
    if ((setting === 'pgdata' || setting === 'stateDir') && !path.isAbsolute(texts[setting])) {
      throw new VaultError('usage', `${key} in ${file} is a relative path: ${texts[setting]}`, {
        hint: 'Write it from the root on: hooks are called from other directories.',
      });
    }
  }
  return texts;
}

/**
 * Writes a settings file as a whole: 0600, by rename, durable when it returns. Undefined values are left out.
 *
 * @throws VaultError usage  a value that its own kind refuses
 * @throws VaultError local  the directory cannot be written
 */
export function writeSettingsFile(file: string, values: Partial<SettingValues>): void {
  const lines = [
    "# Written by 'walvault configure'. Values may be edited; what else is written here is not kept.\n",
  ];
  for (const setting of SETTING_NAMES) {
    const value = values[setting];
    if (value === undefined) continue;
    const { kind, summary } = rowOf(setting);
    const text = kind.format(value);
    try {
      kind.parse(text);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new VaultError('usage', `${keyOf(setting)}: ${JSON.stringify(text)} ${cause.message}`, { cause });
    }
    lines.push(`# ${summary}\n${stringify({ [keyOf(setting)]: text })}`);
  }
  replace(file, lines.join('\n'));
}

function read(file: string, mustExist: boolean): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    const code = codeOf(cause);
    // ENOTDIR: something on the way is a file, so there is no settings file either
    if (!mustExist && (code === 'ENOENT' || code === 'ENOTDIR')) return undefined;
    throw new VaultError('local', `${file} cannot be read: ${reasonOf(cause)}`, {
      hint: mustExist
        ? 'Check the path given with --config.'
        : 'Run as the user who owns the server, usually postgres.',
      cause,
    });
  }
}

function parseToml(content: string, file: string): Record<string, unknown> {
  try {
    return parse(content);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    const what = cause.message.split('\n')[0]?.replace('Invalid TOML document: ', '');
    throw new VaultError('usage', `${file}, line ${cause.line}: ${what}`, {
      hint: 'A line is a key and a text in quotes, as in restore_timeout = "30s".',
      cause,
    });
  }
}

function unknownKey(key: string, file: string): VaultError {
  const plain = (text: string) => text.replace(/[-_]/g, '').toLowerCase();
  const near =
    SETTING_NAMES.find((setting) => plain(setting) === plain(key)) ??
    SETTING_NAMES.map((setting) => ({ setting, far: distance(plain(setting), plain(key)) }))
      .filter(({ far }) => far <= 2)
      .sort((a, b) => a.far - b.far)[0]?.setting;
  return new VaultError('usage', `${file} has an unknown setting ${JSON.stringify(key)}`, {
    hint:
      near === undefined
        ? `Known are ${SETTING_NAMES.map(keyOf).join(', ')}.`
        : `Perhaps ${keyOf(near)} is meant.`,
  });
}

/** How many letters must be put in, taken out or changed (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** The old content or the new, never a part: a hook may read it at any moment, and a crash may come at any. */
function replace(file: string, content: string): void {
  const fresh = `${file}.${process.pid}.new`;
  try {
    rmSync(fresh, { force: true });
    writeFileSync(fresh, content, { mode: 0o600, flag: 'wx' });
    sync(fresh);
    renameSync(fresh, file);
    sync(path.dirname(file));
  } catch (cause) {
    try {
      rmSync(fresh, { force: true });
    } catch {
      // what hindered the writing hinders this too; the first reason is the one to report
    }
    throw new VaultError('local', `${file} cannot be written: ${reasonOf(cause)}`, {
      hint: `Check that ${path.dirname(file)} exists, has room, and belongs to the user who owns the server.`,
      cause,
    });
  }
}

function sync(place: string): void {
  const descriptor = openSync(place, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function codeOf(cause: unknown): string | undefined {
  return cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? cause.code : undefined;
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
