/** `walvault claim`: makes a server that is open already the primary of the vault. */
import { VaultError } from '../../core/errors.ts';
import { readPgdata, type Pgdata } from '../../core/postgres/pgdata.ts';
import { recoveryMode } from '../../core/postgres/signal-files.ts';
import { withConnection } from '../../core/postgres/sql.ts';
import { readWalFile } from '../../core/postgres/wal-directory.ts';
import { historyName } from '../../core/wal/name.ts';
import { parseHistory } from '../../core/wal/history.ts';
import { decideClaim } from '../../core/cluster/decide-roles.ts';
import { readBranch } from '../../core/work/branch.ts';
import { readControl, type Cluster } from '../../core/work/cluster.ts';
import { checkAttached, checkIdentity, writerStore } from '../../core/work/node-state.ts';
import { claimRole } from '../../core/work/promotion.ts';
import type { CommandRow, Context } from '../command.ts';
import { directWay, LOSE_DIRECT_OPTION } from '../direct-way.ts';
import { findStateDirectory, placeOf } from '../state-directory.ts';
import { SERVER_SETTINGS } from '../reach-settings.ts';

export const claim: CommandRow = {
  path: 'claim',
  summary: 'make the open server of PGDATA the primary of the vault',
  text: `For a server that takes writes already and that the vault does not know as its primary: promoted by hand
(pg_promote, pg_ctl promote), or the true one of two copies of a primary. Raises the epoch and names this node;
every other node that took itself for the primary is fenced. A server that left the live branch on a history
of its own is refused: what the vault has archived since would be lost. Run it on that server's machine.`,
  options: [
    { flags: '-y, --yes', summary: 'do not ask' },
    { flags: '--supersede <epoch>', summary: 'give up the pending promotion of this epoch' },
    LOSE_DIRECT_OPTION,
  ],
  settings: SERVER_SETTINGS,
  examples: [
    { says: 'this server was promoted by hand and shall be the primary', line: 'walvault claim --pgdata $P' },
  ],
  async run(context) {
    const { settings } = context;
    const node = settings.need('node');
    const pgdata = await readPgdata(settings.need('pgdata'));
    const state = await findStateDirectory(settings, pgdata);
    checkIdentity(state);
    checkAttached(state);
    if ((await recoveryMode(pgdata.path)) !== 'none')
      throw new VaultError('refused', `${pgdata.path} is a standby`, {
        hint: `A standby becomes the primary by a trigger: 'walvault trigger smart --to ${node}'.`,
      });
    const timeline = await timelineOf(context, pgdata);
    const history =
      timeline === 1 ? undefined : await readWalFile(pgdata.walDirectory, historyName(timeline));
    const cluster = await context.cluster();
    if (pgdata.control.systemIdentifier !== cluster.systemIdentifier)
      throw new VaultError(
        'refused',
        `${pgdata.path} has system identifier ${pgdata.control.systemIdentifier}, cluster ${cluster.name} has ${cluster.systemIdentifier}`,
        {
          hint: 'This is another database: give the right --cluster or --pgdata.',
        },
      );
    const before = await readControl(cluster);
    const supersede = context.number('supersede', { from: 1, to: Number.MAX_SAFE_INTEGER });
    const historyText = history?.toString('utf8');
    await checkClaim(cluster, { node, place: placeOf(pgdata), timeline, historyText, supersede });
    await context.confirm([
      `make ${node} (${placeOf(pgdata)}, timeline ${timeline}) the primary of ${cluster.name}`,
      `end epoch ${before.epoch} of ${before.primary ?? 'nobody'}: whoever else archives as primary is refused from then on`,
    ]);
    const seat = { node, place: placeOf(pgdata), store: writerStore(state) };
    const readSegment = (name: string) => readWalFile(pgdata.walDirectory, name);
    const direct = directWay(context, cluster);
    const epoch = await claimRole(cluster, seat, { timeline, historyText, readSegment, supersede, direct });
    context.answer(
      { cluster: cluster.name, primary: node, epoch, timeline },
      () => `${node} is the primary of ${cluster.name}: epoch ${epoch}, timeline ${timeline}`,
    );
    context.next({
      says: 'see where the cluster stands',
      line: context.command('status', ['vault', 'cluster']),
    });
  },
};

/** Would it be refused? Said before anybody is asked; what counts is the decision in the transaction itself. */
async function checkClaim(
  cluster: Cluster,
  claimed: {
    node: string;
    place: string;
    timeline: number;
    historyText: string | undefined;
    supersede: number | undefined;
  },
): Promise<void> {
  const [control, { head, lineage }] = await Promise.all([readControl(cluster), readBranch(cluster)]);
  const ancestors = claimed.historyText === undefined ? [] : parseHistory(claimed.historyText);
  const request = { ...claimed, ancestors, id: '', nonce: '', at: new Date().toISOString() };
  const decision = decideClaim(control, head, lineage, request);
  if (decision.do === 'refuse')
    throw new VaultError(decision.code, decision.message, { hint: decision.hint });
}

/**
 * The timeline the server writes on. A running one is asked: after a promotion pg_control may show the old timeline until the
 * next checkpoint is through.
 */
async function timelineOf(context: Context, pgdata: Pgdata): Promise<number> {
  if (pgdata.running === undefined) return pgdata.control.timeline;
  return withConnection(
    { pgdata: pgdata.path, settings: context.settings, env: context.io.env },
    async (client) => {
      const { rows } = await client.query<{ name: string }>(
        'SELECT pg_walfile_name(pg_current_wal_lsn()) AS name',
      );
      return Number.parseInt(rows[0]?.name.slice(0, 8) ?? '', 16);
    },
  );
}
