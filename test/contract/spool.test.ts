/** The spool of a standby, where one name stands for a tail, then for the whole segment, and what is under way of the first comes late. */
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { keys, type WalRow } from '../../core/cluster/facts.ts';
import { readHead, openCluster, type Cluster } from '../../core/work/cluster.ts';
import { statePaths, writeServed } from '../../core/work/node-state.ts';
import { Follower } from '../../core/work/follow.ts';
import { Journal } from '../../core/work/journal.ts';
import type { NodeContext } from '../../core/work/node-context.ts';
import { Spool } from '../../core/work/spool.ts';
import { asWalRow, commitTail, readTail, undoFlush } from '../../core/work/tail.ts';
import { newCluster, segment, type FakeNode } from '../harness/fake-node.ts';
import { lsnOf } from '../harness/promotions.ts';
import { makeScratch } from '../harness/scratch.ts';
import { segmentBytes } from '../harness/segments.ts';
import { memoryVault } from '../harness/two-vaults.ts';

describe('a tail that the whole segment outgrows', () => {
  const name = segment(1, 2);
  const whole = segmentBytes(name);
  let folder: string;
  let db1: FakeNode;
  let cluster: Cluster;
  let tail: WalRow;
  /** Lets the tail's bytes come. */
  let release: () => void;
  let spool: Spool;

  beforeEach(async () => {
    folder = makeScratch();
    mkdirSync(`${folder}/spool`);
    db1 = await newCluster(await memoryVault(), 'main');
    await db1.archive(segment(1, 1));
    await commitTail(
      db1.cluster,
      db1.seat,
      { segment: name, bytes: whole, lsn: lsnOf(2) + 0x1000n },
      'flush',
    );
    tail = asWalRow(db1.cluster, (await readTail(db1.cluster, 1))!);
    const { vault } = db1.cluster;
    const released = new Promise<void>((resolve) => (release = resolve));
    const bucket = {
      ...vault.bucket,
      async get(key: string) {
        if (key === tail.key) await released;
        return vault.bucket.get(key);
      },
    };
    cluster = await openCluster({ ...vault, bucket }, 'main');
    spool = new Spool(statePaths(folder));
    spool.open(cluster, 1);
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const grow = async (): Promise<WalRow> => {
    await undoFlush(db1.cluster, 'db1');
    await db1.archive(name);
    return (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow;
  };

  test('whoever asks for the segment gets it, and the tail that comes late does not take its place', async () => {
    const late = spool.fetch(cluster, tail);
    await spool.fetch(cluster, await grow());
    expect(readFileSync(spool.file(name)).equals(whole)).toBe(true);
    release();
    await late;
    expect(readFileSync(spool.file(name)).equals(whole)).toBe(true);
  });

  test('removed while it was under way it does not come back', async () => {
    const late = spool.fetch(cluster, tail);
    spool.remove(name);
    release();
    await late;
    expect(spool.has(name)).toBe(false);
  });

  test('what another process has left of it is not taken for the segment', async () => {
    release();
    await spool.fetch(cluster, tail);
    const row = await grow();
    const next = new Spool(statePaths(folder));
    next.open(cluster, 1);
    await next.fetch(cluster, row);
    expect(readFileSync(next.file(name)).equals(whole)).toBe(true);
  });

  test('a read of head that shows it to be outgrown takes it away, before any poll', async () => {
    const paths = statePaths(folder);
    const context = { paths, node: 'db2', histories: new Map(), settings: {} } as unknown as NodeContext;
    const follower = new Follower(context, new Journal(paths), spool);
    writeServed(paths, segment(1, 1));
    await follower.read(cluster);
    release();
    await spool.fetch(cluster, tail);
    await grow();
    expect((await readHead(cluster)).tail).toBeNull();
    await follower.read(cluster);
    expect(spool.has(name)).toBe(false);
  });
});
