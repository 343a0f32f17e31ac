/**
 * The shapes of the manifest's rows, and the names of rows and keys. LSNs are text as PostgreSQL prints them ('0/3000060'),
 * times are ISO 8601 in UTC (`archivedAt`), sizes bytes. docs/design.md, "Manifest", says who writes which row.
 *
 * Structural twins of core/vault's Row: each type here can be put as a row.
 */

import { hex8 } from '../wal/name.ts';
import type { EventKind } from './event-kinds.ts';
import type { Lease } from './lease.ts';

export const FORMAT = 1;

type Base = { pk: string; sk: string; rev: number };

/** Another vault of this cluster: its `vaultId`, which does not change, and the URL by which it was reached last. */
export type VaultRef = { id: string; url: string };

export type TriggerMode = 'smart' | 'fast';

/**
 * pk <cluster>, sk control: written by operator, witness and init; in a replica by its relay; and, with the operator's right, by the
 * sweep of the vault that took another's place.
 */
export type Control = Base & {
  format: number;
  /** Of this vault, made with it: two URLs may name one vault. */
  vaultId: string;
  systemIdentifier: string;
  /** What the cluster was before, oldest first: pg_upgrade makes a database with an identifier of its own. Undefined: nothing. */
  generations?: string[];
  segmentSize: number;
  majorVersion: number;
  epoch: number;
  /**
   * The epoch in which `primary` was named. Two vaults that meet after a disaster raise `epoch` above both without a change of
   * primary; a writer that took up any epoch since `reign` is still the one, which its nonce proves.
   */
  reign: number;
  primary: string | null;
  archiving: boolean;
  /** When `archiving` was set as it is; absent: since the vault was made. */
  archivingAt?: string;
  /**
   * active: takes archives. replica: takes what a relay brings, and spills. converging: being made a replica again, what the
   * active vault does not know is set aside.
   */
  role: 'active' | 'replica' | 'converging';
  /** A replica's (or converging vault's) source; null: active. */
  source: VaultRef | null;
  /** Active: the vault whose place this one took without its word, until a sweep has found that one and made it a replica; null: none. */
  supersedes: (VaultRef & { sinceEpoch: number; at: string }) | null;
  /** The vault that took the place of this one; null where this one is active, or was a replica from the start. */
  supersededBy: (VaultRef & { epoch: number; at: string }) | null;
  /** Armed (dr_vault): the replica to which the primary may spill while this vault is out of its reach. Any trigger must fence both. */
  direct: VaultRef | null;
  /** While it lasts no witness triggers: somebody stops servers on purpose. Absent or null: nobody said so. */
  maintenance?: Maintenance | null;
  /** The last trigger; spent once head.promotion of the same id is 'open'. */
  trigger: { id: string; epoch: number; mode: TriggerMode; to: string; at: string } | null;
};

/** `until`: by the clock of the witness that reads it. `by`: a person's words, or 'flush'. */
export type Maintenance = { at: string; until: string; by: string };

/**
 * The promotion under way or last done. `triggered` is written by the trigger (head is a standby's whole poll),
 * `sealed` by the target's agent, `open` by whoever proves it by the node's own history file.
 */
export type Promotion = {
  id: string;
  epoch: number;
  node: string;
  mode: TriggerMode | 'claim';
  state: 'triggered' | 'sealed' | 'open';
  at: string;
  /** From the seal on: the timeline replayed and the end of the last segment consumed (exclusive). */
  timeline?: number;
  lsn?: string;
  /** From the seal on: the number that PostgreSQL will take. */
  reserved?: number;
  /**
   * The node that was the primary held a lease, and nobody knew that it was over: the target is not sealed before that node has said that its
   * server is stopped, or before it has itself seen `ms` go by since it saw the trigger.
   */
  after?: { node: string; ms: number };
  /** From the open on, where the node has a lease: how long it runs. The node's row says so only from the first renewal on. */
  leaseMs?: number;
  /** Triggered with a declared gap ahead, knowingly: where that begins. A smart promotion must have consumed all up to there. */
  upTo?: { timeline: number; lsn: string };
};

