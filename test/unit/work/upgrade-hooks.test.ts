/** What a move to another version says of the agent, which is played here. */
import fs from 'node:fs';
import type net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { listenForRequests } from '../../../core/work/agent-socket.ts';
import { upgradeHooks } from '../../../core/work/upgrade-hooks.ts';
import { installState } from '../../../core/work/wrappers.ts';

let root: string;
let agent: net.Server | undefined;

beforeEach(async () => {
  root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'walvault-upgrade-')));
  for (const folder of ['data', 'old', 'new']) fs.mkdirSync(path.join(root, folder));
  for (const version of ['old', 'new']) fs.writeFileSync(path.join(root, version, 'package.json'), '{}');
  const settings = { node: 'db1' };
  await installState({ ...move('old'), pgdata: path.join(root, 'data'), settings });
});
afterEach(() => {
  agent?.close();
  agent = undefined;
  fs.rmSync(root, { recursive: true, force: true });
});

const move = (version: string) => ({
  stateDir: path.join(root, 'state'),
  programRoot: path.join(root, version),
  nodeBinary: process.execPath,
  askVault: async () => {},
  dryRun: false,
});

async function startAgent(asked: string[]): Promise<void> {
  const answer = async ({ op }: { op: string }) => (asked.push(op), { ok: true as const });
  agent = await listenForRequests(answer, path.join(root, 'state/agent.sock'));
}

test('an agent is told, and said to be; without one nobody is', async () => {
  expect(await upgradeHooks(move('new'))).toMatchObject({ agent: 'none' });
  const asked: string[] = [];
  await startAgent(asked);
  expect(await upgradeHooks(move('new'))).toMatchObject({ agent: 'kept' });
  expect(asked).toEqual([]);
  expect(await upgradeHooks(move('old'))).toMatchObject({ agent: 'finished' });
  expect(asked.at(-1)).toBe('finish');
});

test('an agent that a hook of the new version told first is said to be, too', async () => {
  await startAgent([]);
  const request = {
    ...move('new'),
    /** Asked for as the links are made: the first hook comes right then. */
    get nodeBinary() {
      agent?.close();
      return process.execPath;
    },
  };
  expect(await upgradeHooks(request)).toMatchObject({ agent: 'finished' });
});
