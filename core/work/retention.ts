/**
 * Retention: what decideRetention says, carried out. First the horizon, on condition that no hold was added since it was read; then, below
 * it, rows before objects, oldest first. Nobody can rely on anything below a horizon that stands, so the rest needs no haste and no lock:
 * killed anywhere it is taken up by the next run, and two at once do the same.
 *
 * `walvault retention` and the retention function run this.
 */
import {
  decideRetention,
  decideRow,
  isBelowHorizon,
  type Retention,
  type RetentionFacts,
  type RetentionPolicy,
} from '../cluster/decide-retention.ts';
import {
  keys,
  type BackupRow,
  type HistoryRow,
  type HoldsRow,
  type NodeRow,
  type RelayRow,
  type TailRow,
  type WalRow,
} from '../cluster/facts.ts';
import { after, type Change } from '../vault/manifest.ts';
import { formatLsn } from '../wal/lsn.ts';
import { segmentAt } from '../wal/name.ts';
import { readBranch, type Branch } from './branch.ts';
import { backupPrefix } from './bundles.ts';
import { asRow, changing, eventRow, listRows, putEvent, readControl, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { eachOf } from './each-of.ts';
import { readGaps } from './gap-rows.ts';
import { readHolds } from './holds.ts';
import { findOrphans, removeTombstones, sweepOrphan } from './orphans.ts';
import { fileOf } from './store-file.ts';

export type RetentionOptions = {
  /** Nothing is changed: what would be. */
  dryRun?: boolean;
  now?: Date;
  signal?: AbortSignal;
};

export type RetentionReport = {
  /** Of the live branch all below this was, or would be, let go; null: nothing. */
  cut: string | null;
  why: string;
  horizon: HoldsRow['horizon'];
  needs: { kind: string; id: string; from: string | null; why: string }[];
  ended: { kind: string; id: string; silentSince: string | null; why: string }[];
  backups: { id: string; state: BackupRow['state']; do: 'keep' | 'delete' | 'fail'; why: string }[];
  /** Rows (segments and what lies beside them) that went, or would go; bytes as stored. */
  wal: { rows: number; bytes: number; first: string | null; last: string | null };
  tails: number;
  orphans: { objects: number; bytes: number };
  /** Rows that lie off the live branch, and salvage: never deleted here. */
  leftAlone: { offBranch: number; aside: number };
};

/** Rows of one transaction. */
const BATCH = 50;
/** Backups whose state is changed in the transaction that moves the horizon: 100 changes are the limit. */
const MARKS = 40;
/** Objects on their way at a time. */
const PARALLEL = 8;

/** @throws VaultError busy (holds come and go all the time) | corrupt | unreachable */
export async function runRetention(
  cluster: Cluster,
  policy: RetentionPolicy,
  options: RetentionOptions = {},
): Promise<RetentionReport> {
  const now = options.now ?? new Date();
  const dryRun = options.dryRun === true;
  const { decision, horizon } = dryRun
    ? await dryDecision(cluster, policy, now)
    : await moveHorizon(cluster, policy, now);
  if (!dryRun) crashPoint('retention-moved');
  const branch = await readBranch(cluster);
  const job: Job = { cluster, horizon, branch, dryRun, now, signal: options.signal };
  // A vault that converges is compared with another, row by row.
  const isStill = (await readControl(cluster)).role === 'converging';
  const wal = isStill ? NOTHING : await deleteWal(job);
  const tails = isStill ? 0 : await deleteTails(job);
  if (!dryRun && !isStill) await deleteBackups(job, decision);
  const orphans = isStill ? { objects: 0, bytes: 0 } : await sweepOrphans(job);
  const report: RetentionReport = {
    cut: decision.cut === null ? null : formatLsn(decision.cut),
    why: decision.why,
    horizon,
    needs: decision.needs.map((need) => ({
      ...need,
      from: need.from === null ? null : formatLsn(need.from),
    })),
    ended: decision.ended,
    backups: decision.backups.map(({ row, do: what, why }) => ({
      id: row.id,
      state: row.state,
      do: what,
      why,
    })),
    ...{ wal, tails, orphans },
    leftAlone: await countLeftAlone(job),
  };
  if (!dryRun && wal.rows + tails + orphans.objects > 0) {
    const { epoch } = branch.head;
    const text = `${wal.rows} WAL rows below ${report.cut ?? 'nothing'} were deleted (${wal.bytes} bytes), ${tails} tails, ${orphans.objects} objects without a row; first to keep: ${decision.why}`;
    await putEvent(cluster, { kind: 'retention', node: null, epoch, text });
  }
  return report;
}

const NOTHING: RetentionReport['wal'] = { rows: 0, bytes: 0, first: null, last: null };

type Job = {
  cluster: Cluster;
  /** As it stands in the manifest, or would. */
  horizon: HoldsRow['horizon'];
  branch: Branch;
  dryRun: boolean;
  now: Date;
  signal: AbortSignal | undefined;
};

type Read = { facts: RetentionFacts; controlRev: number; holds: HoldsRow | undefined };

/**
 * Holds before everything else: whoever drops his hold has put before what keeps his WAL from then on (a node's row, a complete backup),
 * and whoever adds one after this read is found by the condition.
 */
async function readFacts(cluster: Cluster, policy: RetentionPolicy, now: Date): Promise<Read> {
  const holds = await readHolds(cluster);
  const control = await readControl(cluster);
  const { head, lineage } = await readBranch(cluster);
  const [nodes, backups, relays, gaps, histories] = await Promise.all([
    listRows<NodeRow>(cluster, 'node#'),
    listRows<BackupRow>(cluster, 'backup#'),
    listRows<RelayRow>(cluster, 'relay#'),
    readGaps(cluster, head),
    listRows<HistoryRow>(cluster, 'history#'),
  ]);
  const { segmentSize } = cluster;
  const known = holds ?? { horizon: {}, holds: {} };
  const rows = { nodes, backups, relays, gaps, histories, holds: known };
  return {
    facts: { control, head, lineage, ...rows, policy, now, segmentSize },
    controlRev: control.rev,
    holds,
  };
}

type Moved = { decision: Retention; horizon: HoldsRow['horizon'] };

async function dryDecision(cluster: Cluster, policy: RetentionPolicy, now: Date): Promise<Moved> {
  const { facts } = await readFacts(cluster, policy, now);
  const decision = decideRetention(facts);
  return { decision, horizon: decision.horizon };
}

/** One transaction: horizon, holds whose lease is over, backups that begin to go, and what is said of silent nodes. */
async function moveHorizon(cluster: Cluster, policy: RetentionPolicy, now: Date): Promise<Moved> {
  return changing<Moved>(
    async () => {
      const { facts, controlRev, holds } = await readFacts(cluster, policy, now);
      const decision = decideRetention(facts);
      const result = { decision, horizon: decision.horizon };
      const ended = new Set(decision.ended.filter(({ kind }) => kind === 'hold').map(({ id }) => id));
      const marks = decision.backups
        .filter(({ row, do: what }) => what === 'fail' || (what === 'delete' && row.state === 'complete'))
        .slice(0, MARKS)
        .map(({ row, do: what }): Change => {
          const next: BackupRow =
            what === 'fail'
              ? { ...row, rev: row.rev + 1, state: 'failed', finishedAt: now.toISOString() }
              : { ...row, rev: row.rev + 1, state: 'deleting' };
          return { do: 'put', row: asRow(next), when: { rev: row.rev } };
        });
      const events = await newlySilent(cluster, decision, facts.head.epoch, now);
      const isMoved = JSON.stringify(decision.horizon) !== JSON.stringify(facts.holds.horizon);
      const isHeld = Object.keys(facts.holds.holds).some((id) => ended.has(id));
      if (!isMoved && !isHeld && marks.length === 0 && events.length === 0) return { result };
      const seen = holds === undefined ? 'absent' : { rev: holds.rev };
      const place = keys.holds(cluster.partition);
      const next: HoldsRow = {
        ...place,
        rev: (holds?.rev ?? 0) + 1,
        horizon: decision.horizon,
        holds: Object.fromEntries(Object.entries(facts.holds.holds).filter(([id]) => !ended.has(id))),
      };
      return {
        changes: [
          { do: 'check', key: keys.control(cluster.name), when: { rev: controlRev } },
          isMoved || isHeld
            ? { do: 'put', row: asRow(next), when: seen }
            : { do: 'check', key: place, when: seen },
          ...marks,
          ...events,
        ],
        result,
      };
    },
    (changes) => cluster.vault.manifest.transact(changes),
  );
}

/** Said once for each time that somebody fell silent. */
async function newlySilent(
  cluster: Cluster,
  { ended }: Retention,
  epoch: number,
  now: Date,
): Promise<Change[]> {
  const events: Change[] = [];
  for (const { kind, id, silentSince, why } of ended.slice(0, MARKS)) {
    if (silentSince === null) continue;
    const node = kind === 'node' ? id : null;
    const place = keys.event(cluster.partition, silentSince, `lease-${kind}-${id}`);
    if ((await cluster.vault.manifest.get(place)) !== undefined) continue;
    const text = `the lease of ${kind} ${id} is over: ${why}`;
    const event = eventRow(cluster, { at: now.toISOString(), kind: 'lease', node, epoch, text });
    events.push({ do: 'put', row: asRow({ ...event, ...place }), when: 'absent' });
  }
  return events;
}

/** Along the branch, oldest first: what is left, whenever this ends, has no hole. */
async function deleteWal(job: Job): Promise<RetentionReport['wal']> {
  const { cluster, horizon, branch, dryRun } = job;
  const told: RetentionReport['wal'] = { rows: 0, bytes: 0, first: null, last: null };
  let batch: WalRow[] = [];
  const flush = async (): Promise<void> => {
    const gone = dryRun ? batch : await deleteRows(job, batch);
    batch = [];
    for (const row of gone) {
      const name = fileOf(row);
      told.rows++;
      told.bytes += row.storedBytes;
      told.first ??= name;
      told.last = name;
    }
  };
  for (const { timeline } of branch.lineage) {
    const kept = horizon[String(timeline)];
    if (kept === undefined) continue;
    const range = { pk: cluster.partition, from: `wal#${kept.slice(0, 8)}`, to: `wal#${kept}` };
    for await (const found of cluster.vault.manifest.query(range)) {
      const row = found as unknown as WalRow;
      const name = fileOf(row);
      if (decideRow(name, branch.lineage, horizon, cluster.segmentSize) !== 'delete') continue;
      batch.push(row);
      if (batch.length >= BATCH) await flush();
    }
    await flush();
  }
  return told;
}

/** @returns those that went; a row that another changed meanwhile is left to the next run */
async function deleteRows<T extends { pk: string; sk: string; rev: number; key: string }>(
  { cluster, signal }: Job,
  rows: readonly T[],
): Promise<T[]> {
  signal?.throwIfAborted();
  let left = [...rows];
  while (left.length > 0) {
    const outcome = await cluster.vault.manifest.transact(
      left.map(({ pk, sk, rev }): Change => ({ do: 'delete', key: { pk, sk }, when: { rev } })),
    );
    if (outcome.done) break;
    const failed = new Set(outcome.failed.map(({ index }) => index));
    left = left.filter((_, index) => !failed.has(index));
  }
  crashPoint('retention-rows');
  await eachOf(left, PARALLEL, ({ key }) => cluster.vault.bucket.delete(key));
  crashPoint('retention-objects');
  return left;
}

async function deleteTails(job: Job): Promise<number> {
  const { cluster, horizon, branch, dryRun } = job;
  const rows = (await listRows<TailRow>(cluster, 'tail#')).filter(
    (row) =>
      row.timeline !== branch.head.tail?.timeline &&
      decideRow(row.segment, branch.lineage, horizon, cluster.segmentSize) === 'delete',
  );
  return dryRun || rows.length === 0 ? rows.length : (await deleteRows(job, rows)).length;
}

/**
 * Objects first, then the row: a row of state 'deleting' is what keeps a relay from bringing the backup again, so it stays until the
 * horizon is past the backup's start, which a relay goes by, too.
 */
async function deleteBackups({ cluster, horizon, signal }: Job, decision: Retention): Promise<void> {
  const { bucket, manifest } = cluster.vault;
  for (const verdict of decision.backups) {
    if (verdict.do !== 'delete') continue;
    signal?.throwIfAborted();
    const { id, startSegment } = verdict.row;
    const row = (await manifest.get(keys.backup(cluster.partition, id))) as BackupRow | undefined;
    // not marked in this run: there were too many
    if (row === undefined || row.state === 'complete') continue;
    for await (const { key } of bucket.list(backupPrefix(cluster, id))) await bucket.delete(key);
    crashPoint('retention-backup');
    if (row.state === 'deleting' && !isBelowHorizon(horizon, startSegment)) continue;
    const { pk, sk, rev } = row;
    await manifest.transact([{ do: 'delete', key: { pk, sk }, when: { rev } }]);
  }
}

async function sweepOrphans({
  cluster,
  horizon,
  dryRun,
  now,
  signal,
}: Job): Promise<RetentionReport['orphans']> {
  const told = { objects: 0, bytes: 0 };
  for await (const orphan of findOrphans(cluster, now)) {
    signal?.throwIfAborted();
    if (!dryRun && !(await sweepOrphan(cluster, orphan, horizon, now))) continue;
    told.objects++;
    told.bytes += orphan.sizeBytes;
  }
  if (!dryRun) await removeTombstones(cluster, horizon);
  return told;
}

/** Timelines that lead nowhere, segments past a fork, and salvage: a person decides about those. */
async function countLeftAlone({ cluster, branch }: Job): Promise<RetentionReport['leftAlone']> {
  const { head, lineage } = branch;
  const count = async (from: string, to: string): Promise<number> => {
    let rows = 0;
    for await (const row of cluster.vault.manifest.query({ pk: cluster.partition, from, to }))
      if (decideRow(fileOf(row), lineage, {}, cluster.segmentSize) === 'aside') rows++;
    return rows;
  };
  let offBranch = 0;
  for (let timeline = 1; timeline <= head.lastTimeline; timeline++) {
    const part = lineage.find((one) => one.timeline === timeline);
    if (part?.ends === null) continue;
    const from = `wal#${segmentAt(timeline, part?.ends ?? 0n, cluster.segmentSize)}`;
    offBranch += await count(from, after(from.slice(0, 'wal#'.length + 8)));
  }
  return { offBranch, aside: (await listRows(cluster, 'aside#')).length };
}
