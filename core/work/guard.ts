/**
 * Before a start. First the half-done promotion, which needs no vault; then the question to the vault whether this server may start.
 *
 * The half-done promotion: PostgreSQL removes `standby.signal` before it has taken its new timeline for good. Killed between the two,
 * its next start would open read-write on the OLD timeline, with old names for new content (measured, 15 to 18).
 *
 * Told by: pg_control says "in archive recovery", no signal file, and no timeline of this server's own in its minimum recovery
 * point. A history file alone proves nothing: it is written first, the end-of-recovery record that makes it true comes later.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { decideGuard, type GuardDecision } from '../cluster/decide-rejoin.ts';
import { startLimit } from '../cluster/lease.ts';
import { readControl, readPgdata, runningServer, type Pgdata } from '../postgres/pgdata.ts';
import { recoveryMode, writeSignalFile } from '../postgres/signal-files.ts';
import { IN_ARCHIVE_RECOVERY } from '../wal/control-file.ts';
import { historyName, parseWalName } from '../wal/name.ts';
import { readControl as readVaultControl, type Cluster } from './cluster.ts';
import { reportNode } from './heartbeat.ts';
import { readLocalServer } from './local-wal.ts';
import {
  readDetached,
  readOpened,
  readOnlySignal,
  readSeal,
  statePaths,
  type StatePaths,
} from './node-state.ts';
import { restoreConnections } from './refuse-connections.ts';
import { withLimit } from '../vault/time-limit.ts';
import { bootMs } from './boot-clock.ts';
import { forgetLease, keepLease, readLease } from './lease-file.ts';
import { needWatchdog, renewLease, type LeaseTerms } from './lease.ts';
import { readVaultFacts } from './vault-facts.ts';
import { settle, writerOf, type WriterSeat } from './writer.ts';

export type GuardReport = {
  /** A half-done promotion was found and undone: the server starts read-only, as it was. */
  repaired: boolean;
  /** Removed from pg_wal (and archive_status): files of the timeline that was never born. */
  removed: string[];
  why: string;
};

/**
 * Makes a half-done promotion undone; everything else is left alone. May be run any number of times.
 *
 * @param pgdata  the real path
 * @param stateDir  where the gate may have left its word; '' where there is none
 * @throws VaultError refused (a server runs) | pgdata | local
 */
export async function guardPromotion(pgdata: string, stateDir = ''): Promise<GuardReport> {
  const running = await runningServer(pgdata);
  if (running !== undefined) {
    throw new VaultError('refused', `a server runs on ${pgdata} (pid ${running.pid})`, {
      hint: 'guard looks before a start; nothing was changed.',
    });
  }
  if (stateDir !== '') await restoreConnections(stateDir);
  const untouched = (why: string): GuardReport => ({ repaired: false, removed: [], why });
  if ((await recoveryMode(pgdata)) !== 'none') return untouched('a signal file says how the server starts');
  const refused = stateDir === '' ? undefined : await textOf(path.join(stateDir, 'refused'));
  const control = await readControl(pgdata);
  if (control.state !== IN_ARCHIVE_RECOVERY) return untouched(`the server was ${control.stateText}`);
  const taken = Math.max(control.timeline, control.minRecoveryTimeline);
  const unborn = await newerFiles(pgdata, taken);
  if (taken > control.timeline && (await isOwn(pgdata, stateDir, taken))) {
    return untouched(`timeline ${taken} was taken for good`);
  }
  // An agent that starts before its server makes this look, too: what is removed must not be what a server has just begun to write.
  if ((await runningServer(pgdata)) !== undefined) return untouched('a server was started meanwhile');
  await writeSignalFile(pgdata, stateDir === '' ? 'standby.signal' : readOnlySignal(statePaths(stateDir)));
  for (const file of unborn) await fs.promises.rm(file, { force: true });
  return {
    repaired: true,
    removed: unborn.map((file) => path.basename(file)),
    why: refused === undefined ? `a promotion broke off on timeline ${taken}` : refused.trim(),
  };
}

