/**
 * What a cloud vault costs a month: the program's own requests (core/cost/acts.ts), what is stored, and what is deployed
 * (core/cost/deployment.ts), at the prices of a list.
 *
 * A steady cluster: WAL flows evenly, all nodes are up and near the vault, nothing is restored. Where the program does less under
 * load (it commits up to 30 segments at once) the dearer way is counted. Not counted: free tiers, taxes, traffic that leaves AWS,
 * NAT, and the machines of the nodes.
 *
 * Pure: no file, no clock, no network.
 */
import {
  ARCHIVE,
  BACKUP_EXTRA_OBJECTS,
  BEAT_LEASE,
  BEAT_PRIMARY,
  BEAT_STANDBY,
  COPY,
  FETCH,
  FRAME_BYTES,
  ITEM_OVERHEAD_BYTES,
  LIST_PAGE,
  POLL,
  QUIET_MS,
  RELAY_BATCH,
  RELAY_PASS,
  RELAY_SEGMENT,
  RETENTION_RUN,
  RETENTION_SEGMENT,
  ROLE_LOOK,
  SWEEP_LOOK_MS,
  WAL_ROW_BYTES,
  WITNESS_LOOK,
  WITNESS_ROW,
} from './acts.ts';
import {
  ALARMS,
  DASHBOARDS,
  FUNCTIONS,
  LOOK,
  LOOK_EVERY_MS,
  METRICS,
  QUEUE_POLLS_PER_MINUTE,
  RELAY_CALL,
  RELAY_IDLE,
  RELAY_PASS_EVERY_MS,
  RELAY_SWEEP_EVERY_MS,
  RELAY_WINDOW_MS,
  RETENTION_EVERY_MS,
  WATCH,
} from './deployment.ts';
import { Bill, type Cost } from './bill.ts';
import type { PriceList } from './prices.ts';

/** A month as AWS's own calculator takes it: 730 hours. */
export const MONTH_MS = 730 * 3600_000;
const DAY_MS = 86_400_000;
const GIB = 1024 ** 3;
const READ_BYTES = 4096;

export type CostInput = {
  /** That the primary writes. */
  walBytesPerDay: number;
  segmentBytes: number;
  /** Stored size to raw size, of WAL and of base backups. */
  compression: number;
  /** archive_timeout: a segment is finished at least this often while anything is written; 0: only when it is full. */
  forceSwitchMs: number;
  databaseBytes: number;
  /** 0: no base backups. */
  backupEveryMs: number;
  bundleBytes: number;
  keepBackups: number;
  keepDays: number;
  pitrWindowMs: number;
  /** How long what retention deleted stays as an older version, ms. */
  versionsMs: number;
  /** That follow the vault at home, and that of the other region. */
  standbys: number;
  drStandbys: number;
  heartbeatMs: number;
  /** Of the primary's lease; 0: it has none. */
  leaseMs: number;
  /** Whether the witness function is deployed, and how often it looks. */
  witness: boolean;
  witnessMs: number;
  pollMs: number;
  idlePollMs: number;
  /** Where the vault is. */
  region: string;
  /** Where its replica is; undefined: there is none. */
  drRegion: string | undefined;
};

/** @throws VaultError usage  the list has no price for a region */
export function reckonCost(input: CostInput, list: PriceList): Cost {
  const flow = flowOf(input);
  const bill = new Bill(list);
  vault(bill, input, flow, input.region, input.standbys);
  primary(bill, input, flow);
  watching(bill, input, input.region);
  if (input.witness) witness(bill, input, input.region, input.region);
  if (input.drRegion !== undefined) {
    vault(bill, input, flow, input.drRegion, input.drStandbys);
    watching(bill, input, input.drRegion);
    if (input.witness) witness(bill, input, input.drRegion, input.region);
    relay(bill, flow, input.region, input.drRegion);
  }
  return bill.close();
}

