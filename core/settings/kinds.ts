/**
 * The kinds of settings: how a text becomes a value, which values are allowed, and how a value is written back.
 *
 * A kind's `parse` throws RangeError with a message that follows the setting's name ('needs a unit'); core/settings/read.ts
 * makes it a VaultError that says where the text stood.
 *
 * Pure, but for `directory`, which makes a relative path absolute.
 */
import path from 'node:path';

export type Kind<T> = {
  /** For help and reference: 'duration, 1s to 10m'. */
  readonly describe: string;
  readonly choices?: readonly string[];
  parse(text: string): T;
  /** Text that parse reads back to the same value. */
  format(value: T): string;
};

const DURATIONS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};
const SIZES: Readonly<Record<string, number>> = {
  b: 1,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
  tib: 1024 ** 4,
  kb: 1024,
  mb: 1024 ** 2,
  gb: 1024 ** 3,
  tb: 1024 ** 4,
};
/** Of a rate, in seconds. */
const SPANS: Readonly<Record<string, number>> = {
  s: 1,
  sec: 1,
  min: 60,
  m: 60,
  h: 3600,
  d: 86_400,
  day: 86_400,
};

/** Value in milliseconds: '500ms', '1.5s', '2m', '1h', '1d', and '0'. */
export function duration(least: string, most: string): Kind<number> {
  const [min, max] = [parseDuration(least), parseDuration(most)];
  return {
    describe: `duration, ${least} to ${most}`,
    parse: (text) => within(parseDuration(text), min, max, least, most),
    format: formatDuration,
  };
}

/** Value in bytes: '64MiB', '512kB', '1048576'. As in PostgreSQL kB, MB and GB count in 1024s. */
export function bytes(least: string, most: string): Kind<number> {
  const [min, max] = [parseBytes(least), parseBytes(most)];
  return {
    describe: `size, ${least} to ${most}`,
    parse: (text) => within(parseBytes(text), min, max, least, most),
    format: formatBytes,
  };
}

/** Value in bytes a day: '16MB/min', '1GiB/h', '2TB/day', and '0'. Sizes count in 1024s, as those of `bytes`. */
export function byteRate(most: string): Kind<number> {
  const max = parseRate(most);
  return {
    describe: `size / time, up to ${most}`,
    parse: (text) => within(parseRate(text), 0, max, '0', most),
    format: (value) => (value === 0 ? '0' : `${formatBytes(value).replace(/\d$/, '$&B')}/day`),
  };
}

/** A share of a whole: '0.4'. */
export function share(min: number, max: number): Kind<number> {
  return {
    describe: `number, ${min} to ${max}`,
    parse: (text) => {
      if (!/^\d{1,3}(\.\d{1,6})?$/.test(text)) throw new RangeError('is not a number');
      return within(Number(text) + 0, min, max, String(min), String(max)); // '-0' is 0
    },
    format: String,
  };
}

export function integer(min: number, max: number): Kind<number> {
  return {
    describe: `whole number, ${min} to ${max}`,
    parse: (text) => {
      if (!/^-?\d{1,15}$/.test(text)) throw new RangeError('is not a whole number');
      return within(Number(text) + 0, min, max, String(min), String(max)); // '-0' is 0
    },
    format: String,
  };
}

export function choice<const C extends readonly string[]>(...choices: C): Kind<C[number]> {
  return {
    describe: choices.join(' or '),
    choices,
    parse: (text) => {
      if (!choices.includes(text)) throw new RangeError(`is none of ${choices.join(', ')}`);
      return text;
    },
    format: (value) => value,
  };
}

/** on or off (also true, false, yes, no, 1, 0). */
export function onOff(): Kind<boolean> {
  return {
    describe: 'on or off',
    choices: ['on', 'off'],
    parse: (text) => {
      if (/^(on|true|yes|1)$/i.test(text)) return true;
      if (/^(off|false|no|0)$/i.test(text)) return false;
      throw new RangeError('is neither on nor off');
    },
    format: (value) => (value ? 'on' : 'off'),
  };
}

/** Any text without control characters. */
export function text(what: string): Kind<string> {
  return {
    describe: what,
    parse: (given) => {
      if (given === '') throw new RangeError('is empty');
      if (hasControlCharacter(given)) throw new RangeError('contains a control character');
      return given;
    },
    format: (value) => value,
  };
}

/**
 * Name of a cluster or node: it becomes part of keys and rows, where '/' and '#' separate, and of lines that people paste.
 */
export function name(): Kind<string> {
  return {
    describe: 'name: letters, digits, ".", "_" and "-", at most 63, beginning with a letter or digit',
    parse: (given) => {
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(given)) {
        throw new RangeError('is not a name of at most 63 letters, digits, ".", "_" and "-"');
      }
      return given;
    },
    format: (value) => value,
  };
}

/** A directory; the value is absolute, without a trailing slash. */
export function directory(): Kind<string> {
  return {
    describe: 'directory',
    parse: (given) => {
      if (given === '') throw new RangeError('is empty');
      // the wrappers are shell scripts of one line per path, and settings of PostgreSQL end at the line
      if (hasControlCharacter(given)) throw new RangeError('contains a control character');
      return path.resolve(given);
    },
    format: (value) => value,
  };
}

