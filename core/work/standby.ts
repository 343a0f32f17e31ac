/**
 * A new standby of the vault: made from a base backup (`standby create`), or from a data directory that is there already
 * (`standby configure`). Before either relies on the WAL it needs it holds it; from then on its row in the manifest does.
 */
import { readFile, realpath, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { keys, type BackupRow, type NodeRow, type StandbyMode } from '../cluster/facts.ts';
import { readText } from '../postgres/conf-files.ts';
import { readPgdata, type Pgdata } from '../postgres/pgdata.ts';
import { recoveryMode } from '../postgres/signal-files.ts';
import { parseControlFile } from '../wal/control-file.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { isSegmentName, segmentAt, segmentStart } from '../wal/name.ts';
import { gapAfter, gapText } from '../cluster/gaps.ts';
import { readBranch } from './branch.ts';
import { readLiveGaps } from './gap-rows.ts';
import { newId, readControl, type Cluster } from './cluster.ts';
import { checkCommands, checkDatabase, plannedStateDir, type Installation } from './configure.ts';
import { reportNode } from './heartbeat.ts';
import { addHold, dropHold, keepHolding } from './holds.ts';
import { checkAttached, stateDirOf, statePaths, type StatePaths } from './node-state.ts';
import { demandAccess, proveAccess } from './prove-access.ts';
import { checkTarget } from './restore-target.ts';
import { findBackup, restoreBackup, type RestoreRequest } from './restore-backup.ts';
import { refuseRunning } from './salvage.ts';
import {
  checkStandbyParameters,
  clearWalDirectory,
  makeStandby,
  type Made,
  type StandbyParameters,
} from './standby-files.ts';
import { hasWalUpTo } from './wal-arrival.ts';
import { withoutAgent } from './without-agent.ts';
import { commandsOf, installState, type Commands } from './wrappers.ts';

export type CreateStandbyRequest = Omit<RestoreRequest, 'node'> & {
  node: string;
  installation: Installation;
  parameters: StandbyParameters;
};

export type Standby = {
  /** The real path. */
  pgdata: string;
  stateDir: string;
  /** What a person should know before starting it. */
  notices: string[];
  /** First segment that it will ask for. */
  firstSegment: string;
  mode: StandbyMode;
};

/**
 * Restores a backup as a standby, ready to be started. Broken off, the same call goes on.
 *
 * @throws VaultError refused (target not empty; the node is the primary) | usage | absent | corrupt | local | unreachable
 */
export async function createStandby(
  cluster: Cluster,
  request: CreateStandbyRequest,
): Promise<Standby & { backup: BackupRow }> {
  await checkNode(cluster, request.node);
  const target = path.resolve(request.target);
  const stateDir = plannedStateDir(target, request.installation.stateDir);
  checkCommands(commandsOf(stateDir));
  await checkStandbyParameters(request.parameters, cluster.majorVersion);
  await checkTarget(target);
  // before anything is fetched: a node that cannot report is no standby, however well it restores
  const found = demandAccess(await proveAccess(cluster, request.node));
  const row = await findBackup(cluster, request.backup);
  await refuseGapAfter(cluster, `backup ${row.id}`, parseLsn(row.startLsn));
  const holdId = `standby-${newId()}`;
  const at = new Date().toISOString();
  await addHold(cluster, holdId, { kind: 'standby', from: row.startSegment, node: request.node, at });
  let made: Made = { notices: found, mode: 'hot' };
  const keeper = keepHolding(cluster, holdId);
  try {
    const { backup } = await restoreBackup(cluster, {
      ...request,
      backup: row.id,
      // before pg_control appears: a restored directory that could be started is a standby already
      prepare: async (restored, controlFile) => {
        const commands = await install(request.installation, restored, stateDir);
        const control = parseControlFile(await readFile(controlFile));
        const configFile = path.join(restored, 'postgresql.conf');
        const target = { path: restored, configFile, control };
        const done = await makeStandby(target, commands, request.parameters, statePaths(stateDir));
        made = { ...done, notices: [...found, ...done.notices] };
      },
    });
    const pgdata = await realpath(target);
    await register(cluster, request.node, pgdata, backup.startSegment, made.mode);
    return { pgdata, stateDir, ...made, firstSegment: backup.startSegment, backup };
  } finally {
    keeper.stop();
    // registered, the node's restart point holds; failed, nothing is needed any more
    await dropHold(cluster, holdId).catch(() => {});
  }
}

export type ConfigureStandbyRequest = {
  node: string;
  pgdata: string;
  installation: Installation;
  parameters: StandbyParameters;
};

/**
 * Makes a data directory that lies there already (a base backup taken by hand, a copied standby, a former standby) follow the vault:
 * empties pg_wal, sets signal file and parameters.
 *
 * @throws VaultError refused (a server runs; the vault's primary; another database; WAL that the vault lacks) | pgdata | usage | local
 */
export async function configureStandby(cluster: Cluster, request: ConfigureStandbyRequest): Promise<Standby> {
  const pgdata = await readPgdata(request.pgdata);
  checkDatabase(cluster, pgdata);
  refuseRunning(pgdata);
  await checkNode(cluster, request.node, pgdata);
  const stateDir = request.installation.stateDir ?? stateDirOf(pgdata.path);
  // a detached server has written a branch of its own: its numbers look like the vault's, its bytes are not
  checkAttached(statePaths(stateDir));
  checkCommands(commandsOf(stateDir));
  await checkStandbyParameters(request.parameters, pgdata.majorVersion);
  const firstSegment = await firstSegmentOf(cluster, pgdata);
  await refuseGapAfter(cluster, pgdata.path, segmentStart(firstSegment, cluster.segmentSize));
  const holdId = `standby-${newId()}`;
  const at = new Date().toISOString();
  await addHold(cluster, holdId, { kind: 'standby', from: firstSegment, node: request.node, at });
  const keeper = keepHolding(cluster, holdId);
  try {
    const commands = await install(request.installation, pgdata.path, stateDir);
    const made = await makeStandby(pgdata, commands, request.parameters, statePaths(stateDir));
    // Somebody may have started it since the first look, and its WAL is about to go; from here on a start is one of a standby.
    refuseRunning(await readPgdata(pgdata.path));
    await clearWalDirectory(pgdata.walDirectory);
    await register(cluster, request.node, pgdata.path, firstSegment, made.mode);
    return { pgdata: pgdata.path, stateDir, ...made, firstSegment };
  } finally {
    keeper.stop();
    await dropHold(cluster, holdId).catch(() => {});
  }
}

/**
 * From `lsn` on the live branch must be whole: who begins there would stop before the gap for ever.
 *
 * @param whom  what begins there, for the message
 * @throws VaultError refused
 */
export async function refuseGapAfter(cluster: Cluster, whom: string, lsn: Lsn): Promise<void> {
  const branch = await readBranch(cluster);
  const gap = gapAfter(await readLiveGaps(cluster, branch), lsn);
  if (gap === undefined) return;
  throw new VaultError(
    'refused',
    `${whom} begins at ${formatLsn(lsn)}, before a declared gap: ${gapText(gap)} (${gap.reason}) was never archived`,
    {
      hint: `Nothing that begins there gets past the gap. Take a new base backup on the primary, with archiving on: 'walvault backup'; 'walvault status' says whether one is needed.`,
    },
  );
}

/** The primary of the vault must not become a standby of itself, by its name or by its place. */
async function checkNode(cluster: Cluster, node: string, pgdata?: Pgdata): Promise<void> {
  const control = await readControl(cluster);
  if (control.primary === node) {
    throw new VaultError('refused', `${node} is the primary of ${cluster.name} (epoch ${control.epoch})`, {
      hint: 'Give the new standby a --node name of its own.',
    });
  }
  if (pgdata === undefined || control.primary === null) return;
  const row = (await cluster.vault.manifest.get(keys.node(cluster.partition, control.primary))) as unknown as
    NodeRow | undefined;
  if (row?.place !== placeOf(pgdata.path)) return;
  throw new VaultError(
    'refused',
    `${pgdata.path} is the data directory of ${control.primary}, the primary of ${cluster.name}`,
    {
      hint: 'Trigger another node first, or give the --pgdata of the standby.',
    },
  );
}

/**
 * Where recovery will begin, and that the vault has it: pg_wal is about to be emptied.
 *
 * A copy made with pg_backup_start has a backup_label; a server that was a standby, or was stopped cleanly, begins at its last
 * checkpoint. A primary that crashed, or a copy without a label, is whole only together with its own pg_wal.
 */
async function firstSegmentOf(cluster: Cluster, pgdata: Pgdata): Promise<string> {
  const { control } = pgdata;
  const label = await readText(path.join(pgdata.path, 'backup_label'));
  const named = /^START WAL LOCATION: \S+ \(file ([0-9A-F]{24})\)/m.exec(label ?? '')?.[1];
  if (named !== undefined && isSegmentName(named)) return named;
  const isStandby = (await recoveryMode(pgdata.path)) !== 'none' || control.stateText.includes('recovery');
  if (!isStandby && control.stateText !== 'shut down') {
    throw new VaultError(
      'refused',
      `${pgdata.path} is no copy that a standby can begin from (${control.stateText}, no backup_label)`,
      {
        hint: `Make one from the vault: 'walvault standby create' into an empty directory.`,
      },
    );
  }
  const size = BigInt(cluster.segmentSize);
  const needed = (control.checkpointLsn / size + 1n) * size;
  if (!(await hasWalUpTo(cluster, control.timeline, needed))) {
    throw new VaultError(
      'refused',
      `the vault lacks the WAL at the last checkpoint of ${pgdata.path}, ${formatLsn(control.checkpointLsn)}`,
      {
        hint: `Make the standby from the vault: 'walvault standby create' into an empty directory.`,
      },
    );
  }
  return segmentAt(control.timeline, control.redoLsn, cluster.segmentSize);
}

function install(installation: Installation, pgdata: string, stateDir: string): Promise<Commands> {
  return withoutAgent(stateDir, async () => {
    await forgetPastLife(statePaths(stateDir));
    return installState({ ...installation, pgdata, stateDir });
  });
}

/** What a node that had this state directory before left there is of another life: its seal, its spool, its words. */
export async function forgetPastLife(paths: StatePaths): Promise<void> {
  const left = [
    paths.seal,
    paths.sealed,
    paths.reported,
    paths.detached,
    paths.refused,
    paths.served,
    paths.archiving,
    paths.ignored,
    paths.restartPoint,
    paths.now,
    paths.spool,
    paths.word,
  ];
  for (const place of left) await rm(place, { recursive: true, force: true });
}

async function register(
  cluster: Cluster,
  node: string,
  pgdata: string,
  firstSegment: string,
  mode: StandbyMode,
): Promise<void> {
  await reportNode(
    cluster,
    {
      name: node,
      role: 'standby',
      place: placeOf(pgdata),
      restartPoint: firstSegment,
      lastArchived: null,
      lastRestored: null,
      lastReplayedLsn: null,
      mode,
      consistent: false,
      trouble: null,
    },
    null,
  );
}

const placeOf = (pgdata: string): string => `${os.hostname()}:${pgdata}`;
