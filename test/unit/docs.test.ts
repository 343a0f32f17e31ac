/** The pages agree with the program: what is generated is current, what they name exists. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { COMMANDS } from '../../bin/command-list.ts';
import { buildProgram } from '../../bin/program.ts';
import { DOCTOR_FILE, doctorPage } from '../../bin/doctor-page.ts';
import { programRoot } from '../../bin/program-root.ts';
import { COST_FILE, costPage } from '../../bin/cost-page.ts';
import { REFERENCE_FILE, referencePage } from '../../bin/reference.ts';
import { envOf, flagOf, SETTING_NAMES } from '../../core/settings/settings.ts';

const root = programRoot(import.meta.dirname);
const pages = [
  'README.md',
  ...['docs', 'docs/runbook'].flatMap((folder) =>
    readdirSync(path.join(root, folder)).map((name) => `${folder}/${name}`),
  ),
].filter((name) => name.endsWith('.md'));
const read = (page: string) => readFileSync(path.join(root, page), 'utf8');

test('docs/reference.md is what the tables say: run `npm run docs` where this fails', () => {
  expect(readFileSync(REFERENCE_FILE, 'utf8')).toBe(referencePage());
});

test('the tables of docs/cost.md are what is reckoned: run `npm run docs` where this fails', () => {
  const page = readFileSync(COST_FILE, 'utf8');
  expect(page).toBe(costPage(page));
});

test('a setting that only a function takes does not pretend to a flag or a line of settings.toml', () => {
  const part = (key: string) => referencePage().split(`### ${key}\n`)[1]!.split('\n### ')[0]!;
  expect(part('notice_topics')).toContain('WALVAULT_NOTICE_TOPICS');
  expect(part('notice_topics')).not.toMatch(/--notice-topics|settings\.toml/);
  expect(part('keep_backups')).toContain('--keep-backups');
});

test('docs/doctor.md is what the table of checks says: run `npm run docs` where this fails', () => {
  expect(readFileSync(DOCTOR_FILE, 'utf8')).toBe(doctorPage());
});

test.each(pages)('%s links only to files that exist', (page) => {
  const links = [...read(page).matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map((match) => match[1] ?? '');
  for (const link of links)
    expect([link, existsSync(path.join(root, path.dirname(page), link))]).toEqual([link, true]);
});

test.each(pages)('%s names only commands, flags and variables that exist', (page) => {
  const text = read(page);
  const known = new Set(COMMANDS.flatMap(({ path: words }) => [words, words.split(' ')[0] ?? '']));
  for (const name of ['help', 'COMMAND', '<command>']) known.add(name);
  for (const [, words = ''] of text.matchAll(/(?:^|[`$ ])walvault ([a-z]+(?: [a-z]+)?)(?= --| <|`)/gm))
    expect([words, known.has(words) || known.has(words.split(' ')[0] ?? '')]).toEqual([words, true]);
  const variables = new Set([
    ...['WALVAULT_JSON', 'WALVAULT_DEBUG'],
    ...['WALVAULT_ROLE', 'WALVAULT_NODE', 'WALVAULT_EPOCH', 'WALVAULT_CLUSTER'], // what on_role_change is told
    ...SETTING_NAMES.map(envOf),
  ]);
  for (const [variable] of text.matchAll(/WALVAULT_[A-Z_]+/g)) expect(variables).toContain(variable);
  const flags = new Set<string>(SETTING_NAMES.map(flagOf));
  for (const { options } of COMMANDS)
    for (const option of options) for (const [flag] of option.flags.matchAll(/--[a-z-]+/g)) flags.add(flag);
  for (const line of text.split('\n').filter((each) => /walvault [a-z]/.test(each)))
    for (const [, flag = ''] of line.replace(/.*?walvault /, '').matchAll(/ (--[a-z][a-z-]+)/g))
      expect([
        flag,
        flags.has(flag) ||
          ['--json', '--debug', '--config', '--show-settings', '--help', '--version'].includes(flag),
      ]).toEqual([flag, true]);
});

test('a page of the runbook that another test runs is run by it', () => {
  for (const page of pages) {
    const [, file] = /<!-- run by: (\S+) -->/.exec(read(page)) ?? [];
    if (file !== undefined)
      expect([page, readFileSync(path.join(root, file), 'utf8').includes(page)]).toEqual([page, true]);
  }
});
/** Commands of the blocks of sh, each as the words that a shell would make of it; a variable stands for a word. */
function commandsOf(text: string): string[][] {
  const blocks = [...text.matchAll(/^ *```sh\n([\s\S]*?)^ *```$/gm)].map(([, block]) => block ?? '');
  const lines = blocks.flatMap((block) => block.replaceAll(/\\\n */g, '').split('\n'));
  return lines.flatMap((line) => {
    const [, typed] = /^\s*walvault (.+?)(?: #.*)?$/.exec(line) ?? [];
    if (typed === undefined) return [];
    const words = [...typed.matchAll(/(?:"[^"]*"|'[^']*'|[^\s"'])+/g)].map(([word]) => word);
    const end = words.findIndex((word) => /^([|;<&]|\d?>)/.test(word)); // what follows is the shell's
    return [words.slice(0, end < 0 ? undefined : end).map((word) => word.replaceAll(/["']/g, ''))];
  });
}

test.each(pages.filter((page) => commandsOf(read(page)).length > 0))(
  '%s types only commands that the command line takes',
  (page) => {
    for (const words of commandsOf(read(page))) {
      let isChosen = false;
      const program = buildProgram({ out: () => {}, columns: 100 }, () => (isChosen = true));
      try {
        program.parse(words[0] === 'help' ? [...words.slice(1), '--help'] : words, { from: 'user' });
      } catch (error) {
        // help and version end this way, too
        if ((error as { exitCode?: number }).exitCode === 0) isChosen = true;
        else throw new Error(`walvault ${words.join(' ')}: ${(error as Error).message}`, { cause: error });
      }
      expect([words, isChosen]).toEqual([words, true]);
    }
  },
);
