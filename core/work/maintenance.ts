/** Maintenance: the operator's word that servers are stopped on purpose. While it lasts no witness triggers; nothing else goes by it. */
import { VaultError } from '../errors.ts';
import type { Control, Maintenance } from '../cluster/facts.ts';
import { asRow, changing, eventChange, readControl, type Cluster } from './cluster.ts';

export type MaintenanceChange = { maintenance: Maintenance | null; changed: boolean };

/**
 * Says it, or takes it back.
 *
 * @param wanted  undefined: it is over. A longer one that stands is shortened, too: the last word counts
 * @param only  take it back only where this one said it
 * @returns what stands now, and whether this changed it
 * @throws VaultError refused (no active vault) | unreachable
 */
export async function setMaintenance(
  cluster: Cluster,
  wanted: Maintenance | undefined,
  only?: string,
): Promise<MaintenanceChange> {
  return changing<MaintenanceChange>(
    async () => {
      const control = await readControl(cluster);
      if (control.role !== 'active')
        throw new VaultError('refused', `this vault is a ${control.role}, not active`, {
          hint: 'Say it in the active vault.',
        });
      const now = control.maintenance ?? null;
      if (wanted === undefined && (now === null || (only !== undefined && now.by !== only)))
        return { result: { maintenance: now, changed: false } };
      if (wanted !== undefined && now?.at === wanted.at && now.until === wanted.until)
        return { result: { maintenance: now, changed: true } }; // an answer that was lost: it is ours
      const next: Control = { ...control, rev: control.rev + 1, maintenance: wanted ?? null };
      const text =
        wanted === undefined ? 'maintenance is over' : `maintenance until ${wanted.until} (${wanted.by})`;
      return {
        result: { maintenance: wanted ?? null, changed: true },
        changes: [
          { do: 'put', row: asRow(next), when: { rev: control.rev } },
          eventChange(cluster, {
            ...{ at: new Date().toISOString(), kind: 'maintenance', node: control.primary },
            ...{ epoch: control.epoch, text },
          }),
        ],
      };
    },
    (changes) => cluster.vault.manifest.transact(changes),
  );
}
