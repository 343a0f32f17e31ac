/**
 * The state directory: what one node keeps beside its PGDATA, and how each file of it is read and written.
 *
 *   settings.toml                        the settings of this node
 *   identity.json                        machine and data directory it was made for: a copy of either is told by it
 *   writer.json                          epoch, nonce, next (core/work/commit.ts)
 *   spill.json                           the same of the chain of spills, and where they go (core/work/push-spill.ts)
 *   archiving.json                       JSON: `archiving off --local`, written by that command alone
 *   ignored.json                         JSON: what was ignored by it and is not declared in the vault yet; written under agent.lock alone
 *   program, node                        links: the installed version, the Node 24 that runs it
 *   archive restore cleanup recovered    the sh wrappers that PostgreSQL calls
 *   agent.lock agent.sock agent.json agent.log
 *   spool/<vault id>-<epoch>/            <name>: verified WAL ready to serve; <name>.ok: archived
 *   now                                  link to the spool directory of this vault and epoch
 *   word/<name>                          how many times the wrapper may still say "not yet" for this name
 *   served                               last segment served
 *   seal                                 JSON, while a promotion of this node is sealed and not yet open
 *   wait                                 this node follows in wait mode: recovery.signal is its signal file
 *   sealed/                              wait mode: what PostgreSQL may still ask for under the seal
 *   reported                             when this node's row was written last (its mtime), and whether it was consistent
 *   role                                 JSON: what this node became last, as on_role_change was told
 *   on_role_change.log                   what its last run said
 *   detached                             JSON: this node was opened for a test; it never writes to the vault again
 *   opened                               the epoch and timeline that this node opened last
 *   refused                              why the gate turned this node back into a standby
 *   restartpoint                         %r of the last restart point
 *   lease watchdog                       until when a primary may go on, and that somebody sees to it (core/work/lease-file.ts)
 *   watchdog.lock                        one watchdog per server
 *   lease-stop                           the watchdog stopped the server: why, until the vault was told of it
 *
 * 0700 and never inside PGDATA: a base backup must not carry it. Whatever a power failure could take back and that would matter
 * (seal, writer.json, refused, spooled WAL) is flushed before its rename; markers and words only save a question.
 */
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { isSegmentName, parseWalName } from '../wal/name.ts';
import type { Promotion } from '../cluster/facts.ts';
import type { KeptRole } from '../cluster/decide-role.ts';
import type { WriterState, WriterStore } from './writer.ts';

export type Identity = { machineId: string; pgdata: string; device: string; inode: string };

/** A sealed promotion, as the target keeps it: all that a restore request needs when the vault does not answer. */
export type Seal = {
  id: string;
  epoch: number;
  node: string;
  mode: Promotion['mode'];
  timeline: number;
  /** Exclusive end of what PostgreSQL may replay. */
  lsn: string;
  reserved: number;
  /** The history of `timeline`; null where it has none. */
  history: string | null;
  /** The unfinished segment in which `lsn` lies, where a tail was consumed; null: `lsn` is the end of a whole segment, or a fork. */
  tail: string | null;
  /** RestoreBranch.wholeForks of its lineage. */
  wholeForks: number[];
  /** Bytes. */
  segmentSize: number;
  /** The run of the server that was asked to promote (serverRun): from then on it may be promoting, whatever files lie there. */
  asked?: string;
};

/** How many times a wrapper answers "not yet" by itself before it asks again: a dead agent is noticed by then. */
export const WORD_COUNT = 20;

/** `<realpath of PGDATA>.walvault` unless the settings name another. */
export function stateDirOf(pgdata: string): string {
  return `${fs.realpathSync(pgdata)}.walvault`;
}

