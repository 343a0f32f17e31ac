/**
 * The reference of settings and failures, as Markdown, made from their tables. bin/reference.ts puts it into docs/reference.md together
 * with the commands; a test fails when the committed page differs.
 *
 * Pure.
 */
import { FAILURES } from '../errors.ts';
import { envOf, flagOf, keyOf, rowOf, SETTING_NAMES, type SettingName } from './settings.ts';

/** Section "Settings": how they are read, a table to look up, then one entry each. */
export function settingsReference(): string {
  return [
    '## Settings',
    'Each is a flag, an environment variable and a line in `settings.toml` of the state directory; the first that is given wins, in this order, then the default. ' +
      '`--show-settings` prints each value and where it came from. Hooks and agent read `settings.toml` only.',
    table(
      ['Setting', 'Default', 'In short'],
      SETTING_NAMES.map((setting) => [
        `[\`${keyOf(setting)}\`](#${keyOf(setting)})`,
        defaultOf(setting),
        rowOf(setting).summary,
      ]),
    ),
    ...SETTING_NAMES.map(entry),
  ].join('\n\n');
}

/** Section "Failures": what stands in the brackets of a message, the exit code, whether to try again. */
export function failuresReference(): string {
  return [
    '## Failures',
    'A failure is printed as `walvault: [name] message`, then `HINT: what to do`. These are the exit codes of the command; hooks answer PostgreSQL in its own way. ' +
      'Any other exit: 70 is a bug of ours, printed with its stack.',
    table(
      ['Failure', 'Exit', 'Try again?', 'Means'],
      Object.entries(FAILURES).map(([name, { exit, retry, means }]) => [
        `\`${name}\``,
        String(exit),
        retry ? 'can help' : 'no',
        means,
      ]),
    ),
  ].join('\n\n');
}

function entry(setting: SettingName): string {
  const row = rowOf(setting);
  const others = (row.also ?? []).map((variable) => `, or \`${variable}\``).join('');
  return [
    `### ${keyOf(setting)}`,
    `${row.summary} ${row.text}`,
    [
      `- \`${flagOf(setting)} ${row.example}\`; variable \`${envOf(setting)}\`${others}`,
      `- \`${keyOf(setting)} = "${row.example}"\``,
      `- ${row.kind.describe}; default: ${defaultOf(setting)}`,
      `- used by: ${row.usedBy.map((user) => (user === 'operator' ? 'every command' : user)).join(', ')}`,
    ].join('\n'),
  ].join('\n\n');
}

function defaultOf(setting: SettingName): string {
  const row = rowOf(setting);
  return row.default === undefined ? (row.otherwise ?? 'none') : `\`${row.default}\``;
}

/** Columns as wide as their widest cell, as the formatter leaves them. */
function table(heads: string[], rows: string[][]): string {
  const cells = rows.map((row) => row.map((cell) => cell.replaceAll('|', '\\|')));
  const widths = heads.map((head, column) =>
    Math.max(3, ...[head, ...cells.map((row) => row[column] ?? '')].map((cell) => [...cell].length)),
  );
  const line = (row: string[]) =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column]!)).join(' | ')} |`;
  return [line(heads), line(widths.map((width) => '-'.repeat(width))), ...cells.map(line)].join('\n');
}
