/**
 * Time limits: what takes longer ends in `unreachable`, also where the work underneath cannot be ended.
 */
import { VaultError } from '../errors.ts';

/** Longest that one operation may take where nobody says otherwise, in ms. */
export const DEFAULT_TIMEOUT_MS = 10_000;

/** Bytes a second that a large object is always given time for, on top of the limit of one operation. */
export const SLOWEST_BYTES_PER_SECOND = 1024 * 1024;

/** How much longer than a small request an object of this size may take, in ms. */
export function extraMsFor(sizeBytes: number): number {
  return Math.ceil((sizeBytes / SLOWEST_BYTES_PER_SECOND) * 1000);
}

export type Limit = {
  /** Aborted when the time is over. */
  readonly signal: AbortSignal;
  /** Ms that are left; 0 when the time is over. */
  leftMs(): number;
  /** Gives `ms` more, when the size of what comes is known. */
  extend(ms: number): void;
};

/**
 * `work`, or VaultError unreachable `<what> took longer than <n> ms` as soon as the time is over.
 * The work is told by the signal; a promise of it that settles later is ignored.
 */
export async function withLimit<T>(
  limitMs: number,
  what: string,
  work: (limit: Limit) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const started = performance.now();
  let allowedMs = limitMs;
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<never>((_, reject) => {
    const check = () => {
      const leftMs = started + allowedMs - performance.now();
      if (leftMs > 0) {
        timer = setTimeout(check, Math.ceil(leftMs));
        return;
      }
      reject(
        new VaultError('unreachable', `${what} took longer than ${allowedMs} ms`, {
          hint: 'look whether the vault can be reached from here; what was asked for may still be carried out.',
        }),
      );
      controller.abort();
    };
    timer = setTimeout(check, limitMs);
  });
  const limit: Limit = {
    signal: controller.signal,
    leftMs: () => Math.max(0, started + allowedMs - performance.now()),
    extend: (ms) => {
      allowedMs += ms;
    },
  };
  try {
    const working = work(limit);
    working.catch(() => undefined); // it may fail after the race is lost: nobody would take that up
    return await Promise.race([working, over]);
  } finally {
    clearTimeout(timer);
  }
}

/** A pause of a random length between half of `ms` and all of it, so that those who met do not meet again. */
export async function pause(ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(resolve, ms / 2 + Math.random() * (ms / 2));
  await promise;
}
