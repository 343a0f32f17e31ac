/**
 * The armed replica in a change of roles: while the primary may spill there, a fence of the active vault alone is none. It is raised first,
 * so that nothing more is spilled, and what was spilled comes home; only then the active vault names another.
 */
import { VaultError } from '../errors.ts';
import { decideFenceDirect } from '../cluster/decide-spill.ts';
import type { Control, VaultRef } from '../cluster/facts.ts';
import { withLimit } from '../vault/time-limit.ts';
import { asRow, changing, eventChange, putEvent, readControl, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { putControlObject } from './init.ts';
import { takeHome } from './spill.ts';

export type DirectWay = {
  /** Opens the armed replica; its URL is the one that was armed. */
  open(direct: VaultRef): Promise<Cluster>;
  /** Go on where it does not answer, or does not give up what was spilled: that becomes salvage. */
  lose: boolean;
};

/** How long the armed replica is tried, ms. */
const TRY_MS = 15_000;

/**
 * Fences the armed replica for the epoch that comes next in the active vault, and brings what was spilled home.
 *
 * @param primary  who shall be named
 * @throws VaultError refused (it does not answer, or spills cannot go home, and `lose` was not said) | fenced (it is active itself)
 */
export async function fenceDirect(
  active: Cluster,
  control: Control,
  primary: string,
  way: DirectWay | undefined,
): Promise<void> {
  const { direct } = control;
  if (direct === null) return;
  const lost = `what ${control.primary ?? 'the primary'} may have spilled there, and may spill on, is salvage then`;
  const hint = `Reach it and run the same command again, or say --lose-direct: ${lost}.`;
  if (way === undefined)
    throw new VaultError('refused', `${direct.url} is armed: a trigger has to fence it first`, { hint });
  let step = 'does not answer';
  try {
    const replica = await withLimit(TRY_MS, `opening ${direct.url}`, () => way.open(direct));
    step = `cannot be fenced`;
    await fence(active, replica, primary);
    crashPoint('direct-fenced');
    step = `does not give up what was spilled`;
    await takeHome(active, replica);
  } catch (error) {
    if (!(error instanceof VaultError) || error.code === 'fenced') throw error;
    const why = `${direct.url}, to which ${control.primary ?? 'the primary'} may spill, ${step}: [${error.code}] ${error.message}`;
    if (!way.lose) throw new VaultError('refused', why, { hint, cause: error });
    const { epoch } = control;
    await putEvent(active, { kind: 'lose-direct', node: control.primary, epoch, text: `${why}; ${lost}` });
  }
}

async function fence(active: Cluster, replica: Cluster, primary: string): Promise<void> {
  await changing<undefined>(
    async () => {
      const mine = await readControl(active);
      const theirs = await readControl(replica);
      const decision = decideFenceDirect(mine, theirs, primary);
      if (decision.do === 'refuse')
        throw new VaultError(decision.code, decision.message, { hint: decision.hint });
      if (decision.do === 'fenced') return { result: undefined };
      await putControlObject(replica, decision.control);
      const { epoch } = decision.control;
      const text = `epoch ${epoch} names ${primary}: ${mine.primary ?? 'the primary'} spills nothing more (the trigger in ${active.vault.url} follows)`;
      return {
        result: undefined,
        changes: [
          { do: 'put', row: asRow(decision.control), when: { rev: theirs.rev } },
          eventChange(replica, { at: new Date().toISOString(), kind: 'fence', node: primary, epoch, text }),
        ],
      };
    },
    (changes) => replica.vault.manifest.transact(changes),
  );
}
