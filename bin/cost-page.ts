/**
 * The tables of docs/cost.md, made by the reckoning itself: `npm run docs` puts them between the page's two marks, and
 * test/unit/docs.test.ts fails where the committed page differs. What stands around them is written by hand.
 */
import path from 'node:path';
import { PRICE_NAMES } from '../core/cost/prices.ts';
import { COST_GROUPS } from '../core/cost/bill.ts';
import { reckonCost } from '../core/cost/reckon-cost.ts';
import { REGIONS, knobRows, money, plainInput, quantityText, RATE, readPrices } from './commands/cost.ts';
import { programRoot } from './program-root.ts';

export const COST_FILE = path.join(programRoot(), 'docs/cost.md');

const FROM = '<!-- Made by `npm run docs` from here -->';
const TO = '<!-- to here -->';
const RATES = ['0', '1MB/min', '16MB/min', '160MB/min', '1GB/min'];
const EXAMPLE = '16MB/min';

/** @param page  as it is now @throws Error  it has not the two marks */
export function costPage(page: string): string {
  const [from, to] = [page.indexOf(FROM), page.indexOf(TO)];
  if (from < 0 || to < from) throw new Error(`${COST_FILE} has no '${FROM}' with '${TO}' after it`);
  return `${page.slice(0, from + FROM.length)}\n\n${tables()}\n\n${page.slice(to)}`;
}

function tables(): string {
  const list = readPrices();
  const [home, away] = REGIONS.split(',');
  const input = (rate: string, drRegion?: string) =>
    plainInput({ walBytesPerDay: RATE.parse(rate), drRegion });
  const total = (rate: string, drRegion?: string) => money(reckonCost(input(rate, drRegion), list).total);
  const example = reckonCost(input(EXAMPLE), list);
  const lines = COST_GROUPS.flatMap((group) =>
    example.lines
      .filter((line) => line.group === group && line.cost >= 0.01)
      .map((line, index) => [
        ...[index === 0 ? group : '', line.item, quantityText(line.quantity), line.unit],
        ...[`${line.amount} / ${quantityText(line.per)}`, money(line.cost)],
      ]),
  );
  return [
    `Prices as of ${list.asOf}, in ${list.currency}, ${list.source}.`,
    `A month in ${home}, and with a replica in ${away}:`,
    grid(
      ['WAL', 'one vault, one standby', 'with a replica and its standby'],
      RATES.map((rate) => [rate, total(rate), total(rate, away)]),
    ),
    `The lines of ${EXAMPLE} with one vault (those below a cent are left out, and are in the total):`,
    grid(
      ['', 'a month', 'quantity', 'of', 'price', list.currency],
      [...lines, ['**total**', '', '', '', '', `**${money(example.total)}**`]],
    ),
    `What moves it most, at ${EXAMPLE}:`,
    grid(['turned', 'one vault', 'and costs'], knobRows(input(EXAMPLE), list)),
    grid(['turned', 'with a replica', 'and costs'], knobRows(input(EXAMPLE, away), list)),
    'The prices that are used, by their name in the list, each with the page of AWS that says it:',
    grid(
      ['price', 'of', ...list.regions],
      PRICE_NAMES.map((name) => {
        const { unit, per, page, amounts } = list.prices.get(name)!;
        const what = per === 1 ? unit : `${quantityText(per)} ${unit}`;
        return [
          `\`${name}\``,
          `[${what}](${page})`,
          ...list.regions.map((region) => String(amounts.get(region))),
        ];
      }),
    ),
  ].join('\n\n');
}

function grid(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(head), `|${head.map(() => ' --- |').join('')}`, ...rows.map(line)].join('\n');
}
