/**
 * The settings of a function, as the environment that its stack gives it: a setting without a default that is missing does not compile,
 * and each value is checked as it would be anywhere else, when the stack is made and not when the function first runs.
 */
import { envOf, type SETTINGS, settingsOf, type FunctionUser, type SettingName } from './settings.ts';
import { parseSetting } from './read.ts';

export const FUNCTION_NAMES = ['retention', 'relay', 'notify', 'witness'] as const;
export type FunctionName = (typeof FUNCTION_NAMES)[number];

type UsedBy<N extends SettingName> = (typeof SETTINGS)[N]['usedBy'][number];
type SettingsOf<F extends FunctionName> = {
  [N in SettingName]: `${F} function` extends UsedBy<N> ? N : never;
}[SettingName];
type NeededOf<F extends FunctionName> = {
  [N in SettingsOf<F>]: (typeof SETTINGS)[N]['default'] extends string ? never : N;
}[SettingsOf<F>];

/** Text, as a person would write it. */
export type FunctionSettings<F extends FunctionName> = Record<NeededOf<F>, string> &
  Partial<Record<SettingsOf<F>, string>>;

/**
 * `WALVAULT_…` variables.
 *
 * @param isKnown  false: a value that is a token of the deployment tool, and known only when it is deployed
 * @throws VaultError usage  a value that its kind refuses
 */
export function environmentOf<F extends FunctionName>(
  name: F,
  values: FunctionSettings<F>,
  isKnown: (value: string) => boolean = () => true,
): Record<string, string> {
  const given = values as Partial<Record<SettingName, string>>;
  const environment: Record<string, string> = {};
  const user: FunctionUser = `${name} function`;
  for (const setting of settingsOf(user)) {
    const value = given[setting];
    if (value === undefined) continue;
    if (isKnown(value)) parseSetting(setting, value, setting);
    environment[envOf(setting)] = value;
  }
  return environment;
}
