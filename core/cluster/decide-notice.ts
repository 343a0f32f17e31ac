/**
 * Which events are told to people, and in what words. One message for each fact: what a replica's manifest repeats is told by the vault
 * where it happened, and what is written down again and again (a conflict, by each pass of a relay) once a day.
 *
 * Pure.
 */
import { createHash } from 'node:crypto';
import type { EventKind } from './event-kinds.ts';
import type { Control, EventRow } from './facts.ts';
import { composeNotice, type Notice, type Urgency } from './notice.ts';

type Told = {
  urgency: Urgency;
  title: string;
  means: string;
  todo: string;
  page: string;
  /** Written into both vaults, or meant for one of them: told by the active vault, or by one that is not. */
  by?: 'active' | 'other';
  /** burst: many of one node and epoch within an hour are one fact. day: the same words within a day are. */
  once?: 'burst' | 'day';
};
type Rule = Told | { tell: false; why: string };

const untold = (why: string): Rule => ({ tell: false, why });

const RULES: { readonly [K in EventKind]: Rule } = {
  init: {
    ...{ urgency: 'info', title: 'a cluster was made' },
    means: 'The vault takes its WAL from now on.',
    todo: `Take the first base backup: 'walvault backup' on the primary.`,
    page: 'README.md',
  },
  replica: {
    ...{ urgency: 'info', title: 'a vault was made a replica' },
    means: 'A relay brings it what the other vault takes.',
    todo: `Nothing. 'walvault status' shows how far it is.`,
    page: 'replacing-a-vault.md',
  },
  forget: {
    ...{ urgency: 'info', title: 'a vault is no more one of this cluster' },
    means: 'Nothing is relayed to it, and retention keeps nothing for it.',
    todo: 'Nothing, if it was meant.',
    page: 'replacing-a-vault.md',
  },
  arm: {
    ...{ urgency: 'info', title: 'the replica was armed' },
    means:
      'The primary archives there while its own vault is out of reach; a trigger has to fence both vaults.',
    todo: 'Nothing.',
    page: 'disaster-recovery.md',
  },
  disarm: {
    ...{ urgency: 'info', title: 'the replica is armed no more' },
    means: 'While its vault is out of reach the primary keeps its WAL in pg_wal.',
    todo: `Nothing, if it was meant; else 'walvault configure primary' with dr_vault.`,
    page: 'disaster-recovery.md',
  },
  'node-add': {
    ...{ urgency: 'info', title: 'a node was added' },
    means: 'It is expected; it holds no WAL until it reports.',
    todo: `Run on it what 'walvault node add' printed.`,
    page: 'adding-and-dropping-a-node.md',
  },
  'node-drop': {
    ...{ urgency: 'info', title: 'a node was dropped' },
    means: 'No WAL is kept for it any more.',
    todo: 'Nothing, if it was meant.',
    page: 'adding-and-dropping-a-node.md',
  },
  trigger: {
    ...{ urgency: 'alert', title: 'a trigger was set' },
    means: 'The primary that was can archive nothing more. The named standby is about to become the primary.',
    todo: `Watch 'walvault status' until the promotion is open; a message says so. Keep clients off the old primary.`,
    page: 'failover.md',
  },
  seal: untold('a step between trigger and open'),
  open: {
    ...{ urgency: 'warning', title: 'a new primary is open' },
    means: 'This node takes writes and archives on its own timeline.',
    todo: `Lead clients to it. Make the old primary a standby: 'walvault rejoin' there.`,
    page: 'failover.md',
  },
  claim: {
    ...{ urgency: 'warning', title: 'a node claimed to be the primary' },
    means: 'It was open already, promoted by hand or a copy, and somebody decided that it is the primary.',
    todo: `See that no other server of this cluster is open: 'walvault status'. The old one: 'walvault rejoin'.`,
    page: 'old-primary-came-back.md',
  },
  upgrade: {
    ...{ urgency: 'warning', title: 'a new generation after pg_upgrade' },
    means: 'The old server archives nothing more, and its standbys and backups are of no use to the new one.',
    todo: `See that a base backup of the new one completes ('walvault backups'), and make its standbys anew: 'walvault standby create'.`,
    page: 'upgrading-postgresql.md',
  },
  detach: {
    ...{ urgency: 'info', title: 'a standby was opened for a test' },
    means: 'It follows no more, and never writes to this vault. There is one standby less to fail over to.',
    todo: `When the test is over make it anew: 'walvault standby create'.`,
    page: 'adding-and-dropping-a-node.md',
  },
  rejoin: {
    ...{ urgency: 'info', title: 'an old primary is a standby' },
    means: 'It follows the new primary. What it had not archived was salvaged before.',
    todo: `Nothing; 'walvault salvage --list' shows what was salvaged.`,
    page: 'old-primary-came-back.md',
  },
  flush: {
    ...{ urgency: 'warning', title: 'the primary was flushed and stopped' },
    means:
      'Everything is in the vault, nobody takes writes, and nothing can be archived until it is decided.',
    todo: `Trigger a standby ('walvault trigger smart'), or go back by 'walvault flush --undo' on the primary.`,
    page: 'planned-switchover.md',
  },
  undo: {
    ...{ urgency: 'info', title: 'a flush was taken back' },
    means: 'The primary goes on as before once its server is started.',
    todo: 'Start its server.',
    page: 'planned-switchover.md',
  },
  fence: {
    ...{ urgency: 'warning', title: 'the old primary was fenced in this vault' },
    means: 'A trigger, here or in the other vault, took the right to write from it.',
    todo: `Watch 'walvault status' of both vaults until the promotion is open. If none follows, run the same trigger again.`,
    page: 'disaster-recovery.md',
  },
  'lose-direct': {
    ...{ urgency: 'alert', title: 'a trigger did not wait for the armed replica' },
    means: 'What the old primary has spilled there, and spills on, will not be on the live branch.',
    todo: `When it answers again: 'walvault salvage --list' in both vaults.`,
    page: 'disaster-recovery.md',
  },
  fenced: {
    ...{ urgency: 'alert', title: 'an old primary was refused' },
    means:
      'A server that is no primary of this vault is open: whatever clients write there is followed by nobody.',
    todo: `Take its clients away and stop it, then 'walvault rejoin' there. If it was promoted by hand and shall be the primary: 'walvault claim'.`,
    page: 'old-primary-came-back.md',
    once: 'day',
  },
  copied: {
    ...{ urgency: 'alert', title: 'two servers write as one node' },
    means:
      'A machine was cloned, or set back to a snapshot. The vault goes on with the one, and refuses the other.',
    todo: `Find out which is the true one (the message names both places), stop the other. 'walvault claim' on the true one decides.`,
    page: 'old-primary-came-back.md',
    once: 'day',
  },
  refused: {
    ...{ urgency: 'alert', title: 'the primary was refused' },
    means: 'Its WAL stays in pg_wal until the reason is gone.',
    todo: `Look at 'walvault status' and 'walvault doctor'.`,
    page: 'failover.md',
    once: 'day',
  },
  'fenced-stop': {
    ...{ urgency: 'alert', title: 'a fenced server was stopped' },
    means: 'It ran as a primary though the epoch is over; on_fenced = "stop" has ended it.',
    todo: `Make it a standby: 'walvault rejoin' there.`,
    page: 'old-primary-came-back.md',
  },
  'lease-stop': {
    ...{ urgency: 'alert', title: 'a primary was stopped at the end of its lease' },
    means:
      'It could not have its epoch confirmed in time: a standby may take its place, so it must not go on.',
    todo: `Look why it did not reach the vault; then start it: 'walvault guard' lets it, where it is still the primary.`,
    page: 'primary-silent.md',
  },
  silent: {
    ...{ urgency: 'alert', title: 'the primary is silent' },
    means: 'A witness sees neither heartbeats nor WAL of it.',
    todo: `Look at it; 'walvault status' says what the witness would do, and whether it waits for a person.`,
    page: 'primary-silent.md',
  },
  heard: {
    ...{ urgency: 'info', title: 'the primary is heard again' },
    means: 'It was silent for a while, and nobody took its place.',
    todo: 'Look why.',
    page: 'primary-silent.md',
  },
  maintenance: {
    ...{ urgency: 'info', title: 'maintenance' },
    means: 'While it lasts no witness triggers.',
    todo: 'Nothing, if it was meant.',
    page: 'primary-silent.md',
  },
  on_role_change: {
    ...{ urgency: 'warning', title: 'on_role_change failed' },
    means:
      'The role has changed all the same; whatever the command leads about (addresses, clients) has not followed.',
    todo: 'Read on_role_change.log in the state directory of the node, and do by hand what the command should have done.',
    page: 'failover.md',
  },
  conflict: {
    ...{ urgency: 'alert', title: 'other bytes under one name' },
    means:
      'Two servers wrote as one, or a vault was set back. Nothing was changed, and nothing goes on there.',
    todo: `Find out which is true before anything is removed: 'walvault status' of both vaults.`,
    page: 'relay-broken.md',
    by: 'active',
    once: 'day',
  },
  ignored: untold('a file of no branch, as a broken promotion leaves it: nobody misses it'),
  'archiving-off': {
    ...{ urgency: 'alert', title: 'archiving was switched off' },
    means:
      'The vault has a hole from here on: no standby and no restore gets past it without a new base backup.',
    todo: `Switch it on again as soon as you can ('walvault archiving on'), then 'walvault backup'.`,
    page: 'README.md',
  },
  'archiving-on': {
    ...{ urgency: 'warning', title: 'archiving is on again' },
    means: 'WAL is kept again, behind the hole.',
    todo: `Take a base backup: 'walvault backup'. Standbys that stand before the hole are made anew.`,
    page: 'README.md',
  },
  gap: {
    ...{ urgency: 'alert', title: 'WAL is missing in the vault' },
    means: 'A segment was not archived. No standby and no restore gets past it.',
    todo: `When archiving is on: 'walvault backup', then make anew the standbys that stand before the hole.`,
    page: 'README.md',
    once: 'burst',
  },
  spill: {
    ...{ urgency: 'alert', title: 'the primary does not reach its vault' },
    means: 'It archives into the replica meanwhile. Nothing is lost; standbys of its own vault stand still.',
    todo: `See whether the vault's region is in trouble: 'walvault status' of both vaults.`,
    page: 'disaster-recovery.md',
  },
  home: {
    ...{ urgency: 'info', title: 'what was spilled came home' },
    means: 'The primary reaches its vault again, and nothing is missing there.',
    todo: 'Nothing.',
    page: 'disaster-recovery.md',
    once: 'burst',
  },
  adopt: {
    ...{ urgency: 'info', title: 'what was spilled is of the live branch' },
    means: 'The vault that took over has WAL that the lost one never got.',
    todo: 'Nothing.',
    page: 'disaster-recovery.md',
    once: 'burst',
  },
  salvage: {
    ...{ urgency: 'warning', title: 'WAL of a dead primary was saved' },
    means: 'What it had not archived, or spilled too late, is not lost.',
    todo: `'walvault salvage --list' shows what is not of the live branch.`,
    page: 'failover.md',
    once: 'burst',
  },
  aside: {
    ...{ urgency: 'warning', title: 'WAL was kept aside' },
    means: 'Commits that are not on the live branch: they are kept, and served to nobody.',
    todo: `'walvault salvage --list' shows all of it, 'walvault salvage --fetch' brings it to look into.`,
    page: 'old-primary-came-back.md',
    once: 'burst',
  },
  supersede: {
    ...{ urgency: 'alert', title: 'a vault took the place of another' },
    means:
      'This vault is to be the active one. What the other took and this one has not got is not on the live branch.',
    todo: `Watch 'walvault status' here until the promotion is open. When the other is back it becomes a replica by itself.`,
    page: 'disaster-recovery.md',
  },
  meeting: {
    ...{ urgency: 'warning', title: 'the vault that was lost is found' },
    means: 'It becomes a replica. What the active vault does not know of is set aside there.',
    todo: `'walvault salvage --list' in it shows what was lost; its nodes: 'walvault rejoin'.`,
    page: 'region-return.md',
    by: 'other',
  },
  converged: {
    ...{ urgency: 'info', title: 'a vault is a replica again' },
    means: 'A relay may bring it up to the active one.',
    todo: `See that the relay runs that way round: 'walvault doctor'.`,
    page: 'region-return.md',
  },
  superseded: untold('the vault itself tells that it is a replica (converged)'),
  epoch: untold('a relay repeats what the active vault has told'),
  timeline: untold('a relay repeats what the active vault has told'),
  lag: {
    ...{ urgency: 'warning', title: 'the replica is behind' },
    means: 'What a disaster would cost grows with each segment.',
    todo: `'walvault status' shows how far, 'walvault doctor' why.`,
    page: 'relay-broken.md',
    once: 'day',
  },
  backup: untold('as planned'),
  'backup-failed': {
    ...{ urgency: 'warning', title: 'a base backup failed' },
    means: 'The last complete one stays, and the WAL since it: a restore only takes longer.',
    todo: `Put right what it says, then 'walvault backup' again.`,
    page: 'README.md',
  },
  lease: {
    ...{ urgency: 'warning', title: 'a lease is over' },
    means:
      'A node or relay was silent for so long that retention keeps no WAL for it any more: it may have to be made anew.',
    todo: `If it is gone for good: 'walvault node drop'. Else bring it up at once.`,
    page: 'adding-and-dropping-a-node.md',
  },
  retention: untold('as planned, each day; the log of the function has it'),
  drill: {
    ...{ urgency: 'info', title: 'a drill has ended' },
    means: 'A restore was tried on purpose; what came of it stands above.',
    todo: 'Nothing, if it went well.',
    page: 'regular-switching-as-a-drill.md',
  },
};