/** What flows and lies, a month: the same in both vaults. */
type Flow = {
  segments: number;
  /** Of all segments, with their frames. */
  walBytes: number;
  backups: number;
  backupBytes: number;
  backupObjects: number;
  /** That are kept at any time, and how far back the WAL goes. */
  keptBackups: number;
  keptMs: number;
};

export function flowOf(input: CostInput): Flow {
  const { walBytesPerDay, segmentBytes, compression, forceSwitchMs, backupEveryMs, databaseBytes } = input;
  const written = walBytesPerDay * (MONTH_MS / DAY_MS);
  const full = written / segmentBytes;
  const forced = walBytesPerDay > 0 && forceSwitchMs > 0 ? MONTH_MS / forceSwitchMs : 0;
  const segments = Math.max(full, forced);
  const walBytes = written * compression + segments * FRAME_BYTES;
  const isBackedUp = backupEveryMs > 0 && databaseBytes > 0;
  const bundles = Math.ceil(databaseBytes / input.bundleBytes);
  const keptBackups = isBackedUp
    ? Math.max(
        input.keepBackups,
        Math.ceil(input.keepDays * (DAY_MS / backupEveryMs)),
        Math.ceil(input.pitrWindowMs / backupEveryMs) + 1,
      )
    : 0;
  return {
    segments,
    walBytes,
    backups: isBackedUp ? MONTH_MS / backupEveryMs : 0,
    backupBytes: databaseBytes * compression + (bundles + BACKUP_EXTRA_OBJECTS) * FRAME_BYTES,
    backupObjects: bundles + BACKUP_EXTRA_OBJECTS,
    keptBackups,
    // The oldest backup kept is between n-1 and n intervals old, and is seen to be too old at the next run. Without backups the
    // nodes' restart points keep what a day brings.
    keptMs: isBackedUp ? (keptBackups - 0.5) * backupEveryMs + RETENTION_EVERY_MS / 2 : RETENTION_EVERY_MS,
  };
}

/** What each of the two vaults has, whoever fills it. */
function vault(bill: Bill, input: CostInput, flow: Flow, region: string, standbys: number): void {
  const { segments, walBytes } = flow;
  const months = (ms: number) => ms / MONTH_MS;
  const looks = pollsOf(input, segments) * standbys;
  bill.add('following', region, 'looks of standbys at head', 'dynamodb_read', looks * POLL.reads);
  bill.add('following', region, 'rows of segments', 'dynamodb_read', segments * standbys * FETCH.reads);
  bill.get('following', region, 'segments fetched', segments * standbys * FETCH.gets);
  const beats = (MONTH_MS / input.heartbeatMs) * standbys;
  bill.add('heartbeats', region, 'of standbys: reads', 'dynamodb_read', beats * BEAT_STANDBY.reads);
  bill.add('heartbeats', region, 'of standbys: writes', 'dynamodb_write', beats * BEAT_STANDBY.writes);

  const wal = walBytes * months(flow.keptMs);
  const backups = flow.backupBytes * flow.keptBackups;
  const older =
    walBytes * months(input.versionsMs) + flow.backupBytes * flow.backups * months(input.versionsMs);
  bill.add('storage', region, 'WAL that is kept', 's3_storage', wal / GIB);
  bill.add('storage', region, 'base backups that are kept', 's3_storage', backups / GIB);
  bill.add('storage', region, 'deleted, still there as versions', 's3_storage', older / GIB);
  const rows = segments * months(flow.keptMs);
  const table = (rows * (WAL_ROW_BYTES + ITEM_OVERHEAD_BYTES)) / GIB;
  bill.add('storage', region, 'manifest', 'dynamodb_storage', table);
  bill.add('storage', region, 'manifest, continuous backup', 'dynamodb_pitr', table);

  const runs = MONTH_MS / RETENTION_EVERY_MS;
  const read = RETENTION_RUN.reads + (rows * WAL_ROW_BYTES) / READ_BYTES;
  bill.add('retention', region, 'rows read', 'dynamodb_read', runs * read);
  const gone = runs * RETENTION_RUN.writes + segments * RETENTION_SEGMENT.writes;
  bill.add('retention', region, 'rows deleted', 'dynamodb_write', gone);
  const pages = runs * Math.max(1, Math.ceil(rows / LIST_PAGE)) + flow.backups;
  bill.add('retention', region, 'objects listed', 's3_put', pages);
  bill.calls('retention', region, 'function', runs, FUNCTIONS.retention, runs * FUNCTIONS.retention.seconds);
  bill.add('keys', region, 'key of the bucket', 'kms_key', 1);
}

