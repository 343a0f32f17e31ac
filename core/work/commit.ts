/**
 * The commit of archived files: one transaction with a condition on `control` (epoch, primary), an update of `head` by its revision, and
 * the rows. The fence, the order of the chain and the nonce that tells a copy all hang on it.
 */
import type { EventKind } from '../cluster/event-kinds.ts';
import { VaultError } from '../errors.ts';
import { decideArchive, tailSegment, type Refusal, type Writer } from '../cluster/decide-archive.ts';
import {
  keys,
  type Control,
  type GapRow,
  type Head,
  type HistoryRow,
  type WalRow,
} from '../cluster/facts.ts';
import { gapOf, headGap, ignoringText, withDeclared, withFilled, type Declared } from '../cluster/gaps.ts';
import type { Change } from '../vault/manifest.ts';
import { parseHistory } from '../wal/history.ts';
import { isSegmentName, parseWalName } from '../wal/name.ts';
import { formatLsn } from '../wal/lsn.ts';
import { asRow, changing, eventRow, objectKeys, readControl, type Cluster } from './cluster.ts';
import { readBranch, type Branch, type HistoryCache } from './branch.ts';
import { gapChanges, gapsBelow, readGaps, stillAbsent } from './gap-rows.ts';
import { checkGrown, endTail } from './tail.ts';
import { checkSwept, notSwept } from './tombstones.ts';
import { inTurn, newNonce, settle, writerOf, type WriterSeat } from './writer.ts';
import { isStored, sha256Of, type StoredFile, type UnstoredFile } from './store-file.ts';

/** gap: archiving is off, and the file is declared lost. `notice`: what the server's log shall say of it. */
export type CommitResult = {
  name: string;
  result: 'committed' | 'same' | 'ignored' | 'gap';
  why?: string;
  notice?: string;
};

/** Archiving is on (again): these files have to be stored before they can be committed. */
export class NotStored extends VaultError {
  readonly names: ReadonlySet<string>;

  constructor(names: readonly string[]) {
    super('busy', `archiving is on again: ${names[0]} has to be stored first`, { hint: 'it is tried again' });
    this.names = new Set(names);
  }
}

export type CommitHow = {
  /** This node was told `archiving off --local`: declared whatever the vault says of archiving by now. The reason that the gap shows. */
  offHere?: string;
  /** What is stored is committed though archiving is off: salvage. */
  evenIfOff?: boolean;
};

/** Rows of one transaction: 100 items is the store's limit; head, control and an event each take one. */
export const COMMIT_BATCH = 30;

/**
 * Puts the rows of `files` (at most COMMIT_BATCH, in the order in which the server finished them) in one transaction. While archiving is off
 * no row is put, stored or not: the segments are declared lost, in that transaction, on condition that archiving is off and that head
 * stands where they begin.
 *
 * @returns one result per file, in order; fewer than asked where a later one is refused: ask again from there to hear why
 * @throws NotStored | Swept (an object lay there for a day: store it again) | VaultError conflict | fenced | copied | hole | refused: the first of them is refused, nothing was changed | unreachable | busy
 */
