/**
 * What moves the cost: each setting turned once, everything else left as it is.
 *
 * Pure.
 */
import type { PriceList } from './prices.ts';
import { reckonCost, type CostInput } from './reckon-cost.ts';

export type Knob = {
  /** The setting or option, as it is typed. */
  name: string;
  from: number;
  to: number;
  kind: 'duration' | 'size';
  /** A month. */
  saves: number;
  /** What one gives for it. */
  price: string;
};

type Turn = Omit<Knob, 'from' | 'to' | 'saves'> & {
  member: keyof CostInput;
  by: number;
  least?: number;
  most?: number;
};

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

/** Within what the settings allow. */
const TURNS: readonly Turn[] = [
  {
    ...{ name: 'poll_interval', member: 'pollMs', by: 10, most: MINUTE_MS, kind: 'duration' },
    price: 'a standby hears of a segment, and of a trigger, that much later',
  },
  {
    ...{ name: 'idle_poll_interval', member: 'idlePollMs', by: 10, most: 10 * MINUTE_MS, kind: 'duration' },
    price: 'a trigger on an idle cluster is heard that much later',
  },
  {
    ...{ name: 'heartbeat_interval', member: 'heartbeatMs', by: 6, most: 10 * MINUTE_MS, kind: 'duration' },
    price: 'status is older; a copied primary is found later',
  },
  {
    ...{ name: 'witness_interval', member: 'witnessMs', by: 5, most: MINUTE_MS, kind: 'duration' },
    price: 'a failover without a person comes that much later',
  },
  {
    ...{ name: 'force_switch', member: 'forceSwitchMs', by: 5, most: DAY_MS, kind: 'duration' },
    price: 'a commit of a quiet hour may be that much older before it is archived',
  },
  {
    ...{ name: 'pitr_window', member: 'pitrWindowMs', by: 0.5, kind: 'duration' },
    price: 'a restore reaches half as far back',
  },
  {
    ...{ name: '--backup-every', member: 'backupEveryMs', by: 7, kind: 'duration' },
    price: 'a restore replays more WAL, which is kept for longer',
  },
  {
    ...{ name: '--keep-versions', member: 'versionsMs', by: 0.25, least: DAY_MS, kind: 'duration' },
    price: 'what was deleted by mistake is gone sooner',
  },
  {
    ...{ name: '--segment-size', member: 'segmentBytes', by: 4, most: 1024 ** 3, kind: 'size' },
    price: 'initdb anew; more is lost with a primary that dies within a segment',
  },
];

/** The settings that save most when they are turned, largest first; at most `count`, none that saves nothing. */
export function largestKnobs(input: CostInput, list: PriceList, count = 3): Knob[] {
  const { total } = reckonCost(input, list);
  return TURNS.flatMap(({ member, by, least = 0, most = Infinity, ...turn }): Knob[] => {
    const from = input[member] as number;
    const turned = Math.max(least, Math.min(most, from * by));
    const to = turn.kind === 'duration' && turned > DAY_MS ? Math.round(turned / DAY_MS) * DAY_MS : turned;
    if (to === from) return [];
    const saves = total - reckonCost({ ...input, [member]: to }, list).total;
    return saves < 0.005 ? [] : [{ ...turn, from, to, saves }];
  })
    .sort((left, right) => right.saves - left.saves)
    .slice(0, count);
}
