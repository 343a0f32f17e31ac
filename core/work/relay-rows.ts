/**
 * The rows of a live branch, carried from one vault into its replica: objects first, each verified, then rows in the order of the WAL,
 * a timeline's history before any row of it. A replica has the same right to be followed as its source: no hole, no other bytes.
 */
import { VaultError } from '../errors.ts';
import { tailSegment } from '../cluster/decide-archive.ts';
import { isBelowHorizon } from '../cluster/decide-retention.ts';
import { keys, type GapRow, type Head, type TailRow, type WalRow } from '../cluster/facts.ts';
import { gapOf, headGap, liveGaps, withDeclared, withFilled } from '../cluster/gaps.ts';
import { after } from '../vault/manifest.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { hex8, isSegmentName, segmentAt, segmentEnd } from '../wal/name.ts';
import { timelineAt } from '../wal/lineage.ts';
import { asRow, eventChange } from './cluster.ts';
import { copyWalObject } from './copy-object.ts';
import { crashPoint } from './crash-points.ts';
import { gapChanges, readGaps, stillAbsent } from './gap-rows.ts';
import { readHolds } from './holds.ts';
import { conflict, copyRows, type CarryOptions } from './relay-copy.ts';
import { fileOf } from './store-file.ts';
import type { Reading, Target } from './replica.ts';
import { asWalRow, endTail, readTail } from './tail.ts';
import { notSwept } from './tombstones.ts';

/**
 * Segments of one transaction, which holds 100 changes: each is two (its row, and either the check that its object was not swept or the
 * end of the spill in whose place it comes), and .partial and .backup files may lie between.
 */
export const BATCH = 28;

/** Raw bytes of one transaction's segments, where one has not more by itself: what a relay that is broken off has to bring again. */
const BATCH_BYTES = 512 * 1024 * 1024;

/** Segments of one transaction, of this size. */
export function batchOf(segmentSize: number): number {
  return Math.max(1, Math.min(BATCH, Math.floor(BATCH_BYTES / segmentSize)));
}

/** Carries everything from the target's head up to the source's as it was read. @throws VaultError hole | conflict | corrupt | unreachable; Outrun */
export async function carryBranch(source: Reading, target: Target, options: CarryOptions): Promise<void> {
  const { lineage, head } = source;
  if (head.lsn === null && head.tail === null) return;
  const gaps = await readGaps(source.cluster, head);
  let index = lineage.findIndex(({ timeline }) => timeline === target.head.timeline);
  if (target.head.lsn === null) {
    const first = await firstSegment(source);
    const begin = lineage.findIndex(({ timeline }) => timeline === Number.parseInt(first.slice(0, 8), 16));
    for (; index < begin; index++) await openTimeline(source, target, index + 1, null, options);
    await carryTimeline(source, target, index, first, gaps, options);
  } else {
    await carryTimeline(source, target, index, undefined, gaps, options);
  }
  for (index += 1; index < lineage.length; index++) {
    await openTimeline(source, target, index, lineage[index]!.begins, options);
    await carryTimeline(source, target, index, undefined, gaps, options);
  }
  // Opened before anything was archived: its end is known all the same, and a smart promotion must reach it.
  const { lsn, firstLsn } = head;
  if (target.head.lsn === null && lsn !== null)
    await target.commit([], { head: { ...facts(source, target), lsn, firstLsn } });
}

/** The oldest segment of the live branch that the source holds and keeps: one that its retention is about to delete begins no chain. */
async function firstSegment({ cluster, head, lineage }: Reading): Promise<string> {
  const { segmentSize } = cluster;
  const horizon = (await readHolds(cluster))?.horizon ?? {};
  const from = parseLsn(head.firstLsn ?? head.lsn ?? '0/0');
  const name = segmentAt(timelineAt(lineage, from, segmentSize), from, segmentSize);
  const isThere = (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) !== undefined;
  if (isThere && !isBelowHorizon(horizon, name)) return name;
  for (const { timeline, ends } of lineage) {
    const prefix = `wal#${hex8(timeline)}`;
    const kept = horizon[String(timeline)];
    for await (const row of cluster.vault.manifest.query({
      pk: cluster.partition,
      from: kept === undefined ? prefix : `wal#${kept}`,
      to: after(prefix),
    })) {
      const held = fileOf(row);
      if (!isSegmentName(held)) continue;
      if (ends === null || segmentEnd(held, segmentSize) <= ends) return held;
      break; // past the fork: the newer timeline has this stretch
    }
  }
  return name; // only a tail lies there so far
}

