/** A primary as it stands after its flush: stopped, to be started read-only, its tail and the latch in the vault. No PostgreSQL. */
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Vault } from '../../core/vault/vault.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import { segmentAt } from '../../core/wal/name.ts';
import { initCluster } from '../../core/work/init.ts';
import { statePaths, writerStore } from '../../core/work/node-state.ts';
import { commitTail } from '../../core/work/tail.ts';
import { installState } from '../../core/work/wrappers.ts';
import { capturedOf } from '../unit/wal/samples.ts';
import { fakeNode, type FakeNode } from './fake-node.ts';
import { FakeServer } from './fake-server.ts';
import { segmentBytes } from './segments.ts';

export type FlushedNode = { server: FakeServer; stateDir: string; db1: FakeNode };

/** @param folder  of the test's own */
export async function flushedNode(folder: string, vault: Vault): Promise<FlushedNode> {
  const { segmentSize, production } = capturedOf(18).clusters[0]!;
  const { systemIdentifier = '', checkpointLsn = '' } = production.said;
  const server = new FakeServer(folder);
  server.says('stopped');
  mkdirSync(path.join(server.pgdata, 'pg_wal/archive_status'), { recursive: true });
  writeFileSync(path.join(server.pgdata, 'standby.signal'), '');
  const stateDir = `${server.pgdata}.walvault`;
  const installed = { programRoot: folder, nodeBinary: process.execPath, settings: {} };
  await installState({ ...installed, pgdata: server.pgdata, stateDir });
  const seat = { node: 'db1', place: 'host-db1:/pg', store: writerStore(statePaths(stateDir)) };
  const { cluster } = await initCluster(vault, {
    ...{ cluster: 'main', node: 'db1', place: seat.place, store: seat.store },
    ...{ systemIdentifier, segmentSize, majorVersion: 18, timeline: 1, histories: [] },
  });
  const lsn = parseLsn(checkpointLsn);
  const segment = segmentAt(1, lsn, segmentSize);
  const bytes = segmentBytes(segment, 'flushed', { systemIdentifier, segmentSize });
  await commitTail(cluster, seat, { segment, bytes, lsn: lsn + 0x78n }, 'flush');
  return { server, stateDir, db1: fakeNode(cluster, seat) };
}
