/** A primary that was stopped cleanly, as its files show it: the shutdown checkpoint in pg_wal, and a vault that has all before it. No PostgreSQL. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Vault } from '../../core/vault/vault.ts';
import { crc32c } from '../../core/wal/crc32c.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import { initCluster } from '../../core/work/init.ts';
import { statePaths, writerStore } from '../../core/work/node-state.ts';
import { installState } from '../../core/work/wrappers.ts';
import { RUNS, segmentsOf } from '../unit/wal/wal-runs.ts';
import { fakeNode, type FakeNode } from './fake-node.ts';
import { FakeServer } from './fake-server.ts';

export type StoppedNode = { server: FakeServer; stateDir: string; db1: FakeNode };

/** @param folder  of the test's own */
export async function stoppedNode(folder: string, vault: Vault): Promise<StoppedNode> {
  const { run } = RUNS.find(({ title }) => /^PostgreSQL 18.* 1 MiB.*with archiving$/.test(title))!;
  const { systemIdentifier, segmentSize, checkpointLsn = '' } = run;
  const server = new FakeServer(folder);
  server.says('stopped');
  sayCheckpoint(path.join(server.pgdata, 'global/pg_control'), systemIdentifier, parseLsn(checkpointLsn));
  mkdirSync(path.join(server.pgdata, 'pg_wal/archive_status'), { recursive: true });
  const { name, bytes } = segmentsOf(run).at(-1)!;
  writeFileSync(
    path.join(server.pgdata, 'pg_wal', name),
    Buffer.concat([bytes, Buffer.alloc(segmentSize - bytes.length)]),
  );
  const stateDir = `${server.pgdata}.walvault`;
  const installed = { programRoot: folder, nodeBinary: process.execPath, settings: {} };
  await installState({ ...installed, pgdata: server.pgdata, stateDir });
  const seat = { node: 'db1', place: 'host-db1:/pg', store: writerStore(statePaths(stateDir)) };
  const { cluster } = await initCluster(vault, {
    ...{ cluster: 'main', node: 'db1', place: seat.place, store: seat.store },
    ...{ systemIdentifier, segmentSize, majorVersion: 18, timeline: 1, histories: [] },
  });
  return { server, stateDir, db1: fakeNode(cluster, seat) };
}

/** As core/wal/control-file.ts reads it, of 18. */
function sayCheckpoint(file: string, systemIdentifier: string, lsn: bigint): void {
  const bytes = readFileSync(file);
  bytes.writeBigUInt64LE(BigInt(systemIdentifier), 0);
  bytes.writeBigUInt64LE(lsn, 32);
  bytes.writeBigUInt64LE(lsn, 40);
  bytes.writeUInt32LE(crc32c(bytes, 0, 0, 292), 292);
  writeFileSync(file, bytes);
}
