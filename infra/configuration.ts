/**
 * What a person says of a deployment: a small TOML file, and `-c key=value` of the CDK on top of it. Read and checked here, before anything
 * is made of it; a mistake is named with the line's key and a hint.
 *
 *   name = "walvault"                 # begins every name; several deployments of one account differ by it
 *   [regions]
 *   primary = "eu-west-1"
 *   dr = "eu-central-1"               # left out: one region alone
 *
 * docs/deploying.md has every key.
 */
import { parse, TomlError } from 'smol-toml';
import { VaultError } from '../core/errors.ts';
import { parseSetting } from '../core/settings/read.ts';
import { keyOf, type SettingName } from '../core/settings/settings.ts';

export type Configuration = {
  name: string;
  regions: { primary: string; dr: string | undefined };
  /** Of objects; '' or parts without '/' at either end. */
  prefix: string;
  /** Names of clusters to which the roles are narrowed; undefined: any. */
  clusters: readonly string[] | undefined;
  retention: Partial<Record<RetentionSetting, string>> & { schedule: string };
  notify: Partial<Record<NotifySetting, string>> & { email: string | undefined };
  objectLock: { mode: 'governance' | 'compliance'; days: number } | undefined;
  /** ARN of a key that is there already, per region; undefined: one is made. */
  kms: { primary: string | undefined; dr: string | undefined };
  /** ARNs that may take the roles of nodes and operator; empty: the account, whose own policies then decide. */
  principals: readonly string[];
  /** How long a deleted object can be had back, days. */
  noncurrentDays: number;
  /** Begin of the links to runbook pages in alarms: `https://…/docs/runbook/`. */
  runbookUrl: string;
  /** Bucket, table and key are there already, left by an earlier deployment of this name. */
  adopt: boolean;
};

const RETENTION = [
  'keepBackups',
  'keepDays',
  'pitrWindow',
  'nodeLease',
  'relayLease',
] as const satisfies SettingName[];
const NOTIFY = ['webhook', 'lagLimit', 'archiveLimit', 'silenceLimit'] as const satisfies SettingName[];
export type RetentionSetting = (typeof RETENTION)[number];
export type NotifySetting = (typeof NOTIFY)[number];

/** One key of the file: how its value is read. A key that has no row here is refused. */
type Reader = (value: unknown) => unknown;

const text =
  (pattern: RegExp, what: string): Reader =>
  (value) => {
    if (typeof value !== 'string' || !pattern.test(value)) throw new RangeError(`is not ${what}`);
    return value;
  };
const whole =
  (from: number, to: number): Reader =>
  (value) => {
    const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value;
    if (!Number.isInteger(number) || (number as number) < from || (number as number) > to)
      throw new RangeError(`is not a whole number from ${from} to ${to}`);
    return number;
  };
const each =
  (reader: Reader): Reader =>
  (value) =>
    (typeof value === 'string' ? value.split(',') : Array.isArray(value) ? value : [value]).map(reader);
/** As the setting of that name, in text: `7d`, or a number where it takes one. */
const asSetting =
  (name: SettingName): Reader =>
  (value) => {
    const given = String(value);
    parseSetting(name, given, keyOf(name));
    return given;
  };

const REGION = text(/^[a-z]{2}(-[a-z]+)+-\d$/, 'a region of AWS, such as eu-west-1');
const KEY_ARN = text(
  /^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key\/[A-Za-z0-9-]+$/,
  'the ARN of a KMS key (arn:aws:kms:…:key/…)',
);

/** Its alarm rings after two days without a run: a schedule that comes more seldom would let it ring for ever. */
const DAILY =
  /^(rate\((1 (minute|hour|day)|([2-9]|[1-9]\d{1,2}) minutes|([2-9]|1\d|2[0-4]) hours)\)|cron\([\d*/,-]+ [\d*/,-]+ (\* \* \?|\? \* \*) \*\))$/;