/** Paths below a state directory; relative ones too, for a process that works inside it. */
export function statePaths(dir: string) {
  const at = (name: string) => (dir === '' || dir === '.' ? name : path.join(dir, name));
  return {
    dir,
    settings: at('settings.toml'),
    identity: at('identity.json'),
    writer: at('writer.json'),
    spill: at('spill.json'),
    archiving: at('archiving.json'),
    ignored: at('ignored.json'),
    program: at('program'),
    node: at('node'),
    lock: at('agent.lock'),
    socket: at('agent.sock'),
    agent: at('agent.json'),
    log: at('agent.log'),
    spool: at('spool'),
    now: at('now'),
    word: at('word'),
    served: at('served'),
    seal: at('seal'),
    wait: at('wait'),
    sealed: at('sealed'),
    reported: at('reported'),
    refused: at('refused'),
    opened: at('opened'),
    role: at('role'),
    detached: at('detached'),
    restartPoint: at('restartpoint'),
    lease: at('lease'),
    watchdog: at('watchdog'),
    watchdogLock: at('watchdog.lock'),
    leaseStop: at('lease-stop'),
  };
}
export type StatePaths = ReturnType<typeof statePaths>;

/** What the wrappers, the hooks and the agent check before they act: this machine, this data directory. */
export function identityOf(pgdata: string): Identity {
  const { dev, ino } = fs.statSync(pgdata, { bigint: true });
  return { machineId: machineId(), pgdata, device: dev.toString(), inode: ino.toString() };
}

function machineId(): string {
  for (const file of ['/etc/machine-id', '/var/lib/dbus/machine-id']) {
    try {
      const text = fs.readFileSync(file, 'utf8').trim();
      if (text !== '') return text;
    } catch {
      // not on this system: the next, else the host's name
    }
  }
  return `host:${os.hostname()}`;
}

/** @throws VaultError unconfigured  when the state directory has none */
export function readIdentity(paths: StatePaths): Identity {
  try {
    return JSON.parse(fs.readFileSync(paths.identity, 'utf8')) as Identity;
  } catch (cause) {
    throw new VaultError('unconfigured', `no state directory at ${path.resolve(paths.dir)}`, {
      cause,
      hint: `Run 'walvault configure primary' or 'walvault standby configure' for this data directory.`,
    });
  }
}

/**
 * Is the state directory that of the data directory it was made for, and `caller` (where a hook was called) the same?
 *
 * A copied server calls the wrappers of its origin, since their paths are absolute: it must neither archive under the other's
 * name nor take away the other's spooled files.
 *
 * @throws VaultError copied  naming both directories
 */
export function checkIdentity(
  paths: StatePaths,
  caller?: { pgdata: string; device: string; inode: string },
): Identity {
  const identity = readIdentity(paths);
  let present: Identity;
  try {
    present = identityOf(identity.pgdata);
  } catch (cause) {
    throw new VaultError('pgdata', `the data directory ${identity.pgdata} is not there`, { cause });
  }
  if (caller !== undefined && (caller.inode !== present.inode || caller.device !== present.device)) {
    throw copied(
      `${caller.pgdata} is not the data directory of this configuration, which is ${identity.pgdata}`,
    );
  }
  if (present.machineId !== identity.machineId) {
    throw copied(
      `this configuration was made on machine ${identity.machineId}, this is ${present.machineId} (${identity.pgdata})`,
    );
  }
  // The inode alone: device numbers change with the order in which disks are found at a boot.
  if (present.inode !== identity.inode) {
    throw copied(
      `${identity.pgdata} is another directory than the one that was configured (inode ${present.inode}, was ${identity.inode})`,
    );
  }
  return identity;
}

function copied(message: string): VaultError {
  return new VaultError('copied', message, {
    hint: `A copy must not write as its origin. If this is the server that shall go on, run 'walvault configure primary' (or 'standby configure') for it.`,
  });
}

/** Names this vault and cluster in the spool, so that files of another one are never served. */
export function vaultIdOf(url: string, partition: string): string {
  return createHash('sha256').update(`${url}\n${partition}`).digest('hex').slice(0, 12);
}

