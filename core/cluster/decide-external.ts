/**
 * roles = "external": may the agent of a server that somebody else promoted (Patroni, repmgr, a person's pg_promote) claim the next
 * epoch by itself?
 *
 * Only where nothing that was archived is lost by it: the server's timeline is newer than any the vault knows, its history is that of
 * the vault, and it forked from the live timeline with nothing whole archived past the fork. A claim takes the timeline's number,
 * so each timeline is claimed once; a primary that was left has an older one and claims nothing back: no two nodes flap.
 *
 * Pure. docs/design.md, "Changing roles".
 */
import type { FailureCode } from '../errors.ts';
import type { HistoryEntry } from '../wal/history.ts';
import type { Lineage } from '../wal/lineage.ts';
import { formatLsn, type Lsn } from '../wal/lsn.ts';
import { checkAncestors, endOf, missingBefore } from './decide-roles.ts';
import type { Control, Head } from './facts.ts';

export type ExternalFacts = {
  node: string;
  /** On which the server, open for writes, is. */
  timeline: number;
  /** Of its own history file. */
  ancestors: HistoryEntry[];
  /** The node that opened a timeline of this number in the vault; undefined: nobody has. */
  openedBy: string | undefined;
  /** End of the last whole record that is archived at or past the fork; undefined: not looked at yet. */
  archivedTo: Lsn | undefined;
  /** Of the segments that were streamed and never archived, those that lie in this server's pg_wal; undefined: not looked at yet. */
  held: readonly string[] | undefined;
};

export type ExternalDecision =
  /** Nothing to claim, and as long as the server is on this timeline there will not be. */
  | { do: 'nothing'; because: 'own' | 'older' }
  /** Look into the vault from the fork on (archivedTo), and into pg_wal for these names (held); then ask again. */
  | { do: 'examine'; fork: Lsn; upTo: Lsn | null; missing: readonly string[] }
  | { do: 'claim' }
  /** A claim of this very timeline stands, its open does not: killed between the two. */
  | { do: 'open' }
  | { do: 'refuse'; code: FailureCode; message: string; hint: string };

const REJOIN = `'walvault rejoin' makes it a standby again`;

export function decideExternal(
  control: Control,
  head: Head,
  lineage: Lineage,
  facts: ExternalFacts,
  limits: { segmentSize: number; fills: number },
): ExternalDecision {
  const { node, timeline, openedBy, archivedTo, held } = facts;
  const refuse = (code: FailureCode, why: string, hint: string): ExternalDecision => ({
    do: 'refuse',
    code,
    message: `${node} was promoted outside of walvault and is not claimed: ${why}`,
    hint,
  });
  if (control.role !== 'active')
    return refuse(
      'fenced',
      `this vault is a ${control.role}, not active`,
      `set 'vault' of this node to the active one`,
    );
  const { promotion } = head;
  if (control.primary === node && head.timeline === timeline) return { do: 'nothing', because: 'own' };
  if (
    control.primary === node &&
    promotion?.node === node &&
    promotion.epoch === control.epoch &&
    promotion.state === 'sealed' &&
    promotion.reserved === timeline
  )
    return { do: 'open' };
  if (openedBy !== undefined && openedBy !== node)
    return refuse(
      'fenced',
      `timeline ${timeline} was opened by ${openedBy}; two servers took one number, and what this one wrote since is its own`,
      REJOIN,
    );
  const other =
    promotion !== null && promotion.state !== 'open' && promotion.node !== node ? promotion : null;
  // Between the other's claim and its open no history says whose number it is: not older, and nothing is settled yet.
  if (timeline <= head.lastTimeline && other?.reserved !== timeline)
    return { do: 'nothing', because: 'older' };
  if (other !== null)
    return refuse(
      'refused',
      `a promotion of ${other.node} is pending (epoch ${other.epoch}, ${other.state})`,
      `it is looked at again; 'walvault claim --supersede ${other.epoch}' here gives the other up`,
    );
  const checked = checkAncestors(facts.ancestors, lineage);
  if (checked.do === 'refuse') return refuse(checked.code, checked.message, checked.hint ?? REJOIN);
  const { parent, fork } = checked;
  const leave = `'walvault claim' here makes it the primary all the same, and leaves behind what is archived past ${formatLsn(fork)}; ${REJOIN}`;
  if (parent !== head.timeline)
    return refuse(
      'refused',
      `it left timeline ${parent} at ${formatLsn(fork)}, the vault is on timeline ${head.timeline}`,
      leave,
    );
  const end = endOf(head);
  const isBehind = end !== null && fork < end;
  const missing = missingBefore(head, lineage, fork, limits.segmentSize);
  if ((isBehind && archivedTo === undefined) || (missing.length > 0 && held === undefined))
    return { do: 'examine', fork, upTo: isBehind ? end : null, missing: missing.slice(0, limits.fills) };
  if (isBehind && archivedTo !== undefined && archivedTo > fork)
    return refuse(
      'refused',
      `it left timeline ${parent} at ${formatLsn(fork)}, and the vault holds WAL of it up to ${formatLsn(archivedTo)}, which would be lost`,
      leave,
    );
  const lacking = missing.find((name) => held?.includes(name) !== true);
  if (lacking !== undefined)
    return refuse(
      'hole',
      `${lacking} was never archived and ${held?.length === limits.fills ? `is one of ${missing.length}, of which ${limits.fills} can be brought at once` : 'is not in its pg_wal any more'}`,
      `bring it from the pg_wal of the old primary by 'walvault salvage' there`,
    );
  return { do: 'claim' };
}
