/** What a node is configured with: this program, its Node, and the settings that its hooks and agent will read. */
import type { Settings } from '../core/settings/read.ts';
import { settingsOf, type SettingName, type SettingValues } from '../core/settings/settings.ts';
import type { Installation } from '../core/work/configure.ts';
import { leaseTerms } from '../core/work/lease.ts';
import { programRoot } from './program-root.ts';

/** Configure keeps these whatever was given; of the others only what was said, so that a later default reaches the node. */
const ALWAYS = ['vault', 'cluster', 'node', 'pgdata'] as const satisfies readonly SettingName[];

/**
 * Where the server listens is kept only where a flag said it: PGPORT in a person's shell is often that of another server, and
 * postmaster.pid knows.
 */
const FLAG_ONLY: ReadonlySet<SettingName> = new Set(['pgHost', 'pgPort']);

/** The settings that commands of configuration take: what they need themselves, and what they keep for the node. */
export const CONFIGURE_SETTINGS: readonly SettingName[] = [
  ...new Set<SettingName>([...ALWAYS, 'stateDir', ...settingsOf('configure')]),
];

/** @throws VaultError usage (vault, cluster, node or pgdata is missing; a lease that cannot be kept) */
export function installationOf(settings: Settings, vaultUrl: string): Installation {
  leaseTerms(settings); // refused before anything is written
  const kept: Partial<Record<SettingName, unknown>> = {};
  for (const name of CONFIGURE_SETTINGS) {
    const origin = settings.origin(name);
    const isSaid = FLAG_ONLY.has(name) ? origin === 'flag' || origin === 'file' : origin !== 'default';
    if (isSaid && name !== 'stateDir') kept[name] = settings[name];
  }
  for (const name of ALWAYS) kept[name] = settings.need(name);
  kept.vault = vaultUrl;
  return {
    stateDir: settings.stateDir,
    settings: kept as Partial<SettingValues>,
    programRoot: programRoot(),
    nodeBinary: process.execPath,
  };
}
