/** The watchdog's care for an agent, which is played here by a process that answers nothing. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Journal } from '../../../core/work/journal.ts';
import { statePaths } from '../../../core/work/node-state.ts';
import { AgentCare } from '../../../core/work/watchdog.ts';

const MS = 9000;
const lease = { boot: 'b', until: 0, ms: MS, epoch: 1 };

let folder: string;
let agent: ChildProcess | undefined;
beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'walvault-watchdog-'));
});
afterEach(() => {
  agent?.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

test('an agent that answers nothing while its renewal is overdue is replaced by two looks in a row: the stop is near', async () => {
  const paths = statePaths(folder);
  agent = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', 'agent.cjs'], {
    ...{ cwd: folder, stdio: 'ignore' },
  });
  const ended = once(agent, 'exit');
  await once(agent, 'spawn');
  writeFileSync(paths.agent, JSON.stringify({ pid: agent.pid }));
  let started = 0;
  const care = new AgentCare(paths, new Journal(paths), () => void started++);
  await care.look({ ageMs: MS / 3 - 1, lease });
  expect(started).toBe(0);
  for (const ageMs of [MS / 3 + 1, MS / 3 + 2]) await care.look({ ageMs, lease });
  expect(started).toBe(1);
  expect(await ended).toEqual([null, 'SIGKILL']);
  // the next one takes a moment until it says who it is
  await care.look({ ageMs: MS / 3 + 3, lease });
  expect(started).toBe(1);
});
