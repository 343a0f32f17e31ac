/**
 * The trigger in a replica: it takes the place of the active vault. That one is tried first. Where it answers it is fenced in the same
 * step, what it holds is carried over, and nothing is lost. Where it does not, its primary cannot be fenced now, and the replica goes
 * on with what it has (`unfenced`); it then supersedes the other, which becomes its replica at the first contact.
 *
 * Each step looks up what stands, so the same command again takes up what was broken off.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { inState, VaultError } from '../errors.ts';
import {
  decideActivate,
  decideFence,
  decideRaise,
  decideTakeOver,
  type TakeOverRequest,
} from '../cluster/decide-takeover.ts';
import {
  keys,
  type Control,
  type Head,
  type NodeRow,
  type Promotion,
  type TriggerMode,
  type VaultRef,
} from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import { silenceNeeded } from '../cluster/lease.ts';
import {
  asRow,
  changing,
  eventChange,
  listRows,
  newId,
  readControl,
  readHead,
  type Cluster,
} from './cluster.ts';
import { leaseLeft, OldLease } from './old-lease.ts';
import { crashPoint } from './crash-points.ts';
import { putControlObject } from './init.ts';
import { relayPass, type RelayStep } from './relay.ts';
import { adoptSpills } from './spill.ts';
import { readTarget } from './target-report.ts';
import { triggerPromotion } from './trigger.ts';

export type TakeOverStep =
  | RelayStep
  | { step: 'silent'; why: string }
  | { step: 'fenced'; epoch: number; already: boolean }
  | { step: 'carried'; rows: number }
  /** The fenced primary held a lease: it is waited for, or for its word that its server is stopped; no longer than `ms`. */
  | { step: 'lease'; node: string; ms: number }
  | { step: 'adopted'; files: number }
  | { step: 'active'; epoch: number };

export type TakeOverOptions = {
  mode: TriggerMode;
  /** A standby that follows the replica. */
  to: string;
  /** Go on without the other vault: it does not answer, so its primary cannot be fenced now. */
  unfenced?: boolean;
  supersede?: number;
  /** As for the trigger of an active vault: go on though a declared gap lies ahead of the target. */
  acceptGap?: boolean;
  /** The old primary is certainly down: its lease is not waited for. */
  primaryDown?: boolean;
  /** Asked of the rows of the active vault by which it is fenced; what it answers goes into that transaction. @throws VaultError  no take-over */
  judge?: (active: Cluster, control: Control, head: Head) => Promise<readonly Change[]>;
  signal?: AbortSignal;
  onStep?: (step: TakeOverStep) => void;
};

/**
 * @param target  the replica
 * @param peer    opens the vault that is active so far; what it throws is "it does not answer"
 * @returns the promotion as it was committed, state 'triggered'
 * @throws VaultError refused | busy | unreachable | hole, conflict, corrupt (of the last carrying over: the other vault is fenced then)
 */
export async function takeOver(
  target: Cluster,
  peer: () => Promise<Cluster>,
  options: TakeOverOptions,
): Promise<Promotion> {
  const { mode, to, supersede, acceptGap } = options;
  const say = options.onStep ?? (() => {});
  const request: TakeOverRequest = {
    ...{ id: newId(), mode, to, at: new Date().toISOString() },
    ...{ supersede, acceptGap },
  };
  if ((await readControl(target)).role === 'active') return continueActive(target, options);
  await check(target, request);
  const reached = await reach(target, peer);
  let epoch: number | undefined;
  if (reached.cluster === undefined) {
    say({ step: 'silent', why: reached.why });
    if (options.unfenced !== true) throw refuseUnfenced(reached.why);
  } else {
    const fenced = await fenceAndCarry(target, reached.cluster, request, options, say);
    epoch = fenced.epoch;
    if (fenced.after !== undefined)
      await outlast(reached.cluster, request, fenced.after, say, options.signal);
  }
  await raise(target, request, reached.cluster === undefined ? reached.ref : undefined, epoch);
  crashPoint('takeover-raised');
  const { files } = await adoptSpills(target);
  if (files > 0) say({ step: 'adopted', files });
  const promotion = await activate(target, request);
  crashPoint('takeover-active');
  say({ step: 'active', epoch: promotion.epoch });
  return promotion;
}

