/**
 * The trigger: step 1 of a promotion, by the operator or the witness. One transaction raises the epoch and names the target; from
 * its commit on the old primary is fenced and no standby but the target is served anything new.
 */
import { VaultError } from '../errors.ts';
import { decideTrigger } from '../cluster/decide-roles.ts';
import { keys, type Promotion, type TriggerMode } from '../cluster/facts.ts';
import { gapText } from '../cluster/gaps.ts';
import { asRow, changing, eventChange, newId, type Cluster } from './cluster.ts';
import { fenceDirect, type DirectWay } from './direct.ts';
import { putControlObject } from './init.ts';
import { leaseLeft } from './old-lease.ts';
import type { Change } from '../vault/manifest.ts';
import { readTarget, type TargetFacts } from './target-report.ts';

export type TriggerOptions = {
  mode: TriggerMode;
  /** The node that shall be the primary. */
  to: string;
  /** Give up the pending promotion of just this epoch. */
  supersede?: number;
  /** Go on though a declared gap lies ahead of it: what is archived after the gap is left behind. */
  acceptGap?: boolean;
  /** The way to the armed replica (control.direct), which is fenced first. */
  direct?: DirectWay;
  /** The old primary is certainly down: the target need not outlast its lease. */
  primaryDown?: boolean;
  /** Who triggers, where no person does, and why; for the event. */
  by?: string;
  /**
   * Asked of the very rows that the transaction is conditional on; what it answers goes into it.
   *
   * @throws VaultError  no trigger
   */
  judge?: (facts: TargetFacts) => Promise<readonly Change[]>;
};

/**
 * @returns the promotion as it was committed, state 'triggered'
 * @throws VaultError refused (with the reason) | unreachable: the trigger may have been committed, `status` tells
 */
export async function triggerPromotion(cluster: Cluster, options: TriggerOptions): Promise<Promotion> {
  const { manifest } = cluster.vault;
  const id = newId();
  const at = new Date().toISOString();
  let put: number | undefined;
  let fenced: number | undefined;
  return changing<Promotion>(
    async function attempt() {
      const facts = await readTarget(cluster, options.to);
      const { control, head, node: target, gap } = facts;
      // An answer that was lost: our trigger stands, known by its id.
      if (head.promotion?.id === id) return { result: head.promotion };
      const { after, checks } = await leaseLeft(cluster, control, head, options.primaryDown === true);
      const decision = decideTrigger(control, head, target, { id, at, ...options, after }, gap);
      if (decision.do === 'refuse')
        throw new VaultError(decision.code, decision.message, { hint: decision.hint });
      const judged = (await options.judge?.(facts)) ?? [];
      // Only now that nothing else refuses it: a replica that was fenced for nothing stands still until the trigger is done again.
      if (control.direct !== null && fenced !== decision.control.epoch) {
        await fenceDirect(cluster, control, options.to, options.direct);
        fenced = decision.control.epoch;
        return attempt(); // what was spilled has moved head
      }
      if (put !== decision.control.epoch) await putControlObject(cluster, decision.control);
      put = decision.control.epoch;
      const accepted = gap === undefined ? '' : `, with a declared gap ahead: ${gapText(gap)}`;
      const text = `${options.mode} trigger: ${options.to} shall be the primary, epoch ${decision.control.epoch} (was ${control.primary ?? 'none'}, epoch ${control.epoch})${accepted}${options.by === undefined ? '' : `, by ${options.by}`}`;
      return {
        result: decision.head.promotion as Promotion,
        changes: [
          { do: 'put', row: asRow(decision.control), when: { rev: control.rev } },
          { do: 'put', row: asRow(decision.head), when: { rev: head.rev } },
          // what was read of the target still stands: it may have been detached, or dropped, since
          {
            do: 'check',
            key: keys.node(cluster.partition, options.to),
            when: target === undefined ? 'absent' : { rev: target.rev },
          },
          ...(control.primary === options.to ? [] : checks),
          ...judged,
          eventChange(cluster, {
            at,
            kind: 'trigger',
            node: options.to,
            epoch: decision.control.epoch,
            text,
          }),
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}
