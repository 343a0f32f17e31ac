/**
 * The smallest thing that puts a primary's WAL into a vault: archive_command copies into a folder, this process commits what
 * lies there. For tests of what comes after archiving; the hooks have tests of their own.
 */
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Vault } from '../../core/vault/vault.ts';
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { readyOrder } from '../../core/postgres/wal-directory.ts';
import type { Cluster } from '../../core/work/cluster.ts';
import { commitFiles } from '../../core/work/commit.ts';
import { initCluster } from '../../core/work/init.ts';
import { fetchFile, storeFile } from '../../core/work/store-file.ts';
import type { WalRow } from '../../core/cluster/facts.ts';
import { after } from '../../core/vault/manifest.ts';
import { writeFileSync } from 'node:fs';
import { seatOf } from './fake-node.ts';

/** archive_command that hands the files to `folder`. */
export const copyInto = (folder: string): string =>
  `cp %p "${folder}/%f.tmp" && mv "${folder}/%f.tmp" "${folder}/%f"`;

export type SimpleArchiver = { cluster: Cluster; paused: boolean; stop(): Promise<void> };

/** Makes the cluster of a data directory and archives for it, as node db1, until stopped. */
export async function archiveFor(vault: Vault, pgdata: string, folder: string): Promise<SimpleArchiver> {
  const { control, majorVersion } = await readPgdata(pgdata, { anyOwner: true });
  const seat = seatOf('db1');
  const { systemIdentifier, segmentSize, timeline } = control;
  const { cluster } = await initCluster(vault, {
    cluster: 'main',
    node: 'db1',
    place: seat.place,
    store: seat.store,
    systemIdentifier,
    segmentSize,
    majorVersion,
    timeline,
    histories: [],
  });
  let isStopped = false;
  const archiver: SimpleArchiver = { cluster, paused: false, stop: async () => undefined };
  const loop = async (): Promise<void> => {
    while (!isStopped) {
      const names = archiver.paused ? [] : readdirSync(folder).filter((name) => !name.endsWith('.tmp'));
      for (const name of names.sort(readyOrder)) {
        const file = path.join(folder, name);
        const stored = await storeFile(
          cluster,
          { node: 'db1', epoch: 1 },
          { name, bytes: readFileSync(file) },
        );
        if (stored !== 'same') await commitFiles(cluster, seat, [stored]);
        rmSync(file);
      }
      await sleep(20);
    }
  };
  const running = loop();
  archiver.stop = async () => {
    isStopped = true;
    await running;
  };
  return archiver;
}

/** Every segment of the vault as files in `folder`: restore_command = cp. */
export async function walInto(cluster: Cluster, folder: string): Promise<void> {
  const range = { pk: cluster.partition, from: 'wal#', to: after('wal#') };
  for await (const row of cluster.vault.manifest.query(range)) {
    writeFileSync(
      path.join(folder, row.sk.slice('wal#'.length)),
      await fetchFile(cluster, row as unknown as WalRow),
    );
  }
}
