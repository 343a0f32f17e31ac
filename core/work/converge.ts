/**
 * The first contact of a vault that took over with the one whose place it took: that one becomes a replica, one transaction per vault,
 * the active one first. What it holds and the active vault does not know is set aside: listed, never served, never relayed.
 *
 *   raise      common epoch and highest timeline number, in the active vault
 *   mark       the other: converging, of that epoch; from here on nothing is archived there
 *   set aside  rows and histories of the dead branch, in batches
 *   replica    its head stands where the live branch ends there; then the active vault forgets that it supersedes
 *
 * Killed anywhere it is done again from what stands. Run by `walvault relay`, by the agent of the new primary, or a function.
 */
import { VaultError } from '../errors.ts';
import {
  decideMeeting,
  gapsLeft,
  headAfter,
  isBackupLive,
  isOlderThanAll,
  oldestOf,
} from '../cluster/decide-converge.ts';
import { decideRelay } from '../cluster/decide-relay.ts';
import {
  keys,
  type Control,
  type BackupRow,
  type HistoryRow,
  type TailRow,
  type WalRow,
} from '../cluster/facts.ts';
import { headGap } from '../cluster/gaps.ts';
import { type Change, type Row } from '../vault/manifest.ts';
import { historyName } from '../wal/name.ts';
import { asideRow, wholeEnd } from './aside-row.ts';
import {
  asRow,
  changing,
  eventChange,
  listRows,
  readControl,
  readHead,
  rowsUnder,
  type Cluster,
} from './cluster.ts';
import { COMMIT_BATCH } from './commit.ts';
import { crashPoint } from './crash-points.ts';
import { gapChanges, readGaps } from './gap-rows.ts';
import { readHolds } from './holds.ts';
import { putControlObject } from './init.ts';
import { readSide, type Reading } from './replica.ts';
import { putAside } from './salvage.ts';
import { fileOf } from './store-file.ts';
import { asWalRow } from './tail.ts';

const FILES = ['wal#', 'spill#', 'tail#'] as const;

/**
 * Makes `other` a replica of `active` (or, in a chain, of a replica with the newer epoch). Done already: nothing is changed.
 *
 * @returns how many rows were set aside by this call
 * @throws VaultError busy (a promotion must open first) | unreachable
 */
export async function converge(active: Cluster, other: Cluster): Promise<{ aside: number }> {
  await meet(active, other);
  const aside = await setAsideDead(active, other);
  await becomeReplica(active, other);
  await clearSuperseded(active, other);
  return { aside };
}

async function meet(active: Cluster, other: Cluster): Promise<void> {
  for (let marked = false; !marked;) {
    let changed = active;
    marked = await changing<boolean>(
      async () => {
        const theirs = await readSide(other);
        const mine = await readSide(active);
        // Asked anew each round: who slept here through a takeover would make a replica of the vault that is active by now.
        if (decideRelay(mine, theirs).do !== 'converge') return { result: true };
        const at = new Date().toISOString();
        const decision = decideMeeting(mine, theirs, at);
        if (decision.do === 'set aside') return { result: true };
        if (decision.do === 'wait')
          throw new VaultError('busy', decision.message, { hint: `'walvault status' shows how it gets on.` });
        const side = decision.do === 'raise' ? mine : theirs;
        const { cluster } = side;
        changed = cluster;
        if (decision.control.epoch !== side.control.epoch) await putControlObject(cluster, decision.control);
        const text =
          decision.do === 'raise'
            ? `epoch ${decision.control.epoch}, for this vault and ${other.vault.url} together`
            : `superseded by ${active.vault.url}: what it does not know is set aside, epoch ${decision.control.epoch} (was ${theirs.control.epoch}, ${theirs.control.primary ?? 'no'} primary)`;
        return {
          result: decision.do === 'mark',
          changes: [
            { do: 'put', row: asRow(decision.control), when: { rev: side.control.rev } },
            { do: 'put', row: asRow(decision.head), when: { rev: side.head.rev } },
            eventChange(cluster, {
              at,
              kind: 'meeting',
              node: decision.control.primary,
              epoch: decision.control.epoch,
              text,
            }),
          ],
        };
      },
      (changes) => changed.vault.manifest.transact(changes),
    );
    crashPoint(marked ? 'converge-marked' : 'converge-raised');
  }
}

