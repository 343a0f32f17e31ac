/** `walvault salvage`: brings what a dead server has not archived into the vault. */
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { checkAttached, checkIdentity, writerStore } from '../../core/work/node-state.ts';
import { fetchAside, listAside, refuseRunning, salvage, type Salvaged } from '../../core/work/salvage.ts';
import { withoutAgent } from '../../core/work/without-agent.ts';
import type { CommandRow, Context } from '../command.ts';
import { findStateDirectory, placeOf } from '../state-directory.ts';
import { formatBytes, formatCount } from '../ui/format.ts';
import { pairs, table } from '../ui/table.ts';
import { NODE_SETTINGS } from '../reach-settings.ts';

export const salvageCommand: CommandRow = {
  path: 'salvage',
  summary: 'bring what a dead server has not archived into the vault, from its disk',
  text: `For a machine that is up while its PostgreSQL does not start, or must not. The server must be stopped.

Before a failover, while this node is still the primary of the epoch: every finished segment goes into the vault in order, and
the last one up to its last valid record as the tail of the timeline. The smart trigger that follows then loses nothing.
After a failover (another node holds the epoch): what the vault does not have goes aside, under this node's epoch. It is listed
and fetched, and never served to a standby: both went on from one point, and only one of them is the live branch.
May be run again; changes nothing on this machine.`,
  options: [
    { flags: '--list', summary: 'show what lies aside in the vault; needs no PGDATA' },
    { flags: '--fetch <directory>', summary: 'fetch all that lies aside, verified; needs no PGDATA' },
  ],
  settings: [...NODE_SETTINGS, 'zstdLevel'],
  examples: [
    {
      says: 'the old primary does not start: save its last commits, then fail over',
      line: 'walvault salvage --pgdata $P',
    },
    { says: 'what was saved of servers that had lost the epoch', line: 'walvault salvage --list' },
    { says: 'look into it with pg_waldump', line: 'walvault salvage --fetch /tmp/aside' },
  ],
  async run(context) {
    const fetchTo = context.text('fetch');
    if (fetchTo !== undefined) {
      const files = await fetchAside(await context.cluster(), fetchTo);
      context.answer({ files }, () => (files.length === 0 ? 'nothing lies aside' : files.join('\n')));
      return;
    }
    if (context.flag('list')) return list(context);
    const { settings } = context;
    const pgdata = await readPgdata(settings.need('pgdata'));
    const paths = await findStateDirectory(settings, pgdata);
    checkIdentity(paths);
    checkAttached(paths);
    refuseRunning(pgdata); // before its agent is asked to end
    const cluster = await context.cluster();
    const seat = { node: settings.need('node'), place: placeOf(pgdata), store: writerStore(paths) };
    const done = await withoutAgent(paths.dir, () =>
      salvage(cluster, { seat, pgdata, zstdLevel: settings.zstdLevel }),
    );
    context.answer({ node: seat.node, ...done }, () => describeSalvaged(seat.node, done));
    if (done.into !== 'aside')
      context.next({
        says: 'the vault has all of it: fail over to a standby, or start this server again',
        line: context.command('trigger smart', ['vault', 'cluster'], ['--to', 'NODE']),
      });
  },
};

export function describeSalvaged(node: string, done: Salvaged): string {
  const where = {
    vault: `in the vault, epoch ${done.epoch}`,
    aside: `aside, under epoch ${done.epoch}: not part of the live branch`,
    nothing: 'nothing to do: the vault has all of it',
  }[done.into];
  return pairs([
    [
      'salvaged',
      `${formatCount(done.files.length, 'file')} of ${node}, up to ${done.endLsn} on timeline ${done.timeline}`,
    ],
    ['where', where],
    ...done.files.map(({ file, endLsn }): [string, string] => [
      'file',
      endLsn === null ? file : `${file}, up to ${endLsn}`,
    ]),
  ]);
}

async function list(context: Context): Promise<void> {
  const rows = await listAside(await context.cluster());
  const shown = rows.map(({ epoch, node, file, endLsn, sizeBytes, sha256, key, savedAt }) => ({
    epoch,
    node,
    file,
    endLsn,
    sizeBytes,
    sha256,
    key,
    savedAt,
  }));
  context.answer({ aside: shown }, () =>
    shown.length === 0
      ? 'nothing lies aside'
      : table(
          ['epoch', 'node', 'file', 'up to', 'size', 'saved at'],
          shown.map((row) => [
            row.epoch,
            row.node,
            row.file,
            row.endLsn,
            formatBytes(row.sizeBytes),
            row.savedAt,
          ]),
        ),
  );
}
