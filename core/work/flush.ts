/**
 * The flush of a primary: the server is stopped with everything it ever acknowledged in the vault, the shutdown checkpoint too, and
 * its next start is read-only. After it a trigger loses nothing, and this server can follow the new primary as it is.
 *
 *   look     this node is the vault's primary, archiving works, the server can be flushed                  nothing changed
 *   refuse   nobody new is let in; sessions end; segment switch; fast stop                 (flush-server.ts) undone on a failure
 *   commit   what waits goes to the vault; standby.signal; the shutdown checkpoint as tail and latch        in this order
 *   relay    wait until the vaults that follow this one have all of it, too                      (wait-relay.ts) the flush stands
 *
 * May be run again after a kill at any place: it looks up what stands. standby.signal comes before the latch, and `undoFlush` ends
 * the latch before standby.signal: a server that starts as the primary is one that the vault does not hold for flushed.
 *
 * docs/design.md, "Changing roles"; the rules were explored in a model of flush, switchover and undo.
 */
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { inState, VaultError, type FailureCode } from '../errors.ts';
import { controlLine } from '../postgres/control-words.ts';
import { leaseOf } from '../cluster/lease.ts';
import { archivingOff, decideUndo } from '../cluster/decide-flush.ts';
import { decideWriter, tailSegment } from '../cluster/decide-archive.ts';
import {
  readControl as readControlFile,
  readPgdata,
  runningServer,
  type Pgdata,
} from '../postgres/pgdata.ts';
import type { ConnectOptions } from '../postgres/sql.ts';
import { hasSignalFile, removeSignalFile, writeSignalFile } from '../postgres/signal-files.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { readControl, readHead, type Cluster, readNode } from './cluster.ts';
import { checkDatabase } from './configure.ts';
import { crashPoint } from './crash-points.ts';
import { stopForFlush, type EndedSessions, type FlushStep } from './flush-server.ts';
import { heartbeat } from './heartbeat.ts';
import { readIgnored, readLocalWord } from './local-off.ts';
import { checkIdentity, stateDirOf, statePaths, writerStore, type StatePaths } from './node-state.ts';
import { endRefusal, withFlushLock } from './refuse-connections.ts';
import { setMaintenance } from './maintenance.ts';
import { findLogs, saveLogs } from './save-logs.ts';
import { archiveWaiting, shutdownCheckpoint } from './stopped-wal.ts';
import { commitTail, undoFlush } from './tail.ts';
import { checkRelays, untilRelayed, type RelayWaitStep } from './wait-relay.ts';
import { withoutAgent } from './without-agent.ts';
import { settle, writerOf, type WriterSeat } from './writer.ts';

/** DBState "shut down". */
const SHUT_DOWN = 1;

/** After these the tail is certainly not in the vault, and the server may go on as the primary. */
const SURELY_NOT: readonly FailureCode[] = ['hole', 'refused', 'corrupt', 'conflict', 'local', 'pgdata'];

export type NodeRequest = { node: string; pgdata: string; stateDir?: string };

export type FlushRequest = NodeRequest & {
  connection: Omit<ConnectOptions, 'pgdata'>;
  /** How long other sessions may go on with what they do, ms. */
  graceMs: number;
  /** How long nothing may arrive in the vault, and how long the stop may take, ms. */
  waitMs: number;
  zstdLevel: number;
  /** Keep the server's log files in the vault, too. */
  logs?: boolean;
  /** The last word before anything is changed. @throws what forbids the flush */
  check?(): Promise<void>;
  /** Do not wait for the vaults that follow this one. */
  withoutDr?: boolean;
  signal?: AbortSignal;
  onStep?: (step: FlushStep | RelayWaitStep) => void;
};

export type Flushed = {
  /** It stood already when this was called. */
  already: boolean;
  /** End of the shutdown checkpoint, and the segment it lies in. */
  lsn: string;
  segment: string;
  timeline: number;
  epoch: number;
  sessions: EndedSessions;
  /** Since nobody is let in (performance.now()); undefined where this call did not stop the server. */
  refusedAtMs?: number;
  /** Keys of the log files that were kept; undefined where that was not asked for. */
  logs?: string[];
  /** The vaults that have all of it, too; undefined where they were not waited for. */
  relayedTo?: string[];
};

type Place = { pgdata: Pgdata; stateDir: string; seat: WriterSeat };

/**
 * Flushes the primary of `request.pgdata`; one that was stopped cleanly, or whose flush was broken off, is flushed the rest of the way.
 * Then waits until the vaults that follow this one have it all (`withoutDr`: not).
 *
 * @throws VaultError  why not; the hint begins with the state in which the server is left
 */
