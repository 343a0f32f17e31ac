/**
 * A target of a promotion outlasts the lease of the old primary: until that node has said that its server is stopped, or the time is over by
 * what the target itself saw go by. From the trigger's commit on nobody renews that lease, so it ends no later than it would have then.
 */
import { keys, type Control, type Head, type NodeRow, type Promotion } from '../cluster/facts.ts';
import { leaseToOutlast } from '../cluster/lease.ts';
import type { Change } from '../vault/manifest.ts';
import { asRow, readControl, type Cluster, readNode } from './cluster.ts';

/** Between two looks at the old primary's row, ms. */
const LOOK_MS = 250;

export class OldLease {
  #id: string | undefined;
  #since = 0;
  #lookedAt = -Infinity;
  #isOver = false;

  /** Asked again and again by one process. @returns undefined: it is over, or there was none; else why the promotion waits */
  async waitsFor(
    cluster: Cluster,
    { id, after }: Pick<Promotion, 'id' | 'after'>,
  ): Promise<string | undefined> {
    if (after === undefined) return undefined;
    const now = performance.now();
    if (this.#id !== id) [this.#id, this.#since, this.#isOver] = [id, now, false];
    if (!this.#isOver && now - this.#since >= after.ms) this.#isOver = true;
    if (!this.#isOver && now - this.#lookedAt >= LOOK_MS) {
      this.#lookedAt = now;
      const row = await readNode(cluster, after.node);
      this.#isOver = row?.lease?.released === true;
    }
    const leftMs = after.ms - (now - this.#since);
    return this.#isOver
      ? undefined
      : `the lease of ${after.node} may run for ${Math.ceil(leftMs / 1000)} s; it is waited for, or for ${after.node}'s word that it has stopped`;
  }
}

/**
 * What a target has to outlast of the primary that is about to be fenced, by these very rows.
 *
 * @param isOver  whoever fences knows that its server is down
 * @returns checks  for the transaction that fences: a lease that was renewed since this look, perhaps for the first time, lets it fail
 */
export async function leaseLeft(
  cluster: Cluster,
  control: Control,
  head: Head,
  isOver: boolean,
): Promise<{ after: Promotion['after']; checks: Change[] }> {
  if (isOver || control.primary === null) return { after: undefined, checks: [] };
  const row = await readNode(cluster, control.primary);
  const when = row === undefined ? 'absent' : { rev: row.rev };
  return {
    after: leaseToOutlast(control, head, row, false),
    checks: [{ do: 'check', key: keys.node(cluster.partition, control.primary), when }],
  };
}

/**
 * The server of this node is stopped: where another was named before, that one need not wait for the lease. While this node is the primary by the
 * vault's word nothing is released: a witness counts on what stands there.
 *
 * @throws VaultError unreachable …
 */
export async function releaseLease(cluster: Cluster, node: string): Promise<boolean> {
  const { manifest } = cluster.vault;
  const control = await readControl(cluster);
  if (control.primary === node) return false;
  const row = await readNode(cluster, node);
  if (!row?.lease || row.lease.released === true) return false;
  const released: NodeRow = { ...row, rev: row.rev + 1, lease: { ...row.lease, released: true } };
  const outcome = await manifest.transact([{ do: 'put', row: asRow(released), when: { rev: row.rev } }]);
  return outcome.done;
}