/** pk <cluster>/<system id>, sk head: where the live branch stands. One read of it is a standby's whole poll; under 4 KB. */
export type Head = Base & {
  epoch: number;
  /** The live timeline. */
  timeline: number;
  /** Where the next segment of the live timeline begins or, after a promotion, the fork; null before the first segment. */
  lsn: string | null;
  /** First byte ever archived; null before the first segment. */
  firstLsn: string | null;
  /** The last segment committed, of whatever timeline; null before the first. */
  lastFile: string | null;
  lastArchivedAt: string | null;
  /** Highest timeline number ever taken or reserved. */
  lastTimeline: number;
  /** Who wrote last as primary: node, nonce of its chain, and where it said that it runs (host:pgdata). */
  writer: { node: string; nonce: string; place: string } | null;
  promotion: Promotion | null;
  /** The primary was flushed at this LSN, in head's revision `rev`: nothing may be committed while it stands; a trigger or an undo ends it. */
  flush: { lsn: string; rev: number } | null;
  /** End of the tail# row of the live timeline: a smart promotion must have consumed it. */
  tail: { timeline: number; lsn: string } | null;
  /** How many gap# rows there are, and the newest of them, of whatever timeline; null or absent: there is none. */
  gap?: { count: number; from: string; to: string; at: string } | null;
  /** A replica: the chain of spill# rows that goes on from `lsn` and is served to nobody; null: there is none. */
  spill: Spill | null;
};

/** What the primary of `epoch` put beside a replica's rows while its own vault was out of reach. */
export type Spill = {
  epoch: number;
  timeline: number;
  /** First byte, and the end (exclusive): where the next one begins. */
  firstLsn: string;
  lsn: string;
  lastFile: string;
  files: number;
  /** As head.writer, of the chain of spills: it tells two copies of one primary. */
  writer: { node: string; nonce: string; place: string };
  at: string;
};

/** pk #clusters, sk <cluster>: which clusters this vault holds. Put where a cluster is made; nothing decides by it. */
export type ClusterEntry = Base & { systemIdentifier: string; at: string };

/** sk wal#<file name>: segment, .partial or .backup file. */
export type WalRow = Base & {
  key: string;
  sha256: string;
  sizeBytes: number;
  storedBytes: number;
  compression: 'zstd';
  node: string;
  epoch: number;
  archivedAt: string;
};

/** sk spill#<file name>, in a replica: as wal#, of the primary's own epoch; becomes wal# here and there, or salvage. */
export type SpillRow = WalRow;

/**
 * sk relay#<id of the other vault>: how far a relay is, as it said last. `to`: in the source, of the vault that it goes to;
 * `from`: the same in the target.
 */
export type RelayRow = Base & {
  direction: 'to' | 'from';
  /** The other vault. */
  vault: VaultRef;
  /** The source's epoch as relayed. */
  epoch: number;
  /** Where the target's head stands; tailLsn: the end of its tail, where one goes beyond. */
  timeline: number;
  lsn: string | null;
  tailLsn: string | null;
  lastFile: string | null;
  /** What the source has and the target has not. `seconds`: age of the oldest of it; 0: none. */
  rows: number;
  bytes: number;
  seconds: number;
  at: string;
  /** Why it does not get on; null: it does. */
  trouble: string | null;
};

/**
 * sk tail#<timeline, 8 hex digits>: the last, unfinished segment of a timeline, whole up to `endLsn` and zeros after it: the shutdown
 * checkpoint after a flush, or what was salvaged of a dead primary. Served under the segment's name while no wal# row has that name.
 */
export type TailRow = Base & {
  timeline: number;
  segment: string;
  key: string;
  /** Of the whole segment, zeros and all. */
  sha256: string;
  /** Of the bytes up to `endLsn`: what a grown segment of this name must begin with. */
  prefixSha256: string;
  endLsn: string;
  sizeBytes: number;
  storedBytes: number;
  why: 'flush' | 'salvage';
  node: string;
  epoch: number;
  archivedAt: string;
};

