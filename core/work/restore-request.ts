/**
 * Answers one restore request: reads where the branch stands, asks core/cluster/decide-restore.ts, fetches, asks again, until there is
 * an answer or the time is over. The same for the agent (into the spool) and for a hook that works alone (into place).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import {
  decideRestore,
  placeOnBranch,
  restoreLimit,
  type RestoreBranch,
  type RestoreRequest,
} from '../cluster/decide-restore.ts';
import { tailSegment } from '../cluster/decide-archive.ts';
import type { GapRow, WalRow } from '../cluster/facts.ts';
import { gapText } from '../cluster/gaps.ts';
import { parseLsn } from '../wal/lsn.ts';
import { lineageOf } from '../wal/lineage.ts';
import { parseWalName } from '../wal/name.ts';
import { readHistory, type Branch } from './branch.ts';
import type { Cluster } from './cluster.ts';
import { findGap } from './gap-rows.ts';
import type { NodeContext } from './node-context.ts';
import type { Seal } from './node-state.ts';
import { findSegment } from './tail.ts';

/** Stands for a timeline number that was reserved and never opened: PostgreSQL must not take it, and must look past it. */
export const RESERVED_HISTORY = '# reserved by walvault\n';

export type RestoreView = { branch: RestoreBranch; held: boolean };

/** The live branch as restore requests see it. @param me  another node's promotion that is not open holds everybody else */
export function viewOf(cluster: Cluster, { head, lineage, histories }: Branch, me: string): RestoreView {
  const wholeForks = new Set<number>();
  for (const row of histories.values()) if (row.forkSegmentWhole) wholeForks.add(row.timeline);
  const { promotion } = head;
  return {
    held: promotion !== null && promotion.state !== 'open' && promotion.node !== me,
    branch: {
      lineage,
      end: head.lsn === null ? null : parseLsn(head.lsn),
      tail: tailSegment(head, cluster.segmentSize) ?? null,
      segmentSize: cluster.segmentSize,
      wholeForks,
      nextTimeline: head.timeline + 1,
    },
  };
}

/** The branch up to a seal: nothing after it exists, and every number below the reserved one does. */
export function sealedView(seal: Seal, segmentSize: number): RestoreView {
  return {
    held: false,
    branch: {
      lineage: lineageOf(seal.timeline, seal.history ?? undefined),
      end: parseLsn(seal.lsn),
      tail: seal.tail ?? null,
      segmentSize,
      wholeForks: new Set(seal.wholeForks),
      nextTimeline: seal.reserved,
    },
  };
}

export type RestoreSource = {
  /** Where the branch stands now; a fresh read. @throws VaultError unreachable … */
  view(): Promise<RestoreView>;
  /** Ready already (spool), without the vault. */
  ready?(name: string): boolean;
  /** Fetches a row's file to where it is wanted. */
  fetch(cluster: Cluster, row: WalRow): Promise<void>;
  /** Puts a history file's text to where it is wanted. */
  put(name: string, text: string): Promise<void>;
};

/**
 * @returns 'served' (it lies where the source put it) or 'absent'
 * @throws VaultError unreachable | unsafe | refused | corrupt
 */