/** The child's history, in one transaction with the head that goes over to it. */
async function openTimeline(
  source: Reading,
  target: Target,
  index: number,
  fork: Lsn | null,
  options: CarryOptions,
): Promise<void> {
  const { timeline, begins } = source.lineage[index]!;
  const row = source.rows.get(timeline);
  if (row === undefined) {
    throw new VaultError('corrupt', `${source.url} is on timeline ${timeline} but holds no history of it`);
  }
  const { cluster } = target.side;
  await cluster.vault.bucket.putOnce(row.key, Buffer.from(row.text));
  crashPoint('relay-history');
  const opened = { ...row, pk: cluster.partition, rev: 1 };
  const held = await cluster.vault.manifest.get(keys.history(cluster.partition, timeline));
  if (held !== undefined && held.text !== row.text)
    throw await conflict(source, target, `${hex8(timeline)}.history`);
  const moved: Partial<Head> = fork === null ? {} : { lsn: formatLsn(fork), tail: null };
  await target.commit(
    [
      ...(held === undefined ? [{ do: 'put', row: asRow(opened), when: 'absent' } as const] : []),
      eventChange(cluster, {
        at: new Date().toISOString(),
        kind: 'timeline',
        node: row.node,
        epoch: row.epoch,
        text: `timeline ${timeline}, forked at ${row.forkLsn}, came from ${source.url}`,
      }),
    ],
    { head: { ...facts(source, target), ...moved, timeline }, opened },
  );
  options.onStep({ step: 'history', timeline, fork: formatLsn(fork ?? begins) });
}

/** What of the source's head the replica's own takes along with each commit. */
export function facts(source: Reading, target: Target): Partial<Head> {
  const { epoch, lastTimeline } = source.head;
  return { epoch, lastTimeline: Math.max(lastTimeline, target.head.lastTimeline) };
}

/**
 * The segments of one timeline up to its fork, or up to the source's head; then what lies beside them (.partial, .backup) and its tail.
 *
 * @param first  where the replica begins, when it has nothing yet
 * @param gaps   the source's: where they lie its rows are not missed
 */
async function carryTimeline(
  source: Reading,
  target: Target,
  index: number,
  first: string | undefined,
  gaps: readonly GapRow[],
  options: CarryOptions,
): Promise<void> {
  const { lineage, cluster } = source;
  const { segmentSize } = cluster;
  const { timeline, ends } = lineage[index]!;
  const child = lineage[index + 1];
  const whole = child !== undefined && source.rows.get(child.timeline)?.forkSegmentWhole === true;
  /** Exclusive: where the last whole segment of this timeline ends. */
  const size = BigInt(segmentSize);
  const stop: Lsn | null =
    ends === null ? (source.head.lsn === null ? null : parseLsn(source.head.lsn)) : ends - (ends % size);
  for (let name = first ?? nextName(target, segmentSize); ; name = nextName(target, segmentSize)) {
    options.signal?.throwIfAborted();
    const gap = gapOf(gaps, name);
    const names: string[] = [];
    let next = name;
    while (stop !== null && segmentEnd(next, segmentSize) <= stop && names.length < batchOf(segmentSize)) {
      if (gapOf(gaps, next) !== gap) break;
      names.push(next);
      next = segmentAt(timeline, segmentEnd(next, segmentSize), segmentSize);
    }
    if (names.length === 0) break;
    if (gap !== undefined) await carryGap(source, target, gap, names, options);
    else await carryBatch(source, target, names, options);
  }
  // Beside the chain: what no segment follows. The segment that holds the fork too, where it is whole: its row has no successor here.
  const beside: WalRow[] = [];
  const { lsn } = target.head;
  const at = lsn === null ? null : ends !== null && ends < parseLsn(lsn) ? ends : parseLsn(lsn);
  const from = at === null ? `wal#${hex8(timeline)}` : `wal#${segmentAt(timeline, at, segmentSize)}`;
  for await (const row of cluster.vault.manifest.query({
    pk: cluster.partition,
    from,
    to: after(`wal#${hex8(timeline)}`),
  })) {
    const name = fileOf(row);
    const holdsFork = ends !== null && ends % size !== 0n && name === segmentAt(timeline, ends, segmentSize);
    if (!isSegmentName(name) || (holdsFork && whole)) beside.push(row as unknown as WalRow);
    if (beside.length >= BATCH) break;
  }
  await putBeside(source, target, beside, options);
  await carryTail(source, target, timeline, options);
}

