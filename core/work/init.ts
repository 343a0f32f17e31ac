/**
 * The first step of a cluster: `control` and `head` in a new vault, epoch 1, one primary. Doing it again with the same database
 * changes nothing.
 */
import { VaultError } from '../errors.ts';
import { decideUpgrade } from '../cluster/decide-upgrade.ts';
import { FORMAT, keys, type Control, type Head, type HistoryRow, type NodeRow } from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import type { Vault } from '../vault/vault.ts';
import { parseHistory } from '../wal/history.ts';
import { formatLsn } from '../wal/lsn.ts';
import { historyName } from '../wal/name.ts';
import {
  asRow,
  changing,
  clusterOf,
  eventChange,
  newId,
  objectKeys,
  openCluster,
  readHead,
  type Cluster,
} from './cluster.ts';
import { entryChange, registerCluster } from './cluster-list.ts';
import { newNonce, type WriterStore } from './writer.ts';
import { newNodeRow } from './heartbeat.ts';
import { sha256Of } from './store-file.ts';

export type InitRequest = {
  cluster: string;
  /** The primary. */
  node: string;
  place: string;
  store: WriterStore;
  systemIdentifier: string;
  /** Bytes. */
  segmentSize: number;
  majorVersion: number;
  /** The timeline the database is on, with the histories that its pg_wal holds (of that timeline and its ancestors). */
  timeline: number;
  histories: { timeline: number; text: string }[];
};

/**
 * @returns the cluster, and whether it was made now ('made') or was there already with this database and primary ('there')
 * @throws VaultError refused (the name belongs to another database, or has another primary) | unreachable
 */
export async function initCluster(
  vault: Vault,
  request: InitRequest,
): Promise<{ cluster: Cluster; was: 'made' | 'there' }> {
  const at = new Date().toISOString();
  const control: Control = {
    ...keys.control(request.cluster),
    rev: 1,
    format: FORMAT,
    vaultId: newId(),
    systemIdentifier: request.systemIdentifier,
    segmentSize: request.segmentSize,
    majorVersion: request.majorVersion,
    epoch: 1,
    reign: 1,
    primary: request.node,
    archiving: true,
    role: 'active',
    source: null,
    supersedes: null,
    supersededBy: null,
    direct: null,
    trigger: null,
  };
  const cluster = clusterOf(vault, request.cluster, control);
  const there = (await vault.manifest.get(keys.control(request.cluster))) as Control | undefined;
  if (there) {
    const known = checkThere(vault, there, request);
    await registerCluster(known);
    return { cluster: known, was: 'there' };
  }

  const { head, node, histories } = await firstRows(cluster, request, control.epoch, at);
  await putControlObject(cluster, control);
  takeSeat(request.store);
  const changes: Change[] = [
    { do: 'put', row: asRow(control), when: 'absent' },
    { do: 'put', row: asRow(head), when: 'absent' },
    { do: 'put', row: asRow(node), when: 'any' },
    entryChange(cluster),
    ...histories.map((row): Change => ({ do: 'put', row: asRow(row), when: 'any' })),
    eventChange(cluster, {
      at,
      kind: 'init',
      node: request.node,
      epoch: 1,
      text: `cluster ${request.cluster} made, primary ${request.node}`,
    }),
  ];
  const outcome = await vault.manifest.transact(changes);
  if (outcome.done) return { cluster, was: 'made' };
  const now = (await vault.manifest.get(keys.control(request.cluster))) as Control | undefined;
  if (now) return { cluster: checkThere(vault, now, request), was: 'there' };
  throw new VaultError(
    'refused',
    `the manifest of ${vault.url} holds rows of ${cluster.partition} but no control row of ${request.cluster}`,
    {
      hint: `use another --cluster name, or another table`,
    },
  );
}

/** Head, primary and histories of a database that archives into this vault for the first time. */
async function firstRows(
  cluster: Cluster,
  request: InitRequest,
  epoch: number,
  at: string,
): Promise<{ head: Head; node: NodeRow; histories: HistoryRow[] }> {
  const histories: HistoryRow[] = [];
  for (const { timeline, text } of request.histories)
    histories.push(await historyOf(cluster, request, timeline, text, { epoch, at }));
  if (request.timeline > 1 && !histories.some((row) => row.timeline === request.timeline)) {
    throw new VaultError(
      'pgdata',
      `the database is on timeline ${request.timeline}, but ${historyName(request.timeline)} is not in its pg_wal`,
      {
        hint: `put the history file back from your archive, then run this again`,
      },
    );
  }
  const head: Head = {
    ...keys.head(cluster.partition),
    rev: 1,
    epoch,
    timeline: request.timeline,
    lsn: null,
    firstLsn: null,
    lastFile: null,
    lastArchivedAt: null,
    lastTimeline: request.timeline,
    writer: null,
    promotion: null,
    flush: null,
    tail: null,
    spill: null,
  };
  const node: NodeRow = { ...newNodeRow(cluster, request.node), role: 'primary', place: request.place };
  return { head, node, histories };
}