/** Looks of one standby: at poll_interval for QUIET_MS after each segment, at idle_poll_interval from then on. */
function pollsOf({ pollMs, idlePollMs }: CostInput, segments: number): number {
  const idleMs = Math.max(pollMs, idlePollMs);
  const quickMs = Math.min(MONTH_MS, segments * QUIET_MS);
  return quickMs / pollMs + (MONTH_MS - quickMs) / idleMs;
}

/** What the primary does, at home. */
function primary(bill: Bill, input: CostInput, flow: Flow): void {
  const { region } = input;
  const { segments } = flow;
  bill.put('archiving', region, 'segments stored', segments * ARCHIVE.puts);
  bill.add(
    'archiving',
    region,
    'rows, head and their conditions',
    'dynamodb_write',
    segments * ARCHIVE.writes,
  );
  bill.add('archiving', region, 'control, head and rows read', 'dynamodb_read', segments * ARCHIVE.reads);
  const beats = MONTH_MS / input.heartbeatMs;
  const looks = MONTH_MS / SWEEP_LOOK_MS;
  bill.add(
    'heartbeats',
    region,
    'of the primary: reads',
    'dynamodb_read',
    beats * (BEAT_PRIMARY.reads + ROLE_LOOK.reads) + looks,
  );
  bill.add('heartbeats', region, 'of the primary: writes', 'dynamodb_write', beats * BEAT_PRIMARY.writes);
  if (input.leaseMs > 0) {
    const [reads, writes] = (['reads', 'writes'] as const).map((of) => BEAT_LEASE[of] - BEAT_PRIMARY[of]);
    bill.add('heartbeats', region, 'its lease: reads', 'dynamodb_read', beats * reads!);
    bill.add('heartbeats', region, 'its lease: writes', 'dynamodb_write', beats * writes!);
  }
  bill.put('base backups', region, 'bundles stored', flow.backups * flow.backupObjects);
}

/** Alarms, dashboard, metrics, and the function that looks each minute. */
function watching(bill: Bill, { drRegion }: CostInput, region: string): void {
  const isPair = drRegion !== undefined;
  bill.add('watching', region, 'alarms', 'cloudwatch_alarm', ALARMS.always + (isPair ? ALARMS.relay : 0));
  bill.add('watching', region, 'dashboard', 'cloudwatch_dashboard', DASHBOARDS);
  const metrics = (METRICS.always + (isPair ? METRICS.relay : 0)) * METRICS.each;
  bill.add('watching', region, 'metrics', 'cloudwatch_metric', metrics);
  const looks = MONTH_MS / LOOK_EVERY_MS;
  bill.add('watching', region, 'figures put', 'cloudwatch_request', looks * LOOK.requests);
  bill.add('watching', region, 'rows read', 'dynamodb_read', looks * LOOK.reads);
  bill.add('watching', region, 'what was seen last', 'dynamodb_write', looks * LOOK.writes);
  bill.calls('watching', region, 'function', looks, FUNCTIONS.notify, looks * FUNCTIONS.notify.seconds);
}

