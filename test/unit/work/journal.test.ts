/** agent.log stays readable whatever happens for how long: one line a change of state, one summary a minute, a bounded size. */
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { Journal } from '../../../core/work/journal.ts';
import { statePaths } from '../../../core/work/node-state.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';

let scratch: string;
let journal: Journal;
const log = () => statePaths(scratch).log;
/** Without their times. */
const lines = (): string[] =>
  existsSync(log())
    ? readFileSync(log(), 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => line.replace(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z /, ''))
    : [];

let now: number;
beforeEach(() => {
  scratch = makeScratch();
  mkdirSync(path.dirname(log()), { recursive: true });
  now = Date.UTC(2026, 0, 1);
  jest.spyOn(Date, 'now').mockImplementation(() => now);
  journal = new Journal(statePaths(scratch));
});
afterEach(async () => {
  jest.restoreAllMocks();
  await removeScratch(scratch);
});

test('a vault away for a day of tries is one line, its return another, and its next absence a third', () => {
  for (let attempt = 0; attempt < 86_400; attempt++) journal.state('vault', 'the vault does not answer');
  journal.state('vault', 'archiving again');
  journal.state('vault', 'archiving again');
  journal.state('vault', 'the vault does not answer');
  expect(lines()).toEqual(['the vault does not answer', 'archiving again', 'the vault does not answer']);
});

test('matters that take turns do not make each other say it again', () => {
  for (let turn = 0; turn < 100; turn++) {
    journal.state('push', 'refused');
    journal.state('restore', 'waiting');
  }
  expect(lines()).toEqual(['refused', 'waiting']);
});

test('what is counted is summed up once a minute, and then begins anew', () => {
  for (let segment = 0; segment < 300; segment++) {
    now += 1000; // 5 minutes, a segment each second
    journal.count('archived');
    if (segment % 10 === 0) journal.count('bytes', 5);
  }
  expect(lines()).toHaveLength(5);
  const sum = (what: string) =>
    lines()
      .map((line) => Number(new RegExp(`${what} (\\d+)`).exec(line)?.[1]))
      .reduce((a, b) => a + b);
  expect(sum('archived')).toBe(300);
  expect(sum('bytes')).toBe(150);
});

test('however often the state changes, two files of a megabyte are all that it takes', () => {
  const text = 'x'.repeat(10_000);
  for (let change = 0; change < 350; change++) journal.state('flapping', `${change} ${text}`);
  expect(statSync(log()).size).toBeLessThan(1_020_000);
  expect(statSync(path.join(path.dirname(log()), 'agent.log.1')).size).toBeLessThan(1_020_000);
  expect(lines().at(-1)).toMatch(/^349 /);
  expect(statSync(log()).mode & 0o777).toBe(0o600);
});

test('where it cannot be written the work goes on', () => {
  rmSync(log(), { force: true });
  mkdirSync(log()); // nobody may write a directory as a file, root neither
  expect(() => journal.state('vault', 'away')).not.toThrow();
  rmSync(log(), { recursive: true });
  journal.state('vault', 'back');
  expect(lines()).toEqual(['back']);
});