/** The next segment of the replica's own timeline. */
function nextName(target: Target, segmentSize: number): string {
  const { lsn, timeline } = target.head;
  return segmentAt(timeline, parseLsn(lsn ?? '0/0'), segmentSize);
}

async function carryBatch(
  source: Reading,
  target: Target,
  names: readonly string[],
  options: CarryOptions,
): Promise<void> {
  const { cluster } = source;
  const last = names.at(-1)!;
  const window = new Map<string, WalRow>();
  for await (const row of cluster.vault.manifest.query({
    pk: cluster.partition,
    from: `wal#${names[0]}`,
    to: `wal#${last}~`,
  }))
    window.set(fileOf(row), row as unknown as WalRow);
  for (const name of names) {
    // A range may lack a row that is there: absence is what a read of that very row says.
    const row =
      window.get(name) ??
      ((await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow | undefined);
    if (row === undefined) {
      throw new VaultError('hole', `${source.url} lacks ${name}, which ${target.side.url} needs next`, {
        hint: `it was removed before it was relayed, or lies in a gap: make the replica anew from ${source.url}`,
      });
    }
    window.set(name, row);
  }
  const rows = [...window].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
  const copied = await copyRows(source, target, rows, options);
  const { segmentSize } = cluster;
  const lsn = segmentEnd(last, segmentSize);
  const { head } = target;
  const grown = names.includes(tailSegment(head, segmentSize) ?? '');
  const spilled = head.spill !== null && parseLsn(head.spill.lsn) <= lsn;
  await target.commit(copied.changes, {
    head: {
      ...facts(source, target),
      lsn: formatLsn(lsn),
      firstLsn: head.firstLsn ?? formatLsn(segmentEnd(names[0]!, segmentSize) - BigInt(segmentSize)),
      lastFile: last,
      lastArchivedAt: window.get(last)!.archivedAt,
      ...(grown ? { tail: null } : {}),
      ...(spilled ? { spill: null } : {}),
    },
  });
  crashPoint('relay-committed');
  options.onStep({ step: 'rows', rows: copied.rows, bytes: copied.bytes, lastFile: last });
}

/** Segments that were declared lost in the source: declared in the replica, too, and its head moves past them. */
async function carryGap(
  source: Reading,
  target: Target,
  gap: GapRow,
  names: readonly string[],
  options: CarryOptions,
): Promise<void> {
  const { cluster } = target.side;
  const { segmentSize, partition } = cluster;
  const { head } = target;
  const last = names.at(-1)!;
  const before = await readGaps(cluster, head);
  const { reason, at, until = at, node = '', epoch = source.control.epoch } = gap;
  let after: readonly GapRow[] = before;
  for (const name of names) {
    const by = { partition, node, epoch, reason, at: name === gap.from ? at : until };
    after = withDeclared(after, name, by, segmentSize);
  }
  const tail = await endTail(cluster, Number.parseInt(last.slice(0, 8), 16), names);
  const isTailLost = names.includes(tailSegment(head, segmentSize) ?? '');
  await target.commit([...gapChanges(before, after), ...stillAbsent(cluster, names), ...tail], {
    head: {
      ...facts(source, target),
      lsn: formatLsn(segmentEnd(last, segmentSize)),
      firstLsn: head.firstLsn ?? formatLsn(segmentEnd(last, segmentSize)),
      gap: headGap(after),
      ...(isTailLost ? { tail: null } : {}),
    },
  });
  crashPoint('relay-committed');
  options.onStep({ step: 'gap', from: names[0]!, to: last });
}

/**
 * What the source had declared lost when it was carried, and has after all: its rows go where the replica's gaps are, and those end.
 *
 * @throws as carryBranch
 */
export async function fillGaps(source: Reading, target: Target, options: CarryOptions): Promise<void> {
  if ((target.head.gap ?? null) === null) return;
  const { cluster } = source;
  const { segmentSize } = cluster;
  const theirs = await readGaps(cluster, source.head);
  for (const gap of liveGaps(await readGaps(target.side.cluster, target.head), source.lineage, segmentSize)) {
    for (let lsn = gap.begins; lsn < gap.ends; lsn += BigInt(segmentSize)) {
      const name = segmentAt(gap.timeline, lsn, segmentSize);
      if (gapOf(theirs, name) !== undefined) continue;
      const row = (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow | undefined;
      if (row === undefined) continue; // its retention has let it go
      const copied = await copyRows(source, target, [row], options);
      const before = await readGaps(target.side.cluster, target.head);
      const after = withFilled(before, name, segmentSize);
      await target.commit([...copied.changes, ...gapChanges(before, after)], {
        head: { ...facts(source, target), gap: headGap(after) },
      });
      options.onStep({ step: 'rows', rows: copied.rows, bytes: copied.bytes, lastFile: name });
    }
  }
}

async function putBeside(
  source: Reading,
  target: Target,
  rows: readonly WalRow[],
  options: CarryOptions,
): Promise<void> {
  if (rows.length === 0) return;
  const copied = await copyRows(source, target, rows, options);
  if (copied.changes.length === 0) return;
  await target.commit(copied.changes, { head: facts(source, target) });
  options.onStep({
    step: 'rows',
    rows: copied.rows,
    bytes: copied.bytes,
    lastFile: fileOf(rows.at(-1)!),
  });
}

/** The unfinished last segment of a timeline: the shutdown checkpoint of a flush, or what was salvaged. */
async function carryTail(
  source: Reading,
  target: Target,
  timeline: number,
  options: CarryOptions,
): Promise<void> {
  const row = await readTail(source.cluster, timeline);
  if (row === undefined) return;
  const { cluster } = target.side;
  const { manifest } = source.cluster.vault;
  const live =
    source.head.tail?.timeline === timeline && timeline === source.head.timeline ? source.head.tail : null;
  // Outgrown: the whole segment has its place.
  if (live === null && (await manifest.get(keys.wal(source.cluster.partition, row.segment))) !== undefined)
    return;
  const held = await readTail(cluster, timeline);
  const isThere = held?.sha256 === row.sha256 && held.endLsn === row.endLsn;
  if (isThere && (live === null || target.head.tail?.lsn === live.lsn)) return;
  const key = isThere
    ? held.key
    : await copyWalObject(source.cluster, asWalRow(source.cluster, row), cluster);
  const copy: TailRow = { ...row, pk: cluster.partition, key, rev: (held?.rev ?? 0) + 1 };
  await target.commit(
    [
      { do: 'put', row: asRow(copy), when: held === undefined ? 'absent' : { rev: held.rev } },
      ...(isThere ? [] : notSwept(cluster, [key])),
    ],
    { head: { ...facts(source, target), ...(live === null ? {} : { tail: live }) } },
  );
  options.onStep({ step: 'tail', segment: row.segment, lsn: row.endLsn });
}
