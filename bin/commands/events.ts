/** `walvault events`: what happened to a cluster, newest last. */
import { EVENT_KINDS, type EventKind } from '../../core/cluster/event-kinds.ts';
import type { EventRow } from '../../core/cluster/facts.ts';
import { VaultError } from '../../core/errors.ts';
import { duration } from '../../core/settings/kinds.ts';
import type { Cluster } from '../../core/work/cluster.ts';
import { followEvents, listEvents, type EventFilter } from '../../core/work/events.ts';
import type { CommandRow, Context } from '../command.ts';
import { momentOf } from '../moment.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { table } from '../ui/table.ts';
import { untilSignalled } from '../until-signalled.ts';

/** How many are shown where neither --since nor --limit says. */
const FEW = 50;

export const events: CommandRow = {
  path: 'events',
  summary: 'show what happened to a cluster, newest last',
  text: `Changes of state only: triggers, promotions, fences, backups, gaps, relays; never one for each segment. Without --since
and --limit the last ${FEW}. Reads the vault only. Times are those of the machine that wrote the event.

--follow shows new ones as they come, until Ctrl-C; with --json one object a line.`,
  options: [
    { flags: '--since <moment>', summary: 'only from then on: how long ago (2h), or an ISO time' },
    { flags: '--kind <kind>', summary: 'only this kind; may be given several times', many: true },
    { flags: '--of <node>', summary: 'only of this node' },
    { flags: '--limit <number>', summary: 'the last so many' },
    { flags: '--follow', summary: 'go on: show new ones as they come' },
    { flags: '--every <duration>', summary: 'how often --follow looks (2s)' },
  ],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'the night', line: 'walvault events --since 12h' },
    { says: 'every change of primary', line: 'walvault events --kind open --kind claim --limit 10' },
    { says: 'beside a switchover', line: 'walvault events --follow' },
  ],
  async run(context) {
    const since = context.text('since');
    const limit = context.number('limit', { from: 1, to: 1_000_000 });
    const everyMs = context.duration('every', '2s', duration('100ms', '1h'));
    const from = new Date();
    const filter: EventFilter = {
      since: since === undefined ? undefined : momentOf('since', since, from),
      kinds: context.list('kind').map(kindOf),
      node: context.text('of'),
    };
    const cluster = await context.cluster();
    const found = await listEvents(cluster, filter, limit ?? (since === undefined ? FEW : Infinity));
    if (context.flag('follow')) return follow(context, cluster, filter, { found, from, everyMs });
    context.answer(found.map(shown), () =>
      found.length === 0
        ? `no events of ${cluster.name}${since === undefined ? '' : ` since ${filter.since}`}`
        : table(
            ['at', 'epoch', 'node', 'kind', 'what'],
            found.map(({ at, epoch, node, kind, text }) => [at, epoch, node, kind, text]),
          ),
    );
  },
};

/** @throws VaultError usage */
export function kindOf(text: string): EventKind {
  if (Object.hasOwn(EVENT_KINDS, text)) return text as EventKind;
  throw new VaultError('usage', `--kind ${text} is no kind of event`, {
    hint: `The kinds are ${Object.keys(EVENT_KINDS).join(', ')}.`,
  });
}

const shown = ({ at, kind, node, epoch, text }: EventRow) => ({ at, kind, node, epoch, text });

/** Lines rather than a table: what comes later is not known yet. */
function lineOf({ at, epoch, node, kind, text }: EventRow): string {
  return `${at}  epoch ${epoch}  ${(node ?? '-').padEnd(8)}  ${kind.padEnd(13)}  ${text}`;
}

async function follow(
  context: Context,
  cluster: Cluster,
  filter: EventFilter,
  { found, from, everyMs }: { found: readonly EventRow[]; from: Date; everyMs: number },
): Promise<void> {
  const tell = (event: EventRow) =>
    context.io.out(`${context.json ? JSON.stringify(shown(event)) : lineOf(event)}\n`);
  for (const event of found) tell(event);
  await untilSignalled(async (signal) => {
    const onTrouble = ({ code, message }: VaultError) => context.say(`[${code}] ${message}: asking on`);
    try {
      for await (const event of followEvents(cluster, filter, {
        known: found,
        from,
        everyMs,
        signal,
        onTrouble,
      }))
        tell(event);
    } catch (error) {
      if (!(error instanceof Error && error.name === 'AbortError')) throw error;
    }
  });
}
