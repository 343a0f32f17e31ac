/**
 * A cluster as this program meets it: its vault, its partition of the manifest, and what never changes of it. Reads of `control` and
 * `head`, object keys, events, and the one loop in which a change of state is tried until it is done or refused.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import type { EventKind } from '../cluster/event-kinds.ts';
import { FORMAT, keys, type Control, type EventRow, type Head, type NodeRow } from '../cluster/facts.ts';
import { after, type Change, type Outcome, type Row } from '../vault/manifest.ts';
import type { Vault } from '../vault/vault.ts';

export type Cluster = {
  vault: Vault;
  name: string;
  systemIdentifier: string;
  /** pk of everything but `control`. */
  partition: string;
  /** Bytes. */
  segmentSize: number;
  majorVersion: number;
};

/** How long a change of state is tried against others who change the same rows, in ms. */
const CHANGE_LIMIT_MS = 30_000;

/** @throws VaultError unconfigured (no such cluster) | format | unreachable */
export async function openCluster(vault: Vault, name: string): Promise<Cluster> {
  const control = asControl(await vault.manifest.get(keys.control(name)));
  if (control === undefined) {
    throw new VaultError('unconfigured', `no cluster ${name} in ${vault.url}`, {
      hint: `check --cluster and --vault, or make it with 'walvault init' on the primary`,
    });
  }
  return clusterOf(vault, name, control);
}

export function clusterOf(vault: Vault, name: string, control: Control): Cluster {
  const { systemIdentifier, segmentSize, majorVersion } = control;
  return {
    vault,
    name,
    systemIdentifier,
    partition: keys.partition(name, systemIdentifier),
    segmentSize,
    majorVersion,
  };
}

function asControl(row: Row | undefined): Control | undefined {
  if (row === undefined) return undefined;
  const control = row as unknown as Control;
  if (control.format > FORMAT) {
    throw new VaultError('format', `the vault has format ${control.format}, this walvault knows ${FORMAT}`, {
      hint: `install the newer walvault on this machine`,
    });
  }
  return control;
}

export async function readControl(cluster: Cluster): Promise<Control> {
  const control = asControl(await cluster.vault.manifest.get(keys.control(cluster.name)));
  if (control === undefined)
    throw new VaultError('unconfigured', `cluster ${cluster.name} is gone from ${cluster.vault.url}`);
  // Another system identifier means that another database took the name: nothing of ours may be written there.
  if (control.systemIdentifier !== cluster.systemIdentifier) {
    throw new VaultError(
      'refused',
      `cluster ${cluster.name} belongs to system identifier ${control.systemIdentifier}, this is ${cluster.systemIdentifier}`,
      { hint: `give this database a cluster name of its own` },
    );
  }
  return control;
}

export async function readHead(cluster: Cluster): Promise<Head> {
  const row = await cluster.vault.manifest.get(keys.head(cluster.partition));
  if (row === undefined)
    throw new VaultError('unconfigured', `cluster ${cluster.name} has no head in ${cluster.vault.url}`);
  return row as unknown as Head;
}

/** undefined: nobody of that name is known. */
export async function readNode({ vault, partition }: Cluster, node: string): Promise<NodeRow | undefined> {
  return (await vault.manifest.get(keys.node(partition, node))) as NodeRow | undefined;
}

/** Rows of this cluster whose names begin with `prefix` ('wal#'), in the order of their names. A range never shows that a row is absent. */
export async function* rowsUnder<T>({ vault, partition }: Cluster, prefix: string): AsyncGenerator<T, void> {
  for await (const row of vault.manifest.query({ pk: partition, from: prefix, to: after(prefix) }))
    yield row as unknown as T;
}

/** The same, all of them: for what there are few of. */
export async function listRows<T>(cluster: Cluster, prefix: string): Promise<T[]> {
  const rows: T[] = [];
  for await (const row of rowsUnder<T>(cluster, prefix)) rows.push(row);
  return rows;
}

/** Any of the shapes of core/cluster/facts.ts, as the manifest takes it. */
export const asRow = (fact: object): Row => fact as unknown as Row;

export const newId = (): string => randomBytes(8).toString('hex');

export const objectKeys = {
  wal: (cluster: Cluster, name: string, sha256: string, putId: string) =>
    `${cluster.partition}/wal/${name.slice(0, 8)}/${name}-${sha256.slice(0, 16)}-${putId}.zst`,
  /** Of a file that is not stored, as far as its key would be known: the id of the put is missing. */
  walStem: (cluster: Cluster, name: string, sha256: string | undefined) =>
    `${cluster.partition}/wal/${name.slice(0, 8)}/${name}${sha256 === undefined ? '' : `-${sha256.slice(0, 16)}`}-*.zst`,
  history: (cluster: Cluster, timeline8: string, sha256: string) =>
    `${cluster.partition}/history/${timeline8}-${sha256.slice(0, 16)}.history`,
  aside: (
    cluster: Cluster,
    origin: { epoch: number; node: string },
    file: string,
    sha256: string,
    putId: string,
  ) =>
    `${cluster.partition}/aside/${origin.epoch}/${origin.node}/${file}-${sha256.slice(0, 16)}-${putId}.zst`,
  control: (cluster: string, epoch: number, id: string) => `${cluster}/control/${epoch}-${id}.json`,
};

export function eventRow(
  cluster: Cluster,
  event: { at: string; kind: EventKind; node: string | null; epoch: number; text: string },
): EventRow {
  return { ...keys.event(cluster.partition, event.at, newId()), rev: 1, ...event };
}

/** The event as part of a transaction: it is there just when the change is. */
export function eventChange(cluster: Cluster, event: Parameters<typeof eventRow>[1]): Change {
  return { do: 'put', row: asRow(eventRow(cluster, event)), when: 'absent' };
}

/** One more thing that happened; written for people, never read by the protocol. */
export async function putEvent(
  cluster: Cluster,
  event: { kind: EventKind; node: string | null; epoch: number; text: string },
): Promise<void> {
  await cluster.vault.manifest.transact([eventChange(cluster, { at: new Date().toISOString(), ...event })]);
}

/**
 * Reads, decides, writes on condition of what was read; when another was faster, again. `attempt` reads everything anew, so an answer
 * that was lost is looked up by the next round, never guessed.
 *
 * @throws whatever `attempt` throws; VaultError busy | unreachable when the time is over
 */
export async function changing<T>(
  attempt: () => Promise<{ changes: readonly Change[]; result: T } | { result: T }>,
  transact: (changes: readonly Change[]) => Promise<Outcome>,
): Promise<T> {
  const deadline = performance.now() + CHANGE_LIMIT_MS;
  let lost: unknown;
  for (let round = 0; ; round++) {
    const next = await attempt();
    if (!('changes' in next)) return next.result;
    try {
      const outcome = await transact(next.changes);
      if (outcome.done) return next.result;
      lost = undefined;
    } catch (error) {
      if (!(error instanceof VaultError && error.code === 'unreachable')) throw error;
      lost = error;
    }
    if (performance.now() > deadline) {
      throw (
        lost ??
        new VaultError('busy', `others changed the same rows for ${CHANGE_LIMIT_MS / 1000} s`, {
          hint: 'try again',
        })
      );
    }
    await sleep(Math.random() * Math.min(500, 10 * 2 ** round));
  }
}
