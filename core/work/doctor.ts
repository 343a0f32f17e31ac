/**
 * Everything that `walvault doctor` looks at, gathered and examined: the node's files and server first, then the vault, then the
 * vaults beside it. Whatever cannot be looked at is a finding, and the rest goes on.
 */
import fs from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { VaultError } from '../errors.ts';
import { examine, type Facts, type ServerFacts } from '../cluster/checks.ts';
import { decideWriter, type Writer } from '../cluster/decide-archive.ts';
import type { Commands, SettingsFacts } from '../cluster/examine-node.ts';
import type { CredentialClues, VaultFacts } from '../cluster/examine-vault.ts';
import { isUnseen, worstOf, type Finding, type Unseen } from '../cluster/finding.ts';
import { nameOfUser, readPgdata, type Pgdata } from '../postgres/pgdata.ts';
import { loadSettings, type Settings } from '../settings/read.ts';
import { keyOf, rowOf, type SettingName } from '../settings/settings.ts';
import { storeClockAhead } from '../vault/store-clock.ts';
import type { Vault } from '../vault/vault.ts';
import type { Cluster } from './cluster.ts';
import { lookAtState } from './doctor-node.ts';
import { examineVaults } from './doctor-pair.ts';
import { chainOf, lookAtServer, type ServerLook } from './doctor-server.ts';
import { lookAtVault, lookAtWriter, probeVault, unseen } from './doctor-vault.ts';
import { statePaths } from './node-state.ts';
import { libraryHere } from './prove-access.ts';
import { hasSpilled } from './push-spill.ts';

export type DoctorRequest = {
  settings: Settings;
  /** Why settings.toml could not be taken; undefined: it was, or there is none. */
  unread: VaultError | undefined;
  /** The settings that the command takes. */
  names: readonly SettingName[];
  env: NodeJS.ProcessEnv;
  /** Of this program. */
  version: string;
  /** The commands to paste for a node that was found to be so. */
  commandsFor(node: NodeFound): Commands;
  /** Opens the cluster of the settings. */
  cluster(): Promise<Cluster>;
  /** Opens another vault; whoever gave it closes it. */
  open(url: string): Promise<Vault>;
  /** For one other vault, ms. */
  limitMs: number;
  probe: boolean;
  now?: Date;
};

export type NodeFound = {
  /** The real path, where it could be followed. */
  pgdata: string | undefined;
  stateDir: string | undefined;
  owner: string | undefined;
  node: string | undefined;
  isStandby: boolean;
  runs: boolean;
};

export type Examination = {
  cluster: string | null;
  findings: Finding[];
  worst: 0 | 1 | 2;
  settings: SettingsFacts['given'];
};

const NO_SETTINGS =
  'give it as a flag or variable, or have the node keep it: walvault configure primary, standby configure';

/** Examines; changes nothing unless `probe`. Never throws a VaultError: each becomes a finding. */
export async function examineAll(request: DoctorRequest): Promise<Examination> {
  const { settings, version } = request;
  const now = request.now ?? new Date();
  const stateDir = settings.stateDir;
  const own = ownSettings(request);
  const pgdata = settings.pgdata === undefined ? undefined : await pgdataAt(settings.pgdata);
  const node = own.settings?.node ?? settings.node;
  const found: NodeFound = {
    pgdata: pgdata === undefined || isUnseen(pgdata) ? settings.pgdata : pgdata.path,
    stateDir,
    owner: await ownerOf(pgdata, stateDir),
    node,
    isStandby: isStandby(pgdata),
    runs: pgdata !== undefined && !isUnseen(pgdata) && pgdata.running !== undefined,
  };
  // pg_wal before the vault's head: what was archived meanwhile is then ahead, never missing
  const server = await lookAtServerOf(pgdata, request, own.settings ?? settings, stateDir);
  const state =
    stateDir === undefined || found.pgdata === undefined
      ? undefined
      : await lookAtState(stateDir, found.pgdata, own.settings ?? settings);
  const vault = await lookAtVaultOf(request, node, now);
  const place = `${os.hostname()}:${found.pgdata ?? ''}`;
  const facts: Facts = {
    ...{ nowMs: now.getTime(), version, library: libraryHere() },
    person: { uid: process.getuid?.() ?? 0, name: os.userInfo().username },
    commands: request.commandsFor(found),
    settings: settingsFacts(request, own),
    server: server === undefined || isUnseen(server) ? server : { ...server.facts, chain: undefined },
    state,
    own:
      server === undefined || isUnseen(server) || node === undefined
        ? undefined
        : {
            ...{ node, place, version: state?.version },
            runs: server.facts.signals.running === 'yes',
            inRecovery: server.facts.signals.inRecovery,
            heartbeatMs: (own.settings ?? settings).heartbeatInterval,
          },
    vault: vault === undefined || isUnseen(vault) ? vault : vault.facts,
    writer: undefined,
    credentials: await credentials(request, pgdata, own.settings),
    probe: undefined,
  };
  if (vault !== undefined && !isUnseen(vault)) await completeByVault(facts, vault, server, request, place);
  const findings = examine(facts);
  if (vault !== undefined && !isUnseen(vault))
    findings.push(...(await examineOtherVaults(request, vault.cluster, now)));
  return {
    cluster: settings.cluster ?? null,
    findings,
    worst: worstOf(findings),
    settings: facts.settings.given,
  };
}

