/**
 * What infra/ deploys in each region, as far as it costs; and how long the functions run, which is an estimate: nobody has measured
 * them on AWS.
 *
 * Pure: numbers only.
 */

/** Metrics that a region's alarms look at, since each is paid for: the relay's are there only where a second region is. */
export const ALARMS = { always: 13, relay: 4 } as const;
export const DASHBOARDS = 1;

/** Custom metrics, each for the vault and for the cluster; and how often they are put. */
export const METRICS = { always: 5, relay: 1, each: 2 } as const;

/** Notify looks at every cluster this often, relay passes by the schedule and sweeps, retention runs, ms. */
export const LOOK_EVERY_MS = 60_000;
export const RELAY_PASS_EVERY_MS = 5 * 60_000;
export const RELAY_SWEEP_EVERY_MS = 24 * 3600_000;
export const RETENTION_EVERY_MS = 24 * 3600_000;

/** Longest that the stream waits to fill a batch for the relay, ms: under load it is called this often. */
export const RELAY_WINDOW_MS = 1000;

/** One look of notify: rows that it reads, what it keeps for the next one, and its calls of CloudWatch. */
export const LOOK = { reads: 8, writes: 2, requests: 1 } as const;

/**
 * One watch of the witness function: how often one begins, how long it lasts, how often it looks; what it reads and writes beside its looks
 * (which clusters there are, the primary's lease; its row at the beginning and each half minute), and its calls of CloudWatch.
 */
export const WATCH = { everyMs: 60_000, seconds: 115, lookMs: 2000, reads: 4, rows: 4, requests: 1 } as const;

/** One call of the relay beside its pass: cluster and roles looked at, arrivals told and written down. */
export const RELAY_CALL = { source: { reads: 3 }, target: { reads: 5, writes: 2 } } as const;
/** The same call in the region of the replica, whose own stream wakes it as often: it sees that it has nothing to do. */
export const RELAY_IDLE = { reads: 2, seconds: 0.1 } as const;

/** Lambda asks the queue of what the relay gave up, whether there is anything or not: about so often a minute. */
export const QUEUE_POLLS_PER_MINUTE = 15;

/** GB of memory, and estimated seconds of one call. */
export const FUNCTIONS = {
  relay: { memoryGb: 1769 / 1024, seconds: 1, secondsEachObject: 0.2, secondsEachSweptRow: 0.00005 },
  notify: { memoryGb: 0.25, seconds: 0.5 },
  retention: { memoryGb: 0.5, seconds: 10 },
  witness: { memoryGb: 0.25, seconds: 116 },
} as const;

/** Bytes of log of one call: Lambda's own three lines, and ours. */
export const LOG_BYTES = 1000;
/** How long logs are kept, months. */
export const LOG_MONTHS = 3;

/** With a bucket key S3 asks KMS once for about this many of its own requests. */
export const REQUESTS_PER_KMS = 100;