export async function flushPrimary(cluster: Cluster, request: FlushRequest): Promise<Flushed> {
  const flushed = await flushHere(cluster, request);
  if (request.withoutDr === true) return flushed;
  const goal = { timeline: flushed.timeline, lsn: parseLsn(flushed.lsn) };
  try {
    return { ...flushed, relayedTo: await untilRelayed(cluster, goal, request) };
  } catch (error) {
    throw inState(
      error,
      `${request.node} is flushed and stopped: that stands. The same command again waits on; 'walvault flush --undo' goes back.`,
      'broken off while the DR vault was waited for',
    );
  }
}

async function flushHere(cluster: Cluster, request: FlushRequest): Promise<Flushed> {
  const place = await openPlace(cluster, request);
  const { pgdata, stateDir } = place;
  return withFlushLock(stateDir, () =>
    onPurpose(cluster, async () => {
      await endRefusal(stateDir); // of a flush that was killed
      const standing = await standingFlush(cluster, place);
      if (standing !== undefined) return standing;
      await checkWriter(cluster, place.seat);
      checkLocal(statePaths(stateDir), request.node);
      const logs = request.logs === true ? await findLogs(pgdata) : undefined;
      try {
        const stopped = pgdata.running === undefined ? undefined : await stopRunning(cluster, place, request);
        const done = await withoutAgent(stateDir, () => commitStopped(cluster, place, request));
        const flushed = { ...done, sessions: { idle: 0, terminated: 0 }, ...stopped };
        return logs === undefined ? flushed : { ...flushed, logs: await keepLogs(cluster, request, logs) };
      } catch (error) {
        await endRefusal(stateDir);
        throw await withState(error, pgdata.path);
      }
    }),
  );
}

/** A stop that takes long must not pass for a failure; one that was killed keeps the witness off no longer than this, ms. */
const ON_PURPOSE_MS = 30 * 60_000;
const BY_FLUSH = 'flush';

/**
 * With the witness told that the primary is stopped on purpose, until the flush stands in the vault, which it goes by as well. Only where the
 * primary has a lease: without one nobody triggers by himself. A key that may not say it flushes all the same.
 */
async function onPurpose<T>(cluster: Cluster, work: () => Promise<T>): Promise<T> {
  const isSaid = await sayPurpose(cluster).catch((error: unknown) => {
    if (!(error instanceof VaultError)) throw error;
    return false;
  });
  try {
    return await work();
  } finally {
    if (isSaid) await setMaintenance(cluster, undefined, BY_FLUSH).catch(() => {});
  }
}

async function sayPurpose(cluster: Cluster): Promise<boolean> {
  const control = await readControl(cluster);
  const row = control.primary === null ? undefined : await readNode(cluster, control.primary);
  const at = new Date();
  const standing = control.maintenance;
  if (leaseOf(control, row) === undefined || control.role !== 'active') return false;
  if (standing && standing.by !== BY_FLUSH && Date.parse(standing.until) > at.getTime()) return false;
  const until = new Date(at.getTime() + ON_PURPOSE_MS).toISOString();
  return (await setMaintenance(cluster, { at: at.toISOString(), until, by: BY_FLUSH })).changed;
}

/** The flush is done by then: a log that cannot be kept is said, and is no failure of it. */
async function keepLogs(cluster: Cluster, request: FlushRequest, files: string[]): Promise<string[]> {
  const say = request.onStep ?? (() => {});
  try {
    const logs = await saveLogs(cluster, request.node, files);
    say({ step: 'logs', files: logs.length });
    return logs;
  } catch (error) {
    if (!(error instanceof VaultError)) throw error;
    say({ step: 'no logs', why: error.message });
    return [];
  }
}

async function stopRunning(
  cluster: Cluster,
  { pgdata, stateDir, seat }: Place,
  request: FlushRequest,
): Promise<{ sessions: EndedSessions; refusedAtMs: number }> {
  if (await hasSignalFile(pgdata.path, 'standby.signal'))
    throw new VaultError(
      'refused',
      `the server on ${pgdata.path} runs read-only: a flush of it was broken off`,
      {
        hint: `Stop it, run 'walvault flush --undo', start it, and flush it again.`,
      },
    );
  const stopped = await stopForFlush(cluster, {
    ...request,
    pgdata,
    stateDir,
    connection: { ...request.connection, pgdata: pgdata.path },
    async check(when) {
      if (when === 'first' && request.withoutDr !== true) await checkRelays(cluster, request);
      if (when === 'first') await request.check?.();
      await checkWriter(cluster, seat);
    },
  });
  await endRefusal(stateDir); // the server is down: only its mark is left
  return stopped;
}

