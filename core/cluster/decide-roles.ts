/**
 * The three committed steps of a promotion (trigger, seal, open) and claim, as decisions: what may follow what.
 *
 * docs/design.md, "Changing roles". Each takes the rows as they were read and answers with the rows as they shall be; the
 * transaction is conditional on the revisions read, so that of two operators one wins and the other reads again.
 *
 * Pure. The rules were explored in a model of roles, promotion and rollback; the naive version of each loses rows.
 */
import type { FailureCode } from '../errors.ts';
import { formatLsn, parseLsn, type Lsn } from '../wal/lsn.ts';
import type { HistoryEntry } from '../wal/history.ts';
import { segmentsFrom, type Lineage } from '../wal/lineage.ts';
import { segmentEnd } from '../wal/name.ts';
import type { Control, Head, NodeRow, Promotion, TriggerMode } from './facts.ts';
import { gapText, type LiveGap } from './gaps.ts';

export type Refused = { do: 'refuse'; code: FailureCode; message: string; hint?: string };
const refuse = (code: FailureCode, message: string, hint?: string): Refused => ({
  do: 'refuse',
  code,
  message,
  hint,
});

const isPending = (promotion: Promotion | null): promotion is Promotion =>
  promotion !== null && promotion.state !== 'open';

export type TriggerRequest = {
  id: string;
  mode: TriggerMode;
  to: string;
  at: string;
  supersede?: number;
  /** Go on though the target stands before a declared gap, which it can never pass. */
  acceptGap?: boolean;
  /** The lease of the old primary, which the target has to outlast; undefined: none. */
  after?: Promotion['after'];
};

/**
 * Step 1: epoch + 1, primary = the target. From its commit on the old primary cannot archive.
 *
 * @param gap  the first declared gap of the live branch that the target has not passed; undefined: there is none
 */
export function decideTrigger(
  control: Control,
  head: Head,
  target: NodeRow | undefined,
  request: TriggerRequest,
  gap?: LiveGap,
): { do: 'trigger'; control: Control; head: Head } | Refused {
  const { to } = request;
  const active = decideActive(control);
  if (active) return active;
  const pending = decidePending(head.promotion, request.supersede);
  if (target !== undefined && pending) return pending;
  if (control.primary === to && target !== undefined && !isPending(head.promotion))
    return refuse(
      'refused',
      `${to} is the primary already, in epoch ${control.epoch}`,
      `'walvault status' shows where the cluster stands`,
    );
  const unfit = decideTarget(target, to) ?? decideGapAhead(request, gap);
  if (unfit) return unfit;
  const epoch = control.epoch + 1;
  return {
    do: 'trigger',
    control: {
      ...control,
      rev: control.rev + 1,
      epoch,
      reign: epoch,
      primary: to,
      trigger: { id: request.id, epoch, mode: request.mode, to, at: request.at },
    },
    head: {
      ...head,
      rev: head.rev + 1,
      epoch,
      flush: null,
      promotion: {
        ...{ id: request.id, epoch, node: to, mode: request.mode, state: 'triggered', at: request.at },
        ...(request.after === undefined ? {} : { after: request.after }),
        ...upToGap(gap),
      },
    },
  };
}

/** A target that stands before a gap would open without what is archived after it; smart would wait for it for ever. */
export function decideGapAhead(
  { to, acceptGap }: Pick<TriggerRequest, 'to' | 'acceptGap'>,
  gap: LiveGap | undefined,
): Refused | undefined {
  if (gap === undefined || acceptGap === true) return undefined;
  return refuse(
    'refused',
    `${to} stands before a declared gap, ${gapText(gap)} (${gap.reason}): it can never replay what comes after ${formatLsn(gap.begins)}`,
    `choose a standby that was made from a base backup taken after the gap; or open ${to} with what lies before it, and leave all else behind, by --accept-gap`,
  );
}

/** Where the promotion ends that was triggered with a gap ahead. */
export const upToGap = (gap: LiveGap | undefined): Pick<Promotion, 'upTo'> =>
  gap === undefined ? {} : { upTo: { timeline: gap.timeline, lsn: formatLsn(gap.begins) } };

