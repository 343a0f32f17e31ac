/**
 * The nodes of a cluster as a register: who is expected (`node add`), who is there (`node list`), who is gone for good
 * (`node drop`). A row that was added holds no WAL and is no target until its standby reports.
 */
import { VaultError } from '../errors.ts';
import { keys, type HoldsRow, type NodeRow } from '../cluster/facts.ts';
import { type Change } from '../vault/manifest.ts';
import {
  asRow,
  changing,
  eventRow,
  listRows,
  readControl,
  readHead,
  type Cluster,
  readNode,
} from './cluster.ts';
import { newNodeRow } from './heartbeat.ts';
import { readHolds } from './holds.ts';
import { readStatus, type NodeStatus } from './status.ts';

/** A heartbeat younger than this is of an agent that runs and would put its row back, in ms. */
const FRESH_MS = 30_000;

/**
 * Writes the row of a node that shall come.
 *
 * @returns 'there': it was added before and has never reported; asking again is fine
 * @throws VaultError refused (a node of this name is at work) | unreachable
 */
export async function addNode(cluster: Cluster, node: string): Promise<'added' | 'there'> {
  const { manifest } = cluster.vault;
  const key = keys.node(cluster.partition, node);
  return changing<'added' | 'there'>(
    async () => {
      const control = await readControl(cluster);
      const seen = (await manifest.get(key)) as NodeRow | undefined;
      if (seen !== undefined || control.primary === node) {
        if (
          seen?.role === 'unknown' &&
          seen.place === null &&
          seen.trouble === null &&
          control.primary !== node
        )
          return { result: 'there' };
        throw new VaultError(
          'refused',
          `cluster ${cluster.name} has a node ${node} already${seen?.place ? `, at ${seen.place}` : ''}`,
          { hint: `Choose another name, or take the old one out first: 'walvault node drop ${node}'.` },
        );
      }
      const at = new Date().toISOString();
      const event = {
        at,
        kind: 'node-add' as const,
        node,
        epoch: control.epoch,
        text: `node ${node} was added`,
      };
      return {
        result: 'added',
        changes: [
          { do: 'put', row: asRow(newNodeRow(cluster, node)), when: 'absent' },
          { do: 'put', row: asRow(eventRow(cluster, event)), when: 'absent' },
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}

/** Where the primary says that its data lies: what a new node most likely uses too. */
export async function primaryPgdata(cluster: Cluster): Promise<string | undefined> {
  const { primary } = await readControl(cluster);
  if (primary === null) return undefined;
  const row = (await cluster.vault.manifest.get(keys.node(cluster.partition, primary))) as
    NodeRow | undefined;
  return row?.place?.replace(/^[^:]*:/, '');
}

export type ListedNode = NodeStatus & {
  /** Age of the last heartbeat, in whole seconds; null: it never reported. */
  heartbeatAgeSeconds: number | null;
  walvaultVersion: string | null;
  postgresVersion: string | null;
  /** host:pgdata */
  place: string | null;
  library: string | null;
};

/** @param now  for ages */
export async function listNodes(cluster: Cluster, now: Date = new Date()): Promise<ListedNode[]> {
  const status = await readStatus(cluster, now);
  const rows = new Map((await listRows<NodeRow>(cluster, 'node#')).map((row) => [row.name, row]));
  return status.nodes.map((node) => {
    const row = rows.get(node.name);
    const ageMs = node.heartbeatAt === null ? null : now.getTime() - Date.parse(node.heartbeatAt);
    return {
      ...node,
      heartbeatAgeSeconds: ageMs === null ? null : Math.max(0, Math.round(ageMs / 1000)),
      walvaultVersion: row?.walvaultVersion ?? null,
      postgresVersion: row?.postgresVersion ?? null,
      place: row?.place ?? null,
      library: row?.library ?? null,
    };
  });
}

export type Dropped = { node: string; holds: string[] };

/** Would it be refused? Said before anybody is asked. @throws VaultError refused */
export async function checkDrop(cluster: Cluster, node: string, now: Date = new Date()): Promise<void> {
  await planDrop(cluster, node, now);
}

/**
 * Removes a node's row and its holds: nothing in the vault is kept for it any more.
 *
 * @throws VaultError refused (the primary, the target of a pending promotion, still reporting, unknown) | unreachable
 */
export async function dropNode(cluster: Cluster, node: string, now: Date = new Date()): Promise<Dropped> {
  let dropped: Dropped | undefined;
  return changing<Dropped>(
    async () => {
      // our own answer was lost: the row is gone because of us
      if (dropped && (await readNode(cluster, node)) === undefined) return { result: dropped };
      const plan = await planDrop(cluster, node, now);
      dropped = { node, holds: plan.holds };
      return { result: dropped, changes: plan.changes };
    },
    (changes) => cluster.vault.manifest.transact(changes),
  );
}

async function planDrop(
  cluster: Cluster,
  node: string,
  now: Date,
): Promise<{ holds: string[]; changes: Change[] }> {
  const control = await readControl(cluster);
  const { promotion } = await readHead(cluster);
  const row = await readNode(cluster, node);
  if (row === undefined)
    throw new VaultError('refused', `no node ${node} is known to cluster ${cluster.name}`, {
      hint: `'walvault node list' shows them.`,
    });
  if (promotion !== null && promotion.node === node && promotion.state !== 'open')
    throw new VaultError(
      'refused',
      `${node} is the target of a pending promotion (epoch ${promotion.epoch}, ${promotion.state})`,
      {
        hint: `Wait for it, or name another: 'walvault trigger smart --to NODE --supersede ${promotion.epoch}'.`,
      },
    );
  if (control.primary === node)
    throw new VaultError('refused', `${node} is the primary of ${cluster.name} (epoch ${control.epoch})`, {
      hint: `Make another node the primary first: 'walvault trigger smart --to NODE'.`,
    });
  const ageMs = row.heartbeatAt === null ? Infinity : now.getTime() - Date.parse(row.heartbeatAt);
  // a clock far ahead must not make a node undroppable
  if (ageMs < FRESH_MS && ageMs > -FRESH_MS && !isDetached(row))
    throw new VaultError(
      'refused',
      `${node} is at work: it reported ${Math.max(0, Math.round(ageMs / 1000))} s ago (${row.place ?? 'place unknown'})`,
      {
        hint: `Stop its server first; its agent ends with it, and after ${FRESH_MS / 1000} s without a word it can be dropped.`,
      },
    );
  const seen = await readHolds(cluster);
  const own = Object.entries(seen?.holds ?? {}).filter(([, hold]) => hold.node === node);
  const changes: Change[] = [
    // a trigger that names it meanwhile changes control
    { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
    { do: 'delete', key: keys.node(cluster.partition, node), when: { rev: row.rev } },
  ];
  if (seen !== undefined && own.length > 0) {
    const gone = new Set(own.map(([id]) => id));
    const holds = Object.fromEntries(Object.entries(seen.holds).filter(([id]) => !gone.has(id)));
    const next: HoldsRow = { ...seen, rev: seen.rev + 1, holds };
    changes.push({ do: 'put', row: asRow(next), when: { rev: seen.rev } });
  }
  const text = `node ${node} was dropped${row.place === null ? '' : ` (${row.place})`}`;
  const event = { at: now.toISOString(), kind: 'node-drop' as const, node, epoch: control.epoch, text };
  changes.push({ do: 'put', row: asRow(eventRow(cluster, event)), when: 'absent' });
  return { holds: own.map(([id]) => id), changes };
}

export const DETACHED_TROUBLE = 'detached';

export function isDetached(row: Pick<NodeRow, 'trouble'>): boolean {
  return row.trouble?.startsWith(DETACHED_TROUBLE) === true;
}
