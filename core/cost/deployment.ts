/**
 * What infra/ deploys in each region, as far as it costs; and how long the functions run, which is an estimate: nobody has measured
 * them on AWS.
 *
 * Pure: numbers only.
 */

/** Alarms of a region: the relay's are there only where a second region is. */
export const ALARMS = { always: 9, relay: 4 } as const;
export const DASHBOARDS = 1;

/** Custom metrics, each for the vault and for the cluster; and how often they are put. */
export const METRICS = { always: 3, relay: 1, each: 2 } as const;

/** Notify looks at every cluster this often, relay sweeps, retention runs, ms. */
export const LOOK_EVERY_MS = 60_000;
export const RELAY_SWEEP_EVERY_MS = 5 * 60_000;
export const RETENTION_EVERY_MS = 24 * 3600_000;

/** Longest that the stream waits to fill a batch for the relay, ms: under load it is called this often. */
export const RELAY_WINDOW_MS = 1000;

/** Rows that one look of notify reads, and its calls of CloudWatch. */
export const LOOK = { reads: 10, requests: 1 } as const;

/** GB of memory, and estimated seconds of one call. */
export const FUNCTIONS = {
  relay: { memoryGb: 0.5, seconds: 2, secondsEachObject: 0.3, secondsEachSweptRow: 0.0001 },
  notify: { memoryGb: 0.25, seconds: 0.5 },
  retention: { memoryGb: 0.5, seconds: 10 },
} as const;

/** Bytes of log of one call: Lambda's own three lines, and ours. */
export const LOG_BYTES = 1000;

/** With a bucket key S3 asks KMS once for about this many of its own requests. */
export const REQUESTS_PER_KMS = 100;
