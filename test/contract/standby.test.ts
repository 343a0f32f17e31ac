/** A server that somebody starts while `standby configure` is at work on its files, after the look whether it runs. */
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { openCluster } from '../../core/work/cluster.ts';
import { configureStandby } from '../../core/work/standby.ts';
import { onWire } from '../harness/fake-node.ts';
import { makeScratch } from '../harness/scratch.ts';
import { stoppedNode } from '../harness/stopped-node.ts';
import { memoryVault } from '../harness/two-vaults.ts';

test('standby configure leaves the WAL of a server that was started in the middle of it', async () => {
  const folder = makeScratch();
  const vault = await memoryVault();
  const { server, stateDir } = await stoppedNode(folder, vault);
  try {
    const wal = path.join(server.pgdata, 'pg_wal');
    const files = readdirSync(wal).sort();
    const [name] = files;
    const label = `START WAL LOCATION: 0/A00028 (file ${name})\n`;
    writeFileSync(path.join(server.pgdata, 'backup_label'), label);
    writeFileSync(path.join(server.pgdata, 'postgresql.conf'), '');
    writeFileSync(path.join(server.pgdata, 'pg_hba.conf'), '');
    let isDue = true;
    const cluster = await openCluster(
      onWire(vault, {
        async reading({ sk }) {
          if (!isDue || sk !== 'holds') return;
          isDue = false;
          await server.start({ fast: 'ends', immediate: 'ends' });
        },
      }),
      'main',
    );
    const installation = { programRoot: folder, nodeBinary: process.execPath, settings: {}, stateDir };
    const parameters = { retrieveRetryMs: 5000, forceSwitchMs: 60_000, set: {} };
    const request = { node: 'db2', pgdata: server.pgdata, installation, parameters };
    await expect(configureStandby(cluster, request)).rejects.toMatchObject({
      ...{ code: 'refused', message: expect.stringMatching(/a server \(pid \d+\) runs/) },
    });
    expect(readdirSync(wal).sort()).toEqual(files);
    expect(existsSync(path.join(server.pgdata, 'standby.signal'))).toBe(true);
  } finally {
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  }
});
