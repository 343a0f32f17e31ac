/**
 * The command line, made from the rows of bin/command-list.ts and the table of settings, and one run of it from words to exit code.
 *
 * Every setting of a command is a flag here, a WALVAULT_* variable and a line of settings.toml; core/settings decides which wins.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { Command, CommanderError, Option } from 'commander';
import { describeFailure, FAILURES, VaultError } from '../core/errors.ts';
import { loadSettings, type Settings, type Sources } from '../core/settings/read.ts';
import { envOf, flagOf, keyOf, rowOf, type SettingName } from '../core/settings/settings.ts';
import type { Asked } from '../core/vault/asked.ts';
import { Context, type CommandRow } from './command.ts';
import { COMMANDS } from './command-list.ts';
import { programVersion } from './program-root.ts';
import { table } from './ui/table.ts';
import type { Io } from './ui/io.ts';

/** Options that every command takes besides its settings. `env`: a variable that says the same. */
export const EVERYWHERE = [
  {
    flags: '--config <file>',
    env: undefined,
    summary: 'another settings.toml than that of the state directory',
  },
  { flags: '--json', env: 'WALVAULT_JSON', summary: 'answer as JSON with stable names; failures too' },
  {
    flags: '--debug',
    env: 'WALVAULT_DEBUG',
    summary: 'print what is asked of vault and server, with times, and the stack and causes of a failure',
  },
  {
    flags: '--show-settings',
    env: undefined,
    summary: 'print each setting, its value and its origin, and do nothing',
  },
] as const;

const BEFORE_COMMAND = ['vault', 'cluster', 'node'] as const satisfies readonly SettingName[];

const ROOT_TEXT = `
The way from nothing to a standby that can take over:

  $ export WALVAULT_VAULT=file:///srv/vault WALVAULT_CLUSTER=main
  $ walvault init --pgdata $P --node db1                 # the vault now knows the cluster
  $ walvault configure primary --pgdata $P --node db1    # the server archives into it
  $ walvault backup --pgdata $P --node db1
  $ walvault standby create --pgdata $S --node db2       # another folder or machine; then start it
  $ walvault status
  $ walvault trigger smart --to db2                      # db2 takes over, db1 is fenced

See it happen first:  $ walvault demo
Help on one command:  $ walvault help standby create`;

type Chosen = { row: CommandRow; argument: string | undefined; options: Record<string, unknown> };

