/**
 * What a node says of itself: its row in the manifest, every few seconds. A primary's heartbeat also swaps the nonce in `head`, so that
 * a copy of it is found even while nothing is archived.
 */
import { VaultError } from '../errors.ts';
import { decideWriter } from '../cluster/decide-archive.ts';
import { keys, type NodeRow } from '../cluster/facts.ts';
import { asRow, changing, readControl, readHead, type Cluster, readNode } from './cluster.ts';
import { inTurn, newNonce, settle, writerOf, type WriterSeat } from './writer.ts';

/** Everything in a node's row that the node itself reports; absent members keep their value. */
export type NodeReport = { name: string } & Partial<
  Omit<NodeRow, 'pk' | 'sk' | 'rev' | 'name' | 'heartbeatAt' | 'registeredAt'>
>;

export function newNodeRow(cluster: Cluster, name: string): NodeRow {
  return {
    ...keys.node(cluster.partition, name),
    rev: 1,
    name,
    role: 'unknown',
    heartbeatAt: null,
    walvaultVersion: null,
    postgresVersion: null,
    place: null,
    lastArchived: null,
    lastRestored: null,
    lastReplayedLsn: null,
    restartPoint: null,
    consistent: false,
    trouble: null,
  };
}

/**
 * Writes the node's row with the present time.
 *
 * @param isTrue  false by the time the row was read: the node has become something else, and this is no news of it any more
 * @throws VaultError unreachable | busy
 */
export async function reportNode(
  cluster: Cluster,
  report: NodeReport,
  heartbeatAt: string | null = new Date().toISOString(),
  isTrue: () => boolean = () => true,
): Promise<void> {
  const { manifest } = cluster.vault;
  await changing(
    async () => {
      const seen = await readNode(cluster, report.name);
      if (!isTrue()) return { result: undefined };
      const row: NodeRow = {
        ...(seen ?? newNodeRow(cluster, report.name)),
        ...report,
        heartbeatAt,
        ...(heartbeatAt === null ? { registeredAt: new Date().toISOString() } : {}),
        rev: (seen?.rev ?? 0) + 1,
      };
      return {
        changes: [{ do: 'put', row: asRow(row), when: seen ? { rev: seen.rev } : 'absent' }],
        result: undefined,
      };
    },
    (changes) => manifest.transact(changes),
  );
}

/**
 * The heartbeat: the node's row and, where `seat` is given (a primary), the nonce.
 *
 * @throws VaultError fenced | copied | refused (a primary that may not write any more; its row is written all the same) | unreachable
 */
export async function heartbeat(cluster: Cluster, report: NodeReport, seat?: WriterSeat): Promise<void> {
  await reportNode(cluster, report);
  if (seat) await swapNonce(cluster, seat);
}

/** The part of a primary's heartbeat that finds a copy of it. @throws VaultError as heartbeat */
export function swapNonce(cluster: Cluster, seat: WriterSeat): Promise<void> {
  return inTurn(seat, () => swapOnce(cluster, seat));
}

async function swapOnce(cluster: Cluster, seat: WriterSeat): Promise<void> {
  const { manifest } = cluster.vault;
  await changing(
    async () => {
      const control = await readControl(cluster);
      const head = await readHead(cluster);
      const before = settle(seat.store.read() ?? { epoch: 0, nonce: '', next: null }, head);
      const refusal = decideWriter(control, head, writerOf(seat, before));
      if (refusal) throw new VaultError(refusal.code, refusal.message, { hint: refusal.hint });
      const nonce = before.next ?? newNonce();
      seat.store.write({ ...before, epoch: control.epoch, next: nonce });
      return {
        changes: [
          { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
          {
            do: 'put',
            row: asRow({ ...head, rev: head.rev + 1, writer: { node: seat.node, nonce, place: seat.place } }),
            when: { rev: head.rev },
          },
        ],
        result: undefined,
      };
    },
    (changes) => manifest.transact(changes),
  );
}
