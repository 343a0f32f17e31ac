/**
 * Two at once: a switchover that still waits for a relay, and somebody who takes its flush back meanwhile and starts the primary. What that
 * one acknowledges from then on must not be left behind by the trigger.
 */
import { rmSync } from 'node:fs';
import type { Vault } from '../../core/vault/vault.ts';
import { openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { switchoverVault } from '../../core/work/switchover-vault.ts';
import { switchover } from '../../core/work/switchover.ts';
import { undoFlush } from '../../core/work/tail.ts';
import { newStandby, onWire } from '../harness/fake-node.ts';
import { flushedNode, type FlushedNode } from '../harness/flushed-node.ts';
import { makeScratch } from '../harness/scratch.ts';
import { memoryVault } from '../harness/two-vaults.ts';

describe('a flush that is undone between it and the trigger', () => {
  let folder: string;
  let vault: Vault;
  let flushed: FlushedNode;
  let cluster: Cluster;

  beforeEach(async () => {
    folder = makeScratch();
    vault = await memoryVault();
    flushed = await flushedNode(folder, vault);
    ({ cluster } = flushed.db1);
  });
  afterEach(async () => {
    await flushed?.server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  /** The flush is undone just before the transaction that raises the epoch. */
  const undoneBeforeTrigger = () => {
    let isUndone = false;
    return openCluster(
      onWire(vault, {
        async before(changes) {
          const raises = changes.some(
            ({ do: does, ...change }) => does === 'put' && JSON.stringify(change).includes('"epoch":2,'),
          );
          if (isUndone || !raises) return;
          isUndone = true;
          expect(await undoFlush(cluster, 'db1')).toBe(true);
        },
      }),
      'main',
    );
  };
  const request = (to: string) => ({
    ...{ node: 'db1', pgdata: flushed.server.pgdata, stateDir: flushed.stateDir, connection: {} as never },
    ...{ graceMs: 0, waitMs: 1000, zstdLevel: 1, to },
  });
  const expectUndone = async () => {
    expect(await readControl(cluster)).toMatchObject({ role: 'active', epoch: 1, primary: 'db1' });
    expect((await readHead(cluster)).promotion).toBeNull();
  };

  test('within one vault: nothing is triggered, and the hint does not call the server stopped', async () => {
    await newStandby(cluster, 'db2');
    const failed = switchover(await undoneBeforeTrigger(), request('db2'));
    await expect(failed).rejects.toMatchObject({
      ...{ code: 'refused', message: expect.stringContaining('no longer stands') },
      hint: expect.not.stringContaining('stopped'),
    });
    await expectUndone();
  });

  test('to another vault: neither is that one fenced', async () => {
    const there = await openReplica(cluster, await memoryVault());
    await relayPass(cluster, there);
    await newStandby(there, 'dr1');
    const failed = switchoverVault(await undoneBeforeTrigger(), there, request('dr1'));
    await expect(failed).rejects.toMatchObject({
      ...{ code: 'refused', message: expect.stringContaining('no longer stands') },
      hint: expect.not.stringContaining('stopped'),
    });
    await expectUndone();
    expect(await readControl(there)).toMatchObject({ role: 'replica', epoch: 1 });
  });
});
