/**
 * A clock of this machine that counts sleep and that nobody sets: ms since its boot. A lease runs on it, since a machine that was suspended
 * must find its lease over when it wakes; CLOCK_MONOTONIC (performance.now) stands still meanwhile.
 *
 * Linux: /proc/uptime is CLOCK_BOOTTIME, in hundredths of a second (proc(5)). Elsewhere there is none, and no lease.
 */
import fs from 'node:fs';
import { VaultError } from '../errors.ts';

/** @throws VaultError local  no such clock here */
export function bootMs(): number {
  const seconds = Number(read('/proc/uptime').split(' ')[0]);
  if (!Number.isFinite(seconds)) throw noClock('/proc/uptime says no number');
  return Math.round(seconds * 1000);
}

/** Which boot its times count from. @throws VaultError local */
export function bootId(): string {
  return read('/proc/sys/kernel/random/boot_id').trim();
}

function read(file: string): string {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch (cause) {
    throw noClock((cause as Error).message, cause);
  }
}

const noClock = (why: string, cause?: unknown): VaultError =>
  new VaultError('local', `no clock that counts sleep: ${why}`, {
    cause,
    hint: 'A lease wants Linux with /proc; set lease = "0" elsewhere.',
  });
