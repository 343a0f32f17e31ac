/** Reads what `walvault doctor` wants to know of the vault; and, where it is told to, tries what a node needs to do there. */
import { FAILURES, VaultError } from '../errors.ts';
import type { Writer } from '../cluster/decide-archive.ts';
import type { ProbeFacts, VaultFacts } from '../cluster/examine-vault.ts';
import {
  keys,
  type BackupRow,
  type EventRow,
  type Head,
  type NodeRow,
  type WalRow,
} from '../cluster/facts.ts';
import type { Unseen } from '../cluster/finding.ts';
import { after } from '../vault/manifest.ts';
import { listRows, readControl, readHead, type Cluster } from './cluster.ts';
import { probeKey, proveAccess } from './prove-access.ts';
import { writerStore, type StatePaths } from './node-state.ts';
import { readWitnessRow } from './witness-facts.ts';
import { settle, writerOf, type WriterState } from './writer.ts';

/** Events are looked through so far back, and so many of them. */
const EVENTS_MS = 24 * 3_600_000;
const EVENTS_LIMIT = 200;

/** @param clockAheadMs  of the store, where it says @throws VaultError */
export async function lookAtVault(
  cluster: Cluster,
  node: string | undefined,
  clockAheadMs: number | undefined,
  now: Date,
): Promise<VaultFacts> {
  const { manifest } = cluster.vault;
  const control = await readControl(cluster);
  const sinceMs = performance.now(); // the first read opened the connection
  const head = await readHead(cluster);
  const manifestMs = Math.round(performance.now() - sinceMs);
  const backups = await listRows<BackupRow>(cluster, 'backup#');
  const nodes = await listRows<NodeRow>(cluster, 'node#');
  const refusals: string[] = [];
  const from = `event#${new Date(now.getTime() - EVENTS_MS).toISOString()}`;
  const range = { pk: cluster.partition, from, to: after('event#'), descending: true, limit: EVENTS_LIMIT };
  for await (const row of manifest.query(range)) {
    const { kind, at, text, node: of } = row as unknown as EventRow;
    if (kind in FAILURES && of === node) refusals.unshift(`${at} [${kind}] ${text}`);
    if (refusals.length === 3) break;
  }
  return {
    url: cluster.vault.url,
    ...{ control, head, nodes, manifestMs, clockAheadMs, refusals },
    witness: await readWitnessRow(cluster),
    backups: backups.map(({ id, state }) => ({ id, state })),
    bucket: await lookAtBucket(cluster, head),
  };
}

/** One object's facts: that of the last segment, which retention never takes. */
async function lookAtBucket(cluster: Cluster, head: Head): Promise<VaultFacts['bucket']> {
  const { bucket, manifest } = cluster.vault;
  try {
    const row =
      head.lastFile === null
        ? undefined
        : ((await manifest.get(keys.wal(cluster.partition, head.lastFile))) as WalRow | undefined);
    const key = row?.key ?? null;
    const sinceMs = performance.now();
    const facts = await bucket.facts(key ?? `${cluster.partition}/nothing`);
    return { ms: Math.round(performance.now() - sinceMs), key, isThere: key === null || facts !== undefined };
  } catch (error) {
    return unseen(error);
  }
}

/** @throws whatever is no VaultError: our own bug */
export function unseen(error: unknown): Unseen {
  if (!(error instanceof VaultError)) throw error;
  return {
    unseen: `[${error.code}] ${error.message}`,
    fix: error.hint ?? 'the message names what has to be put right',
  };
}

/**
 * What this node would write as: its epoch and the nonces that may stand in the vault. The agent's heartbeat swaps them while we look,
 * so they are read before and after the head, and all of them are good.
 *
 * @returns undefined where it never wrote; and the head as it was read in between
 */
export async function lookAtWriter(
  cluster: Cluster,
  paths: StatePaths,
  node: string,
  place: string,
): Promise<{ writer: Writer | undefined; head: Head }> {
  const store = writerStore(paths);
  const before = store.read();
  const head = await readHead(cluster);
  const later = store.read();
  if (before === undefined || later === undefined) return { writer: undefined, head };
  const seat = { node, place, store };
  const [one, other] = [before, later].map((state) => writerOf(seat, taken(state, head)));
  return { writer: { ...other!, nonces: [...new Set([...one!.nonces, ...other!.nonces])] }, head };
}

/** As it stands by this head; a node killed between the open of its epoch and the note of it has that epoch all the same. */
function taken(state: WriterState, head: Head): WriterState {
  const pending = state.open ?? null;
  return pending !== null && head.writer?.nonce === pending.nonce
    ? { epoch: pending.epoch, nonce: pending.nonce, next: null }
    : settle(state, head);
}

/** Writes and reads what a new node proves itself by, then deletes the object again. */
export async function probeVault(cluster: Cluster, node: string): Promise<ProbeFacts> {
  const proofs = await proveAccess(cluster, node);
  const steps: ProbeFacts = proofs
    .filter(({ what }) => what === 'bucket' || what === 'manifest')
    .map(({ what, state, text, hint }) => ({ what, isDone: state !== 'failed', text, hint }));
  if (steps[0]?.isDone !== true) return steps;
  const key = probeKey(cluster, node);
  try {
    await cluster.vault.bucket.delete(key);
    steps.push({ what: 'delete', isDone: true, text: key });
  } catch (error) {
    if (!(error instanceof VaultError)) throw error;
    steps.push({ what: 'delete', isDone: false, text: error.message });
  }
  return steps;
}
