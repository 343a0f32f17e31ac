/**
 * The bill of a month: lines by what they are for, each a quantity at a price of the list, and their sums.
 *
 * Pure.
 */
import { VaultError } from '../errors.ts';
import { LOG_BYTES, LOG_MONTHS, REQUESTS_PER_KMS } from './deployment.ts';
import type { PriceList, PriceName } from './prices.ts';

const GIB = 1024 ** 3;

export type CostLine = {
  group: CostGroup;
  region: string;
  item: string;
  price: PriceName;
  /** A month. */
  quantity: number;
  unit: string;
  /** Of `per` units. */
  amount: number;
  per: number;
  cost: number;
};

export const COST_GROUPS = [
  'archiving',
  'following',
  'heartbeats',
  'base backups',
  'storage',
  'retention',
  'relay',
  'watching',
  'witness',
  'keys',
] as const;
export type CostGroup = (typeof COST_GROUPS)[number];

export type Cost = { lines: CostLine[]; groups: Record<CostGroup, number>; total: number };

type Memory = { readonly memoryGb: number };

/** Lines as they come; S3's requests ask KMS, and calls of functions write logs. */
export class Bill {
  readonly #list: PriceList;
  readonly #lines: CostLine[] = [];
  /** By region. */
  readonly #requests = new Map<string, number>();
  readonly #calls = new Map<string, number>();

  constructor(list: PriceList) {
    this.#list = list;
  }

  add(group: CostGroup, region: string, item: string, price: PriceName, quantity: number): void {
    const { unit, per, amounts } = this.#list.prices.get(price)!;
    const amount = amounts.get(region);
    if (amount === undefined)
      throw new VaultError('usage', `the list of prices has no ${price} for region ${region}`, {
        hint: `It serves ${this.#list.regions.join(', ')}; give another list with --prices FILE.`,
      });
    const cost = (quantity / per) * amount;
    if (quantity > 0) this.#lines.push({ group, region, item, price, quantity, unit, amount, per, cost });
  }

  put(group: CostGroup, region: string, item: string, quantity: number): void {
    this.#count(this.#requests, region, quantity);
    this.add(group, region, item, 's3_put', quantity);
  }

  get(group: CostGroup, region: string, item: string, quantity: number): void {
    this.#count(this.#requests, region, quantity);
    this.add(group, region, item, 's3_get', quantity);
  }

  calls(
    group: CostGroup,
    region: string,
    item: string,
    calls: number,
    { memoryGb }: Memory,
    seconds: number,
  ) {
    this.#count(this.#calls, region, calls);
    this.add(group, region, `${item}: calls`, 'lambda_request', calls);
    this.add(group, region, `${item}: time`, 'lambda_compute', seconds * memoryGb);
  }

  #count(sums: Map<string, number>, region: string, quantity: number): void {
    sums.set(region, (sums.get(region) ?? 0) + quantity);
  }

  close(): Cost {
    for (const [region, requests] of this.#requests)
      this.add('keys', region, 'asked by S3', 'kms_request', requests / REQUESTS_PER_KMS);
    for (const [region, calls] of this.#calls) {
      this.add('watching', region, 'logs of functions', 'logs_ingest', (calls * LOG_BYTES) / GIB);
      this.add(
        'watching',
        region,
        'logs that are kept',
        'logs_storage',
        (calls * LOG_BYTES * LOG_MONTHS) / GIB,
      );
    }
    const lines = COST_GROUPS.flatMap((group) => this.#lines.filter((line) => line.group === group));
    const sum = (of: readonly CostLine[]) => of.reduce((total, { cost }) => total + cost, 0);
    const groups = Object.fromEntries(
      COST_GROUPS.map((group) => [group, sum(lines.filter((line) => line.group === group))]),
    ) as Record<CostGroup, number>;
    return { lines, groups, total: sum(lines) };
  }
}
