/** The node's lock: one holder, and the kernel frees it. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { takeNodeLock } from '../../../core/work/node-lock.ts';

let dir: string;
beforeEach(() => (dir = mkdtempSync(path.join(os.tmpdir(), 'walvault-lock-'))));
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const HOLD = `
  const { DatabaseSync } = require('node:sqlite');
  const database = new DatabaseSync(process.argv[1]);
  database.exec('BEGIN EXCLUSIVE');
  console.log('held');
  setInterval(() => {}, 1000);
`;

async function holder(file: string) {
  const child = spawn(process.execPath, ['-e', HOLD, file], { stdio: ['ignore', 'pipe', 'ignore'] });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  return child;
}

test('a second process does not get the lock, and gets it the moment the first is killed with -9', async () => {
  const file = path.join(dir, 'agent.lock');
  const child = await holder(file);
  expect(await takeNodeLock(file)).toBeUndefined();
  const waiting = takeNodeLock(file, 5000);
  child.kill('SIGKILL');
  const lock = await waiting;
  expect(lock).toBeDefined();
  lock?.release();
});

test('a released lock can be taken again', async () => {
  const file = path.join(dir, 'agent.lock');
  (await takeNodeLock(file))?.release();
  const again = await takeNodeLock(file);
  expect(again).toBeDefined();
  again?.release();
});

test('a state directory that is not there is a failure, not a lock held by another', async () => {
  await expect(takeNodeLock(path.join(dir, 'none', 'agent.lock'))).rejects.toMatchObject({ code: 'local' });
});
