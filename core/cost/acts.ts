/**
 * What each act of the program asks of DynamoDB and S3, as AWS bills it: the quantities of core/cost/reckon-cost.ts.
 *
 * Units of DynamoDB: a consistent read of a row is 1 for each 4 KB begun; a put, a delete or a check in a transaction 2 for each KB
 * begun. All rows of the manifest are well under 1 KB. test/unit/cost/acts.test.ts runs each act on a vault that counts, and breaks
 * where the program asks for more, or for less, than is said here.
 *
 * Pure: numbers only.
 */

/** Bytes in front of each object's body (core/vault/object-frame.ts). */
export const FRAME_BYTES = 2048;

/** Rows of segments as they are read: about 360 bytes with names as long as people choose them. */
export const WAL_ROW_BYTES = 400;

/** What DynamoDB adds to each item that it stores. */
export const ITEM_OVERHEAD_BYTES = 100;

/** Without a change of head for this long a standby looks only every idle_poll_interval (core/work/follow.ts), ms. */
export const QUIET_MS = 5 * 60_000;

/** One segment, by the primary's agent: row looked up, object put, control checked, head and row put, tombstone checked. */
export const ARCHIVE = { reads: 5, writes: 8, puts: 1 } as const;

/** Each heartbeat of a primary: its row, then the nonce in head. */
export const BEAT_PRIMARY = { reads: 3, writes: 6 } as const;
/** As often its look at who is primary: control and head (core/work/role-watch.ts; not run by the test, it wants a server). */
export const ROLE_LOOK = { reads: 2 } as const;
/** The same with a lease: its row is read and written with a condition on control, then the nonce. */
export const BEAT_LEASE = { reads: 4, writes: 8 } as const;
export const BEAT_STANDBY = { reads: 1, writes: 2 } as const;

/** How often the primary's agent reads control for a vault that its own superseded (default of sweep_interval), ms. */
export const SWEEP_LOOK_MS = 60_000;

/** One look of a standby: head. */
export const POLL = { reads: 1 } as const;

/** One look of a witness at a cluster whose standbys are level: control, head, the rows of the nodes, its own. */
export const WITNESS_LOOK = { reads: 4 } as const;
/** Each time that a witness writes its row. */
export const WITNESS_ROW = { writes: 2 } as const;

/** One segment, by a standby: row, then object. */
export const FETCH = { reads: 1, gets: 1 } as const;

/** One pass of a relay, whatever it finds; and what each transaction and each segment adds. */
export const RELAY_PASS = { source: { reads: 8, writes: 2 }, target: { reads: 4, writes: 2 } } as const;
export const RELAY_BATCH = { source: { reads: 1 }, target: { writes: 4 } } as const;
export const RELAY_SEGMENT = { target: { reads: 1, writes: 4, copies: 1 } } as const;

/** Each object that S3 copies: its beginning and checksum there, and here before and after (test/contract/cost.test.ts). */
export const COPY = { sourceGets: 2, targetGets: 3 } as const;

/** A run of retention that finds nothing to do, and each segment that it lets go (the delete of an object costs nothing). */
export const RETENTION_RUN = { reads: 18, writes: 4 } as const;
export const RETENTION_SEGMENT = { writes: 2 } as const;

/** Objects of a base backup beside its bundles: PostgreSQL's manifest, and the index. */
export const BACKUP_EXTRA_OBJECTS = 2;

/** Keys that one answer of a listing holds. */
export const LIST_PAGE = 1000;
