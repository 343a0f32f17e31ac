/**
 * What the manifest says of a base backup: its row (running, then complete or failed), its hold, its WAL.
 */
import { VaultError } from '../errors.ts';
import { keys, type BackupRow } from '../cluster/facts.ts';
import { gapAfter, gapText } from '../cluster/gaps.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { segmentAt } from '../wal/name.ts';
import type { Copied } from './backup-stream.ts';
import { readBranch } from './branch.ts';
import { backupPrefix } from './bundles.ts';
import {
  asRow,
  changing,
  eventChange,
  listRows,
  newId,
  putEvent,
  readHead,
  type Cluster,
} from './cluster.ts';
import { readLiveGaps } from './gap-rows.ts';
import { addHold, dropHold, dropHoldChange, HOLD_STALE_MS, keepHolding, readHolds } from './holds.ts';
import { fileOf } from './store-file.ts';

/** The row and the hold, before BASE_BACKUP: from the present redo point on, which is at or before the backup's start. */
export async function beginBackup(
  cluster: Cluster,
  facts: { node: string; label: string; timeline: number; redo: { timeline: number; lsn: Lsn } },
): Promise<BackupRow> {
  const { node, label, timeline, redo } = facts;
  const startedAt = new Date().toISOString();
  const id = `${startedAt.replaceAll(/[-:]|\.\d+/g, '')}-${newId().slice(0, 6)}`;
  const startSegment = segmentAt(redo.timeline, redo.lsn, cluster.segmentSize);
  await addHold(cluster, holdId(id), { kind: 'backup', from: startSegment, node, at: startedAt });
  const row: BackupRow = {
    ...keys.backup(cluster.partition, id),
    rev: 1,
    id,
    state: 'running',
    node,
    label,
    majorVersion: cluster.majorVersion,
    timeline,
    startLsn: formatLsn(redo.lsn),
    stopLsn: null,
    startSegment,
    stopSegment: null,
    startedAt,
    finishedAt: null,
    sizeBytes: 0,
    storedBytes: 0,
    files: 0,
    indexKey: null,
  };
  const outcome = await cluster.vault.manifest.transact([{ do: 'put', row: asRow(row), when: 'absent' }]);
  if (!outcome.done) throw new VaultError('busy', `a backup ${id} is there already`);
  return row;
}

const holdId = (backup: string): string => `backup-${backup}`;

/** Every segment from start to stop has a row: asked for one by one where the range did not show it. */
export async function proveSegments(cluster: Cluster, { start, stop }: Copied): Promise<void> {
  const { manifest } = cluster.vault;
  const head = await readHead(cluster);
  if (head.firstLsn === null || parseLsn(head.firstLsn) > start.lsn) {
    throw new VaultError(
      'refused',
      `the vault's WAL begins at ${head.firstLsn ?? 'nothing'}, after this backup's start ${formatLsn(start.lsn)}`,
      {
        hint: 'Take the backup again: its WAL was written before the first segment arrived.',
      },
    );
  }
  const gap = gapAfter(await readLiveGaps(cluster, await readBranch(cluster)), start.lsn);
  if (gap !== undefined && gap.begins < stop.lsn) {
    throw new VaultError(
      'refused',
      `a declared gap, ${gapText(gap)} (${gap.reason}), lies in the WAL of this backup`,
      {
        hint: `Take the backup again, with archiving on ('walvault archiving status').`,
      },
    );
  }
  const size = BigInt(cluster.segmentSize);
  const first = start.lsn - (start.lsn % size);
  const missing: string[] = [];
  if (start.timeline === stop.timeline) {
    for (let lsn = first; lsn < stop.lsn; lsn += size)
      missing.push(segmentAt(start.timeline, lsn, cluster.segmentSize));
  }
  const shown = new Set<string>();
  const [from, last] = [missing[0], missing.at(-1)];
  if (from === undefined || last === undefined) return;
  for await (const row of manifest.query({
    pk: cluster.partition,
    from: `wal#${from}`,
    to: `wal#${last}~`,
  })) {
    shown.add(fileOf(row));
  }
  for (const name of missing) {
    if (shown.has(name)) continue;
    if ((await manifest.get(keys.wal(cluster.partition, name))) !== undefined) continue;
    if (head.timeline !== start.timeline && name === last) continue; // the fork's segment lies on the newer timeline
    throw new VaultError('refused', `${name}, which this backup needs, is not in the vault`, {
      hint: 'Take the backup again.',
    });
  }
}

