/**
 * The old primary comes back: as a standby as it is where all it has is on the live branch, else rewound by pg_rewind, else made anew from
 * the vault with the old directory moved aside. What it had not archived is salvaged first, whichever way it goes.
 */
import { copyFile, mkdir, readdir, rename, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import {
  decideRejoin,
  type LocalServer,
  type RejoinDecision,
  type RejoinFacts,
  type VaultFacts,
} from '../cluster/decide-rejoin.ts';
import { readConfFiles } from '../postgres/conf-files.ts';
import { syncDirectory } from '../postgres/durable-write.ts';
import { readPgdata, type Pgdata } from '../postgres/pgdata.ts';
import { findRewind, rewind } from '../postgres/rewind.ts';
import { findBinDir } from '../postgres/server.ts';
import { removeSignalFile, writeSignalFile } from '../postgres/signal-files.ts';
import { formatLsn } from '../wal/lsn.ts';
import { segmentAt, segmentStart } from '../wal/name.ts';
import type { Branch } from './branch.ts';
import { newId, putEvent, type Cluster } from './cluster.ts';
import { checkCommands, checkDatabase } from './configure.ts';
import { reportNode } from './heartbeat.ts';
import { addHold, dropHold, keepHolding } from './holds.ts';
import {
  compareWithVault,
  isThere,
  readLocalServer,
  readLocalWal,
  rewindMark,
  type LocalWal,
} from './local-wal.ts';
import { readDetached, removeDurably, replaceDurably, statePaths, type StatePaths } from './node-state.ts';
import { refuseRunning, salvage, type Salvaged } from './salvage.ts';
import { planAside, setAside } from './set-aside.ts';
import { createStandby, forgetPastLife, type CreateStandbyRequest } from './standby.ts';
import { checkStandbyParameters, makeStandby, type Made } from './standby-files.ts';
import { readVaultFacts } from './vault-facts.ts';
import { withoutAgent } from './without-agent.ts';
import type { WriterSeat } from './writer.ts';
import { commandsOf, installState } from './wrappers.ts';

export type RejoinRequest = Omit<CreateStandbyRequest, 'target'> & {
  seat: WriterSeat;
  pgdata: Pgdata;
  stateDir: string;
  zstdLevel: number;
  /** Connection string of the new primary, for pg_rewind; undefined: a new standby from the vault instead. */
  sourceServer?: string;
  /** Make it anew even where it could be rewound. */
  replaceOnly: boolean;
  /** One line a step, for people. */
  onStep?: (text: string) => void;
};

export type RejoinPlan = {
  decision: Exclude<RejoinDecision, { do: 'refuse' }>;
  how: 'keep' | 'rewind' | 'replace';
  /** Why it cannot be rewound, where it is to be replaced. */
  whyNotRewind: string | null;
  wal: LocalWal;
  branch: Branch;
  control: VaultFacts['control'];
};

export type Rejoined = {
  how: RejoinPlan['how'];
  mode: Made['mode'];
  pgdata: string;
  salvaged: Salvaged;
  /** Where files of pg_wal were moved to; null: none was. */
  setAside: string | null;
  /** Where the old data directory lies now; null: it is the one that goes on. */
  movedAside: string | null;
  notices: string[];
};

/**
 * Looks, and changes nothing.
 *
 * @throws VaultError refused (a server runs; the primary of this epoch; another database) | pgdata | unreachable
 */
export async function planRejoin(
  cluster: Cluster,
  request: Pick<RejoinRequest, 'pgdata' | 'stateDir' | 'node' | 'sourceServer' | 'replaceOnly'>,
): Promise<RejoinPlan> {
  const { pgdata, node } = request;
  checkDatabase(cluster, pgdata);
  refuseRunning(pgdata);
  const local = await readLocalServer(pgdata, statePaths(request.stateDir), node);
  const wal = await readLocalWal(pgdata);
  const { facts: vault, branch } = await readVaultFacts(cluster, wal.timeline);
  const compared: RejoinFacts['compared'][number][] = [];
  for (const segment of wal.segments) {
    if (!segment.onBranch) continue;
    const held = await compareWithVault(cluster, branch, pgdata, segment);
    const begins = segmentStart(segment.name, cluster.segmentSize);
    compared.push({ name: segment.name, begins, ends: segment.ends, held });
  }
  const decision = decideRejoin({ local, ends: wal.ends, lastRecord: wal.lastRecord, compared }, vault);
  if (decision.do === 'refuse')
    throw new VaultError(decision.code, decision.message, { hint: decision.hint });
  const base = { decision, wal, branch, control: vault.control };
  if (decision.do === 'keep' && !request.replaceOnly) return { ...base, how: 'keep', whyNotRewind: null };
  const whyNotRewind = await whyNoRewind(request, local);
  return { ...base, how: whyNotRewind === null ? 'rewind' : 'replace', whyNotRewind };
}

async function whyNoRewind(
  request: Pick<RejoinRequest, 'pgdata' | 'sourceServer' | 'replaceOnly'>,
  local: LocalServer,
): Promise<string | null> {
  const { pgdata } = request;
  if (request.replaceOnly) return 'it was asked for (--replace)';
  if (local.isHalfRewound) return 'pg_rewind was broken off here before';
  if (request.sourceServer === undefined)
    return 'no connection to the new primary was given (--source-server)';
  const binDir = await findBinDir(pgdata.majorVersion, undefined);
  if ((await findRewind(binDir)) === undefined)
    return `there is no pg_rewind of PostgreSQL ${pgdata.majorVersion} here`;
  const hints = (await readConfFiles(pgdata.path, pgdata.configFile)).get('wal_log_hints');
  if (!pgdata.control.dataChecksums && !/^(on|true|yes|1)$/i.test(hints ?? ''))
    return 'pg_rewind needs data checksums or wal_log_hints = on';
  return null;
}

/**
 * Does it. Broken off, the same command goes on: each step finds what was done before.
 *
 * @throws VaultError as planRejoin, and refused | absent | corrupt | local of a new standby
 */
export async function rejoin(cluster: Cluster, request: RejoinRequest, plan: RejoinPlan): Promise<Rejoined> {
  const say = request.onStep ?? (() => {});
  const { pgdata, seat, stateDir, zstdLevel } = request;
  checkCommands(commandsOf(stateDir));
  await checkStandbyParameters(request.parameters, cluster.majorVersion);
  const salvaged = await withoutAgent(stateDir, () =>
    // what was written for a test is nobody's loss, and a detached server writes nothing to this vault
    readDetached(statePaths(stateDir)) === undefined
      ? salvage(cluster, { seat, pgdata, zstdLevel })
      : nothingSalvaged(plan),
  );
  if (salvaged.files.length > 0)
    say(`salvaged ${salvaged.files.length} files, up to ${salvaged.endLsn} on timeline ${salvaged.timeline}`);
  const result = { how: plan.how, pgdata: pgdata.path, salvaged };
  let made: Pick<Rejoined, 'notices' | 'mode' | 'setAside' | 'movedAside'>;
  if (plan.how === 'keep') made = await keep(cluster, request, plan);
  else if (plan.how === 'rewind') {
    const failure = await rewindIt(cluster, request, say);
    if (typeof failure !== 'string') made = failure;
    else {
      say(`pg_rewind: ${failure}; a new standby is made from the vault instead`);
      made = await replace(cluster, request, say);
      result.how = 'replace';
    }
  } else made = await replace(cluster, request, say);
  await putEvent(cluster, {
    kind: 'rejoin',
    node: request.node,
    epoch: plan.control.epoch,
    text: `${request.node} rejoined as a standby (${result.how}): ${plan.decision.why}`,
  });
  return { ...result, ...made };
}

async function nothingSalvaged({ wal }: RejoinPlan): Promise<Salvaged> {
  return { into: 'nothing', epoch: 0, files: [], endLsn: formatLsn(wal.ends), timeline: wal.timeline };
}

async function keep(
  cluster: Cluster,
  request: RejoinRequest,
  plan: RejoinPlan,
): Promise<Pick<Rejoined, 'notices' | 'mode' | 'setAside' | 'movedAside'>> {
  const { pgdata, stateDir } = request;
  const aside = await planAside(cluster, plan.branch, pgdata, plan.wal);
  return withHold(cluster, request, pgdata, () =>
    withoutAgent(stateDir, async () => {
      // first of all: whatever happens after it, a start is read-only
      await writeSignalFile(pgdata.path, 'standby.signal');
      refuseRunning(await readPgdata(pgdata.path)); // started since it was looked at: its WAL must stay where it is
      const moved = await setAside(pgdata.walDirectory, stateDir, aside, new Date());
      const { notices, mode } = await becomeStandby(request, pgdata);
      return { notices, mode, setAside: moved ?? null, movedAside: null };
    }),
  );
}

/** @returns its words where pg_rewind failed: then only a new standby is left */
async function rewindIt(
  cluster: Cluster,
  request: RejoinRequest,
  say: (text: string) => void,
): Promise<Pick<Rejoined, 'notices' | 'mode' | 'setAside' | 'movedAside'> | string> {
  const { pgdata, stateDir, sourceServer = '' } = request;
  const program = await findRewind(await findBinDir(pgdata.majorVersion, undefined));
  if (program === undefined) return 'pg_rewind is gone';
  const paths = statePaths(stateDir);
  const kept = path.join(stateDir, 'kept-configuration');
  return withoutAgent(stateDir, async () => {
    await copyConfiguration(pgdata.path, kept);
    // its crash recovery, in single-user mode, refuses to begin with one
    await removeSignalFile(pgdata.path, 'standby.signal');
    replaceDurably(rewindMark(paths), `${new Date().toISOString()}\n`);
    say('pg_rewind works; broken off, the next rejoin makes a new standby');
    const { path: target, configFile } = pgdata;
    const failure = await rewind({
      program,
      pgdata: target,
      configFile,
      source: sourceServer,
      workDirectory: stateDir,
    });
    if (failure !== undefined) return failure;
    // it brought those of the new primary: port, paths and commands there are not ours
    await copyConfiguration(kept, target);
    const rewound = await readPgdata(target);
    const made = await withHold(cluster, request, rewound, async () => {
      const { notices, mode } = await becomeStandby(request, rewound);
      return { notices, mode, setAside: null, movedAside: null };
    });
    removeDurably(rewindMark(paths));
    await rm(kept, { recursive: true, force: true });
    return made;
  });
}

async function replace(
  cluster: Cluster,
  request: RejoinRequest,
  say: (text: string) => void,
): Promise<Pick<Rejoined, 'notices' | 'mode' | 'setAside' | 'movedAside'>> {
  const { pgdata, stateDir, seat } = request;
  const paths = statePaths(stateDir);
  refuseRunning(await readPgdata(pgdata.path)); // started since it was looked at
  const movedAside = `${pgdata.path}.${new Date().toISOString().replace(/[-:]|\.\d+/g, '')}`;
  try {
    await rename(pgdata.path, movedAside);
    await syncDirectory(path.dirname(pgdata.path));
  } catch (cause) {
    throw new VaultError(
      'local',
      `cannot move ${pgdata.path} to ${movedAside}: ${(cause as Error).message}`,
      {
        cause,
        hint: `Where it is a mount point, move its contents by hand, then run 'walvault standby create'.`,
      },
    );
  }
  say(`the old data directory lies in ${movedAside} now`);
  try {
    const made = await createStandby(cluster, { ...request, target: pgdata.path });
    forgetWriter(seat, paths);
    // a node keeps its own configuration: memory, addresses, who is let in
    await copyConfiguration(movedAside, made.pgdata);
    const fresh = await readPgdata(made.pgdata);
    const { notices, mode } = await makeStandby(fresh, commandsOf(stateDir), request.parameters, paths);
    removeDurably(rewindMark(paths));
    return { notices, mode, setAside: null, movedAside };
  } catch (error) {
    if (await isThere(pgdata.path)) throw withHint(error, movedAside);
    await rename(movedAside, pgdata.path); // nothing was made yet: as it was
    throw error;
  }
}

function withHint(error: unknown, movedAside: string): unknown {
  if (!(error instanceof VaultError)) return error;
  return new VaultError(error.code, error.message, {
    cause: error,
    hint: `The old data directory lies in ${movedAside}; 'walvault standby create' with the same --pgdata goes on. ${error.hint ?? ''}`.trim(),
  });
}

/** State directory, parameters, signal file; the writer's past is forgotten. */
async function becomeStandby(request: RejoinRequest, pgdata: Pgdata): Promise<Made> {
  const paths = statePaths(request.stateDir);
  await forgetPastLife(paths);
  forgetWriter(request.seat, paths);
  const commands = await installState({
    ...request.installation,
    pgdata: pgdata.path,
    stateDir: request.stateDir,
  });
  return makeStandby(pgdata, commands, request.parameters, paths);
}

/** What made it a primary: epoch and nonce, and the timeline it opened. It is one again only by a promotion of its own. */
function forgetWriter(seat: WriterSeat, paths: StatePaths): void {
  if (seat.store.read() !== undefined) seat.store.write({ epoch: 0, nonce: '', next: null });
  removeDurably(paths.opened);
}

/** Holds the WAL it begins with until its row in the manifest does. */
async function withHold<T extends Pick<Made, 'mode'>>(
  cluster: Cluster,
  request: RejoinRequest,
  pgdata: Pgdata,
  work: () => Promise<T>,
): Promise<T> {
  const { control } = pgdata;
  const from = segmentAt(control.timeline, control.redoLsn, cluster.segmentSize);
  const holdId = `standby-${newId()}`;
  const at = new Date().toISOString();
  await addHold(cluster, holdId, { kind: 'standby', from, node: request.node, at });
  const keeper = keepHolding(cluster, holdId);
  try {
    const done = await work();
    await reportNode(cluster, {
      name: request.node,
      role: 'standby',
      place: `${os.hostname()}:${pgdata.path}`,
      restartPoint: from,
      lastArchived: null,
      lastRestored: null,
      lastReplayedLsn: null,
      mode: done.mode,
      consistent: false,
      trouble: null,
    });
    return done;
  } finally {
    keeper.stop();
    await dropHold(cluster, holdId).catch(() => {});
  }
}

/** The *.conf files of a data directory; what they include from elsewhere is not in it. */
async function copyConfiguration(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true, mode: 0o700 });
  for (const file of await readdir(from)) {
    if (file.endsWith('.conf')) await copyFile(path.join(from, file), path.join(to, file));
  }
  await syncDirectory(to);
}
