/** restore_command's bundle against an agent that dies while it is asked: whose server would be stopped by that is served all the same. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { makeScratch } from '../../harness/scratch.ts';

const hook = path.resolve(import.meta.dirname, '../../../hooks/restore.ts');
const NAME = '000000010000000000000003';

let scratch: string;
let pgdata: string;
let agent: net.Server;

beforeEach(async () => {
  scratch = makeScratch('restore');
  const state = path.join(scratch, 'state');
  pgdata = path.join(scratch, 'data');
  for (const dir of [pgdata, path.join(state, 'program/dist')]) mkdirSync(dir, { recursive: true });
  writeFileSync(path.join(pgdata, 'PG_VERSION'), '18\n');
  writeFileSync(path.join(state, 'identity.json'), JSON.stringify({ pgdata }));
  // what a hook does by itself
  writeFileSync(
    path.join(state, 'program/dist/agent.cjs'),
    `exports.alone = { restore: async (_, { name }, target) => (require('node:fs').writeFileSync(target, name), true) };`,
  );
  agent = net.createServer((socket) => socket.once('data', () => socket.destroy()));
  await once(agent.listen(path.join(state, 'agent.sock')), 'listening');
});
afterEach(() => {
  agent.close();
  rmSync(scratch, { recursive: true, force: true });
});

async function restore(): Promise<number> {
  const words = [hook, path.join(scratch, 'state'), NAME, 'RECOVERYXLOG'];
  const child = spawn(process.execPath, words, { cwd: pgdata, stdio: 'ignore' });
  const [code] = (await once(child, 'close')) as [number];
  return code;
}

test.each([
  ['in archive recovery', 'recovery.signal'],
  ['with a promotion pending', 'standby.signal', 'promote'],
])('%s the hook reads the vault by itself', async (_when, ...signals) => {
  for (const signal of signals) writeFileSync(path.join(pgdata, signal), '');
  expect(await restore()).toBe(0);
  expect(readFileSync(path.join(pgdata, 'RECOVERYXLOG'), 'utf8')).toBe(NAME);
});

test('a standby that follows is told to ask again', async () => {
  writeFileSync(path.join(pgdata, 'standby.signal'), '');
  expect(await restore()).toBe(1);
});
