/**
 * Arming: the active vault names the replica to which its primary may spill. From then on every trigger must fence both vaults, so it is
 * never done by itself; and disarming leaves no spill behind.
 */
import { VaultError } from '../errors.ts';
import type { Control } from '../cluster/facts.ts';
import { asRow, changing, eventChange, readControl, type Cluster } from './cluster.ts';
import { takeHome } from './spill.ts';

/**
 * @returns false where just this replica was armed already
 * @throws VaultError refused (the vault is not active; the other one is no replica of it, or of another database; another is armed) | unreachable
 */
export async function armSpill(active: Cluster, replica: Cluster): Promise<boolean> {
  const { vault } = replica;
  return changing<boolean>(
    async () => {
      const control = await readControl(active);
      const theirs = await readControl(replica);
      checkPair(active, control, replica, theirs);
      const { direct } = control;
      if (direct?.id === theirs.vaultId && direct.url === vault.url) return { result: false };
      if (direct !== null && direct.id !== theirs.vaultId) {
        throw new VaultError('refused', `spills go to ${direct.url} already`, {
          hint: `take that back first: 'walvault configure primary --dr-vault none'`,
        });
      }
      const { epoch, primary } = control;
      const next: Control = {
        ...control,
        rev: control.rev + 1,
        direct: { id: theirs.vaultId, url: vault.url },
      };
      const text = `armed: while this vault is out of its reach, ${primary ?? 'the primary'} archives into ${vault.url}; a trigger fences both`;
      return {
        result: true,
        changes: [
          { do: 'put', row: asRow(next), when: { rev: control.rev } },
          eventChange(active, { at: new Date().toISOString(), kind: 'arm', node: primary, epoch, text }),
        ],
      };
    },
    (changes) => active.vault.manifest.transact(changes),
  );
}

function checkPair(active: Cluster, control: Control, replica: Cluster, theirs: Control): void {
  const refuse = (message: string, hint: string): never => {
    throw new VaultError('refused', message, { hint });
  };
  const [here, there] = [active.vault.url, replica.vault.url];
  if (control.vaultId === theirs.vaultId)
    refuse(`${there} is the very vault that this node archives into`, `name its replica`);
  if (control.role !== 'active')
    refuse(`${here} is a ${control.role}, not active`, `name the active vault with --vault`);
  if (control.systemIdentifier !== theirs.systemIdentifier)
    refuse(
      `${there} holds another database (system identifier ${theirs.systemIdentifier})`,
      `name the replica of this one`,
    );
  if (theirs.role !== 'replica' || theirs.source?.id !== control.vaultId)
    refuse(
      `${there} is no replica of ${here}: it is ${theirs.role}${theirs.source === null ? '' : `, its source is ${theirs.source.url}`}`,
      `make it one: walvault relay --from '${here}' --to '${there}'`,
    );
}

/**
 * No spill may be made any more, and what was spilled is home. The replica forgets it first: between the two it takes no spills, while
 * a trigger would still fence it.
 *
 * @param replica  undefined: it is lost for good; what was spilled there is given up
 * @returns false where none was armed
 * @throws VaultError refused (another vault is armed) | conflict | hole (spills that cannot go home) | unreachable
 */
export async function disarmSpill(active: Cluster, replica: Cluster | undefined): Promise<boolean> {
  const { direct } = await readControl(active);
  if (replica !== undefined && direct !== null && direct.id !== (await readControl(replica)).vaultId)
    throw new VaultError('refused', `spills go to ${direct.url}, not to ${replica.vault.url}`);
  if (replica !== undefined) await emptyReplica(active, replica);
  if (direct === null) return false;
  await changing<undefined>(
    async () => {
      const control = await readControl(active);
      if (control.direct === null) return { result: undefined };
      const { epoch, primary } = control;
      const lost = replica === undefined ? `; what may be spilled there is given up` : '';
      const text = `disarmed: ${primary ?? 'the primary'} archives into this vault alone, no longer into ${control.direct.url}${lost}`;
      return {
        result: undefined,
        changes: [
          {
            do: 'put',
            row: asRow({ ...control, rev: control.rev + 1, direct: null }),
            when: { rev: control.rev },
          },
          eventChange(active, { at: new Date().toISOString(), kind: 'disarm', node: primary, epoch, text }),
        ],
      };
    },
    (changes) => active.vault.manifest.transact(changes),
  );
  // a relay that had read the source before may have armed it again
  if (replica !== undefined) await emptyReplica(active, replica);
  return true;
}

async function emptyReplica(active: Cluster, replica: Cluster): Promise<void> {
  await changing<undefined>(
    async () => {
      const control = await readControl(replica);
      if (control.direct === null || control.role !== 'replica') return { result: undefined };
      const next: Control = { ...control, rev: control.rev + 1, direct: null };
      return { result: undefined, changes: [{ do: 'put', row: asRow(next), when: { rev: control.rev } }] };
    },
    (changes) => replica.vault.manifest.transact(changes),
  );
  await takeHome(active, replica);
}
