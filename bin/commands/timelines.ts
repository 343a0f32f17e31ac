/** `walvault timelines`: which timeline forked from which, where, and who opened it. */
import { readTimelines, type KnownTimeline } from '../../core/work/timelines.ts';
import type { CommandRow } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { formatAge } from '../ui/format.ts';
import { table } from '../ui/table.ts';

export const timelines: CommandRow = {
  path: 'timelines',
  summary: 'show the tree of timelines, their forks, and which are the live branch',
  text: `Each promotion opens a timeline, which forks from the one before. The live branch is marked with *, its end with **. A
timeline that leads nowhere was left behind: an old primary wrote it after another had taken over, or a recovery that nobody followed.
A number that is reserved without a history was taken by a promotion that is under way, or that did not come to its end.`,
  options: [],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'the tree', line: 'walvault timelines' },
    {
      says: 'the live branch, in a script',
      line: `walvault timelines --json | jq -c '[.timelines[] | select(.live) | .timeline]'`,
    },
  ],
  async run(context) {
    const seen = await readTimelines(await context.cluster());
    const nowMs = Date.now();
    context.answer(seen, () =>
      [
        table(
          ['timeline', 'forked at', 'opened by', 'epoch', 'opened', 'last file', 'up to', 'note'],
          inTree(seen.timelines).map(({ one, depth }) => [
            `${'  '.repeat(depth)}${one.timeline}${one.current ? ' **' : one.live ? ' *' : ''}`,
            one.forkLsn,
            one.node,
            one.epoch === null ? null : String(one.epoch),
            formatAge(one.at, nowMs),
            one.lastFile,
            one.tailLsn,
            one.leadsNowhere ? 'leads nowhere' : '',
          ]),
        ),
        ...seen.reserved.map(
          ({ from, to, node }) =>
            `${from === to ? `timeline ${from} is` : `timelines ${from} to ${to} are`} reserved without a history${
              node === null ? '' : `: ${node} is being promoted`
            }`,
        ),
      ].join('\n'),
    );
  },
};

/** Each timeline after its parent, the live child last: the branch that goes on stands where one reads on. */
export function inTree(all: readonly KnownTimeline[]): { one: KnownTimeline; depth: number }[] {
  const below = (parent: number | null, depth: number): { one: KnownTimeline; depth: number }[] =>
    all
      .filter((one) => one.parent === parent)
      .sort((one, other) => Number(one.live) - Number(other.live) || one.timeline - other.timeline)
      .flatMap((one) => {
        const own = one.live || parent === null ? depth : depth + 1;
        return [{ one, depth: own }, ...below(one.timeline, own)];
      });
  return below(null, 0);
}
