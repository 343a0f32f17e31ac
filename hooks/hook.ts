/**
 * What every hook does first and last: it works in the state directory, checks that the server calling is the one configured, asks the
 * agent, and says a failure on standard error, which is the server's log.
 *
 * Thin on purpose: a hook starts for each file. What needs the vault is loaded from the agent's bundle only where no agent can be had.
 */
import fs from 'node:fs';
import path from 'node:path';
import { describeFailure, VaultError } from '../core/errors.ts';
import { buildId, failureOf, type AgentAnswer, type AgentRequest } from '../core/work/agent-socket.ts';
import { checkIdentity, statePaths } from '../core/work/node-state.ts';
import { askOrStart } from './start-agent.ts';
import type { Alone } from './agent.ts';

export type Call = {
  /** Absolute; the process works in it. */
  stateDir: string;
  /** Where PostgreSQL (or pg_rewind) called from. */
  calledFrom: string;
  pgdata: string;
  /** The hook was called from another data directory than the one configured. */
  foreign: boolean;
};

/** @throws VaultError unconfigured (no state directory) */
export function enter(stateDir: string): Call {
  const calledFrom = process.cwd();
  try {
    process.chdir(stateDir);
  } catch (cause) {
    throw new VaultError('unconfigured', `no state directory at ${stateDir}: ${(cause as Error).message}`, {
      cause,
      hint: `Run 'walvault configure primary' or 'walvault standby configure' for this data directory.`,
    });
  }
  const identity = JSON.parse(fs.readFileSync('identity.json', 'utf8')) as { pgdata: string };
  const foreign = fs.existsSync(path.join(calledFrom, 'PG_VERSION')) && !isSame(calledFrom, identity.pgdata);
  return { stateDir, calledFrom, pgdata: identity.pgdata, foreign };
}

function isSame(one: string, other: string): boolean {
  try {
    const [a, b] = [fs.statSync(one, { bigint: true }), fs.statSync(other, { bigint: true })];
    return a.dev === b.dev && a.ino === b.ino;
  } catch {
    return false;
  }
}

/** @throws VaultError copied  naming both directories */
export function checkCaller(call: Call): void {
  const { dev, ino } = fs.statSync(call.calledFrom, { bigint: true });
  checkIdentity(statePaths('.'), { pgdata: call.calledFrom, device: dev.toString(), inode: ino.toString() });
}

/** The agent's answer; undefined: none could be had. A failure it answers is thrown as what it is. */
export async function ask(
  call: Call,
  request: AgentRequest,
): Promise<(AgentAnswer & { ok: true }) | undefined> {
  const answer = await askOrStart(call.stateDir, request, buildId(), mayStartAgent());
  if (answer === undefined || answer.ok) return answer;
  throw answer.code !== 'version' && answer.gate === true ? new Gate(answer.message) : failureOf(answer);
}

/** The gate of a promotion said no: `standby.signal` is written, PostgreSQL must stop before its first write. */
export class Gate extends Error {}

/** `agent = "off"` in settings.toml, without a parser for TOML: it is written by us, one setting a line. */
function mayStartAgent(): boolean {
  try {
    return !/^\s*agent\s*=\s*"?(off|false)"?\s*$/m.test(fs.readFileSync('settings.toml', 'utf8'));
  } catch {
    return true;
  }
}

/** The heavy part, from the agent's bundle. */
export async function loadAlone(): Promise<Alone> {
  const bundle = path.join(fs.realpathSync('program'), 'dist', 'agent.cjs');
  const loaded = (await import(bundle)) as { alone?: Alone; default?: { alone: Alone } };
  const alone = loaded.alone ?? loaded.default?.alone;
  if (alone === undefined) throw new Error(`${bundle} is not walvault's agent`);
  return alone;
}

/** Runs a hook: its exit code is `main`'s, or `failed` where it throws, with the failure on standard error. */
export function runHook(failed: number, main: () => Promise<number>): void {
  process.removeAllListeners('warning'); // SQLite's "experimental" is no news for the server's log
  process.on('warning', () => {});
  main().then(
    (code) => process.exit(code),
    (error: unknown) => {
      process.stderr.write(`${describeFailure(error).text}\n`);
      process.exit(failed);
    },
  );
}
