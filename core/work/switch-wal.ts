/** The running segment ended by hand, so that what is in it is archived now. */
import { VaultError } from '../errors.ts';
import { withConnection, type ConnectOptions } from '../postgres/sql.ts';
import { formatLsn, parseLsn } from '../wal/lsn.ts';
import { segmentAt, segmentEnd } from '../wal/name.ts';
import type { Cluster } from './cluster.ts';
import { findGap } from './gap-rows.ts';
import { waitForWal } from './wal-arrival.ts';

/** A segment in which nothing was written holds the header of its first page. */
const PAGE_HEADER = 40n;

export type Switched = {
  /** false: nothing was written since the last switch, and nothing was done. */
  switched: boolean;
  /** The segment that was ended; where nothing was to switch, the empty one that is next. */
  segment: string;
  lsn: string;
};

export type SwitchStep = { step: 'checkpoint' } | { step: 'waiting'; segment: string };

/** @throws VaultError refused (a standby) | denied | unreachable */
export async function switchWal(
  cluster: Cluster,
  connection: ConnectOptions,
  onStep: (step: SwitchStep) => void = () => {},
): Promise<Switched> {
  return withConnection(connection, async (client) => {
    const ask = async <T extends object>(query: string): Promise<T> => {
      try {
        const { rows } = await client.query<T>(query);
        return rows[0]!;
      } catch (cause) {
        throw new VaultError('denied', `the server does not do it: ${(cause as Error).message}`, {
          cause,
          hint: 'Connect as a superuser (PGUSER).',
        });
      }
    };
    const { recovering } = await ask<{ recovering: boolean }>('SELECT pg_is_in_recovery() AS recovering');
    if (recovering)
      throw new VaultError('refused', 'this server is a standby: it writes no WAL', {
        hint: `Run it on the primary: 'walvault status' says which it is.`,
      });
    const { id, at, timeline } = await ask<{ id: string; at: string; timeline: number }>(
      `SELECT s.system_identifier::text AS id, pg_current_wal_insert_lsn()::text AS at, c.timeline_id AS timeline
         FROM pg_control_system() s, pg_control_checkpoint() c`,
    );
    if (id !== cluster.systemIdentifier)
      throw new VaultError(
        'refused',
        `the server has system identifier ${id}, cluster ${cluster.name} is ${cluster.systemIdentifier}`,
        {
          hint: 'Give the --cluster of this database, or the --pgdata of that cluster.',
        },
      );
    const size = BigInt(cluster.segmentSize);
    const begin = parseLsn(at);
    if (begin % size <= PAGE_HEADER)
      return {
        switched: false,
        segment: segmentAt(timeline, begin, cluster.segmentSize),
        lsn: formatLsn(begin - (begin % size)),
      };
    onStep({ step: 'checkpoint' });
    await ask('CHECKPOINT');
    const { name, lsn } = await ask<{ name: string; lsn: string }>(
      `SELECT left(pg_walfile_name(lsn), 8) AS name, lsn::text AS lsn FROM (SELECT pg_switch_wal() AS lsn) AS done`,
    );
    const end = parseLsn(lsn);
    // where another was faster, and the segment is empty by now, it answers with its begin
    const segment = segmentAt(Number.parseInt(name, 16), end - 1n, cluster.segmentSize);
    return { switched: true, segment, lsn: formatLsn(segmentEnd(segment, cluster.segmentSize)) };
  });
}

/**
 * Until the vault has the segment, or has declared it lost.
 *
 * @param limitMs  how long nothing at all may arrive
 * @throws VaultError unreachable (it did not come in time) | refused
 */
export async function untilArchived(
  cluster: Cluster,
  { segment, lsn }: Pick<Switched, 'segment' | 'lsn'>,
  { limitMs, signal, connection }: { limitMs: number; signal?: AbortSignal; connection?: ConnectOptions },
): Promise<'archived' | 'gap'> {
  const timeline = Number.parseInt(segment.slice(0, 8), 16);
  const wait = { timeline, lsn: parseLsn(lsn), limitMs, ...(signal === undefined ? {} : { signal }) };
  if (connection === undefined) await waitForWal(cluster, wait);
  else await withConnection(connection, (client) => waitForWal(cluster, { ...wait, client }));
  return (await findGap(cluster, segment)) === undefined ? 'archived' : 'gap';
}