/** A node that is newer than this function may write what it has no words for. */
const UNKNOWN: Told = {
  ...{ urgency: 'warning', title: 'something happened' },
  means: 'A newer walvault wrote this; the notify function has no words for it.',
  todo: `Deploy the stack of the newer version. 'walvault status' shows how things stand.`,
  page: 'README.md',
};

/** The vault whose manifest has the event. */
export type Teller = { cluster: string; vault: string; role: Control['role'] };

/** @returns undefined: not told */
export function decideNotice(event: EventRow, teller: Teller): Notice | undefined {
  const rule = Object.hasOwn(RULES, event.kind) ? RULES[event.kind] : UNKNOWN;
  if ('tell' in rule) return undefined;
  const { by, once, ...words } = rule;
  const isActive = teller.role === 'active';
  if (by !== undefined && (by === 'active') !== isActive) return undefined;
  const { kind, node, at, text } = event;
  const isFailedDrill = kind === 'drill' && /\bfail/i.test(text);
  return composeNotice({
    ...words,
    ...(isFailedDrill ? { urgency: 'alert', title: 'a drill has failed' } : {}),
    ...{ cluster: teller.cluster, vault: teller.vault, kind, node, at, what: text },
    // 0: the writer did not know it
    epoch: event.epoch === 0 ? null : event.epoch,
    id: factOf(event, once),
  });
}

function factOf({ sk, kind, node, epoch, at, text }: EventRow, once: Told['once']): string {
  if (once === undefined) return sk;
  if (once === 'burst') return `${kind}#${at.slice(0, 13)}#${epoch}#${node ?? ''}`;
  const words = createHash('sha256').update(`${node} ${text}`).digest('hex').slice(0, 16);
  return `${kind}#${at.slice(0, 10)}#${words}`;
}