export async function answerRestore(
  context: NodeContext,
  source: RestoreSource,
  request: RestoreRequest & { name: string },
): Promise<'served' | 'absent'> {
  const started = performance.now();
  const limitMs = restoreLimit(request, context.settings.restoreTimeout);
  const { name } = request;
  let last: unknown;
  /** At most until the limit: on a plain standby the answer is due long before the vault's own time limit. */
  const inTime = async <T>(work: Promise<T>): Promise<T | undefined> => {
    work.catch(() => {});
    const over = new AbortController();
    try {
      const left = Math.max(0, limitMs - (performance.now() - started));
      return await Promise.race([work, sleep(left, undefined, { signal: over.signal })]);
    } catch (error) {
      if (!(error instanceof VaultError) || error.code === 'corrupt') throw error;
      last = error;
      return undefined;
    } finally {
      over.abort();
    }
  };
  for (;;) {
    const view = await inTime(source.view());
    const place = view && placeOnBranch(name, view.branch);
    let found: Found | 'unseen' | undefined;
    if (place === 'due' || place === 'perhaps') {
      if (source.ready?.(name) === true && !view?.held) return 'served';
      found = await inTime(context.cluster().then((cluster) => lookUp(context, cluster, name, place)));
    }
    const row =
      found === undefined ? 'silent' : found === 'unseen' ? 'unseen' : 'gap' in found ? 'gap' : 'seen';
    const state = {
      place,
      row,
      held: view?.held ?? false,
      waitedMs: performance.now() - started,
      limitMs,
    } as const;
    const action = decideRestore(state, request);
    if (action.do === 'absent') return 'absent';
    if (action.do === 'fail' && found !== undefined && found !== 'unseen' && 'gap' in found)
      throw gapFailure(name, action.code, found.gap);
    if (action.do === 'fail') throw failure(name, action, last);
    if (action.do === 'serve' && found !== undefined && found !== 'unseen' && !('gap' in found)) {
      const work = 'text' in found ? source.put(name, found.text) : fetchWith(context, source, found.row);
      if ((await inTime(work.then(() => true))) === true) return 'served';
      if (performance.now() - started >= limitMs) {
        throw failure(
          name,
          {
            code: request.mode === 'archive' || request.promotionPending ? 'unsafe' : 'unreachable',
            why: 'it is still being fetched',
          },
          last,
        );
      }
    }
    await sleep(context.settings.pollInterval);
  }
}

async function fetchWith(context: NodeContext, source: RestoreSource, row: WalRow): Promise<void> {
  await source.fetch(await context.cluster(), row);
}

export type Found = { row: WalRow } | { text: string } | { gap: GapRow };

/** The row or the text under which a name is served; 'unseen': there is none. @throws VaultError unreachable … */
export async function lookUp(
  context: NodeContext,
  cluster: Cluster,
  name: string,
  place: 'due' | 'perhaps',
): Promise<Found | 'unseen'> {
  const parsed = parseWalName(name);
  if (parsed?.kind === 'history') {
    const row = await readHistory(cluster, parsed.timeline, context.histories);
    if (row) return { text: row.text };
    // Below the live timeline and without a row: the number was given up. PostgreSQL stops looking at the first number that is not
    // there, so it would never find the live one behind it.
    return place === 'perhaps' && parsed.timeline > 1 ? { text: RESERVED_HISTORY } : 'unseen';
  }
  const row = await findSegment(cluster, name);
  if (row !== undefined) return { row };
  const gap = place === 'due' ? await findGap(cluster, name) : undefined;
  return gap === undefined ? 'unseen' : { gap };
}

function gapFailure(name: string, code: 'unreachable' | 'unsafe' | 'refused', gap: GapRow): VaultError {
  return new VaultError(
    code,
    `${name} cannot be restored: it lies in a declared gap, ${gapText(gap)} (${gap.reason}, ${gap.at} to ${gap.until ?? gap.at})`,
    {
      hint:
        code === 'unsafe'
          ? `Recovery stops here instead of opening with what comes after the gap missing. Begin with a base backup that was taken after it: 'walvault backups' lists them.`
          : `This standby has all that comes before the gap and cannot go past it: make it anew by 'walvault standby create' from a base backup that was taken after it.`,
    },
  );
}

function failure(
  name: string,
  action: { code: 'unreachable' | 'unsafe' | 'refused'; why: string },
  cause: unknown,
): VaultError {
  const because = cause instanceof VaultError ? ` (${cause.message})` : '';
  return new VaultError(action.code, `${name} cannot be restored: ${action.why}${because}`, {
    cause,
    hint:
      action.code === 'unsafe'
        ? 'Nothing is lost: recovery stops here instead of ending too early. Start the server again when the vault answers.'
        : cause instanceof VaultError
          ? cause.hint
          : undefined,
  });
}
