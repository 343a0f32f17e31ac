/**
 * What a subcommand is: one row that says everything about itself. Parser, help and reference page are made from the rows
 * (bin/program.ts, bin/reference.ts); bin/commands/ holds one file each.
 */
import { VaultError } from '../core/errors.ts';
import type { Kind } from '../core/settings/kinds.ts';
import type { Settings } from '../core/settings/read.ts';
import { flagOf, rowOf, type SettingName } from '../core/settings/settings.ts';
import type { Vault, VaultOptions } from '../core/vault/vault.ts';
import { openVault } from '../core/vault/open-vault.ts';
import { openCluster, type Cluster } from '../core/work/cluster.ts';
import { confirm } from './ui/confirm.ts';
import type { Io } from './ui/io.ts';
import { shellWord } from './ui/format.ts';

export type ArgumentRow = { name: string; summary: string; choices?: readonly string[] };

export type OptionRow = {
  /** As commander writes it: '--yes', '--port <number>', '--set <name=value>'. */
  flags: string;
  summary: string;
  /** May be given several times; all values are kept, in order. */
  many?: boolean;
  choices?: readonly string[];
};

export type Example = { line: string; says: string };

export type CommandRow = {
  /** As typed: 'standby create'. */
  path: string;
  summary: string;
  /** What it does, changes, refuses; a paragraph or two. */
  text: string;
  argument?: ArgumentRow;
  options: readonly OptionRow[];
  /** The settings that this command takes as flags, variables or from settings.toml. */
  settings: readonly SettingName[];
  examples: readonly Example[];
  /** Runs also where settings.toml cannot be taken, and says so itself (`context.unread`). */
  takesBrokenSettings?: true;
  run(context: Context): Promise<void>;
};

export type Answer =
  string | number | boolean | null | undefined | readonly Answer[] | { readonly [name: string]: Answer };

/** One run of one command: what was typed, what is set, where to speak. */
export class Context {
  readonly io: Io;
  readonly row: CommandRow;
  readonly settings: Settings;
  /** Why settings.toml was not taken; undefined: it was, or there is none. */
  readonly unread: VaultError | undefined;
  readonly json: boolean;
  readonly argument: string | undefined;
  /** Runs another command of this program, as typed; its exit code. For the demo. */
  readonly perform: (words: readonly string[], io: Io) => Promise<number>;
  /** What the command ends with where it does not fail: a verdict, for those that give one. */
  exit = 0;
  private readonly options: Readonly<Record<string, unknown>>;
  private opened: Promise<Vault> | undefined;
  private readonly others: Promise<Vault>[] = [];

  constructor(parts: {
    io: Io;
    row: CommandRow;
    settings: Settings;
    unread: VaultError | undefined;
    json: boolean;
    argument: string | undefined;
    options: Readonly<Record<string, unknown>>;
    perform: (words: readonly string[], io: Io) => Promise<number>;
  }) {
    this.io = parts.io;
    this.row = parts.row;
    this.settings = parts.settings;
    this.unread = parts.unread;
    this.json = parts.json;
    this.argument = parts.argument;
    this.options = parts.options;
    this.perform = parts.perform;
  }

  flag(name: string): boolean {
    return this.options[name] === true;
  }

  /** The option was given in its `--no-…` form. */
  declined(name: string): boolean {
    return this.options[name] === false;
  }

  text(name: string): string | undefined {
    const value = this.options[name];
    return typeof value === 'string' ? value : undefined;
  }

  list(name: string): readonly string[] {
    const value = this.options[name];
    return Array.isArray(value) ? value.filter((item) => typeof item === 'string') : [];
  }

  /** A whole number, or undefined where the option was not given. @throws VaultError usage */
  number(name: string, range: { from: number; to: number }): number | undefined {
    const text = this.text(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < range.from || value > range.to)
      throw new VaultError('usage', `--${name} ${text} is not a number from ${range.from} to ${range.to}`);
    return value;
  }

