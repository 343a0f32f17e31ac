/**
 * A bucket in a directory:
 *
 *   <directory>/objects/<key>     frame and body (object-frame.ts)
 *   <directory>/tmp/…             being written; never read, swept when a day old
 *
 * An object is written aside, synced, linked to its name, and the directories on the way are synced: after kill -9 or
 * a power cut it is there whole or not at all, and 'stored' or 'same' is only said of what is durable.
 */
import { randomBytes } from 'node:crypto';
import type { Dirent } from 'node:fs';
import { open, readdir, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import type { Bucket, ObjectInfo } from './bucket.ts';
import { FRAME_BYTES, makeFrame, readFrame } from './object-frame.ts';
import { byBytes, checkKey, otherBytes } from './object-key.ts';
import {
  errnoOf,
  localFailure,
  makeDirectory,
  publishOnce,
  shareOf,
  type Share,
  syncDirectory,
} from './shared-files.ts';
import { DEFAULT_TIMEOUT_MS, extraMsFor, withLimit } from './time-limit.ts';

const OLD_MS = 24 * 3600 * 1000;
const COMPARE_BYTES = 1024 * 1024;

/** @param directory  the vault's, which exists; what is missing below it is made at the first put */
export function fileBucket(name: string, directory: string, options: { timeoutMs?: number } = {}): Bucket {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const objects = path.join(directory, 'objects');
  const aside = path.join(directory, 'tmp');
  /** Directories whose whole way is known to be durable. */
  const durable = new Set<string>();
  let share: Promise<Share> | undefined;

  const fileOf = (key: string): string => {
    checkKey(key);
    return path.join(objects, key);
  };
  const guarded = async <T>(what: string, sizeBytes: number, work: () => Promise<T>): Promise<T> => {
    try {
      return await withLimit(timeoutMs + extraMsFor(sizeBytes), `${what} in ${directory}`, work);
    } catch (error) {
      throw localFailure(error, what, directory);
    }
  };
  const ready = async (folder: string, known: Share): Promise<void> => {
    if (durable.has(folder)) return;
    await makeDirectory(directory, folder, known);
    durable.add(folder);
  };

  return {
    name,

    async putOnce(key, body, facts = {}) {
      const file = fileOf(key);
      const frame = makeFrame(body, facts);
      return guarded(`store '${key}'`, body.length, async () => {
        share ??= existing(directory, name).then(() => shareOf(directory));
        const known = await share.catch((error: unknown) => {
          share = undefined;
          throw error;
        });
        if (!durable.has(aside)) {
          await ready(aside, known);
          await sweep(aside);
        }
        for (let attempt = 0; ; attempt += 1) {
          await ready(path.dirname(file), known);
          const temporary = path.join(aside, `${process.pid}.${randomBytes(6).toString('hex')}`);
          let published: 'stored' | 'exists';
          try {
            published = await publishOnce(file, [frame, body], temporary, known);
          } catch (error) {
            if (errnoOf(error) !== 'ENOENT' || attempt > 0) throw error;
            durable.clear(); // somebody cleared away empty directories
            await ready(aside, known);
            continue;
          }
          if (published === 'stored') return 'stored';
          const compared = await compare(file, body);
          if (compared === 'other') throw otherBytes(name, key);
          if (compared === 'same') return 'same';
        }
      });
    },

    // no store stands behind a directory: a copy is read and put here, and its bytes are checked on the way
    async copyFrom(_, key) {
      checkKey(key);
      return undefined;
    },

    async get(key) {
      const file = fileOf(key);
      return guarded(`read '${key}'`, await sizeOf(file), async () => {
        const bytes = await readWhole(file);
        if (bytes === undefined) return undefined;
        readFrame(key, bytes, bytes.length);
        return bytes.subarray(FRAME_BYTES);
      });
    },

    async facts(key) {
      const file = fileOf(key);
      return guarded(`read '${key}'`, 0, async () => {
        const beginning = await readBeginning(file);
        return beginning && readFrame(key, beginning.bytes, beginning.sizeBytes).facts;
      });
    },

    async *list(prefix) {
      const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
      if (folder !== '') checkKey(`${folder}x`);
      try {
        yield* walk(objects, folder, prefix);
      } catch (error) {
        throw localFailure(error, `list '${prefix}'`, directory);
      }
    },

    async delete(key) {
      const file = fileOf(key);
      await guarded(`delete '${key}'`, 0, async () => {
        try {
          await unlink(file);
        } catch (error) {
          if (!isAbsent(error)) throw error;
        }
      });
    },

    async close() {},
  };
}

async function existing(directory: string, name: string): Promise<void> {
  try {
    await stat(directory);
  } catch (error) {
    if (!isAbsent(error)) throw error;
    throw new VaultError('unconfigured', `${name} is not there`, {
      hint: "mount it, or run 'walvault init' to make a new vault.",
      cause: error,
    });
  }
}

function isAbsent(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'EISDIR';
}

async function sizeOf(file: string): Promise<number> {
  return stat(file).then(
    ({ size }) => size,
    () => 0,
  );
}

async function readWhole(file: string): Promise<Buffer | undefined> {
  const handle = await opened(file);
  if (handle === undefined) return undefined;
  try {
    const found = await handle.stat();
    return found.isFile() ? await handle.readFile() : undefined;
  } finally {
    await handle.close();
  }
}

async function opened(file: string) {
  try {
    return await open(file, 'r');
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

async function readBeginning(file: string): Promise<{ bytes: Buffer; sizeBytes: number } | undefined> {
  const handle = await opened(file);
  if (handle === undefined) return undefined;
  try {
    const found = await handle.stat();
    if (!found.isFile()) return undefined;
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(FRAME_BYTES), 0, FRAME_BYTES, 0);
    return { bytes: buffer.subarray(0, bytesRead), sizeBytes: found.size };
  } finally {
    await handle.close();
  }
}

/** The bytes themselves, not the hash in the frame: 'same' must not be said of an object that the disk has damaged. */
async function compare(file: string, body: Uint8Array): Promise<'same' | 'other' | 'gone'> {
  const handle = await opened(file);
  if (handle === undefined) return 'gone';
  try {
    const { size } = await handle.stat();
    if (size !== FRAME_BYTES + body.length) return 'other';
    const wanted = Buffer.from(body.buffer, body.byteOffset, body.length);
    const window = Buffer.alloc(Math.min(COMPARE_BYTES, body.length));
    for (let at = 0; at < body.length;) {
      const { bytesRead } = await handle.read(
        window,
        0,
        Math.min(window.length, body.length - at),
        FRAME_BYTES + at,
      );
      if (bytesRead === 0) return 'other';
      if (!wanted.subarray(at, at + bytesRead).equals(window.subarray(0, bytesRead))) return 'other';
      at += bytesRead;
    }
    await syncDirectory(path.dirname(file)); // its writer may not have come to that
    return 'same';
  } finally {
    await handle.close();
  }
}

/** What a killed writer left; a day, so that no clock and no slow disk takes it from one that still writes. */
async function sweep(aside: string): Promise<void> {
  for (const entry of await readdir(aside)) {
    const file = path.join(aside, entry);
    const found = await stat(file).catch(() => undefined);
    if (found !== undefined && Date.now() - found.mtimeMs > OLD_MS) await unlink(file).catch(() => undefined);
  }
}

/** Depth first in the order of keys: a directory sorts as its name with '/', which is not where its bare name would be. */
async function* walk(objects: string, folder: string, prefix: string): AsyncGenerator<ObjectInfo> {
  let entries: Dirent[];
  try {
    entries = await readdir(path.join(objects, folder), { withFileTypes: true });
  } catch (error) {
    if (isAbsent(error)) return;
    throw error;
  }
  const names = entries
    .map((entry) => (entry.isDirectory() ? `${folder}${entry.name}/` : `${folder}${entry.name}`))
    .filter((key) => key.startsWith(prefix) || prefix.startsWith(key))
    .sort(byBytes);
  for (const key of names) {
    if (key.endsWith('/')) {
      yield* walk(objects, key, prefix);
    } else if (key.startsWith(prefix)) {
      const found = await stat(path.join(objects, key)).catch((error: unknown) => {
        if (isAbsent(error)) return undefined; // deleted meanwhile
        throw error;
      });
      if (found !== undefined) {
        yield { key, sizeBytes: Math.max(0, found.size - FRAME_BYTES), storedAt: found.mtime };
      }
    }
  }
}
