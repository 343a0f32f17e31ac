/** What a person is told when a replica takes the place of the active vault: before it, on the way, and where it is refused. */
import { VaultError } from '../core/errors.ts';
import type { RelayRow, Spill, TriggerMode } from '../core/cluster/facts.ts';
import type { PeerLook } from '../core/work/peer.ts';
import type { TakeOverStep } from '../core/work/takeover.ts';
import { relayStepWords } from './commands/relay.ts';
import { formatAge, formatBytes, formatCount, formatDuration } from './ui/format.ts';

export type TakeOverFacts = {
  mode: TriggerMode;
  to: string;
  /** The replica, and the vault whose place it takes, as they are called. */
  replica: string;
  source: string;
  /** As the replica knows it. */
  primary: string | null;
  spill: Spill | null;
  heard: RelayRow | undefined;
};

/** How far the replica is, as its relay said last: all that is known when the source is silent. */
export function heardInWords(heard: RelayRow | undefined, nowMs: number): string {
  if (heard === undefined) return 'no relay from there was ever heard of';
  const lag =
    heard.rows === 0
      ? 'with nothing behind then'
      : `then ${formatCount(heard.rows, 'row')} (${formatBytes(heard.bytes)}) and ${formatDuration(heard.seconds * 1000)} behind`;
  return `last heard of ${formatAge(heard.at, nowMs)} (${heard.at}), up to ${heard.lsn ?? 'nothing'}, ${lag}`;
}

/** What will be done, for confirm(). */
export function takeOverConsequences(facts: TakeOverFacts, look: PeerLook, nowMs: number): string[] {
  const { mode, to, replica, source, spill, heard } = facts;
  const primary = (look.answers ? look.control.primary : facts.primary) ?? 'whoever is primary there';
  const last = [
    `make ${replica} the active vault, at a higher epoch`,
    mode === 'smart'
      ? `promote ${to} once it has replayed everything that is in ${replica} then`
      : `promote ${to} with what it has replayed by now, even where more is there`,
  ];
  if (look.answers) {
    const lag = look.plan?.lag;
    const rows =
      lag === undefined
        ? 'what is not here yet'
        : `${formatCount(lag.rows, 'row')} (${formatBytes(lag.bytes)}) that are not here yet`;
    return [
      `fence ${primary}: it can archive nothing more into ${look.url}, which becomes a replica`,
      `carry over ${rows}, from ${look.url} to ${replica}`,
      ...last,
      `leave behind what ${primary} has not archived yet (its pg_wal keeps it)`,
    ];
  }
  return [
    `go on without ${source}, which does not answer: ${look.why}`,
    `lose what was not relayed: ${heardInWords(heard, nowMs)}`,
    `leave ${primary} UNFENCED: where it runs it goes on, until a relay or ${to}'s agent reaches ${source}; what it wrote is then set aside`,
    ...(spill === null
      ? []
      : [`take over ${formatCount(spill.files, 'file')} that ${spill.writer.node} spilled here`]),
    ...last,
  ];
}

/** The other vault is silent and nobody said that it may be left behind. */
export function refuseSilent(facts: TakeOverFacts, why: string, nowMs: number): VaultError {
  const { source, heard, spill } = facts;
  const spilled =
    spill === null
      ? ''
      : ` ${formatCount(spill.files, 'file')} that ${spill.writer.node} spilled here, up to ${spill.lsn}, would be taken over.`;
  return new VaultError('refused', `${source}, the vault that is active so far, does not answer: ${why}`, {
    hint: [
      `Of ${source}: ${heardInWords(heard, nowMs)}. What was not relayed may be lost.${spilled}`,
      `Its primary ${facts.primary ?? ''} cannot be fenced now: where it runs it goes on writing there, until the new primary's sweep reaches that vault; what it wrote is then set aside.`.replace(
        '  ',
        ' ',
      ),
      `If that region is lost, or its primary is certainly down: the same command with --unfenced. Where this machine reaches it by another URL: --peer URL.`,
    ].join('\n      '),
  });
}

/** One line a step. */
export function takeOverWords(
  step: TakeOverStep,
  facts: Pick<TakeOverFacts, 'source' | 'replica' | 'to'>,
): string {
  switch (step.step) {
    case 'silent':
      return `${facts.source} does not answer: ${step.why}`;
    case 'fenced':
      return step.already
        ? `${facts.source} was fenced before, at epoch ${step.epoch}`
        : `fenced: ${facts.source} takes nothing more, epoch ${step.epoch}`;
    case 'lease':
      return `${step.node} had a lease: its word that it has stopped is waited for, ${formatDuration(step.ms)} at most (--primary-down: not)`;
    case 'carried':
      return `everything of ${facts.source} is in ${facts.replica}: ${formatCount(step.rows, 'row')} came now`;
    case 'adopted':
      return `${formatCount(step.files, 'spilled file')} taken over`;
    case 'active':
      return `${facts.replica} is active: epoch ${step.epoch} names ${facts.to}`;
    default:
      return relayStepWords(step);
  }
}
