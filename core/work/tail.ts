/**
 * The tail of a timeline in the vault: the last, unfinished segment, whole up to an LSN and zeros after it. Put by flush (with the latch)
 * or by salvage; served under the segment's name while the finished one is not there.
 */
import { VaultError } from '../errors.ts';
import { decideFlush, decideUndo } from '../cluster/decide-flush.ts';
import { keys, type TailRow, type WalRow } from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { isSegmentName, segmentStart } from '../wal/name.ts';
import { readBranch } from './branch.ts';
import {
  asRow,
  changing,
  eventChange,
  newId,
  objectKeys,
  readControl,
  readHead,
  type Cluster,
} from './cluster.ts';
import { inTurn, newNonce, settle, writerOf, type WriterSeat } from './writer.ts';
import { isSwept, notSwept } from './tombstones.ts';
import { checkWalFile, fetchFile, pack, sha256Of, unpack } from './store-file.ts';

export type Tail = {
  /** Name of the segment. */
  segment: string;
  /** The segment as it lies in pg_wal; what follows `lsn` is not looked at and stored as zeros. */
  bytes: Buffer;
  /** End of the last record that counts (exclusive), within the segment. */
  lsn: Lsn;
};

export async function readTail(cluster: Cluster, timeline: number): Promise<TailRow | undefined> {
  return (await cluster.vault.manifest.get(keys.tail(cluster.partition, timeline))) as TailRow | undefined;
}

/**
 * The row under which a segment is served: its own, else the tail that ends in it. Whether it may be served at all is for
 * core/cluster/decide-restore.ts to say.
 */
