/**
 * Looks at the state directory of a node for `walvault doctor`: files, links, wrappers, identity, agent. Changes nothing, and takes
 * whatever it may not read for a fact.
 */
import fs from 'node:fs';
import path from 'node:path';
import { FAILURES } from '../errors.ts';
import type { LeaseFacts } from '../cluster/examine-lease.ts';
import { decideLeaseSettings, leaseAge } from '../cluster/lease.ts';
import type { Settings } from '../settings/read.ts';
import type { AgentFacts, FileFacts, IdentityFacts, StateFacts } from '../cluster/examine-node.ts';
import type { Unseen } from '../cluster/finding.ts';
import { askAgent, NoAgent } from './agent-socket.ts';
import { bootId, bootMs } from './boot-clock.ts';
import { livingWatchdog, readLease } from './lease-file.ts';
import { livingAgent } from './living-agent.ts';
import { rewindMark } from './local-wal.ts';
import { identityOf, readDetached, readSeal, statePaths, type Seal, type StatePaths } from './node-state.ts';
import { wrapperTexts } from './wrappers.ts';

/** What the program link must lead to: one bundle for each hook, the agent's and the watchdog's. */
const BUNDLES = ['archive', 'restore', 'recovered', 'agent', 'watchdog'];

/** How much of the end of agent.log is read, bytes. */
const LOG_BYTES = 64 * 1024;

/**
 * @param pgdata  the real path, where it could be followed
 * @param settings  those by which hooks and agent go
 */
export async function lookAtState(dir: string, pgdata: string, settings: Settings): Promise<StateFacts> {
  const paths = statePaths(path.resolve(dir));
  const wanted = wrapperTexts(paths.dir, pgdata);
  return {
    dir: fileFacts(paths.dir, { within: true }),
    isInside: paths.dir === pgdata || paths.dir.startsWith(pgdata + path.sep),
    files: [paths.settings, paths.identity, paths.writer].map((file) => fileFacts(file)),
    wrappers: Object.entries(wanted).map(([name, text]) => ({
      file: fileFacts(path.join(paths.dir, name), { text: true }),
      wanted: text,
    })),
    links: [linkFacts('program', paths.program), linkFacts('node', paths.node)],
    lacks: BUNDLES.filter((name) => !isThere(path.join(paths.program, 'dist', `${name}.cjs`))).map(
      (name) => `dist/${name}.cjs`,
    ),
    version: versionAt(paths.program),
    identity: lookAtIdentity(paths, pgdata),
    agent: await lookAtAgent(paths, settings.agent),
    lease: lookAtLease(paths, settings),
    marks: lookAtMarks(paths),
    failures: lastFailures(paths.log),
  };
}

function fileFacts(file: string, { text = false, within = false } = {}): FileFacts {
  const facts: FileFacts = { path: file, kind: 'absent', mode: 0, uid: 0 };
  try {
    const found = fs.statSync(file);
    facts.kind = found.isFile() ? 'file' : found.isDirectory() ? 'directory' : 'other';
    facts.mode = found.mode & 0o777;
    facts.uid = found.uid;
    if (within && facts.kind === 'directory') fs.readdirSync(file);
    if (text && facts.kind === 'file') facts.text = fs.readFileSync(file, 'utf8');
  } catch (error) {
    if (!['ENOENT', 'ENOTDIR'].includes(codeOf(error))) facts.unseen = (error as Error).message;
  }
  return facts;
}

function linkFacts(name: 'program' | 'node', link: string): StateFacts['links'][number] {
  let target: string | undefined;
  try {
    target = fs.readlinkSync(link);
    if (name === 'node') fs.accessSync(link, fs.constants.X_OK);
    return { name, path: link, target, resolves: fs.statSync(link).isDirectory() === (name === 'program') };
  } catch (error) {
    // something else than a link is none of ours
    return { name, path: link, target: codeOf(error) === 'EINVAL' ? undefined : target, resolves: false };
  }
}

function versionAt(program: string): string | undefined {
  try {
    const text = fs.readFileSync(path.join(program, 'package.json'), 'utf8');
    return String((JSON.parse(text) as { version?: unknown }).version);
  } catch {
    return undefined;
  }
}

