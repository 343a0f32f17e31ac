/**
 * Holds: who will need WAL says so in the `holds` row before it relies on it; retention moves the horizon only on condition
 * that no hold was added since it read, and deletes only below the horizon. So either the hold is seen, or it is refused.
 *
 * `from` is the name of the first segment needed; the horizon of a timeline (key: its number, decimal) is the first
 * segment still kept.
 */
import { VaultError } from '../errors.ts';
import { keys, type HoldsRow } from '../cluster/facts.ts';
import type { Change } from '../vault/manifest.ts';
import { asRow, changing, type Cluster } from './cluster.ts';

export type Hold = HoldsRow['holds'][string];

/** A hold whose holder has not said for this long that it lives (refreshHold) is one of a process that died. */
export const HOLD_STALE_MS = 15 * 60_000;

const REFRESH_MS = 60_000;

export async function readHolds(cluster: Cluster): Promise<HoldsRow | undefined> {
  return (await cluster.vault.manifest.get(keysOf(cluster))) as unknown as HoldsRow | undefined;
}

/** @throws VaultError refused (retention has passed that segment already) | unreachable | busy */
export async function addHold(cluster: Cluster, id: string, hold: Hold): Promise<void> {
  await changeHolds(cluster, (row) => {
    const horizon = row.horizon[String(parseInt(hold.from.slice(0, 8), 16))];
    if (horizon !== undefined && hold.from < horizon) {
      throw new VaultError(
        'refused',
        `the WAL from ${hold.from} on is no longer kept: retention has come to ${horizon}`,
        {
          hint: `Take a newer backup: 'walvault backups' lists them.`,
        },
      );
    }
    const seen = row.holds[id];
    if (seen?.from === hold.from && seen.at === hold.at) return undefined;
    return { ...row.holds, [id]: hold };
  });
}

/** Says that the holder lives. @returns false where the hold is gone: somebody took this process for dead */
export async function refreshHold(cluster: Cluster, id: string, at: string): Promise<boolean> {
  let there = false;
  await changeHolds(cluster, (row) => {
    const seen = row.holds[id];
    there = seen !== undefined;
    return seen === undefined || seen.at >= at ? undefined : { ...row.holds, [id]: { ...seen, at } };
  });
  return there;
}

/**
 * Says each minute that the holder lives, until it is stopped: what a retention run may take for dead it drops.
 *
 * @returns the stop; `isLost`: the hold was dropped, so what it held may be gone
 */
export function keepHolding(cluster: Cluster, id: string): { isLost(): boolean; stop(): void } {
  let lost = false;
  const timer = setInterval(() => {
    refreshHold(cluster, id, new Date().toISOString()).then(
      (there) => (lost ||= !there),
      () => {}, // a vault that is away for a while: the next minute says it
    );
  }, REFRESH_MS);
  timer.unref();
  return { isLost: () => lost, stop: () => clearInterval(timer) };
}

/** Gone already is fine. */
export async function dropHold(cluster: Cluster, id: string): Promise<void> {
  await changeHolds(cluster, (row) => (row.holds[id] === undefined ? undefined : without(row.holds, id)));
}

/** The change that drops a hold, for a transaction with more in it; none where it is gone already. */
export async function dropHoldChange(cluster: Cluster, id: string): Promise<Change[]> {
  const row = await readHolds(cluster);
  if (row?.holds[id] === undefined) return [];
  const next: HoldsRow = { ...row, rev: row.rev + 1, holds: without(row.holds, id) };
  return [{ do: 'put', row: asRow(next), when: { rev: row.rev } }];
}

async function changeHolds(
  cluster: Cluster,
  change: (row: HoldsRow) => HoldsRow['holds'] | undefined,
): Promise<void> {
  await changing(
    async () => {
      const seen = await readHolds(cluster);
      const row: HoldsRow = seen ?? { ...keysOf(cluster), rev: 0, horizon: {}, holds: {} };
      const holds = change(row);
      if (holds === undefined) return { result: undefined };
      const next: HoldsRow = { ...row, rev: row.rev + 1, holds };
      return {
        changes: [{ do: 'put', row: asRow(next), when: seen === undefined ? 'absent' : { rev: seen.rev } }],
        result: undefined,
      };
    },
    (changes) => cluster.vault.manifest.transact(changes),
  );
}

const keysOf = (cluster: Cluster) => keys.holds(cluster.partition);

function without(holds: HoldsRow['holds'], id: string): HoldsRow['holds'] {
  return Object.fromEntries(Object.entries(holds).filter(([name]) => name !== id));
}