/** sk history#<timeline, 8 hex digits>. */
export type HistoryRow = Base & {
  text: string;
  timeline: number;
  parent: number;
  forkLsn: string;
  node: string;
  epoch: number;
  /**
   * The node that forked had consumed the parent's segment that holds the fork to its end, so that segment's last whole record
   * ends at the fork and it may be served; false: it may hold records past the fork and is never served again.
   */
  forkSegmentWhole: boolean;
  /** The file's bytes in the bucket. */
  key: string;
  archivedAt: string;
};

/** sk node#<name>. */
export type StandbyMode = 'hot' | 'warm' | 'wait';

export type NodeRow = Base & {
  name: string;
  role: 'primary' | 'standby' | 'unknown';
  heartbeatAt: string | null;
  /** When it was made known by a command; its lease runs from here as long as it has not reported by itself. */
  registeredAt?: string | null;
  walvaultVersion: string | null;
  postgresVersion: string | null;
  place: string | null;
  lastArchived: string | null;
  /** A primary: since when the oldest finished segment waits to be archived, by its own clock; null: none waits. */
  waitingSince?: string | null;
  lastRestored: string | null;
  lastReplayedLsn: string | null;
  /** As PostgreSQL gave it (%r): a segment's name. */
  restartPoint: string | null;
  /** Of a standby: hot answers queries, warm does not, wait is recovered by its restore command alone. */
  mode?: StandbyMode | null;
  /** A standby that reached its backup's end. */
  consistent: boolean;
  /** A primary with a lease: as it was renewed last. Null or absent: it runs without one. */
  lease?: Lease | null;
  /** Of a standby, for the witness: the highest is chosen first; 0: never. */
  failoverPriority?: number;
  /** Of its machine, e.g. 'glibc 2.36': text is sorted by it. */
  library?: string | null;
  /** Why this node is not in order (diverged, promoted by hand, unconfirmed); null: it is. */
  trouble: string | null;
};

export type BackupRow = Base & {
  id: string;
  /** deleting: retention has let it go; its objects may be gone already. */
  state: 'running' | 'complete' | 'failed' | 'deleting';
  node: string;
  label: string;
  majorVersion: number;
  timeline: number;
  startLsn: string;
  stopLsn: string | null;
  startSegment: string;
  stopSegment: string | null;
  startedAt: string;
  finishedAt: string | null;
  sizeBytes: number;
  storedBytes: number;
  files: number;
  /** Key of the backup's index (its bundles, tablespaces, backup_manifest) in the bucket; null while running. */
  indexKey: string | null;
  /** Kept by retention until it is unpinned, in this vault. */
  pinned?: boolean;
};

/** sk holds: horizon per timeline and what keeps WAL. */
export type HoldsRow = Base & {
  horizon: { [timeline: string]: string };
  holds: { [id: string]: { kind: 'backup' | 'restore' | 'standby'; from: string; node: string; at: string } };
};

/** sk event#<time>#<id>. */
export type EventRow = Base & {
  at: string;
  kind: EventKind;
  node: string | null;
  epoch: number;
  text: string;
};

/**
 * sk aside#<epoch, 10 digits>#<node>#<file>#<16 hex of sha256>: WAL of a branch that is not the live one, kept beside it and never served.
 */
export type AsideRow = Base & {
  /** As it lay in pg_wal: a segment, .partial or history. */
  file: string;
  key: string;
  sha256: string;
  sizeBytes: number;
  storedBytes: number;
  compression: 'zstd';
  node: string;
  /** The epoch that the node had taken up. */
  epoch: number;
  /** End of the last record in it; null for what is no segment. */
  endLsn: string | null;
  savedAt: string;
};

