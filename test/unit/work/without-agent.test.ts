/** The agent's lock for who changes its state directory: whoever holds it is asked to end, also one that says late who it is. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { withoutAgent } from '../../../core/work/without-agent.ts';

let dir: string;
beforeEach(() => (dir = mkdtempSync(path.join(os.tmpdir(), 'walvault-without-'))));
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** As an agent begins: the lock first, and after some time its name in agent.json. */
const AGENT = `
  const { DatabaseSync } = require('node:sqlite');
  const [dir, lateMs] = process.argv.slice(2);
  const database = new DatabaseSync(dir + '/agent.lock');
  database.exec('BEGIN EXCLUSIVE');
  console.log('held');
  const say = () => require('node:fs').writeFileSync(dir + '/agent.json', JSON.stringify({ pid: process.pid }));
  if (lateMs === '0') say();
  setTimeout(say, Number(lateMs));
  setInterval(() => {}, 1000);
`;

test.each([
  ['an agent that has said who it is', 0],
  ['an agent that has just started, and says it after it was looked for', 300],
])('%s is ended, and none runs during the work', async (_what, lateMs) => {
  const file = path.join(dir, 'agent.cjs');
  writeFileSync(file, AGENT);
  const words = [file, dir, String(lateMs)];
  const child = spawn(process.execPath, words, { cwd: dir, stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)));
  try {
    await new Promise((resolve) => child.stdout.once('data', resolve));
    expect(await withoutAgent(dir, async () => 'done')).toBe('done');
    expect(await ended).toBe('SIGTERM');
  } finally {
    child.kill('SIGKILL');
  }
});