/** The server is down. What is left in pg_wal goes to the vault, the shutdown checkpoint last. */
async function commitStopped(
  cluster: Cluster,
  { pgdata, seat }: Place,
  request: FlushRequest,
): Promise<Omit<Flushed, 'sessions'>> {
  const say = request.onStep ?? (() => {});
  await checkShutDown(pgdata.path);
  const files = await archiveWaiting(cluster, pgdata.walDirectory, seat, request);
  say({ step: 'archived', files });
  crashPoint('flush-archived');
  const tail = await shutdownCheckpoint(cluster, pgdata);
  // last look: from here on an answer that is lost leaves standby.signal where it is
  await checkWriter(cluster, seat);
  request.signal?.throwIfAborted();
  await writeSignalFile(pgdata.path, 'standby.signal');
  crashPoint('flush-signal');
  try {
    await checkStillStopped(pgdata.path, tail.lsn);
    await commitTail(cluster, seat, tail, 'flush');
  } catch (error) {
    if (error instanceof VaultError && SURELY_NOT.includes(error.code))
      await removeSignalFile(pgdata.path, 'standby.signal');
    throw error;
  }
  crashPoint('flush-committed');
  const { epoch, timeline } = await readHead(cluster);
  const lsn = formatLsn(tail.lsn);
  say({ step: 'committed', segment: tail.segment, lsn });
  return { already: false, lsn, segment: tail.segment, timeline, epoch };
}

/** The flush that stands in the vault, where it is of this server as it is; undefined: none stands. @throws VaultError refused */
async function standingFlush(cluster: Cluster, { pgdata, seat }: Place): Promise<Flushed | undefined> {
  const [control, head] = await Promise.all([readControl(cluster), readHead(cluster)]);
  if (head.flush === null || head.tail === null || control.primary !== seat.node) return undefined;
  const { lsn } = head.flush;
  if (!(await hasSignalFile(pgdata.path, 'standby.signal'))) {
    const found = pgdata.running === undefined ? await readControlFile(pgdata.path) : undefined;
    const stopped = found?.state === SHUT_DOWN ? await shutdownCheckpoint(cluster, pgdata) : undefined;
    if (stopped === undefined || formatLsn(stopped.lsn) !== lsn)
      throw new VaultError(
        'refused',
        `${seat.node} was flushed at ${lsn}, but its server has gone on since`,
        {
          hint: `'walvault flush --undo' lets it archive again; then flush it again.`,
        },
      );
    await writeSignalFile(pgdata.path, 'standby.signal');
  }
  return {
    already: true,
    lsn,
    segment: tailSegment(head, cluster.segmentSize) ?? '',
    timeline: head.tail.timeline,
    epoch: control.epoch,
    sessions: { idle: 0, terminated: 0 },
  };
}

export type Undone = {
  /** A flush stood in the vault and was ended. */
  undone: boolean;
  /** standby.signal was there: the next start is that of a primary again. */
  removedSignal: boolean;
};

/**
 * Backs out of a flush: the vault first, by the same condition that a trigger has, and only then standby.signal. May be run again.
 *
 * @throws VaultError fenced (a trigger was faster) | refused (the server runs read-only) | copied | unreachable
 */
export async function undoFlushHere(cluster: Cluster, request: NodeRequest): Promise<Undone> {
  const { pgdata, stateDir, seat } = await openPlace(cluster, request);
  return withFlushLock(stateDir, async () => {
    await endRefusal(stateDir);
    const removedSignal = await hasSignalFile(pgdata.path, 'standby.signal');
    const [control, head] = await Promise.all([readControl(cluster), readHead(cluster)]);
    const decision = decideUndo(control, head, seat.node);
    if (decision.do === 'refuse')
      throw new VaultError(decision.code, decision.message, { hint: decision.hint });
    if (removedSignal && pgdata.running !== undefined)
      throw new VaultError('refused', `the server on ${pgdata.path} runs, read-only`, {
        hint: `Stop it first: pg_ctl -D '${pgdata.path}' stop`,
      });
    return withoutAgent(stateDir, async () => {
      await checkWriter(cluster, seat, { evenFlushed: true });
      const undone = await undoFlush(cluster, seat.node);
      // Moves head's revision, by this node's own nonce: the commit of a flush whose answer was lost can land no more.
      await heartbeat(cluster, { name: seat.node }, seat);
      crashPoint('flush-undone');
      await removeSignalFile(pgdata.path, 'standby.signal');
      return { undone, removedSignal };
    });
  });
}

