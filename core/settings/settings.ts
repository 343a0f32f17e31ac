/**
 * The one table of settings: flag, environment variable, line in settings.toml, validation, help and reference page are all
 * made from it.
 *
 *   restoreTimeout   --restore-timeout   WALVAULT_RESTORE_TIMEOUT   restore_timeout = "30s"
 *
 * Values: durations are milliseconds, sizes bytes. core/settings/read.ts reads them.
 */
import {
  arns,
  bytes,
  choice,
  directory,
  duration,
  httpUrl,
  httpUrlOrNone,
  integer,
  name,
  onOff,
  text,
  vaultUrl,
  vaultUrlOrNone,
  type Kind,
} from './kinds.ts';

/** Who takes a setting: every command of the operator, single commands, a hook, the agent, a function of lambdas/. */
export type User =
  | 'operator'
  | 'configure'
  | 'backup'
  | 'standby create'
  | 'retention'
  | 'archive'
  | 'restore'
  | 'recovered'
  | 'agent'
  | 'witness'
  | FunctionUser;

/** The functions of lambdas/, which are given their settings as environment: core/settings/environment.ts. */
export type FunctionUser = 'retention function' | 'relay function' | 'notify function' | 'witness function';

export type Setting<T, D extends string | undefined, U extends readonly User[] = readonly User[]> = {
  readonly kind: Kind<T>;
  /** Text as a person would write it; undefined: it must be given where it is needed, or is found out (see text). */
  readonly default: D;
  /** What the reference says where `default` is undefined. */
  readonly otherwise?: string;
  readonly usedBy: U;
  readonly summary: string;
  readonly text: string;
  readonly example: string;
  /** Variables of others that are honoured after WALVAULT_…, before the file. */
  readonly also?: readonly string[];
};

function setting<T, const U extends readonly User[], const D extends string | undefined = undefined>(
  row: Omit<Setting<T, D, U>, 'default'> & { default?: D },
): Setting<T, D, U> {
  return { ...row, default: row.default as D };
}