/**
 * Did this server open the timeline itself, rather than follow another's to it? Its own history waits to be archived, or is written
 * down as opened; a followed one came through restore_command and was marked done.
 */
async function isOwn(pgdata: string, stateDir: string, timeline: number): Promise<boolean> {
  const ready = path.join(pgdata, 'pg_wal', 'archive_status', `${historyName(timeline)}.ready`);
  if (fs.existsSync(ready)) return true;
  if (stateDir === '') return false;
  const paths = statePaths(stateDir);
  return readSeal(paths)?.reserved === timeline || readOpened(paths)?.timeline === timeline;
}

export type Admission =
  | Exclude<GuardDecision, { do: 'refuse' }>
  /** The vault did not answer in time: without a lease the server may start, unasked. */
  | { do: 'allow'; as: 'unasked'; why: string };

/**
 * Asks the vault whether the server may start: as a primary only where it holds the epoch, as a standby only where it has not diverged.
 *
 * @param open  opens the cluster; whatever keeps it from answering counts as silence
 * @param limitMs  how long the start of a server may wait for the vault
 * @throws VaultError fenced | copied (it must not start; with a lease also where the vault does not answer) | refused (no watchdog) | unreachable (its lease was renewed too slowly) | pgdata | local (its own files cannot be read)
 */
export async function admit(
  open: () => Promise<Cluster>,
  server: { pgdata: Pgdata; paths: StatePaths; seat: WriterSeat; lease?: LeaseTerms | undefined },
  limitMs: number,
): Promise<Admission> {
  const { paths, seat } = server;
  if (readDetached(paths) !== undefined)
    return {
      do: 'allow',
      as: 'recovery',
      why: 'detached: opened for a test, it can never write to this vault',
    };
  const local = await readLocalServer(await readPgdata(server.pgdata.path), paths, seat.node);
  const writer = seat.store.read() ?? { epoch: 0, nonce: '', next: null };
  const ask = async (): Promise<GuardDecision> => {
    const { facts } = await readVaultFacts(await open(), local.timeline);
    // killed between the open of its own epoch and the note of it
    const pending = writer.open ?? null;
    const mine =
      pending !== null && facts.head.writer?.nonce === pending.nonce
        ? { epoch: pending.epoch, nonce: pending.nonce, next: null }
        : settle(writer, facts.head);
    return decideGuard(local, writerOf(seat, mine), facts);
  };
  const over = new AbortController();
  const late = sleep(limitMs, undefined, { signal: over.signal }).then((): Admission => ({
    do: 'allow',
    as: 'unasked',
    why: `the vault did not answer within ${limitMs / 1000} s`,
  }));
  late.catch(() => {});
  const asked = ask().catch((error: unknown): Admission => {
    if (!(error instanceof VaultError)) throw error;
    return { do: 'allow', as: 'unasked', why: `the vault cannot be asked: ${error.message}` };
  });
  asked.catch(() => {});
  try {
    const answer = await Promise.race([asked, late]);
    if (answer.do === 'refuse') throw new VaultError(answer.code, answer.message, { hint: answer.hint });
    if (server.lease === undefined) {
      if (local.signal === 'none' && readLease(paths.lease) !== undefined)
        await endOldLease(open, server, answer);
    } else if (local.signal === 'none') await admitLeased(open, server, server.lease, answer);
    return answer;
  } finally {
    over.abort();
  }
}

/** How long the renewal before a start may take, ms: nobody waits for this server yet. */
const RENEWAL_MS = 10_000;

/**
 * With a lease the start as a primary is a renewal: a witness that has seen this node stand still for long is about to trigger, and one of
 * the two must fail. The watchdog runs before the server does.
 */