async function openPlace(cluster: Cluster, request: NodeRequest): Promise<Place> {
  const pgdata = await readPgdata(request.pgdata);
  checkDatabase(cluster, pgdata);
  const stateDir = path.resolve(request.stateDir ?? stateDirOf(pgdata.path));
  const paths = statePaths(stateDir);
  checkIdentity(paths);
  const { node } = request;
  return {
    pgdata,
    stateDir,
    seat: { node, place: `${os.hostname()}:${pgdata.path}`, store: writerStore(paths) },
  };
}

/** May this node write? The agent may swap the nonce between two looks: "copied" is asked again. @throws VaultError fenced | copied | refused */
async function checkWriter(
  cluster: Cluster,
  seat: WriterSeat,
  options: { evenFlushed?: boolean } = {},
): Promise<void> {
  for (let left = 5; ; left -= 1) {
    const [control, head] = await Promise.all([readControl(cluster), readHead(cluster)]);
    const state = settle(seat.store.read() ?? { epoch: 0, nonce: '', next: null }, head);
    const seen = options.evenFlushed === true ? { ...head, flush: null } : head;
    const refusal =
      decideWriter(control, seen, writerOf(seat, state)) ?? (control.archiving ? undefined : archivingOff());
    if (refusal === undefined) return;
    if (refusal.code !== 'copied' || left === 0)
      throw new VaultError(refusal.code, refusal.message, { hint: refusal.hint });
    await sleep(100);
  }
}

/** @throws VaultError refused */
function checkLocal(paths: StatePaths, node: string): void {
  if (readLocalWord(paths) === undefined && readIgnored(paths).length === 0) return;
  throw new VaultError(
    'refused',
    `archiving is off on ${node}, by --local, or what it ignored is not declared yet`,
    {
      hint: `Run 'walvault archiving on --local' here; 'walvault archiving status' shows when all is declared.`,
    },
  );
}

async function checkShutDown(pgdata: string): Promise<void> {
  const { state, stateText } = await readControlFile(pgdata);
  if (state === SHUT_DOWN) return;
  const readOnly = await hasSignalFile(pgdata, 'standby.signal');
  throw new VaultError('refused', `the server was not stopped cleanly: pg_control says '${stateText}'`, {
    hint: readOnly
      ? `It was started read-only after a flush that was broken off: run 'walvault flush --undo', start it, and flush it again.`
      : `Start it, so that it recovers, and flush it again.`,
  });
}

/**
 * With standby.signal in its place no start takes writes any more. One that came before it did: a service manager, or a person, may have
 * found the server down.
 *
 * @param ends  of the shutdown checkpoint that is about to be committed
 * @throws VaultError refused
 */
async function checkStillStopped(pgdata: string, ends: Lsn): Promise<void> {
  const running = await runningServer(pgdata);
  const { state, checkpointLsn } = await readControlFile(pgdata);
  if (running === undefined && state === SHUT_DOWN && checkpointLsn < ends) return;
  throw new VaultError('refused', `the server on ${pgdata} was started again while it was flushed`, {
    hint: `Whoever starts it (a service manager) must leave it alone until the flush is done; then flush it again.`,
  });
}

/** The failure, with the state in which the server is left. */
async function withState(error: unknown, pgdata: string): Promise<unknown> {
  const aborted = error instanceof Error && error.name === 'AbortError';
  if (!aborted && !(error instanceof VaultError)) return error;
  const state = await stateInWords(pgdata).catch(
    (cause: unknown) => `the state of the server is unknown: ${String(cause)}`,
  );
  if (error instanceof VaultError && error.code === 'fenced') return error; // its own hint says it all
  return inState(error, state, 'the flush was broken off');
}

async function stateInWords(pgdata: string): Promise<string> {
  const { running } = await readPgdata(pgdata, { anyOwner: true });
  if (running?.status === 'stopping')
    return `The server is still stopping, which cannot be taken back; nothing is flushed. Once it has stopped, run 'walvault flush' again, or start it as the primary. If it never ends: pg_ctl -D '${pgdata}' stop -m immediate, then start it; nothing is lost.`;
  if (running !== undefined) return 'Nothing is flushed: the server runs and takes connections.';
  if (!(await hasSignalFile(pgdata, 'standby.signal')))
    return `Nothing is flushed: the server is stopped and may be started as the primary, as if nothing had been: ${controlLine(pgdata, 'start')}. Or run 'walvault flush' again: it goes on from here.`;
  return `The server is stopped, and its next start is read-only. Run 'walvault flush' again to go on, or 'walvault flush --undo' to go back.`;
}