/** An earlier run came this far; or somebody names a vault that is active anyway. */
async function continueActive(
  target: Cluster,
  { mode, to, supersede, acceptGap }: TakeOverOptions,
): Promise<Promotion> {
  const { promotion } = await readHead(target);
  const isOurs = promotion?.node === to && promotion.mode === mode && supersede === undefined;
  if (isOurs && promotion.state !== 'open') return promotion;
  return triggerPromotion(target, { mode, to, supersede, acceptGap });
}

async function check(target: Cluster, request: TakeOverRequest): Promise<void> {
  const { control, head, node, gap } = await readTarget(target, request.to);
  const refusal = decideTakeOver(control, head, node, request, gap);
  if (refusal) throw new VaultError(refusal.code, refusal.message, { hint: refusal.hint });
}

type Reached = { cluster: Cluster } | { cluster: undefined; why: string; ref: VaultRef };

/** Whatever keeps its control from being read, nobody can be fenced there now. */
async function reach(target: Cluster, peer: () => Promise<Cluster>): Promise<Reached> {
  const { source, supersedes } = await readControl(target);
  const ref: VaultRef = source ?? supersedes ?? { id: '', url: 'its source' };
  try {
    const cluster = await peer();
    const control = await readControl(cluster);
    if (control.vaultId !== (await readControl(target)).vaultId) return { cluster };
    throw new VaultError('usage', `${cluster.vault.url} is the vault that is to be triggered itself`, {
      hint: 'name the other one with --peer URL.',
    });
  } catch (error) {
    if (!(error instanceof VaultError) || ['usage', 'refused', 'format'].includes(error.code)) throw error;
    return { cluster: undefined, why: `[${error.code}] ${error.message}`, ref };
  }
}

function refuseUnfenced(why: string): VaultError {
  return new VaultError('refused', `the vault that is active so far does not answer: ${why}`, {
    hint: `Its primary cannot be fenced now: it goes on writing there as long as it can, and what was not relayed is not here. If that region is lost, say so with --unfenced.`,
  });
}

type Fenced = {
  epoch: number;
  /** By an earlier run. */
  already: boolean;
  /** The lease that the primary there may still hold. */
  after: Promotion['after'];
};

async function fenceAndCarry(
  target: Cluster,
  peer: Cluster,
  request: TakeOverRequest,
  options: TakeOverOptions,
  say: (step: TakeOverStep) => void,
): Promise<Fenced> {
  const carry = {
    backups: false,
    onStep: say,
    signal: options.signal,
  };
  // Nearly all of it while the other still takes archives: what cannot be carried is found before anything is fenced, and there is
  // a primary until the last few rows.
  const active = await readControl(peer);
  const isOlder = active.epoch < (await readControl(target)).epoch;
  if (active.role === 'active' && !isOlder) await relayPass(peer, target, carry);
  await check(target, request); // a gap that it brought is said before anything is fenced
  const fenced = await fence(target, peer, request, options);
  const { epoch, already } = fenced;
  crashPoint('takeover-fenced');
  say({ step: 'fenced', epoch, already });
  try {
    const report = await relayPass(peer, target, carry);
    say({ step: 'carried', rows: report.rows });
  } catch (error) {
    const state = `${peer.vault.url} is fenced at epoch ${epoch}, and ${target.vault.url} is not active yet: run the same command again.`;
    throw error instanceof VaultError ? inState(error, state, '') : error;
  }
  return fenced;
}

/** Fenced by an earlier run: control names the target since, and the last lease that was renewed is that of the primary then. */
async function lastLease(peer: Cluster): Promise<Promotion['after']> {
  const rows = await listRows<NodeRow>(peer, 'node#');
  const leased = rows.filter(({ lease }) => lease && lease.released !== true);
  const last = leased.sort((one, other) => other.lease!.epoch - one.lease!.epoch)[0];
  return last && { node: last.name, ms: silenceNeeded(last.lease!.ms) };
}

/** Nobody renews it since the fence. @throws AbortError */
async function outlast(
  peer: Cluster,
  { id }: TakeOverRequest,
  after: NonNullable<Promotion['after']>,
  say: (step: TakeOverStep) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const old = new OldLease();
  const isOver = async () => (await old.waitsFor(peer, { id, after }).catch(silence)) === undefined;
  if (await isOver()) return;
  say({ step: 'lease', ...after });
  while (!(await isOver())) await sleep(250, undefined, { signal });
}

