/** The reader of runbook pages leaves nothing out unseen: what it does not know it refuses. */
import { readRunbook } from '../harness/runbook.ts';

const page = (...lines: string[]) =>
  readRunbook(['# Title', '<!-- begins with: db1 primary, db2 standby -->', ...lines].join('\n'), 'page.md');

test('blocks, happenings and conditions come in their order', () => {
  const { title, begins, steps } = page(
    '<!-- happens: writes on db1 -->',
    'Text.',
    '<!-- runs on: db1; exits: 2; prints: one; prints: two words -->',
    '```sh',
    'walvault a',
    'walvault b',
    '```',
    '<!-- not run: it is an example -->',
    '',
    '```sh',
    'never',
    '```',
    '```toml',
    'shown = "only"',
    '```',
    '<!-- happens: crash db1 -->',
    '<!-- until: db2 primary -->',
  );
  expect(title).toBe('Title');
  expect(begins).toEqual([
    { node: 'db1', role: 'primary', vault: 'A' },
    { node: 'db2', role: 'standby', vault: 'A' },
  ]);
  expect(steps).toEqual([
    { kind: 'happens', what: 'writes', node: 'db1', line: 3 },
    ...[{ kind: 'run', on: 'db1', exits: 2, prints: ['one', 'two words'], line: 7 }].map((step) => ({
      ...step,
      script: 'walvault a\nwalvault b',
    })),
    { kind: 'happens', what: 'crash', node: 'db1', line: 18 },
    { kind: 'until', node: 'db2', is: 'primary', line: 19 },
  ]);
});

test('a page may have a second vault: nodes that follow it, a relay, and each vault away and back', () => {
  const text = [
    '# Title',
    '<!-- begins with: db1 primary, dr1 standby in B -->',
    ...['relay stops', 'away A', 'back B'].map((what) => `<!-- happens: ${what} -->`),
    ...['A replica', 'B level'].map((what) => `<!-- until: ${what} -->`),
  ];
  const { begins, steps } = readRunbook(text.join('\n'), 'page.md');
  expect(begins[1]).toEqual({ node: 'dr1', role: 'standby', vault: 'B' });
  expect(steps.map((step) => ({ ...step, line: 0 }))).toEqual([
    { kind: 'relay', runs: false, line: 0 },
    { kind: 'vault', what: 'away', vault: 'A', line: 0 },
    { kind: 'vault', what: 'back', vault: 'B', line: 0 },
    { kind: 'until vault', vault: 'A', is: 'replica', line: 0 },
    { kind: 'until vault', vault: 'B', is: 'level', line: 0 },
  ]);
});

test.each([
  ['a block that nothing is said of', ['```sh', 'ls', '```'], /page.md:3: a block of sh wants/],
  ['a block without an end', ['<!-- runs on: db1 -->', '```sh', 'ls'], /page.md:4: this block has no end/],
  ['a comment above no block', ['<!-- runs on: db1 -->', 'text'], /line 3 stands above no block/],
  ['a comment of another kind', ['<!-- hapens: crash db1 -->'], /no comment that a runbook knows/],
  ['an unknown happening', ['<!-- happens: explode db1 -->'], /no comment that a runbook knows/],
  ['an unknown state', ['<!-- until: db1 happy -->'], /no comment that a runbook knows/],
  ['an unknown state of a vault', ['<!-- until: A happy -->'], /no comment that a runbook knows/],
  ['an unknown vault', ['<!-- happens: away C -->'], /no comment that a runbook knows/],
  ['an unknown attribute', ['<!-- runs on: db1; exit: 2 -->', '```sh', '```'], /'exit: 2' is none of/],
])('%s is refused', (_, lines, message) => {
  expect(() => page(...lines)).toThrow(message);
});

test('a page that does not say what it begins with is refused', () => {
  expect(() => readRunbook('# Title\n', 'page.md')).toThrow(/begins with/);
});