type VaultLook = { cluster: Cluster; facts: VaultFacts };

/** What takes both, the node and the vault. */
async function completeByVault(
  facts: Facts,
  { cluster, facts: seen }: VaultLook,
  server: ServerLook | Unseen | undefined,
  { settings, probe }: DoctorRequest,
  place: string,
): Promise<void> {
  const { own } = facts;
  if (own !== undefined && own.runs && !own.inRecovery && settings.stateDir !== undefined)
    facts.writer = await writerOfNode(cluster, seen, settings.stateDir, own.node, place);
  const isItsPrimary = own !== undefined && !own.inRecovery && seen.control.primary === own.node;
  // switched off, archive_command tells success of what it leaves out
  if (isItsPrimary && seen.control.archiving && server !== undefined && !isUnseen(server))
    (facts.server as ServerFacts).chain = chainOf(server.wal, seen.head, isSpillAway(settings.stateDir));
  if (probe && own?.node !== undefined) facts.probe = await probeVault(cluster, own.node);
}

function isSpillAway(stateDir: string | undefined): boolean {
  try {
    return stateDir !== undefined && hasSpilled(statePaths(stateDir));
  } catch {
    return true; // unreadable or damaged: nothing is asserted
  }
}

/** The nonce changes with every heartbeat: a stranger's is believed after three looks only. */
async function writerOfNode(
  cluster: Cluster,
  seen: VaultFacts,
  stateDir: string,
  node: string,
  place: string,
): Promise<Writer | Unseen | undefined> {
  try {
    for (let left = 2; ; left--) {
      const { writer, head } = await lookAtWriter(cluster, statePaths(stateDir), node, place);
      seen.head = head;
      const refusal = writer === undefined ? undefined : decideWriter(seen.control, head, writer);
      if (refusal?.code !== 'copied' || left === 0) return writer;
    }
  } catch (error) {
    return unseen(error);
  }
}

/** Who runs the server, by whom the directories belong to. */
async function ownerOf(
  pgdata: Pgdata | Unseen | undefined,
  stateDir: string | undefined,
): Promise<string | undefined> {
  if (pgdata !== undefined && !isUnseen(pgdata)) return pgdata.owner.name;
  const found = stateDir === undefined ? undefined : await stat(stateDir).catch(() => undefined);
  return found === undefined ? undefined : nameOfUser(found.uid);
}

async function pgdataAt(directory: string): Promise<Pgdata | Unseen> {
  return readPgdata(directory, { anyOwner: true }).catch(unseen);
}

/** By pg_control; of a server that does not run also by its signal file. */
function isStandby(pgdata: Pgdata | Unseen | undefined): boolean {
  if (pgdata === undefined || isUnseen(pgdata)) return false;
  const { control, running, path: place } = pgdata;
  if (control.state === 5 || control.state === 2) return true;
  return running === undefined && fs.existsSync(path.join(place, 'standby.signal')); // made, and not started yet
}

async function lookAtServerOf(
  pgdata: Pgdata | Unseen | undefined,
  { settings, env }: DoctorRequest,
  own: Settings,
  stateDir: string | undefined,
): Promise<ServerLook | Unseen | undefined> {
  if (pgdata === undefined || isUnseen(pgdata) || stateDir === undefined) return pgdata as Unseen | undefined;
  const intervals = { retrieveRetryMs: own.retrieveRetryInterval, forceSwitchMs: own.forceSwitch };
  return lookAtServer({ pgdata, stateDir, intervals, connection: { settings, env } }).catch(unseen);
}

