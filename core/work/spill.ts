/**
 * Spills: what the primary puts into a replica while its own vault is out of its reach, and what becomes of it afterwards. Home into the
 * active vault in order; the replica's own after a disaster; or salvage, where the epoch has moved on.
 *
 * Each is done in batches that each leave a whole chain behind, so that each may be broken off, done again, and done twice at once.
 */
import { VaultError } from '../errors.ts';
import { decidePlace, tailSegment } from '../cluster/decide-archive.ts';
import { decideHome } from '../cluster/decide-spill.ts';
import {
  keys,
  type AsideRow,
  type Control,
  type GapRow,
  type Head,
  type Spill,
  type SpillRow,
  type WalRow,
} from '../cluster/facts.ts';
import { headGap, withFilled } from '../cluster/gaps.ts';
import { type Change } from '../vault/manifest.ts';
import { formatLsn } from '../wal/lsn.ts';
import { isSegmentName, segmentEnd } from '../wal/name.ts';
import { asideRow, wholeEnd } from './aside-row.ts';
import { readBranch, type Branch } from './branch.ts';
import {
  asRow,
  changing,
  eventChange,
  eventRow,
  listRows,
  newId,
  objectKeys,
  putEvent,
  readControl,
  readHead,
  type Cluster,
} from './cluster.ts';
import { COMMIT_BATCH } from './commit.ts';
import { copyWalObject } from './copy-object.ts';
import { crashPoint } from './crash-points.ts';
import { eachOf } from './each-of.ts';
import { gapChanges, gapsBelow } from './gap-rows.ts';
import { fileOf } from './store-file.ts';
import { checkGrown } from './tail.ts';
import { checkSwept, notSwept } from './tombstones.ts';

/** Objects on their way at a time. */
const PARALLEL = 4;

const now = (): string => new Date().toISOString();

/** The replica's spilled rows, in the order of the log: one timeline, so the order of names. */
export async function listSpills(replica: Cluster): Promise<SpillRow[]> {
  return listRows<SpillRow>(replica, 'spill#');
}

/**
 * The active vault takes over what its primary spilled, in order, until the end of the chain. The spilled rows stay where they are: a relay
 * makes the replica's own rows of them. Where the epoch has moved on they are salvage, and set aside.
 *
 * @returns how many files are in the active vault now that were not there before
 * @throws VaultError conflict (it has other bytes under a name: nothing was changed) | hole | refused (flushed; not active) | unreachable
 */
export async function takeHome(active: Cluster, replica: Cluster): Promise<{ files: number }> {
  let files = 0;
  for (let stuck = 0; ;) {
    const { spill } = await readHead(replica);
    if (spill === null) return { files };
    const wanted = await missingIn(active, await listSpills(replica));
    const decision = decideHome(await readBoth(active), spill, wanted.length > 0);
    if (decision.do === 'refuse')
      throw new VaultError(decision.code, decision.message, { hint: decision.hint });
    if (decision.do === 'aside') {
      await leaveAside(active, replica, decision.why);
      return { files };
    }
    try {
      for (let index = 0; index < wanted.length; index += COMMIT_BATCH)
        files += await commitHome(active, replica, spill, wanted.slice(index, index + COMMIT_BATCH));
    } catch (error) {
      // a range may lack a row that is there: it is listed once more
      if (!(error instanceof VaultError && error.code === 'hole') || stuck++ > 0) throw error;
      continue;
    }
    const { spill: end } = await readHead(replica);
    if (end === null || end.writer.nonce === spill.writer.nonce) return { files };
  }
}

async function readBoth(active: Cluster): Promise<{ control: Control; head: Head }> {
  const control = await readControl(active);
  return { control, head: await readHead(active) };
}

/** Those that a vault has no row of. @throws VaultError conflict  with an event there, one for each such file */
async function missingIn<T extends SpillRow>(vault: Cluster, rows: readonly T[]): Promise<T[]> {
  const held = await eachOf(rows, PARALLEL, (row) =>
    vault.vault.manifest.get(keys.wal(vault.partition, fileOf(row))),
  );
  for (const [index, row] of rows.entries()) {
    const there = held[index] as WalRow | undefined;
    if (there !== undefined && there.sha256 !== row.sha256) throw await tellConflict(vault, row, there);
  }
  return rows.filter((_, index) => held[index] === undefined);
}

