/**
 * docs/reference.md, made from the tables of commands, settings and failures: `npm run docs` writes it (and the tables of docs/cost.md,
 * bin/cost-page.ts), and test/unit/docs.test.ts fails where a committed page differs.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { FAILURES, type FailureCode } from '../core/errors.ts';
import { envOf, flagOf, keyOf, rowOf, SETTING_NAMES, type SettingName } from '../core/settings/settings.ts';
import { COMMANDS } from './command-list.ts';
import type { CommandRow } from './command.ts';
import { COST_FILE, costPage } from './cost-page.ts';
import { DOCTOR_FILE, doctorPage } from './doctor-page.ts';
import { EVERYWHERE } from './program.ts';
import { programRoot } from './program-root.ts';

/** Where the page lies. */
export const REFERENCE_FILE = path.join(programRoot(), 'docs/reference.md');

/** The whole page. */
export function referencePage(): string {
  return (
    [
      '<!-- Made by `npm run docs` from the tables in bin/commands, core/settings and core/errors.ts. Edit those. -->',
      '# Reference',
      'Contents: [commands](#commands) · [settings](#settings) · [failures and exit codes](#failures-and-exit-codes)',
      '## Commands',
      'Answers go to standard output, messages to standard error. Every command also takes:',
      grid(
        ['option', 'variable', 'meaning'],
        EVERYWHERE.map(({ flags, env, summary }) => [
          code(flags),
          env === undefined ? '' : code(`${env}=1`),
          summary,
        ]),
      ),
      ...COMMANDS.map(commandPart),
      '## Settings',
      'A setting is given as a flag, as a variable, or as a line of `settings.toml` in the state directory, and taken in this ' +
        'order: flag, variable, the variables of others named below, file, default. ' +
        '`walvault COMMAND --show-settings` prints each value and where it came from. Hooks and agent read the file only. ' +
        'A setting that only functions of AWS take has a variable and nothing else: the stack sets it.',
      ...SETTING_NAMES.map(settingPart),
      '## Failures and exit codes',
      'A failure is printed as `walvault: [code] what is wrong`, then `HINT: what to do`; with `--json` as one JSON object ' +
        'on standard error. Exit 0 is success; 70 is an error of walvault itself, printed with its stack. The hooks that PostgreSQL runs do ' +
        'not return these codes (docs/design.md says what they return).',
      grid(
        ['code', 'exit', 'can trying again help', 'meaning'],
        (Object.keys(FAILURES) as FailureCode[]).map((name) => [
          code(name),
          String(FAILURES[name].exit),
          FAILURES[name].retry ? 'yes' : 'no',
          FAILURES[name].means,
        ]),
      ),
      '',
    ]
      .join('\n\n')
      .trimEnd() + '\n'
  );
}

function settingPart(name: SettingName): string {
  const row = rowOf(name);
  const fallback = row.default === undefined ? (row.otherwise ?? 'none') : code(row.default);
  const also = (row.also ?? []).map((variable) => `, then ${code(variable)}`).join('');
  const isOfStack = row.usedBy.every((user) => user.endsWith(' function'));
  const table = isOfStack
    ? grid(
        ['variable', 'set by the stack for', 'takes', 'for example', 'default'],
        [
          [
            code(envOf(name)),
            `the ${row.usedBy.join(', the ')}`,
            row.kind.describe,
            code(row.example),
            fallback,
          ],
        ],
      )
    : grid(
        ['flag', 'variable', 'in settings.toml', 'takes', 'default'],
        [
          [
            ...[code(flagOf(name)), code(envOf(name)) + also, code(`${keyOf(name)} = "${row.example}"`)],
            ...[row.kind.describe, fallback],
          ],
        ],
      );
  return [`### ${keyOf(name)}`, `${row.summary} ${row.text}`, table].join('\n\n');
}

function commandPart(row: CommandRow): string {
  const argument = row.argument === undefined ? '' : ` <${row.argument.name}>`;
  const parts = [
    `### walvault ${row.path}${argument}`,
    `${row.summary[0]?.toUpperCase()}${row.summary.slice(1)}.`,
    row.text.replace(/([^\n])\n(?!\n)/g, '$1 '),
  ];
  if (row.argument !== undefined) parts.push(`\`<${row.argument.name}>\`: ${row.argument.summary}.`);
  if (row.options.length > 0)
    parts.push(
      grid(
        ['option', 'meaning'],
        row.options.map(({ flags, summary }) => [code(flags), summary]),
      ),
    );
  parts.push(`Settings: ${row.settings.map((name) => `[${keyOf(name)}](#${keyOf(name)})`).join(', ')}.`);
  if (row.examples.length > 0)
    parts.push(['```sh', ...row.examples.flatMap(({ says, line }) => [`# ${says}`, line]), '```'].join('\n'));
  return parts.join('\n\n');
}

function grid(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), `|${head.map(() => ' --- |').join('')}`, ...rows.map(line)].join('\n');
}

function code(text: string): string {
  return `\`${text}\``;
}

if (import.meta.main) {
  writeFileSync(REFERENCE_FILE, referencePage());
  writeFileSync(COST_FILE, costPage(readFileSync(COST_FILE, 'utf8')));
  writeFileSync(DOCTOR_FILE, doctorPage());
  process.stderr.write(`wrote ${REFERENCE_FILE}, ${COST_FILE} and ${DOCTOR_FILE}\n`);
}