async function admitLeased(
  open: () => Promise<Cluster>,
  { paths, seat }: { paths: StatePaths; seat: WriterSeat },
  terms: LeaseTerms,
  answer: Admission,
): Promise<void> {
  if (answer.as === 'unasked')
    throw new VaultError(
      'fenced',
      `${answer.why}, and ${seat.node} has a lease: without the vault's word it must not start`,
      {
        hint: `It starts as soon as the vault answers; run it again, or have systemd do so.`,
      },
    );
  if (answer.as !== 'primary' || readSeal(paths) !== undefined) return;
  if (terms.watchdog === 'process' && isUnitProcess())
    throw new VaultError(
      'refused',
      `systemd ends what an ExecStartPre leaves behind: the watchdog would not live to see the server`,
      {
        hint: `under systemd the watchdog is a unit: watchdog = "systemd" (docs/systemd.md)`,
      },
    );
  const stateDir = path.resolve(paths.dir);
  await needWatchdog(paths, stateDir, terms);
  const { sentAt, lease } = await withLimit(RENEWAL_MS, 'renewing the lease', async () =>
    renewLease(await open(), seat, { name: seat.node }, terms),
  );
  keepLease(paths.lease, { sentAt, ms: terms.ms, epoch: lease.epoch });
  // one that was about to end, its server being gone, has not seen this lease
  await needWatchdog(paths, stateDir, terms, bootMs());
  const age = bootMs() - sentAt;
  if (age > startLimit(terms.ms))
    throw new VaultError(
      'unreachable',
      `the vault took ${(age / 1000).toFixed(1)} s to renew a lease of ${terms.ms / 1000} s: ${seat.node} would start with it nearly over`,
      { hint: `It starts as soon as the vault answers faster; run it again, or have systemd do so.` },
    );
}

/**
 * The lease was taken back while the server was down: the vault still has it, and a witness may be counting on its end. It goes there first, and
 * the start is asked for once more: a trigger that came before has named another by now, one that comes after finds the row changed.
 */
async function endOldLease(
  open: () => Promise<Cluster>,
  { paths, seat }: { paths: StatePaths; seat: WriterSeat },
  answer: Admission,
): Promise<void> {
  const refuse = (why: string, hint: string) => new VaultError('fenced', why, { hint });
  if (answer.as === 'unasked')
    throw refuse(
      `${answer.why}, and a lease of ${seat.node} may stand there: without the vault's word it must not start`,
      `it starts as soon as the vault answers. Where no witness may trigger, remove ${path.resolve(paths.lease)} and start it.`,
    );
  if (answer.as !== 'primary') return;
  const cluster = await open();
  await reportNode(cluster, { name: seat.node, lease: null });
  const { primary, epoch } = await readVaultControl(cluster);
  if (primary !== seat.node)
    throw refuse(`${primary ?? 'nobody'} holds epoch ${epoch}`, `run 'walvault rejoin' here`);
  forgetLease(paths.lease);
}

/** Is this what a unit of systemd executes, or the shell before it? systemd.exec(5), SYSTEMD_EXEC_PID; a person's shell may inherit it. */
function isUnitProcess(env: NodeJS.ProcessEnv = process.env): boolean {
  return [process.pid, process.ppid].includes(Number(env['SYSTEMD_EXEC_PID']));
}

/** Files of timelines above `taken`, the history files last: while one is there, a second run finds the rest. */
async function newerFiles(pgdata: string, taken: number): Promise<string[]> {
  const found: string[] = [];
  for (const dir of [path.join(pgdata, 'pg_wal', 'archive_status'), path.join(pgdata, 'pg_wal')]) {
    for (const file of await fs.promises.readdir(dir)) {
      const name = parseWalName(file.replace(/\.(ready|done)$/, ''));
      if (name !== undefined && name.timeline > taken) found.push(path.join(dir, file));
    }
  }
  return found.sort((left, right) => Number(left.endsWith('.history')) - Number(right.endsWith('.history')));
}

async function textOf(file: string): Promise<string | undefined> {
  return fs.promises.readFile(file, 'utf8').catch(() => undefined);
}
