/**
 * Switchover: flush of the primary here, smart trigger of a standby, and the wait until that one is open. Nothing is lost: what the
 * old primary acknowledged is in the vault before the trigger, and a smart promotion is sealed only when all of it is replayed.
 *
 * Each step can be done by hand (`walvault flush`, `walvault trigger smart`), and what was broken off is taken up where it stands.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { inState, VaultError } from '../errors.ts';
import { decideTrigger } from '../cluster/decide-roles.ts';
import type { Head, NodeRow, Promotion } from '../cluster/facts.ts';
import { readBranch } from './branch.ts';
import { readControl, readHead, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import type { DirectWay } from './direct.ts';
import { flushPrimary, type Flushed, type FlushRequest } from './flush.ts';
import type { FlushStep } from './flush-server.ts';
import type { RelayWaitStep } from './wait-relay.ts';
import { segmentsBehind } from './segments-behind.ts';
import { readTarget, REPORT_MS, untilReported } from './target-report.ts';
import { triggerPromotion } from './trigger.ts';

/** A target further behind is refused before anything is changed: replaying it would be time without a primary. */
export const MAX_LAG_SEGMENTS = 16;

const LOOK_EVERY_MS = 100;

export type SwitchoverStep =
  | FlushStep
  | RelayWaitStep
  | { step: 'target'; behind: number }
  | { step: 'flushed'; lsn: string; already: boolean }
  | { step: 'triggered'; epoch: number; already: boolean }
  | { step: 'sealed'; timeline: number; lsn: string; reserved: number };

export type SwitchoverRequest = Omit<FlushRequest, 'onStep' | 'check'> & {
  /** The standby that becomes the primary. */
  to: string;
  /** The way to the armed replica, which the trigger fences first. */
  direct?: DirectWay;
  onStep?: (step: SwitchoverStep) => void;
};

export type SwitchedOver = {
  promotion: Promotion;
  /** The flush, undefined where it was done and spent before this call. */
  flushed: Flushed | undefined;
  /** From the first refused connection until the new timeline was open, ms; undefined where this call did not see both. */
  withoutPrimaryMs: number | undefined;
};

/**
 * Makes `to` the primary in the place of this node.
 *
 * @throws VaultError refused (the target is none; the reasons of a flush) | unreachable (not open in time: it goes on by itself)
 */
export async function switchover(cluster: Cluster, request: SwitchoverRequest): Promise<SwitchedOver> {
  const { to, waitMs, signal } = request;
  const say = request.onStep ?? (() => {});
  if (request.node === to)
    throw new VaultError('refused', `${to} is this node itself`, {
      hint: `A switchover runs on the primary and names a standby: 'walvault status' lists them.`,
    });
  const pending = await pendingSwitchover(cluster, to);
  if (pending !== undefined) {
    say({ step: 'triggered', epoch: pending.epoch, already: true });
    const promotion = await untilOpen(cluster, pending, waitMs, say);
    return { promotion, flushed: undefined, withoutPrimaryMs: undefined };
  }
  await untilReported(cluster, to, { limitMs: Math.min(waitMs, REPORT_MS), signal });
  await checkTarget(cluster, to);
  const flushed = await flushPrimary(cluster, {
    ...request,
    check: async () => say({ step: 'target', behind: await untilFollows(cluster, to, waitMs, signal) }),
  });
  say({ step: 'flushed', lsn: flushed.lsn, already: flushed.already });
  crashPoint('switchover-flushed');
  const asked = await trigger(cluster, request, flushed);
  crashPoint('switchover-triggered');
  say({ step: 'triggered', epoch: asked.epoch, already: false });
  const promotion = await untilOpen(cluster, asked, waitMs, say);
  const { refusedAtMs } = flushed;
  const withoutPrimaryMs =
    refusedAtMs === undefined ? undefined : Math.round(performance.now() - refusedAtMs);
  return { promotion, flushed, withoutPrimaryMs };
}

async function trigger(cluster: Cluster, request: SwitchoverRequest, flushed: Flushed): Promise<Promotion> {
  try {
    request.signal?.throwIfAborted();
    const { to, direct } = request;
    return await triggerPromotion(cluster, {
      mode: 'smart',
      to,
      direct,
      async judge({ head }) {
        checkFlushed(head, request.node, flushed);
        return [];
      },
    });
  } catch (error) {
    if (error instanceof FlushUndone) throw error;
    const state = `${request.node} is flushed up to ${flushed.lsn} and stopped. Run the same command again, 'walvault trigger smart --to NODE' for another standby, or 'walvault flush --undo' here to go back.`;
    throw inState(error, state, `broken off before ${request.to} was triggered`);
  }
}