const KEYS: Record<string, Reader> = {
  // with the account's number and the region it has to fit the 63 characters of a bucket
  name: text(/^[a-z][a-z0-9-]{1,28}[a-z0-9]$/, 'a name of 3 to 30 lower-case letters, digits and -'),
  'regions.primary': REGION,
  'regions.dr': REGION,
  prefix: text(
    /^$|^[A-Za-z0-9_.-]+(\/[A-Za-z0-9_.-]+)*$/,
    "a prefix: parts of letters, digits, _ . and -, with '/' between them",
  ),
  clusters: each(text(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'the name of a cluster')),
  'retention.schedule': text(
    DAILY,
    "a schedule of EventBridge that comes each day: 'rate(1 day)', 'rate(12 hours)' or 'cron(30 3 * * ? *)'",
  ),
  ...Object.fromEntries(RETENTION.map((name) => [`retention.${keyOf(name)}`, asSetting(name)])),
  ...Object.fromEntries(NOTIFY.map((name) => [`notify.${keyOf(name)}`, asSetting(name)])),
  'notify.webhook': (value) => {
    // what is told may not be read on the way, and a token in the URL neither
    if (String(value) !== 'none' && !String(value).startsWith('https://'))
      throw new RangeError('is not an https:// URL');
    return asSetting('webhook')(value);
  },
  'notify.email': text(/^[^@\s]+@[^@\s]+\.[^@\s]+$/, 'an address of e-mail'),
  'object_lock.mode': text(/^(governance|compliance)$/, "'governance' or 'compliance'"),
  'object_lock.days': whole(1, 36500),
  'kms.primary': KEY_ARN,
  'kms.dr': KEY_ARN,
  'nodes.principals': each(
    text(/^arn:aws[a-z-]*:iam::\d{12}:(root|user\/.+|role\/.+)$/, 'the ARN of an account, user or role'),
  ),
  noncurrent_days: whole(1, 36500),
  runbook_url: text(/^https?:\/\/\S+$/, 'an http:// or https:// URL'),
  adopt: (value) => {
    if (!['true', 'false'].includes(String(value))) throw new RangeError('is neither true nor false');
    return String(value) === 'true';
  },
};

/** Every key, for docs and for the context that the app asks for. */
export const CONFIGURATION_KEYS = Object.keys(KEYS);

/**
 * @param toml     text of the file; undefined: none
 * @param context  by dotted key, on top of it: what is not there is undefined
 * @throws VaultError usage
 */
export function readConfiguration(
  toml: string | undefined,
  context: Readonly<Record<string, unknown>> = {},
  file = 'the configuration',
): Configuration {
  const given = { ...flatten(parseToml(toml ?? '', file)), ...definedOf(context) };
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    const reader = KEYS[key];
    if (reader === undefined)
      throw new VaultError('usage', `${key} in ${file} is not known`, {
        hint: `Known are ${CONFIGURATION_KEYS.join(', ')}.`,
      });
    try {
      values[key] = reader(value);
    } catch (cause) {
      if (cause instanceof VaultError)
        throw new VaultError('usage', `${key} in ${file}: ${cause.message}`, { hint: cause.hint, cause });
      if (!(cause instanceof RangeError)) throw cause;
      throw new VaultError('usage', `${key} in ${file}: ${JSON.stringify(value)} ${cause.message}`, {
        cause,
      });
    }
  }
  const configuration = asConfiguration(values, file);
  checkTogether(configuration, file);
  return configuration;
}

function parseToml(toml: string, file: string): Record<string, unknown> {
  try {
    return parse(toml);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    throw new VaultError('usage', `${file} is not TOML: ${cause.message.split('\n')[0]}`, { cause });
  }
}

function flatten(table: Record<string, unknown>, before = ''): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(table).flatMap(([key, value]) =>
      typeof value === 'object' && value !== null && !Array.isArray(value)
        ? Object.entries(flatten(value as Record<string, unknown>, `${before}${key}.`))
        : [[`${before}${key}`, value]],
    ),
  );
}

const definedOf = (context: Readonly<Record<string, unknown>>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(context).filter(([, value]) => value !== undefined));

