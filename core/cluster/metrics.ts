/**
 * The figures that functions put into CloudWatch and that alarms and dashboard look at: one table for both sides.
 */

export const NAMESPACE = 'walvault';

export const METRICS = {
  /** Notify: how long the oldest finished segment has waited on the primary. */
  archiveWait: { name: 'ArchiveWaitSeconds', unit: 'Seconds' },
  /** Notify: age of the oldest segment that the replica has not got. */
  relayLag: { name: 'RelayLagSeconds', unit: 'Seconds' },
  /** Notify: nodes that have said nothing for longer than silence_limit. */
  silentNodes: { name: 'SilentNodes', unit: 'Count' },
  /** Retention: a run for this cluster came to its end. */
  retentionDone: { name: 'RetentionDone', unit: 'Count' },
  /** Witness: 1 where a watch heard nothing of the primary, for longer than is well. */
  primarySilent: { name: 'PrimarySilent', unit: 'Count' },
  /** Witness: a watch of this cluster came to its end, and saw the table. */
  witnessDone: { name: 'WitnessDone', unit: 'Count' },
} as const;

export type MetricName = keyof typeof METRICS;
