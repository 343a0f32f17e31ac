/** `walvault init`: makes the vault where it is not there, and tells it of one cluster, whose primary the server of PGDATA is. */
import { VaultError } from '../../core/errors.ts';
import { readPgdata, type Pgdata } from '../../core/postgres/pgdata.ts';
import { recoveryMode } from '../../core/postgres/signal-files.ts';
import { listHistories, readWalFile } from '../../core/postgres/wal-directory.ts';
import { createVault } from '../../core/vault/open-vault.ts';
import { initCluster, upgradeCluster, type InitRequest } from '../../core/work/init.ts';
import { formatBytes } from '../ui/format.ts';
import { pairs } from '../ui/table.ts';
import type { CommandRow } from '../command.ts';
import { findStateDirectory, placeOf, storeIn } from '../state-directory.ts';
import { NODE_SETTINGS } from '../reach-settings.ts';

export const init: CommandRow = {
  path: 'init',
  summary: 'make the vault, and tell it of a cluster and its primary',
  text: `Reads pg_control in PGDATA (the server may run or be stopped; nothing there is changed) and writes the
cluster's first rows into the vault: system identifier, segment size, PostgreSQL major, epoch 1, this node as
primary. A file: vault is made where its directory is missing; for s3: bucket and table must be there, or
--create-table makes the table. The same init again is fine. A cluster name that stands for another system
identifier is refused.

--upgraded, after pg_upgrade: the new database, which has a system identifier of its own, takes the place of the old one under the same
name, in the next epoch, as a generation beside the old. From then on the old server can archive nothing more. What the old generation
has in the vault stays as it is and nothing deletes it; standbys are made anew, from a backup of the new one; a relay makes the new
generation in the replica by itself.`,
  options: [
    { flags: '--upgraded', summary: 'the database that pg_upgrade made takes the place of the old one' },
    { flags: '--yes', summary: 'with --upgraded: do not ask' },
    { flags: '--create-table', summary: 's3: make the DynamoDB table where it is missing (on demand)' },
  ],
  settings: NODE_SETTINGS,
  examples: [
    {
      says: 'a vault in a directory, for one machine',
      line: 'walvault init --vault file:///srv/vault --cluster main --pgdata $P --node db1',
    },
    {
      says: 'S3 and DynamoDB, the table made on the way',
      line: `walvault init --vault 's3://bucket/prefix?table=walvault&region=eu-west-1' --cluster main --pgdata $P --node db1 --create-table`,
    },
    {
      says: 'after pg_upgrade, with the new data directory',
      line: 'walvault init --upgraded --vault file:///srv/vault --cluster main --pgdata $P --node db1',
    },
  ],
  async run(context) {
    const { settings } = context;
    const [url, cluster, node] = [settings.need('vault'), settings.need('cluster'), settings.need('node')];
    const pgdata = await readPgdata(settings.need('pgdata'));
    await refuseStandby(pgdata);
    const histories = await readHistories(pgdata);
    const state = await findStateDirectory(settings, pgdata);
    const { control } = pgdata;
    const vault = await context.vaultMadeBy((options) =>
      createVault(url, { ...options, createTable: context.flag('createTable') }),
    );
    const request: InitRequest = {
      cluster,
      node,
      place: placeOf(pgdata),
      store: storeIn(state),
      systemIdentifier: control.systemIdentifier,
      segmentSize: control.segmentSize,
      majorVersion: pgdata.majorVersion,
      timeline: control.timeline,
      histories,
    };
    if (context.flag('upgraded'))
      await context.confirm([
        `${cluster} in ${vault.url} goes on as ${pgdata.path}, PostgreSQL ${pgdata.majorVersion}, system identifier ${control.systemIdentifier}`,
        'the server that it was until now can archive nothing more, and its standbys have to be made anew',
      ]);
    const { was, before } = context.flag('upgraded')
      ? await upgradeCluster(vault, request)
      : { ...(await initCluster(vault, request)), before: null };
    context.answer(
      {
        was,
        before,
        vault: vault.url,
        cluster,
        primary: node,
        systemIdentifier: control.systemIdentifier,
        segmentSize: control.segmentSize,
        majorVersion: pgdata.majorVersion,
        timeline: control.timeline,
      },
      () =>
        pairs([
          ['cluster', was === 'made' ? cluster : `${cluster} (was there already, unchanged)`],
          ['vault', vault.url],
          ['primary', `${node}, ${pgdata.path}`],
          ['system identifier', control.systemIdentifier],
          ...(before === null ? [] : [['generation before', before] as const]),
          [
            'PostgreSQL',
            `${pgdata.majorVersion}, segments of ${formatBytes(control.segmentSize)}, timeline ${control.timeline}`,
          ],
        ]),
    );
    context.next({
      says: 'have the server archive into the vault',
      line: context.command('configure primary', ['vault', 'cluster', 'pgdata', 'node']),
    });
  },
};

/** A standby's timeline is its primary's: named as primary here, the real one would be locked out. */
async function refuseStandby(pgdata: Pgdata): Promise<void> {
  const mode = await recoveryMode(pgdata.path);
  if (mode === 'none' && !/in archive recovery|shut down in recovery/.test(pgdata.control.stateText)) return;
  throw new VaultError('refused', `${pgdata.path} is a standby (${pgdata.control.stateText})`, {
    hint: 'Run init on the primary.',
  });
}

/** The histories in pg_wal up to the present timeline: WAL of its ancestors may still have to be archived. */
async function readHistories(pgdata: Pgdata): Promise<{ timeline: number; text: string }[]> {
  const found: { timeline: number; text: string }[] = [];
  for (const name of await listHistories(pgdata.walDirectory)) {
    const timeline = Number.parseInt(name.slice(0, 8), 16);
    const bytes =
      timeline > pgdata.control.timeline ? undefined : await readWalFile(pgdata.walDirectory, name);
    if (bytes !== undefined) found.push({ timeline, text: bytes.toString('utf8') });
  }
  return found;
}
