/**
 * What a seal needs, whoever makes it (the agent of a standby, the command itself in wait mode): where a fast one ends, and everything
 * that PostgreSQL will still ask for, kept where no vault is needed to give it.
 */
import fs from 'node:fs';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { placeOnBranch } from '../cluster/decide-restore.ts';
import { tailSegment } from '../cluster/decide-archive.ts';
import type { Promotion } from '../cluster/facts.ts';
import { parseLsn, type Lsn } from '../wal/lsn.ts';
import { hex8, historyName, isSegmentName, segmentEnd, segmentStart, segmentAt } from '../wal/name.ts';
import { readHistory, type Branch } from './branch.ts';
import type { Cluster } from './cluster.ts';
import type { NodeContext } from './node-context.ts';
import { readServed, type Seal } from './node-state.ts';
import { RESERVED_HISTORY, viewOf } from './restore-request.ts';
import type { Spool } from './spool.ts';
import { findSegment } from './tail.ts';

/** Where the files of a seal are kept. */
export type SealKeep = Pick<Spool, 'has' | 'fetch' | 'put'>;

/**
 * fast: the end of the last segment that PostgreSQL was ever given, whether it has replayed it yet or not; undefined: none yet.
 *
 * @param lastGiven  a name that a hook has, and may not have written into `served` yet
 */
export function givenUpTo(
  context: NodeContext,
  cluster: Cluster,
  branch: Branch,
  lastGiven?: string,
): { timeline: number; lsn: Lsn } | undefined {
  const size = cluster.segmentSize;
  const view = viewOf(cluster, branch, context.node);
  const last = givenNames(context, lastGiven)
    .filter((name) => placeOnBranch(name, view.branch) === 'due')
    .sort(
      (left, right) =>
        Number(segmentStart(left, size) - segmentStart(right, size)) || (left < right ? -1 : 1),
    )
    .at(-1);
  if (last === undefined) return undefined;
  return { timeline: parseInt(last.slice(0, 8), 16), lsn: segmentEnd(last, size) };
}

/** After a restart PostgreSQL reads again what it was given before, from pg_wal too: everything restored is marked there. */
function givenNames(context: NodeContext, lastGiven: string | undefined): string[] {
  const names = [readServed(context.paths), lastGiven].filter((name) => name !== undefined);
  const status = path.join(context.pgdata, 'pg_wal', 'archive_status');
  for (const file of fs.readdirSync(status)) {
    const name = file.replace(/\.(done|ready)$/, '');
    if (name !== file && isSegmentName(name)) names.push(name);
  }
  return names;
}

/** The last segment that PostgreSQL was given, under each name by which it may ask for it again. */
export async function keepLastSegment(
  context: NodeContext,
  cluster: Cluster,
  branch: Branch,
  end: Lsn,
  keep: SealKeep,
): Promise<void> {
  const size = BigInt(cluster.segmentSize);
  const view = viewOf(cluster, branch, context.node);
  const start = end % size === 0n ? end - size : end - (end % size);
  for (const { timeline } of branch.lineage) {
    const name = nameOf(timeline, start, cluster.segmentSize);
    if (name === undefined || placeOnBranch(name, view.branch) !== 'due' || keep.has(name)) continue;
    const row = await findSegment(cluster, name);
    if (row !== undefined) await keep.fetch(cluster, row);
  }
}

/** The seal as the state directory takes it, with everything it will be asked for in `keep`. @throws VaultError corrupt | unreachable */
export async function prepareSeal(
  context: NodeContext,
  cluster: Cluster,
  branch: Branch,
  sealed: Promotion,
  keep: SealKeep,
): Promise<Seal> {
  const { id, epoch, node, mode, timeline, lsn, reserved } = sealed;
  if (timeline === undefined || lsn === undefined || reserved === undefined)
    throw new VaultError('corrupt', `the seal of epoch ${epoch} says neither timeline nor LSN`);
  await keepLastSegment(context, cluster, branch, parseLsn(lsn), keep);
  let history: string | null = null;
  for (let number = 2; number < reserved; number++) {
    const row = await readHistory(cluster, number, context.histories);
    await keep.put(historyName(number), row?.text ?? RESERVED_HISTORY);
    if (number === timeline) history = row?.text ?? null;
  }
  const { head } = branch;
  const isTail = head.tail?.timeline === timeline && head.tail.lsn === lsn;
  return {
    ...{ id, epoch, node, mode, timeline, lsn, reserved, history },
    tail: isTail ? (tailSegment(head, cluster.segmentSize) ?? null) : null,
    wholeForks: [...viewOf(cluster, branch, node).branch.wholeForks],
    segmentSize: cluster.segmentSize,
  };
}

/** The first segment of the gap in front of which a promotion ends: whoever asks for it has all that comes before. */
export function upToName({ timeline, lsn }: NonNullable<Promotion['upTo']>, segmentSize: number): string {
  return segmentAt(timeline, parseLsn(lsn), segmentSize);
}

function nameOf(timeline: number, start: Lsn, segmentSize: number): string | undefined {
  if (start < 0n) return undefined;
  const name = `${hex8(timeline)}${hex8(Number(start >> 32n))}${hex8(Math.floor(Number(start & 0xffff_ffffn) / segmentSize))}`;
  return isSegmentName(name) ? name : undefined;
}
