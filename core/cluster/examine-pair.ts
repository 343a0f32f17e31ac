/**
 * What is right and what is wrong with two vaults of one cluster, as findings that a person can act on.
 *
 * Pure; core/work/doctor-pair.ts reads the vaults. Ages are by this machine's clock, which is why none of them is worse than 'warn'.
 */
import { parseLsn } from '../wal/lsn.ts';
import type { Side } from './decide-relay.ts';
import { isStale } from './decide-spill.ts';
import type { RelayRow } from './facts.ts';
import type { Finding } from './finding.ts';

/** A vault as it was read, with what relays said in it. */
export type Patient = Side & {
  /** How long open and reads took, ms. */
  tookMs: number;
  relays: readonly RelayRow[];
};

/** A vault that takes longer makes each commit of its relay slow, ms. */
const SLOW_MS = 2000;
/** A relay that follows says a word each second; one that is started by a timer, each few minutes. In ms. */
const SILENT_AFTER_MS = 5 * 60_000;
/** What waits longer than this in an active vault does so for a reason, in s. */
const LAG_SECONDS = 5 * 60;

export function examineReach(patient: Patient): Finding {
  const { url, tookMs, control } = patient;
  const says = `${url} answers in ${tookMs} ms: ${control.role}, epoch ${control.epoch}, primary ${control.primary ?? 'none'}`;
  return tookMs <= SLOW_MS
    ? { what: 'reach', state: 'ok', says }
    : {
        ...{ what: 'reach', state: 'warn', says: `${says}; that is slow` },
        fix: 'look at the network between here and there',
      };
}

/** One of all is active, and every other one follows. `unreached`: how many could not be looked at. */
export function examineRoles(patients: readonly Patient[], unreached: number): Finding {
  const active = patients.filter(({ control }) => control.role === 'active');
  const [one, two] = active;
  if (one === undefined) {
    const bad = unreached === 0;
    return {
      ...{ what: 'roles', state: bad ? 'bad' : 'warn' },
      says: bad ? 'no vault is active: nothing can be archived' : 'no vault that was reached is active',
      fix: bad
        ? `make the vault whose standby holds most the active one: 'walvault trigger smart --to NODE --vault URL'`
        : `the active one may be among those that were not reached`,
    };
  }
  if (two === undefined) {
    const { supersedes } = one.control;
    if (supersedes === null) return { what: 'roles', state: 'ok', says: `${one.url} is the active vault` };
    return {
      ...{ what: 'roles', state: 'warn' },
      says: `${one.url} is the active vault; ${supersedes.url}, whose place it took at epoch ${supersedes.sinceEpoch}, does not know it yet`,
      fix: `once ${supersedes.url} answers: walvault relay --from '${one.url}' --to '${supersedes.url}'`,
    };
  }
  const winner = active.find((each) =>
    active.some((other) => each.control.supersedes?.id === other.control.vaultId),
  );
  if (winner !== undefined) {
    const loser = active.find((other) => other.control.vaultId === winner.control.supersedes?.id) ?? two;
    return {
      ...{ what: 'roles', state: 'bad' },
      says: `${loser.url} still takes archives, though ${winner.url} took its place at epoch ${winner.control.epoch}: what a primary there writes is not part of the live branch`,
      fix: `walvault relay --from '${winner.url}' --to '${loser.url}'`,
    };
  }
  return {
    ...{ what: 'roles', state: 'bad' },
    says: `${active.map(({ url }) => url).join(' and ')} are all active, and none says that it took the place of another`,
    fix: 'these are two clusters under one name, or one of them was set back: find out which is true before anything is changed',
  };
}

/** What the source has and the target has not, now; a relay that is dead tells it by itself no more. `seconds`: age of the oldest. */
type Lag = Pick<RelayRow, 'rows' | 'seconds'>;

/** A vault and one that follows it (`target.control.source`). @param now  for ages */
export function examinePair(source: Patient, target: Patient, lag: Lag, now: Date): Finding[] {
  const database = examineDatabase(source, target);
  if (database.state === 'bad') return [database];
  return [
    database,
    examineEpochs(source, target),
    ...examineBranch(source, target),
    examineRelay(source, target, lag, now),
    ...examineSpills(source, target),
    ...examineArmed(source, target),
  ];
}

function examineDatabase(source: Patient, target: Patient): Finding {
  const [from, to] = [source.control, target.control];
  const what = 'database';
  if (from.systemIdentifier !== to.systemIdentifier)
    return {
      ...{ what, state: 'bad' },
      says: `${source.url} holds system identifier ${from.systemIdentifier}, ${target.url} holds ${to.systemIdentifier}`,
      fix: 'one of them is the vault of another database: relay into an empty vault',
    };
  if (from.segmentSize !== to.segmentSize)
    return {
      ...{ what, state: 'bad' },
      says: `segments have ${from.segmentSize} bytes in ${source.url} and ${to.segmentSize} in ${target.url}`,
      fix: 'relay into an empty vault',
    };
  return {
    ...{ what, state: 'ok' },
    says: `both hold system identifier ${from.systemIdentifier}, segments of ${from.segmentSize} bytes`,
  };
}