/** Can this node become the primary? By its own last report. */
export function decideTarget(target: NodeRow | undefined, to: string): Refused | undefined {
  if (target === undefined)
    return refuse('refused', `no node ${to} is known to this cluster`, `'walvault status' lists the nodes`);
  if (target.role !== 'standby')
    return refuse(
      'refused',
      `${to} is not a standby (its last report says: ${target.role}${target.trouble === null ? '' : `; ${target.trouble}`})`,
      `start it as a standby first`,
    );
  if (!target.consistent)
    return refuse(
      'refused',
      `${to} has not reached the end of its base backup yet`,
      `wait until 'walvault status' shows that it follows`,
    );
  if (target.trouble !== null)
    return refuse(
      'refused',
      `${to} is not in order: ${target.trouble}`,
      `choose another node, or re-create it with 'walvault standby create'`,
    );
  return undefined;
}

function decideActive(control: Control): Refused | undefined {
  return control.role === 'active'
    ? undefined
    : refuse('refused', `this vault is a ${control.role}, not active`, `name the active vault with --vault`);
}

export function decidePending(
  promotion: Promotion | null,
  supersede: number | undefined,
): Refused | undefined {
  if (!isPending(promotion)) return undefined;
  if (supersede === promotion.epoch) return undefined;
  return refuse(
    'refused',
    `a promotion of ${promotion.node} is pending (epoch ${promotion.epoch}, ${promotion.state} since ${promotion.at})`,
    `wait for it, or give it up with --supersede ${promotion.epoch}`,
  );
}

/**
 * Why a node that has replayed up to `lsn` (exclusive) on `timeline` can follow the live branch no more; undefined: it can.
 * PostgreSQL says it only in its log, and asks on for ever.
 */
export function decideDiverged(lineage: Lineage, at: { timeline: number; lsn: Lsn }): string | undefined {
  const part = lineage.find((one) => one.timeline === at.timeline);
  if (part === undefined)
    return `replays timeline ${at.timeline}, which is not on the live branch: it has diverged`;
  if (part.ends === null || at.lsn <= part.ends) return undefined;
  return `is past ${formatLsn(part.ends)}, where timeline ${at.timeline} was left: it has diverged`;
}

/** Where the live branch ends: with its tail, where one lies beyond the last whole segment; null: nothing was archived. */
export function endOf(head: Head): Lsn | null {
  const tail = head.tail !== null && head.tail.timeline === head.timeline ? parseLsn(head.tail.lsn) : null;
  const lsn = head.lsn === null ? null : parseLsn(head.lsn);
  return tail !== null && (lsn === null || tail > lsn) ? tail : lsn;
}

export type SealRequest = { node: string; timeline: number; lsn: Lsn };

/**
 * Step 2, by the target: from here on PostgreSQL may be asked to promote, and only up to `lsn` on `timeline`.
 * A seal that stands already is answered as it is: the node must go by that one.
 */
export function decideSeal(
  control: Control,
  head: Head,
  lineage: Lineage,
  request: SealRequest,
): { do: 'seal'; head: Head; promotion: Promotion } | { do: 'sealed'; promotion: Promotion } | Refused {
  const promotion = head.promotion;
  if (
    promotion === null ||
    promotion.node !== request.node ||
    promotion.epoch !== control.epoch ||
    control.primary !== request.node
  ) {
    return refuse(
      'fenced',
      `no promotion of ${request.node} is asked for: epoch ${control.epoch} names ${control.primary ?? 'nobody'}`,
    );
  }
  if (promotion.state !== 'triggered') return { do: 'sealed', promotion };
  const diverged = decideDiverged(lineage, request);
  if (diverged !== undefined) return refuse('refused', `${request.node} ${diverged}`);
  const { upTo } = promotion;
  const end = upTo === undefined ? endOf(head) : parseLsn(upTo.lsn);
  const timeline = upTo?.timeline ?? head.timeline;
  if (promotion.mode === 'smart' && (request.timeline !== timeline || (end !== null && request.lsn < end))) {
    return refuse(
      'refused',
      `${request.node} is at ${formatLsn(request.lsn)} on timeline ${request.timeline}, the vault ends at ${end === null ? 'its beginning' : formatLsn(end)} on timeline ${timeline}`,
    );
  }
  const reserved = head.lastTimeline + 1;
  const sealed: Promotion = {
    ...promotion,
    state: 'sealed',
    timeline: request.timeline,
    lsn: formatLsn(request.lsn),
    reserved,
  };
  return {
    do: 'seal',
    promotion: sealed,
    head: { ...head, rev: head.rev + 1, lastTimeline: reserved, promotion: sealed },
  };
}

