/** The way to the armed replica (dr_vault), for the commands that change who is the primary. */
import type { VaultRef } from '../core/cluster/facts.ts';
import { openCluster, type Cluster } from '../core/work/cluster.ts';
import type { DirectWay } from '../core/work/direct.ts';
import type { Context } from './command.ts';

export const LOSE_DIRECT_OPTION = {
  flags: '--lose-direct',
  summary: 'go on where the armed DR vault does not answer: what was spilled there becomes salvage',
};

/** By the URL under which it was armed, with what this person uses to reach AWS. */
export function directWay(context: Context, active: Cluster): DirectWay {
  return {
    open: async ({ url }: VaultRef) => openCluster(await context.anotherVault(url), active.name),
    lose: context.flag('loseDirect'),
  };
}
