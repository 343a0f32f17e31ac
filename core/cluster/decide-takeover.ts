/**
 * A disaster, or a planned change of the region: a replica takes the place of the active vault. Three decisions, one transaction each:
 * the fence in the old vault, where it answers; the new epoch in the replica; the trigger there.
 *
 * Pure. docs/design.md, "Two vaults"; modelled: what the old vault still takes after the replica has its epoch is lost to a smart
 * promotion, so a vault that answers is fenced first, and what it holds is carried over before the trigger.
 */
import {
  decideGapAhead,
  decideTarget,
  decidePending,
  upToGap,
  type Refused,
  type TriggerRequest,
} from './decide-roles.ts';
import type { Control, Head, NodeRow, VaultRef } from './facts.ts';
import type { LiveGap } from './gaps.ts';

export type TakeOverRequest = TriggerRequest;

const refuse = (message: string, hint: string, code: Refused['code'] = 'refused'): Refused => ({
  do: 'refuse',
  code,
  message,
  hint,
});

/**
 * May this replica become the active vault with `to` as its primary? Asked before anything is changed, and again in each step.
 *
 * @param gap  as for decideTrigger, of this replica's branch
 */
export function decideTakeOver(
  control: Control,
  head: Head,
  target: NodeRow | undefined,
  request: TakeOverRequest,
  gap?: LiveGap,
): Refused | undefined {
  if (control.role === 'converging')
    return refuse(
      'this vault is being made a replica: it holds no live branch yet',
      'wait until its relay has brought it',
      'busy',
    );
  return (
    decidePending(head.promotion, request.supersede) ??
    decideTarget(target, request.to) ??
    decideGapAhead(request, gap)
  );
}

/**
 * The fence of the vault that is active so far, in the same step as it is found to answer.
 *
 * @param by  the vault that takes its place, with its control as read
 * @returns 'fenced' where that very takeover has fenced it before
 */
export function decideFence(
  control: Control,
  head: Head,
  by: { ref: VaultRef; control: Control },
  request: TakeOverRequest,
): { do: 'fence'; control: Control; head: Head } | { do: 'fenced'; epoch: number } | Refused {
  if (control.role !== 'active') {
    if (control.supersededBy?.id === by.ref.id && control.role === 'replica')
      return { do: 'fenced', epoch: control.epoch };
    return refuse(
      `the other vault is a ${control.role}, not active${control.source === null ? '' : `: its source is ${control.source.url}`}`,
      `name the active one with --peer URL`,
    );
  }
  const pending = decidePending(head.promotion, request.supersede);
  if (pending) return pending;
  const epoch = Math.max(control.epoch, by.control.epoch) + 1;
  return {
    do: 'fence',
    control: {
      ...control,
      rev: control.rev + 1,
      epoch,
      reign: epoch,
      primary: request.to,
      role: 'replica',
      source: by.ref,
      supersededBy: { ...by.ref, epoch, at: request.at },
      ...{ supersedes: null, direct: null, trigger: null },
    },
    head: {
      ...head,
      rev: head.rev + 1,
      epoch,
      // the latch of a flush ends here as with every trigger; the tail stays, the promotion must consume it
      ...{ flush: null, promotion: null, writer: null },
    },
  };
}

/**
 * The new epoch in the replica, before it is active: neither a relay nor the primary of the old epoch can put anything any more, while
 * what the primary spilled is taken into the branch.
 *
 * @param lost  the vault that does not answer; undefined: it was fenced
 * @param epoch  of the fence; undefined: one more than was known here
 */
export function decideRaise(
  control: Control,
  head: Head,
  request: TakeOverRequest,
  lost: VaultRef | undefined,
  epoch: number | undefined,
): { do: 'raise'; control: Control; head: Head } | { do: 'raised' } {
  const wanted = epoch ?? control.epoch + 1;
  const isDone = epoch !== undefined && control.epoch >= epoch && control.primary === request.to;
  if (isDone && control.supersedes?.id === lost?.id) return { do: 'raised' };
  const sinceEpoch = control.supersedes?.sinceEpoch ?? control.epoch;
  const next = Math.max(wanted, control.epoch);
  return {
    do: 'raise',
    control: {
      ...control,
      rev: control.rev + 1,
      epoch: next,
      reign: next,
      primary: request.to,
      direct: null,
      supersedes: lost === undefined ? null : { ...lost, sinceEpoch, at: request.at },
    },
    head: { ...head, rev: head.rev + 1, epoch: next },
  };
}

/** The replica is active, and its standby triggered. */
export function decideActivate(
  control: Control,
  head: Head,
  request: TakeOverRequest,
  gap?: LiveGap,
): { control: Control; head: Head } {
  const { id, mode, to, at } = request;
  const { epoch } = control;
  return {
    control: {
      ...control,
      rev: control.rev + 1,
      role: 'active',
      primary: to,
      ...{ source: null, supersededBy: null, direct: null },
      trigger: { id, epoch, mode, to, at },
    },
    head: {
      ...head,
      rev: head.rev + 1,
      epoch,
      ...{ flush: null, spill: null, writer: null },
      promotion: { id, epoch, node: to, mode, state: 'triggered', at, ...upToGap(gap) },
    },
  };
}
