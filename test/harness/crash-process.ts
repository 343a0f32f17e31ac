/**
 * A job on vaults as a process of its own, to be killed at a crash point: `node crash-process.ts <job> <cluster> <vault URL>...`
 */
import { VaultError } from '../../core/errors.ts';
import { openVault } from '../../core/vault/open-vault.ts';
import { announceArrivals } from '../../core/work/announce.ts';
import { openCluster, type Cluster } from '../../core/work/cluster.ts';
import { converge } from '../../core/work/converge.ts';
import { ORPHAN_MS } from '../../core/work/orphans.ts';
import { claimRole } from '../../core/work/promotion.ts';
import { runRetention } from '../../core/work/retention.ts';
import { adoptSpills, setAsideSpills } from '../../core/work/spill.ts';
import { takeOver } from '../../core/work/takeover.ts';
import { seatOf } from './fake-node.ts';

const DAY = 86_400_000;

const jobs = {
  /** Keeps one backup, at a time when what lies there without a row counts as an orphan. */
  retention: (cluster: Cluster) =>
    runRetention(
      cluster,
      {
        ...{ keepBackups: 1, keepDays: 0, pitrWindowMs: 0 },
        ...{ nodeLeaseMs: 3 * DAY, relayLeaseMs: 3 * DAY },
      },
      { now: new Date(Date.now() + ORPHAN_MS + 60_000) },
    ),
  /** The replica takes over for dr1, with the other vault silent. */
  'take-over': (replica: Cluster) =>
    takeOver(replica, () => Promise.reject(new VaultError('unreachable', 'it does not answer')), {
      ...{ mode: 'smart', to: 'dr1', unfenced: true },
    }),
  /** First the vault that is active, then the one whose place it took. */
  converge: (active: Cluster, other?: Cluster) => converge(active, other!),
  adopt: (replica: Cluster) => adoptSpills(replica),
  'set-aside': (replica: Cluster) => setAsideSpills(replica),
  /** db2, promoted by others in front of segment 4, claims the epoch. */
  claim: (cluster: Cluster) =>
    claimRole(cluster, seatOf('db2'), {
      timeline: 2,
      historyText: '1\t0/400000\tno recovery target specified\n',
    }),
  announce: (replica: Cluster) => announceArrivals(replica, async () => {}),
} as const;

export type CrashJob = keyof typeof jobs;

if (process.argv[1] === import.meta.filename) {
  const [job, name = '', ...urls] = process.argv.slice(2);
  const clusters: Cluster[] = [];
  for (const url of urls) clusters.push(await openCluster(await openVault(url), name));
  await jobs[job as CrashJob](clusters[0]!, clusters[1]);
  for (const { vault } of clusters) await vault.close();
}
