/**
 * Two small files of the state directory by which agent, guard and watchdog know of each other:
 *
 *   lease      until when the server may go on (written by who had the epoch confirmed: agent, guard)
 *   watchdog   the watchdog's sign of life, every quarter of a second
 *
 * Each has a fixed length and is overwritten in place by one write, never replaced: on a full disk, which is when pg_wal is full and the
 * lease matters, a new file could not be made. Nothing is flushed: after a power failure the boot id tells that its times are of before.
 * A reader that meets half a write finds a wrong sum and looks again.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { leaseAge, type KeptLease, type WatchdogKind } from '../cluster/lease.ts';
import { bootId, bootMs } from './boot-clock.ts';

/** Bytes; what is written is padded with spaces. */
const LENGTH = 512;
const SUM_LENGTH = 16;

const sumOf = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, SUM_LENGTH);

/** @throws Error  of the file system */
function writeRecord(file: string, record: object): void {
  const text = JSON.stringify(record);
  const line = `${sumOf(text)} ${text}`.padEnd(LENGTH - 1);
  if (line.length >= LENGTH) throw new RangeError(`${file}: ${line.length} bytes do not fit`);
  const fd = fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT, 0o600);
  try {
    fs.writeSync(fd, `${line}\n`, 0);
  } finally {
    fs.closeSync(fd);
  }
}

/** undefined: there is none. 'torn': it is just being written, or damaged. */
function readRecord<T>(file: string): T | 'torn' | undefined {
  for (let left = 5; left > 0; left -= 1) {
    let line: string;
    try {
      line = fs.readFileSync(file, 'utf8').trim();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      return 'torn';
    }
    const text = line.slice(SUM_LENGTH + 1);
    if (line.slice(0, SUM_LENGTH) === sumOf(text)) return JSON.parse(text) as T;
  }
  return 'torn';
}

/**
 * The lease as it is kept here; undefined: this server never had one.
 *
 * @param known  what was read before, for a file that cannot be read now
 */
export function readLease(file: string, known?: KeptLease): KeptLease | undefined {
  const read = readRecord<KeptLease>(file);
  if (read !== 'torn') return read;
  // damaged, and nothing known: as one that is over, which a confirmed renewal mends
  return known ?? { boot: '', until: 0, ms: 1, epoch: 0 };
}

/** A renewal that was sent at `sentAt` (bootMs) was confirmed. An older one never shortens it. */
export function keepLease(file: string, confirmed: { sentAt: number; ms: number; epoch: number }): void {
  const { sentAt, ms, epoch } = confirmed;
  const boot = bootId();
  const kept = readLease(file);
  const until = sentAt + ms;
  const isNewer = kept !== undefined && leaseAge(kept, boot, bootMs()) < Infinity && kept.until > until;
  if (isNewer && kept.epoch === epoch && kept.ms === ms) return;
  writeRecord(file, { boot, until, ms, epoch } satisfies KeptLease);
}

/**
 * A lease of `ms` is asked for from now on. One that is kept is that short at once: the vault may take the renewal and the answer be lost,
 * and then the witness goes by the new length.
 */
export function shortenLease(file: string, ms: number): void {
  const kept = readLease(file);
  if (kept === undefined || kept.ms <= ms) return;
  writeRecord(file, { ...kept, until: kept.until - kept.ms + ms, ms });
}

/** The vault's word is that it is over: the watchdog begins its fast stop now. */
export function endLease(file: string): void {
  const kept = readLease(file);
  const boot = bootId();
  if (kept === undefined) return;
  const until = bootMs() + kept.ms / 3;
  if (kept.boot !== boot || kept.until <= until) return;
  writeRecord(file, { ...kept, until });
}

/** This server runs without a lease from now on. */
export function forgetLease(file: string): void {
  fs.rmSync(file, { force: true });
}

export type WatchdogBeat = { boot: string; at: number; pid: number; build: string; kind: WatchdogKind };

export function beatWatchdog(file: string, beat: Omit<WatchdogBeat, 'boot' | 'at'>): void {
  writeRecord(file, { boot: bootId(), at: bootMs(), ...beat } satisfies WatchdogBeat);
}

/** The watchdog that ends says so: nobody shall take its last beat for a sign of life. */
export function endBeats(file: string): void {
  fs.rmSync(file, { force: true });
}

/** A watchdog that beat no longer ago than this is alive, ms: it beats four times a second. */
const BEAT_LIMIT_MS = 2000;

/** The watchdog of this server, where it beat within `withinMs` and its process is there. */
export function livingWatchdog(file: string, withinMs = BEAT_LIMIT_MS): WatchdogBeat | undefined {
  const beat = readRecord<WatchdogBeat>(file);
  if (beat === undefined || beat === 'torn') return undefined;
  return beat.boot === bootId() && bootMs() - beat.at <= withinMs && isThere(beat.pid) ? beat : undefined;
}

/** A process of this number, whosever. */
export function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