function lookAtIdentity(paths: StatePaths, pgdata: string): StateFacts['identity'] | Unseen {
  let present: IdentityFacts;
  try {
    present = identityOf(pgdata);
  } catch (error) {
    return { unseen: `the data directory ${pgdata} cannot be looked at: ${(error as Error).message}` };
  }
  try {
    const kept = JSON.parse(fs.readFileSync(paths.identity, 'utf8')) as IdentityFacts;
    return { kept, present };
  } catch (error) {
    // damaged is as good as absent: it is written anew
    if (error instanceof SyntaxError || codeOf(error) === 'ENOENT') return { kept: undefined, present };
    return { unseen: `${paths.identity} cannot be read: ${(error as Error).message}` };
  }
}

function lookAtLease(paths: StatePaths, settings: Settings): LeaseFacts {
  const { lease: ms, watchdog, heartbeatInterval: heartbeatMs, agent, roles, drVault, drAfter } = settings;
  const refused = decideLeaseSettings({ leaseMs: ms, heartbeatMs, watchdog, agent, roles });
  const spillsAfterMs = drVault === undefined || drVault === 'none' ? undefined : drAfter;
  const facts: LeaseFacts = { ms, watchdog, refused, runs: undefined, ageMs: undefined, spillsAfterMs };
  if (ms === 0) return facts;
  try {
    const kept = readLease(paths.lease);
    const ageMs = kept === undefined ? undefined : leaseAge(kept, bootId(), bootMs());
    return { ...facts, ageMs, runs: livingWatchdog(paths.watchdog) };
  } catch {
    return facts; // no clock that counts sleep: the agent says so, and renews nothing
  }
}

async function lookAtAgent(paths: StatePaths, isWanted: boolean): Promise<AgentFacts> {
  const runs = livingAgent(paths);
  const from = process.cwd();
  try {
    process.chdir(paths.dir); // a socket's path holds 107 bytes, a state directory's may be longer
  } catch (error) {
    return { isWanted, runs, answers: ['EACCES', 'EPERM'].includes(codeOf(error)) ? 'unseen' : 'no' };
  }
  try {
    await askAgent({ op: 'status' }, null);
    return { isWanted, runs, answers: 'yes' };
  } catch (error) {
    if (!(error instanceof NoAgent)) return { isWanted, runs, answers: 'hangs' };
    if (/EACCES|EPERM/.test(error.message)) return { isWanted, runs, answers: 'unseen' };
    // connected to nobody within the limit: one that was stopped takes no connection at all, once its queue is full
    return {
      isWanted,
      runs,
      answers: runs !== undefined && /did not answer/.test(error.message) ? 'hangs' : 'no',
    };
  } finally {
    process.chdir(from);
  }
}

function lookAtMarks(paths: StatePaths): StateFacts['marks'] {
  const quiet = <T>(read: () => T | undefined): T | undefined => {
    try {
      return read();
    } catch {
      return undefined; // closed to us, which the check of the directory says; or half written
    }
  };
  const seal = quiet<Seal>(() => readSeal(paths));
  return {
    detached: quiet(() => readDetached(paths)?.at),
    seal: seal && { epoch: seal.epoch, timeline: seal.timeline, reserved: seal.reserved },
    refused: quiet(() => fs.readFileSync(paths.refused, 'utf8').trim()),
    refusing: isThere(path.join(paths.dir, 'refusing')),
    rewinding: isThere(rewindMark(paths)),
  };
}

/** Lines of the journal that name a failure. */
function lastFailures(log: string): string[] {
  try {
    const file = fs.openSync(log, 'r');
    try {
      const { size } = fs.fstatSync(file);
      const from = Math.max(0, size - LOG_BYTES);
      const bytes = Buffer.alloc(Math.min(size, LOG_BYTES));
      fs.readSync(file, bytes, 0, bytes.length, from);
      const codes = new RegExp(`\\[(${Object.keys(FAILURES).join('|')})\\] `);
      const lines = bytes.toString('utf8').split('\n');
      return lines.filter((line) => codes.test(line)).slice(-3);
    } finally {
      fs.closeSync(file);
    }
  } catch {
    return [];
  }
}

function isThere(file: string): boolean {
  return fs.existsSync(file);
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? '';
}
