/**
 * What every job on a node works with: its settings, its state directory, its vault. Made once by the agent, or by a hook that works
 * alone; the process stands in the state directory.
 */
import fs from 'node:fs';
import os from 'node:os';
import { VaultError } from '../errors.ts';
import { readControl } from '../postgres/pgdata.ts';
import { openVault } from '../vault/open-vault.ts';
import { loadSettings, type Settings } from '../settings/read.ts';
import { openCluster, type Cluster } from './cluster.ts';
import type { HistoryCache } from './branch.ts';
import type { WriterSeat } from './writer.ts';
import { checkAttached, checkIdentity, statePaths, writerStore, type StatePaths } from './node-state.ts';

export type NodeContext = {
  /** Absolute, for messages. */
  stateDir: string;
  /** Relative to the state directory. */
  paths: StatePaths;
  settings: Settings;
  node: string;
  /** The real path. */
  pgdata: string;
  seat: WriterSeat;
  histories: HistoryCache;
  /** The cluster, opened at the first call that succeeds. @throws VaultError unreachable | unconfigured | denied … */
  cluster(): Promise<Cluster>;
  /** The cluster in another vault, opened the same way and kept. @throws VaultError */
  other(url: string): Promise<Cluster>;
  close(): Promise<void>;
};

/**
 * Settings come from settings.toml alone: the environment is the postmaster's, started perhaps from a shell where
 * WALVAULT_NODE names another server. What the SDK reads (AWS_…) stays.
 *
 * @throws VaultError unconfigured | copied | fenced (detached) | usage
 */
export function openNode(stateDir: string): NodeContext {
  const paths = statePaths('.');
  const identity = checkIdentity(paths);
  checkAttached(paths);
  const settings = loadSettings({ flags: {}, env: {}, stateDir });
  const node = settings.need('node');
  const pgdata = fs.realpathSync(identity.pgdata);
  const opened = new Map<string, Promise<Cluster>>();
  const openOnce = (url: string): Promise<Cluster> => {
    const known = opened.get(url);
    if (known !== undefined) return known;
    const opening = open(settings, url, pgdata).catch((error: unknown) => {
      opened.delete(url);
      throw error;
    });
    opened.set(url, opening);
    return opening;
  };
  return {
    stateDir,
    paths,
    settings,
    node,
    pgdata,
    seat: { node, place: `${os.hostname()}:${pgdata}`, store: writerStore(paths) },
    histories: new Map(),
    cluster: async () => openOnce(settings.need('vault')),
    other: openOnce,
    async close() {
      for (const opening of opened.values())
        await opening.then((cluster) => cluster.vault.close()).catch(() => {});
    },
  };
}

async function open(settings: Settings, url: string, pgdata: string): Promise<Cluster> {
  const vault = await openVault(url, {
    timeoutMs: settings.vaultTimeout,
    aws: { region: settings.awsRegion, profile: settings.awsProfile, endpoint: settings.awsEndpoint },
  });
  try {
    const cluster = await openCluster(vault, settings.need('cluster'));
    await checkDatabase(cluster, pgdata);
    return cluster;
  } catch (error) {
    await vault.close().catch(() => {});
    throw error;
  }
}

/**
 * The name may stand for another database by now: pg_upgrade made a new one, or somebody used the name again. Nothing of this one may go
 * there, and nothing of that one be served here.
 */
async function checkDatabase(cluster: Cluster, pgdata: string): Promise<void> {
  const { systemIdentifier } = await readControl(pgdata);
  if (systemIdentifier === cluster.systemIdentifier) return;
  throw new VaultError(
    'refused',
    `cluster ${cluster.name} is system identifier ${cluster.systemIdentifier} in ${cluster.vault.url}, the database in ${pgdata} is ${systemIdentifier}`,
    {
      hint: `after an upgrade the old server and its standbys are of no use to the vault: make standbys of the new one by 'walvault standby create'; another database wants another cluster name.`,
    },
  );
}

/** Failures that the vault's return can end; the others want a person, or another epoch. */
export function isPassing(error: unknown): boolean {
  return (
    error instanceof VaultError &&
    ['unreachable', 'busy', 'local', 'denied', 'unconfigured'].includes(error.code)
  );
}