export class FlushUndone extends VaultError {}

/**
 * Asked of the head that a trigger is conditional on: until then anybody may have undone the flush and started the server, and what it has
 * acknowledged since would be lost.
 *
 * @throws FlushUndone
 */
export function checkFlushed({ flush }: Head, node: string, { lsn }: Flushed): void {
  if (flush !== null) return;
  throw new FlushUndone('refused', `${node} was flushed at ${lsn}, and that flush no longer stands`, {
    hint: `Somebody has undone it: nothing was triggered. The same command again begins anew.`,
  });
}

/** The promotion of `to` that an earlier run has triggered: pending, or open already. */
async function pendingSwitchover(cluster: Cluster, to: string): Promise<Promotion | undefined> {
  const [control, { promotion }] = await Promise.all([readControl(cluster), readHead(cluster)]);
  return control.primary === to && promotion?.node === to ? promotion : undefined;
}

/** @throws VaultError refused  as the trigger would be */
async function checkTarget(cluster: Cluster, to: string): Promise<NodeRow> {
  const { control, head, node, gap } = await readTarget(cluster, to);
  const at = new Date().toISOString();
  const decision = decideTrigger(control, head, node, { id: '', at, mode: 'smart', to }, gap);
  if (decision.do === 'refuse')
    throw new VaultError(decision.code, decision.message, { hint: decision.hint });
  return node as NodeRow;
}

/**
 * The target lives and follows: it is heard of anew, by no clock but its own row's revision, and has restored nearly all.
 *
 * @param check  reads its row, and refuses a node that is no target
 * @returns how many segments it is behind
 */
export async function untilFollows(
  cluster: Cluster,
  to: string,
  limitMs: number,
  signal: AbortSignal | undefined,
  check: (cluster: Cluster, to: string) => Promise<NodeRow> = checkTarget,
): Promise<number> {
  const first = await check(cluster, to);
  const deadline = performance.now() + limitMs;
  for (;;) {
    signal?.throwIfAborted();
    const node = await check(cluster, to);
    const behind = segmentsBehind(await readBranch(cluster), node.lastRestored, cluster.segmentSize);
    const isHeard = node.rev !== first.rev;
    if (isHeard && behind !== null && behind.count <= MAX_LAG_SEGMENTS) return behind.count;
    if (performance.now() > deadline) {
      const why = !isHeard
        ? `${to} was not heard of for ${Math.round(limitMs / 1000)} s (its last report is of ${node.heartbeatAt ?? 'never'})`
        : behind === null
          ? `${to} does not say what it has restored`
          : `${to} is ${behind.count} segments behind, more than ${MAX_LAG_SEGMENTS}`;
      throw new VaultError('refused', why, {
        hint: `Look at its server and its agent.log; 'walvault status' shows how it follows.`,
      });
    }
    await sleep(LOOK_EVERY_MS);
  }
}

/** Follows the promotion through head. @throws VaultError unreachable | refused (superseded) */
export async function untilOpen(
  cluster: Cluster,
  asked: Promotion,
  limitMs: number,
  say: (step: SwitchoverStep) => void,
): Promise<Promotion> {
  const deadline = performance.now() + limitMs;
  let said = false;
  for (;;) {
    const { promotion } = await readHead(cluster);
    if (promotion === null || promotion.id !== asked.id)
      throw new VaultError(
        'refused',
        `the promotion of ${asked.node} (epoch ${asked.epoch}) was superseded`,
        {
          hint: `'walvault status' says by whom.`,
        },
      );
    const { state, timeline, lsn, reserved } = promotion;
    if (!said && timeline !== undefined && lsn !== undefined && reserved !== undefined) {
      said = true;
      say({ step: 'sealed', timeline, lsn, reserved });
    }
    if (state === 'open') return promotion;
    if (performance.now() > deadline)
      throw new VaultError(
        'unreachable',
        `the promotion of ${asked.node} is ${state}, not open, after ${Math.round(limitMs / 1000)} s`,
        {
          hint: `It goes on by itself once ${asked.node} runs and reaches the vault; run the same command again to wait on. To choose another standby: 'walvault trigger smart --to NODE --supersede ${asked.epoch}'.`,
        },
      );
    await sleep(LOOK_EVERY_MS);
  }
}
