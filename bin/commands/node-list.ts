/** `walvault node list`: who belongs to a cluster, where it runs, and how it is. */
import { listNodes, type ListedNode } from '../../core/work/nodes.ts';
import type { CommandRow } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { formatAge } from '../ui/format.ts';
import { table } from '../ui/table.ts';

export const nodeList: CommandRow = {
  path: 'node list',
  summary: 'show the nodes of a cluster: role, heartbeat, versions, place, trouble',
  text: `Reads the vault only. Each node's figures are its own last report; a node that was added and has not come yet has
no heartbeat.`,
  options: [],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'a table', line: 'walvault node list' },
    {
      says: 'names of standbys, in a script',
      line: `walvault node list --json | jq -r '.[] | select(.role == "standby") | .name'`,
    },
  ],
  async run(context) {
    const nodes = await listNodes(await context.cluster());
    context.answer(nodes, () => describe(nodes, Date.now()));
  },
};

function describe(nodes: readonly ListedNode[], nowMs: number): string {
  if (nodes.length === 0) return 'no nodes';
  return table(
    ['node', 'role', 'heartbeat', 'walvault', 'PostgreSQL', 'library', 'place', 'trouble'],
    nodes.map((node) => [
      node.name,
      node.role,
      formatAge(node.heartbeatAt, nowMs),
      node.walvaultVersion,
      node.postgresVersion,
      node.library,
      node.place,
      node.trouble,
    ]),
  );
}
