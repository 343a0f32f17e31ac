/**
 * What `walvault status` answers: the cluster as its manifest says it stands, in names that programs may rely on.
 *
 * Reads control, head, the node, backup, gap and relay rows, and for each standby one row (the oldest it has not restored): never the
 * segments' rows as a whole, of which there may be hundreds of thousands. One vault only: other-vaults.ts looks at those beside it.
 */
import {
  keys,
  type BackupRow,
  type Control,
  type Head,
  type NodeRow,
  type StandbyMode,
  type RelayRow,
  type TriggerMode,
  type VaultRef,
  type WalRow,
  type Maintenance,
  type WitnessRow,
} from '../cluster/facts.ts';
import { foresee } from '../cluster/decide-witness.ts';
import { leaseOf, type Lease } from '../cluster/lease.ts';
import { gapAfter, gapText, liveGaps, placeOfNode, wantsBackup, type LiveGap } from '../cluster/gaps.ts';
import { readBranch, type Branch } from './branch.ts';
import { readGaps } from './gap-rows.ts';
import { listRows, readControl, type Cluster } from './cluster.ts';
import { relayLag } from './relay-lag.ts';
import { segmentsBehind } from './segments-behind.ts';
import { readWitnessRow, witnessFacts } from './witness-facts.ts';

export type Status = {
  cluster: string;
  systemIdentifier: string;
  epoch: number;
  primary: string | null;
  archiving: boolean;
  /** Since when it is on or off; null: since the vault was made. */
  archivingAt: string | null;
  /** The trigger whose promotion is not open yet; null: none, or spent. */
  trigger: { mode: TriggerMode | 'claim'; to: string; epoch: number; at: string } | null;
  timeline: number;
  /** Head of the live timeline. */
  lastSegment: string | null;
  lastArchivedAt: string | null;
  gaps: { from: string; to: string; at: string; reason: string }[];
  /** The newest gap of the live branch, while no complete backup begins after it; null: none is needed. */
  backupNeeded: { since: string; from: string; to: string; reason: string } | null;
  nodes: NodeStatus[];
  backups: {
    id: string;
    state: string;
    startSegment: string;
    stopSegment: string | null;
    sizeBytes: number;
    storedBytes: number;
  }[];
  /** This vault, by the URL it was reached by. */
  vault: { id: string; url: string; role: Control['role'] };
  /** Where a replica's rows come from; null: this vault is active. */
  source: VaultRef | null;
  /** The vault whose place this one took, until that one knows it. */
  supersedes: Control['supersedes'];
  supersededBy: Control['supersededBy'];
  /** The replica to which the primary may spill (dr_vault). */
  direct: VaultRef | null;
  relays: RelayStatus[];
  /** Of the primary; null: it runs without one. */
  lease: { node: string; ms: number; watchdog: string; renewals: number } | null;
  /** Servers are stopped on purpose, until then; null: nobody says so. */
  maintenance: Maintenance | null;
  /** What the witness that looked last saw; null: none ever did. */
  witness: WitnessStatus | null;
  /** What would become of the cluster if its primary died now, by the policy of that witness. */
  ifPrimaryDied: { do: 'nothing' | 'warn' | 'trigger'; to: string | null; why: string; reasons: string[] };
  /** What waits in a replica until the active vault has taken it over; null: nothing. */
  spills: { files: number; node: string; epoch: number; firstLsn: string; lsn: string; at: string } | null;
};

export type WitnessStatus = Pick<
  WitnessRow,
  'by' | 'at' | 'everyMs' | 'policy' | 'watches' | 'decision' | 'lastFailover'
>;

/**
 * What a relay said last of its way `to` another vault, or `from` it. Of a way `to`, rows, bytes and seconds are reckoned anew, from the
 * place that it said last to this vault's head: a relay that is dead tells no lag by itself.
 */
export type RelayStatus = Pick<
  RelayRow,
  'direction' | 'vault' | 'lsn' | 'rows' | 'bytes' | 'seconds' | 'at' | 'trouble'
>;

export type NodeStatus = {
  name: string;
  role: 'primary' | 'standby' | 'fenced' | 'unknown';
  /** Of a standby; null: not known (it was made before modes were). */
  mode: StandbyMode | null;
  heartbeatAt: string | null;
  lastRestored: string | null;
  restartPoint: string | null;
  /** Rows of the live branch after lastRestored; null: not known (nothing restored yet, or not on the live branch). */
  lagSegments: number | null;
  /** Age of the oldest row not restored; 0: none. */
  lagSeconds: number | null;
  trouble: string | null;
};

