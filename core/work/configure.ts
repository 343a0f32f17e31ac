/**
 * What a node's PostgreSQL is told: the four commands and the parameters around them. Every node, primary or standby, gets
 * all of them, so that a promotion changes nothing in the configuration.
 *
 * Written by ALTER SYSTEM while the server runs, else into postgresql.auto.conf: a configuration outside of the data
 * directory (Debian) works the same.
 */
import path from 'node:path';
import type { Client } from 'pg';
import { VaultError } from '../errors.ts';
import {
  checkCommandLength,
  readParameters,
  reloadServer,
  writeParameters,
  type ConfigurationDue,
} from '../postgres/auto-conf.ts';
import { quoteValue } from '../postgres/conf-files.ts';
import { readPgdata, type Pgdata } from '../postgres/pgdata.ts';
import { recoveryMode } from '../postgres/signal-files.ts';
import { withConnection, type ConnectOptions } from '../postgres/sql.ts';
import { readControl, type Cluster } from './cluster.ts';
import { stateDirOf } from './node-state.ts';
import { startAgent } from './programs.ts';
import { withoutAgent } from './without-agent.ts';
import { commandsOf, installState, isCombined, type Commands, type InstallRequest } from './wrappers.ts';

/** State directory and program of a node; `stateDir` is `<PGDATA>.walvault` unless told. */
export type Installation = Omit<InstallRequest, 'pgdata' | 'stateDir'> & { stateDir?: string };

export type Intervals = {
  /** wal_retrieve_retry_interval, ms. */
  retrieveRetryMs: number;
  /** archive_timeout where it was 0, ms. */
  forceSwitchMs: number;
};

export type ConfigureRequest = Intervals & {
  node: string;
  pgdata: string;
  connection: Omit<ConnectOptions, 'pgdata'>;
  installation: Installation;
  /** Only say what would be written. */
  print: boolean;
  /** Have a running server read it at once, where a reload suffices or brings a part of it into force. */
  reload: boolean;
};

export type Configured = {
  /** As postgresql.conf takes them. */
  lines: string[];
  /** What is still to be done: nothing (or the next start), a reload, a restart. */
  due: ConfigurationDue;
  stateDir: string;
  running: boolean;
  /** Commands of others that were replaced. */
  replaced: { name: string; was: string }[];
  /** An archive_command that calls walvault's wrapper among others, and was left as it is. */
  kept: string | null;
};

/** Read before the parameters are decided. */
const CURRENT = [
  'archive_mode',
  'archive_command',
  'archive_library',
  'archive_timeout',
  'wal_level',
  'max_wal_senders',
  'restore_command',
  'archive_cleanup_command',
  'recovery_end_command',
] as const;

/**
 * Configures the primary of a cluster; running or stopped. Doing it again repairs.
 *
 * @throws VaultError refused (another database; not the vault's primary; a standby) | pgdata | denied | local | usage (path too long)
 */
export async function configurePrimary(cluster: Cluster, request: ConfigureRequest): Promise<Configured> {
  const pgdata = await readPgdata(request.pgdata);
  checkDatabase(cluster, pgdata);
  const control = await readControl(cluster);
  if (control.primary !== request.node) {
    throw new VaultError(
      'refused',
      `${control.primary ?? 'no node'} is the primary of ${cluster.name} in epoch ${control.epoch}, not ${request.node}`,
      { hint: `Make this node a standby ('walvault standby create'), or check --node.` },
    );
  }
  const mode = await recoveryMode(pgdata.path);
  if (mode !== 'none') {
    throw new VaultError('refused', `${pgdata.path} is a standby (${mode}.signal is there)`, {
      hint: `'walvault standby configure' is for standbys.`,
    });
  }
  const withServer = <T>(work: (client?: Client) => Promise<T>): Promise<T> =>
    pgdata.running === undefined
      ? work()
      : withConnection({ ...request.connection, pgdata: pgdata.path }, (client) => work(client));
  return withServer(async (client) => {
    const stateDir = request.installation.stateDir ?? stateDirOf(pgdata.path);
    const current = await readParameters(pgdata, CURRENT, client);
    const planned = commandsOf(stateDir);
    const parameters = nodeParameters(planned, request, current);
    checkCommands(planned);
    const result = {
      lines: Object.entries(parameters).map(([name, value]) => `${name} = ${quoteValue(value)}`),
      stateDir,
      running: pgdata.running !== undefined,
      replaced: replacedCommands(planned, current),
      kept: combinedCommand(planned, current) ?? null,
    };
    if (request.print) return { ...result, due: 'none' };
    // wrappers first: PostgreSQL may call them as soon as it is told of them
    await withoutAgent(stateDir, () =>
      installState({ ...request.installation, stateDir, pgdata: pgdata.path }),
    );
    // the next hook would start it, and on an idle server that is when the next segment is switched
    if ((request.installation.settings.lease ?? 0) > 0 && pgdata.running !== undefined)
      startAgent(path.resolve(stateDir));
    let due = await writeParameters(pgdata, parameters, client);
    if (client !== undefined && request.reload && due !== 'none') {
      const pending = await reloadServer(client, Object.keys(parameters));
      due = due === 'restart' || pending === 'restart' ? 'restart' : 'none';
    }
    return { ...result, due };
  });
}

