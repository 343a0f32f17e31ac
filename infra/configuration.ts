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
import { parse, TomlDate, TomlError } from 'smol-toml';
import { VaultError } from '../core/errors.ts';
import { keyOf, rowOf, SETTINGS, type SettingName } from '../core/settings/settings.ts';
import type { Asked } from './roles.ts';

export type Configuration = {
  name: string;
  regions: { primary: string; dr: string | undefined };
  /** Of objects; '' or parts without '/' at either end. */
  prefix: string;
  /** Names of clusters to which the roles are narrowed; undefined: any. */
  clusters: readonly string[] | undefined;
  retention: Partial<Record<RetentionSetting, string>> & { schedule: string };
  notify: Partial<Record<NotifySetting, string>> & { email: string | undefined };
  /** undefined: it is not deployed. */
  witness: Partial<Record<WitnessSetting, string>> | undefined;
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
const WITNESS = [
  'autoFailover',
  'maxLag',
  'coolDown',
  'witnessInterval',
  'drFailover',
] as const satisfies SettingName[];
export type RetentionSetting = (typeof RETENTION)[number];
export type NotifySetting = (typeof NOTIFY)[number];
export type WitnessSetting = (typeof WITNESS)[number];

/** How a value is read; RangeError: what it is not. */
type Reader = (value: unknown) => unknown;
/** One key of the file. A key that has no row here is refused. `example`: a line's value, as TOML. */
type Row = { read: Reader; example: string };

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
/** A list, or its text with commas. Of none it would be unclear whether all are meant or nobody. */
const each =
  (read: Reader): Reader =>
  (value) => {
    const list: unknown[] =
      typeof value === 'string'
        ? value.split(',').map((part) => part.trim())
        : Array.isArray(value)
          ? value
          : [value];
    if (list.length === 0) throw new RangeError('is a list of none');
    return list.map(read);
  };
/** As the setting of that name, in text: `7d`, or a number where it takes one. */
const setting = (name: SettingName): Row => {
  const { kind, example } = rowOf(name);
  return {
    read: (value) => {
      if (typeof value !== 'string' && typeof value !== 'number')
        throw new RangeError('is neither text nor a number');
      kind.parse(String(value));
      return String(value);
    },
    example: JSON.stringify(example),
  };
};
const yesOrNo: Reader = (value) => {
  if (!['true', 'false'].includes(String(value))) throw new RangeError('is neither true nor false');
  return String(value) === 'true';
};
const settings = (part: string, names: readonly SettingName[]): Record<string, Row> =>
  Object.fromEntries(names.map((name) => [`${part}.${keyOf(name)}`, setting(name)]));

const REGION = text(/^[a-z]{2,4}(-[a-z]+)+-\d$/, 'a region of AWS, such as eu-west-1');
const KEY_ARN = text(
  /^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key\/[A-Za-z0-9-]+$/,
  'the ARN of a KMS key (arn:aws:kms:…:key/…)',
);
const keyExample = (region: string): string =>
  `"arn:aws:kms:${region}:111122223333:key/11111111-2222-3333-4444-555555555555"`;

/** Its alarm rings after two days without a run: a schedule that comes more seldom would let it ring for ever. */
const DAILY =
  /^(rate\((1 (minute|hour|day)|([2-9]|[1-9]\d{1,2}) minutes|([2-9]|1\d|2[0-4]) hours)\)|cron\([\d*/,-]+ [\d*/,-]+ (\* \* \?|\? \* \*) \*\))$/;

const KEYS: Record<string, Row> = {
  name: {
    // with the account's number and the region it has to fit the 63 characters of a bucket
    read: text(/^[a-z][a-z0-9-]{1,28}[a-z0-9]$/, 'a name of 3 to 30 lower-case letters, digits and -'),
    example: '"walvault"',
  },
  'regions.primary': { read: REGION, example: '"eu-west-1"' },
  'regions.dr': { read: REGION, example: '"eu-central-1"' },
  prefix: {
    read: text(
      /^$|^[A-Za-z0-9_.-]+(\/[A-Za-z0-9_.-]+)*$/,
      "a prefix: parts of letters, digits, _ . and -, with '/' between them",
    ),
    example: '"prod/pg"',
  },
  clusters: {
    read: each(text(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, 'the name of a cluster')),
    example: '["main", "crm"]',
  },
  'retention.schedule': {
    read: text(DAILY, 'a schedule of EventBridge that comes each day: rate(…) or cron(…)'),
    example: '"cron(30 3 * * ? *)"',
  },
  ...settings('retention', RETENTION),
  ...settings('notify', NOTIFY),
  'witness.deploy': { read: yesOrNo, example: 'true' },
  ...settings('witness', WITNESS),
  'notify.webhook': {
    read: (value) => {
      const given = setting('webhook').read(value);
      // what is told may not be read on the way, and a token in the URL neither
      if (given !== 'none' && !String(given).startsWith('https://'))
        throw new RangeError('is not an https:// URL');
      return given;
    },
    example: '"https://chat.example.com/hooks/x"',
  },
  'notify.email': {
    read: text(/^[^@\s]+@[^@\s]+\.[^@\s]+$/, 'an address of e-mail'),
    example: '"dba@example.com"',
  },
  'object_lock.mode': {
    read: text(/^(governance|compliance)$/, "'governance' or 'compliance'"),
    example: '"governance"',
  },
  'object_lock.days': { read: whole(1, 36500), example: '7' },
  'kms.primary': { read: KEY_ARN, example: keyExample('eu-west-1') },
  'kms.dr': { read: KEY_ARN, example: keyExample('eu-central-1') },
  'nodes.principals': {
    read: each(
      text(/^arn:aws[a-z-]*:iam::\d{12}:(root|user\/.+|role\/.+)$/, 'the ARN of an account, user or role'),
    ),
    example: '["arn:aws:iam::111122223333:role/db-host"]',
  },
  noncurrent_days: { read: whole(1, 36500), example: '30' },
  runbook_url: {
    read: text(/^https?:\/\/\S+$/, 'an http:// or https:// URL'),
    example: '"https://git.example.com/docs/runbook/"',
  },
  adopt: { read: yesOrNo, example: 'true' },
};

/** Every key, with a line that it takes. */
export const CONFIGURATION_EXAMPLES: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(KEYS).map(([key, { example }]) => [key, `${key} = ${example}`]),
);

