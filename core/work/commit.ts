/**
 * The commit of archived files: one transaction with a condition on `control` (epoch, primary), an update of `head` by its revision, and
 * the rows. The fence, the order of the chain and the nonce that tells a copy all hang on it.
 */
import { VaultError } from '../errors.ts';
import { decideArchive, tailSegment, type Refusal, type Writer } from '../cluster/decide-archive.ts';
import { keys, type Control, type Head, type HistoryRow, type WalRow } from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import { parseHistory } from '../wal/history.ts';
import { parseWalName } from '../wal/name.ts';
import { formatLsn } from '../wal/lsn.ts';
import { asRow, changing, eventRow, readControl, type Cluster } from './cluster.ts';
import { readBranch, type Branch, type HistoryCache } from './branch.ts';
import { checkGrown } from './tail.ts';
import { checkSwept, notSwept } from './tombstones.ts';
import { inTurn, newNonce, settle, writerOf, type WriterSeat } from './writer.ts';
import { sha256Of, type StoredFile } from './store-file.ts';

export type CommitResult = { name: string; result: 'committed' | 'same' | 'ignored'; why?: string };

/** Rows of one transaction: 100 items is the store's limit; head, control and an event each take one. */
export const COMMIT_BATCH = 30;

/**
 * Puts the rows of `files` (at most COMMIT_BATCH, in the order in which the server finished them) in one transaction.
 *
 * @returns one result per file, in order; fewer than asked where a later one is refused: ask again from there to hear why
 * @throws Swept (an object lay there for a day: store it again) | VaultError conflict | fenced | copied | hole | refused: the first of them is refused, nothing was changed | unreachable | busy
 */
export async function commitFiles(
  cluster: Cluster,
  seat: WriterSeat,
  files: readonly StoredFile[],
  cache?: HistoryCache,
): Promise<CommitResult[]> {
  if (files.length > COMMIT_BATCH)
    throw new RangeError(`at most ${COMMIT_BATCH} files in one commit, not ${files.length}`);
  const { manifest } = cluster.vault;
  let round = 0;
  return inTurn(seat, () =>
    changing(
      async () => {
        const control = await readControl(cluster);
        const branch = await readBranch(cluster, cache);
        const before = settle(seat.store.read() ?? { epoch: 0, nonce: '', next: null }, branch.head);
        const fresh = files.filter(({ text }) => text === undefined).map(({ key }) => key);
        if (round > 0) await checkSwept(cluster, fresh);
        const look = () => Promise.all(files.map((file) => heldSha256(cluster, file.name)));
        // The rows are looked up only where the first try says no: mostly they are absent, as the condition of each put demands.
        const none = files.map(() => undefined);
        let plan = planCommit(
          cluster,
          control,
          branch,
          writerOf(seat, before),
          files,
          round++ === 0 ? none : await look(),
        );
        if (plan.refusal)
          plan = planCommit(cluster, control, branch, writerOf(seat, before), files, await look());
        if (plan.refusal && plan.results.length === 0) {
          const { code, message, hint } = plan.refusal;
          throw new VaultError(code, message, { hint });
        }
        if (plan.rows.length === 0) return { result: plan.results };
        const grown =
          branch.head.tail !== null && plan.head.tail === null
            ? tailSegment(branch.head, cluster.segmentSize)
            : undefined;
        const file = files.find(({ name }) => name === grown);
        if (file) await checkGrown(cluster, branch.head.tail!.timeline, file);
        const nonce = before.next ?? newNonce();
        seat.store.write({ ...before, epoch: control.epoch, next: nonce });
        const head: Head = {
          ...plan.head,
          rev: branch.head.rev + 1,
          writer: { node: seat.node, nonce, place: seat.place },
        };
        const changes: Change[] = [
          { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
          { do: 'put', row: asRow(head), when: { rev: branch.head.rev } },
          ...plan.rows.map((row): Change => ({ do: 'put', row: asRow(row), when: 'absent' })),
          ...notSwept(cluster, fresh),
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

type Plan = { head: Head; rows: object[]; results: CommitResult[]; refusal?: Refusal };

/** Folds the files into head, one decision each, up to the first that is refused: what came before it still goes. */
function planCommit(
  cluster: Cluster,
  control: Control,
  branch: Branch,
  writer: Writer,
  files: readonly StoredFile[],
  held: readonly (string | undefined)[],
): Plan {
  let head = branch.head;
  const rows: object[] = [];
  const results: CommitResult[] = [];
  for (const [index, file] of files.entries()) {
    const decision = decideArchive(
      { control, head, lineage: branch.lineage, held: held[index] },
      writer,
      file,
      cluster.segmentSize,
    );
    if (decision.do === 'refuse') return { head, rows, results, refusal: decision };
    if (decision.do === 'same') results.push({ name: file.name, result: 'same' });
    else if (decision.do === 'ignore') {
      results.push({ name: file.name, result: 'ignored', why: decision.why });
      rows.push(
        eventRow(cluster, {
          at: new Date().toISOString(),
          kind: 'ignored',
          node: writer.node,
          epoch: control.epoch,
          text: decision.why,
        }),
      );
    } else {
      results.push({ name: file.name, result: 'committed' });
      if (decision.moves) head = { ...head, ...decision.moves, lastArchivedAt: file.archivedAt };
      rows.push(
        file.text === undefined
          ? walRow(cluster, writer.node, control.epoch, file)
          : historyRow(cluster, writer, control.epoch, file),
      );
    }
  }
  return { head, rows, results };
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
