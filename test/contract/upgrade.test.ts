/** A new generation of a cluster, on every kind of vault: who may archive from then on, what stays, and what a replica makes of it. */
import type { Control } from '../../core/cluster/facts.ts';
import { keys } from '../../core/cluster/facts.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { listClusters } from '../../core/work/cluster-list.ts';
import { openCluster, readControl, readHead } from '../../core/work/cluster.ts';
import { initCluster, upgradeCluster, type InitRequest } from '../../core/work/init.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { fakeNode, newCluster, onWire, seatOf, segment, type FakeNode } from '../harness/fake-node.ts';
import { siteOf, vaultKinds } from '../harness/open-vaults.ts';
import { names } from '../harness/promotions.ts';
import { SEGMENT_SIZE } from '../harness/segments.ts';
import { memoryVault } from '../harness/two-vaults.ts';

const NEW = '7300000000000000099';

describe.each(vaultKinds)('a new generation in $name', (kind) => {
  const site = siteOf(kind);
  let vault: Vault;
  let db1: FakeNode;
  let name: string;
  let number = 0;

  beforeEach(async () => {
    vault = await site.connect();
    name = `up${++number}`;
    db1 = await newCluster(vault, name);
    for (let each = 1; each <= 3; each++) await db1.archive(segment(1, each));
  });
  afterEach(() => vault?.close());

  const request = (seat = seatOf('db1'), more: Partial<InitRequest> = {}): InitRequest => ({
    ...{ cluster: name, node: 'db1', place: seat.place, store: seat.store, systemIdentifier: NEW },
    ...{ segmentSize: SEGMENT_SIZE, majorVersion: 18, timeline: 1, histories: [] },
    ...more,
  });

  test('begins in the next epoch with nothing archived; the old one stays whole', async () => {
    const old = db1.cluster;
    const before = await names(old);
    const { cluster, was, before: followed } = await upgradeCluster(vault, request());
    expect({ was, followed }).toEqual({ was: 'made', followed: old.systemIdentifier });
    expect(await readControl(cluster)).toMatchObject({
      epoch: 2,
      reign: 2,
      primary: 'db1',
      systemIdentifier: NEW,
    });
    expect(await readHead(cluster)).toMatchObject({ epoch: 2, lsn: null, lastFile: null, timeline: 1 });
    expect(await names(old)).toEqual(before);
    expect(await names(old, 'event#')).not.toEqual([]);
    expect(await listClusters(vault)).toContain(name);
  });

  test('the old primary archives nothing more, nor does one that was asleep between its read and its commit', async () => {
    const wire = onWire(vault, {
      before: async () => {
        wire.manifest.transact = vault.manifest.transact; // once
        await upgradeCluster(vault, request());
      },
    });
    const asleep = fakeNode(await openCluster(wire, name), db1.seat);
    await expect(asleep.archive(segment(1, 4))).rejects.toMatchObject({ code: 'refused' });
    await expect(db1.archive(segment(1, 4))).rejects.toMatchObject({ code: 'refused' });
    expect(await names(db1.cluster)).toEqual([1, 2, 3].map((each) => segment(1, each)));
  });

  test('done twice, also with its answer lost, it is there once, and its primary can archive', async () => {
    const seat = seatOf('db1');
    const lossy = onWire(vault, {
      after: async () => {
        lossy.manifest.transact = vault.manifest.transact;
        throw Object.assign(new Error('cut'), {});
      },
    });
    await upgradeCluster(lossy, request(seat)).catch(() => undefined);
    const { cluster, was } = await upgradeCluster(vault, request(seat));
    expect(was).toBe('there');
    expect(await readControl(cluster)).toMatchObject({
      epoch: 2,
      generations: [db1.cluster.systemIdentifier],
    });
    const node = fakeNode(cluster, seat);
    const control = (await vault.manifest.get(keys.control(name))) as unknown as Control;
    expect(control.epoch).toBe(seat.store.read()?.epoch);
    expect((await names(node.cluster)).length).toBe(0);
  });

  test('an ordinary init of the new database is refused: that might be a mistyped name', async () => {
    await expect(initCluster(vault, request())).rejects.toMatchObject({ code: 'refused' });
  });

  test('a replica of the old generation gets the new one beside it, and no stranger’s', async () => {
    const there = await memoryVault();
    const old = await openReplica(db1.cluster, there);
    await relayPass(db1.cluster, old, { backups: false });
    const { vaultId } = await readControl(old);
    const { cluster } = await upgradeCluster(vault, request());
    const replica = await openReplica(cluster, there);
    expect(await readControl(replica)).toMatchObject({
      vaultId,
      role: 'replica',
      systemIdentifier: NEW,
      epoch: 2,
    });
    await relayPass(cluster, replica, { backups: false });
    expect((await names(old)).length).toBe(3);
    expect(await openReplica(cluster, there)).toMatchObject({ systemIdentifier: NEW });
    const stranger = await memoryVault();
    const other = await initCluster(
      stranger,
      request(seatOf('db1'), { systemIdentifier: '7300000000000000077' }),
    );
    await expect(openReplica(other.cluster, there)).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('holds another database'),
    });
    await stranger.close();
    await there.close();
  });
});
