/** The settings of a command that needs the vault and nothing of a server; PGDATA only names the settings.toml to read. */
import type { SettingName } from '../core/settings/settings.ts';

export const REACH_SETTINGS: readonly SettingName[] = [
  'vault',
  'cluster',
  'pgdata',
  'stateDir',
  'vaultTimeout',
  'awsRegion',
  'awsProfile',
  'awsEndpoint',
];
