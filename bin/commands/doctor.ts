/** `walvault doctor`: what is wrong, and what to do about it. */
import { examineVaults } from '../../core/work/doctor-pair.ts';
import { duration } from '../../core/settings/kinds.ts';
import type { CommandRow } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { table } from '../ui/table.ts';

const LIMIT = duration('100ms', '5m');

export const doctor: CommandRow = {
  path: 'doctor',
  summary: 'examine the vaults of a cluster, and say what is wrong and how to put it right',
  text: `Looks at this vault and at every other one that it names, and changes nothing. Both can be reached, and how fast; they
hold the same database; just one of them is active; epochs are in order; each follower is on its source's branch and not past
it; its relay was heard of lately, gets on and is not far behind; no spills wait; spilling is armed in both or in none.

Exit 0: all is well. 1: something is worth a look. 2: something is wrong.`,
  options: [
    { flags: '--limit <duration>', summary: 'how long another vault may take to answer (default 5s)' },
  ],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'from anywhere', line: 'walvault doctor --vault file:///srv/vault --cluster main' },
    {
      says: 'what is not well, in a script',
      line: `walvault doctor --json | jq -r '.findings[] | select(.state != "ok") | .says'`,
    },
  ],
  async run(context) {
    const limitMs = context.duration('limit', '5s', LIMIT);
    const cluster = await context.cluster();
    const open = (url: string) => context.anotherVault(url, { limitMs });
    const { findings, worst } = await examineVaults(cluster, open, limitMs);
    context.answer({ cluster: cluster.name, worst, findings: findings.map((one) => ({ ...one })) }, () =>
      table(
        ['what', 'state', ''],
        findings.map(({ what, state, says }) => [what, state === 'bad' ? 'BAD' : state, says]),
      ),
    );
    for (const { state, says, fix } of findings)
      if (state !== 'ok' && fix !== undefined) context.next({ says, line: fix });
    context.exit = worst;
  },
};
