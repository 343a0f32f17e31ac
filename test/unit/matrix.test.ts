/** The matrix meets what the promises name, and says at its end what became of each pair. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import {
  matrixRuns,
  matrixSummary,
  mergedReport,
  ON_EACH_KIND,
  ON_EACH_PAIR,
  PAIRS,
} from '../../bin/launcher/matrix.mjs';
import { CRASH_POINTS } from '../../core/work/crash-points.ts';

const root = path.resolve(import.meta.dirname, '../..');
const read = (file: string) => readFileSync(path.join(root, file), 'utf8');

/** Named on docs/promises.md, and not of the first promises: what they show hangs on two vaults, commands or files, hardly on the pair. */
const LATER = [
  ...[
    'switchover',
    'flush',
    'full-disk',
    'rejoin',
    'retention',
    'backup',
    'bad-input',
    'package',
    'pg-upgrade',
    'external',
    'two-archivers',
    'doctor',
  ],
  ...['lease', 'lease-gate', 'lease-trigger', 'lease-takeover', 'witness', 'witness-faults', 'witness-dr'],
  ...['dr-relay', 'dr-table', 'dr-cut-off', 'dr-disaster', 'spill'],
];

describe('what runs', () => {
  test('every suite is there', () => {
    for (const name of [...ON_EACH_PAIR, ...ON_EACH_KIND])
      expect([name, existsSync(path.join(root, `test/system/${name}.test.ts`))]).toEqual([name, true]);
  });

  test('each system suite that shows one of the first promises is met by each pair', () => {
    const named = [...read('docs/promises.md').matchAll(/`test\/system\/([a-z-]+)\.test\.ts`/g)];
    const first = [...new Set(named.map(([, name]) => name!))].filter((name) => !LATER.includes(name));
    expect(first.length).toBeGreaterThan(10);
    expect(ON_EACH_PAIR).toEqual(expect.arrayContaining(first));
  });

  test('every crash point is placed somewhere, so that a process can die there', () => {
    const text = sources();
    for (const point of CRASH_POINTS) expect([point, text.includes(`'${point}'`)]).toEqual([point, true]);
  });

  test('without words: all pairs, what needs no server before them, the crash points last', () => {
    const runs = matrixRuns([]);
    expect(runs.map(({ title }) => title)).toEqual(['no server', ...PAIRS, 'crash points']);
    expect(runs[1]).toMatchObject({ env: { WALVAULT_TEST_PAIRS: '15:file' } });
    const withFlush = runs.filter(({ args }) => args.includes('test/system/flush.test.ts'));
    expect(withFlush.map(({ title }) => title)).toEqual(['15:file', '15:s3']);
    expect(runs.at(-1)).toMatchObject({
      args: ['test/crashes'],
      env: { WALVAULT_TEST_CRASH_KINDS: 'file,s3' },
    });
  });

  test('one pair: its kind of vault only', () => {
    const runs = matrixRuns(['16:file', '--bail']);
    expect(runs.map(({ title }) => title)).toEqual(['no server', '16:file', 'crash points']);
    expect(runs[0]).toMatchObject({ env: { WALVAULT_TEST_AWS: '' } });
    expect(runs[1]!.args).toEqual(
      expect.arrayContaining(['test/system/main-job.test.ts', 'test/system/flush.test.ts', '--bail']),
    );
    expect(runs[2]).toMatchObject({ env: { WALVAULT_TEST_CRASH_KINDS: 'file' } });
  });

  test('suites that are named: those and nothing else', () => {
    expect(matrixRuns(['17:s3', '18:file', 'test/system/fence'])).toEqual([
      { title: '17:s3', args: ['test/system/fence'], env: { WALVAULT_TEST_PAIRS: '17:s3' } },
      { title: '18:file', args: ['test/system/fence'], env: { WALVAULT_TEST_PAIRS: '18:file' } },
    ]);
  });

  test('a pair that there is not is refused', () => {
    expect(() => matrixRuns(['14:file'])).toThrow('14:file is none of the pairs 15:file');
    expect(() => matrixRuns(['16:memory'])).toThrow('16:memory');
  });
});

describe('what is said', () => {
  const report = (passed: number, failed: string[] = []) => ({
    numPassedTests: passed,
    numFailedTests: failed.length,
    numRuntimeErrorTestSuites: 0,
    testResults: failed.map((fullName) => ({
      status: 'failed',
      name: '/x.test.ts',
      assertionResults: [{ status: 'failed', fullName }],
    })),
  });
  const good = { title: '16:file', report: report(7), end: 0, seconds: 90 };
  const bad = { title: '17:s3', report: report(6, ['fence: refused']), end: 1, seconds: 30 };
  const dead = { title: '18:s3', report: undefined, end: 70, seconds: 6 };

  test('a row a pair, and the failing tests by name', () => {
    expect(matrixSummary([good, bad]).text.split('\n')).toEqual([
      '                passed  failed minutes',
      '16:file              7       0     1.5',
      '17:s3                6       1     0.5',
      'all                 13       1     2.0',
      'failed: 17:s3: fence: refused',
    ]);
    expect(matrixSummary([good]).failed).toBe(0);
    expect(matrixSummary([good, bad]).failed).toBe(1);
  });

  test('a run without a report, or that ended badly and names nothing, has failed', () => {
    expect(matrixSummary([good, dead]).failed).toBe(1);
    expect(matrixSummary([{ ...good, end: 1 }]).failed).toBe(1);
  });

  test('one report of all', () => {
    expect(mergedReport([good, bad, dead])).toMatchObject({
      ...{ numPassedTests: 13, numFailedTests: 1, numRuntimeErrorTestSuites: 0 },
      testResults: [{ status: 'failed' }],
    });
  });
});

/** The text of every module that may hold a crash point, without the list itself. */
function sources(): string {
  const folder = path.join(root, 'core/work');
  return readdirSync(folder)
    .filter((name) => name.endsWith('.ts') && name !== 'crash-points.ts')
    .map((name) => readFileSync(path.join(folder, name), 'utf8'))
    .join('\n');
}
