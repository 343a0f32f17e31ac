/** Whose number stands in agent.json: that of an agent of this state directory, or one that was given again. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { livingAgent } from '../../../core/work/living-agent.ts';
import { statePaths } from '../../../core/work/node-state.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';

let scratch: string;
let child: ChildProcess | undefined;
beforeEach(() => (scratch = makeScratch()));
afterEach(async () => {
  child?.kill('SIGKILL');
  await removeScratch(scratch);
});

/** A process of this name that works in a directory of its own below the scratch. */
async function runs(name: string, folder: string): Promise<number> {
  const cwd = path.join(scratch, folder);
  mkdirSync(cwd, { recursive: true });
  child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)', name], { cwd, stdio: 'ignore' });
  await once(child, 'spawn');
  return child.pid!;
}
const ofDb1 = (text: string) => {
  const dir = path.join(scratch, 'db1');
  mkdirSync(dir, { recursive: true });
  const paths = statePaths(dir);
  writeFileSync(paths.agent, text);
  return livingAgent(paths);
};
const says = (pid: number) => JSON.stringify({ pid, version: '1.2.3' });

test('the agent of this state directory', async () => {
  const pid = await runs('agent.cjs', 'db1');
  expect(ofDb1(says(pid))).toEqual({ pid, version: '1.2.3' });
});

test.each([
  ['the agent of another server', 'agent.cjs', 'db2'],
  ['another program', 'backup.cjs', 'db1'],
])('the number is by now that of %s', async (_what, name, folder) => {
  expect(ofDb1(says(await runs(name, folder)))).toBeUndefined();
});

test('one that is gone, and a file that is half written', async () => {
  const pid = await runs('agent.cjs', 'db1');
  child!.kill('SIGKILL');
  await once(child!, 'exit');
  expect(ofDb1(says(pid))).toBeUndefined();
  expect(ofDb1('{"pid":')).toBeUndefined();
  expect(livingAgent(statePaths(path.join(scratch, 'nowhere')))).toBeUndefined();
});
