/** `walvault cost`: what a cloud vault costs a month for a given flow of WAL, line by line, and what would move it. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { largestKnobs, type Knob } from '../../core/cost/knobs.ts';
import { parsePrices, type PriceList } from '../../core/cost/prices.ts';
import { COST_GROUPS, type Cost } from '../../core/cost/bill.ts';
import { reckonCost, type CostInput } from '../../core/cost/reckon-cost.ts';
import { VaultError } from '../../core/errors.ts';
import { byteRate, bytes, duration, integer, share, type Kind } from '../../core/settings/kinds.ts';
import { parseText } from '../../core/settings/read.ts';
import { rowOf, type SettingName } from '../../core/settings/settings.ts';
import type { Answer, CommandRow, Context } from '../command.ts';
import { programRoot } from '../program-root.ts';
import { formatBytes } from '../ui/format.ts';
import { table } from '../ui/table.ts';

export const RATE = byteRate('100GB/min');
const DAYS = duration('0', '3650d');

/** The option, and what is taken where it is not given. */
const OPTIONS = {
  walBytesPerDay: { flag: '--wal-rate', kind: RATE, default: undefined },
  segmentBytes: { flag: '--segment-size', kind: segmentSize(), default: '16MiB' },
  compression: { flag: '--compression', kind: share(0.01, 1), default: '0.4' },
  databaseBytes: { flag: '--database-size', kind: bytes('0', '1024TiB'), default: '100GiB' },
  backupEveryMs: { flag: '--backup-every', kind: duration('0', '365d'), default: '1d' },
  versionsMs: { flag: '--keep-versions', kind: DAYS, default: '30d' },
  standbys: { flag: '--standbys', kind: integer(0, 1000), default: '1' },
  drStandbys: { flag: '--dr-standbys', kind: integer(0, 1000), default: '1' },
} as const satisfies Partial<
  Record<keyof CostInput, { flag: string; kind: Kind<number>; default: string | undefined }>
>;

const SETTINGS = {
  forceSwitchMs: 'forceSwitch',
  heartbeatMs: 'heartbeatInterval',
  leaseMs: 'lease',
  witnessMs: 'witnessInterval',
  pollMs: 'pollInterval',
  idlePollMs: 'idlePollInterval',
  bundleBytes: 'bundleSize',
  keepBackups: 'keepBackups',
  keepDays: 'keepDays',
  pitrWindowMs: 'pitrWindow',
} as const satisfies Partial<Record<keyof CostInput, SettingName>>;

/** Where vault and replica are, where nothing is said. */
export const REGIONS = 'eu-west-1,eu-central-1';

export const PRICES_FILE = 'docs/prices.toml';

export const cost: CommandRow = {
  path: 'cost',
  summary: 'reckon what a vault on AWS costs a month',
  text: `Reckons, from the rate at which the primary writes WAL, the requests that walvault makes, what lies in bucket and table, the
functions, alarms and transfer between regions; each at the price of a dated list. Nothing is asked of AWS and nothing is changed: it
needs neither vault nor credentials. Steady flow, all nodes up and in the region of their vault, nothing restored; no free tier, no
tax, no traffic that leaves AWS, and not the machines of the nodes.

The list that comes along was written from memory of AWS's published prices and says so: copy docs/prices.toml, correct it, and
give it by --prices before you rely on a figure. The rate is what 'SELECT pg_current_wal_lsn()' grows by. The compression of 0.4 is on
the dear side: WAL of pgbench, which repeats itself, was stored at 0.08 of its size by zstd level 1; your own ratio is the stored
to the raw size that 'walvault backups' shows.`,
  options: [
    { flags: '--wal-rate <rate>', summary: 'WAL that the primary writes: 16MB/min, 1GiB/h, 2TB/day, 0' },
    { flags: '--segment-size <size>', summary: 'initdb --wal-segsize (default 16MiB)' },
    { flags: '--compression <share>', summary: 'stored size of raw size, of WAL and backups (default 0.4)' },
    { flags: '--database-size <size>', summary: 'raw size of a base backup (default 100GiB)' },
    {
      flags: '--backup-every <duration>',
      summary: 'between two base backups; 0: none are taken (default 1d)',
    },
    { flags: '--keep-versions <duration>', summary: 'what was deleted stays as a version (default 30d)' },
    { flags: '--standbys <number>', summary: 'that follow the vault (default 1)' },
    {
      flags: '--dr <on|off>',
      summary: 'a replica in the second region (default off)',
      choices: ['on', 'off'],
    },
    { flags: '--dr-standbys <number>', summary: 'that follow the replica (default 1)' },
    {
      flags: '--witness <on|off>',
      summary: 'the witness function, in each region (default on, as it is deployed)',
      choices: ['on', 'off'],
    },
    { flags: '--regions <home,dr>', summary: `where vault and replica are (default ${REGIONS})` },
    { flags: '--prices <file>', summary: 'another list of prices than the one that comes along' },
    { flags: '--all', summary: 'show the lines below a cent, too' },
  ],
  settings: Object.values(SETTINGS),
  examples: [
    { says: 'one vault, one standby, a segment a minute', line: 'walvault cost --wal-rate 16MB/min' },
    {
      says: 'two regions, with prices of your own',
      line: 'walvault cost --wal-rate 2GiB/h --dr on --regions us-east-1,eu-west-1 --prices our-prices.toml',
    },
  ],
  async run(context) {
    const input = readInput(context);
    const list = readPrices(context.text('prices'));
    const reckoned = reckonCost(input, list);
    const knobs = largestKnobs(input, list);
    context.answer(
      {
        ...{ input, asOf: list.asOf, source: list.source, currency: list.currency },
        ...{ total: reckoned.total, groups: reckoned.groups, lines: reckoned.lines, knobs },
      } as unknown as Answer,
      () => describeCost(reckoned, list, context.flag('all')) + describeKnobs(knobRows(input, list), list),
    );
    context.say(`\nprices as of ${list.asOf}: ${list.source}`);
  },
};