/** @param now  for ages @throws VaultError unreachable */
export async function readStatus(cluster: Cluster, now: Date = new Date()): Promise<Status> {
  const control = await readControl(cluster);
  const branch = await readBranch(cluster);
  const { head } = branch;
  const pending = head.promotion !== null && head.promotion.state !== 'open' ? head.promotion : null;
  const nodes: NodeStatus[] = [];
  const nodeRows = await listRows<NodeRow>(cluster, 'node#');
  for (const node of nodeRows) nodes.push(await nodeStatus(cluster, branch, control.primary, node, now));
  const gaps = await readGaps(cluster, head);
  const live = liveGaps(gaps, branch.lineage, cluster.segmentSize);
  const backups = await listRows<BackupRow>(cluster, 'backup#');
  return {
    cluster: cluster.name,
    systemIdentifier: cluster.systemIdentifier,
    epoch: control.epoch,
    primary: control.primary,
    archiving: control.archiving,
    archivingAt: control.archivingAt ?? null,
    trigger: pending && { mode: pending.mode, to: pending.node, epoch: pending.epoch, at: pending.at },
    timeline: head.timeline,
    lastSegment: head.lastFile,
    lastArchivedAt: head.lastArchivedAt,
    backupNeeded: backupNeeded(wantsBackup(live, branch.lineage, backups)),
    gaps: gaps.map(({ from, to, at, reason }) => ({ from, to, at, reason })),
    nodes: nodes.map((status, index) => withGap(status, live, nodeRows[index]!, cluster.segmentSize)),
    backups: backups.map(({ id, state, startSegment, stopSegment, sizeBytes, storedBytes }) => ({
      id,
      state,
      startSegment,
      stopSegment,
      sizeBytes,
      storedBytes,
    })),
    vault: { id: control.vaultId, url: cluster.vault.url, role: control.role },
    source: control.source,
    supersedes: control.supersedes,
    supersededBy: control.supersededBy,
    direct: control.direct,
    relays: await relaysOf(cluster, branch, now),
    spills: spillsOf(head),
    ...(await witnessed(cluster, { control, branch, nodes: nodeRows, live }, now)),
  };
}

/** A node that said something within this time counts as alive for what would happen; a witness goes by what it sees move. */
const HEARD_MS = 60_000;

async function witnessed(
  cluster: Cluster,
  read: Parameters<typeof witnessFacts>[1],
  now: Date,
): Promise<Pick<Status, 'lease' | 'maintenance' | 'witness' | 'ifPrimaryDied'>> {
  const facts = await witnessFacts(cluster, read);
  const row = await readWitnessRow(cluster);
  const { control, primary, standbys } = facts;
  const lease = leaseOf(control, primary);
  const heard = new Set(
    standbys
      .filter(
        ({ row: { heartbeatAt } }) => Math.abs(now.getTime() - Date.parse(heartbeatAt ?? '')) < HEARD_MS,
      )
      .map(({ row: { name } }) => name),
  );
  const { maintenance } = control;
  return {
    lease: lease === undefined ? null : { node: control.primary ?? '', ...pick(lease) },
    maintenance: maintenance && Date.parse(maintenance.until) > now.getTime() ? maintenance : null,
    witness: row === undefined ? null : watched(row),
    ifPrimaryDied: foresee(facts, heard, row, now.getTime()),
  };
}

const pick = ({ ms, watchdog, count }: Lease) => ({ ms, watchdog, renewals: count });

function watched({ by, at, everyMs, policy, watches, decision, lastFailover }: WitnessRow): WitnessStatus {
  return { by, at, everyMs, policy, watches, decision, lastFailover };
}

function backupNeeded(gap: LiveGap | undefined): Status['backupNeeded'] {
  if (gap === undefined) return null;
  const { from, to, at, reason } = gap;
  return { since: at, from, to, reason };
}

/** A standby that stands before a gap never gets past it. It says nothing of that itself: a trigger that accepts the gap may name it. */
function withGap(
  status: NodeStatus,
  live: readonly LiveGap[],
  row: NodeRow,
  segmentSize: number,
): NodeStatus {
  if (status.role !== 'standby' || status.trouble !== null) return status;
  const gap = gapAfter(live, placeOfNode(row, segmentSize));
  if (gap === undefined) return status;
  return {
    ...status,
    trouble: `stands before a declared gap, ${gapText(gap)} (${gap.reason}), and cannot go past it: make it anew by 'walvault standby create'`,
  };
}

async function relaysOf(cluster: Cluster, branch: Branch, now: Date): Promise<RelayStatus[]> {
  const relays: RelayStatus[] = [];
  for (const row of await listRows<RelayRow>(cluster, 'relay#')) {
    const { direction, vault, lsn, at, trouble } = row;
    const lag = direction === 'to' ? await relayLag({ ...branch, cluster }, { head: row }, now) : row;
    const { rows, bytes, seconds } = lag;
    relays.push({ direction, vault, lsn, rows, bytes, seconds, at, trouble });
  }
  return relays;
}

function spillsOf({ spill }: Head): Status['spills'] {
  if (spill === null) return null;
  const { files, epoch, firstLsn, lsn, at } = spill;
  return { files, node: spill.writer.node, epoch, firstLsn, lsn, at };
}

async function nodeStatus(
  cluster: Cluster,
  branch: Branch,
  primary: string | null,
  node: NodeRow,
  now: Date,
): Promise<NodeStatus> {
  const { name, heartbeatAt, lastRestored, restartPoint, trouble } = node;
  // Its last word was "primary", but the epoch names another: it may be down, or not know it yet.
  const role: NodeStatus['role'] = node.role === 'primary' && name !== primary ? 'fenced' : node.role;
  const mode = role === 'standby' ? (node.mode ?? null) : null;
  const base = { name, role, mode, heartbeatAt, lastRestored, restartPoint, trouble };
  if (name === primary) return { ...base, lagSegments: 0, lagSeconds: 0 };
  const lag = segmentsBehind(branch, lastRestored, cluster.segmentSize);
  if (lag === null) return { ...base, lagSegments: null, lagSeconds: null };
  if (lag.count === 0 || lag.next === null) return { ...base, lagSegments: 0, lagSeconds: 0 };
  const row = (await cluster.vault.manifest.get(keys.wal(cluster.partition, lag.next))) as WalRow | undefined;
  const ageMs = row ? now.getTime() - Date.parse(row.archivedAt) : null;
  return {
    ...base,
    lagSegments: lag.count,
    lagSeconds: ageMs === null ? null : Math.max(0, Math.round(ageMs / 1000)),
  };
}