export async function findSegment(cluster: Cluster, name: string): Promise<WalRow | undefined> {
  const row = (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow | undefined;
  if (row !== undefined || !isSegmentName(name)) return row;
  const tail = await readTail(cluster, Number.parseInt(name.slice(0, 8), 16));
  return tail?.segment === name ? asWalRow(cluster, tail) : undefined;
}

/** The segment as it is served: whole up to the end, zeros after it. @throws VaultError corrupt | unreachable */
export async function fetchTail(cluster: Cluster, row: TailRow): Promise<Buffer> {
  return fetchFile(cluster, asWalRow(cluster, row));
}

/** The tail as the row of its segment, for whatever fetches rows. */
export function asWalRow(cluster: Cluster, row: TailRow): WalRow {
  const { key, sha256, sizeBytes, storedBytes, node, epoch, archivedAt, rev } = row;
  return {
    ...keys.wal(cluster.partition, row.segment),
    rev,
    key,
    sha256,
    sizeBytes,
    storedBytes,
    compression: 'zstd',
    node,
    epoch,
    archivedAt,
  };
}

/** The tail's row goes where its segment is one of those that are declared lost: what is served of it would end in zeros. */
export async function endTail(
  cluster: Cluster,
  timeline: number,
  declared: readonly string[],
): Promise<Change[]> {
  const row = await readTail(cluster, timeline);
  if (row === undefined || !declared.includes(row.segment)) return [];
  return [{ do: 'delete', key: { pk: row.pk, sk: row.sk }, when: { rev: row.rev } }];
}

/** Puts the object of a tail and answers with the row that is to be committed. */
export async function storeTail(
  cluster: Cluster,
  origin: { node: string; epoch: number; why: TailRow['why'] },
  tail: Tail,
): Promise<TailRow> {
  const { segment, lsn } = tail;
  const length = Number(lsn - segmentStart(segment, cluster.segmentSize));
  if (length <= 0 || length > cluster.segmentSize)
    throw new RangeError(`${formatLsn(lsn)} does not lie in ${segment}`);
  const bytes = Buffer.alloc(cluster.segmentSize);
  tail.bytes.copy(bytes, 0, 0, length);
  checkWalFile(cluster, segment, bytes);
  const sha256 = sha256Of(bytes);
  const key = objectKeys.wal(cluster, segment, sha256, newId());
  const packed = await pack(bytes, 1);
  const archivedAt = new Date().toISOString();
  const timeline = Number.parseInt(segment.slice(0, 8), 16);
  await cluster.vault.bucket.putOnce(key, packed, {
    cluster: cluster.name,
    'system-identifier': cluster.systemIdentifier,
    file: segment,
    tail: formatLsn(lsn),
    sha256,
    size: String(bytes.length),
    node: origin.node,
    epoch: String(origin.epoch),
    'archived-at': archivedAt,
  });
  return {
    ...keys.tail(cluster.partition, timeline),
    rev: 1,
    timeline,
    segment,
    key,
    sha256,
    prefixSha256: sha256Of(bytes.subarray(0, length)),
    endLsn: formatLsn(lsn),
    sizeBytes: bytes.length,
    storedBytes: packed.length,
    why: origin.why,
    node: origin.node,
    epoch: origin.epoch,
    archivedAt,
  };
}

/** Does this segment begin as the tail did, up to the tail's end? */
export function continuesTail(cluster: Cluster, tail: TailRow, bytes: Uint8Array): boolean {
  const length = Number(parseLsn(tail.endLsn) - segmentStart(tail.segment, cluster.segmentSize));
  return sha256Of(bytes.subarray(0, length)) === tail.prefixSha256;
}

function otherTail(tail: TailRow): VaultError {
  return new VaultError(
    'conflict',
    `${tail.segment} does not begin as the tail that the vault holds up to ${tail.endLsn}`,
    {
      hint: `this server was set back, or another wrote as it; a standby may have replayed the tail. Compare the two before anything is removed.`,
    },
  );
}

/**
 * A finished segment that takes the place of a tail must begin as the tail did: a standby may have replayed that.
 *
 * @throws VaultError conflict | corrupt | unreachable
 */
export async function checkGrown(
  cluster: Cluster,
  timeline: number,
  file: { name: string; key: string; sizeBytes: number },
): Promise<void> {
  const tail = await readTail(cluster, timeline);
  if (tail === undefined || tail.segment !== file.name) return;
  const stored = await cluster.vault.bucket.get(file.key);
  if (stored === undefined)
    throw new VaultError('corrupt', `the object of ${file.name} is gone from the bucket (${file.key})`);
  if (!continuesTail(cluster, tail, await unpack(stored, file.sizeBytes))) throw otherTail(tail);
}

/**
 * Commits the shutdown checkpoint of a flushed primary: tail row and latch in one transaction. Done again, it changes nothing.
 *
 * @param latch  false: the tail alone (salvage of a dead primary, still under its own epoch)
 * @throws VaultError fenced | copied | hole | refused | unreachable
 */
export async function commitTail(
  cluster: Cluster,
  seat: WriterSeat,
  tail: Tail,
  why: TailRow['why'],
): Promise<void> {
  const { manifest } = cluster.vault;
  let row: TailRow | undefined;
  await inTurn(seat, () =>
    changing(
      async () => {
        const control = await readControl(cluster);
        const { head, lineage } = await readBranch(cluster);
        const before = settle(seat.store.read() ?? { epoch: 0, nonce: '', next: null }, head);
        const request = {
          timeline: Number.parseInt(tail.segment.slice(0, 8), 16),
          segment: tail.segment,
          lsn: tail.lsn,
        };
        const decision = decideFlush(
          control,
          head,
          lineage,
          writerOf(seat, before),
          request,
          cluster.segmentSize,
        );
        if (decision.do === 'refuse')
          throw new VaultError(decision.code, decision.message, { hint: decision.hint });
        if (decision.do === 'flushed') return { result: undefined };
        if (why === 'salvage' && head.tail?.lsn === decision.head.tail?.lsn) return { result: undefined };
        // swept while this process was asleep: stored again
        if (row !== undefined && (await isSwept(cluster, row.key))) row = undefined;
        row ??= await storeTail(cluster, { node: seat.node, epoch: control.epoch, why }, tail);
        const old = await readTail(cluster, row.timeline);
        // A second flush in the same segment: a standby may have replayed the first.
        if (old?.segment === tail.segment && !continuesTail(cluster, old, tail.bytes)) throw otherTail(old);
        const nonce = before.next ?? newNonce();
        seat.store.write({ ...before, epoch: control.epoch, next: nonce });
        const next = { ...decision.head, writer: { node: seat.node, nonce, place: seat.place } };
        const text = `${seat.node}: ${why === 'flush' ? 'flushed' : 'salvaged'} up to ${formatLsn(tail.lsn)} in ${tail.segment}`;
        return {
          result: undefined,
          changes: [
            { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
            {
              do: 'put',
              row: asRow(why === 'flush' ? next : { ...next, flush: null }),
              when: { rev: head.rev },
            },
            {
              do: 'put',
              row: asRow({ ...row, rev: (old?.rev ?? 0) + 1 }),
              when: old ? { rev: old.rev } : 'absent',
            },
            ...notSwept(cluster, [row.key]),
            eventChange(cluster, {
              at: new Date().toISOString(),
              kind: why,
              node: seat.node,
              epoch: control.epoch,
              text,
            }),
          ],
        };
      },
      (changes) => manifest.transact(changes),
    ),
  );
}

/**
 * Ends the latch of a flush, so that the server may start as the primary again. The tail stays: standbys may have replayed it.
 *
 * @returns false where no flush stood
 * @throws VaultError fenced (a trigger was faster: this server must not start as a primary) | unreachable
 */
export async function undoFlush(cluster: Cluster, node: string): Promise<boolean> {
  const { manifest } = cluster.vault;
  let asked = false;
  return changing<boolean>(
    async () => {
      const control = await readControl(cluster);
      const head = await readHead(cluster);
      const decision = decideUndo(control, head, node);
      if (decision.do === 'refuse')
        throw new VaultError(decision.code, decision.message, { hint: decision.hint });
      if (decision.do === 'nothing') return { result: asked }; // ours, whose answer was lost; or there was none
      asked = true;
      const text = `${node}: the flush at ${head.flush?.lsn} was undone`;
      return {
        result: true,
        changes: [
          { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
          { do: 'put', row: asRow(decision.head), when: { rev: head.rev } },
          eventChange(cluster, {
            at: new Date().toISOString(),
            kind: 'undo',
            node,
            epoch: control.epoch,
            text,
          }),
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}