async function tellConflict(vault: Cluster, row: SpillRow, there: WalRow): Promise<VaultError> {
  const text =
    `${fileOf(row)}, spilled by ${row.node} in epoch ${row.epoch} (sha256 ${row.sha256.slice(0, 16)}…), ` +
    `is not what ${there.node} archived here (sha256 ${there.sha256.slice(0, 16)}…)`;
  // by the spill's own time and content: who asks again and again tells it once
  const place = keys.event(vault.partition, row.archivedAt, `spill-${row.sha256.slice(0, 16)}`);
  const event = { at: row.archivedAt, kind: 'conflict' as const, node: row.node, epoch: row.epoch, text };
  await vault.vault.manifest.transact([
    { do: 'put', row: asRow({ ...eventRow(vault, event), ...place }), when: 'absent' },
  ]);
  return new VaultError('conflict', text, {
    hint: `two servers wrote as ${row.node}, or it was set back; nothing was changed. Compare the two before anything is removed.`,
  });
}

/**
 * One batch into the active vault, on condition of what its control and head say: a trigger there ends it.
 *
 * @returns how many rows were put
 * @throws VaultError fenced (the epoch has moved on meanwhile) and as takeHome
 */
async function commitHome(
  active: Cluster,
  replica: Cluster,
  spill: Spill,
  spilled: readonly SpillRow[],
): Promise<number> {
  const { manifest } = active.vault;
  const objects = await eachOf(spilled, PARALLEL, (row) => copyWalObject(replica, row, active));
  crashPoint('spill-copied-home');
  const home = spilled.map((row, index): WalRow => ({
    ...row,
    ...keys.wal(active.partition, fileOf(row)),
    rev: 1,
    key: objects[index]!,
  }));
  const at = now();
  const eventKey = keys.event(active.partition, at, newId());
  let asked = 0;
  const put = await changing<number>(
    async () => {
      // an answer that was lost
      if (asked > 0 && (await manifest.get(eventKey)) !== undefined) return { result: asked };
      if (asked > 0) await checkSwept(active, objects);
      const control = await readControl(active);
      const branch = await readBranch(active);
      const wanted = await missingIn(active, home);
      const decision = decideHome({ control, head: branch.head }, spill, wanted.length > 0);
      if (decision.do === 'aside')
        throw new VaultError('fenced', decision.why, { hint: `it is kept aside: 'walvault salvage --list'` });
      if (decision.do === 'refuse')
        throw new VaultError(decision.code, decision.message, { hint: decision.hint });
      const { rows, head, refusal, fills } = await foldIn(active, branch, wanted);
      if (refusal && rows.length === 0) throw refusal;
      if (rows.length === 0) return { result: 0 };
      const { node } = spill.writer;
      const text = `${rows.length} file(s) that ${node} had spilled came home from ${replica.vault.url}, up to ${fileOf(rows.at(-1)!)}`;
      asked = rows.length;
      const event = eventRow(active, { at, kind: 'home', node, epoch: spill.epoch, text });
      return {
        result: rows.length,
        changes: [
          { do: 'check', key: keys.control(active.name), when: { rev: control.rev } },
          { do: 'put', row: asRow(head), when: { rev: branch.head.rev } },
          ...rows.map((row): Change => ({ do: 'put', row: asRow(row), when: 'absent' })),
          ...fills,
          ...notSwept(
            active,
            rows.map(({ key }) => key),
          ),
          { do: 'put', row: asRow({ ...event, ...eventKey }), when: 'absent' },
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
  crashPoint('spill-home');
  return put;
}

type Folded = {
  rows: WalRow[];
  head: Head;
  /** Of declared gaps: what was spilled was not lost after all. */
  fills: Change[];
  refusal?: VaultError;
};

/** The rows that a vault takes, in order, up to the first that it refuses, and its head after them. */
async function foldIn(cluster: Cluster, branch: Branch, wanted: readonly WalRow[]): Promise<Folded> {
  const { segmentSize } = cluster;
  const gaps = await gapsBelow(cluster, branch.head, wanted.map(fileOf));
  const folded = await foldRows(cluster, branch, wanted);
  if (gaps === undefined) return { ...folded, fills: [] };
  const after = folded.rows.reduce(
    (left: readonly GapRow[], row) => withFilled(left, fileOf(row), segmentSize),
    gaps,
  );
  return {
    ...folded,
    head: { ...folded.head, gap: headGap(after) },
    fills: gapChanges(gaps, after),
  };
}

async function foldRows(
  cluster: Cluster,
  branch: Branch,
  wanted: readonly WalRow[],
): Promise<Omit<Folded, 'fills'>> {
  const { lineage } = branch;
  const rows: WalRow[] = [];
  let head: Head = { ...branch.head, rev: branch.head.rev + 1 };
  for (const row of wanted) {
    const name = fileOf(row);
    const place = decidePlace({ head, lineage }, { name }, cluster.segmentSize);
    if (place.do === 'refuse')
      return { rows, head, refusal: new VaultError(place.code, place.message, { hint: place.hint }) };
    if (place.do !== 'commit') continue;
    if (name === tailSegment(head, cluster.segmentSize)) {
      const refusal = await grownRefusal(cluster, head.timeline, row);
      if (refusal) return { rows, head, refusal };
    }
    rows.push(row);
    if (place.moves) head = { ...head, ...place.moves, lastArchivedAt: row.archivedAt };
  }
  return { rows, head };
}

/** A standby may have replayed the tail: another segment in its place would be another history. */
async function grownRefusal(
  cluster: Cluster,
  timeline: number,
  row: WalRow,
): Promise<VaultError | undefined> {
  try {
    await checkGrown(cluster, timeline, { ...row, name: fileOf(row) });
    return undefined;
  } catch (error) {
    if (error instanceof VaultError && error.code === 'conflict') return error;
    throw error;
  }
}

/**
 * The active vault has moved on. A replica of a newer epoch than that is being taken over: it decides itself. A key for nodes may delete
 * no row: then it is left to the relay, which sets aside before it brings anything else.
 */
async function leaveAside(active: Cluster, replica: Cluster, why: string): Promise<void> {
  const [mine, theirs] = await Promise.all([readControl(active), readControl(replica)]);
  if (theirs.epoch > mine.epoch) return;
  const { files } = await setAsideSpills(replica).catch((error: unknown) => {
    if (error instanceof VaultError && error.code === 'denied') return { files: 0 };
    throw error;
  });
  if (files === 0) return;
  const text = `${files} files in ${replica.vault.url} were ${why}: they are kept as salvage`;
  await putEvent(active, { kind: 'salvage', node: null, epoch: mine.epoch, text });
}

/**
 * What was spilled becomes the replica's own: rows in order, head moves with each batch. Only after the replica's epoch was raised by the
 * disaster's trigger: until then its source may have decided otherwise. What does not continue the replica's rows is set aside.
 *
 * @returns how many files are rows now, and how many were set aside
 * @throws VaultError corrupt | unreachable
 */
export async function adoptSpills(replica: Cluster): Promise<{ files: number; aside: number }> {
  let files = 0;
  for (;;) {
    const rows = (await listSpills(replica)).slice(0, COMMIT_BATCH);
    const { spill } = await readHead(replica);
    // rows without a chain: what a relay has left of one that is home
    if (rows.length === 0 || spill === null) return { files, aside: (await setAsideSpills(replica)).files };
    const { put, stopped } = await adoptBatch(replica, rows);
    files += put;
    crashPoint('spill-adopted');
    if (stopped) return { files, aside: (await setAsideSpills(replica)).files };
  }
}

async function adoptBatch(
  replica: Cluster,
  batch: readonly SpillRow[],
): Promise<{ put: number; stopped: boolean }> {
  const { manifest } = replica.vault;
  return changing(
    async () => {
      const control = await readControl(replica);
      const branch = await readBranch(replica);
      const spills = await stillThere(replica, batch);
      const held = await eachOf(spills, PARALLEL, (row) =>
        manifest.get(keys.wal(replica.partition, fileOf(row))),
      );
      const isOther = (index: number): boolean => {
        const there = held[index] as WalRow | undefined;
        return there !== undefined && there.sha256 !== spills[index]?.sha256;
      };
      const upTo = spills.findIndex((_, index) => isOther(index));
      const fitting = upTo === -1 ? spills : spills.slice(0, upTo);
      const wanted = fitting.filter((_, index) => held[index] === undefined);
      const asWal = wanted.map((row): WalRow => ({
        ...row,
        ...keys.wal(replica.partition, fileOf(row)),
        rev: 1,
      }));
      const { rows, head, refusal, fills } = await foldIn(replica, branch, asWal);
      const stop = refusal === undefined ? undefined : asWal[rows.length];
      const done = stop === undefined ? fitting : fitting.filter((row) => fileOf(row) < fileOf(stop));
      const result = { put: rows.length, stopped: done.length < spills.length };
      if (done.length === 0) return { result };
      const { spill } = branch.head;
      const node = spill?.writer.node ?? null;
      const text = `what ${node ?? 'the primary'} had spilled is this vault's own now, up to ${fileOf(done.at(-1)!)}`;
      return {
        result,
        changes: [
          { do: 'check', key: keys.control(replica.name), when: { rev: control.rev } },
          { do: 'put', row: asRow(head), when: { rev: branch.head.rev } },
          ...rows.map((row): Change => ({ do: 'put', row: asRow(row), when: 'absent' })),
          ...fills,
          ...done.map(({ pk, sk, rev }): Change => ({ do: 'delete', key: { pk, sk }, when: { rev } })),
          eventChange(replica, { at: now(), kind: 'adopt', node, epoch: control.epoch, text }),
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}

async function stillThere(replica: Cluster, rows: readonly SpillRow[]): Promise<SpillRow[]> {
  const found = await eachOf(rows, PARALLEL, (row) => replica.vault.manifest.get({ pk: row.pk, sk: row.sk }));
  return found.filter((row) => row !== undefined) as unknown as SpillRow[];
}

/**
 * Salvage: what was spilled is kept beside, under the node and epoch that wrote it, and never served. From the end of the chain backwards,
 * so that what a broken-off run leaves is a chain without a hole.
 *
 * @throws VaultError corrupt | unreachable
 */
export async function setAsideSpills(replica: Cluster): Promise<{ files: number }> {
  let files = 0;
  for (;;) {
    const { spill } = await readHead(replica);
    const all = await listSpills(replica);
    if (all.length === 0 && spill === null) return { files };
    const batch = all.slice(-COMMIT_BATCH);
    const asides = await eachOf(batch, PARALLEL, (row) => keepAside(replica, row));
    crashPoint('spill-copied-aside');
    files += await setBatchAside(replica, spill, all.slice(0, -COMMIT_BATCH), batch, asides);
  }
}

/** @returns how many were set aside; 0 where another has changed the chain since it was read as `seen` */
async function setBatchAside(
  replica: Cluster,
  seen: Spill | null,
  left: readonly SpillRow[],
  batch: readonly SpillRow[],
  asides: readonly AsideRow[],
): Promise<number> {
  const { manifest } = replica.vault;
  return changing<number>(
    async () => {
      const control = await readControl(replica);
      const head = await readHead(replica);
      const isSame = head.spill?.writer.nonce === seen?.writer.nonce && head.spill?.lsn === seen?.lsn;
      const still = new Set((await stillThere(replica, batch)).map(({ sk }) => sk));
      if (!isSame || still.size < batch.length) return { result: 0 };
      const held = await eachOf(asides, PARALLEL, (row) => manifest.get({ pk: row.pk, sk: row.sk }));
      const [node, epoch] = [seen?.writer.node ?? batch[0]?.node ?? null, seen?.epoch ?? control.epoch];
      const text = `${batch.length} file(s) that ${node} had spilled in epoch ${epoch} are kept aside, from ${asides[0]?.file ?? 'none'} on; the vault is at epoch ${control.epoch}`;
      return {
        result: batch.length,
        changes: [
          { do: 'check', key: keys.control(replica.name), when: { rev: control.rev } },
          {
            do: 'put',
            row: asRow({ ...head, rev: head.rev + 1, spill: shorter(replica, head, left) }),
            when: { rev: head.rev },
          },
          ...asides
            .filter((_, index) => held[index] === undefined)
            .map((row): Change => ({ do: 'put', row: asRow(row), when: 'absent' })),
          ...batch.map(({ pk, sk, rev }): Change => ({ do: 'delete', key: { pk, sk }, when: { rev } })),
          eventChange(replica, { at: now(), kind: 'aside', node, epoch, text }),
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}

/** The object goes where salvage lies, so that a table that is made again from the bucket never takes it for one of the live branch. */
async function keepAside(replica: Cluster, row: SpillRow): Promise<AsideRow> {
  const file = fileOf(row);
  const key = objectKeys.aside(replica, row, file, row.sha256, newId());
  await copyWalObject(replica, row, replica, key);
  return asideRow(replica, { ...row, file, key, endLsn: wholeEnd(replica, file) });
}

/** The chain that is left with just these rows; null: none. */
function shorter(replica: Cluster, head: Head, left: readonly SpillRow[]): Spill | null {
  if (head.spill === null || left.length === 0) return null;
  const last = left.findLast((row) => isSegmentName(fileOf(row)));
  const lsn =
    last === undefined ? head.spill.firstLsn : formatLsn(segmentEnd(fileOf(last), replica.segmentSize));
  return { ...head.spill, lsn, lastFile: fileOf(last ?? left.at(-1)!), files: left.length };
}
