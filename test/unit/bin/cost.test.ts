/** `walvault cost`: what it prints, takes and refuses. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { PRICES_FILE } from '../../../bin/commands/cost.ts';
import { programRoot } from '../../../bin/program-root.ts';
import { walvault } from '../../harness/command.ts';

const cost = (...words: string[]) => walvault(['cost', ...words]);
type Told = {
  total: number;
  input: Record<string, unknown>;
  groups: Record<string, number>;
  lines: { group: string; region: string; cost: number }[];
  knobs: { name: string; saves: number }[];
};
const json = async (...words: string[]) => JSON.parse((await cost(...words, '--json')).out) as Told;

test('a table by groups, the total, what moves it, and how old the prices are', async () => {
  const { code, out, err } = await cost('--wal-rate', '16MB/min');
  expect(code).toBe(0);
  expect(out).toMatch(
    /^archiving +segments stored +43,800 +PUT, COPY and LIST requests +0\.005 \/ 1,000 +0\.22$/m,
  );
  expect(out).toMatch(/^ +all of archiving +\d+\.\d\d$/m);
  expect(out).toMatch(/^total +\d+\.\d\d$/m);
  expect(out).toMatch(/^what moves it +USD a month +and costs\n(--|[a-z_]+ ).+ to .+ saves \d+\.\d\d/m);
  expect(out).not.toMatch(/eu-central-1|transfer/);
  expect(err).toMatch(/prices as of 20\d\d.*: from memory .* check before you rely on them/);
  expect(out.split('\n').every((line) => line === line.trimEnd())).toBe(true);
});

test('--json holds every line; --all shows them; the total is that of the table', async () => {
  const told = await json('--wal-rate', '16MB/min');
  const { out } = await cost('--wal-rate', '16MB/min', '--all');
  expect(out).not.toContain('below a cent');
  expect(Number(/^total +([\d.,]+)$/m.exec(out)![1])).toBeCloseTo(told.total, 2);
  expect(out.split('\n').filter((line) => / \/ [\d,]+ +[\d.,]+$/.test(line))).toHaveLength(told.lines.length);
  expect(told.knobs).toHaveLength(3);
});

test('settings count as everywhere: by flag and by variable', async () => {
  const plain = await json('--wal-rate', '16MB/min');
  const slow = await json('--wal-rate', '16MB/min', '--poll-interval', '1s');
  expect(slow.groups['following']).toBeLessThan(plain.groups['following']! / 5);
  const words = ['cost', '--wal-rate', '16MB/min', '--json'];
  const said = await walvault(words, { WALVAULT_POLL_INTERVAL: '1s' });
  expect((JSON.parse(said.out) as Told).total).toBe(slow.total);
});

test('with DR both regions are named, and prices of one’s own are taken', async () => {
  const pair = await json('--wal-rate', '1GiB/h', '--dr', 'on', '--regions', 'us-east-1, eu-west-1');
  expect(new Set(pair.lines.map(({ region }) => region))).toEqual(new Set(['us-east-1', 'eu-west-1']));
  const folder = mkdtempSync(path.join(os.tmpdir(), 'walvault-prices-'));
  try {
    const file = path.join(folder, 'mine.toml');
    const text = readFileSync(path.join(programRoot(import.meta.dirname), PRICES_FILE), 'utf8');
    writeFileSync(file, text.replaceAll('eu-west-1 =', 'moon-1 =').replace(/moon-1 = [\d.]+/g, 'moon-1 = 0'));
    const told = await json('--wal-rate', '1GiB/h', '--regions', 'moon-1', '--prices', file);
    expect(told.total).toBe(0);
    expect(told.lines.length).toBeGreaterThan(10);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.each([
  [[], /--wal-rate is not given/, /--wal-rate 16MB\/min/],
  [
    ['--wal-rate', 'much'],
    /--wal-rate: "much" is not a size by a time, as 16MB\/min/,
    /for example 16MB\/min/,
  ],
  [['--wal-rate', '16MB'], /is not a size by a time/, /size \/ time/],
  [['--wal-rate', '16/min'], /needs a unit of size/, /16MB\/min/],
  [['--wal-rate', '16MB/fortnight'], /unknown time fortnight/, /16MB\/min/],
  [['--wal-rate', '-1MB/min'], /is not a size/, /16MB\/min/],
  [['--wal-rate', '10TB/s'], /is outside 0 to 100GB\/min/, /16MB\/min/],
  [['--wal-rate', '0', '--segment-size', '3MiB'], /is no power of two/, /power of two/],
  [['--wal-rate', '0', '--compression', '4'], /is outside 0.01 to 1/, /0.4/],
  [
    ['--wal-rate', '0', '--dr', 'on', '--regions', 'eu-west-1'],
    /wants a second region/,
    /eu-west-1,eu-central-1/,
  ],
  [['--wal-rate', '0', '--regions', 'a,b,c'], /is not one region, or two/, /eu-west-1/],
  [['--wal-rate', '0', '--regions', 'mars-1'], /no [a-z0-9_]+ for region mars-1/, /--prices FILE/],
])('%j is refused, with what to do', async (words, message, hint) => {
  const { code, out, err } = await cost(...words);
  expect({ code, out }).toEqual({ code: 2, out: '' });
  expect(err).toMatch(message);
  expect(err.split('HINT: ')[1]).toMatch(hint);
});

test('a list that is not there is said by its path', async () => {
  const { code, err } = await cost('--wal-rate', '0', '--prices', '/nowhere/prices.toml');
  expect(code).toBe(73);
  expect(err).toContain('cannot read /nowhere/prices.toml');
});
