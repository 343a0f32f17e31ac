/** docs/promises.md names tests; each must be there, or the page promises what nothing shows. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '../..');
const page = readFileSync(path.join(root, 'docs/promises.md'), 'utf8');
const named = [...page.matchAll(/`(test\/[^`]+\.test\.ts)` "([^"]+)"/g)].map(
  ([, file, name]) => [file!, name!] as const,
);

test('the page names tests for its promises', () => {
  expect(named.length).toBeGreaterThan(30);
  expect(page).not.toMatch(/\.test\.ts["'] "/); // a row that the line above would overlook
});

test.each(named)('%s has "%s"', (file, name) => {
  expect(existsSync(path.join(root, file))).toBe(true);
  expect(readFileSync(path.join(root, file), 'utf8')).toContain(name);
});