async function lookAtVaultOf(
  { settings, cluster, limitMs }: DoctorRequest,
  node: string | undefined,
  now: Date,
): Promise<VaultLook | Unseen | undefined> {
  if (settings.vault === undefined || settings.cluster === undefined) return undefined;
  const { awsRegion: region, awsEndpoint: endpoint } = settings;
  const ahead = await storeClockAhead(settings.vault, { aws: { region, endpoint } }, limitMs);
  try {
    const opened = await cluster();
    return { cluster: opened, facts: await lookAtVault(opened, node, ahead, now) };
  } catch (error) {
    return unseen(error);
  }
}

async function examineOtherVaults(
  { open, limitMs }: DoctorRequest,
  cluster: Cluster,
  now: Date,
): Promise<Finding[]> {
  try {
    return (await examineVaults(cluster, open, limitMs, now)).findings;
  } catch (error) {
    const { unseen: says, fix } = unseen(error);
    return [{ what: 'reach', state: 'bad', says, ...(fix === undefined ? {} : { fix }) }];
  }
}

/** What hooks and agent go by: settings.toml alone. */
type OwnSettings = { settings: Settings | undefined; broken: Unseen | undefined; code: string | undefined };

function ownSettings({ settings, unread }: DoctorRequest): OwnSettings {
  const none = { settings: undefined, broken: undefined, code: undefined };
  if (unread !== undefined) return { ...none, broken: unseen(unread), code: unread.code };
  const { stateDir } = settings;
  if (stateDir === undefined) return none;
  try {
    const own = loadSettings({ flags: {}, env: {}, stateDir });
    return { ...none, settings: own.node === undefined ? undefined : own };
  } catch (error) {
    return { ...none, broken: unseen(error), code: (error as VaultError).code };
  }
}

/** These must be the same for the person and for the node, or doctor examines another thing than the hooks use. */
const SHARED = [
  'vault',
  'cluster',
  'node',
  'pgdata',
  'awsRegion',
  'awsProfile',
  'awsEndpoint',
] as const satisfies readonly SettingName[];

function settingsFacts({ settings, names }: DoctorRequest, own: OwnSettings): SettingsFacts {
  const text = (from: Settings, name: SettingName): string | undefined => {
    const value = from[name];
    return value === undefined || value === null ? undefined : rowOf(name).kind.format(value);
  };
  const given = names.flatMap((name) => {
    const value = text(settings, name);
    const origin = settings.origin(name);
    return value === undefined || origin === 'default' ? [] : [{ name: keyOf(name), value, origin }];
  });
  const missing = (['vault', 'cluster'] as const)
    .filter((name) => settings[name] === undefined)
    .map((name) => ({ name: keyOf(name), hint: `${NO_SETTINGS}; for example ${rowOf(name).example}` }));
  const differing = SHARED.flatMap((name) => {
    const [here, there] = [
      text(settings, name),
      own.settings === undefined ? undefined : text(own.settings, name),
    ];
    const origin = settings.origin(name);
    if (here === undefined || there === undefined || here === there || origin === 'file') return [];
    if (name === 'pgdata' && realPlace(here) === realPlace(there)) return [];
    return [{ name: keyOf(name), here, origin, node: there }];
  });
  const isClosed = own.code === 'local';
  return {
    ...{ given, missing, differing },
    broken: isClosed ? undefined : own.broken,
    closed: isClosed ? own.broken : undefined,
  };
}

function realPlace(directory: string): string {
  try {
    return fs.realpathSync(directory);
  } catch {
    return path.resolve(directory);
  }
}

async function credentials(
  { settings, env }: DoctorRequest,
  pgdata: Pgdata | Unseen | undefined,
  own: Settings | undefined,
): Promise<Facts['credentials']> {
  const person = cluesOf(env, settings.awsProfile);
  const pid = pgdata === undefined || isUnseen(pgdata) ? undefined : pgdata.running?.pid;
  const text = pid === undefined ? '' : await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
  const theirs = Object.fromEntries(
    text.split('\0').map((line) => [line.split('=')[0] ?? '', line.slice(line.indexOf('=') + 1)]),
  );
  return {
    isWanted: settings.vault?.startsWith('s3:') ?? false,
    person,
    server: text === '' ? undefined : cluesOf(theirs, own?.awsProfile),
  };
}

function cluesOf(
  env: Readonly<Record<string, string | undefined>>,
  profile: string | undefined,
): CredentialClues {
  const home = env['HOME'] ?? '';
  const files = ['credentials', 'config'].map((name) => path.join(home, '.aws', name));
  return {
    profile,
    environment: env,
    hasSharedFile: home !== '' && files.some((file) => fs.existsSync(file)),
  };
}
