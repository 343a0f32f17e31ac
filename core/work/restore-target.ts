/**
 * The place a backup is restored into: that it is empty or our own unfinished restore, that there is room, where each
 * tablespace and pg_wal go, and the journal by which a broken restore goes on.
 *
 *   <target>/walvault-restore        line 1: what is restored (JSON); then one number per bundle whose files are durable
 *   <target>/walvault-restore.lock   held by the restore at work, freed by the kernel when it ends
 */
import {
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rm,
  statfs,
  symlink,
  truncate,
} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { syncDirectory } from '../postgres/durable-write.ts';
import type { BackupIndex } from './bundles.ts';
import { takeNodeLock, type NodeLock } from './node-lock.ts';

export const JOURNAL = 'walvault-restore';
export const LOCK = 'walvault-restore.lock';

export type TargetRequest = {
  /** Absolute. */
  target: string;
  /** Where pg_wal shall lie, linked from the target; absolute. */
  waldir?: string;
  /** Old location of a tablespace to its new one, both absolute. */
  tablespaceMap?: Readonly<Record<string, string>>;
};

type Journal = { backup: string; holdId: string; waldir: string | null; tablespaces: Record<string, string> };

export type Target = {
  path: string;
  waldir: string | undefined;
  /** Location by oid. */
  tablespaces: Map<string, string>;
  holdId: string;
  /** An unfinished restore lay there. */
  isContinued: boolean;
  /** Bundles (by key) that an earlier run has finished. */
  done: Set<string>;
};

/**
 * Looks, before anything is written, whether the backup can be restored there.
 *
 * @param newHoldId  the id of the hold, where this is no continuation
 * @throws VaultError refused (something lies there; too little room; a tablespace without a place) | usage | local
 */
export async function planTarget(
  index: BackupIndex,
  request: TargetRequest,
  newHoldId: string,
): Promise<Target> {
  const target = path.resolve(request.target);
  if (process.getuid?.() === 0) {
    throw new VaultError(
      'refused',
      'PostgreSQL does not run as root: what root restores, the server could not use',
      {
        hint: 'Run it as the user who will run the server, for instance: sudo -u postgres -E walvault …',
      },
    );
  }
  const waldir = request.waldir === undefined ? undefined : path.resolve(request.waldir);
  if (waldir !== undefined && isWithin(waldir, target)) {
    throw new VaultError('usage', `--waldir ${waldir} lies inside the data directory ${target}`, {
      hint: 'Choose a directory outside of it.',
    });
  }
  const tablespaces = placeTablespaces(index, request.tablespaceMap ?? {}, target);
  const journal = await readJournal(target);
  const plan = { backup: index.id, waldir: waldir ?? null, tablespaces: Object.fromEntries(tablespaces) };
  if (journal !== undefined) checkSame(target, journal.head, plan);
  else await checkTargetEmpty(target);
  if (journal === undefined) {
    if (waldir !== undefined) await checkEmpty(waldir, '--waldir', 'Choose an empty directory.');
    for (const [oid, place] of tablespaces) {
      await checkEmpty(
        place,
        `the place of tablespace ${oid}`,
        `Give it another: --tablespace-mapping '${locationOf(index, oid)}=/new/place'`,
      );
    }
  }
  const done = new Set(journal?.done.map((number) => index.bundles[number]?.key ?? ''));
  await checkRoom(index, { target, tablespaces, done });
  const holdId = journal?.head.holdId ?? newHoldId;
  return { path: target, waldir, tablespaces, holdId, isContinued: journal !== undefined, done };
}

/**
 * Only one restore works in a target: the one that comes second would go on writing there, and take standby.signal and postmaster.pid away,
 * when the first has ended and its server runs.
 *
 * @throws VaultError busy (another is at work, or was just now) | refused | local
 */
