/**
 * What a server that was stopped has left in pg_wal: files that still wait to be archived, and the segment of its shutdown
 * checkpoint, which PostgreSQL itself never archives.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { readControl as readControlFile, type Pgdata } from '../postgres/pgdata.ts';
import { listReady, readWalFile } from '../postgres/wal-directory.ts';
import { formatLsn } from '../wal/lsn.ts';
import { segmentAt } from '../wal/name.ts';
import { isShutdownCheckpoint, walkRecords } from '../wal/records.ts';
import type { Cluster } from './cluster.ts';
import { commitFiles } from './commit.ts';
import { isPassing } from './node-context.ts';
import { storeFile } from './store-file.ts';
import type { Tail } from './tail.ts';
import type { WriterSeat } from './writer.ts';

/** Everything that the server wanted archived and could not hand in before it ended. @returns how many files */
export async function archiveWaiting(
  cluster: Cluster,
  walDirectory: string,
  seat: WriterSeat,
  request: { waitMs: number; zstdLevel: number; signal?: AbortSignal },
): Promise<number> {
  const done = new Set<string>();
  let deadline = performance.now() + request.waitMs;
  for (;;) {
    const next = (await listReady(walDirectory)).find((name) => !done.has(name));
    if (next === undefined) return done.size;
    request.signal?.throwIfAborted();
    try {
      const bytes = await readWalFile(walDirectory, next);
      const epoch = seat.store.read()?.epoch ?? 0;
      // PostgreSQL itself passes over a mark whose file is gone
      const stored =
        bytes === undefined
          ? 'same'
          : await storeFile(cluster, { ...seat, epoch }, { name: next, bytes }, request.zstdLevel);
      if (stored !== 'same') await commitFiles(cluster, seat, [stored]);
      done.add(next);
      deadline = performance.now() + request.waitMs;
    } catch (error) {
      if (!isPassing(error) || performance.now() > deadline) throw error;
      await sleep(200);
    }
  }
}

/** The segment of the checkpoint with which the server ended, up to that checkpoint's end. @throws VaultError pgdata */
export async function shutdownCheckpoint(cluster: Cluster, pgdata: Pgdata): Promise<Tail> {
  const { segmentSize, systemIdentifier } = cluster;
  const { timeline, checkpointLsn } = await readControlFile(pgdata.path);
  const segment = segmentAt(timeline, checkpointLsn, segmentSize);
  const bytes = await readWalFile(pgdata.walDirectory, segment);
  const walk =
    bytes === undefined ? undefined : walkRecords(bytes, { name: segment, segmentSize, systemIdentifier });
  if (
    bytes === undefined ||
    walk?.last === undefined ||
    walk.last.lsn !== checkpointLsn ||
    !isShutdownCheckpoint(walk.last)
  ) {
    const found =
      bytes === undefined
        ? 'it is not there'
        : `its last record is at ${walk?.last ? formatLsn(walk.last.lsn) : 'no place'}`;
    throw new VaultError(
      'pgdata',
      `pg_control says that the server ended with a checkpoint at ${formatLsn(checkpointLsn)} in ${segment}, but ${found}`,
      { hint: `Start the server, so that it recovers, and flush it again.` },
    );
  }
  return { segment, bytes, lsn: walk.ends };
}