export async function completeBackup(
  cluster: Cluster,
  started: BackupRow,
  copied: Copied,
): Promise<BackupRow> {
  const { manifest } = cluster.vault;
  const row: BackupRow = {
    ...started,
    rev: started.rev + 1,
    state: 'complete',
    timeline: copied.start.timeline,
    startLsn: formatLsn(copied.start.lsn),
    stopLsn: formatLsn(copied.stop.lsn),
    startSegment: segmentAt(copied.start.timeline, copied.start.lsn, cluster.segmentSize),
    stopSegment: segmentAt(copied.stop.timeline, copied.stop.lsn - 1n, cluster.segmentSize),
    finishedAt: new Date().toISOString(),
    sizeBytes: copied.sizeBytes,
    storedBytes: copied.storedBytes,
    files: copied.files,
    indexKey: copied.indexKey,
  };
  return changing<BackupRow>(
    async () => {
      const seen = (await manifest.get(keys.backup(cluster.partition, started.id))) as BackupRow | undefined;
      if (seen?.state === 'complete') return { result: seen }; // ours, whose answer was lost
      if (seen?.rev !== started.rev) throw takenForDead(started.id);
      const { epoch } = await readHead(cluster);
      const text = `backup ${row.id} complete: ${row.files} files, ${row.sizeBytes} bytes, WAL from ${row.startSegment} to ${row.stopSegment}`;
      return {
        result: row,
        changes: [
          { do: 'put', row: asRow(row), when: { rev: started.rev } },
          ...(await dropHoldChange(cluster, holdId(started.id))),
          eventChange(cluster, { at: row.finishedAt!, kind: 'backup', node: started.node, epoch, text }),
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}

/**
 * Whatever the clean-up meets, the first failure is the one that is told; what stays behind the next backup sweeps. One that is complete
 * after all is left as it is: the answer to that was lost, or its process was taken for dead and was only slow.
 */
export async function failBackup(cluster: Cluster, id: string, node: string, reason: unknown): Promise<void> {
  try {
    if (!(await markFailed(cluster, id))) return;
    await removeObjects(cluster, id);
    await dropHold(cluster, holdId(id));
    const { epoch } = await readHead(cluster);
    await putEvent(cluster, {
      kind: 'backup-failed',
      node,
      epoch,
      text: `backup ${id} failed: ${(reason as Error).message}`,
    });
  } catch {
    // the vault is away: row and hold stay, and go stale
  }
}

/** @returns false: it is complete */
async function markFailed(cluster: Cluster, id: string): Promise<boolean> {
  const { manifest } = cluster.vault;
  for (;;) {
    const seen = (await manifest.get(keys.backup(cluster.partition, id))) as BackupRow | undefined;
    if (seen?.state !== 'running') return seen?.state !== 'complete';
    const row: BackupRow = {
      ...seen,
      rev: seen.rev + 1,
      state: 'failed',
      finishedAt: new Date().toISOString(),
    };
    const outcome = await manifest.transact([{ do: 'put', row: asRow(row), when: { rev: seen.rev } }]);
    if (outcome.done) return true;
  }
}

/** Where the key may delete nothing, as a key for nodes, the objects stay until retention deletes them with the row, a day later. */
async function removeObjects(cluster: Cluster, id: string): Promise<void> {
  try {
    for await (const { key } of cluster.vault.bucket.list(backupPrefix(cluster, id)))
      await cluster.vault.bucket.delete(key);
  } catch (error) {
    if (!(error instanceof VaultError && error.code === 'denied')) throw error;
  }
}

/** Backups whose process died: their hold is there no more, or was not refreshed for long. */
export async function sweepInterrupted(cluster: Cluster): Promise<void> {
  const holds = (await readHolds(cluster))?.holds ?? {};
  const stale = (at: string) => Date.now() - Date.parse(at) > HOLD_STALE_MS;
  for (const row of await listRows<BackupRow>(cluster, 'backup#')) {
    if (row.state !== 'running' || !stale(holds[holdId(row.id)]?.at ?? row.startedAt)) continue;
    await failBackup(cluster, row.id, row.node, new Error('interrupted: its process is gone'));
  }
}

/** Says each minute that this backup lives. */
export function keepHold(cluster: Cluster, id: string): { check(): void; stop(): void } {
  const keeper = keepHolding(cluster, holdId(id));
  return {
    check() {
      if (keeper.isLost()) throw takenForDead(id);
    },
    stop: () => keeper.stop(),
  };
}

function takenForDead(id: string): VaultError {
  return new VaultError('refused', `backup ${id} was taken for dead and cleared away by another one`, {
    hint: 'This machine was asleep, or the vault away, for too long: take the backup again.',
  });
}