export async function lockTarget(target: Target): Promise<NodeLock> {
  try {
    await mkdir(target.path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw notMade(target, error);
  }
  const lock = await takeNodeLock(path.join(target.path, LOCK));
  if (lock === undefined)
    throw new VaultError('busy', `another restore into ${target.path} is at work`, {
      hint: 'Wait for it. Where its process hangs, kill that: the same command goes on where it was.',
    });
  try {
    const journal = await readJournal(target.path);
    if (journal === undefined) await checkTargetEmpty(target.path);
    if (target.isContinued ? journal?.head.holdId !== target.holdId : journal !== undefined)
      throw new VaultError('busy', `another restore into ${target.path} was at work just now`, {
        hint: 'Look whether it has come to its end; else run the same command again.',
      });
    await cutTornLine(path.join(target.path, JOURNAL));
  } catch (error) {
    lock.release();
    throw error;
  }
  return lock;
}

/** A number that was cut off by a full disk would make another one with what is written behind it. */
async function cutTornLine(journal: string): Promise<void> {
  const text = await readFile(journal, 'utf8').catch(() => '');
  const whole = text.lastIndexOf('\n') + 1;
  if (whole < text.length) await truncate(journal, whole);
}

/** Is the target free, or an unfinished restore of ours? Looked at before anything else is touched. @throws VaultError refused | local */
export async function checkTarget(target: string): Promise<void> {
  if ((await readJournal(target)) === undefined) await checkTargetEmpty(target);
}

function checkTargetEmpty(target: string): Promise<void> {
  return checkEmpty(target, 'the target', `Choose another directory, or empty this one: rm -r '${target}'`);
}

/** Makes the directories and the journal; again is fine. @throws VaultError local */
export async function makeTarget(index: BackupIndex, target: Target): Promise<void> {
  const mode = directoryMode(index);
  try {
    await makeDirectory(target.path, mode);
    await writeJournalHead(target, index);
    if (target.waldir !== undefined) {
      await makeDirectory(target.waldir, mode);
      await link(target.waldir, path.join(target.path, 'pg_wal'));
    }
    await makeDirectory(path.join(target.path, 'pg_tblspc'), mode);
    for (const [oid, place] of target.tablespaces) {
      await makeDirectory(place, mode);
      if (!isWithin(place, target.path)) await link(place, path.join(target.path, 'pg_tblspc', oid));
    }
    for (const directory of index.directories) {
      const place = path.join(target.path, directory.path);
      if (!isWithin(place, target.path)) throw outside(directory.path);
      await makeDirectory(place, directory.mode);
    }
  } catch (error) {
    throw error instanceof VaultError ? error : notMade(target, error);
  }
}

function notMade(target: Target, error: unknown): VaultError {
  return new VaultError('local', `cannot make ${target.path}: ${(error as Error).message}`, {
    cause: error,
    hint: `${os.userInfo().username} must be allowed to write there, and the file system must have room.`,
  });
}

/** To be called when the bundle's files are durable. */
export async function noteBundle(target: Target, index: BackupIndex, key: string): Promise<void> {
  const number = index.bundles.findIndex((bundle) => bundle.key === key);
  const handle = await open(path.join(target.path, JOURNAL), 'a');
  try {
    await handle.appendFile(`${number}\n`);
    await handle.datasync();
  } finally {
    await handle.close();
  }
}

/** A path of the index must stay within the target, whatever the index says. */
export function outside(name: string): VaultError {
  return new VaultError(
    'corrupt',
    `the index of the backup names ${name}, which lies outside of the data directory`,
  );
}

export function isWithin(place: string, directory: string): boolean {
  const way = path.relative(directory, place);
  return way === '' || (way !== '..' && !way.startsWith(`..${path.sep}`) && !path.isAbsolute(way));
}

/** 0750 where the origin was open to its group (initdb -g), else 0700: PostgreSQL refuses anything else. */
export function directoryMode(index: BackupIndex): number {
  return index.directories.some(({ mode }) => (mode & 0o070) !== 0) ? 0o750 : 0o700;
}

async function readJournal(target: string): Promise<{ head: Journal; done: number[] } | undefined> {
  const text = await readFile(path.join(target, JOURNAL), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw new VaultError('local', `cannot read ${target}: ${error.message}`, { cause: error });
  });
  const [first, ...rest] = text?.split('\n').slice(0, -1) ?? []; // the last line is whole only with its end
  if (first === undefined) return undefined;
  try {
    return { head: JSON.parse(first) as Journal, done: rest.map(Number) };
  } catch {
    return undefined;
  }
}

