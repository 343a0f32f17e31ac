/** The list of prices: the one that comes along is whole and says where it comes from; one that is not whole is refused, by name. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { PRICES_FILE, readPrices } from '../../../bin/commands/cost.ts';
import { programRoot } from '../../../bin/program-root.ts';
import { parsePrices, PRICE_NAMES } from '../../../core/cost/prices.ts';

const text = readFileSync(path.join(programRoot(import.meta.dirname), PRICES_FILE), 'utf8');

test('the list that comes along serves its regions, is dated, and does not claim more than it is', () => {
  const list = readPrices();
  expect(list.regions).toEqual(['eu-central-1', 'eu-west-1', 'us-east-1']);
  expect([...list.prices.keys()]).toEqual([...PRICE_NAMES]);
  expect(list.asOf).toMatch(/^20\d\d/);
  expect(list.source).toContain('check before you rely on them');
  for (const { page, per } of list.prices.values()) {
    expect(page).toMatch(/^https:\/\/aws\.amazon\.com\/.+\/pricing\/$/);
    expect(per).toBeGreaterThanOrEqual(1);
  }
});

test.each([
  ['no date', text.replace(/^as_of.*$/m, ''), /as_of is missing/],
  ['a price that is missing', text.replace('[price.s3_get]', '[price.s4_get]'), /price\.s3_get\] wants/],
  ['a price that nobody asked for', `${text}\n[price.s3_gett]\nunit = "x"\n`, /price\.s3_gett\] is no price/],
  [
    'a price below nothing',
    text.replace('us-east-1 = 0.005,', 'us-east-1 = -1,'),
    /s3_put: the amount for us-east-1/,
  ],
  ['a price that is a word', text.replace('us-east-1 = 0.005,', 'us-east-1 = "much",'), /s3_put: the amount/],
  ['for no units', text.replace('per = 1000\n', 'per = 0\n'), /price\.s3_put\] wants/],
  ['what is not TOML', 'as_of = \n', /is not TOML/],
])('%s is refused', (_, changed, message) => {
  expect(changed).not.toBe(text);
  expect(() => parsePrices(changed, 'mine.toml')).toThrow(message);
  expect(() => parsePrices(changed, 'mine.toml')).toThrow(/^mine\.toml: /);
});

test('a region that lacks one price does not serve', () => {
  const list = parsePrices(text.replace(', eu-west-1 = 0.705', ''), 'mine.toml');
  expect(list.regions).toEqual(['eu-central-1', 'us-east-1']);
});
