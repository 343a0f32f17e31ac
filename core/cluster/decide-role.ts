/**
 * Which role a node has, by its server and the vault together: what on_role_change is told, and whom on_fenced stops.
 *
 * Pure. Only what both agree on is a role: between a trigger and its open nobody's changes, and silence of the vault never
 * gets here.
 */
import type { Control, Head } from './facts.ts';

export type Role = 'primary' | 'standby' | 'fenced';

export type RoleFacts = {
  node: string;
  /** open: takes writes; recovering: follows as a standby; other: starting, stopping, a point-in-time recovery. */
  server: 'open' | 'recovering' | 'other';
  /** The epoch that this node took up last as primary; 0: never. */
  writerEpoch: number;
  /** What this node was told to be last. */
  kept: KeptRole | undefined;
};

export type KeptRole = { role: Role; epoch: number };

/** @returns the role and its epoch, or undefined where none is certain now (then it stays as it was) */
export function decideRole(
  facts: RoleFacts,
  control: Pick<Control, 'epoch' | 'reign' | 'primary'>,
  promotion: Head['promotion'],
): KeptRole | undefined {
  const { node, server, writerEpoch, kept } = facts;
  const { epoch, reign, primary } = control;
  if (promotion !== null && promotion.state !== 'open') {
    // A standby that is not the target stays one; the old primary has lost nothing yet, the target is not yet one.
    return server === 'recovering' && promotion.node !== node && primary !== node
      ? { role: 'standby', epoch }
      : undefined;
  }
  if (server === 'recovering') return primary === node ? undefined : { role: 'standby', epoch };
  if (server !== 'open' || primary === null) return undefined;
  if (primary === node) return writerEpoch >= reign ? { role: 'primary', epoch: reign } : undefined;
  // Never a primary, or a standby since: promoted by hand, and perhaps about to be claimed. Nobody fenced it.
  if (writerEpoch === 0 || (kept?.role === 'standby' && kept.epoch >= writerEpoch)) return undefined;
  return epoch > writerEpoch ? { role: 'fenced', epoch } : undefined;
}

/** Is this a change that on_role_change is told? A standby stays one, and a fenced node fenced, whatever epochs come. */
export function isRoleChange(kept: KeptRole | undefined, now: KeptRole): boolean {
  return kept?.role !== now.role || (now.role === 'primary' && kept.epoch !== now.epoch);
}