export async function commitFiles(
  cluster: Cluster,
  seat: WriterSeat,
  files: readonly (StoredFile | UnstoredFile)[],
  cache?: HistoryCache,
  how: CommitHow = {},
): Promise<CommitResult[]> {
  if (files.length > COMMIT_BATCH)
    throw new RangeError(`at most ${COMMIT_BATCH} files in one commit, not ${files.length}`);
  const { manifest } = cluster.vault;
  let round = 0;
  return inTurn(seat, () =>
    changing(
      async () => {
        const control = asTold(await readControl(cluster), how);
        const branch = await readBranch(cluster, cache);
        const before = settle(seat.store.read() ?? { epoch: 0, nonce: '', next: null }, branch.head);
        const fresh = files.filter(isStored).filter(({ text }) => text === undefined);
        const objects = fresh.map(({ key }) => key);
        if (round > 0) await checkSwept(cluster, objects);
        const isOff = !control.archiving || how.offHere !== undefined;
        const names = files.map(({ name }) => name);
        const gaps = isOff
          ? await readGaps(cluster, branch.head)
          : await gapsBelow(cluster, branch.head, names);
        const look = () => Promise.all(files.map((file) => heldSha256(cluster, file.name)));
        // The rows are looked up only where the first try says no: mostly they are absent, as the condition of each put demands.
        const none = files.map(() => undefined);
        const state: PlanState = { control, branch, gaps, how, writer: writerOf(seat, before) };
        let plan = planCommit(cluster, state, files, round++ === 0 && !isOff ? none : await look());
        if (plan.refusal || plan.unstored.length > 0) plan = planCommit(cluster, state, files, await look());
        if (plan.refusal && plan.results.length === 0) {
          const { code, message, hint } = plan.refusal;
          throw new VaultError(code, message, { hint });
        }
        if (plan.unstored.length > 0) throw new NotStored(plan.unstored);
        if (plan.rows.length === 0 && plan.gaps === gaps) return { result: plan.results };
        const grown =
          branch.head.tail !== null && plan.head.tail === null
            ? tailSegment(branch.head, cluster.segmentSize)
            : undefined;
        const file = files.find(({ name }) => name === grown);
        const isLost = grown !== undefined && plan.declared.includes(grown);
        if (file && isStored(file) && !isLost) await checkGrown(cluster, branch.head.tail!.timeline, file);
        const nonce = before.next ?? newNonce();
        seat.store.write({ ...before, epoch: control.epoch, next: nonce });
        const head: Head = {
          ...plan.head,
          rev: branch.head.rev + 1,
          writer: { node: seat.node, nonce, place: seat.place },
          ...(plan.gaps === gaps ? {} : { gap: headGap(plan.gaps ?? []) }),
        };
        const changes: Change[] = [
          { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
          { do: 'put', row: asRow(head), when: { rev: branch.head.rev } },
          ...plan.rows.map((row): Change => ({ do: 'put', row: asRow(row), when: 'absent' })),
          ...gapChanges(gaps ?? [], plan.gaps ?? []),
          ...stillAbsent(cluster, plan.declared),
          // its zeros would pass for the end of the WAL
          ...(isLost ? await endTail(cluster, branch.head.tail!.timeline, plan.declared) : []),
          ...notSwept(cluster, objects),
        ];
        return { changes, result: plan.results };
      },
      (changes) => manifest.transact(changes),
    ),
  );
}

async function heldSha256(cluster: Cluster, name: string): Promise<string | undefined> {
  const parsed = parseWalName(name);
  if (parsed?.kind === 'history') {
    const row = await cluster.vault.manifest.get(keys.history(cluster.partition, parsed.timeline));
    return row && sha256Of(Buffer.from(String(row.text)));
  }
  const row = (await cluster.vault.manifest.get(keys.wal(cluster.partition, name))) as WalRow | undefined;
  return row?.sha256;
}

/** What is decided goes by the vault's word, unless this node or this command has one of its own. */
const asTold = (control: Control, { evenIfOff }: CommitHow): Control =>
  evenIfOff === true ? { ...control, archiving: true } : control;

type PlanState = {
  control: Control;
  branch: Branch;
  /** undefined: not read, since none can matter. */
  gaps: readonly GapRow[] | undefined;
  how: CommitHow;
  writer: Writer;
};

type Plan = {
  head: Head;
  rows: object[];
  gaps: readonly GapRow[] | undefined;
  /** Declared by this plan. */
  declared: string[];
  /** Would be committed, and nobody has stored them. */
  unstored: string[];
  results: CommitResult[];
  refusal?: Refusal;
};

/** Folds the files into head, one decision each, up to the first that is refused: what came before it still goes. */
function planCommit(
  cluster: Cluster,
  { control, branch, gaps: known, how, writer }: PlanState,
  files: readonly (StoredFile | UnstoredFile)[],
  held: readonly (string | undefined)[],
): Plan {
  const at = new Date().toISOString();
  const { segmentSize } = cluster;
  const { node } = writer;
  const { epoch } = control;
  const since = control.archivingAt === undefined ? '' : ` since ${control.archivingAt}`;
  const by: Declared = {
    ...{ partition: cluster.partition, node, epoch, at },
    reason: how.offHere ?? `archiving off${since}`,
  };
  const plan: Plan = { head: branch.head, rows: [], gaps: known, declared: [], unstored: [], results: [] };
  const event = (kind: EventKind, text: string): void =>
    void plan.rows.push(eventRow(cluster, { at, kind, node, epoch, text }));
  for (const [index, file] of files.entries()) {
    const { name } = file;
    const decision = decideArchive(
      {
        ...{ control, head: plan.head, lineage: branch.lineage, held: held[index] },
        ...{ gaps: plan.gaps, offHere: how.offHere !== undefined },
      },
      writer,
      file,
      segmentSize,
    );
    if (decision.do === 'refuse') return { ...plan, refusal: decision };
    if (decision.do === 'same') plan.results.push({ name, result: 'same' });
    else if (decision.do === 'ignore') {
      plan.results.push({ name, result: 'ignored', why: decision.why });
      event('ignored', decision.why);
    } else if (decision.do === 'gap') {
      const key = isStored(file) ? file.key : objectKeys.walStem(cluster, name, file.sha256);
      plan.results.push({ name, result: 'gap', notice: ignoringText(name, key) });
      if (decision.moves === undefined) {
        if (!isSegmentName(name)) event('ignored', ignoringText(name, key));
        continue;
      }
      const before = plan.gaps ?? [];
      plan.gaps = withDeclared(before, name, by, segmentSize);
      plan.declared.push(name);
      if (plan.gaps.length > before.length)
        event('gap', `${name} and what follows it is not archived: ${by.reason}`);
      if (decision.moves !== null) plan.head = { ...plan.head, ...decision.moves };
    } else if (!isStored(file)) {
      plan.unstored.push(name);
    } else {
      plan.results.push({ name, result: 'committed' });
      if (decision.moves) plan.head = { ...plan.head, ...decision.moves, lastArchivedAt: file.archivedAt };
      else if (gapOf(plan.gaps ?? [], name) !== undefined)
        plan.gaps = withFilled(plan.gaps ?? [], name, segmentSize);
      plan.rows.push(
        file.text === undefined
          ? walRow(cluster, node, epoch, file)
          : historyRow(cluster, writer, epoch, file),
      );
    }
    if (plan.unstored.length > 0) break;
  }
  return plan;
}

export function walRow(cluster: Cluster, node: string, epoch: number, file: StoredFile): WalRow {
  const { key, sha256, sizeBytes, storedBytes, archivedAt } = file;
  return {
    ...keys.wal(cluster.partition, file.name),
    rev: 1,
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

/** Only for a history of the live lineage that the vault lacks (opened before the vault was made). */
function historyRow(cluster: Cluster, writer: Writer, epoch: number, file: StoredFile): HistoryRow {
  const timeline = Number.parseInt(file.name.slice(0, 8), 16);
  const parent = parseHistory(file.text ?? '').at(-1);
  if (parent === undefined) throw new VaultError('corrupt', `${file.name} names no parent timeline`);
  return {
    ...keys.history(cluster.partition, timeline),
    rev: 1,
    text: file.text ?? '',
    timeline,
    parent: parent.timeline,
    forkLsn: formatLsn(parent.forkLsn),
    node: writer.node,
    epoch,
    forkSegmentWhole: false,
    key: file.key,
    archivedAt: file.archivedAt,
  };
}