function asConfiguration(values: Record<string, unknown>, file: string): Configuration {
  const at = <T>(key: string): T | undefined => values[key] as T | undefined;
  const settingsOf = <N extends SettingName>(
    part: string,
    names: readonly N[],
  ): Partial<Record<N, string>> => {
    const found: Partial<Record<N, string>> = {};
    for (const name of names) {
      const value = at<string>(`${part}.${keyOf(name)}`);
      if (value !== undefined) found[name] = value;
    }
    return found;
  };
  const primary = at<string>('regions.primary');
  if (primary === undefined)
    throw new VaultError('usage', `regions.primary is not given in ${file}`, {
      hint: `Write a file with [regions] primary = "eu-west-1" and give it by --config FILE, or say -c regions.primary=eu-west-1.`,
    });
  const mode = at<'governance' | 'compliance'>('object_lock.mode');
  const days = at<number>('object_lock.days');
  if ((mode === undefined) !== (days === undefined))
    throw new VaultError('usage', `object_lock in ${file} wants both mode and days`);
  return {
    name: at('name') ?? 'walvault',
    regions: { primary, dr: at('regions.dr') },
    prefix: at('prefix') ?? '',
    clusters: at('clusters'),
    retention: { ...settingsOf('retention', RETENTION), schedule: at('retention.schedule') ?? 'rate(1 day)' },
    notify: { ...settingsOf('notify', NOTIFY), email: at('notify.email') },
    objectLock: mode === undefined || days === undefined ? undefined : { mode, days },
    kms: { primary: at('kms.primary'), dr: at('kms.dr') },
    principals: at('nodes.principals') ?? [],
    noncurrentDays: at('noncurrent_days') ?? 30,
    runbookUrl: at('runbook_url') ?? '',
    adopt: at('adopt') ?? false,
  };
}

function checkTogether(configuration: Configuration, file: string): void {
  const { name, regions, kms, objectLock, noncurrentDays, adopt } = configuration;
  if (regions.primary === regions.dr)
    throw new VaultError('usage', `regions.dr in ${file} is the primary region itself`, {
      hint: 'Name another region, or leave it out: one region alone works, too.',
    });
  if (regions.dr !== undefined && partitionOf(regions.primary) !== partitionOf(regions.dr))
    throw new VaultError(
      'usage',
      `regions.primary and regions.dr in ${file} lie in different partitions of AWS`,
      {
        hint: 'No role reaches from one into the other (China, GovCloud and the rest are apart): name regions of one.',
      },
    );
  for (const side of ['primary', 'dr'] as const)
    if (adopt && regions[side] !== undefined && kms[side] === undefined)
      throw new VaultError(
        'usage',
        `the bucket in ${regions[side]} is taken up again, and kms.${side} is not given`,
        {
          hint: `Only under its old key its objects can be read: aws kms describe-key --region ${regions[side]} --key-id alias/${name} --query KeyMetadata.Arn`,
        },
      );
  for (const side of ['primary', 'dr'] as const) {
    const key = kms[side];
    if (key === undefined) continue;
    if (regions[side] === undefined)
      throw new VaultError('usage', `kms.dr in ${file} is given, and no regions.dr`);
    const region = key.split(':')[3];
    if (region !== regions[side])
      throw new VaultError(
        'usage',
        `kms.${side} in ${file} lies in ${region}, regions.${side} is ${regions[side]}`,
        {
          hint: 'A bucket is encrypted by a key of its own region.',
        },
      );
  }
  if (objectLock !== undefined && objectLock.days > noncurrentDays)
    throw new VaultError(
      'usage',
      `object_lock.days in ${file} is more than noncurrent_days (${noncurrentDays})`,
      {
        hint: 'S3 keeps a version as long as its lock: set noncurrent_days to at least as much, so that both say the same.',
      },
    );
}

/** Of a region: aws, aws-cn, aws-us-gov, …: apart from each other in everything. */
function partitionOf(region: string): string {
  return /^(cn|us-gov|us-isob|us-isof|us-iso|eu-isoe|eusc)-/.exec(region)?.[1] ?? 'aws';
}