async function writeJournalHead(target: Target, index: BackupIndex): Promise<void> {
  if ((await readJournal(target.path)) !== undefined) return;
  const head: Journal = {
    backup: index.id,
    holdId: target.holdId,
    waldir: target.waldir ?? null,
    tablespaces: Object.fromEntries(target.tablespaces),
  };
  const handle = await open(path.join(target.path, JOURNAL), 'w', 0o600);
  try {
    await handle.writeFile(`${JSON.stringify(head)}\n`);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await syncDirectory(target.path);
}

function checkSame(target: string, seen: Journal, plan: Omit<Journal, 'holdId'>): void {
  const same =
    seen.backup === plan.backup &&
    seen.waldir === plan.waldir &&
    JSON.stringify(seen.tablespaces) === JSON.stringify(plan.tablespaces);
  if (same) return;
  throw new VaultError(
    'refused',
    `${target} holds an unfinished restore of backup ${seen.backup} with other settings`,
    {
      hint: `Go on with it by --backup ${seen.backup} and the same directories, or remove it: rm -r '${target}'`,
    },
  );
}

async function checkEmpty(directory: string, what: string, hint: string): Promise<void> {
  const names = await readdir(directory).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw new VaultError('local', `cannot read ${directory}: ${error.message}`, { cause: error });
  });
  const inside = names.filter(
    (name) => !['lost+found', JOURNAL].includes(name) && !name.startsWith(LOCK), // SQLite has a file of its own beside it
  );
  if (inside.length === 0) return;
  throw new VaultError('refused', `${what} ${directory} is not empty (${inside.slice(0, 3).join(', ')})`, {
    hint,
  });
}

function placeTablespaces(
  index: BackupIndex,
  map: Readonly<Record<string, string>>,
  target: string,
): Map<string, string> {
  const known = new Set(index.tablespaces.map(({ location }) => location));
  const unknown = Object.keys(map).find((location) => !known.has(location));
  if (unknown !== undefined) {
    throw new VaultError('usage', `the backup has no tablespace at ${unknown}`, {
      hint: known.size === 0 ? 'It has none at all.' : `It has: ${[...known].join(', ')}`,
    });
  }
  return new Map(
    index.tablespaces.map(({ oid, location }) => {
      const place = map[location] ?? location;
      // in place (relative), or below the old data directory's own path: it belongs into this one
      if (!path.isAbsolute(place)) return [oid, path.join(target, 'pg_tblspc', oid)];
      if (isWithin(place, target)) {
        throw new VaultError(
          'usage',
          `tablespace ${oid} at ${place} would lie inside the data directory ${target}`,
          {
            hint: `Give it a place outside: --tablespace-mapping '${location}=/new/place'`,
          },
        );
      }
      return [oid, path.resolve(place)];
    }),
  );
}

function locationOf(index: BackupIndex, oid: string): string {
  return index.tablespaces.find((one) => one.oid === oid)?.location ?? '';
}

/** By file system: the target and tablespaces may share one. */
async function checkRoom(
  index: BackupIndex,
  plan: { target: string; tablespaces: Map<string, string>; done: Set<string> },
): Promise<void> {
  const needs = new Map<string, number>();
  for (const bundle of index.bundles) {
    if (plan.done.has(bundle.key)) continue;
    for (const file of bundle.files) {
      const oid = /^pg_tblspc\/(\d+)\//.exec(file.path)?.[1];
      const place = (oid === undefined ? undefined : plan.tablespaces.get(oid)) ?? plan.target;
      needs.set(place, (needs.get(place) ?? 0) + Math.ceil(file.length / 4096) * 4096);
    }
  }
  const disks = new Map<string, { place: string; need: number; free: number }>();
  for (const [place, need] of needs) {
    const there = await nearestDirectory(place);
    const device = String((await lstat(there)).dev);
    const disk = await statfs(there);
    const seen = disks.get(device) ?? { place, need: 0, free: disk.bavail * disk.bsize };
    disks.set(device, { ...seen, need: seen.need + need });
  }
  for (const { place, need, free } of disks.values()) {
    if (need <= free) continue;
    throw new VaultError('local', `${place} has room for ${free} bytes, the backup needs ${need}`, {
      hint: 'Make room, or choose another file system.',
    });
  }
}

async function nearestDirectory(place: string): Promise<string> {
  for (let at = place; ; at = path.dirname(at)) {
    const found = await realpath(at).catch(() => undefined);
    if (found !== undefined || at === path.dirname(at)) return found ?? at;
  }
}

async function makeDirectory(place: string, mode: number): Promise<void> {
  await mkdir(place, { recursive: true });
  const handle = await open(place, 'r');
  try {
    await handle.chmod(mode);
  } finally {
    await handle.close();
  }
}

async function link(to: string, place: string): Promise<void> {
  await rm(place, { force: true });
  await symlink(to, place);
}
