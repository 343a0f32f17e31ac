/**
 * What a relay may do between two vaults: carry rows, take facts along, make the target a replica again, or nothing.
 *
 * The target is read before the source, so that a source which goes on is never taken for one that lags behind its replica. What is
 * decided here is a condition of each transaction in the target (control and head by their revisions), never only looked at before.
 *
 * Pure. docs/design.md, "Two vaults"; the rules were explored in a model of relay, spill and disaster.
 */
import type { FailureCode } from '../errors.ts';
import { parseLsn } from '../wal/lsn.ts';
import type { Lineage } from '../wal/lineage.ts';
import type { Control, Head } from './facts.ts';

/** One of the two vaults, as it was read. */
export type Side = {
  /** As this relay reaches it. */
  url: string;
  control: Control;
  head: Head;
  /** Of head.timeline. */
  lineage: Lineage;
  /** Text of the history of each timeline of the lineage that has one. */
  histories: ReadonlyMap<number, string>;
};

export type RelayDecision =
  /** Rows may go; `control` is the target's with the source's facts, undefined where it has them. */
  | { do: 'relay'; control: Control | undefined }
  /** The target holds a branch that the source does not know, of an older epoch: it is set aside first. */
  | { do: 'converge' }
  /** Source and target have changed roles: rows go the other way now. */
  | { do: 'turn'; message: string }
  | { do: 'refuse'; code: FailureCode; message: string; hint?: string };

const refuse = (code: FailureCode, message: string, hint?: string): RelayDecision => ({
  do: 'refuse',
  code,
  message,
  hint,
});

export function decideRelay(source: Side, target: Side): RelayDecision {
  const [from, to] = [source.control, target.control];
  if (from.vaultId === to.vaultId) {
    return refuse(
      'usage',
      `${source.url} and ${target.url} are the same vault`,
      `name two vaults with --from and --to`,
    );
  }
  if (from.systemIdentifier !== to.systemIdentifier || from.segmentSize !== to.segmentSize) {
    return refuse(
      'refused',
      `${source.url} holds system identifier ${from.systemIdentifier}, ${target.url} holds ${to.systemIdentifier}: not the same database`,
      `relay into an empty vault, or under another --cluster name`,
    );
  }
  if (to.role === 'active') return decideActiveTarget(source, target);
  if (from.role === 'converging') {
    return refuse(
      'busy',
      `${source.url} is being made a replica, it is no source yet`,
      `try again in a minute`,
    );
  }
  if (to.role === 'converging') {
    return from.role === 'active' || to.source?.id === from.vaultId
      ? { do: 'converge' }
      : refuse(
          'busy',
          `${target.url} is being made a replica of ${to.source?.url ?? 'another vault'}`,
          `try again in a minute`,
        );
  }
  if (from.role === 'replica' && from.supersededBy?.id !== to.vaultId && from.source?.id === to.vaultId) {
    return refuse(
      'refused',
      `${source.url} is a replica of ${target.url}: neither of the two is active`,
      `name the active vault with --from`,
    );
  }
  if (to.epoch > from.epoch) {
    return refuse(
      'fenced',
      `${target.url} is at epoch ${to.epoch}, newer than epoch ${from.epoch} of ${source.url}`,
      `a trigger has fenced ${target.url} and did not come to its end: run it again; 'walvault status' of both vaults shows where they stand`,
    );
  }
  const other = branchesDiffer(source, target);
  if (other !== undefined) {
    return from.epoch > to.epoch
      ? { do: 'converge' }
      : refuse(
          'conflict',
          `${other}; both are at epoch ${to.epoch}`,
          `two primaries wrote, or a vault was set back: find out which is true before anything is removed`,
        );
  }
  const control = carried(source, target);
  return { do: 'relay', control };
}

/** Two active vaults know of each other by `supersedes`, or not at all; epochs of two vaults that did not meet prove nothing. */
function decideActiveTarget(source: Side, target: Side): RelayDecision {
  const [from, to] = [source.control, target.control];
  if (from.role === 'active') {
    if (from.supersedes?.id === to.vaultId) return { do: 'converge' };
    if (to.supersedes?.id === from.vaultId) {
      return {
        do: 'turn',
        message: `${target.url} took the place of ${source.url} at epoch ${to.epoch}: rows go the other way now`,
      };
    }
    return refuse(
      'refused',
      `${source.url} and ${target.url} are both active, and neither says that it took the other's place`,
      `these are two clusters under one name, or one of them was set back`,
    );
  }
  return {
    do: 'turn',
    message: `${target.url} is the active vault (epoch ${to.epoch}), ${source.url} is a ${from.role}: rows go the other way now`,
  };
}

/** What the target holds and the source does not know, in words; undefined: the target is behind the source, or level. */
function branchesDiffer(source: Side, target: Side): string | undefined {
  for (const { timeline } of target.lineage) {
    const known = source.lineage.find((part) => part.timeline === timeline);
    if (known === undefined)
      return `${target.url} is on timeline ${timeline}, which is not on the live branch of ${source.url}`;
    const [mine, theirs] = [source.histories.get(timeline), target.histories.get(timeline)];
    if (theirs !== undefined && mine !== theirs)
      return `timeline ${timeline} of ${target.url} has another history than that of ${source.url}`;
  }
  const part = source.lineage.find(({ timeline }) => timeline === target.head.timeline);
  const end = target.head.lsn;
  // At a fork the target may be past it: what a fast promotion left behind came from the source itself.
  if (part?.ends !== null || end === null) return undefined;
  if (source.head.lsn === null || parseLsn(end) > parseLsn(source.head.lsn))
    return `${target.url} ends at ${end} on timeline ${target.head.timeline}, past ${source.head.lsn ?? 'nothing'} of ${source.url}`;
  return undefined;
}

/** The target's control row with the source's facts; undefined where nothing would change. */
function carried(source: Side, target: Side): Control | undefined {
  const [from, to] = [source.control, target.control];
  const { epoch, reign, primary, archiving, archivingAt, majorVersion, trigger, direct } = from;
  // A relay from another replica (a chain) does not take the place of one that comes from the active vault itself.
  const here = { id: from.vaultId, url: source.url };
  const origin = to.source === null || from.role === 'active' ? here : to.source;
  const next: Control = {
    ...to,
    ...{ epoch, reign, primary, archiving, majorVersion, trigger },
    ...(archivingAt === undefined ? {} : { archivingAt }),
    direct: direct?.id === to.vaultId ? direct : null,
    source: origin,
  };
  return JSON.stringify(next) === JSON.stringify(to) ? undefined : { ...next, rev: to.rev + 1 };
}
