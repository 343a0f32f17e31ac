/**
 * The list of prices: which there are, and how the file that holds them is read. The file is docs/prices.toml, or the user's own.
 *
 * Pure: text in, prices out.
 */
import { parse, TomlError } from 'smol-toml';
import { VaultError } from '../errors.ts';

/** Every price that the reckoning uses. */
export const PRICE_NAMES = [
  's3_put',
  's3_get',
  's3_storage',
  'transfer_region',
  'dynamodb_write',
  'dynamodb_read',
  'dynamodb_storage',
  'dynamodb_pitr',
  'lambda_request',
  'lambda_compute',
  'kms_key',
  'kms_request',
  'cloudwatch_alarm',
  'cloudwatch_metric',
  'cloudwatch_dashboard',
  'cloudwatch_request',
  'logs_ingest',
  'logs_storage',
  'sns_publish',
  'sqs_request',
] as const;
export type PriceName = (typeof PRICE_NAMES)[number];

export type Price = {
  /** What is counted: 'requests', 'GB-months'. */
  unit: string;
  /** How many of them the amount is for. */
  per: number;
  /** Where AWS says it. */
  page: string;
  /** By region. */
  amounts: ReadonlyMap<string, number>;
};

export type PriceList = {
  /** When it was true, as the file says. */
  asOf: string;
  /** Where the amounts come from, as the file says. */
  source: string;
  currency: string;
  prices: ReadonlyMap<PriceName, Price>;
  /** Regions that have every price, in byte order. */
  regions: readonly string[];
};

/** @param file  for messages @throws VaultError usage */
export function parsePrices(text: string, file: string): PriceList {
  const bad = (message: string, cause?: unknown) =>
    new VaultError('usage', `${file}: ${message}`, {
      hint: 'Copy docs/prices.toml and change its amounts.',
      cause,
    });
  let raw: Record<string, unknown>;
  try {
    raw = parse(text);
  } catch (cause) {
    if (!(cause instanceof TomlError)) throw cause;
    throw bad(`is not TOML: ${cause.message.split('\n')[0]}`, cause);
  }
  const words = ['as_of', 'source', 'currency'].map((key) => {
    const value = raw[key];
    if (typeof value !== 'string' || value === '') throw bad(`${key} is missing`);
    return value;
  });
  const table = tableOf(raw['price']);
  const prices = new Map<PriceName, Price>();
  for (const name of PRICE_NAMES) {
    const row = tableOf(table[name]);
    const { unit, per, page, amount } = row;
    if (typeof unit !== 'string' || typeof page !== 'string' || typeof per !== 'number' || !(per > 0))
      throw bad(`[price.${name}] wants unit, per (above 0), page and amount`);
    const amounts = new Map<string, number>();
    for (const [region, value] of Object.entries(tableOf(amount))) {
      if (typeof value !== 'number' || !(value >= 0) || !Number.isFinite(value))
        throw bad(`price.${name}: the amount for ${region} is no number from 0`);
      amounts.set(region, value);
    }
    prices.set(name, { unit, per, page, amounts });
  }
  const unknown = Object.keys(table).find((name) => !prices.has(name as PriceName));
  if (unknown !== undefined) throw bad(`[price.${unknown}] is no price that is used`);
  const named = new Set([...prices.values()].flatMap(({ amounts }) => [...amounts.keys()]));
  const regions = [...named].filter((region) => [...prices.values()].every((one) => one.amounts.has(region)));
  return {
    ...{ asOf: words[0]!, source: words[1]!, currency: words[2]! },
    ...{ prices, regions: regions.sort() },
  };
}

function tableOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}