export type OpenRequest = {
  node: string;
  place: string;
  nonce: string;
  /** The timeline that PostgreSQL took, and the ancestors its history file names. */
  timeline: number;
  ancestors: HistoryEntry[];
  /** Segments of the parent that this node streamed and the dead primary never archived; their rows go with the open. */
  fills?: readonly string[];
  /** Of the lease that begins with this open. */
  leaseMs?: number | undefined;
};

/**
 * The segments of the parent between the vault's end and the fork: a node that also streamed has replayed them, nobody ever archived
 * them (PostgreSQL marks streamed segments done). Without their rows the live branch would have a hole.
 */
export function missingBefore(head: Head, lineage: Lineage, fork: Lsn, segmentSize: number): string[] {
  if (head.lsn === null) return [];
  const names: string[] = [];
  for (const name of segmentsFrom(lineage, parseLsn(head.lsn), segmentSize)) {
    if (segmentEnd(name, segmentSize) > fork) return names;
    names.push(name);
  }
  return names;
}

/** Step 3, by whoever comes first on the target: the new timeline is the live one. Proven by the node's own history file. */
export function decideOpen(
  control: Control,
  head: Head,
  lineage: Lineage,
  request: OpenRequest,
  segmentSize: number,
):
  | { do: 'open'; head: Head; fork: Lsn; parent: number; forkSegmentWhole: boolean }
  | { do: 'already' }
  | Refused {
  const { node, timeline, leaseMs } = request;
  const promotion = head.promotion;
  if (control.primary !== node)
    return refuse(
      'fenced',
      `epoch ${control.epoch} names ${control.primary ?? 'nobody'}, not ${node}`,
      `make this server a standby again`,
    );
  if (promotion === null || promotion.node !== node || promotion.epoch !== control.epoch) {
    return refuse(
      'fenced',
      `no promotion of ${node} is asked for in epoch ${control.epoch}`,
      `if it was promoted by hand, run 'walvault claim' here`,
    );
  }
  if (promotion.state === 'open') {
    return head.timeline === timeline || promotion.reserved === timeline
      ? { do: 'already' }
      : refuse(
          'fenced',
          `${node} opened timeline ${head.timeline}, not ${timeline}, in epoch ${control.epoch}`,
        );
  }
  if (promotion.state !== 'sealed') {
    return refuse(
      'fenced',
      `${node} opened timeline ${timeline} before its promotion was sealed`,
      `run 'walvault claim' here if it shall be the primary`,
    );
  }
  if (promotion.reserved !== timeline) {
    return refuse(
      'fenced',
      `${node} took timeline ${timeline}, but ${promotion.reserved} was reserved for it`,
      `re-create this node: its timeline number may be another's`,
    );
  }
  const checked = checkAncestors(request.ancestors, lineage);
  if (checked.do === 'refuse') return checked;
  const { parent, fork } = checked;
  const consumed = parseLsn(promotion.lsn ?? '0/0');
  if (parent !== promotion.timeline) {
    return refuse(
      'fenced',
      `${node} forked from timeline ${parent} at ${formatLsn(fork)}, sealed was ${promotion.timeline} at ${promotion.lsn}`,
    );
  }
  const lacking = missingBefore(head, lineage, fork, segmentSize).filter(
    (name) => !(request.fills ?? []).includes(name),
  );
  if (lacking.length > 0) {
    return refuse(
      'hole',
      `${node} forked at ${formatLsn(fork)}, the vault ends at ${head.lsn}: ${lacking[0]} was never archived`,
      `bring ${lacking.length} segment(s) from the pg_wal of the old primary by 'walvault salvage' there, or re-create this node`,
    );
  }
  const size = BigInt(segmentSize);
  const forkSegmentEnd = fork % size === 0n ? fork : (fork / size + 1n) * size;
  return {
    do: 'open',
    fork,
    parent,
    // With a tail that ends at the fork the parent's segment is served as that tail: nothing is in it past the fork.
    forkSegmentWhole:
      consumed >= forkSegmentEnd || (head.tail?.timeline === parent && parseLsn(head.tail.lsn) === fork),
    head: openHead(
      head,
      request,
      fork,
      { ...promotion, state: 'open', ...(leaseMs === undefined ? {} : { leaseMs }) },
      control.epoch,
    ),
  };
}