  /** A duration in ms. @throws VaultError usage */
  duration(name: string, fallback: string, kind: Kind<number>): number {
    const text = this.text(name) ?? fallback;
    try {
      return kind.parse(text);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      throw new VaultError('usage', `--${name}: '${text}' ${cause.message}`, {
        hint: `It takes a ${kind.describe}; for example ${fallback}.`,
      });
    }
  }

  /** The answer, on standard output: `value` under --json, else the text for people. */
  answer(value: Answer, text: () => string): void {
    this.io.out(this.json ? `${JSON.stringify(value, null, 2)}\n` : `${text()}\n`);
  }

  /** A message, on standard error; not under --json, where programs read. */
  say(text: string): void {
    if (!this.json) this.io.err(`${text}\n`);
  }

  /**
   * Another command as it must be typed to mean the same vault, cluster and server as this one: what was given as a flag here
   * is given there; what the environment or settings.toml says is not repeated.
   */
  command(command: string, settings: readonly SettingName[], more: readonly string[] = []): string[] {
    const words = ['walvault', ...command.split(' ')];
    for (const name of settings) {
      const value = this.settings[name];
      if (value !== undefined && this.settings.origin(name) === 'flag')
        words.push(flagOf(name), rowOf(name).kind.format(value));
    }
    return [...words, ...more];
  }

  /** Says what will be done and wants --yes, or a yes typed on a terminal; silent under --json, where programs read. */
  confirm(consequences: readonly string[]): Promise<void> {
    const io = this.json ? { ...this.io, err: () => {}, asks: false } : this.io;
    return confirm(io, consequences, this.flag('yes'));
  }

  /** What to do next: a sentence, then a command to paste. */
  next(...steps: readonly { says: string; line: string | readonly string[] }[]): void {
    for (const step of steps) {
      const line = typeof step.line === 'string' ? step.line : step.line.map(shellWord).join(' ');
      this.say(`next: ${step.says}\n      ${line}`);
    }
  }

  /** The vault of the settings, opened once and closed when the command ends. */
  vault(): Promise<Vault> {
    return (this.opened ??= openVault(this.settings.need('vault'), this.vaultOptions()));
  }

  /** As vault(), for the one command that may have to make it first. */
  vaultMadeBy(make: (options: VaultOptions) => Promise<Vault>): Promise<Vault> {
    return (this.opened ??= make(this.vaultOptions()));
  }

  /**
   * A vault beside that of the settings, closed as well when the command ends.
   *
   * @param make.limitMs  of one operation, where the setting allows more @param make.by  for what may have to be made first
   */
  anotherVault(
    url: string,
    make: { limitMs?: number; by?: (url: string, options: VaultOptions) => Promise<Vault> } = {},
  ): Promise<Vault> {
    const opened = (make.by ?? openVault)(url, this.vaultOptions(make.limitMs));
    this.others.push(opened);
    // one that failed has nothing to close, and a view that asks again and again must not keep them all
    opened.catch(() => void this.others.splice(this.others.indexOf(opened), 1));
    return opened;
  }

  private vaultOptions(limitMs = Infinity): VaultOptions {
    const { vaultTimeout, awsRegion, awsEndpoint, awsProfile } = this.settings;
    return {
      timeoutMs: Math.min(vaultTimeout, limitMs),
      aws: { region: awsRegion, endpoint: awsEndpoint, profile: awsProfile },
    };
  }

  /** @throws VaultError unconfigured (no such cluster) */
  async cluster(): Promise<Cluster> {
    return openCluster(await this.vault(), this.settings.need('cluster'));
  }

  async close(): Promise<void> {
    // a vault that could not be opened has already been reported
    const vaults = [this.opened, ...this.others].map((opened) => opened?.catch(() => undefined));
    for (const vault of await Promise.all(vaults)) await vault?.close();
  }
}
