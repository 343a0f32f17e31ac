/**
 * A node for tests of the protocol: its seat (what its state directory would keep) and what it does with the vault. The vault is
 * real; only PostgreSQL is played by the test.
 */
import { openCluster, type Cluster } from '../../core/work/cluster.ts';
import { commitFiles, type CommitResult } from '../../core/work/commit.ts';
import type { WriterSeat, WriterState } from '../../core/work/writer.ts';
import { initCluster } from '../../core/work/init.ts';
import { reportNode } from '../../core/work/heartbeat.ts';
import { storeFile, type StoredFile } from '../../core/work/store-file.ts';
import { segmentAt } from '../../core/wal/name.ts';
import type { Change, Key, Manifest, Outcome } from '../../core/vault/manifest.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { SEGMENT_SIZE, SYSTEM_IDENTIFIER, segmentBytes } from './segments.ts';

/** What a test can do to the transactions of one connection. */
export type Wire = {
  /** Called with each key before it is read. */
  reading?: (key: Key) => Promise<void>;
  /** Called with each transaction before it is sent; awaiting pauses the writer between its read and its commit. */
  before?: (changes: readonly Change[]) => Promise<void>;
  /** Called after it was carried out; throwing loses the answer. */
  after?: (outcome: Outcome) => Promise<void>;
};

/** The same vault with a wire that the test holds. */
export function onWire(vault: Vault, wire: Wire): Vault {
  const manifest: Manifest = {
    name: vault.manifest.name,
    async get(key) {
      await wire.reading?.(key);
      return vault.manifest.get(key);
    },
    query: (range) => vault.manifest.query(range),
    close: () => vault.manifest.close(),
    async transact(changes) {
      await wire.before?.(changes);
      const outcome = await vault.manifest.transact(changes);
      await wire.after?.(outcome);
      return outcome;
    },
  };
  return { url: vault.url, bucket: vault.bucket, manifest, close: () => vault.close() };
}

export function seatOf(node: string, place = `host-${node}:/pg`, state?: WriterState): WriterSeat {
  let kept = state;
  return {
    node,
    place,
    store: {
      read: () => kept && { ...kept },
      write: (next) => {
        kept = { ...next };
      },
    },
  };
}

/** A copy of a node, state directory and all, at another place. */
export const copyOf = (seat: WriterSeat, place: string): WriterSeat =>
  seatOf(seat.node, place, seat.store.read());

export const segment = (timeline: number, number: number): string =>
  segmentAt(timeline, BigInt(number) * BigInt(SEGMENT_SIZE), SEGMENT_SIZE);

export type FakeNode = {
  cluster: Cluster;
  seat: WriterSeat;
  store(name: string, content?: string): Promise<StoredFile | 'same'>;
  /** As archive_command: stores and commits one file. */
  archive(name: string, content?: string): Promise<CommitResult['result']>;
};

export function fakeNode(cluster: Cluster, seat: WriterSeat): FakeNode {
  const store = (name: string, content?: string) =>
    storeFile(
      cluster,
      { node: seat.node, epoch: seat.store.read()?.epoch ?? 0 },
      { name, bytes: segmentBytes(name, content) },
    );
  return {
    cluster,
    seat,
    store,
    async archive(name, content) {
      const stored = await store(name, content);
      if (stored === 'same') return 'same';
      const [result] = await commitFiles(cluster, seat, [stored]);
      return result!.result;
    },
  };
}

/** A new cluster in this vault with db1 as its primary. */
export async function newCluster(vault: Vault, name: string): Promise<FakeNode> {
  const seat = seatOf('db1');
  const { cluster } = await initCluster(vault, {
    cluster: name,
    node: 'db1',
    place: seat.place,
    store: seat.store,
    systemIdentifier: SYSTEM_IDENTIFIER,
    segmentSize: SEGMENT_SIZE,
    majorVersion: 18,
    timeline: 1,
    histories: [],
  });
  return fakeNode(cluster, seat);
}

/** A node that reports itself as a consistent standby; over a connection of its own where one is given. */
export async function newStandby(
  cluster: Cluster,
  node: string,
  vault: Vault = cluster.vault,
): Promise<FakeNode> {
  const own = await openCluster(vault, cluster.name);
  await reportNode(own, { name: node, role: 'standby', consistent: true });
  return fakeNode(own, seatOf(node));
}