function readInput(context: Context): CostInput {
  const numbers: Record<string, number> = {};
  for (const [name, { flag, kind, default: fallback }] of Object.entries(OPTIONS)) {
    const text =
      context.text(flag.slice(2).replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())) ?? fallback;
    if (text === undefined)
      throw new VaultError('usage', `${flag} is not given`, {
        hint: `Give the rate at which the primary writes WAL, for example ${flag} 16MB/min.`,
      });
    numbers[name] = parseText(kind as Kind<number>, text, flag, fallback ?? '16MB/min');
  }
  for (const [name, setting] of Object.entries(SETTINGS)) numbers[name] = context.settings[setting];
  const regions = (context.text('regions') ?? REGIONS).split(',').map((region) => region.trim());
  const [home, away] = regions;
  const isPair = context.text('dr') === 'on';
  if (home === undefined || home === '' || regions.length > 2 || away === '')
    throw new VaultError('usage', `--regions: '${regions.join(',')}' is not one region, or two`, {
      hint: `for example --regions ${REGIONS}`,
    });
  if (isPair && (away === undefined || away === home))
    throw new VaultError('usage', '--dr on wants a second region', {
      hint: `for example --regions ${REGIONS}`,
    });
  return {
    ...(numbers as Omit<CostInput, 'region' | 'drRegion' | 'witness'>),
    witness: context.text('witness') !== 'off',
    region: home,
    drRegion: isPair ? away : undefined,
  };
}

/** The input where only the rate is given. */
export function plainInput(changes: Partial<CostInput>): CostInput {
  const input: Record<string, number> = {};
  for (const [name, { kind, default: fallback }] of Object.entries(OPTIONS))
    if (fallback !== undefined) input[name] = (kind as Kind<number>).parse(fallback);
  for (const [name, setting] of Object.entries(SETTINGS))
    input[name] = (rowOf(setting).kind as Kind<number>).parse(rowOf(setting).default!);
  const [region] = REGIONS.split(',');
  return {
    ...({ ...input, region, witness: true, walBytesPerDay: 0, drRegion: undefined } as unknown as CostInput),
    ...changes,
  };
}

/** @param file  undefined: the list that comes along @throws VaultError usage | local */
export function readPrices(file?: string): PriceList {
  const place = file ?? path.join(programRoot(), PRICES_FILE);
  let text: string;
  try {
    text = readFileSync(place, 'utf8');
  } catch (cause) {
    throw new VaultError('local', `cannot read ${place}: ${(cause as Error).message}`, { cause });
  }
  return parsePrices(text, place);
}

/** For people; lines below a cent are one line, unless `all`. */
export function describeCost({ lines, groups, total }: Cost, { currency }: PriceList, all: boolean): string {
  const hasTwo = new Set(lines.map(({ region }) => region)).size > 1;
  const rows = COST_GROUPS.flatMap((group) => {
    const own = lines.filter((line) => line.group === group);
    if (own.length === 0) return [];
    const shown = own.filter((line) => all || line.cost >= 0.01);
    const rest = own.filter((line) => !shown.includes(line));
    const small = rest.reduce((sum, line) => sum + line.cost, 0);
    return [
      ...shown.map((line) => [
        ...['', line.item, ...(hasTwo ? [line.region] : [])],
        ...[quantityText(line.quantity), line.unit, `${line.amount} / ${quantityText(line.per)}`],
        money(line.cost),
      ]),
      ...(rest.length === 0 ? [] : [filled(hasTwo, '', `${rest.length} below a cent`, money(small))]),
    ]
      .map((row, index) => (index === 0 ? [group, ...row.slice(1)] : row))
      .concat([filled(hasTwo, '', `all of ${group}`, money(groups[group]))]);
  });
  rows.push(filled(hasTwo, 'total', '', money(total)));
  const head = ['', 'a month', ...(hasTwo ? ['region'] : []), 'quantity', 'of', 'price', currency];
  return table(head, rows);
}

const filled = (hasTwo: boolean, first: string, second: string, last: string): string[] => [
  ...[first, second, ...(hasTwo ? [''] : [])],
  ...['', '', '', last],
];

function describeKnobs(rows: readonly string[][], { currency }: PriceList): string {
  if (rows.length === 0) return '';
  return `\n\n${table(['what moves it', `${currency} a month`, 'and costs'], rows)}`;
}

/** What turning each of the largest knobs saves, and what one gives for it. */
export function knobRows(input: CostInput, list: PriceList): string[][] {
  return largestKnobs(input, list).map((knob) => [
    `${knob.name} ${worded(knob, knob.from)} to ${worded(knob, knob.to)}`,
    `saves ${money(knob.saves)}`,
    knob.price,
  ]);
}

function worded({ kind }: Knob, value: number): string {
  if (kind === 'size') return formatBytes(value);
  return kind === 'duration' ? DAYS.format(value) : String(value);
}

/** Two places. */
export function money(value: number): string {
  return value.toLocaleString('en-US', { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

export function quantityText(value: number): string {
  const rounded = value >= 100 ? Math.round(value) : Number(value.toPrecision(3));
  return rounded.toLocaleString('en-US', { maximumFractionDigits: 6 });
}

function segmentSize(): Kind<number> {
  const kind = bytes('1MiB', '1GiB');
  return {
    ...kind,
    describe: 'power of two, 1MiB to 1GiB',
    parse(text) {
      const size = kind.parse(text);
      if (!Number.isInteger(Math.log2(size))) throw new RangeError('is no power of two');
      return size;
    },
  };
}
