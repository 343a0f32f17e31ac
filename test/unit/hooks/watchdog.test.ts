/** The watchdog's process beside agents of other servers of this machine: numbers are given again, after a restart of the machine above all. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { identityOf } from '../../../core/work/node-state.ts';
import { FakeServer } from '../../harness/fake-server.ts';
import { isAlive, makeScratch, removeScratch, waitFor } from '../../harness/scratch.ts';

const hook = path.resolve(import.meta.dirname, '../../../hooks/watchdog.ts');

let scratch: string;
let state: string;
let server: FakeServer;

beforeEach(async () => {
  scratch = makeScratch('dog');
  state = path.join(scratch, 'state');
  mkdirSync(path.join(state, 'program/dist'), { recursive: true });
  server = new FakeServer(scratch);
  writeFileSync(path.join(state, 'identity.json'), JSON.stringify(identityOf(server.pgdata)));
  symlinkSync(process.execPath, path.join(state, 'node'));
  writeFileSync(
    path.join(state, 'program/dist/agent.cjs'),
    `require('node:fs').writeFileSync('started', ''); setInterval(() => {}, 1000);`,
  );
  await server.start({ fast: 'ends', immediate: 'ends' });
});
afterEach(async () => {
  await server.close();
  await removeScratch(scratch);
});

/** A process that runs agent.cjs and works in `folder`. */
function agentIn(folder: string): ChildProcess {
  mkdirSync(folder, { recursive: true });
  return spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', 'agent.cjs'], {
    cwd: folder,
    stdio: 'ignore',
  });
}

test('another server’s agent under the number of its own dead one is not taken for it: its own is started', async () => {
  const other = agentIn(path.join(scratch, 'other'));
  await waitFor('the other agent', 5000, () => other.pid !== undefined && isAlive(other.pid));
  writeFileSync(path.join(state, 'agent.json'), JSON.stringify({ pid: other.pid }));
  spawn(process.execPath, [hook, state, 'process'], { cwd: scratch, stdio: 'ignore' });
  await waitFor('the start of its own agent', 10_000, () => existsSync(path.join(state, 'started')));
  expect(isAlive(other.pid!)).toBe(true);
});