/** sk witness: what the witnesses of this vault saw and decided last. Two of them share it: each writes on what it has read. */
export type WitnessRow = Base & {
  /** Who looked last: 'function', or host and process. */
  by: string;
  at: string;
  everyMs: number;
  policy: WitnessPolicy;
  /** In a replica: the URL of the vault whose primary it watches. */
  watches: string;
  decision: {
    do: 'nothing' | 'warn' | 'trigger';
    state: string;
    why: string;
    reasons: string[];
    since: string;
  };
  /** What was warned of last, so that it is said once, whoever says it. */
  warned: string | null;
  /** The last failover that a witness triggered, by the clock of that witness. */
  lastFailover: { epoch: number; to: string; at: string } | null;
};

export type WitnessPolicy = { autoFailover: boolean; maxLagMs: number; coolDownMs: number };

/** pk #notices#<cluster>, sk arrivals, in a replica: what the topic of its region was told by the relay function. */
export type ArrivalsRow = Base & {
  /** Of the replica: one that is made anew under its URL begins anew. */
  vaultId: string;
  /** For each timeline, by its number in decimal: where the segments that were told end. */
  ends: { [timeline: string]: string };
  /** Timelines whose history was told. */
  histories: number[];
  /** Ids of the backups that were told, as far as they are still there. */
  backups: string[];
};

/**
 * sk gap#<its first segment>: segments of one timeline that were ignored while archiving was off, one behind the other. Head moved past them
 * when they were declared; there is no row wal# of any of them. Written and removed only together with head.gap, which counts these rows.
 */
export type GapRow = Base & {
  /** First and last segment. */
  from: string;
  to: string;
  /** When the first one was declared, and the last. */
  at: string;
  until?: string;
  reason: string;
  node?: string;
  epoch?: number;
};

// No cluster's name has a '#', and without a '/' no key for nodes reaches these two partitions.
/** Partition of the list of clusters. */
export const CLUSTERS = '#clusters';

/** The names of rows. */
export const keys = {
  clusterEntry: (cluster: string) => ({ pk: CLUSTERS, sk: cluster }),
  /** What the functions keep for themselves of whom they told what; nothing of the protocol is read or decided by it. */
  notice: (cluster: string, sk: string) => ({ pk: `#notices#${cluster}`, sk }),
  control: (cluster: string) => ({ pk: cluster, sk: 'control' }),
  partition: (cluster: string, systemIdentifier: string) => `${cluster}/${systemIdentifier}`,
  head: (partition: string) => ({ pk: partition, sk: 'head' }),
  wal: (partition: string, file: string) => ({ pk: partition, sk: `wal#${file}` }),
  history: (partition: string, timeline: number) => ({ pk: partition, sk: `history#${hex8(timeline)}` }),
  tail: (partition: string, timeline: number) => ({ pk: partition, sk: `tail#${hex8(timeline)}` }),
  node: (partition: string, node: string) => ({ pk: partition, sk: `node#${node}` }),
  backup: (partition: string, id: string) => ({ pk: partition, sk: `backup#${id}` }),
  holds: (partition: string) => ({ pk: partition, sk: 'holds' }),
  witness: (partition: string) => ({ pk: partition, sk: 'witness' }),
  event: (partition: string, at: string, id: string) => ({ pk: partition, sk: `event#${at}#${id}` }),
  aside: (partition: string, origin: { epoch: number; node: string }, file: string, sha256: string) => ({
    pk: partition,
    sk: `aside#${String(origin.epoch).padStart(10, '0')}#${origin.node}#${file}#${sha256.slice(0, 16)}`,
  }),
  spill: (partition: string, file: string) => ({ pk: partition, sk: `spill#${file}` }),
  relay: (partition: string, id: string) => ({ pk: partition, sk: `relay#${id}` }),
  gap: (partition: string, from: string) => ({ pk: partition, sk: `gap#${from}` }),
  /** @param object  its key in the bucket, which ends in an id of its own */
  tombstone: (partition: string, object: string) => ({
    pk: partition,
    sk: `tombstone#${object.slice(object.lastIndexOf('/') + 1)}`,
  }),
};