/**
 * What `-c key=value` says to us of all that the CDK and its plugins keep in their context: theirs have ':', '/' or '@' in them, or are
 * words with dashes. What remains and has no row is a mistake of the person.
 */
export function givenByContext(context: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(context).filter(([key]) => key !== 'config' && /^(\w+|\w+\.[\w.-]+)$/.test(key)),
  );
}

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
  const said = definedOf(context);
  const given = { ...flatten(parseToml(toml ?? '', file)), ...said };
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    const place = Object.hasOwn(said, key) ? `-c ${key}` : `${key} in ${file}`;
    if (!Object.hasOwn(KEYS, key))
      throw new VaultError('usage', `${place} is not known`, {
        hint: `Known are ${Object.keys(KEYS).join(', ')}.`,
      });
    const { read, example } = KEYS[key]!;
    try {
      values[key] = read(value);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new VaultError('usage', `${place}: ${shown(value)} ${cause.message}`, {
        hint: `For example: ${key} = ${example}`,
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
    throw new VaultError('usage', `${file} is not TOML: ${cause.message.split('\n')[0]}`, {
      hint: `Look at line ${cause.line}; docs/deploying.md has a file with every key.`,
      cause,
    });
  }
}

/** JSON has no inf and no nan. */
const shown = (value: unknown): string => (typeof value === 'number' ? String(value) : JSON.stringify(value));

/** By dotted key. A table without a line is passed over only where it is one of ours. */
function flatten(table: Record<string, unknown>, before = ''): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(table).flatMap(([name, value]) => {
      const key = `${before}${name}`;
      const isTable =
        typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof TomlDate);
      if (!isTable) return [[key, value]];
      const lines = Object.entries(flatten(value as Record<string, unknown>, `${key}.`));
      const isOurs = Object.keys(KEYS).some((known) => known.startsWith(`${key}.`));
      return lines.length === 0 && !isOurs ? [[key, value]] : lines;
    }),
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
    throw new VaultError('usage', `object_lock in ${file} wants both mode and days`, {
      hint: `Write both, ${KEYS['object_lock.mode']!.example} and ${KEYS['object_lock.days']!.example} for example, or neither: no lock.`,
    });
  const witness = settingsOf('witness', WITNESS);
  const isDeployed = at<boolean>('witness.deploy') ?? true;
  if (!isDeployed && Object.keys(witness).length > 0)
    throw new VaultError('usage', `witness in ${file} is not to be deployed, and is told more`, {
      hint: "Leave its other lines out; or deploy it: with auto_failover off it only warns. 'walvault witness' elsewhere has its own settings.",
    });
  return {
    name: at('name') ?? 'walvault',
    regions: { primary, dr: at('regions.dr') },
    prefix: at('prefix') ?? '',
    clusters: at('clusters'),
    retention: { ...settingsOf('retention', RETENTION), schedule: at('retention.schedule') ?? 'rate(1 day)' },
    notify: { ...settingsOf('notify', NOTIFY), email: at('notify.email') },
    witness: isDeployed ? witness : undefined,
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
  if (regions.dr === undefined && askedOf(configuration).includes('dr_failover'))
    throw new VaultError('usage', `witness.dr_failover in ${file} is on, and no regions.dr is given`, {
      hint: 'Name the second region, or leave dr_failover out: a standby of this region wants auto_failover.',
    });
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
      throw new VaultError('usage', `kms.dr in ${file} is given, and no regions.dr`, {
        hint: 'Name the second region, or leave its key out.',
      });
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

/** What the witness is to do beyond watching. */
export function askedOf({ witness }: Configuration): Asked[] {
  const isOn = (name: 'autoFailover' | 'drFailover'): boolean =>
    SETTINGS[name].kind.parse(witness?.[name] ?? SETTINGS[name].default);
  return [
    ...(isOn('autoFailover') ? (['auto_failover'] as const) : []),
    ...(isOn('drFailover') ? (['dr_failover'] as const) : []),
  ];
}
