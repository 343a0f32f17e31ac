/**
 * A manifest in a SQLite file: <directory>/manifest.db, WAL mode, synchronous=FULL; for the processes of one machine.
 *
 * Transactions (they sync the disk and wait for other processes) run in a worker thread, or a slow disk would hold the
 * agent's socket and heartbeat; it starts with the first one (20 to 40 ms). Reads stay in this thread: they take microseconds,
 * never wait for a writer, and a hook that only reads pays for no thread. `oneShot` does all of it here.
 */
import fs, { constants } from 'node:fs';
import { access, open, stat } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { VaultError } from '../errors.ts';
import { checkChanges } from './changes.ts';
import type { Change, Manifest, Outcome, Row } from './manifest.ts';
import { adopt, FILE_MODE, localFailure, shareOf, syncDirectory } from './shared-files.ts';
import { MAKE_TABLE, type Page, SCHEMA, sqliteRows } from './sqlite-rows.ts';
import { DEFAULT_TIMEOUT_MS, pause, withLimit } from './time-limit.ts';

export type FileManifestOptions = { timeoutMs?: number; oneShot?: boolean };

const PAGE_ROWS = 200;
/** Beyond the time a transaction has: its answer is on the way, or the disk hangs. */
const GRACE_MS = 250;

type Request = { id: number; changes: readonly Change[]; untilMs: number };
type SqliteFailure = { message: string; errcode: number };
type Answer = { id: number; outcome: Outcome } | { id: number; failure: SqliteFailure };

export function manifestFile(directory: string): string {
  return path.join(directory, 'manifest.db');
}

/** Makes the database where there is none; the directory exists. */
export async function createFileManifest(directory: string): Promise<void> {
  const file = manifestFile(directory);
  try {
    const share = await shareOf(directory);
    // made empty first: SQLite gives its -wal and -shm files the mode and the owner of the database
    const handle = await open(file, constants.O_CREAT | constants.O_RDWR, FILE_MODE);
    await handle.close();
    if ((await stat(file)).size === 0) await adopt(file, FILE_MODE, share);
    const { DatabaseSync } = await import('node:sqlite');
    const db = new DatabaseSync(file, { timeout: DEFAULT_TIMEOUT_MS });
    try {
      db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA fullfsync = ON;');
      const { user_version: version } = db.prepare('PRAGMA user_version').get() as { user_version: number };
      if (version === 0) db.exec(`BEGIN IMMEDIATE; ${MAKE_TABLE} COMMIT;`);
    } finally {
      db.close();
    }
    await syncDirectory(directory);
  } catch (error) {
    throw explained(localFailure(error, 'make the manifest', directory), directory);
  }
}

/** @throws VaultError unconfigured (no manifest there) | local | format | corrupt */
export async function fileManifest(
  name: string,
  directory: string,
  options: FileManifestOptions = {},
): Promise<Manifest> {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const file = manifestFile(directory);
  const uri = `${pathToFileURL(file).href}?mode=rw`; // rw: never make an empty one where the vault is not mounted
  const sqlite = await import('node:sqlite');

  // here a wait would hold the whole process: a short one, then again later
  const rows = await patient(() => sqliteRows(sqlite, fs, file, uri, 0), 'open the manifest');
  const version = await patient(() => rows.version(), 'open the manifest');
  if (version !== SCHEMA) {
    rows.close();
    if (version === 0) throw missing(directory);
    throw new VaultError('format', `the manifest in ${directory} has format ${version}, known is ${SCHEMA}`, {
      hint: 'install the walvault that made it, or a newer one.',
    });
  }
  const thread = options.oneShot === true ? undefined : transactionThread(file, uri, directory);

  return {
    name,
    get: (key) => patient(() => rows.read(key), `read '${key.sk}'`),
    async *query({ pk, from = '', to, descending = false, limit = Infinity }) {
      let left = limit;
      let afterSk: string | undefined;
      while (left > 0) {
        const range: Page = { pk, from, to, afterSk, descending, limit: Math.min(PAGE_ROWS, left) };
        const page = await patient((): Row[] => rows.page(range), `read '${pk}'`);
        yield* page;
        if (page.length < range.limit) return;
        left -= page.length;
        afterSk = page.at(-1)?.sk;
      }
    },
    async transact(changes) {
      checkChanges(changes);
      if (thread === undefined) {
        await nextTurn();
        return guarded(() => rows.transact(changes, timeoutMs));
      }
      return withLimit(timeoutMs + GRACE_MS, `a transaction in ${directory}`, async () =>
        guarded(() => thread.transact(changes, timeoutMs)),
      );
    },
    async close() {
      rows.close();
      await thread?.close();
    },
  };

  async function guarded<T>(work: () => T | Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw await foundMissing(error, 'change rows');
    }
  }

  /** Readers wait for nobody but one who repairs the file after a crash: ask again, without holding the thread. */
  async function patient<T>(work: () => T, what: string): Promise<T> {
    const until = performance.now() + timeoutMs;
    await nextTurn();
    for (;;) {
      try {
        return work();
      } catch (error) {
        if (!isBusy(error) || performance.now() > until) throw await foundMissing(error, what);
        await pause(20);
      }
    }
  }

  async function foundMissing(error: unknown, what: string): Promise<unknown> {
    if (codeOf(error) !== CANTOPEN) return explained(error, directory);
    try {
      await access(file, constants.R_OK | constants.W_OK);
    } catch (cause) {
      const errno = (cause as NodeJS.ErrnoException).code;
      return errno === 'ENOENT' || errno === 'ENOTDIR'
        ? missing(directory)
        : localFailure(cause, what, directory);
    }
    return explained(error, directory);
  }
}

