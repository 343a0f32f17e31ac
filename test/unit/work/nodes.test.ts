import type { NodeRow } from '../../../core/cluster/facts.ts';
import { keys } from '../../../core/cluster/facts.ts';
import { VaultError } from '../../../core/errors.ts';
import { openVault } from '../../../core/vault/open-vault.ts';
import { openCluster, type Cluster } from '../../../core/work/cluster.ts';
import { reportNode } from '../../../core/work/heartbeat.ts';
import { addHold, readHolds } from '../../../core/work/holds.ts';
import { addNode, dropNode, listNodes } from '../../../core/work/nodes.ts';
import { demandAccess, proveAccess } from '../../../core/work/prove-access.ts';
import { triggerPromotion } from '../../../core/work/trigger.ts';
import { newCluster, newStandby, onWire, segment } from '../../harness/fake-node.ts';

let number = 0;
const fresh = async (): Promise<Cluster> =>
  (await newCluster(await openVault(`memory:nodes-${process.pid}-${number++}`), 'main')).cluster;
const rowOf = async (cluster: Cluster, node: string) =>
  (await cluster.vault.manifest.get(keys.node(cluster.partition, node))) as NodeRow | undefined;
const later = (ms: number) => new Date(Date.now() + ms);

test('an added node is known, holds nothing, and is no target', async () => {
  const cluster = await fresh();
  expect(await addNode(cluster, 'db2')).toBe('added');
  expect(await addNode(cluster, 'db2')).toBe('there');
  expect(await listNodes(cluster)).toContainEqual(
    expect.objectContaining({ name: 'db2', role: 'unknown', heartbeatAgeSeconds: null, restartPoint: null }),
  );
  await expect(triggerPromotion(cluster, { mode: 'smart', to: 'db2' })).rejects.toThrow(
    /db2 is not a standby/,
  );
});

test('of two who add one name at once both hear that it is expected, and one row is made', async () => {
  const cluster = await fresh();
  const other = await openCluster(cluster.vault, 'main');
  expect((await Promise.all([addNode(cluster, 'db2'), addNode(other, 'db2')])).sort()).toEqual([
    'added',
    'there',
  ]);
});

test('the name of a node at work, or of the primary, is refused', async () => {
  const cluster = await fresh();
  await newStandby(cluster, 'db2');
  await expect(addNode(cluster, 'db2')).rejects.toThrow(/has a node db2 already/);
  await expect(addNode(cluster, 'db1')).rejects.toThrow(/has a node db1 already/);
});

test("a dropped node takes its holds with it, and nobody else's", async () => {
  const cluster = await fresh();
  await newStandby(cluster, 'db2');
  const at = new Date().toISOString();
  await addHold(cluster, 'one', { kind: 'standby', from: segment(1, 1), node: 'db2', at });
  await addHold(cluster, 'other', { kind: 'backup', from: segment(1, 1), node: 'db1', at });
  expect(await dropNode(cluster, 'db2', later(60_000))).toEqual({ node: 'db2', holds: ['one'] });
  expect(await rowOf(cluster, 'db2')).toBeUndefined();
  expect(Object.keys((await readHolds(cluster))?.holds ?? {})).toEqual(['other']);
});

test('the primary, the target of a pending promotion, and a node at work are not dropped', async () => {
  const cluster = await fresh();
  await newStandby(cluster, 'db2');
  await expect(dropNode(cluster, 'db1', later(60_000))).rejects.toThrow(/no node db1|db1 is the primary/);
  await expect(dropNode(cluster, 'db2')).rejects.toThrow(/db2 is at work/);
  await triggerPromotion(cluster, { mode: 'smart', to: 'db2' });
  await expect(dropNode(cluster, 'db2', later(60_000))).rejects.toThrow(
    /target of a pending promotion \(epoch 2, triggered\)/,
  );
});

test('a clock far ahead does not make a node stay for ever', async () => {
  const cluster = await fresh();
  await newStandby(cluster, 'db2');
  await dropNode(cluster, 'db2', later(-3_600_000));
  expect(await rowOf(cluster, 'db2')).toBeUndefined();
});

