/** recovery_end_command's bundle against an agent that the test plays: any failure but 200 is leave for PostgreSQL to open. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import type { AgentAnswer } from '../../../core/work/agent-socket.ts';
import { makeScratch } from '../../harness/scratch.ts';

const hook = path.resolve(import.meta.dirname, '../../../hooks/recovered.ts');
const gate: AgentAnswer = { ok: false, code: 'fenced', message: 'this server must not open', gate: true };

let state: string;
let agent: net.Server;
let asked: number;

/** @param answers  one for each time that it is asked; undefined: it dies first */
async function agentThatSays(...answers: (AgentAnswer | undefined)[]): Promise<void> {
  asked = 0;
  agent = net.createServer((socket) => {
    socket.once('data', () => {
      const answer = answers[asked++];
      socket.end(answer === undefined ? '' : `${JSON.stringify(answer)}\n`);
    });
  });
  await once(agent.listen(path.join(state, 'agent.sock')), 'listening');
}

async function recovered(): Promise<{ code: number; said: string }> {
  const child = spawn(process.execPath, [hook, state], { cwd: state, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, said };
}

beforeEach(() => {
  state = makeScratch('gate');
  mkdirSync(path.join(state, 'program/dist'), { recursive: true });
  writeFileSync(path.join(state, 'identity.json'), JSON.stringify({ pgdata: path.join(state, 'data') }));
  writeFileSync(path.join(state, 'seal'), '{}');
  // what a hook does by itself
  writeFileSync(
    path.join(state, 'program/dist/agent.cjs'),
    `exports.alone = { recovered: async () => { throw Object.assign(new Error('closed by the hook alone'), { gate: true }); } };`,
  );
});
afterEach(() => {
  agent.close();
  rmSync(state, { recursive: true, force: true });
});

test('an agent that dies before it answers is asked again: the next one may close the gate', async () => {
  await agentThatSays(undefined, gate);
  expect(await recovered()).toEqual({ code: 200, said: expect.stringContaining('must not open') as string });
  expect(asked).toBe(2);
});

test('where no agent ever answers the hook asks the vault by itself', async () => {
  await agentThatSays();
  expect(await recovered()).toEqual({ code: 200, said: expect.stringContaining('hook alone') as string });
});

test('a failure that an agent answers with is said, and PostgreSQL opens', async () => {
  await agentThatSays({ ok: false, code: 'hole', message: 'a segment is missing' });
  expect(await recovered()).toEqual({ code: 1, said: expect.stringContaining('is missing') as string });
  expect(asked).toBe(1);
});