function examineEpochs(source: Patient, target: Patient): Finding {
  const [from, to] = [source.control, target.control];
  const what = 'epochs';
  if (to.epoch > from.epoch)
    return {
      ...{ what, state: 'bad' },
      says: `${target.url} is at epoch ${to.epoch}, newer than epoch ${from.epoch} of ${source.url}`,
      fix: `a trigger has fenced it and did not come to its end: run 'walvault trigger' again as it was`,
    };
  if (to.epoch < from.epoch || to.primary !== from.primary)
    return {
      ...{ what, state: 'warn' },
      says: `${target.url} is at epoch ${to.epoch} (primary ${to.primary ?? 'none'}), ${source.url} at epoch ${from.epoch} (primary ${from.primary ?? 'none'})`,
      fix: `a relay takes it along: walvault relay --from '${source.url}' --to '${target.url}'`,
    };
  return {
    ...{ what, state: 'ok' },
    says: `both are at epoch ${to.epoch}, primary ${to.primary ?? 'none'}`,
  };
}

/** The follower is on the same branch, and not past its source. */
function examineBranch(source: Patient, target: Patient): Finding[] {
  const findings: Finding[] = [];
  const strange = target.lineage.filter(({ timeline }) => {
    const [mine, theirs] = [source.histories.get(timeline), target.histories.get(timeline)];
    return (
      !source.lineage.some((part) => part.timeline === timeline) || (theirs !== undefined && mine !== theirs)
    );
  });
  const timelines = strange.map(({ timeline }) => timeline).join(', ');
  findings.push(
    strange.length === 0
      ? { what: 'histories', state: 'ok', says: `the timelines of ${target.url} are those of ${source.url}` }
      : {
          ...{ what: 'histories', state: 'bad' },
          says: `timeline ${timelines} of ${target.url} is not that of ${source.url}`,
          fix: `two primaries wrote, or a vault was set back: find out which branch is the live one before anything is removed`,
        },
  );
  const [mine, theirs] = [source.head, target.head];
  const isPast =
    mine.timeline === theirs.timeline &&
    theirs.lsn !== null &&
    (mine.lsn === null || parseLsn(theirs.lsn) > parseLsn(mine.lsn));
  findings.push(
    isPast
      ? {
          ...{ what: 'heads', state: 'bad' },
          says: `${target.url} ends at ${theirs.lsn} on timeline ${theirs.timeline}, past ${mine.lsn ?? 'nothing'} of ${source.url}`,
          fix: `${source.url} was set back, or lost rows: what is missing there is in ${target.url}`,
        }
      : {
          ...{ what: 'heads', state: 'ok' },
          says: `${target.url} ends at ${theirs.lsn ?? 'nothing'} on timeline ${theirs.timeline}, ${source.url} at ${mine.lsn ?? 'nothing'} on timeline ${mine.timeline}`,
        },
  );
  return findings;
}

function examineRelay(source: Patient, target: Patient, lag: Lag, now: Date): Finding {
  const what = 'relay';
  const command = `walvault relay --from '${source.url}' --to '${target.url}' --follow`;
  const row = target.relays.find(
    ({ direction, vault }) => direction === 'from' && vault.id === source.control.vaultId,
  );
  if (row === undefined)
    return { ...{ what, state: 'bad' }, says: `no relay from ${source.url} was ever heard of`, fix: command };
  if (row.trouble !== null)
    return { ...{ what, state: 'bad' }, says: `it does not get on: ${row.trouble}`, fix: command };
  const behind = lag.rows === 0 ? 'nothing' : lag.rows === 1 ? '1 row' : `${lag.rows} rows`;
  const silentMs = now.getTime() - Date.parse(row.at);
  if (silentMs > SILENT_AFTER_MS)
    return {
      ...{ what, state: 'warn' },
      says: `not heard of for ${Math.round(silentMs / 60_000)} min (last at ${row.at}), ${behind} behind`,
      fix: `does it still run? ${command}`,
    };
  if (lag.seconds > LAG_SECONDS)
    return {
      ...{ what, state: 'warn' },
      says: `${behind} behind, the oldest of them for ${Math.round(lag.seconds / 60)} min`,
      fix: 'it gets on, but slower than the primary writes: look at the network between the vaults',
    };
  return {
    ...{ what, state: 'ok' },
    says: `heard of at ${row.at}, ${behind} behind`,
  };
}

function examineSpills(source: Patient, target: Patient): Finding[] {
  const { spill } = target.head;
  const what = 'spills';
  if (spill === null) return [];
  const files = `${spill.files} file${spill.files === 1 ? '' : 's'} of ${spill.writer.node}, up to ${spill.lsn}`;
  if (isStale(source.control, spill))
    return [
      {
        ...{ what, state: 'warn' },
        says: `${files}, were spilled in epoch ${spill.epoch}, which is over: they will be kept aside, not served`,
        fix: `once the relay has done so: walvault salvage --list --vault '${target.url}'`,
      },
    ];
  return [
    {
      ...{ what, state: 'warn' },
      says: `${files}, wait in ${target.url} since ${spill.at} until ${source.url} has taken them over`,
      fix: 'the relay does it; does the primary reach its vault again?',
    },
  ];
}

/** Armed in one vault alone is not armed: the primary could not spill, or a trigger would not fence both. */
function examineArmed(source: Patient, target: Patient): Finding[] {
  const { vaultId } = target.control;
  const inSource = source.control.direct?.id === vaultId;
  const inTarget = target.control.direct?.id === vaultId;
  const what = 'armed';
  if (!inSource && !inTarget) return [];
  if (inSource && inTarget)
    return [{ what, state: 'ok', says: `the primary may spill to ${target.url}: both vaults say so` }];
  return [
    {
      ...{ what, state: 'warn' },
      says: inSource
        ? `${source.url} lets the primary spill to ${target.url}, which does not know it yet: it would refuse`
        : `${target.url} takes spills, but ${source.url} does not say so any more`,
      fix: `a relay takes it along: walvault relay --from '${source.url}' --to '${target.url}'`,
    },
  ];
}