/** Replaces `file` so that a crash leaves the old content or the new, flushed with its directory unless `fast`. */
export function replaceDurably(
  file: string,
  content: string | Uint8Array,
  options: { mode?: number } = {},
): void {
  const beside = `${file}.${process.pid}.tmp`;
  const fd = fs.openSync(beside, 'w', options.mode ?? 0o600);
  try {
    fs.writeFileSync(fd, content);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(beside, file);
  syncDirectory(path.dirname(file));
}

export function removeDurably(file: string): void {
  fs.rmSync(file, { force: true });
  syncDirectory(path.dirname(file));
}

function syncDirectory(dir: string): void {
  const fd = fs.openSync(dir === '' ? '.' : dir, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** writer.json. @throws VaultError local  when it cannot be read or written: then nothing may be committed */
export function writerStore(paths: StatePaths): WriterStore {
  return {
    read(): WriterState | undefined {
      const text = readText(paths.writer);
      return text === undefined ? undefined : (JSON.parse(text) as WriterState);
    },
    write(state) {
      checkAttached(paths); // no commit goes out before its nonce is written here: whoever comes this far is stopped
      try {
        replaceDurably(paths.writer, `${JSON.stringify(state)}\n`);
      } catch (cause) {
        throw new VaultError(
          'local',
          `cannot write ${path.resolve(paths.writer)}: ${(cause as Error).message}`,
          { cause },
        );
      }
    },
  };
}

/** The text of a small file, undefined where it is absent. */
export function readText(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new VaultError('local', `cannot read ${path.resolve(file)}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

export function readSeal(paths: StatePaths): Seal | undefined {
  const text = readText(paths.seal);
  return text === undefined ? undefined : (JSON.parse(text) as Seal);
}

/** Wait mode was configured here. Whether the server is in it now its signal files say. */
export function isWaitNode(paths: StatePaths): boolean {
  return fs.existsSync(paths.wait);
}

/** The signal file by which this node's next start is read-only: its restore_command waits, or PostgreSQL itself does. */
export function readOnlySignal(paths: StatePaths): 'standby.signal' | 'recovery.signal' {
  return isWaitNode(paths) ? 'recovery.signal' : 'standby.signal';
}

/** What this node opened last, undefined where it never did. */
export function readOpened(paths: StatePaths): { epoch: number; timeline: number } | undefined {
  const text = readText(paths.opened);
  return text === undefined ? undefined : (JSON.parse(text) as { epoch: number; timeline: number });
}

/** What this node became last; undefined where it was never told, or the file is damaged. */
export function readKeptRole(paths: StatePaths): KeptRole | undefined {
  try {
    const text = readText(paths.role);
    return text === undefined ? undefined : (JSON.parse(text) as KeptRole);
  } catch {
    return undefined;
  }
}

export function writeKeptRole(paths: StatePaths, kept: KeptRole): void {
  replaceDurably(paths.role, `${JSON.stringify(kept)}\n`);
}

export type Detached = { at: string; node: string; vault: string; cluster: string };

/** The mark of `standby detach`: undefined where this node belongs to its vault. */
export function readDetached(paths: StatePaths): Detached | undefined {
  const text = readText(paths.detached);
  return text === undefined ? undefined : (JSON.parse(text) as Detached);
}

export function writeDetached(paths: StatePaths, detached: Detached): void {
  replaceDurably(paths.detached, `${JSON.stringify(detached)}\n`);
}

/** @throws VaultError fenced  where this node was detached: it can neither write to its vault nor follow it, ever */
export function checkAttached(paths: StatePaths): void {
  if (!fs.existsSync(paths.detached)) return;
  const at = readDetached(paths)?.at ?? 'some time';
  throw new VaultError('fenced', `this node was detached from its vault at ${at}`, {
    hint: `It was opened for a test and never writes to the vault again; when the test is over, stop it and run 'walvault rejoin'.`,
  });
}

export function writeSeal(paths: StatePaths, seal: Seal): void {
  replaceDurably(paths.seal, `${JSON.stringify(seal, null, 2)}\n`);
}

/** The last segment that was served, undefined where none was or the wrapper is just writing it. */
export function readServed(paths: StatePaths): string | undefined {
  const name = readText(paths.served)?.trim();
  return name !== undefined && isSegmentName(name) ? name : undefined;
}

/** When it was written, in ms; 0: never. The same name again is written again. */
export function servedAt(paths: StatePaths): number {
  return fs.statSync(paths.served, { throwIfNoEntry: false })?.mtimeMs ?? 0;
}

export function writeServed(paths: StatePaths, name: string): void {
  if (isSegmentName(name)) fs.writeFileSync(paths.served, `${name}\n`, { mode: 0o600 });
}

/** A node's row was written, by whoever did it. */
export function noteReport(paths: StatePaths, consistent: boolean): void {
  fs.writeFileSync(paths.reported, consistent ? 'consistent\n' : 'not yet\n', { mode: 0o600 });
}

/** Is a row due? A fresh standby becomes a target of triggers by its report: sooner than an interval later. */
export function isReportDue(paths: StatePaths, intervalMs: number): boolean {
  const at = fs.statSync(paths.reported, { throwIfNoEntry: false })?.mtimeMs;
  if (at === undefined) return true;
  const isConsistent = readText(paths.reported)?.trim() === 'consistent';
  const age = Date.now() - at;
  return age < 0 || age >= (isConsistent ? intervalMs : Math.min(intervalMs, 500)); // the clock may have been set back
}

/** %r of the last restart point; all zeros is no position. */
export function readRestartPoint(paths: StatePaths): string | undefined {
  const name = readText(paths.restartPoint)?.trim();
  return name !== undefined && parseWalName(name) !== undefined ? name : undefined;
}

/** A primary has none. @returns null, as its row shall say */
export function forgetRestartPoint(paths: StatePaths): null {
  fs.rmSync(paths.restartPoint, { force: true });
  return null;
}

/**
 * Points `now` at the spool directory of this vault and epoch, made if need be, and removes those of others: their files and
 * markers are no longer true. The link moves in one step: a wrapper finds the old directory or the new.
 *
 * @returns the directory, below the state directory
 */
export function openSpool(paths: StatePaths, vaultId: string, epoch: number): string {
  const name = `${vaultId}-${epoch}`;
  const dir = path.join(paths.spool, name);
  fs.mkdirSync(dir, { recursive: true, mode: 0o700 });
  const target = path.join('spool', name);
  if (readLink(paths.now) !== target) {
    const beside = `${paths.now}.${randomBytes(4).toString('hex')}`;
    fs.symlinkSync(target, beside);
    fs.renameSync(beside, paths.now);
  }
  return dir;
}

/** Removes the spool directories that `now` does not name, and what a killed process left half written (not what this one is writing). */
export function sweepSpool(paths: StatePaths): void {
  const current = path.basename(readLink(paths.now) ?? '');
  for (const name of listDir(paths.spool)) {
    if (name !== current) fs.rmSync(path.join(paths.spool, name), { recursive: true, force: true });
  }
  for (const name of listDir(path.join(paths.spool, current))) {
    if (name.endsWith('.tmp') && !name.endsWith(`.${process.pid}.tmp`))
      fs.rmSync(path.join(paths.spool, current, name), { force: true });
  }
}

function readLink(file: string): string | undefined {
  try {
    return fs.readlinkSync(file);
  } catch {
    return undefined;
  }
}

export function listDir(dir: string): string[] {
  try {
    return fs.readdirSync(dir);
  } catch {
    return [];
  }
}

/** The "not yet" words. Only what `setWords` was given last is there afterwards: a word that is no longer true goes at once. */
export class Words {
  readonly #dir: string;

  constructor(paths: StatePaths) {
    this.#dir = paths.word;
    fs.mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
  }

  /** @param counts  name to count; a name that has used less than half of it is left as it is */
  set(counts: ReadonlyMap<string, number>): void {
    for (const name of listDir(this.#dir))
      if (!counts.has(name)) fs.rmSync(path.join(this.#dir, name), { force: true });
    for (const [name, count] of counts) {
      const left = this.left(name);
      if (left === undefined || left < count / 2 || left > count) this.#write(name, count);
    }
  }

  /** What the wrapper has left of a word; undefined where there is none, or it is just being written. */
  left(name: string): number | undefined {
    try {
      const text = fs.readFileSync(path.join(this.#dir, name), 'utf8').trim();
      return /^\d+$/.test(text) ? Number(text) : undefined;
    } catch {
      return undefined;
    }
  }

  #write(name: string, count: number): void {
    const beside = path.join(this.#dir, `.${name}.tmp`);
    fs.writeFileSync(beside, `${count}\n`, { mode: 0o600 });
    fs.renameSync(beside, path.join(this.#dir, name));
  }

  clear(): void {
    this.set(new Map());
  }
}
