/** What a relay would bring now, without bringing it; and the end of one that is no more wanted. */
import { decideRelay } from '../cluster/decide-relay.ts';
import { keys, type BackupRow, type Control } from '../cluster/facts.ts';
import { VaultError } from '../errors.ts';
import { type Change } from '../vault/manifest.ts';
import { asRow, changing, eventChange, listRows, readControl, type Cluster } from './cluster.ts';
import { missingBackups } from './relay-backups.ts';
import { relayLag, relaysWith, type Lag } from './relay-lag.ts';
import { Turned } from './relay.ts';
import { readSide } from './replica.ts';

export type RelayPlan = {
  /** make: the other vault has nothing of this cluster; converge: it holds a branch that is set aside first. */
  would: 'make' | 'relay' | 'converge';
  lag: Lag;
  backups: { id: string; storedBytes: number }[];
};

/** @param target  undefined: it has nothing of this cluster yet @throws VaultError  as the relay itself would; Turned */
export async function planRelay(source: Cluster, target: Cluster | undefined): Promise<RelayPlan> {
  if (target === undefined) {
    const from = await readSide(source);
    const nothing = {
      ...from,
      head: { ...from.head, timeline: from.lineage[0]?.timeline ?? 1, lsn: null, spill: null },
    };
    return {
      would: 'make',
      lag: await relayLag(from, nothing),
      backups: weigh(await completeBackups(source)),
    };
  }
  const to = await readSide(target);
  const from = await readSide(source);
  const decision = decideRelay(from, to);
  if (decision.do === 'refuse')
    throw new VaultError(decision.code, decision.message, { hint: decision.hint });
  if (decision.do === 'turn') throw new Turned(decision.message, from.url, to.url);
  return {
    would: decision.do === 'converge' ? 'converge' : 'relay',
    lag: await relayLag(from, to),
    backups: weigh(await missingBackups(source, target)),
  };
}

const weigh = (rows: readonly BackupRow[]): RelayPlan['backups'] =>
  rows.map(({ id, storedBytes }) => ({ id, storedBytes }));

async function completeBackups(cluster: Cluster): Promise<BackupRow[]> {
  return (await listRows<BackupRow>(cluster, 'backup#')).filter(({ state }) => state === 'complete');
}

/**
 * This vault knows of the other no more: no flush waits for it, no sweep looks for it. The other vault is not asked, and not changed.
 *
 * @param url  of the other, as this vault names it
 * @returns false where nothing of it was known
 * @throws VaultError refused (the primary may spill there; it is the source of this one) | unreachable
 */
export async function forgetVault(cluster: Cluster, url: string): Promise<boolean> {
  const { manifest } = cluster.vault;
  let changed = false;
  return changing<boolean>(
    async () => {
      const control = await readControl(cluster);
      const rows = await relaysWith(cluster, url);
      refuseNeeded(control, url);
      const { supersedes } = control;
      const isSuperseded = supersedes?.url === url;
      if (rows.length === 0 && !isSuperseded) return { result: changed };
      changed = true;
      const next = { ...control, rev: control.rev + 1, supersedes: isSuperseded ? null : supersedes };
      const changes: Change[] = [
        isSuperseded
          ? { do: 'put', row: asRow(next), when: { rev: control.rev } }
          : { do: 'check', key: keys.control(cluster.name), when: { rev: control.rev } },
        ...rows.map(({ pk, sk, rev }): Change => ({ do: 'delete', key: { pk, sk }, when: { rev } })),
        eventChange(cluster, {
          at: new Date().toISOString(),
          kind: 'forget',
          node: null,
          epoch: control.epoch,
          text: `${url} is no more a vault of this cluster${isSuperseded ? ': it was never told that this one took its place' : ''}`,
        }),
      ];
      return { changes, result: true };
    },
    (changes) => manifest.transact(changes),
  );
}

function refuseNeeded(control: Control, url: string): void {
  if (control.source?.url === url)
    throw new VaultError(
      'refused',
      `this vault is a ${control.role} of ${url}: that is where its rows come from`,
      {
        hint: `run it on the active vault, or make this one active by 'walvault trigger'`,
      },
    );
  if (control.direct?.url === url)
    throw new VaultError('refused', `the primary may spill to ${url}, so a trigger has to fence it as well`, {
      hint: `first end that, on the primary: 'walvault configure primary --dr-vault none'`,
    });
}