/** @throws VaultError refused  when the data directory is of another database than the cluster */
export function checkDatabase(cluster: Cluster, pgdata: Pick<Pgdata, 'path' | 'control'>): void {
  if (pgdata.control.systemIdentifier === cluster.systemIdentifier) return;
  throw new VaultError(
    'refused',
    `${pgdata.path} has system identifier ${pgdata.control.systemIdentifier}, cluster ${cluster.name} is ${cluster.systemIdentifier}`,
    { hint: 'Give the --cluster of this database, or the --pgdata of that cluster.' },
  );
}

/** @throws VaultError usage  where PostgreSQL 15 would cut a command */
export function checkCommands(commands: Commands): void {
  checkCommandLength('archive_command', commands.archiveCommand);
  checkCommandLength('restore_command', commands.restoreCommand);
  checkCommandLength('archive_cleanup_command', commands.cleanupCommand);
  checkCommandLength('recovery_end_command', commands.recoveredCommand);
}

/**
 * The parameters of a node. Those that a person may have chosen (archive_mode = always, wal_level = logical, an
 * archive_timeout) stay where they do.
 */
export function nodeParameters(
  commands: Commands,
  intervals: Intervals,
  current: ReadonlyMap<string, string>,
): Record<string, string> {
  const parameters: Record<string, string> = {
    archive_command: archiveCommandOf(commands, current),
    restore_command: commands.restoreCommand,
    archive_cleanup_command: commands.cleanupCommand,
    recovery_end_command: commands.recoveredCommand,
    wal_retrieve_retry_interval: `${Math.round(intervals.retrieveRetryMs)}ms`,
  };
  if (!isOn(current.get('archive_mode'))) parameters.archive_mode = 'on';
  if (current.get('wal_level')?.toLowerCase() === 'minimal') parameters.wal_level = 'replica';
  if (Number(current.get('max_wal_senders') ?? 10) === 0) parameters.max_wal_senders = '10'; // BASE_BACKUP needs one
  if ((current.get('archive_library') ?? '') !== '') parameters.archive_library = ''; // it would rule over archive_command
  // an idle primary fills no segment: without it the newest commits would stay unarchived for ever
  if (/^0+(\.0*)?\s*[a-z]*$/.test(current.get('archive_timeout') ?? '0')) {
    parameters.archive_timeout = `${Math.max(1, Math.round(intervals.forceSwitchMs / 1000))}s`;
  }
  return parameters;
}

/** 'always' is on too; PostgreSQL takes any unambiguous word for a boolean. */
function isOn(mode: string | undefined): boolean {
  return mode !== undefined && /^(on|always|true|yes|1|t|y|tr|tru|ye)$/i.test(mode);
}

/** An archive_command that calls ours among others; undefined: there is none. */
export function combinedCommand(
  commands: Commands,
  current: ReadonlyMap<string, string>,
): string | undefined {
  const command = current.get('archive_command');
  return isCombined(command, commands) ? command : undefined;
}

function archiveCommandOf(commands: Commands, current: ReadonlyMap<string, string>): string {
  return combinedCommand(commands, current) ?? commands.archiveCommand;
}

function replacedCommands(
  commands: Commands,
  current: ReadonlyMap<string, string>,
): { name: string; was: string }[] {
  const ours: Record<string, string> = {
    archive_command: archiveCommandOf(commands, current),
    restore_command: commands.restoreCommand,
    archive_cleanup_command: commands.cleanupCommand,
    recovery_end_command: commands.recoveredCommand,
  };
  return Object.entries(ours).flatMap(([name, command]) => {
    const was = current.get(name) ?? '';
    const isSet = was !== '' && was !== '(disabled)'; // what SHOW answers while archive_mode is off
    return isSet && was !== command ? [{ name, was }] : [];
  });
}

/** Where the state directory of a data directory that is yet to be made will lie. */
export function plannedStateDir(pgdata: string, stateDir: string | undefined): string {
  return stateDir ?? `${path.resolve(pgdata)}.walvault`;
}
