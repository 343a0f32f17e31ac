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
import { readControl, readPgdata, runningServer, type Pgdata } from '../postgres/pgdata.ts';
import { recoveryMode, writeSignalFile } from '../postgres/signal-files.ts';
import { historyName, parseWalName } from '../wal/name.ts';
import type { Cluster } from './cluster.ts';
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
import { readVaultFacts } from './vault-facts.ts';
import { settle, writerOf, type WriterSeat } from './writer.ts';

/** DBState "in archive recovery". */
const IN_ARCHIVE_RECOVERY = 5;

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
 * @throws VaultError fenced | copied (it must not start) | pgdata | local (its own files cannot be read)
 */
export async function admit(
  open: () => Promise<Cluster>,
  server: { pgdata: Pgdata; paths: StatePaths; seat: WriterSeat },
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
    return answer;
  } finally {
    over.abort();
  }
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