/** A vault that is silent meanwhile says nothing of the lease, which goes on running out. */
function silence(error: unknown): string {
  if (!(error instanceof VaultError)) throw error;
  return error.message;
}

async function fence(
  target: Cluster,
  peer: Cluster,
  request: TakeOverRequest,
  { judge, primaryDown = false }: TakeOverOptions,
): Promise<Fenced> {
  let ours: Fenced = { epoch: 0, already: false, after: undefined };
  return changing(
    async () => {
      const by = await readControl(target);
      const control = await readControl(peer);
      const head = await readHead(peer);
      const ref = { id: by.vaultId, url: target.vault.url };
      const decision = decideFence(control, head, { ref, control: by }, request);
      if (decision.do === 'refuse')
        throw new VaultError(decision.code, decision.message, { hint: decision.hint });
      if (decision.do === 'fenced') {
        if (decision.epoch === ours.epoch) return { result: ours };
        const after = primaryDown ? undefined : await lastLease(peer);
        return { result: { epoch: decision.epoch, already: true, after } };
      }
      const lease = await leaseLeft(peer, control, head, primaryDown);
      const judged = (await judge?.(peer, control, head)) ?? [];
      await putControlObject(peer, decision.control);
      const { epoch } = decision.control;
      ours = { epoch, already: false, after: lease.after };
      const text = `superseded by ${target.vault.url}, where ${request.to} shall be the primary: epoch ${epoch} (was ${control.primary ?? 'none'}, epoch ${control.epoch})`;
      return {
        result: ours,
        changes: [
          { do: 'put', row: asRow(decision.control), when: { rev: control.rev } },
          { do: 'put', row: asRow(decision.head), when: { rev: head.rev } },
          ...lease.checks,
          ...judged,
          eventChange(peer, { at: request.at, kind: 'fence', node: request.to, epoch, text }),
        ],
      };
    },
    (changes) => peer.vault.manifest.transact(changes),
  );
}

async function raise(
  target: Cluster,
  request: TakeOverRequest,
  lost: VaultRef | undefined,
  epoch: number | undefined,
): Promise<void> {
  // Read once: each further round would raise it again.
  const wanted = epoch ?? (await readControl(target)).epoch + 1;
  await changing<void>(
    async () => {
      const control = await readControl(target);
      const head = await readHead(target);
      const decision = decideRaise(control, head, request, lost, wanted);
      if (decision.do === 'raised') return { result: undefined };
      await putControlObject(target, decision.control);
      const text =
        lost === undefined
          ? `epoch ${decision.control.epoch}: the vault that was active is fenced`
          : `epoch ${decision.control.epoch}: supersedes ${lost.url}, which does not answer`;
      return {
        result: undefined,
        changes: [
          { do: 'put', row: asRow(decision.control), when: { rev: control.rev } },
          { do: 'put', row: asRow(decision.head), when: { rev: head.rev } },
          eventChange(target, {
            at: request.at,
            kind: 'supersede',
            node: request.to,
            epoch: decision.control.epoch,
            text,
          }),
        ],
      };
    },
    (changes) => target.vault.manifest.transact(changes),
  );
}

async function activate(target: Cluster, request: TakeOverRequest): Promise<Promotion> {
  const { manifest } = target.vault;
  return changing<Promotion>(
    async () => {
      const { control, head, node, gap } = await readTarget(target, request.to);
      if (head.promotion?.id === request.id) return { result: head.promotion };
      const key = keys.node(target.partition, request.to);
      const refusal = decideTakeOver(control, head, node, request, gap);
      if (refusal) throw new VaultError(refusal.code, refusal.message, { hint: refusal.hint });
      if (control.role !== 'replica' || head.spill !== null)
        throw new VaultError('busy', `${target.vault.url} was changed while it was taken over`, {
          hint: 'Run the same command again.',
        });
      const next = decideActivate(control, head, request, gap);
      await putControlObject(target, next.control);
      const { epoch } = next.control;
      const text = `${request.mode} trigger: ${request.to} shall be the primary, epoch ${epoch}; this vault is active now`;
      return {
        result: next.head.promotion!,
        changes: [
          { do: 'put', row: asRow(next.control), when: { rev: control.rev } },
          { do: 'put', row: asRow(next.head), when: { rev: head.rev } },
          { do: 'check', key, when: node === undefined ? 'absent' : { rev: node.rev } },
          eventChange(target, { at: request.at, kind: 'trigger', node: request.to, epoch, text }),
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}
