/**
 * A flush or a switchover, and somebody else at the same time: who takes the flush back and starts the primary, or starts it in the middle of
 * it. What that primary acknowledges from then on must not be left behind.
 */
import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import type { Vault } from '../../core/vault/vault.ts';
import { flushPrimary } from '../../core/work/flush.ts';
import { openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { switchoverVault } from '../../core/work/switchover-vault.ts';
import { switchover } from '../../core/work/switchover.ts';
import { undoFlush } from '../../core/work/tail.ts';
import { newStandby, onWire } from '../harness/fake-node.ts';
import { stoppedNode, type StoppedNode } from '../harness/stopped-node.ts';
import { makeScratch } from '../harness/scratch.ts';
import { memoryVault } from '../harness/two-vaults.ts';

describe('a flush', () => {
  let folder: string;
  let vault: Vault;
  let stopped: StoppedNode;
  let cluster: Cluster;

  beforeEach(async () => {
    folder = makeScratch();
    vault = await memoryVault();
    stopped = await stoppedNode(folder, vault);
    ({ cluster } = stopped.db1);
  });
  afterEach(async () => {
    await stopped?.server.close();
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
    ...{ node: 'db1', pgdata: stopped.server.pgdata, stateDir: stopped.stateDir, connection: {} as never },
    ...{ graceMs: 0, waitMs: 1000, zstdLevel: 1, to },
  });
  const expectUndone = async () => {
    expect(existsSync(path.join(stopped.server.pgdata, 'standby.signal'))).toBe(true);
    expect(await readControl(cluster)).toMatchObject({ role: 'active', epoch: 1, primary: 'db1' });
    expect((await readHead(cluster)).promotion).toBeNull();
  };

  test('undone before the trigger: nothing is triggered, and the hint does not call the server stopped', async () => {
    await newStandby(cluster, 'db2');
    const failed = switchover(await undoneBeforeTrigger(), request('db2'));
    await expect(failed).rejects.toMatchObject({
      ...{ code: 'refused', message: expect.stringContaining('no longer stands') },
      hint: expect.not.stringContaining('stopped'),
    });
    await expectUndone();
  });

  test('undone before the take-over of another vault: nothing is fenced', async () => {
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

  test('whose server is started before standby.signal is there: it stands nowhere, and the next start is that of a primary', async () => {
    const { server } = stopped;
    let isDue = false;
    const meanwhile = await openCluster(
      onWire(vault, {
        // the last look at the vault comes after the shutdown checkpoint was read
        async reading({ sk }) {
          if (!isDue || sk !== 'head') return;
          isDue = false;
          await server.start({ fast: 'ends', immediate: 'ends' });
        },
      }),
      'main',
    );
    const onStep = ({ step }: { step: string }) => void (isDue ||= step === 'archived');
    await expect(flushPrimary(meanwhile, { ...request('db2'), onStep })).rejects.toMatchObject({
      ...{ code: 'refused', message: expect.stringContaining('was started again') },
    });
    expect(server.signals()).toEqual(['up']);
    expect((await readHead(cluster)).flush).toBeNull();
    expect(existsSync(path.join(server.pgdata, 'standby.signal'))).toBe(false);
  });
});