/** Towards just this vault: another may have taken over since. */
const isConverging = (control: Control, active: Control): boolean =>
  control.role === 'converging' && control.source?.id === active.vaultId;

/** Everything that the active vault does not hold with the same content, in batches; each row is looked up there before it goes. */
async function setAsideDead(active: Cluster, other: Cluster): Promise<number> {
  const mine = await readSide(active);
  const theirs = await readSide(other);
  if (!isConverging(theirs.control, mine.control)) return 0;
  await failDeadBackups(mine, theirs);
  let aside = await setAsideHistories(active, theirs);
  const oldest = oldestOf(mine, await namesOf(active), other.segmentSize);
  for (const prefix of FILES) {
    let batch: Change[] = [];
    const flush = async (): Promise<void> => {
      if (batch.length === 0) return;
      await changeConverging(theirs, batch);
      aside += batch.filter((change) => change.do === 'delete').length;
      batch = [];
      crashPoint('converge-aside');
    };
    for await (const { row, isAbsent } of differing(active, other, prefix)) {
      const name = fileNameOf(row);
      if (prefix === 'wal#' && isOlderThanAll(mine, name, oldest, other.segmentSize)) continue;
      if (prefix === 'wal#' && isAbsent && (await isJustLetGo(mine, name))) continue;
      batch.push(...asideChanges(other, row));
      if (batch.length >= 2 * COMMIT_BATCH) await flush();
    }
    await flush();
  }
  return aside;
}

/** Rows of `other` under a prefix that `active` lacks, or holds with another content. A range only points at them; each is then read. */
async function* differing(
  active: Cluster,
  other: Cluster,
  prefix: string,
): AsyncGenerator<{ row: Row; isAbsent: boolean }, void> {
  const held = rowsUnder<Row>(active, prefix);
  let next = await held.next();
  for await (const row of rowsUnder<Row>(other, prefix)) {
    while (next.done !== true && next.value.sk < row.sk) next = await held.next();
    if (next.done !== true && next.value.sk === row.sk && isSame(row, next.value)) continue;
    const there = await active.vault.manifest.get({ pk: active.partition, sk: row.sk });
    if (there === undefined || !isSame(row, there)) yield { row, isAbsent: there === undefined };
  }
}

/** The active vault's retention took it while this went on: its horizon is moved before a row goes, so it is read after the row was missed. */
async function isJustLetGo(mine: Reading, name: string): Promise<boolean> {
  const { cluster } = mine;
  const kept = (await readHolds(cluster))?.horizon[String(Number.parseInt(name.slice(0, 8), 16))];
  return isOlderThanAll(mine, name, kept, cluster.segmentSize);
}

const isSame = (one: Row, other: Row): boolean =>
  one['sha256'] === other['sha256'] && one['endLsn'] === other['endLsn'];

const fileNameOf = (row: Row): string => (typeof row['segment'] === 'string' ? row['segment'] : fileOf(row));

/** The row goes, and stands again as salvage of its node and epoch; its object stays where it is. */
function asideChanges(cluster: Cluster, row: Row): Change[] {
  const isTail = row.sk.startsWith('tail#');
  const wal = isTail ? asWalRow(cluster, row as unknown as TailRow) : (row as unknown as WalRow);
  const file = fileNameOf(row);
  const endLsn = isTail ? (row as unknown as TailRow).endLsn : wholeEnd(cluster, file);
  const aside = asideRow(cluster, { ...wal, file, endLsn });
  return [
    { do: 'put', row: asRow(aside), when: 'any' },
    { do: 'delete', key: { pk: row.pk, sk: row.sk }, when: { rev: row.rev } },
  ];
}

