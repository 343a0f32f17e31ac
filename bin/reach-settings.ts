/** The settings that commands have in common: what reaches the vault, what names this node, what reaches its server. */
import type { SettingName } from '../core/settings/settings.ts';

/** The vault and nothing of a server; PGDATA only names the settings.toml to read. */
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

/** The vault, as this node. */
export const NODE_SETTINGS: readonly SettingName[] = [...REACH_SETTINGS, 'node'];

/** The vault, as this node, and a connection to its server. */
export const SERVER_SETTINGS: readonly SettingName[] = [
  ...NODE_SETTINGS,
  'pgHost',
  'pgPort',
  'pgUser',
  'pgDatabase',
];
