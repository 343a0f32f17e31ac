/**
 * What the vault holds of the WAL, row by row in the order of timelines and positions: segments and their like (wal#), unfinished last
 * segments (tail#), what waits in a replica (spill#), declared gaps (gap#); and what it does not hold of the live branch.
 *
 * There may be millions of rows: they come one by one, and a range of positions is asked for timeline by timeline, never filtered out
 * of all of them.
 */
import { keys, type GapRow, type TailRow, type WalRow } from '../cluster/facts.ts';
import { isBelowHorizon } from '../cluster/decide-retention.ts';
import { after, type Row } from '../vault/manifest.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import { hex8, parseWalName, segmentAt, segmentEnd, segmentStart } from '../wal/name.ts';
import { segmentsFrom } from '../wal/lineage.ts';
import { readBranch } from './branch.ts';
import { listRows, type Cluster } from './cluster.ts';
import { readHolds } from './holds.ts';
import { fileOf } from './store-file.ts';

export type WalEntry = {
  kind: 'wal' | 'tail' | 'spill' | 'gap';
  /** Of a gap: the first segment that is missing. */
  file: string;
  timeline: number;
  /** First byte of the segment that it belongs to. */
  lsn: string;
  /** A tail: up to where it is whole. A gap: null. */
  endLsn: string | null;
  epoch: number | null;
  node: string | null;
  sizeBytes: number | null;
  storedBytes: number | null;
  /** Archived; of a gap: declared. */
  at: string;
  key: string | null;
  sha256: string | null;
  /** Of a gap; else null. */
  to: string | null;
  reason: string | null;
};

export type WalFilter = {
  timeline?: number | undefined;
  /** Segments that hold this byte, or lie after it. */
  from?: Lsn | undefined;
  /** Segments that hold this byte, or lie before it. */
  to?: Lsn | undefined;
  node?: string | undefined;
  epoch?: number | undefined;
  /** Undefined: all. */
  kinds?: readonly WalEntry['kind'][];
};

/** Every row that passes, in order. @throws VaultError unreachable */
export async function* listWal(cluster: Cluster, filter: WalFilter): AsyncGenerator<WalEntry, void> {
  yield* entries(cluster, filter, { descending: false });
}

/** The last `limit` of them, in order; costs little more than it yields where neither node nor epoch is wanted. */
export async function lastWal(cluster: Cluster, filter: WalFilter, limit: number): Promise<WalEntry[]> {
  const found: WalEntry[] = [];
  for await (const entry of entries(cluster, filter, { descending: true, limit })) {
    found.push(entry);
    if (found.length >= limit) break;
  }
  return found.reverse();
}

type Order = { descending: boolean; limit?: number };

async function* entries(cluster: Cluster, filter: WalFilter, order: Order): AsyncGenerator<WalEntry, void> {
  const wants = (kind: WalEntry['kind']) => filter.kinds?.includes(kind) ?? true;
  const tails = wants('tail') ? await listRows<TailRow>(cluster, 'tail#') : [];
  const gaps = wants('gap') ? await listRows<GapRow>(cluster, 'gap#') : [];
  const few = [...tails.map((row) => ofTail(cluster, row)), ...gaps.map((row) => ofGap(cluster, row))].filter(
    (entry) => isWithin(cluster, entry, filter),
  );
  const sign = order.descending ? -1 : 1;
  few.sort((one, other) => sign * compare(one, other));
  const files = (['wal', 'spill'] as const).filter(wants);
  const sources = [...files.map((kind) => ofFiles(cluster, kind, filter, order)), few.values()];
  for await (const entry of merge(sources, (one, other) => sign * compare(one, other)))
    if (
      (filter.node === undefined || entry.node === filter.node) &&
      (filter.epoch === undefined || entry.epoch === filter.epoch)
    )
      yield entry;
}

const compare = (one: WalEntry, other: WalEntry): number =>
  one.file < other.file ? -1 : one.file > other.file ? 1 : one.kind < other.kind ? 1 : -1;

