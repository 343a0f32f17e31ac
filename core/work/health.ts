/**
 * Status and what a check needs beside it, of one cluster or of all that a vault holds. Few rows of each, whatever the number of segments.
 */
import type { CheckFacts } from '../cluster/decide-check.ts';
import type { BackupRow, NodeRow } from '../cluster/facts.ts';
import { VaultError } from '../errors.ts';
import type { Vault } from '../vault/vault.ts';
import { listClusters } from './cluster-list.ts';
import { listRows, openCluster, readHead, type Cluster, readNode } from './cluster.ts';
import { readStatus, type Status } from './status.ts';

export type Health = {
  status: Status;
  /** How long the oldest finished segment waited on the primary when it reported last, by its own clock; null: it did not say. */
  waitingMs: number | null;
  /** The primary was stopped with everything in the vault; nothing is archived until a trigger, or an undo. */
  flushed: boolean;
  /** When the complete ones were finished. */
  backups: { startSegment: string; finishedAt: string }[];
};

export async function readHealth(cluster: Cluster, now: Date): Promise<Health> {
  const status = await readStatus(cluster, now);
  const primary = status.primary === null ? undefined : await readNode(cluster, status.primary);
  const backups = await listRows<BackupRow>(cluster, 'backup#');
  return {
    status,
    waitingMs: waitingOf(primary),
    flushed: (await readHead(cluster)).flush !== null,
    backups: backups.flatMap(({ state, startSegment, finishedAt, startedAt }) =>
      state === 'complete' ? [{ startSegment, finishedAt: finishedAt ?? startedAt }] : [],
    ),
  };
}

function waitingOf(primary: NodeRow | undefined): number | null {
  if (primary === undefined || primary.heartbeatAt === null || primary.waitingSince === undefined)
    return null;
  if (primary.waitingSince === null) return 0;
  return Math.max(0, Date.parse(primary.heartbeatAt) - Date.parse(primary.waitingSince));
}

export type Looked =
  | { cluster: string; health: Health; failure: undefined }
  | { cluster: string; health: undefined; failure: VaultError };

/** Each cluster of the vault; one that cannot be read does not hide the others. @throws VaultError the list cannot be read */
export async function lookAtAll(vault: Vault, now: Date): Promise<Looked[]> {
  const looked: Looked[] = [];
  for (const cluster of await listClusters(vault)) {
    try {
      const health = await readHealth(await openCluster(vault, cluster), now);
      looked.push({ cluster, health, failure: undefined });
    } catch (failure) {
      if (!(failure instanceof VaultError)) throw failure;
      looked.push({ cluster, health: undefined, failure });
    }
  }
  return looked;
}

export function checkFacts({ status, waitingMs, flushed, backups }: Health, nowMs: number): CheckFacts {
  const since = (at: string) => Math.max(0, nowMs - Date.parse(at));
  const { cluster, primary, archiving, epoch, timeline, lastSegment, gaps, trigger } = status;
  return {
    ...{ cluster, primary, archiving, epoch, timeline, lastSegment, gaps, role: status.vault.role },
    // one that was opened for a test follows no more, and nobody expects a word of it
    nodes: status.nodes
      .filter(({ trouble }) => trouble?.startsWith('detached') !== true)
      .map(({ name, role, heartbeatAt, lagSeconds, trouble }) => ({
        ...{ name, role, trouble, silentMs: heartbeatAt === null ? null : since(heartbeatAt) },
        lagMs: lagSeconds === null ? null : lagSeconds * 1000,
      })),
    waitingMs,
    flushed,
    backups: backups.map(({ startSegment, finishedAt }) => ({ startSegment, ageMs: since(finishedAt) })),
    relays: status.relays.map(({ direction, vault, seconds, at, trouble }) => ({
      ...{ direction, id: vault.id, url: vault.url, lagMs: seconds * 1000, silentMs: since(at), trouble },
    })),
    spilledFiles: status.spills?.files ?? 0,
    triggerMs: trigger === null ? null : since(trigger.at),
  };
}