export const SETTINGS = {
  vault: setting({
    kind: vaultUrl(),
    otherwise: 'must be given',
    usedBy: [
      'operator',
      'archive',
      'restore',
      'recovered',
      'agent',
      'retention function',
      'relay function',
      'notify function',
      'witness function',
    ],
    summary: 'Where the vault is.',
    text: 'A directory of this machine, or an S3 bucket with a DynamoDB table.',
    example: 's3://acme-wal/prod?table=walvault&region=eu-west-1',
  }),
  cluster: setting({
    kind: name(),
    otherwise: 'must be given',
    usedBy: ['operator', 'archive', 'restore', 'recovered', 'agent'],
    summary: 'Name of the PostgreSQL cluster in the vault.',
    text: 'Primary and standbys of one database have the same; a vault may hold many clusters.',
    example: 'main',
  }),
  node: setting({
    kind: name(),
    otherwise: 'must be given, except where settings.toml of the server has it',
    usedBy: ['operator', 'archive', 'restore', 'recovered', 'agent'],
    summary: 'Name of this node: always the one where the command runs.',
    text: 'The target of a trigger is --to, never this.',
    example: 'db1',
  }),
  pgdata: setting({
    kind: directory(),
    otherwise: 'must be given where a server is touched',
    usedBy: ['operator', 'archive', 'restore', 'recovered', 'agent'],
    summary: 'Data directory of the server.',
    text: 'As for PostgreSQL itself, PGDATA is honoured.',
    example: '/var/lib/postgresql/18/main',
    also: ['PGDATA'],
  }),
  stateDir: setting({
    kind: directory(),
    otherwise: '`<PGDATA>.walvault`',
    usedBy: ['operator', 'archive', 'restore', 'recovered', 'agent'],
    summary: 'Where walvault keeps wrappers, spool and settings of one server.',
    text: 'Beside the data directory, never in it: a base backup must not carry it.',
    example: '/var/lib/walvault/db1',
  }),
  restoreTimeout: setting({
    kind: duration('1s', '10m'),
    default: '30s',
    usedBy: ['configure', 'restore'],
    summary: 'How long restore waits for a vault that does not answer.',
    text: 'After it a standby is told to ask again; archive recovery, and a promotion under way, are stopped, so that they never open with data missing.',
    example: '2m',
  }),
  archiveTimeout: setting({
    kind: duration('1s', '10m'),
    default: '50s',
    usedBy: ['configure', 'archive'],
    summary: 'How long archive waits until a segment is durable in the vault.',
    text: 'After it the segment is reported as failed and PostgreSQL hands it in again. PostgreSQL pauses 60 s after three failures, so waiting is cheaper than failing.',
    example: '2m',
  }),
  vaultTimeout: setting({
    kind: duration('500ms', '5m'),
    default: '10s',
    usedBy: ['operator', 'configure', 'archive', 'restore', 'recovered', 'agent'],
    summary: 'How long one operation of bucket or manifest may take.',
    text: 'A store that accepts and never answers costs this long, then the operation is tried again or reported.',
    example: '20s',
  }),
  openMaxWait: setting({
    kind: duration('0', '10m'),
    default: '30s',
    usedBy: ['configure', 'recovered'],
    summary: 'How long a server being promoted waits for the word of a silent vault before it opens.',
    text: 'Nobody can write meanwhile. After it the server opens unconfirmed, and says so. 0: it does not wait.',
    example: '1m',
  }),
  pollInterval: setting({
    kind: duration('10ms', '1m'),
    default: '100ms',
    usedBy: ['configure', 'restore', 'agent'],
    summary: 'Pause between two looks at the vault while a standby follows.',
    text: 'Each look is one read of one row. In wait mode the restore command itself looks (pg_standby -s).',
    example: '500ms',
  }),
  idlePollInterval: setting({
    kind: duration('100ms', '10m'),
    default: '2s',
    usedBy: ['configure', 'restore', 'agent'],
    summary: 'Longest pause between two looks when nothing has come for long.',
    text: 'The pauses grow from poll_interval to this one.',
    example: '10s',
  }),
  restoreRetries: setting({
    kind: integer(0, 1000),
    default: '3',
    usedBy: ['configure', 'restore'],
    summary: 'Wait mode: how often a segment that cannot be fetched whole is tried again.',
    text: 'The pauses grow with each try (pg_standby -r). Then recovery is stopped, and nothing is lost; it never opens for that. A vault that does not answer is no such failure: it is waited for.',
    example: '10',
  }),
  restoreMaxWait: setting({
    kind: duration('0', '365d'),
    default: '0',
    usedBy: ['configure', 'restore'],
    summary:
      'Wait mode: how long nothing may be heard of the primary before this node takes over by a fast failover.',
    text: '0: never, only a trigger ends the wait. As pg_standby -w, but what counts is any sign of the primary in the vault, its heartbeat too, and the time in which the vault itself is silent does not. The key of this node must be allowed to trigger; otherwise it says so and waits on.',
    example: '30m',
  }),
  heartbeatInterval: setting({
    kind: duration('1s', '10m'),
    default: '5s',
    usedBy: ['configure', 'restore', 'agent'],
    summary: 'How often a node writes its state into the vault.',
    text: 'Role, versions, last segment archived or restored, restart point. A primary renews its lease with it: a quarter of the lease at most.',
    example: '15s',
  }),
  prefetchCount: setting({
    kind: integer(0, 1024),
    default: '8',
    usedBy: ['configure', 'agent'],
    summary: 'How many segments a standby fetches ahead.',
    text: 'They wait, verified, in the spool. prefetch_bytes limits them too; the very next one is always fetched.',
    example: '32',
  }),
  prefetchBytes: setting({
    kind: bytes('0', '64GiB'),
    default: '256MiB',
    usedBy: ['configure', 'agent'],
    summary: 'How much disk the segments fetched ahead may take.',
    text: 'Counted as they lie in the spool, whole.',
    example: '2GiB',
  }),
  uploadParallel: setting({
    kind: integer(1, 64),
    default: '4',
    usedBy: ['configure', 'backup', 'agent'],
    summary: 'How many uploads run side by side.',
    text: 'Rows are committed in the order of the WAL, however many uploads there are.',
    example: '8',
  }),
  zstdLevel: setting({
    kind: integer(1, 19),
    default: '1',
    usedBy: ['configure', 'backup', 'archive', 'agent'],
    summary: 'Level of compression (zstd).',
    text: 'Higher is smaller and slower; on WAL of pgbench level 3 gains little over 1.',
    example: '3',
  }),
  retrieveRetryInterval: setting({
    kind: duration('1ms', '1m'),
    default: '200ms',
    usedBy: ['configure', 'standby create'],
    summary: 'wal_retrieve_retry_interval, as written into a standby.',
    text: 'How soon PostgreSQL asks again for a segment that was not there yet; the answer costs about a millisecond.',
    example: '1s',
  }),
  forceSwitch: setting({
    kind: duration('0', '1d'),
    default: '60s',
    usedBy: ['configure'],
    summary: 'archive_timeout, as written into a primary where it was 0.',
    text: 'How old a commit may grow before its segment is archived though not full. 0: archive_timeout is left alone.',
    example: '5m',
  }),
  sweepInterval: setting({
    kind: duration('1s', '1h'),
    default: '60s',
    usedBy: ['configure', 'agent'],
    summary: 'How often the primary of a vault that took over looks for the one it superseded.',
    text: 'Once that one answers it becomes a replica, what it does not share is set aside, and the looking ends. Any relay between the two does the same.',
    example: '10s',
  }),
  drVault: setting({
    kind: vaultUrlOrNone(),
    otherwise: 'the primary archives into its own vault alone',
    usedBy: ['configure', 'agent'],
    summary: 'The replica into which the primary archives while its own vault is out of its reach.',
    text: `'walvault configure primary' arms it in the vault: from then on a trigger fences both, so both must answer then, or --lose-direct is said. What was spilled is served to nobody until the vault itself has taken it over. none: taken back.`,
    example: 's3://acme-wal-dr/prod?table=walvault&region=eu-central-1',
  }),
  drAfter: setting({
    kind: duration('1s', '1d'),
    default: '60s',
    usedBy: ['configure', 'agent'],
    summary: 'How long the vault may be out of reach before the primary archives into dr_vault.',
    text: 'Its own vault is tried all the time, and what was spilled goes there first when it answers.',
    example: '5m',
  }),
  roles: setting({
    kind: choice('own', 'external'),
    default: 'own',
    usedBy: ['configure', 'agent'],
    summary: 'Who decides which node is the primary: walvault, or another tool.',
    text: "own: a trigger does; a server promoted otherwise is refused until a person runs `walvault claim` there. external: Patroni, repmgr or a person promotes (pg_promote), and the agent of the promoted server claims the next epoch by itself, where its timeline is a new one and forked from the live branch past all that is archived. Its key needs the operator's right for that.",
    example: 'external',
  }),
  onFenced: setting({
    kind: choice('none', 'stop'),
    default: 'none',
    usedBy: ['configure', 'agent'],
    summary: 'What the agent does to a server whose epoch is over.',
    text: 'none: reports it, archiving is refused anyway. stop: shuts the server down within seconds (fast; immediate where that does not end in 10 s). Never a standby, a server promoted by hand, or one whose vault does not answer. A node with a lease does as with stop.',
    example: 'stop',
  }),
  onRoleChange: setting({
    kind: text('command line of sh'),
    otherwise: 'nothing is run',
    usedBy: ['configure', 'agent'],
    summary: 'What the agent runs when this node becomes the primary or a standby, or is fenced.',
    text: 'Role (primary, standby, fenced), node and epoch are its $1, $2, $3 and WALVAULT_ROLE, WALVAULT_NODE, WALVAULT_EPOCH. At most once for each change; a failure is logged and is an event, and changes nothing else.',
    example: '/usr/local/bin/point-dns "$1" "$2"',
  }),
  roleChangeTimeout: setting({
    kind: duration('1s', '10m'),
    default: '60s',
    usedBy: ['configure', 'agent'],
    summary: 'How long the command of on_role_change may take.',
    text: 'After it the command, and what it started, is ended.',
    example: '10s',
  }),
  lease: setting({
    kind: duration('0', '10m'),
    default: '0',
    usedBy: ['configure', 'agent'],
    summary:
      'How long a primary may go on without the word of the vault that it still is the primary. 0: for ever.',
    text: 'Its agent renews it with each heartbeat. Where that fails for two thirds of it, the server is stopped (fast, then immediate, then killed), and all is quiet before it is over: only so may a standby take its place without a person. Wants a watchdog, and heartbeat_interval at a quarter of it or less. An outage of the vault of a third of it is survived with a heartbeat_interval of a sixth; a longer one stops the primary: with dr_vault make the lease longer than one and a half times dr_after, or nothing is ever spilled. 30s goes with the other defaults.',
    example: '30s',
  }),
  watchdog: setting({
    kind: choice('none', 'process', 'systemd'),
    default: 'none',
    usedBy: ['configure', 'agent'],
    summary: 'Who stops the server at the end of its lease when the agent is dead, frozen or starved.',
    text: "process: a second small process, which the agent and 'walvault guard' start. systemd: the same, as a unit to which the server's unit is bound (docs/systemd.md). The lease is not renewed while it does not run.",
    example: 'systemd',
  }),
  failoverPriority: setting({
    kind: integer(0, 1000),
    default: '100',
    usedBy: ['configure', 'agent'],
    summary: 'Which standby the witness chooses: the highest of those that are fit. 0: never this one.',
    text: 'Of the same priority the one that has replayed most. A trigger by a person may name any.',
    example: '200',
  }),
  autoFailover: setting({
    kind: onOff(),
    default: 'off',
    usedBy: ['witness', 'witness function'],
    summary: 'Whether the witness triggers a standby by itself; off: it only warns.',
    text: 'Only where the lease of the primary is over by what the witness saw itself, a standby is fit, and nobody stops servers on purpose (maintenance, flush, archiving off).',
    example: 'on',
  }),
  maxLag: setting({
    kind: duration('1s', '30d'),
    default: '5m',
    usedBy: ['witness', 'witness function'],
    summary: 'How far a standby may be behind and still take the place of the primary by itself.',
    text: "In the primary's time: between the newest segment of the vault and the first that the standby has not restored. It replays all of that before it opens; nothing that is archived is lost by it.",
    example: '30s',
  }),
  coolDown: setting({
    kind: duration('0', '30d'),
    default: '1h',
    usedBy: ['witness', 'witness function'],
    summary: 'How long after an automatic failover the next one wants a person.',
    text: 'Two in a row are rarely two accidents: what made the first one fail may be at the second, too.',
    example: '6h',
  }),
  witnessInterval: setting({
    kind: duration('100ms', '1m'),
    default: '2s',
    usedBy: ['witness', 'witness function'],
    summary: 'How often the witness looks.',
    text: 'Each look reads control, head, the rows of the nodes, and the witness row. It costs detection time, not safety.',
    example: '5s',
  }),
  drFailover: setting({
    kind: onOff(),
    default: 'off',
    usedBy: ['witness', 'witness function'],
    summary:
      'Of a witness in a replica: whether it has a standby of its region take over where the active vault answers and no standby there is fit; off: it only warns.',
    text: "The active vault is fenced in the same step, as 'walvault trigger' in a replica does it. Where the active vault does not answer it never takes over: its primary cannot be fenced, a person decides.",
    example: 'on',
  }),
  bundleSize: setting({
    kind: bytes('1MiB', '4GiB'),
    default: '64MiB',
    usedBy: ['backup'],
    summary: 'About how much of a base backup goes into one object.',
    text: 'Cut at file borders, before compression; a file larger than this has an object of its own.',
    example: '256MiB',
  }),
  keepBackups: setting({
    kind: integer(1, 1000),
    default: '2',
    usedBy: ['retention', 'retention function'],
    summary: 'How many of the newest base backups retention keeps, whatever their age.',
    text: 'Only those are counted from which a way leads to the live end. WAL is kept from the oldest backup that is kept for any reason.',
    example: '4',
  }),
  keepDays: setting({
    kind: integer(0, 36500),
    default: '0',
    usedBy: ['retention', 'retention function'],
    summary: 'Base backups younger than this many days are kept.',
    text: '0: age alone keeps none.',
    example: '30',
  }),
  pitrWindow: setting({
    kind: duration('0', '3650d'),
    default: '7d',
    usedBy: ['retention', 'retention function'],
    summary: 'How far back a restore to any moment must be possible.',
    text: 'Keeps the base backups of that time, the one before it, and the WAL from there on. 0: no window.',
    example: '30d',
  }),
  nodeLease: setting({
    kind: duration('1h', '3650d'),
    default: '7d',
    usedBy: ['retention', 'retention function'],
    summary: 'How long a node that is not heard of keeps the WAL that it will ask for.',
    text: 'The same holds for a restore or a new node whose process died. After it the WAL goes, an event says so, and the node has to be made anew. An hour is added: clocks differ.',
    example: '3d',
  }),
  relayLease: setting({
    kind: duration('1h', '3650d'),
    default: '7d',
    usedBy: ['retention', 'retention function'],
    summary: 'How long a relay that is not heard of keeps the WAL that its replica has not got.',
    text: 'After it the WAL goes, an event says so, and the replica has to be made anew. An hour is added: clocks differ.',
    example: '14d',
  }),
  relayTo: setting({
    kind: vaultUrl(),
    otherwise: 'the relay function is not there',
    usedBy: ['relay function'],
    summary: 'The vault of the other region, to which the relay function carries what this one takes.',
    text: 'Set by the stack. `walvault relay` names its vaults by --from and --to instead.',
    example: 's3://acme-wal-dr/prod?table=walvault&region=eu-central-1',
  }),
  arrivalsTopic: setting({
    kind: arns(),
    otherwise: 'set by the stack',
    usedBy: ['relay function'],
    summary:
      'SNS topic of the other region that is told of each segment, history file and backup that has arrived there.',
    text: 'For programs: one JSON message for a batch of segments, one for each history file and each backup.',
    example: 'arn:aws:sns:eu-central-1:123456789012:walvault-arrivals',
  }),
  noticeTopics: setting({
    kind: arns(),
    otherwise: 'set by the stack',
    usedBy: ['notify function'],
    summary: 'SNS topics, of both regions, that are told what happened to a cluster.',
    text: 'For people: one message for each fact. Several are separated by commas; each is told even where another does not answer.',
    example: 'arn:aws:sns:eu-west-1:123456789012:walvault,arn:aws:sns:eu-central-1:123456789012:walvault',
  }),
  webhook: setting({
    kind: httpUrlOrNone(),
    default: 'none',
    usedBy: ['notify function'],
    summary: 'Where the notify function posts each message besides, as JSON.',
    text: 'Any answer of 200 to 299 within 10 s counts as told; otherwise it is tried again.',
    example: 'https://chat.example.com/hooks/walvault',
  }),
  lagLimit: setting({
    kind: duration('1m', '30d'),
    default: '10m',
    usedBy: ['notify function'],
    summary: 'How far the replica may be behind before it is told, and its alarm rings.',
    text: 'Age of the oldest segment that the replica has not got.',
    example: '1h',
  }),
  archiveLimit: setting({
    kind: duration('2m', '30d'),
    default: '15m',
    usedBy: ['notify function'],
    summary: 'How long a finished segment may wait on the primary before it is told, and its alarm rings.',
    text: 'As the primary says with its heartbeat. An idle primary finishes no segment and is not late; one that says nothing is a silent node.',
    example: '1h',
  }),
  silenceLimit: setting({
    kind: duration('1m', '30d'),
    default: '5m',
    usedBy: ['notify function'],
    summary: 'How long a node may say nothing before it is told, and its alarm rings.',
    text: 'Every node writes its state each heartbeat_interval; clocks of nodes may differ, so keep this well above their difference.',
    example: '30m',
  }),
  agent: setting({
    kind: onOff(),
    default: 'on',
    usedBy: ['configure', 'archive', 'restore', 'recovered'],
    summary: 'Whether hooks start the agent where none runs.',
    text: 'off: each hook does its one file by itself; correct, but slower, and without triggers on a hot standby.',
    example: 'off',
  }),
  awsRegion: setting({
    kind: text('region of AWS'),
    otherwise: 'as the vault URL or the SDK finds it',
    usedBy: ['operator', 'configure', 'archive', 'restore', 'recovered', 'agent'],
    summary: 'Region of bucket and table.',
    text: 'configure keeps it for the server, whose environment often lacks that of the person.',
    example: 'eu-west-1',
    also: ['AWS_REGION', 'AWS_DEFAULT_REGION'],
  }),
  awsProfile: setting({
    kind: text('profile of ~/.aws/config'),
    otherwise: 'as the SDK finds it',
    usedBy: ['operator', 'configure', 'archive', 'restore', 'recovered', 'agent'],
    summary: 'Profile whose credentials are taken.',
    text: 'configure keeps its name, never the credentials themselves.',
    example: 'walvault',
    also: ['AWS_PROFILE'],
  }),
  awsEndpoint: setting({
    kind: httpUrl(),
    otherwise: 'that of AWS',
    usedBy: ['operator', 'configure', 'archive', 'restore', 'recovered', 'agent'],
    summary: 'Another endpoint for S3 and DynamoDB: an emulator, or a compatible store.',
    text: 'Also part of the vault URL.',
    example: 'http://127.0.0.1:4566',
    also: ['AWS_ENDPOINT_URL'],
  }),
  pgHost: setting({
    kind: text('host name, address, or directory of the socket'),
    otherwise: 'what postmaster.pid says',
    usedBy: ['operator', 'configure', 'backup', 'agent'],
    summary: 'Where the server listens.',
    text: 'As psql takes it.',
    example: '/var/run/postgresql',
    also: ['PGHOST'],
  }),
  pgPort: setting({
    kind: integer(1, 65535),
    otherwise: 'what postmaster.pid says',
    usedBy: ['operator', 'configure', 'backup', 'agent'],
    summary: 'Port of the server.',
    text: 'As psql takes it.',
    example: '5433',
    also: ['PGPORT'],
  }),
  pgUser: setting({
    kind: text('role'),
    otherwise: 'name of the user who runs the command',
    usedBy: ['operator', 'configure', 'backup', 'agent'],
    summary: 'Role to connect as.',
    text: 'A password comes from PGPASSWORD or ~/.pgpass, never from here.',
    example: 'postgres',
    also: ['PGUSER'],
  }),
  pgDatabase: setting({
    kind: text('database'),
    default: 'postgres',
    usedBy: ['operator', 'configure', 'backup', 'agent'],
    summary: 'Database to connect to.',
    text: 'Any that exists will do: only the server as a whole is looked at.',
    example: 'postgres',
    also: ['PGDATABASE'],
  }),
  logLevel: setting({
    kind: choice('error', 'warn', 'info', 'debug'),
    default: 'info',
    usedBy: ['operator', 'configure', 'archive', 'restore', 'recovered', 'agent'],
    summary: 'How much goes into the logs.',
    text: 'info is one line for each change of state, not for each segment.',
    example: 'debug',
  }),
} as const;

export type SettingName = keyof typeof SETTINGS;

type ValueOf<S> = S extends Setting<infer T, infer D> ? (D extends string ? T : T | undefined) : never;

/** Each setting with its value: milliseconds, bytes, or as its kind says. */
export type SettingValues = { readonly [N in SettingName]: ValueOf<(typeof SETTINGS)[N]> };

export const SETTING_NAMES = Object.keys(SETTINGS) as SettingName[];

/** A row without its own type, for loops over the table. */
export function rowOf(setting: SettingName): Setting<unknown, string | undefined> {
  return SETTINGS[setting] as Setting<unknown, string | undefined>;
}

/** Settings that this user takes, in the order of the table. */
export function settingsOf(user: User): SettingName[] {
  return SETTING_NAMES.filter((setting) => rowOf(setting).usedBy.includes(user));
}

/** '--restore-timeout' */
export function flagOf(setting: SettingName): string {
  return `--${setting.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** 'WALVAULT_RESTORE_TIMEOUT' */
export function envOf(setting: SettingName): string {
  return `WALVAULT_${keyOf(setting).toUpperCase()}`;
}

/** 'restore_timeout', the key in settings.toml */
export function keyOf(setting: SettingName): string {
  return setting.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
