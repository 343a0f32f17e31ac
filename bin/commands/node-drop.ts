/** `walvault node drop`: a node that is gone for good. */
import { checkDrop, dropNode } from '../../core/work/nodes.ts';
import type { CommandRow } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { formatCount } from '../ui/format.ts';
import { nodeName } from './node-add.ts';

export const nodeDrop: CommandRow = {
  path: 'node drop',
  summary: 'take a node that is gone out of the vault, with its holds',
  text: `Removes the node's row and its holds: the vault keeps no WAL for it any more, and no trigger can name it. Its
server and its files are not touched. Refused for the primary, for the target of a pending promotion, and while the
node still reports: stop its server first.`,
  argument: { name: 'name', summary: 'name of the node' },
  options: [{ flags: '-y, --yes', summary: 'do not ask' }],
  settings: REACH_SETTINGS,
  examples: [{ says: 'db3 is decommissioned', line: 'walvault node drop db3' }],
  async run(context) {
    const node = nodeName(context);
    const cluster = await context.cluster();
    await checkDrop(cluster, node);
    await context.confirm([
      `take ${node} out of ${cluster.name}: nothing in the vault is kept for it any more`,
      `leave its server and files as they are; to come back it is made anew by 'walvault standby create'`,
    ]);
    const dropped = await dropNode(cluster, node);
    context.answer(
      { cluster: cluster.name, ...dropped },
      () => `${node} is out of ${cluster.name}, with ${formatCount(dropped.holds.length, 'hold')}`,
    );
  },
};
