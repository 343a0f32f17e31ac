/**
 * The commit of spills: rows that the primary puts beside a replica's own while its vault is out of its reach. As core/work/commit.ts,
 * but the chain is head.spill, with nonces of its own, and the replica's head stands where it stood.
 */
import { VaultError } from '../errors.ts';
import type { Refusal } from '../cluster/decide-archive.ts';
import { decideSpill } from '../cluster/decide-spill.ts';
import { keys, type Control, type Head, type Spill, type SpillRow, type WalRow } from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import { readBranch, type Branch, type HistoryCache } from './branch.ts';
import { asRow, changing, eventChange, readControl, type Cluster } from './cluster.ts';
import { COMMIT_BATCH, walRow, type CommitResult } from './commit.ts';
import { setAsideSpills } from './spill.ts';
import { fileOf, type StoredFile } from './store-file.ts';
import { checkGrown } from './tail.ts';
import { checkSwept, notSwept } from './tombstones.ts';
import { inTurn, newNonce, settle, writerOf, type WriterSeat, type WriterState } from './writer.ts';

/**
 * Puts the rows of `files` (at most COMMIT_BATCH, stored in the replica's bucket, in the order of the log) as spills, in one transaction.
 *
 * @param seat  of the chain of spills: its store is not that of the archive, but its epoch is the one that the node has taken up
 * @returns one result per file, in order; fewer than asked where a later one is refused
 * @throws VaultError fenced | copied | conflict | hole | refused (not armed; behind the node's epoch): nothing was changed | unreachable
 */
export async function commitSpill(
  replica: Cluster,
  seat: WriterSeat,
  files: readonly StoredFile[],
  cache?: HistoryCache,
): Promise<CommitResult[]> {
  if (files.length > COMMIT_BATCH)
    throw new RangeError(`at most ${COMMIT_BATCH} files in one commit, not ${files.length}`);
  const { manifest } = replica.vault;
  let round = 0;
  return inTurn(seat, () =>
    changing<CommitResult[]>(
      async () => {
        const fresh = files.map(({ key }) => key);
        if (round++ > 0) await checkSwept(replica, fresh);
        const planned = await planSpill(replica, seat, files, cache);
        const { branch, refusal, results, rows, spill } = planned;
        if (refusal && results.length === 0)
          throw new VaultError(refusal.code, refusal.message, { hint: refusal.hint });
        if (spill === undefined) return { result: results };
        for (const file of planned.grown) await checkGrown(replica, branch.head.timeline, file);
        const known = seat.store.read() ?? NO_STATE;
        seat.store.write({ ...settleSpill(known, branch.head), next: spill.writer.nonce });
        const head: Head = { ...branch.head, rev: branch.head.rev + 1, spill };
        const text = `${seat.node} spills, from ${fileOf(rows[0]!)} on: its own vault is out of its reach`;
        const { at, epoch } = spill;
        return {
          result: results,
          changes: [
            { do: 'check', key: keys.control(replica.name), when: { rev: planned.control.rev } },
            { do: 'put', row: asRow(head), when: { rev: branch.head.rev } },
            ...rows.map((row): Change => ({ do: 'put', row: asRow(row), when: 'absent' })),
            ...notSwept(replica, fresh),
            ...(branch.head.spill === null
              ? [eventChange(replica, { at, kind: 'spill', node: seat.node, epoch, text })]
              : []),
          ],
        };
      },
      (changes) => manifest.transact(changes),
    ),
  );
}

const NO_STATE: WriterState = { epoch: 0, nonce: '', next: null };

const settleSpill = (state: WriterState, head: Head): WriterState =>
  settle(state, { ...head, writer: head.spill?.writer ?? null });

type SpillPlan = {
  control: Control;
  branch: Branch;
  results: CommitResult[];
  rows: SpillRow[];
  /** As the chain shall be; undefined: nothing is to be put. */
  spill: Spill | undefined;
  /** Files that take the place of the replica's tail. */
  grown: StoredFile[];
  refusal?: Refusal;
};

/** Folds the files into the chain, one decision each, up to the first that is refused: what came before it still goes. */
async function planSpill(
  replica: Cluster,
  seat: WriterSeat,
  files: readonly StoredFile[],
  cache: HistoryCache | undefined,
): Promise<SpillPlan> {
  for (;;) {
    const control = await readControl(replica);
    const branch = await readBranch(replica, cache);
    const before = settleSpill(seat.store.read() ?? NO_STATE, branch.head);
    const nonce = before.next ?? newNonce();
    const writer = writerOf(seat, { ...before, next: nonce });
    const plan: SpillPlan = { control, branch, results: [], rows: [], spill: undefined, grown: [] };
    let { head } = branch;
    let stale = false;
    for (const file of files) {
      const state = { control, head, lineage: branch.lineage, held: await heldBy(replica, file.name) };
      const decision = decideSpill(state, writer, file, replica.segmentSize);
      if (decision.do === 'set-aside') stale = true;
      if (decision.do === 'refuse') plan.refusal = decision;
      if (decision.do === 'set-aside' || decision.do === 'refuse') break;
      if (decision.do !== 'spill') {
        const why = decision.do === 'ignore' ? { why: decision.why } : {};
        plan.results.push({ name: file.name, result: decision.do === 'same' ? 'same' : 'ignored', ...why });
        continue;
      }
      plan.results.push({ name: file.name, result: 'committed' });
      const row = walRow(replica, seat.node, before.epoch, file);
      plan.rows.push({ ...row, ...keys.spill(replica.partition, file.name) });
      if (decision.grown) plan.grown.push(file);
      const { node, place } = seat;
      plan.spill = {
        ...decision.chain,
        epoch: before.epoch,
        writer: { node, nonce, place },
        at: new Date().toISOString(),
      };
      head = { ...head, spill: plan.spill };
    }
    if (!stale) return plan;
    await setAsideSpills(replica);
  }
}

/** sha256 of what the replica has under this name: a row of its own, else a spill. */
async function heldBy(replica: Cluster, name: string): Promise<string | undefined> {
  const { manifest } = replica.vault;
  const [own, spilled] = await Promise.all([
    manifest.get(keys.wal(replica.partition, name)),
    manifest.get(keys.spill(replica.partition, name)),
  ]);
  return ((own ?? spilled) as WalRow | undefined)?.sha256;
}