/** The parser; `choose` is told which command was typed, and with what. */
export function buildProgram(io: Pick<Io, 'out' | 'columns'>, choose: (chosen: Chosen) => void): Command {
  const root = new Command('walvault')
    .description(
      'PostgreSQL WAL into a vault; standbys that follow it; a trigger that makes one of them the primary.',
    )
    .version(programVersion(), '--version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .usage('<command> [options]')
    .addHelpText('after', ROOT_TEXT);
  prepare(root, io);
  // also in front of the command, as `walvault --vault URL status`: commander finds an option of the root anywhere
  for (const name of BEFORE_COMMAND) root.addOption(settingOption(name));
  for (const shared of EVERYWHERE) root.addOption(new Option(shared.flags, shared.summary).hideHelp());

  for (const row of COMMANDS) {
    const words = row.path.split(' ');
    const parent = words.slice(0, -1).reduce((above, word) => groupOf(above, word, io), root);
    const command = parent.command(words[words.length - 1] ?? row.path).summary(row.summary);
    prepare(command, io);
    command.description(
      `${row.summary[0]?.toUpperCase()}${row.summary.slice(1)}.\n\n${paragraphs(row.text)}`,
    );
    if (row.argument !== undefined) {
      const argument = command.createArgument(`<${row.argument.name}>`, row.argument.summary);
      if (row.argument.choices !== undefined) argument.choices([...row.argument.choices]);
      command.addArgument(argument);
    }
    for (const own of row.options) {
      const option = new Option(own.flags, own.summary);
      if (own.choices !== undefined) option.choices([...own.choices]);
      if (own.many === true) option.argParser((value: string, before: string[] = []) => [...before, value]);
      command.addOption(option);
    }
    command.optionsGroup('Settings (flag, or variable, or settings.toml of the node):');
    for (const name of row.settings) {
      command.addOption(settingOption(name));
    }
    command.optionsGroup('Options of every command:');
    for (const shared of EVERYWHERE)
      command.addOption(
        new Option(shared.flags, shared.summary + (shared.env === undefined ? '' : ` (${shared.env}=1)`)),
      );
    if (row.examples.length > 0)
      command.addHelpText(
        'after',
        `\nExamples:\n${row.examples.map((example) => `  # ${example.says}\n  $ ${example.line}`).join('\n')}`,
      );
    command.action(() => choose({ row, argument: command.args[0], options: command.optsWithGlobals() }));
  }
  return root;
}

/** One run: what was typed, to an exit code. Nothing is thrown, everything is said on `io`. */
export async function runProgram(words: readonly string[], io: Io): Promise<number> {
  const json = words.includes('--json') || isOn(io.env['WALVAULT_JSON']);
  const debug = words.includes('--debug') || isOn(io.env['WALVAULT_DEBUG']);
  const silence = debug ? tellAsked(io) : () => {};
  try {
    const chosen = parse(words, io);
    if (chosen === undefined) return 0;
    return await run(chosen, io, json, debug);
  } catch (error) {
    return report(error, io, { json, debug });
  } finally {
    silence();
  }
}

/** Each question to vault and server, when it was answered, on standard error. @returns ends it */
function tellAsked(io: Io): () => void {
  const sinceMs = performance.now();
  const tell = (message: unknown) => {
    const { what, tookMs, end } = message as Asked;
    const atMs = Math.round(performance.now() - sinceMs);
    io.err(`DEBUG: +${atMs} ms ${what}: ${end.replace(/\s+/g, ' ')} (${tookMs.toFixed(1)} ms)\n`);
  };
  subscribe('walvault:asked', tell);
  return () => void unsubscribe('walvault:asked', tell);
}

/** A command line or an address may carry a token. */
const MAY_HOLD_SECRETS: ReadonlySet<SettingName> = new Set(['onRoleChange', 'webhook']);

function tellSettings(row: CommandRow, settings: Settings, io: Io): void {
  io.err(`DEBUG: settings.toml: ${settings.file ?? 'none, no server is named'}\n`);
  for (const name of row.settings) {
    const value = settings[name];
    if (value === undefined || value === null || settings.origin(name) === 'default') continue;
    const text = MAY_HOLD_SECRETS.has(name) ? '(given)' : rowOf(name).kind.format(value);
    io.err(`DEBUG: ${keyOf(name)} = ${text} (${settings.origin(name)})\n`);
  }
}

function parse(words: readonly string[], io: Io): Chosen | undefined {
  let chosen: Chosen | undefined;
  const program = buildProgram(io, (found) => (chosen = found));
  try {
    // commander's own help command knows one word only, not `help standby create`
    const typed = words[0] === 'help' ? [...words.slice(1), '--help'] : [...words];
    program.parse(typed, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    if (error.code === 'commander.help')
      throw new VaultError('usage', 'a command is wanted', {
        hint: `run 'walvault ${pathOf(words)}--help' for the list`,
      });
    throw new VaultError('usage', error.message.replace(/^error: /, '').replaceAll('\n', ' '), {
      hint: `run 'walvault ${pathOf(words)}--help'`,
    });
  }
  return chosen;
}

async function run(
  { row, argument, options }: Chosen,
  io: Io,
  json: boolean,
  debug: boolean,
): Promise<number> {
  const flags: Partial<Record<SettingName, string>> = {};
  for (const name of row.settings) {
    const given = options[name];
    if (typeof given === 'string') flags[name] = given;
  }
  const config = options['config'];
  const sources = { flags, env: io.env, config: typeof config === 'string' ? config : undefined };
  const { settings, unread } = settingsFor(row, sources);
  if (debug) tellSettings(row, settings, io);
  if (options['showSettings'] === true) {
    const rows = row.settings.map((name) => {
      const value = settings[name];
      const text = value === undefined || value === null ? null : rowOf(name).kind.format(value);
      return { name: keyOf(name), value: text, origin: text === null ? 'not given' : settings.origin(name) };
    });
    io.out(
      json
        ? `${JSON.stringify(rows, null, 2)}\n`
        : `${table(
            ['setting', 'value', 'origin'],
            rows.map((each) => [each.name, each.value, each.origin]),
          )}\n`,
    );
    return 0;
  }
  const context = new Context({ io, row, settings, unread, json, argument, options, perform: runProgram });
  try {
    await row.run(context);
    return context.exit;
  } finally {
    await context.close();
  }
}

/** Which of the two is wrong, the file or what was typed, shows where it is left out: the latter fails again. */
function settingsFor(
  row: CommandRow,
  sources: Sources,
): { settings: Settings; unread: VaultError | undefined } {
  try {
    return { settings: loadSettings(sources), unread: undefined };
  } catch (error) {
    if (row.takesBrokenSettings !== true || !(error instanceof VaultError)) throw error;
    return { settings: loadSettings({ ...sources, withoutFile: true }), unread: error };
  }
}

/** Says the failure and gives its exit code. */
export function report(error: unknown, io: Io, how: { json: boolean; debug: boolean }): number {
  const { text, exit } = describeFailure(error);
  if (how.json) {
    const known = error instanceof VaultError;
    const failure = {
      code: known ? error.code : 'bug',
      exit,
      retry: known ? FAILURES[error.code].retry : false,
      message: error instanceof Error ? error.message : String(error),
      hint: known ? (error.hint ?? null) : null,
    };
    io.err(`${JSON.stringify({ error: failure })}\n`);
  } else io.err(`${text}\n`);
  if (how.debug) for (const line of causes(error)) io.err(`DEBUG: ${line}\n`);
  return exit;
}

function causes(error: unknown): string[] {
  const lines: string[] = [];
  for (let at: unknown = error; at instanceof Error; at = at.cause)
    lines.push(...(at.stack ?? at.message).split('\n'));
  return lines;
}

function settingOption(name: SettingName): Option {
  return new Option(`${flagOf(name)} <${placeholderOf(name)}>`, settingHelp(name));
}

/** What stands for the value in help: the first word of its kind, or its choices. */
export function placeholderOf(name: SettingName): string {
  const { kind } = rowOf(name);
  if (kind.choices !== undefined) return kind.choices.join('|');
  if (kind.describe.startsWith('whole number')) return 'number';
  if (/^(file|http):/.test(kind.describe)) return 'url';
  return /^[a-z]+/.exec(kind.describe)?.[0] ?? 'value';
}

function settingHelp(name: SettingName): string {
  const { summary, default: fallback, also } = rowOf(name);
  const variables = [envOf(name), ...(also ?? [])].join(', ');
  return `${summary.replace(/\.$/, '')} (${variables}${fallback === undefined ? '' : `; default ${fallback}`})`;
}

function prepare(command: Command, io: Pick<Io, 'out' | 'columns'>): void {
  if (command.parent === null) command.helpCommand('help [command...]', 'print help on a command');
  else command.helpCommand(false);
  command
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.out(text),
      // failures are printed by report() in the one form of all failures
      writeErr: () => {},
      getOutHelpWidth: () => Math.min(110, io.columns),
      getErrHelpWidth: () => Math.min(110, io.columns),
    })
    .configureHelp({ showGlobalOptions: false });
}

