/**
 * A cluster as a witness sees it: a primary that renews a short lease until the test lets it die, and a standby that is level and reports on.
 * The vault is real; the servers are played.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { EventRow } from '../../core/cluster/facts.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { listRows, readControl, type Cluster } from '../../core/work/cluster.ts';
import { reportNode } from '../../core/work/heartbeat.ts';
import { renewLease } from '../../core/work/lease.ts';
import { newCluster, newStandby, segment, type FakeNode } from './fake-node.ts';

/** The shortest that there is. */
export const LEASE_MS = 3000;
const BEAT_MS = 200;

export class WitnessedCluster {
  readonly cluster: Cluster;
  readonly db1: FakeNode;
  private readonly beats = new Map<string, () => Promise<unknown>>();
  private readonly living = new Map<string, { over: boolean; ended: Promise<void> }>();

  private constructor(db1: FakeNode) {
    this.db1 = db1;
    this.cluster = db1.cluster;
  }

  /** Both nodes live. @param leaseMs  0: none */
  static async open(vault: Vault, name: string, leaseMs = LEASE_MS): Promise<WitnessedCluster> {
    const db1 = await newCluster(vault, name);
    for (const number of [1, 2]) await db1.archive(segment(1, number));
    const site = new WitnessedCluster(db1);
    await site.lead(db1, leaseMs);
    await site.follow('db2', site.cluster);
    return site;
  }

  /** The primary. @param leaseMs  0: none */
  async lead({ cluster, seat }: FakeNode, leaseMs = LEASE_MS): Promise<void> {
    const report = { name: seat.node, role: 'primary' } as const;
    this.beats.set(seat.node, () =>
      leaseMs === 0
        ? reportNode(cluster, report)
        : renewLease(cluster, seat, report, { ms: leaseMs, watchdog: 'process' }),
    );
    await this.live(seat.node);
  }

  /** A standby of this vault, or of a replica. */
  async follow(node: string, cluster: Cluster): Promise<void> {
    await newStandby(cluster, node);
    const report = { name: node, role: 'standby', consistent: true, lastRestored: segment(1, 2) } as const;
    this.beats.set(node, () => reportNode(cluster, report));
    await this.live(node);
  }

  /** The first report is there when this returns. */
  async live(node = 'db1'): Promise<void> {
    const beat = this.beats.get(node)!;
    await beat();
    const life = { over: false, ended: Promise.resolve() };
    life.ended = (async () => {
      while (!life.over) {
        await sleep(BEAT_MS);
        if (!life.over) await beat().catch(() => {}); // of a primary that another has taken the place of
      }
    })();
    this.living.set(node, life);
  }

  async die(node = 'db1'): Promise<void> {
    const life = this.living.get(node);
    if (life === undefined) return;
    life.over = true;
    await life.ended;
  }

  async events(kind: EventRow['kind'], of = this.cluster): Promise<EventRow[]> {
    return (await listRows<EventRow>(of, 'event#')).filter((event) => event.kind === kind);
  }

  async standing(of = this.cluster): Promise<{ epoch: number; primary: string | null }> {
    const { epoch, primary } = await readControl(of);
    return { epoch, primary };
  }

  async close(): Promise<void> {
    await Promise.all([...this.living.keys()].map((node) => this.die(node)));
  }
}