test.each(['dropped', 'detached'] as const)(
  'a node that is %s between the look of a trigger and its commit is not named',
  async (how) => {
    const cluster = await fresh();
    await newStandby(cluster, 'db2');
    let isDone = false;
    const slow = onWire(cluster.vault, {
      async before() {
        if (isDone) return;
        isDone = true;
        if (how === 'dropped') await dropNode(cluster, 'db2', later(60_000));
        else await reportNode(cluster, { name: 'db2', role: 'unknown', trouble: 'detached since noon' });
      },
    });
    await expect(
      triggerPromotion(await openCluster(slow, 'main'), { mode: 'smart', to: 'db2' }),
    ).rejects.toThrow(how === 'dropped' ? /no node db2/ : /not a standby .*detached since noon/);
    expect(await cluster.vault.manifest.get(keys.control('main'))).toMatchObject({
      epoch: 1,
      primary: 'db1',
    });
  },
);

test('a drop whose answer was lost is done once, and says the same', async () => {
  const cluster = await fresh();
  await newStandby(cluster, 'db2');
  let lose = true;
  const wire = onWire(cluster.vault, {
    async after() {
      if (lose) {
        lose = false;
        throw new VaultError('unreachable', 'the answer was lost');
      }
    },
  });
  const dropped = await dropNode(await openCluster(wire, 'main'), 'db2', later(60_000));
  expect(dropped).toEqual({ node: 'db2', holds: [] });
});

test('access is proved on both stores, again and again, with one object and the row unchanged', async () => {
  const cluster = await fresh();
  await newStandby(cluster, 'db2');
  const before = await rowOf(cluster, 'db2');
  const proofs = await proveAccess(cluster, 'db2');
  await proveAccess(cluster, 'db2');
  expect(proofs.slice(0, 2)).toMatchObject([
    { what: 'bucket', state: 'ok' },
    { what: 'manifest', state: 'ok' },
  ]);
  expect(await rowOf(cluster, 'db2')).toEqual({ ...before, rev: (before?.rev ?? 0) + 2 });
  const keysThere: string[] = [];
  for await (const { key } of cluster.vault.bucket.list('')) keysThere.push(key);
  expect(keysThere.filter((key) => key.endsWith('.probe'))).toHaveLength(1);
});

test('a right that is missing is named, before anything relies on it', async () => {
  const cluster = await fresh();
  const denied = (what: string) => async () => {
    throw new VaultError('denied', `${what}: access denied`, { hint: `allow ${what}` });
  };
  const { bucket } = cluster.vault;
  const vault = {
    ...cluster.vault,
    bucket: { ...bucket, name: 'b', putOnce: denied('s3:PutObject') } as typeof bucket,
  };
  const failedPut = await proveAccess({ ...cluster, vault }, 'db2');
  expect(failedPut[0]).toEqual({
    what: 'bucket',
    state: 'failed',
    text: 's3:PutObject: access denied',
    hint: 'allow s3:PutObject',
  });
  expect(() => demandAccess(failedPut)).toThrow(/this node cannot work with the vault: s3:PutObject/);
  const readOnly = onWire(cluster.vault, { before: denied('dynamodb:TransactWriteItems') });
  expect((await proveAccess({ ...cluster, vault: readOnly }, 'db2'))[1]).toMatchObject({
    what: 'manifest',
    state: 'failed',
  });
});

test("another C library than the primary's is a notice", async () => {
  const cluster = await fresh();
  await reportNode(cluster, { name: 'db1', role: 'primary', library: 'glibc 1.0' });
  const proofs = await proveAccess(cluster, 'db2');
  expect(proofs.find(({ what }) => what === 'C library')).toMatchObject({
    state: 'notice',
    text: expect.stringMatching(/glibc \S+ on .*, glibc 1\.0 on db1/),
  });
  expect(demandAccess(proofs)).toContainEqual(expect.stringContaining('indexes may be wrong'));
});
