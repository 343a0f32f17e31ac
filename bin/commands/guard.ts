/** `walvault guard`: before a server starts, asks whether it may, and puts a promotion right that was killed half way. */
import { VaultError } from '../../core/errors.ts';
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { openCluster } from '../../core/work/cluster.ts';
import { admit, guardPromotion, type Admission } from '../../core/work/guard.ts';
import { leaseTerms } from '../../core/work/lease.ts';
import { writerStore } from '../../core/work/node-state.ts';
import type { CommandRow, Context } from '../command.ts';
import { findStateDirectory, placeOf } from '../state-directory.ts';
import { NODE_SETTINGS } from '../reach-settings.ts';

/** A start does not wait longer for the vault, in ms. */
const ASK_LIMIT_MS = 5000;

export const guard: CommandRow = {
  path: 'guard',
  summary: 'before a start: refuse a server that is no longer the primary, undo a promotion killed half way',
  text: `For ExecStartPre of the server's systemd unit. Exit 0: it may start.
It refuses (exit 77, with the reason) a start as a primary where the vault says that another node holds the epoch, or that
this one was flushed, and the start of a standby that has diverged from the live branch, or that is a crashed primary with
standby.signal put beside it: PostgreSQL would replay its own WAL past the fork without an error.
A vault that does not answer within 5 s keeps nobody from starting: it says so, and what the server then archives
is still refused where another holds the epoch. With a lease it is the other way round: without the vault's word a primary does not start; with
it the lease is renewed and the watchdog started before the server is: start it right after.

Before that it looks, without the vault, for a promotion that was killed half way: PostgreSQL removes standby.signal before it
has taken its new timeline, and would start read-write on the OLD one, with other content under names that are archived. guard
puts the signal file back and removes what the unborn timeline left in pg_wal; the promotion is then done again by itself.`,
  options: [],
  settings: [...NODE_SETTINGS, 'lease', 'watchdog', 'heartbeatInterval'],
  examples: [
    { says: 'before a start', line: 'walvault guard --pgdata $S && pg_ctl -D $S start' },
    {
      says: 'in the unit of the server',
      line: 'ExecStartPre=/opt/walvault/bin/walvault guard --pgdata /var/lib/postgresql/18/main',
    },
  ],
  async run(context) {
    const pgdata = await readPgdata(context.settings.need('pgdata'));
    const state = await findStateDirectory(context.settings, pgdata);
    const { repaired, removed, why } = await guardPromotion(pgdata.path, state.dir);
    if (repaired)
      context.say(
        `put right: ${why}; the signal file is back, ${removed.length === 0 ? 'nothing had to be removed' : `removed ${removed.join(', ')}`}`,
      );
    const admission = await ask(context, pgdata, state);
    const { as, why: because } = admission;
    context.answer(
      { pgdata: pgdata.path, repaired, removed, why, start: as, because },
      () => `${repaired ? '' : `nothing to put right: ${why}\n`}may start (${as}): ${because}`,
    );
  },
};

async function ask(
  context: Context,
  pgdata: Awaited<ReturnType<typeof readPgdata>>,
  paths: Awaited<ReturnType<typeof findStateDirectory>>,
): Promise<Admission> {
  const { vault, cluster, node } = context.settings;
  if (vault === undefined || cluster === undefined || node === undefined)
    return { do: 'allow', as: 'unasked', why: 'no vault is configured for this data directory' };
  const seat = { node, place: placeOf(pgdata), store: writerStore(paths) };
  const open = async () => openCluster(await context.vault(), cluster);
  try {
    return await admit(open, { pgdata, paths, seat, lease: leaseTerms(context.settings) }, ASK_LIMIT_MS);
  } catch (error) {
    if (error instanceof VaultError && error.code === 'copied')
      throw new VaultError('fenced', error.message, { hint: error.hint, cause: error });
    throw error;
  }
}
