/**
 * The places at which a process may die with consequences: between two steps that both leave something behind. One list, so that a
 * test kills at each of them in turn and then shows that nothing is lost and nothing is claimed that is not.
 *
 * `crashPoint('name')` is free unless WALVAULT_CRASH_AT names it; then the process ends as by kill -9 (no handler, no flush), after it
 * has put its name on the list WALVAULT_CRASH_RECORD, where there is one: so that a run of tests can be asked where it killed nobody.
 */
import { appendFileSync } from 'node:fs';

export const CRASH_POINTS = [
  /** Push: the object is in the bucket, its row is not. */
  'push-stored',
  /** Push: the rows are in the manifest, no marker is written. */
  'push-committed',
  /** Push: markers are written, the hook has no answer. */
  'push-marked',
  /** Archive hook without an agent: committed, PostgreSQL was not told. */
  'alone-committed',
  /** Archiving off by the word of this node: what is ignored is written down, PostgreSQL was not told. */
  'ignored-here',
  /** The same: declared in the vault, not struck off here. */
  'local-declared',
  /** Follow: a segment is verified and flushed beside its place in the spool. */
  'follow-fetched',
  /** Promotion: the trigger was seen, nothing is sealed. */
  'promote-triggered',
  /** Promotion: the seal is in the vault, not in the state directory. */
  'promote-sealed',
  /** Promotion: the last segment and the histories lie in the spool, the seal is not written here. */
  'promote-spooled',
  /** Promotion: the seal is written here, PostgreSQL was not asked to promote. */
  'promote-seal-written',
  /** Promotion: PostgreSQL was asked to promote. */
  'promote-signalled',
  /** `recovered`: PostgreSQL has taken its timeline, the vault has not been told. */
  'open-asked',
  /** `recovered`: the vault has opened, the seal still lies here. */
  'open-committed',
  /** Claim of a server with a timeline of its own: the epoch is its, the timeline is not open. */
  'claim-committed',
  /** Flush: pg_hba.conf has its second name, the one that rejects everybody is not in its place. */
  'flush-saved',
  /** Flush: the one that rejects everybody is in its place, the postmaster may have read it. */
  'flush-exchanged',
  /** Flush: the postmaster lets nobody in, the original is back on disk. */
  'flush-refusing',
  /** Flush: every other session has ended. */
  'flush-ended',
  /** Flush: the server is stopped. */
  'flush-stopped',
  /** Flush: everything that waited is in the vault. */
  'flush-archived',
  /** Flush: standby.signal is written, the tail is not in the vault. */
  'flush-signal',
  /** Flush: the tail is in the vault. */
  'flush-committed',
  /** Undo of a flush: the vault has it, standby.signal is still there. */
  'flush-undone',
  /** Detach: marked here, the vault has not been told. */
  'detach-marked',
  /** Detach: the vault knows, the server still has its commands. */
  'detach-reported',
  /** Detach: archiving and restoring are off, PostgreSQL was not asked to promote. */
  'detach-configured',
  /** Switchover: flushed, nothing is triggered. */
  'switchover-flushed',
  /** Switchover: the trigger is in the vault, nobody waits for it. */
  'switchover-triggered',
  /** Relay: an object is in the replica's bucket, its row is not in the manifest. */
  'relay-copied',
  /** Relay: rows are in the replica, nobody was told how far it is. */
  'relay-committed',
  /** Relay: the object of a history is there, its row and the head that goes over to it are not. */
  'relay-history',
  /** Relay: all objects of a backup are there, its row is not. */
  'relay-backup',
  /** Relay function: something has arrived in the replica, its region's topic was not told. */
  'announce-due',
  /** Relay function: the topic was told, the row that remembers it was not moved. */
  'announce-published',
  /** Disaster: the old vault is fenced, the replica has not been told. */
  'takeover-fenced',
  /** Disaster: the replica has the new epoch and everything that could be had, it is not active. */
  'takeover-raised',
  /** Disaster: the replica is active and the trigger stands, nobody waits for it. */
  'takeover-active',
  /** First contact: the active vault has the common epoch, the other one does not know. */
  'converge-raised',
  /** First contact: the other vault is converging, nothing was set aside. */
  'converge-marked',
  /** First contact: some rows are set aside. */
  'converge-aside',
  /** First contact: the other vault is a replica, the active one still says that it supersedes. */
  'converge-replica',
  /** Spill: the object is in the replica's bucket, its row is not. */
  'spill-stored',
  /** Spill: the rows are in the replica, no marker is written. */
  'spill-committed',
  /** Spills on their way home: objects are in the active vault's bucket, their rows are not. */
  'spill-copied-home',
  /** Spills on their way home: some rows are there. */
  'spill-home',
  /** Spills that become the replica's own: some are. */
  'spill-adopted',
  /** Spills that become salvage: objects are copied, the rows are spills still. */
  'spill-copied-aside',
  /** Trigger while a replica is armed: that one is fenced, the active vault does not know. */
  'direct-fenced',
  /** Retention: the horizon is moved, nothing is deleted. */
  'retention-moved',
  /** Retention: rows are deleted, their objects lie there still. */
  'retention-rows',
  /** Retention: a batch is gone, rows and objects. */
  'retention-objects',
  /** Retention: the objects of a backup are gone, its row says that it is being deleted. */
  'retention-backup',
  /** Retention: an object without a row has its tombstone, and lies there still. */
  'retention-tombstone',
] as const;

export type CrashPoint = (typeof CRASH_POINTS)[number];

/** Dies here by SIGKILL when WALVAULT_CRASH_AT names this point. */
export function crashPoint(point: CrashPoint): void {
  if (process.env.WALVAULT_CRASH_AT !== point) return;
  const record = process.env.WALVAULT_CRASH_RECORD;
  if (record !== undefined) appendFileSync(record, `${point}\n`);
  process.kill(process.pid, 'SIGKILL');
}
