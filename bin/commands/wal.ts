/** `walvault wal`: what the vault holds of the WAL, and what it does not. */
import { VaultError } from '../../core/errors.ts';
import type { Cluster } from '../../core/work/cluster.ts';
import {
  lastWal,
  listHoles,
  listWal,
  type Hole,
  type WalEntry,
  type WalFilter,
} from '../../core/work/list-wal.ts';
import { parseLsn, type Lsn } from '../../core/wal/lsn.ts';
import { parseWalName, segmentStart } from '../../core/wal/name.ts';
import type { CommandRow, Context } from '../command.ts';
import { REACH_SETTINGS } from '../reach-settings.ts';
import { formatBytes, formatCount } from '../ui/format.ts';
import { writeList } from '../ui/list.ts';

export const wal: CommandRow = {
  path: 'wal',
  summary: 'list the WAL in the vault, or what is missing of it',
  text: `One line for each file, in the order of timelines and positions: wal (segments, .partial and .backup files), tail
(the unfinished last segment of a timeline that was flushed or salvaged), spill (what waits in a replica) and gap (WAL that was declared
not archived). Lines are printed as they are read, however many there are.

--from and --to are positions: an LSN, or a segment's name, of whatever timeline. --missing lists the holes of the live branch
between the first byte ever archived and its head; what retention has let go is none.`,
  options: [
    { flags: '--timeline <number>', summary: 'only of this timeline, decimal' },
    { flags: '--from <place>', summary: 'from the segment with this LSN or name on' },
    { flags: '--to <place>', summary: 'up to the segment with this LSN or name, with it' },
    { flags: '--of <node>', summary: 'only what this node archived' },
    { flags: '--epoch <number>', summary: 'only what was archived in this epoch' },
    { flags: '--missing', summary: 'what the live branch should have, and has not' },
    { flags: '--limit <number>', summary: 'the last so many' },
  ],
  settings: REACH_SETTINGS,
  examples: [
    { says: 'the last twenty files', line: 'walvault wal --limit 20' },
    { says: 'around a record that pg_waldump named', line: 'walvault wal --from 2/A0000028 --to 2/A4000000' },
    { says: 'is anything missing?', line: `walvault wal --missing --json | jq 'length'` },
  ],
  async run(context) {
    const timeline = context.number('timeline', { from: 1, to: 0xffff_ffff });
    const epoch = context.number('epoch', { from: 0, to: Number.MAX_SAFE_INTEGER });
    const limit = context.number('limit', { from: 1, to: 1_000_000 });
    const node = context.text('of');
    if (context.flag('missing') && (node !== undefined || epoch !== undefined))
      throw new VaultError('usage', 'what is missing is of no node and no epoch', {
        hint: 'Leave --of and --epoch away, or --missing.',
      });
    // a mistyped place is said before a vault is looked for, as far as that goes without its segment size
    for (const option of ['from', 'to']) checkPlace(option, context.text(option));
    const cluster = await context.cluster();
    const [from, to] = ['from', 'to'].map((option) => placeOf(cluster, option, context.text(option)));
    if (from !== undefined && to !== undefined && from > to)
      throw new VaultError('usage', `--from ${context.text('from')} lies after --to ${context.text('to')}`);
    const filter: WalFilter = { timeline, from, to, node, epoch };
    if (context.flag('missing')) return showHoles(context, listHoles(cluster, filter), limit);
    const found = limit === undefined ? listWal(cluster, filter) : await lastWal(cluster, filter, limit);
    await writeList(context, found, {
      head: lineOf(['kind', 'file', 'from', 'to', 'epoch', 'node', 'at', 'stored']),
      line: describe,
      none: `nothing of ${cluster.name} is in the vault, or nothing that was asked for`,
    });
  },
};

const WIDTHS = [5, 40, 17, 17, 5, 12, 24, 8];

/** Columns of a width of their own: the lines to come are not known yet. */
const lineOf = (cells: readonly string[]): string =>
  cells
    .map((cell, column) => cell.padEnd(WIDTHS[column] ?? 0))
    .join('  ')
    .trimEnd();

function describe(entry: WalEntry): string {
  const { kind, file, lsn, endLsn, epoch, node, at, storedBytes, to, reason } = entry;
  if (kind === 'gap') return lineOf([kind, file, lsn, '-', '-', '-', at, `up to ${to}: ${reason}`]);
  const stored = storedBytes === null ? '-' : formatBytes(storedBytes);
  return lineOf([kind, file, lsn, endLsn ?? '-', String(epoch ?? '-'), node ?? '-', at, stored]);
}

function checkPlace(option: string, text: string | undefined): void {
  if (text === undefined || parseWalName(text)?.kind === 'segment') return;
  try {
    parseLsn(text);
  } catch (cause) {
    throw new VaultError('usage', `--${option}: '${text}' is neither the name of a segment nor an LSN`, {
      hint: 'A segment has 24 digits, 0-9 and A-F; an LSN is as 2/A0000028.',
      cause,
    });
  }
}

/** @throws VaultError usage: no segment of this cluster's size has that name */
function placeOf(cluster: Cluster, option: string, text: string | undefined): Lsn | undefined {
  if (text === undefined) return undefined;
  if (text.includes('/')) return parseLsn(text);
  try {
    return segmentStart(text, cluster.segmentSize);
  } catch (cause) {
    throw new VaultError('usage', `--${option}: ${(cause as Error).message}`, { cause });
  }
}

async function showHoles(
  context: Context,
  holes: AsyncIterable<Hole>,
  limit: number | undefined,
): Promise<void> {
  const kept: Hole[] = [];
  if (limit !== undefined)
    for await (const hole of holes) {
      kept.push(hole);
      if (kept.length > limit) kept.shift();
    }
  await writeList(context, limit === undefined ? holes : kept, {
    head: undefined,
    line: ({ from, to, segments, reason }) =>
      `MISSING  ${from} to ${to}  ${formatCount(segments, 'segment')}  ${reason ?? 'no gap was declared'}`,
    none: 'nothing is missing',
  });
}
