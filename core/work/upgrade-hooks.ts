/**
 * Moves one server to another version of the program: its links, and the scripts that PostgreSQL calls where their text has changed. No
 * restart and no reload, under load too: each step is a rename, a hook finds the old version or the new one, and both write the same
 * rows. The agent of the old version finishes what it has in hand and makes way.
 *
 * A vault of a newer format than the program knows would be read and never written: such a move is refused before anything is changed.
 */
import fs from 'node:fs';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { askAgent, NoAgent, type AgentRequest } from './agent-socket.ts';
import type { Identity } from './node-state.ts';
import { checkIdentity, identityOf, statePaths } from './node-state.ts';
import { linkProgram, wrapperTexts, writeWrappers, type InstallRequest } from './wrappers.ts';

export type UpgradeRequest = Pick<InstallRequest, 'programRoot' | 'nodeBinary'> & {
  stateDir: string;
  /** Reads the cluster's control row: whether this program may write there. @throws VaultError format | … */
  askVault(): Promise<unknown>;
  /** Say only what would be done. */
  dryRun: boolean;
};

export type Upgraded = {
  from: { root: string; version: string | null };
  to: { root: string; version: string | null };
  /** Scripts whose text has changed. */
  wrappers: string[];
  /** finished: it ends by itself as soon as it has nothing in hand, whoever told it; none: none ran. */
  agent: 'finished' | 'none' | 'kept';
  /** Why the vault could not be asked; null: it was, and takes this version. */
  unasked: string | null;
};

/**
 * Run again it changes nothing.
 *
 * @throws VaultError unconfigured (no state directory) | copied (made for another server) | format | local
 */
export async function upgradeHooks(request: UpgradeRequest): Promise<Upgraded> {
  const { stateDir, programRoot, dryRun } = request;
  const paths = statePaths(stateDir);
  const identity = readIdentity(paths.identity, stateDir);
  checkIdentity(paths, identityOf(identity.pgdata));
  const from = versionAt(paths.program);
  const to = versionAt(programRoot);
  const unasked = await vaultTakes(request.askVault);
  const isMoved = from.root !== to.root;
  const answer = { from, to, unasked };
  if (dryRun)
    return {
      ...answer,
      wrappers: differing(stateDir, identity.pgdata),
      agent: isMoved ? 'finished' : 'kept',
    };
  try {
    // asked before the links: from then on a hook of the new version may be faster to end it
    const runs = isMoved && (await hasAgent(stateDir));
    linkProgram(paths, request);
    const wrappers = writeWrappers(stateDir, identity.pgdata);
    if (isMoved) await finishAgent(stateDir);
    return { ...answer, wrappers, agent: runs ? 'finished' : isMoved ? 'none' : 'kept' };
  } catch (cause) {
    if (cause instanceof VaultError) throw cause;
    throw new VaultError(
      'local',
      `cannot write the state directory ${stateDir}: ${(cause as Error).message}`,
      {
        cause,
        hint: `Run it as the user who runs the server.`,
      },
    );
  }
}

function readIdentity(file: string, stateDir: string): Identity {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as Identity;
  } catch (cause) {
    throw new VaultError('unconfigured', `no state directory at ${stateDir}: ${(cause as Error).message}`, {
      cause,
      hint: `'walvault configure primary' or 'walvault standby configure' makes it, with this version at once.`,
    });
  }
}

function versionAt(place: string): Upgraded['from'] {
  try {
    const root = fs.realpathSync(place);
    const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as {
      version?: string;
    };
    return { root, version: version ?? null };
  } catch {
    return { root: path.resolve(place), version: null }; // removed already: this mends it
  }
}

/** Only its word that it is too new is a refusal: an upgrade may be what mends the way to it. */
async function vaultTakes(ask: () => Promise<unknown>): Promise<string | null> {
  try {
    await ask();
    return null;
  } catch (error) {
    if (!(error instanceof VaultError) || error.code === 'format') throw error;
    return `[${error.code}] ${error.message}`;
  }
}

function differing(stateDir: string, pgdata: string): string[] {
  return Object.entries(wrapperTexts(stateDir, pgdata))
    .filter(([name, text]) => {
      try {
        return fs.readFileSync(path.join(stateDir, name), 'utf8') !== text;
      } catch {
        return true;
      }
    })
    .map(([name]) => name);
}

/** An idle server calls no hook for long: its agent is told now. The next hook starts one of this version. */
const finishAgent = (stateDir: string): Promise<boolean> => isHeard(stateDir, { op: 'finish' });

const hasAgent = (stateDir: string): Promise<boolean> => isHeard(stateDir, { op: 'status' });

/** False where no agent listens; one that hangs, or ends before it answers, has heard it all the same. */
async function isHeard(stateDir: string, request: AgentRequest): Promise<boolean> {
  const before = process.cwd();
  process.chdir(stateDir); // a socket's path is short
  try {
    await askAgent(request, null);
    return true;
  } catch (error) {
    if (error instanceof NoAgent) return false;
    if (error instanceof VaultError) return true;
    throw error;
  } finally {
    process.chdir(before);
  }
}
