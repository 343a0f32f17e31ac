/**
 * How hooks and commands talk to the agent: one line of JSON each way over the unix socket `agent.sock`.
 *
 * The path is relative: a socket's path holds 107 bytes at most, a state directory's may be longer, so both sides chdir there first.
 * While it works the agent sends an empty line each second: a hook waits as long as it takes, but not for an agent that hangs.
 */
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { FAILURES, VaultError, type FailureCode } from '../errors.ts';

export type AgentRequest =
  | { op: 'archive'; name: string; path: string }
  | { op: 'restore'; name: string; mode: 'standby' | 'archive'; promotionPending: boolean }
  | { op: 'recovered' }
  | { op: 'status' }
  | { op: 'finish' };

export type AgentAnswer =
  | { ok: true; file?: string; how?: 'rename' | 'copy'; status?: unknown; note?: string }
  /** Absence, said: not a failure. */
  | { ok: true; absent: true; note?: string }
  /** `gate`: the promotion must not go on, `standby.signal` is written. */
  | { ok: false; code: FailureCode | 'bug'; message: string; hint?: string; gate?: true }
  /** The agent belongs to another version of the program and has ended itself. */
  | { ok: false; code: 'version'; message: string };

/** How long the agent may be silent before it counts as hanging, in ms. */
const SILENCE_MS = 6000;
const ALIVE_EVERY_MS = 1000;

/** Which build of the program is installed: an agent of another one is replaced. */
export function buildId(programLink = 'program'): string {
  const root = fs.realpathSync(programLink);
  try {
    const { mtimeNs, size } = fs.statSync(path.join(root, 'dist', 'agent.cjs'), { bigint: true });
    return `${root} ${mtimeNs} ${size}`;
  } catch {
    return root;
  }
}

export class NoAgent extends Error {}

/**
 * Asks the agent of the state directory that this process works in.
 *
 * @throws NoAgent  nobody listens
 * @throws VaultError unreachable  the agent hung, or ended before it answered
 */
export function askAgent(
  request: AgentRequest,
  build: string | null,
  socketPath = 'agent.sock',
): Promise<AgentAnswer> {
  return new Promise((resolve, reject) => {
    const socket = net.connect(socketPath);
    let text = '';
    let connected = false;
    const fail = (why: string) => {
      socket.destroy();
      reject(
        connected
          ? new VaultError('unreachable', `the agent of this server ${why}`, {
              hint: `look into agent.log in the state directory; kill -9 of the agent loses nothing`,
            })
          : new NoAgent(why),
      );
    };
    socket.setTimeout(SILENCE_MS, () => fail(`did not answer for ${SILENCE_MS / 1000} s`));
    socket.on('connect', () => {
      connected = true;
      socket.write(`${JSON.stringify({ ...request, build })}\n`);
    });
    socket.on('data', (chunk) => {
      text += chunk.toString('utf8');
      const line = text.split('\n').find((each, index, all) => each !== '' && index < all.length - 1);
      if (line === undefined) return;
      socket.destroy();
      resolve(JSON.parse(line) as AgentAnswer);
    });
    socket.on('error', (error) => fail(error.message));
    socket.on('end', () => fail('ended before it answered'));
  });
}

/** An answer that is a failure, as the error it stands for. */
export function failureOf(answer: AgentAnswer & { ok: false }): Error {
  if (answer.code in FAILURES) {
    const hint = 'hint' in answer ? answer.hint : undefined;
    return new VaultError(answer.code as FailureCode, answer.message, { hint });
  }
  return new Error(answer.message);
}

export function answerOf(error: unknown): AgentAnswer & { ok: false } {
  if (error instanceof VaultError)
    return { ok: false, code: error.code, message: error.message, hint: error.hint };
  return {
    ok: false,
    code: 'bug',
    message: error instanceof Error ? (error.stack ?? error.message) : String(error),
  };
}

type Handler = (request: AgentRequest & { build: string | null }) => Promise<AgentAnswer>;

/**
 * Listens on `agent.sock`. The caller holds the node's lock: whatever lies there is of a dead agent.
 *
 * @throws VaultError local
 */
export async function listenForRequests(handle: Handler, socketPath = 'agent.sock'): Promise<net.Server> {
  fs.rmSync(socketPath, { force: true });
  const server = net.createServer((socket) => serve(socket, handle));
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new VaultError('local', `cannot listen on ${path.resolve(socketPath)}: ${cause.message}`, { cause }),
      ),
    );
    server.listen(socketPath, resolve);
  });
  return server;
}

function serve(socket: net.Socket, handle: Handler): void {
  let text = '';
  let asked = false;
  socket.on('error', () => socket.destroy()); // the hook was killed: nobody waits any more
  socket.on('data', (chunk) => {
    text += chunk.toString('utf8');
    const end = text.indexOf('\n');
    if (end < 0 || asked) return;
    asked = true;
    const alive = setInterval(() => socket.write('\n'), ALIVE_EVERY_MS);
    socket.on('close', () => clearInterval(alive));
    Promise.resolve()
      .then(() => handle(JSON.parse(text.slice(0, end)) as AgentRequest & { build: string | null }))
      .catch(answerOf)
      .then((answer) => {
        clearInterval(alive);
        socket.end(`${JSON.stringify(answer)}\n`);
      });
  });
}