/** A writer state that can take up this epoch; one of it that is there already is this node's own and stays. */
function takeSeat(store: WriterStore, epoch = 1): void {
  const there = store.read();
  if (there === undefined || there.epoch < epoch) store.write({ epoch, nonce: newNonce(), next: null });
}

function checkThere(vault: Vault, there: Control, request: InitRequest): Cluster {
  if (there.systemIdentifier !== request.systemIdentifier) {
    throw new VaultError(
      'refused',
      `cluster ${request.cluster} belongs to system identifier ${there.systemIdentifier}, this database is ${request.systemIdentifier}`,
      {
        hint: `choose another --cluster name for this database`,
      },
    );
  }
  if (there.primary !== request.node) {
    throw new VaultError(
      'refused',
      `cluster ${request.cluster} has ${there.primary ?? 'no'} primary in epoch ${there.epoch}, not ${request.node}`,
      {
        hint: `make this one a standby ('walvault standby create'), or run 'walvault claim' if it is the one true primary`,
      },
    );
  }
  if (there.epoch === 1) takeSeat(request.store);
  return clusterOf(vault, request.cluster, there);
}

async function historyOf(
  cluster: Cluster,
  request: InitRequest,
  timeline: number,
  text: string,
  { epoch, at }: { epoch: number; at: string },
): Promise<HistoryRow> {
  const parent = parseHistory(text).at(-1);
  if (parent === undefined)
    throw new VaultError('pgdata', `${historyName(timeline)} names no parent timeline`);
  const bytes = Buffer.from(text);
  const key = objectKeys.history(cluster, historyName(timeline).slice(0, 8), sha256Of(bytes));
  await cluster.vault.bucket.putOnce(key, bytes);
  return {
    ...keys.history(cluster.partition, timeline),
    rev: 1,
    text,
    timeline,
    parent: parent.timeline,
    forkLsn: formatLsn(parent.forkLsn),
    node: request.node,
    epoch,
    forkSegmentWhole: false,
    key,
    archivedAt: at,
  };
}

/** `before`: system identifier of the generation that it follows. */
export type Upgraded = { cluster: Cluster; was: 'made' | 'there'; before: string | null };

/**
 * A new generation of a cluster: the database that pg_upgrade made takes the place of the old one, in the next epoch. Doing it again
 * changes nothing.
 *
 * @throws VaultError refused (decideUpgrade) | unconfigured (no such cluster) | unreachable
 */
export async function upgradeCluster(vault: Vault, request: InitRequest): Promise<Upgraded> {
  const at = new Date().toISOString();
  const old = await openCluster(vault, request.cluster);
  return changing<Upgraded>(
    async () => {
      const control = (await vault.manifest.get(keys.control(request.cluster))) as unknown as Control;
      const now = clusterOf(vault, request.cluster, control);
      const head = await readHead(now);
      const decision = decideUpgrade(control, head, request);
      if (decision.do === 'refuse')
        throw new VaultError(decision.code, decision.message, { hint: decision.hint });
      if (decision.do === 'there') {
        // an answer that was lost, or a second run: what was written before the first commit is its own
        if (head.writer === null) takeSeat(request.store, control.epoch);
        return { result: { cluster: now, was: 'there', before: control.generations?.at(-1) ?? null } };
      }
      const next = decision.control;
      const cluster = clusterOf(vault, request.cluster, next);
      const rows = await firstRows(cluster, request, next.epoch, at);
      await putControlObject(cluster, next);
      takeSeat(request.store, next.epoch);
      const text = `${request.cluster} goes on as PostgreSQL ${next.majorVersion} with system identifier ${next.systemIdentifier}, in epoch ${next.epoch} with primary ${request.node}; the generation before, ${old.systemIdentifier}, stays as it is`;
      const event = { at, kind: 'upgrade' as const, node: request.node, epoch: next.epoch, text };
      return {
        result: { cluster, was: 'made', before: control.systemIdentifier },
        changes: [
          { do: 'put', row: asRow(next), when: { rev: control.rev } },
          { do: 'put', row: asRow(rows.head), when: 'absent' },
          { do: 'put', row: asRow(rows.node), when: 'any' },
          entryChange(cluster),
          ...rows.histories.map((row): Change => ({ do: 'put', row: asRow(row), when: 'any' })),
          eventChange(cluster, event),
          eventChange(now, event),
        ],
      };
    },
    (changes) => vault.manifest.transact(changes),
  );
}

/** Each change of epoch is first an object that is never overwritten: a lost table learns the highest epoch from them. */
export async function putControlObject(cluster: Cluster, control: Control): Promise<void> {
  const key = objectKeys.control(cluster.name, control.epoch, newId());
  await cluster.vault.bucket.putOnce(key, Buffer.from(JSON.stringify(control, undefined, 2)));
}