/** On condition that the vault still converges, in just this epoch. */
async function changeConverging(theirs: Reading, changes: readonly Change[]): Promise<void> {
  const { cluster, control } = theirs;
  const outcome = await cluster.vault.manifest.transact([
    { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
    ...changes,
  ]);
  if (!outcome.done) {
    throw new VaultError('busy', `${cluster.vault.url} was changed while its dead branch was set aside`, {
      hint: 'Another sweep is at it, or a trigger: it is taken up again from what stands.',
    });
  }
}

/** A history has its text in the row: that text is the salvage. */
async function setAsideHistories(active: Cluster, theirs: Reading): Promise<number> {
  const { cluster } = theirs;
  let count = 0;
  for (const row of await listRows<HistoryRow>(cluster, 'history#')) {
    const held = await active.vault.manifest.get(keys.history(active.partition, row.timeline));
    if (held?.text === row.text) continue;
    const file = historyName(row.timeline);
    await putAside(
      cluster,
      { node: row.node, epoch: row.epoch },
      { file, bytes: Buffer.from(row.text), endLsn: null },
      1,
    );
    count++;
    // that of the head goes with the head
    if (row.timeline === theirs.head.timeline) continue;
    await changeConverging(theirs, [
      { do: 'delete', key: { pk: row.pk, sk: row.sk }, when: { rev: row.rev } },
    ]);
  }
  return count;
}

/** A backup of the dead branch leads nowhere, and so does one that was still being taken. */
async function failDeadBackups(mine: Reading, theirs: Reading): Promise<void> {
  const { cluster } = theirs;
  for (const row of await listRows<BackupRow>(cluster, 'backup#')) {
    const history = await cluster.vault.manifest.get(keys.history(cluster.partition, row.timeline));
    const isLive = isBackupLive(mine, row, history?.['text'] as string | undefined);
    if (row.state === 'failed' || (row.state === 'complete' && isLive)) continue;
    await changeConverging(theirs, [
      { do: 'put', row: asRow({ ...row, rev: row.rev + 1, state: 'failed' }), when: { rev: row.rev } },
    ]);
  }
}

async function namesOf(cluster: Cluster): Promise<string[]> {
  const names: string[] = [];
  for await (const row of rowsUnder<WalRow>(cluster, 'wal#')) names.push(fileOf(row));
  return names;
}

async function becomeReplica(active: Cluster, other: Cluster): Promise<void> {
  const mine = await readSide(active);
  await changing<void>(
    async () => {
      const control = await readControl(other);
      if (!isConverging(control, mine.control)) return { result: undefined };
      const head = await readHead(other);
      const gaps = await readGaps(other, head);
      const after = headAfter(mine, head, await namesOf(other), other.segmentSize, gaps);
      const left = gapsLeft(mine, after, gaps, other.segmentSize);
      const next = { ...after, gap: headGap(left) };
      const history = await other.vault.manifest.get(keys.history(other.partition, head.timeline));
      const live = await active.vault.manifest.get(keys.history(active.partition, head.timeline));
      const isDead = history !== undefined && history['text'] !== live?.['text'];
      return {
        result: undefined,
        changes: [
          {
            do: 'put',
            row: asRow({ ...control, rev: control.rev + 1, role: 'replica' }),
            when: { rev: control.rev },
          },
          { do: 'put', row: asRow(next), when: { rev: head.rev } },
          ...gapChanges(gaps, left),
          ...(isDead
            ? [{ do: 'delete', key: { pk: history.pk, sk: history.sk }, when: { rev: history.rev } } as const]
            : []),
          eventChange(other, {
            at: new Date().toISOString(),
            kind: 'converged',
            node: control.primary,
            epoch: control.epoch,
            text: `a replica of ${active.vault.url} from ${next.lsn ?? 'its beginning'} on timeline ${next.timeline}`,
          }),
        ],
      };
    },
    (changes) => other.vault.manifest.transact(changes),
  );
  crashPoint('converge-replica');
}

/** Once the other is a replica of it, the active vault need not look for it any more. */
export async function clearSuperseded(active: Cluster, other: Cluster): Promise<void> {
  const { vaultId } = await readControl(other);
  await changing<void>(
    async () => {
      const control = await readControl(active);
      if (control.supersedes?.id !== vaultId) return { result: undefined };
      return {
        result: undefined,
        changes: [
          {
            do: 'put',
            row: asRow({ ...control, rev: control.rev + 1, supersedes: null }),
            when: { rev: control.rev },
          },
          eventChange(active, {
            at: new Date().toISOString(),
            kind: 'superseded',
            node: control.primary,
            epoch: control.epoch,
            text: `${other.vault.url} is a replica now`,
          }),
        ],
      };
    },
    (changes) => active.vault.manifest.transact(changes),
  );
}