/** Sources that are in order, as one that is. */
async function* merge<T>(
  sources: readonly (AsyncIterator<T> | Iterator<T>)[],
  order: (one: T, other: T) => number,
): AsyncGenerator<T, void> {
  const heads: { value: T; source: AsyncIterator<T> | Iterator<T> }[] = [];
  const pull = async (source: AsyncIterator<T> | Iterator<T>) => {
    const { done, value } = await source.next();
    if (done !== true) heads.push({ value: value as T, source });
  };
  try {
    for (const source of sources) await pull(source);
    while (heads.length > 0) {
      heads.sort((one, other) => order(one.value, other.value));
      const { value, source } = heads.shift()!;
      yield value;
      await pull(source);
    }
  } finally {
    for (const source of sources) await source.return?.();
  }
}

async function* ofFiles(
  cluster: Cluster,
  kind: 'wal' | 'spill',
  filter: WalFilter,
  order: Order,
): AsyncGenerator<WalEntry, void> {
  for await (const row of rowsOf(cluster, `${kind}#`, filter, order)) {
    const entry = ofFile(cluster, kind, row as unknown as WalRow);
    if (entry !== undefined) yield entry;
  }
}

async function* rowsOf(
  { vault: { manifest }, partition: pk, segmentSize }: Cluster,
  prefix: string,
  { timeline, from, to, node, epoch }: WalFilter,
  { descending, limit }: Order,
): AsyncGenerator<Row, void> {
  const hint =
    limit === undefined || node !== undefined || epoch !== undefined ? { descending } : { descending, limit };
  // a file's name sorts before '/', with whatever stands behind it (.partial, .backup)
  const rangeOf = (one: number) => ({
    from: `${prefix}${from === undefined ? hex8(one) : segmentAt(one, from, segmentSize)}`,
    to: `${prefix}${to === undefined ? `${hex8(one)}G` : `${segmentAt(one, to, segmentSize)}/`}`,
  });
  if (timeline !== undefined) {
    yield* manifest.query({ pk, ...rangeOf(timeline), ...hint });
    return;
  }
  let rest = { from: prefix, to: after(prefix) };
  if (from === undefined && to === undefined) {
    yield* manifest.query({ pk, ...rest, ...hint });
    return;
  }
  for (;;) {
    // which timeline has rows at all, then those of it that are wanted
    let found: number | undefined;
    for await (const { sk } of manifest.query({ pk, ...rest, descending, limit: 1 }))
      found = Number.parseInt(sk.slice(prefix.length, prefix.length + 8), 16);
    if (found === undefined || Number.isNaN(found)) return;
    yield* manifest.query({ pk, ...rangeOf(found), ...hint });
    rest = descending
      ? { from: prefix, to: prefix + hex8(found) }
      : { from: `${prefix}${hex8(found)}G`, to: after(prefix) };
  }
}

function placeOf(cluster: Cluster, file: string): { timeline: number; lsn: string; endLsn: string } {
  const { segmentSize } = cluster;
  return {
    timeline: Number.parseInt(file.slice(0, 8), 16),
    lsn: formatLsn(segmentStart(file, segmentSize)),
    endLsn: formatLsn(segmentEnd(file, segmentSize)),
  };
}

function ofFile(cluster: Cluster, kind: 'wal' | 'spill', row: WalRow): WalEntry | undefined {
  const file = fileOf(row);
  if (parseWalName(file) === undefined) return undefined;
  const { epoch, node, sizeBytes, storedBytes, archivedAt: at, key, sha256 } = row;
  const facts = { epoch, node, sizeBytes, storedBytes, at, key, sha256, to: null, reason: null };
  return { kind, file, ...placeOf(cluster, file), ...facts };
}

function ofTail(cluster: Cluster, row: TailRow): WalEntry {
  const {
    segment: file,
    endLsn,
    epoch,
    node,
    sizeBytes,
    storedBytes,
    archivedAt: at,
    key,
    sha256,
    why,
  } = row;
  const facts = { epoch, node, sizeBytes, storedBytes, at, key, sha256, to: null, reason: why };
  return { kind: 'tail', file, ...placeOf(cluster, file), endLsn, ...facts };
}

