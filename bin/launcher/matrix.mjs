/**
 * `npm run test:matrix`: which suites meet which pairs of a PostgreSQL and a kind of vault, and what a run of it says at its end.
 *
 *   npm run test:matrix                                    each pair; then whether somebody died at each crash point
 *   npm run test:matrix -- 16:file 17:s3                   these pairs
 *   npm run test:matrix -- 16:file test/system/main-job    these suites
 *
 * A suite takes the pairs it is given, or one of them; so each pair is a run of its own, with no other.
 */

export const PAIRS = ['file', 's3'].flatMap((vault) => [15, 16, 17, 18].map((major) => `${major}:${vault}`));

/** What a vault promises to one primary and its standbys, and the facts of PostgreSQL that it rests on: on each pair. */
export const ON_EACH_PAIR = [
  ...['main-job', 'facts-archive-recovery', 'facts-archiving', 'facts-promotion', 'facts-standby'],
  ...['facts-waiting', 'agent', 'archive-wait', 'push-ahead', 'one-content', 'stored-bytes', 'copy', 'fence'],
  ...['third-node', 'vault-away', 'streaming', 'stop-start', 'standby', 'promotion-kill', 'promotion-away'],
  ...['paths', 'on-fenced', 'archiving', 'wait-mode', 'wait-trigger', 'wait-kill', 'warm-mode'],
];

/** The others that kill at crash points: once on each kind of vault, on the first pair of it. */
export const ON_EACH_KIND = [
  'archiving-kill',
  'flush',
  'switchover',
  'nodes',
  'switchover-vault',
  'dr-relay',
  'spill',
];

/** These need no server. `-t`: only the tests that kill. */
const WITHOUT_SERVER = [
  ...['retention', 'relay', 'spill'].map((name) => `test/contract/${name}.test.ts`),
  ...['-t', 'killed at'],
];

const isPair = (word) => PAIRS.includes(word);
const kindOf = (pair) => pair.split(':')[1];

/**
 * The runs of jest, in order.
 *
 * @param words  arguments of the command: pairs, suites, options of jest
 * @returns {{ title: string, args: string[], env: Record<string, string> }[]}
 * @throws Error  for a pair that there is not
 */
export function matrixRuns(words) {
  const wrong = words.find((word) => /^\d+:/.test(word) && !isPair(word));
  if (wrong !== undefined) throw new Error(`${wrong} is none of the pairs ${PAIRS.join(', ')}`);
  const given = words.filter(isPair);
  const pairs = given.length > 0 ? [...new Set(given)] : PAIRS;
  const rest = words.filter((word) => !isPair(word));
  const onPair = (pair, args) => ({ title: pair, args, env: { WALVAULT_TEST_PAIRS: pair } });
  if (rest.some((word) => word.includes('test/'))) return pairs.map((pair) => onPair(pair, rest));

  const kinds = [...new Set(pairs.map(kindOf))];
  const isFirst = (pair) => pair === pairs.find((other) => kindOf(other) === kindOf(pair));
  const suites = (pair) => [...ON_EACH_PAIR, ...(isFirst(pair) ? ON_EACH_KIND : [])];
  const files = (pair) => suites(pair).map((name) => `test/system/${name}.test.ts`);
  return [
    {
      title: 'no server',
      args: [...WITHOUT_SERVER, ...rest],
      env: { WALVAULT_TEST_AWS: { file: '', s3: 'only', both: '1' }[kinds[1] ? 'both' : kinds[0]] },
    },
    ...pairs.map((pair) => onPair(pair, [...files(pair), ...rest])),
    {
      title: 'crash points',
      args: ['test/crashes'],
      env: { WALVAULT_TEST_CRASH_KINDS: kinds.join() },
    },
  ];
}

/**
 * @param runs  of each its title, its report as jest writes it (undefined: it ended without one), how it ended, and how long it took
 * @returns {{ text: string, failed: number }}
 */
export function matrixSummary(runs) {
  const rows = runs.map(({ title, report, end, seconds }) => {
    const failed = (report?.numFailedTests ?? 0) + (report?.numRuntimeErrorTestSuites ?? 0);
    // a run that ended badly and names nothing has failed, too
    return {
      title,
      passed: report?.numPassedTests ?? 0,
      failed: failed === 0 && end !== 0 ? 1 : failed,
      minutes: (seconds / 60).toFixed(1),
    };
  });
  const line = (cells) =>
    cells.map((cell, at) => (at === 0 ? `${cell}`.padEnd(14) : `${cell}`.padStart(8))).join('');
  const total = (key) => rows.reduce((sum, row) => sum + Number(row[key]), 0);
  const sums = ['all', total('passed'), total('failed'), total('minutes').toFixed(1)];
  return {
    failed: total('failed'),
    text: [
      line(['', 'passed', 'failed', 'minutes']),
      ...rows.map(({ title, passed, failed, minutes }) => line([title, passed, failed, minutes])),
      line(sums),
      ...runs.flatMap(({ title, report }) => failuresOf(report).map((name) => `failed: ${title}: ${name}`)),
    ].join('\n'),
  };
}

function failuresOf(report) {
  return (report?.testResults ?? [])
    .filter(({ status }) => status === 'failed')
    .flatMap(({ name, assertionResults }) => {
      const names = assertionResults.filter(({ status }) => status === 'failed');
      return names.length > 0 ? names.map(({ fullName }) => fullName) : [name];
    });
}

/** One report of all runs, for whoever asked for one. */
export function mergedReport(runs) {
  const reports = runs.map(({ report }) => report).filter((report) => report !== undefined);
  const sum = (key) => reports.reduce((total, report) => total + report[key], 0);
  return {
    numPassedTests: sum('numPassedTests'),
    numFailedTests: sum('numFailedTests'),
    numRuntimeErrorTestSuites: sum('numRuntimeErrorTestSuites'),
    testResults: reports.flatMap(({ testResults }) => testResults),
  };
}