/** A loop that reads until something changes would otherwise never let this process's own transactions be answered. */
async function nextTurn(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setImmediate(resolve);
  await promise;
}

function missing(directory: string): VaultError {
  return new VaultError('unconfigured', `there is no manifest in ${directory}`, {
    hint: "look at the vault's URL and whether its disk is mounted, or run 'walvault init' to make a new vault.",
  });
}

/** The thread that transactions run in: started by the first, no reason for the process to stay alive when idle. */
function transactionThread(file: string, uri: string, directory: string) {
  let worker: Worker | undefined;
  let lastId = 0;
  const waiting = new Map<number, { resolve(outcome: Outcome): void; reject(error: unknown): void }>();

  const lose = (why: unknown) => {
    worker = undefined;
    for (const { reject } of waiting.values()) {
      reject(new VaultError('unreachable', `a transaction in ${directory} lost its thread`, { cause: why }));
    }
    waiting.clear();
  };
  const start = (): Worker => {
    const made = new Worker(threadSource(), {
      eval: true,
      workerData: { file, uri },
      name: 'manifest',
      execArgv: [],
    });
    made.on('message', (answer: Answer) => {
      const asked = waiting.get(answer.id);
      waiting.delete(answer.id);
      if (waiting.size === 0) made.unref();
      if ('outcome' in answer) asked?.resolve(answer.outcome);
      else
        asked?.reject(Object.assign(new Error(answer.failure.message), { errcode: answer.failure.errcode }));
    });
    made.on('error', (error) => worker === made && lose(error));
    made.on('exit', (code) => worker === made && lose(new Error(`exit ${code}`)));
    return made;
  };

  return {
    transact(changes: readonly Change[], timeoutMs: number): Promise<Outcome> {
      worker ??= start();
      const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
      lastId += 1;
      waiting.set(lastId, { resolve, reject });
      worker.ref();
      const request: Request = { id: lastId, changes, untilMs: sharedMs() + timeoutMs };
      worker.postMessage(request);
      return promise;
    },
    async close(): Promise<void> {
      await worker?.terminate();
    },
  };
}

/** ms on the clock that nobody sets; performance.now() begins anew in each thread. */
const sharedMs = (): number => Number(process.hrtime.bigint()) / 1e6;

function threadSource(): string {
  // not through types: this is the text of a program
  return `
    const { parentPort, workerData } = require('node:worker_threads');
    const sharedMs = ${sharedMs.toString()};
    const sqliteRows = ${sqliteRows.toString()};
    let rows;
    parentPort.on('message', ({ id, changes, untilMs }) => {
      try {
        const leftMs = untilMs - sharedMs();
        // too late to begin: whoever asked has given up, and a change that nobody expects is worse than none
        if (leftMs <= 0) throw Object.assign(new Error('the time was over before it began'), { errcode: 5 });
        rows ??= sqliteRows(require('node:sqlite'), require('node:fs'), workerData.file, workerData.uri, 1000);
        parentPort.postMessage({ id, outcome: rows.transact(changes, leftMs) });
      } catch (error) {
        parentPort.postMessage({ id, failure: { message: String(error && error.message), errcode: error && error.errcode } });
      }
    });`;
}

/** Primary result codes of SQLite ("Result and Error Codes"); the extended ones carry them in their low byte. */
const BUSY = 5;
const CANTOPEN = 14;

function codeOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('errcode' in error) || typeof error.errcode !== 'number')
    return undefined;
  return error.errcode & 0xff;
}

function isBusy(error: unknown): boolean {
  const code = codeOf(error);
  return code === BUSY || code === 6 || code === 15; // 15: a race of openers and closers that SQLite gave up on
}

const LOCAL: Record<number, { words: string; hint: string }> = {
  3: {
    words: 'permission denied',
    hint: "let the user that runs this read and write it: operator and servers share the directory's group (chmod 2770).",
  },
  8: {
    words: 'it cannot be written',
    hint: 'let the user that runs this write manifest.db, its -wal and -shm files and the directory: operator and servers share its group (chmod 2770).',
  },
  10: { words: 'the disk gives an error', hint: 'look at the disk (dmesg, smartctl).' },
  13: {
    words: 'no space left',
    hint: 'free space there, or move the vault; PostgreSQL keeps its segments in pg_wal until then.',
  },
  14: {
    words: 'it cannot be opened',
    hint: 'let the user that runs this read and write manifest.db and the directory (chmod 2770, one group).',
  },
};

/** SQLite's failures in our words; anything else as it is. */
function explained(error: unknown, directory: string): unknown {
  const code = codeOf(error);
  if (error instanceof VaultError || code === undefined) return error;
  if (isBusy(error)) {
    return new VaultError('unreachable', `the manifest in ${directory} is held by another process`, {
      hint: `see who holds it: fuser -v '${manifestFile(directory)}'`,
      cause: error,
    });
  }
  const local = LOCAL[code];
  if (local !== undefined) {
    return new VaultError('local', `the manifest in ${directory}: ${local.words}`, {
      hint: local.hint,
      cause: error,
    });
  }
  if (code === 11 || code === 26) {
    return new VaultError('corrupt', `the manifest in ${directory} is damaged`, {
      hint: "restore manifest.db from a copy; the bytes in the vault's objects/ directory are not touched by this.",
      cause: error,
    });
  }
  return error;
}