function ofGap(cluster: Cluster, { from: file, to, at, reason }: GapRow): WalEntry {
  const facts = { epoch: null, node: null, sizeBytes: null, storedBytes: null, key: null, sha256: null };
  return { kind: 'gap', file, ...placeOf(cluster, file), endLsn: null, ...facts, at, to, reason };
}

function isWithin({ segmentSize }: Cluster, entry: WalEntry, { timeline, from, to }: WalFilter): boolean {
  const begins = segmentStart(entry.file, segmentSize);
  const ends = entry.to === null ? begins : segmentStart(entry.to, segmentSize);
  return (
    (timeline === undefined || entry.timeline === timeline) &&
    (from === undefined || ends + BigInt(segmentSize) > from) &&
    (to === undefined || begins <= to)
  );
}

/** Segments one after the other that the live branch should have, and has not. */
export type Hole = {
  from: string;
  to: string;
  segments: number;
  /** Of the declared gap that begins in it; null: nobody has said why. */
  reason: string | null;
};

/**
 * Holes of the live branch from the first byte ever archived to its head, in order. What retention has let go is no hole.
 *
 * @throws VaultError unreachable | corrupt
 */
export async function* listHoles(
  cluster: Cluster,
  filter: Pick<WalFilter, 'timeline' | 'from' | 'to'>,
): AsyncGenerator<Hole, void> {
  const gaps = await listRows<GapRow>(cluster, 'gap#');
  const reasonOf = (hole: { from: string; to: string }) =>
    gaps.find(({ from }) => from.slice(8) >= hole.from.slice(8) && from.slice(8) <= hole.to.slice(8))
      ?.reason ?? null;
  let hole: Omit<Hole, 'reason'> | undefined;
  for await (const { name, isThere } of expected(cluster, filter)) {
    if (!isThere) hole = { from: hole?.from ?? name, to: name, segments: (hole?.segments ?? 0) + 1 };
    else if (hole !== undefined) {
      yield { ...hole, reason: reasonOf(hole) };
      hole = undefined;
    }
  }
  if (hole !== undefined) yield { ...hole, reason: reasonOf(hole) };
}

/** The segments that the live branch should have, each with whether it does. */
async function* expected(
  cluster: Cluster,
  { timeline, from = 0n, to }: Pick<WalFilter, 'timeline' | 'from' | 'to'>,
): AsyncGenerator<{ name: string; isThere: boolean }, void> {
  const { segmentSize, vault, partition } = cluster;
  // first where the branch ends, then its rows: whatever lies before that end was committed before it
  const { head, lineage } = await readBranch(cluster);
  if (head.firstLsn === null || head.lsn === null) return;
  const horizon = (await readHolds(cluster))?.horizon ?? {};
  const [first, last] = [parseLsn(head.firstLsn), parseLsn(head.lsn)];
  const begin = from > first ? from : first;
  const limit = to === undefined || to >= last ? last : to;
  let rows: AsyncIterator<Row> | undefined;
  let at: string | undefined;
  let timelineOfRows = '';
  try {
    for (const name of segmentsFrom(lineage, begin, segmentSize)) {
      // the last one wanted is that which holds `to`; that which holds the head is not finished
      if (segmentEnd(name, segmentSize) > last || segmentStart(name, segmentSize) > limit) return;
      if (timeline !== undefined && Number.parseInt(name.slice(0, 8), 16) !== timeline) continue;
      if (isBelowHorizon(horizon, name)) continue;
      if (timelineOfRows !== name.slice(0, 8)) {
        await rows?.return?.();
        timelineOfRows = name.slice(0, 8);
        const range = { from: `wal#${name}`, to: `wal#${timelineOfRows}G` };
        rows = vault.manifest.query({ pk: partition, ...range })[Symbol.asyncIterator]();
        at = '';
      }
      while (rows !== undefined && at !== undefined && at < name) {
        const next = await rows.next();
        at = next.done === true ? undefined : fileOf(next.value);
      }
      // a range never shows that a row is absent
      const isThere = at === name || (await vault.manifest.get(keys.wal(partition, name))) !== undefined;
      yield { name, isThere };
    }
  } finally {
    await rows?.return?.();
  }
}
