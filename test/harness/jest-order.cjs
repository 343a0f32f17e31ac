/**
 * The long suites first: begun last, one of them would run alone for minutes while the other worker has nothing to do. (Jest goes by the
 * times of earlier runs, which a fresh clone has not, and then by the size of the files, which says little here.)
 */
const Sequencer = require('@jest/test-sequencer').default;

/** By their time on a slow machine, over a minute. */
const LONG = [
  'promotion-away',
  'switchover',
  'promotion-kill',
  'runbooks',
  'main-job',
  'vault-away',
  'flush',
  'demo',
  'rejoin',
  'nodes',
];

module.exports = class extends Sequencer {
  sort(tests) {
    const place = ({ path }) => {
      const found = LONG.findIndex((name) => path.endsWith(`/test/system/${name}.test.ts`));
      return found < 0 ? LONG.length : found;
    };
    return super.sort(tests).sort((left, right) => place(left) - place(right));
  }
};
