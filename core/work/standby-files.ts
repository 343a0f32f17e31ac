/**
 * A data directory that shall be a standby of the vault: its configuration files, its parameters, its signal file. The server
 * does not run.
 */
import { appendFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import type { StandbyMode } from '../cluster/facts.ts';
import { writeParameters, type ParameterChanges } from '../postgres/auto-conf.ts';
import { quoteValue, readConfFiles, readText } from '../postgres/conf-files.ts';
import { syncDirectory } from '../postgres/durable-write.ts';
import { binMajorVersion, findBinDir, judgeParameter } from '../postgres/server.ts';
import { removeSignalFile, writeSignalFile } from '../postgres/signal-files.ts';
import type { ControlFile } from '../wal/control-file.ts';
import { combinedCommand, nodeParameters, type Intervals } from './configure.ts';
import { isWaitNode, removeDurably, replaceDurably, type StatePaths } from './node-state.ts';
import type { Commands } from './wrappers.ts';

export type StandbyParameters = Intervals & {
  /** undefined: as this node was configured before, else hot. */
  mode?: StandbyMode;
  port?: number;
  /** --set name=value. */
  set: Readonly<Record<string, string>>;
};

export type Made = {
  /** What a person should know of it. */
  notices: string[];
  mode: StandbyMode;
};

/** Ours: set by --set they would break the standby, or be overwritten. */
const OWNED = new Set([
  'restore_command',
  'archive_command',
  'archive_library',
  'archive_mode',
  'archive_cleanup_command',
  'recovery_end_command',
  'hot_standby',
  'data_directory',
  'config_file',
  'recovery_target_timeline',
]);

/** Parameters that a standby must not lower: what pg_control says of the primary, and PostgreSQL's default. */
const AT_LEAST: { name: string; default: number; of: (control: ControlFile) => number }[] = [
  { name: 'max_connections', default: 100, of: (control) => control.maxConnections },
  { name: 'max_worker_processes', default: 8, of: (control) => control.maxWorkerProcesses },
  { name: 'max_wal_senders', default: 10, of: (control) => control.maxWalSenders },
  { name: 'max_prepared_transactions', default: 0, of: (control) => control.maxPreparedTransactions },
  { name: 'max_locks_per_transaction', default: 64, of: (control) => control.maxLocksPerTransaction },
];

/**
 * Refuses `--port` and `--set` that cannot be, before anything is done. Values are judged by PostgreSQL itself where its programs
 * of this major version are found.
 *
 * @throws VaultError usage
 */
export async function checkStandbyParameters(
  parameters: StandbyParameters,
  majorVersion: number,
): Promise<void> {
  const { port, set } = parameters;
  if (port !== undefined && !(Number.isInteger(port) && port > 0 && port < 65536)) {
    throw new VaultError('usage', `--port ${port} is not a port (1 to 65535)`);
  }
  if (port !== undefined && set.port !== undefined && set.port !== String(port)) {
    throw new VaultError('usage', `--port ${port} and --set port=${set.port} differ`, {
      hint: 'Give one of the two.',
    });
  }
  for (const [name, value] of Object.entries(set)) {
    if (!/^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$/.test(name)) {
      throw new VaultError('usage', `--set ${name}=…: '${name}' is no name of a parameter`, {
        hint: 'Write --set shared_buffers=1GB.',
      });
    }
    if (OWNED.has(name.toLowerCase())) {
      throw new VaultError('usage', `--set ${name}: this parameter is walvault's own`, {
        hint: 'Leave it out.',
      });
    }
    if (name.toLowerCase() === 'recovery_prefetch' && parameters.mode === 'wait') {
      throw new VaultError('usage', `--set recovery_prefetch: wait mode needs it off`, {
        hint: 'Leave it out.',
      });
    }
    quoteValue(value);
  }
  const binDir = await findBinDir(majorVersion, undefined);
  if (binDir === undefined || (await binMajorVersion(binDir)) !== majorVersion) return;
  for (const [name, value] of Object.entries(set)) {
    const complaint = name.includes('.') ? undefined : await judgeParameter(binDir, name, value);
    if (complaint !== undefined) {
      throw new VaultError('usage', `--set ${name}=${value}: ${complaint}`, {
        hint: `PostgreSQL ${majorVersion} refuses it.`,
      });
    }
  }
}

/**
 * Makes the directory a standby: parameters, then its signal file, durable when it returns.
 *
 * @throws VaultError usage (--set lowers what a standby must not lower) | local
 */
export async function makeStandby(
  pgdata: { path: string; configFile: string; control: ControlFile },
  commands: Commands,
  parameters: StandbyParameters,
  paths: StatePaths,
): Promise<Made> {
  const notices = await completeConfiguration(pgdata);
  const current = await readConfFiles(pgdata.path, pgdata.configFile);
  const set = Object.fromEntries(
    Object.entries(parameters.set).map(([name, value]) => [name.toLowerCase(), value]),
  );
  const mode = parameters.mode ?? modeBefore(paths, current);
  const changes: Record<string, string | null> = {
    ...nodeParameters(commands, parameters, current),
    hot_standby: mode === 'hot' ? 'on' : 'off',
    recovery_target_timeline: 'latest',
  };
  // A command that waits would keep PostgreSQL from applying what it has already (measured, 15 and later).
  if (mode === 'wait') changes.recovery_prefetch = 'off';
  else if (isWaitNode(paths)) changes.recovery_prefetch = null;
  for (const name of current.keys()) {
    // the origin's: a target of recovery would end it there, a primary_conninfo would have nodes talk to each other
    if (/^recovery_target(_|$)/.test(name) && name !== 'recovery_target_timeline') changes[name] = '';
    if (name === 'primary_conninfo' || name === 'primary_slot_name') changes[name] = '';
  }
  // not inclusive and action have no empty value
  if ('recovery_target_inclusive' in changes) changes.recovery_target_inclusive = null;
  if ('recovery_target_action' in changes) changes.recovery_target_action = null;
  const combined = combinedCommand(commands, current);
  if (combined !== undefined)
    notices.push(
      `archive_command calls something else besides walvault, as on the origin: ${combined}; it must work on this machine before a promotion`,
    );
  if (parameters.port !== undefined) changes.port = String(parameters.port);
  Object.assign(changes, set, raised(pgdata.control, current, set));
  if (
    (current.get('synchronous_standby_names') ?? '') !== '' &&
    set.synchronous_standby_names === undefined
  ) {
    notices.push(
      `synchronous_standby_names is '${current.get('synchronous_standby_names')}', as on the origin: once promoted, commits wait for these`,
    );
  }
  await writeParameters(pgdata, changes satisfies ParameterChanges);
  await removeSignalFile(pgdata.path, 'promote');
  await setSignal(pgdata.path, paths, mode);
  return { notices, mode };
}

/** At no moment without a signal file: a start in between would open. Where both are there, standby.signal rules. */
async function setSignal(pgdata: string, paths: StatePaths, mode: StandbyMode): Promise<void> {
  if (mode === 'wait') {
    replaceDurably(
      paths.wait,
      'recovery.signal is the signal file of this node: its restore command waits\n',
    );
    await writeSignalFile(pgdata, 'recovery.signal');
    await removeSignalFile(pgdata, 'standby.signal');
  } else {
    await writeSignalFile(pgdata, 'standby.signal');
    await removeSignalFile(pgdata, 'recovery.signal');
    removeDurably(paths.wait);
  }
}

/** By what `standby create` or `standby configure` left here; a node that was none is hot. */
function modeBefore(paths: StatePaths, current: ReadonlyMap<string, string>): StandbyMode {
  if (isWaitNode(paths)) return 'wait';
  return isOff(current.get('hot_standby')) ? 'warm' : 'hot';
}

const isOff = (value: string | undefined): boolean =>
  value !== undefined && /^(off?|false|fals|fal|fa|f|no?|0)$/i.test(value);

/** What the origin was started with may stand in no file (`-c max_connections=500`): pg_control knows it. */
function raised(
  control: ControlFile,
  current: ReadonlyMap<string, string>,
  set: Readonly<Record<string, string>>,
): Record<string, string> {
  const changes: Record<string, string> = {};
  for (const one of AT_LEAST) {
    const least = one.of(control);
    const chosen = set[one.name];
    if (chosen !== undefined && Number(chosen) < least) {
      throw new VaultError(
        'usage',
        `--set ${one.name}=${chosen}: the primary has ${least}, a standby must not have less`,
        {
          hint: `Give ${least} or more, or leave it out.`,
        },
      );
    }
    if (chosen === undefined && Number(current.get(one.name) ?? one.default) < least)
      changes[one.name] = String(least);
  }
  return changes;
}

/** What the backup could not carry since it lay outside of the data directory. */
async function completeConfiguration(pgdata: { path: string; configFile: string }): Promise<string[]> {
  const notices: string[] = [];
  const own = path.join(pgdata.path, 'postgresql.conf');
  if ((await readText(pgdata.configFile)) === undefined) {
    await writeFile(
      own,
      '# made by walvault: the configuration of the origin lay outside of its data directory\n',
      { mode: 0o600 },
    );
    notices.push(
      `postgresql.conf lay outside of the origin's data directory: ${own} was made with the defaults`,
    );
  } else if (pgdata.configFile === own) {
    const origin = (await readConfFiles(pgdata.path, own)).get('data_directory');
    if (origin !== undefined && path.resolve(origin) !== pgdata.path) {
      // started with this file the server would run on the origin's directory; it cannot be set in postgresql.auto.conf
      await appendFile(
        own,
        `\n# walvault: the origin had ${quoteValue(origin)}\ndata_directory = ${quoteValue(pgdata.path)}\n`,
      );
      notices.push(`data_directory in ${own} named ${origin}: set to ${pgdata.path}`);
    }
  }
  const hba = path.join(pgdata.path, 'pg_hba.conf');
  const named = (await readConfFiles(pgdata.path, pgdata.configFile)).get('hba_file');
  if (named === undefined && (await readText(hba)) === undefined) {
    await writeFile(
      hba,
      '# made by walvault: that of the origin lay outside of its data directory\nlocal all all peer\nlocal replication all peer\n',
      { mode: 0o600 },
    );
    notices.push(
      `pg_hba.conf lay outside of the origin's data directory: ${hba} lets in local users by their own name only`,
    );
  }
  return notices;
}

/**
 * Empties pg_wal (also where it is a link): what lies there is the vault's to say. Directories stay.
 *
 * @param walDirectory  its real path
 */
export async function clearWalDirectory(walDirectory: string): Promise<void> {
  for (const directory of [
    walDirectory,
    path.join(walDirectory, 'archive_status'),
    path.join(walDirectory, 'summaries'),
  ]) {
    const entries = await readdir(directory, { withFileTypes: true }).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return [];
        throw new VaultError('local', `cannot read ${directory}: ${error.message}`, { cause: error });
      },
    );
    for (const entry of entries) if (!entry.isDirectory()) await rm(path.join(directory, entry.name));
    if ((await stat(directory).catch(() => undefined)) !== undefined) await syncDirectory(directory);
  }
}