function openHead(head: Head, request: OpenRequest, fork: Lsn, promotion: Promotion, epoch: number): Head {
  return {
    ...head,
    rev: head.rev + 1,
    epoch,
    timeline: request.timeline,
    lsn: formatLsn(fork),
    // left before the vault's own beginning (with the first segments in a gap): it begins where this branch does
    firstLsn: head.firstLsn === null || parseLsn(head.firstLsn) > fork ? formatLsn(fork) : head.firstLsn,
    lastTimeline: Math.max(head.lastTimeline, request.timeline),
    writer: { node: request.node, nonce: request.nonce, place: request.place },
    promotion,
    flush: null,
    tail: null,
  };
}

const leastLsn = (lsns: Lsn[]): Lsn => lsns.reduce((least, lsn) => (lsn < least ? lsn : least));

/** The history a node brings must tell the same story as the vault up to its own fork. */
export function checkAncestors(
  ancestors: HistoryEntry[],
  lineage: Lineage,
): { do: 'agree'; parent: number; fork: Lsn } | Refused {
  const last = ancestors.at(-1);
  if (last === undefined) return refuse('fenced', `the history file names no parent timeline`);
  const fork = last.forkLsn;
  for (const [index, entry] of ancestors.entries()) {
    const known = lineage[index];
    // Forks need not ascend (a recovery along timeline 2 that stopped before the fork of 2): what counts is the stretch that is left.
    const ends = leastLsn(ancestors.slice(index).map(({ forkLsn }) => forkLsn));
    const stretchAgrees =
      known !== undefined &&
      (known.ends === null ? index === ancestors.length - 1 : ends === leastLsn([known.ends, fork]));
    if (known?.timeline !== entry.timeline || !stretchAgrees) {
      return refuse(
        'fenced',
        `its history (timeline ${entry.timeline} left at ${formatLsn(entry.forkLsn)}) is not that of the vault`,
        `this server has diverged; re-create it as a standby`,
      );
    }
  }
  return { do: 'agree', parent: last.timeline, fork };
}

export type ClaimRequest = OpenRequest & { id: string; at: string; supersede?: number };

/**
 * `claim`: the trigger for a node that is open already. On the live timeline (a copy or a set-back primary to be confirmed) it is one
 * step; with a timeline of its own (promoted by hand) it is trigger and seal in one, and `open` follows, proven by its history.
 */
export function decideClaim(
  control: Control,
  head: Head,
  lineage: Lineage,
  request: ClaimRequest,
): { do: 'claim'; control: Control; head: Head; then: 'open' | 'nothing' } | Refused {
  const active = decideActive(control);
  if (active) return active;
  const { node, timeline, nonce, place } = request;
  // A node whose own promotion is pending may claim over it; another's must be named.
  const pending =
    head.promotion !== null && head.promotion.node === node
      ? undefined
      : decidePending(head.promotion, request.supersede);
  if (pending) return pending;
  const epoch = control.epoch + 1;
  const nextControl: Control = {
    ...control,
    rev: control.rev + 1,
    epoch,
    reign: epoch,
    primary: node,
    trigger: null,
  };
  const base = { id: request.id, epoch, node, mode: 'claim' as const, at: request.at };
  if (timeline === head.timeline) {
    const promotion: Promotion = { ...base, state: 'open', timeline, reserved: timeline };
    return {
      do: 'claim',
      then: 'nothing',
      control: nextControl,
      head: { ...head, rev: head.rev + 1, epoch, flush: null, writer: { node, nonce, place }, promotion },
    };
  }
  const mine =
    head.promotion !== null && head.promotion.node === node && head.promotion.reserved === timeline;
  if (timeline <= head.lastTimeline && !mine) {
    return refuse(
      'refused',
      `timeline ${timeline} is used or reserved already (the highest number is ${head.lastTimeline})`,
      `this server took a number that belongs to another; re-create it as a standby`,
    );
  }
  const checked = checkAncestors(request.ancestors, lineage);
  if (checked.do === 'refuse') return checked;
  const promotion: Promotion = {
    ...base,
    state: 'sealed',
    timeline: checked.parent,
    lsn: formatLsn(checked.fork),
    reserved: timeline,
  };
  return {
    do: 'claim',
    then: 'open',
    control: nextControl,
    head: {
      ...head,
      rev: head.rev + 1,
      epoch,
      flush: null,
      lastTimeline: Math.max(head.lastTimeline, timeline),
      promotion,
    },
  };
}
