/**
 * A replica: a vault of a cluster that takes what a relay brings. How one is made, how one is read beside its source, and the one
 * transaction by which a relay changes it.
 */
import { VaultError } from '../errors.ts';
import type { Side } from '../cluster/decide-relay.ts';
import { isOlderGeneration } from '../cluster/decide-upgrade.ts';
import { FORMAT, keys, type Control, type Head, type HistoryRow } from '../cluster/facts.ts';
import { type Change } from '../vault/manifest.ts';
import type { Vault } from '../vault/vault.ts';
import { lineageOf } from '../wal/lineage.ts';
import { readBranch } from './branch.ts';
import { asRow, clusterOf, eventChange, newId, openCluster, readControl, type Cluster } from './cluster.ts';
import { entryChange } from './cluster-list.ts';
import { putControlObject } from './init.ts';
import { relaysWith, reportTrouble } from './relay-lag.ts';

/** A vault as a relay works with it: what was read, and its history rows. */
export type Reading = Side & { cluster: Cluster; rows: ReadonlyMap<number, HistoryRow> };

/** Control before head, as everywhere: a trigger commits both, so a newer head never goes with an older control unseen. */
export async function readSide(cluster: Cluster): Promise<Reading> {
  const control = await readControl(cluster);
  const { head, lineage, histories } = await readBranch(cluster);
  return {
    cluster,
    url: cluster.vault.url,
    control,
    head,
    lineage,
    histories: new Map([...histories].map(([timeline, { text }]) => [timeline, text])),
    rows: histories,
  };
}

/**
 * The replica of a cluster in another vault, made where that vault has none of it yet: empty, on the source's oldest timeline. A
 * replica of a generation that the source has left (pg_upgrade) gets the new one beside it.
 *
 * @throws VaultError refused (another database under this name) | usage (the same vault) | unreachable
 */
export async function openReplica(source: Cluster, vault: Vault): Promise<Cluster> {
  const there = (await vault.manifest.get(keys.control(source.name))) as Control | undefined;
  if (there?.systemIdentifier === source.systemIdentifier) return clusterOf(vault, source.name, there);
  const from = await readSide(source);
  if (there !== undefined && !isOlderGeneration(from.control, there)) {
    throw new VaultError(
      'refused',
      `${vault.url} holds another database under the name ${source.name} (system identifier ${there.systemIdentifier}, not ${source.systemIdentifier})`,
      { hint: 'relay into an empty vault.' },
    );
  }
  const oldest = from.lineage[0]?.timeline ?? 1;
  const control: Control = {
    ...from.control,
    rev: (there?.rev ?? 0) + 1,
    format: FORMAT,
    vaultId: there?.vaultId ?? newId(),
    role: 'replica',
    source: { id: from.control.vaultId, url: source.vault.url },
    ...{ supersedes: null, supersededBy: null, direct: null },
  };
  const cluster = clusterOf(vault, source.name, control);
  const head: Head = {
    ...keys.head(cluster.partition),
    rev: 1,
    epoch: from.head.epoch,
    timeline: oldest,
    ...{ lsn: null, firstLsn: null, lastFile: null, lastArchivedAt: null },
    lastTimeline: from.head.lastTimeline,
    ...{ writer: null, promotion: null, flush: null, tail: null, spill: null },
  };
  await putControlObject(cluster, control);
  const outcome = await vault.manifest.transact([
    { do: 'put', row: asRow(control), when: there === undefined ? 'absent' : { rev: there.rev } },
    { do: 'put', row: asRow(head), when: 'absent' },
    entryChange(cluster),
    eventChange(cluster, {
      at: new Date().toISOString(),
      kind: 'replica',
      node: null,
      epoch: control.epoch,
      text: there
        ? `${source.vault.url} has a new generation, system identifier ${source.systemIdentifier}: this is a replica of it now, the one before, ${there.systemIdentifier}, stays as it is`
        : `made as a replica of ${source.vault.url}`,
    }),
  ]);
  // Another relay was faster: what it made is as good.
  return outcome.done ? cluster : openCluster(vault, source.name);
}

/**
 * The replica at `url`. One that a relay of this source was at before is opened and never made: its disk may not be mounted, and an empty
 * one in its place would pass for it. Said in the source, too, since no relay runs that would.
 *
 * @param open, make  the vault there @throws VaultError unconfigured (nothing is there any more); as openReplica
 */
export async function reachReplica(
  source: Cluster,
  url: string,
  way: { open(): Promise<Vault>; make(): Promise<Vault> },
): Promise<Cluster> {
  const { vault } = source;
  const known = (await relaysWith(source, url)).at(-1);
  if (known === undefined) return openReplica(source, await way.make());
  try {
    return await openCluster(await way.open(), source.name);
  } catch (error) {
    if (!(error instanceof VaultError)) throw error;
    await reportTrouble(source, known.vault.id, `${error.code}: ${error.message}`).catch(() => {});
    if (error.code !== 'unconfigured') throw error;
    throw new VaultError(
      'unconfigured',
      `${url} is known to ${vault.url}, and nothing of it is there now: ${error.message}`,
      {
        hint: `Is its disk mounted? If it is gone for good: 'walvault relay --from ${vault.url} --to ${url} --forget', then this command makes it anew.`,
        cause: error,
      },
    );
  }
}

/** Another changed the replica since it was read: everything is read and decided anew. */
export class Outrun extends Error {}

/** What a relay knows of its target: each commit takes it along, so that a pass reads it once. */
export class Target {
  side: Reading;

  constructor(side: Reading) {
    this.side = side;
  }

  get head(): Head {
    return this.side.head;
  }

  /**
   * Changes the replica on condition that nobody else did since it was read: the source's epoch, the role and the place in the chain
   * are conditions of the very transaction, not looked at before it.
   *
   * @param next.opened  the timeline that the head goes over to, with its history row
   * @throws Outrun | VaultError unreachable
   */
  async commit(
    changes: readonly Change[],
    next: { head?: Partial<Head>; control?: Control; opened?: HistoryRow } = {},
  ): Promise<void> {
    const { cluster, control, head } = this.side;
    const nextHead: Head = { ...head, ...next.head, rev: head.rev + 1 };
    const nextControl = next.control ?? control;
    const outcome = await cluster.vault.manifest.transact([
      next.control === undefined
        ? { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } }
        : { do: 'put', row: asRow(nextControl), when: { rev: control.rev } },
      { do: 'put', row: asRow(nextHead), when: { rev: head.rev } },
      ...changes,
    ]);
    if (!outcome.done) throw new Outrun('the replica was changed by another');
    const { opened } = next;
    this.side = { ...this.side, control: nextControl, head: nextHead };
    if (opened === undefined) return;
    const rows = new Map(this.side.rows).set(opened.timeline, opened);
    this.side = {
      ...this.side,
      rows,
      histories: new Map(this.side.histories).set(opened.timeline, opened.text),
      lineage: lineageOf(opened.timeline, opened.text),
    };
  }
}
