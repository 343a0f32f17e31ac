/** Archiving on and off: the operator's word in the vault, and what both it and this node say. */
import { VaultError } from '../errors.ts';
import { decideArchiving } from '../cluster/decide-archiving.ts';
import { asRow, changing, eventChange, readControl, readHead, type Cluster } from './cluster.ts';
import { readIgnored, readLocalWord, type Ignored } from './local-off.ts';
import type { StatePaths } from './node-state.ts';

/**
 * Switches archiving for the whole cluster.
 *
 * @returns false where it stood so already
 * @throws VaultError refused (no active vault; off: a promotion is pending, or the primary is flushed) | unreachable
 */
export async function setArchiving(cluster: Cluster, archiving: boolean): Promise<boolean> {
  const { manifest } = cluster.vault;
  const at = new Date().toISOString();
  let asked = false;
  return changing<boolean>(
    async () => {
      const control = await readControl(cluster);
      const head = await readHead(cluster);
      // an answer that was lost: it is ours
      if (asked && control.archiving === archiving && control.archivingAt === at) return { result: true };
      const decision = decideArchiving(control, head, archiving, at);
      if (decision.do === 'refuse')
        throw new VaultError(decision.code, decision.message, { hint: decision.hint });
      if (decision.do === 'already') return { result: false };
      asked = true;
      const text = archiving
        ? `archiving is on again, from ${head.lsn ?? 'the first segment'} on`
        : `archiving is off: what ${control.primary ?? 'the primary'} hands in from ${head.lsn ?? 'the first segment'} on is declared lost`;
      const { epoch, primary: node } = control;
      return {
        result: true,
        changes: [
          { do: 'put', row: asRow(decision.control), when: { rev: control.rev } },
          eventChange(cluster, { at, kind: archiving ? 'archiving-on' : 'archiving-off', node, epoch, text }),
        ],
      };
    },
    (changes) => manifest.transact(changes),
  );
}

/** What this node was told by --local. */
export type LocalStatus = {
  off: boolean;
  /** Since when; null: it is not off. */
  since: string | null;
  /** Ignored, and not declared in the vault yet. */
  undeclared: Ignored;
};

/** @throws VaultError local */
export function localStatus(paths: StatePaths): LocalStatus {
  const word = readLocalWord(paths);
  return { off: word !== undefined, since: word?.at ?? null, undeclared: readIgnored(paths) };
}