/** The vault's URL, checked as far as it can be without opening it. */
export function vaultUrl(): Kind<string> {
  return {
    describe: 'file:///directory or s3://bucket/prefix?table=…&region=…',
    parse: (given) => {
      if (hasControlCharacter(given)) throw new RangeError('contains a control character');
      const scheme = /^([a-z0-9]+):/.exec(given)?.[1];
      if (scheme === undefined) throw new RangeError('is not a URL that begins with file: or s3:');
      if (scheme === 'file' && !/^file:\/\/\/[^/]/.test(given)) {
        throw new RangeError('has no absolute directory after file:// (three slashes)');
      }
      if (scheme === 's3' && !/^s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:[/?]|$)/.test(given)) {
        throw new RangeError('names no bucket after s3:// (3 to 63 of a-z, 0-9, "." and "-")');
      }
      if (scheme === 'memory' && given === 'memory:') throw new RangeError('has no name after memory:');
      if (!['file', 's3', 'memory'].includes(scheme))
        throw new RangeError(`has an unknown scheme ${scheme}:`);
      if (scheme !== 'memory' && !URL.canParse(given)) throw new RangeError('is not a URL');
      return given;
    },
    format: (value) => value,
  };
}

/** A vault, or 'none' to take back one that was named before. */
export function vaultUrlOrNone(): Kind<string> {
  const url = vaultUrl();
  return {
    describe: `${url.describe}, or none`,
    parse: (given) => (given === 'none' ? given : url.parse(given)),
    format: (value) => value,
  };
}

/** http:// or https://, as the SDK's AWS_ENDPOINT_URL. */
export function httpUrl(): Kind<string> {
  return {
    describe: 'http:// or https:// URL',
    parse: (given) => {
      if (!/^https?:\/\/[^/]/.test(given) || !URL.canParse(given) || hasControlCharacter(given)) {
        throw new RangeError('is not an http:// or https:// URL');
      }
      return given;
    },
    format: (value) => value,
  };
}

/** A URL, or `none`. */
export function httpUrlOrNone(): Kind<string> {
  const url = httpUrl();
  return {
    describe: `${url.describe}, or none`,
    parse: (given) => (given === 'none' ? given : url.parse(given)),
    format: (value) => value,
  };
}

/** ARNs of AWS, separated by commas. */
export function arns(): Kind<readonly string[]> {
  return {
    describe: 'ARN, or several separated by commas',
    parse: (given) => {
      const parts = given.split(',').map((part) => part.trim());
      const bad = parts.find((part) => !/^arn:[a-z-]+:[a-z0-9-]+:[a-z0-9-]*:\d*:\S+$/.test(part));
      if (bad !== undefined) throw new RangeError('is not an ARN');
      return parts;
    },
    format: (value) => value.join(','),
  };
}

function parseDuration(given: string): number {
  if (given === '0') return 0;
  const found = /^(\d{1,12}(?:\.\d{1,6})?) ?([a-z]+)?$/.exec(given);
  if (found === null) throw new RangeError('is not a duration');
  if (found[2] === undefined) throw new RangeError('needs a unit: ms, s, m, h or d');
  const unit = DURATIONS[found[2]];
  if (unit === undefined)
    throw new RangeError(`has an unknown unit ${found[2]}: ms, s, m, h and d are known`);
  return Math.round(Number(found[1]) * unit);
}

function formatDuration(ms: number): string {
  if (ms === 0) return '0';
  const unit = ['d', 'h', 'm', 's'].find((one) => ms % DURATIONS[one]! === 0) ?? 'ms';
  return `${ms / DURATIONS[unit]!}${unit}`;
}

function parseBytes(given: string): number {
  const found = /^(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]+)?$/.exec(given);
  if (found === null) throw new RangeError('is not a size');
  const unit = SIZES[(found[2] ?? 'b').toLowerCase()];
  if (unit === undefined)
    throw new RangeError(`has an unknown unit ${found[2]}: B, KiB, MiB and GiB are known`);
  return Math.round(Number(found[1]) * unit);
}

function parseRate(given: string): number {
  if (given === '0') return 0;
  const [, size, span] = /^([^/]+)\/\s*([^/]+)$/.exec(given) ?? [];
  if (size === undefined || span === undefined) throw new RangeError('is not a size by a time, as 16MB/min');
  const seconds = SPANS[span.trim().toLowerCase()];
  if (seconds === undefined)
    throw new RangeError(`has an unknown time ${span.trim()}: s, min, h and day are known`);
  if (/^\d+(\.\d+)?$/.test(size.trim())) throw new RangeError('needs a unit of size: kB, MB, GB or TB');
  return Math.round((parseBytes(size.trim()) * SPANS['d']!) / seconds);
}

function formatBytes(size: number): string {
  const unit =
    size === 0 ? undefined : ['GiB', 'MiB', 'KiB'].find((one) => size % SIZES[one.toLowerCase()]! === 0);
  return unit === undefined ? `${size}` : `${size / SIZES[unit.toLowerCase()]!}${unit}`;
}

function within(value: number, min: number, max: number, least: string, most: string): number {
  if (value < min || value > max) throw new RangeError(`is outside ${least} to ${most}`);
  return value;
}

function hasControlCharacter(given: string): boolean {
  return [...given].some((letter) => letter < ' ' || letter === '\u007f');
}
