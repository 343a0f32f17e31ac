/** What both `standby` commands take for the new standby's PostgreSQL, and what they say at the end. */
import { controlWords } from '../core/postgres/control-words.ts';
import { VaultError } from '../core/errors.ts';
import type { Standby } from '../core/work/standby.ts';
import type { StandbyParameters } from '../core/work/standby-files.ts';
import type { Context, OptionRow } from './command.ts';

const MODES = ['hot', 'warm', 'wait'] as const;

/** @param byDefault  what a node is without it */
export const modeOption = (byDefault: string): OptionRow => ({
  flags: '--mode <mode>',
  summary: `hot: answers queries while it follows; warm: does not; wait: recovered by its restore command alone (default: ${byDefault})`,
  choices: MODES,
});

export const PARAMETER_OPTIONS: readonly OptionRow[] = [
  { flags: '--port <number>', summary: 'port of the standby (default: that of the primary)' },
  { flags: '--set <name=value>', summary: 'a parameter of PostgreSQL for this standby', many: true },
];

/**
 * @param byDefault  the mode where none was given; undefined: as the node was
 * @throws VaultError usage
 */
export function parametersOf(context: Context, byDefault?: 'hot'): StandbyParameters {
  const set: Record<string, string> = {};
  for (const text of context.list('set')) {
    const [, name, value] = /^([^=]+)=(.*)$/s.exec(text) ?? [];
    if (name === undefined || value === undefined)
      throw new VaultError('usage', `--set '${text}' is not name=value`, {
        hint: 'For example --set shared_buffers=1GB.',
      });
    set[name.trim()] = value.trim();
  }
  return {
    mode: MODES.find((mode) => mode === context.text('mode')) ?? byDefault,
    port: context.number('port', { from: 1, to: 65535 }),
    set,
    retrieveRetryMs: context.settings.retrieveRetryInterval,
    forceSwitchMs: context.settings.forceSwitch,
  };
}

export function tellStandby(context: Context, made: Standby): void {
  for (const notice of made.notices) context.say(`notice: ${notice}`);
  context.next(
    { says: 'start it', line: controlWords(made.pgdata, 'start', `${made.pgdata}.log`) },
    { says: 'see it follow', line: context.command('status', ['vault', 'cluster']) },
  );
}