/** Two watches at a time. @param watched  the region of the active vault, which a witness of a replica looks at, too */
function witness(bill: Bill, { witnessMs }: CostInput, region: string, watched: string): void {
  const watches = MONTH_MS / WATCH.everyMs;
  const looks = watches * ((WATCH.seconds * 1000) / witnessMs);
  for (const place of new Set([region, watched]))
    bill.add('witness', place, `its looks, in ${region}`, 'dynamodb_read', looks * WITNESS_LOOK.reads);
  bill.add('witness', region, 'what is to be watched', 'dynamodb_read', watches * WATCH.reads);
  bill.add(
    ...(['witness', region, 'its row', 'dynamodb_write'] as const),
    watches * WATCH.rows * WITNESS_ROW.writes,
  );
  bill.add('witness', region, 'figures put', 'cloudwatch_request', watches * WATCH.requests);
  const { seconds } = FUNCTIONS.witness;
  bill.calls('witness', region, 'function', watches, FUNCTIONS.witness, watches * seconds);
}

/** From `home` to `away`: each segment and each bundle is copied by S3 itself. */
function relay(bill: Bill, flow: Flow, home: string, away: string): void {
  const { segments } = flow;
  const calls = Math.min(segments, MONTH_MS / RELAY_WINDOW_MS);
  const sweeps = MONTH_MS / RELAY_SWEEP_EVERY_MS;
  const scheduled = sweeps + MONTH_MS / RELAY_PASS_EVERY_MS;
  const passes = calls + scheduled;
  const objects = segments + flow.backups * flow.backupObjects;
  const rowUnits = WAL_ROW_BYTES / READ_BYTES;
  // a sweep holds every row of the source against the replica
  const sweptRows = sweeps * segments * (flow.keptMs / MONTH_MS);
  const swept = sweptRows * rowUnits;
  const { source, target } = RELAY_PASS;
  const read =
    passes * (source.reads + RELAY_CALL.source.reads) +
    calls * RELAY_BATCH.source.reads +
    segments * rowUnits;
  bill.add('relay', home, 'rows read', 'dynamodb_read', read);
  bill.add('relay', home, 'rows compared by sweeps', 'dynamodb_read', swept);
  bill.add('relay', home, 'how far it is', 'dynamodb_write', passes * source.writes);
  bill.get('relay', home, 'objects looked at', objects * COPY.sourceGets);
  const bytes = flow.walBytes + flow.backups * flow.backupBytes;
  bill.add('relay', home, 'to the other region', 'transfer_region', bytes / GIB);
  const seconds = calls * FUNCTIONS.relay.seconds + objects * FUNCTIONS.relay.secondsEachObject;
  bill.calls('relay', home, 'function', calls, FUNCTIONS.relay, seconds);
  const sweepSeconds = scheduled * FUNCTIONS.relay.seconds + sweptRows * FUNCTIONS.relay.secondsEachSweptRow;
  bill.calls('relay', home, 'function, by the schedule', scheduled, FUNCTIONS.relay, sweepSeconds);

  bill.add(
    'relay',
    away,
    'rows read',
    'dynamodb_read',
    passes * (target.reads + RELAY_CALL.target.reads) + segments * RELAY_SEGMENT.target.reads,
  );
  bill.add('relay', away, 'rows compared by sweeps', 'dynamodb_read', swept);
  const written =
    passes * target.writes +
    calls * (RELAY_BATCH.target.writes + RELAY_CALL.target.writes) +
    segments * RELAY_SEGMENT.target.writes;
  bill.add('relay', away, 'rows, head and their conditions', 'dynamodb_write', written);
  bill.put('relay', away, 'objects copied', objects * RELAY_SEGMENT.target.copies);
  bill.get('relay', away, 'copies looked at', objects * COPY.targetGets);
  bill.add('relay', away, 'arrivals told', 'sns_publish', calls + flow.backups);
  // the way back is deployed too
  bill.add('relay', away, 'the way back: rows read', 'dynamodb_read', passes * RELAY_IDLE.reads);
  bill.calls('relay', away, 'the way back', passes, FUNCTIONS.relay, passes * RELAY_IDLE.seconds);
  const polls = (MONTH_MS / 60_000) * QUEUE_POLLS_PER_MINUTE;
  for (const region of [home, away]) bill.add('relay', region, 'queue of failures', 'sqs_request', polls);
}
