/**
 * Switchover to a node that follows another vault: flush of the primary here, everything relayed, then that vault takes the place of
 * this one and its standby becomes the primary. Nothing is lost, and this vault is its replica from then on: the same command there
 * is the way back.
 *
 *   look      the other vault is a replica of this one, the target follows it and is not far behind        nothing changed
 *   flush     the primary stops with everything in this vault                                      `flush --undo` goes back
 *   relay     the other vault has all of it, the shutdown checkpoint too                           `flush --undo` goes back
 *   take over this vault is fenced, the other one active, its standby triggered                    only onward from here
 *
 * Broken off anywhere, the same call goes on from what stands.
 */
import { inState, VaultError } from '../errors.ts';
import { decideTakeOver } from '../cluster/decide-takeover.ts';
import type { Control, NodeRow, Promotion } from '../cluster/facts.ts';
import { readControl, readHead, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { flushPrimary, type Flushed, type FlushRequest } from './flush.ts';
import { relayPass } from './relay.ts';
import {
  checkFlushed,
  FlushUndone,
  untilFollows,
  untilOpen,
  type SwitchedOver,
  type SwitchoverStep,
} from './switchover.ts';
import { takeOver, type TakeOverStep } from './takeover.ts';
import { readTarget, REPORT_MS, untilReported } from './target-report.ts';

const BROKEN_OFF = 'the switchover was broken off';

export type VaultSwitchoverStep = SwitchoverStep | TakeOverStep | { step: 'level'; rows: number };

export type VaultSwitchoverRequest = Omit<FlushRequest, 'onStep' | 'check' | 'withoutDr'> & {
  /** A standby that follows the other vault. */
  to: string;
  onStep?: (step: VaultSwitchoverStep) => void;
};

/**
 * @param here   the active vault, of this primary @param there  the replica that `to` follows
 * @throws VaultError refused (no replica of this vault; the target is none; the reasons of a flush) | unreachable | those of a relay
 */
export async function switchoverVault(
  here: Cluster,
  there: Cluster,
  request: VaultSwitchoverRequest,
): Promise<SwitchedOver> {
  const { to, waitMs, signal } = request;
  const say = request.onStep ?? (() => {});
  const [mine, theirs] = [await readControl(here), await readControl(there)];
  const pending = await pendingThere(there, theirs, to);
  if (pending !== undefined) {
    say({ step: 'triggered', epoch: pending.epoch, already: true });
    return {
      promotion: await untilOpen(there, pending, waitMs, say),
      ...{ flushed: undefined, withoutPrimaryMs: undefined },
    };
  }
  const isFenced = mine.supersededBy?.id === theirs.vaultId && mine.role === 'replica';
  if (!isFenced) checkRoles(here, mine, there, theirs);
  await untilReported(there, to, { limitMs: Math.min(waitMs, REPORT_MS), signal });
  await checkTarget(there, to);
  const flushed = isFenced ? undefined : await flushAndRelay(here, there, request, say);
  crashPoint('switchover-flushed');
  const asked = await takeOver(there, async () => here, {
    primaryDown: true, // flushed
    ...{ mode: 'smart', to, signal, onStep: say },
    async judge(_, __, head) {
      if (flushed !== undefined) checkFlushed(head, request.node, flushed);
      return [];
    },
  }).catch((error: unknown) => {
    if (error instanceof FlushUndone) throw error;
    throw inState(
      error,
      `${request.node} is flushed and stopped. The same command again goes on from here; 'walvault status' of both vaults shows where they stand.`,
      BROKEN_OFF,
    );
  });
  crashPoint('switchover-triggered');
  say({ step: 'triggered', epoch: asked.epoch, already: false });
  const promotion = await untilOpen(there, asked, waitMs, say);
  const refusedAtMs = flushed?.refusedAtMs;
  const withoutPrimaryMs =
    refusedAtMs === undefined ? undefined : Math.round(performance.now() - refusedAtMs);
  return { promotion, flushed, withoutPrimaryMs };
}

/** Everything of the primary, in both vaults. Before it stops the replica is made level, so that little is left for the time without one. */
async function flushAndRelay(
  here: Cluster,
  there: Cluster,
  request: VaultSwitchoverRequest,
  say: (step: VaultSwitchoverStep) => void,
): Promise<Flushed> {
  const { to, waitMs, signal } = request;
  const carry = async (): Promise<void> => {
    const { rows } = await relayPass(here, there, { backups: false, signal, onStep: say });
    say({ step: 'level', rows });
  };
  const flushed = await flushPrimary(here, {
    ...request,
    withoutDr: true,
    async check() {
      await carry();
      say({ step: 'target', behind: await untilFollows(there, to, waitMs, signal, checkTarget) });
    },
  });
  say({ step: 'flushed', lsn: flushed.lsn, already: flushed.already });
  try {
    await carry();
  } catch (error) {
    throw inState(
      error,
      `${request.node} is flushed up to ${flushed.lsn} and stopped. Run the same command again, or 'walvault flush --undo' here to go back.`,
      BROKEN_OFF,
    );
  }
  return flushed;
}

/** The promotion of `to` that an earlier run has triggered there: pending, or open already. */
async function pendingThere(there: Cluster, control: Control, to: string): Promise<Promotion | undefined> {
  if (control.role !== 'active' || control.primary !== to) return undefined;
  const { promotion } = await readHead(there);
  return promotion?.node === to ? promotion : undefined;
}

function checkRoles(here: Cluster, mine: Control, there: Cluster, theirs: Control): void {
  const refuse = (message: string, hint: string) => {
    throw new VaultError('refused', message, { hint });
  };
  if (mine.vaultId === theirs.vaultId)
    refuse(
      `${there.vault.url} is this very vault`,
      `A switchover within one vault needs no --to-vault: 'walvault switchover --to NODE'.`,
    );
  if (mine.role !== 'active')
    refuse(
      `${here.vault.url} is a ${mine.role}, not active`,
      `Run it on the primary, which archives into the active vault.`,
    );
  if (theirs.role !== 'replica' || theirs.source?.id !== mine.vaultId)
    refuse(
      `${there.vault.url} is ${theirs.role}${theirs.source === null ? '' : ` of ${theirs.source.url}`}, no replica of ${here.vault.url}`,
      `Make it one: walvault relay --from '${here.vault.url}' --to '${there.vault.url}'`,
    );
}

/** @throws VaultError refused  as the takeover would be */
async function checkTarget(there: Cluster, to: string): Promise<NodeRow> {
  const { control, head, node, gap } = await readTarget(there, to);
  const at = new Date().toISOString();
  const refusal = decideTakeOver(control, head, node, { id: '', at, mode: 'smart', to }, gap);
  if (refusal) throw new VaultError(refusal.code, refusal.message, { hint: refusal.hint });
  return node as NodeRow;
}
