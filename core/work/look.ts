/**
 * A look at one cluster for the notify function: what its manifest says, what is to be told of it, and what the next look has to know.
 * Notices are written down with that before they are told, so that none is lost or made twice by a destination that does not answer.
 */
import {
  decideLook,
  NO_LOOK,
  type LookFacts,
  type LookFigures,
  type LookLimits,
  type LookState,
} from '../cluster/decide-look.ts';
import { keys, type NodeRow, type RelayRow } from '../cluster/facts.ts';
import type { Notice } from '../cluster/notice.ts';
import { readBranch } from './branch.ts';
import { asRow, listRows, readControl, type Cluster } from './cluster.ts';
import { relayLag } from './relay-lag.ts';
import { expiryOf, tellOnce, type Destination } from './tell-once.ts';

/** pk #notices#<cluster>, sk look. */
type LookRow = {
  pk: string;
  sk: string;
  rev: number;
  state: LookState;
  /** To be told. */
  pending: Notice[];
  expiresAt: number;
};

/** Kept for a destination that does not answer for long; what is older is given up. */
const PENDING = 50;

/**
 * @returns what was measured, and what was told
 * @throws VaultError unreachable | corrupt; what a destination throws
 */
export async function lookAt(
  cluster: Cluster,
  options: {
    limits: LookLimits;
    destinations: readonly Destination[];
    now: Date;
    onFigures?: (figures: LookFigures) => void;
  },
): Promise<{ figures: LookFigures; notices: Notice[] }> {
  const { manifest } = cluster.vault;
  const key = keys.notice(cluster.name, 'look');
  const seen = (await manifest.get(key)) as LookRow | undefined;
  const facts = await readFacts(cluster, options.now);
  const { notices, state, figures } = decideLook(seen?.state ?? NO_LOOK, facts, options.limits, options.now);
  options.onFigures?.(figures);
  const expiresAt = expiryOf(options.now.getTime());
  const row: LookRow = {
    ...{ ...key, rev: (seen?.rev ?? 0) + 1, state, expiresAt },
    pending: [...(seen?.pending ?? []), ...notices].slice(-PENDING),
  };
  const when = seen === undefined ? 'absent' : { rev: seen.rev };
  const written = await manifest.transact([{ do: 'put', row: asRow(row), when }]);
  // Another look was faster, and tells what there is to tell.
  if (!written.done) return { figures, notices: [] };
  const left: Notice[] = [];
  let failure: unknown;
  for (const notice of row.pending) {
    try {
      await tellOnce(manifest, notice, options.destinations);
    } catch (error) {
      failure ??= error;
      left.push(notice);
    }
  }
  if (left.length < row.pending.length) {
    const next: LookRow = { ...row, rev: row.rev + 1, pending: left };
    // A condition that fails: the next look has them too, and finds their marks.
    await manifest.transact([{ do: 'put', row: asRow(next), when: { rev: row.rev } }]);
  }
  if (failure !== undefined) throw failure;
  return { figures, notices: row.pending };
}

/** A replica says nothing of relays: what it lacks is known where it is taken from. */
async function readFacts(cluster: Cluster, now: Date): Promise<LookFacts> {
  const control = await readControl(cluster);
  const nodes = await listRows<NodeRow>(cluster, 'node#');
  const replicas: LookFacts['replicas'][number][] = [];
  if (control.role === 'active') {
    const source = { ...(await readBranch(cluster)), cluster };
    const { direct } = control;
    // also one from which rows came last: it is to be a replica now, and no relay has turned round yet
    const relays = await listRows<RelayRow>(cluster, 'relay#');
    for (const row of relays) {
      const { rows, seconds } = await relayLag(source, { head: row }, now);
      const { vault, at, trouble } = row;
      replicas.push({ ...vault, rows, seconds, at, trouble });
    }
    // armed, and no relay ever ran: it lacks everything
    if (direct !== null && relays.every(({ vault }) => vault.id !== direct.id)) {
      const nothing = { timeline: source.lineage[0]!.timeline, lsn: null };
      const { rows, seconds } = await relayLag(source, { head: nothing }, now);
      replicas.push({ ...direct, rows, seconds, at: null, trouble: null });
    }
  }
  return { cluster: cluster.name, vault: cluster.vault.url, control, nodes, replicas };
}