function groupOf(above: Command, word: string, io: Pick<Io, 'out' | 'columns'>): Command {
  const there = above.commands.find((command) => command.name() === word);
  if (there !== undefined) return there;
  const group = above
    .command(word)
    .summary(GROUPS[word] ?? '')
    .description(GROUPS[word] ?? '');
  prepare(group, io);
  return group;
}

const GROUPS: Readonly<Record<string, string>> = {
  configure: 'write the settings of PostgreSQL that join a server to the vault',
  standby: 'make a standby that follows the vault',
  logs: 'keep the log files of servers in the vault',
};

/** The known command among the words, with a blank behind it, for "run walvault … --help". */
function pathOf(words: readonly string[]): string {
  const typed = words.filter((word) => !word.startsWith('-')).join(' ');
  const row = COMMANDS.find(({ path }) => typed === path || typed.startsWith(`${path} `));
  if (row !== undefined) return `${row.path} `;
  const group = Object.keys(GROUPS).find((name) => typed === name || typed.startsWith(`${name} `));
  return group === undefined ? '' : `${group} `;
}

/** Lines of a row's text are joined: help breaks them where the terminal ends. */
function paragraphs(text: string): string {
  return text
    .split(/\n{2,}/)
    .map((part) => part.replaceAll('\n', ' '))
    .join('\n\n');
}

function isOn(value: string | undefined): boolean {
  return value !== undefined && value !== '' && value !== '0' && value !== 'off';
}
