/** on_fenced = "stop" on a node whose clock does not only go forward. The vault is real, the server a process that takes the signal of a stop. */
import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { loadSettings } from '../../core/settings/read.ts';
import { writeSettingsFile } from '../../core/settings/file.ts';
import { Journal } from '../../core/work/journal.ts';
import type { NodeContext } from '../../core/work/node-context.ts';
import { readKeptRole, statePaths } from '../../core/work/node-state.ts';
import { RoleWatch } from '../../core/work/role-watch.ts';
import { newCluster, newStandby, segment } from '../harness/fake-node.ts';
import { FakeServer } from '../harness/fake-server.ts';
import { promote } from '../harness/promotions.ts';
import { makeScratch, waitFor } from '../harness/scratch.ts';
import { memoryVault } from '../harness/two-vaults.ts';

test('a fenced primary is stopped as soon on a machine whose clock was set back', async () => {
  const scratch = makeScratch('role');
  const vault = await memoryVault();
  const db1 = await newCluster(vault, 'clocks');
  await db1.archive(segment(1, 1));
  const db2 = await newStandby(db1.cluster, 'db2');
  const server = new FakeServer(scratch);
  const stateDir = path.join(scratch, 'state');
  mkdirSync(stateDir);
  writeSettingsFile(path.join(stateDir, 'settings.toml'), {});
  const context: NodeContext = {
    ...{ stateDir, paths: statePaths(stateDir), node: 'db1', pgdata: server.pgdata, histories: new Map() },
    settings: loadSettings({ flags: { node: 'db1', onFenced: 'stop' }, env: {}, stateDir }),
    seat: db1.seat,
    cluster: () => Promise.resolve(db1.cluster),
    other: () => Promise.reject(new Error('one vault')),
    close: () => Promise.resolve(),
  };
  const real = Date.now.bind(Date);
  const clock = jest.spyOn(Date, 'now');
  try {
    await server.start({ fast: 'ends', immediate: 'ends' });
    const watch = new RoleWatch(context, new Journal(context.paths));
    watch.look();
    await watch.settle();
    expect(readKeptRole(context.paths)).toMatchObject({ role: 'primary' });
    clock.mockImplementation(() => real() - 3_600_000);
    await promote(db1.cluster, db2, 2);
    await waitFor('the stop of the fenced server', 5000, () => {
      watch.look();
      return server.signals().includes('fast');
    });
    await watch.settle();
  } finally {
    clock.mockRestore();
    await server.close();
    await vault.close();
    rmSync(scratch, { recursive: true, force: true });
  }
});
