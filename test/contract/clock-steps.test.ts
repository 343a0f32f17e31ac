/**
 * A wall clock that is set while a restore command waits (after a boot without a battery, after a machine was asleep): no time has gone by, so
 * nobody was silent for long, and nothing is given up.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { VaultError } from '../../core/errors.ts';
import { createVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { readControl, type Cluster } from '../../core/work/cluster.ts';
import { commitFiles } from '../../core/work/commit.ts';
import { initCluster } from '../../core/work/init.ts';
import type { NodeContext } from '../../core/work/node-context.ts';
import { answerRestore, type RestoreView } from '../../core/work/restore-request.ts';
import { storeFile } from '../../core/work/store-file.ts';
import { waitForFile } from '../../core/work/wait-restore.ts';
import { installState } from '../../core/work/wrappers.ts';
import { newStandby, seatOf, segment } from '../harness/fake-node.ts';
import { FakeServer } from '../harness/fake-server.ts';
import { makeScratch, waitFor } from '../harness/scratch.ts';
import { segmentBytes } from '../harness/segments.ts';
import { capturedOf } from '../unit/wal/samples.ts';

const HOUR = 3_600_000;
const now = Date.now;
/** By how much it was set, and how often it was asked since. */
let clock = { aheadMs: 0, asked: 0 };
const set = (aheadMs: number) => void (clock = { aheadMs, asked: 0 });

beforeEach(() => {
  set(0);
  jest.spyOn(Date, 'now').mockImplementation(() => {
    clock.asked += 1;
    return now() + clock.aheadMs;
  });
});
afterEach(() => jest.restoreAllMocks());

test.each([HOUR, -HOUR])(
  'archive recovery asks a silent vault again, the clock set by %d ms',
  async (step) => {
    const beyond: RestoreView = {
      held: false,
      branch: {
        lineage: [{ timeline: 1, begins: 0n, ends: null }],
        ...{ end: 0n, segmentSize: 1 << 20, tail: null, wholeForks: new Set(), nextTimeline: 2 },
      },
    };
    let looks = 0;
    const source = {
      async view(): Promise<RestoreView> {
        if (++looks === 3) return beyond;
        set(step);
        throw new VaultError('unreachable', 'it does not answer');
      },
      fetch: () => Promise.reject(new Error('nothing is to be fetched')),
      put: () => Promise.reject(new Error('nothing is to be put')),
    };
    const context = { settings: { restoreTimeout: 30_000, pollInterval: 5 } } as NodeContext;
    const request = { name: segment(1, 1), mode: 'archive', promotionPending: false } as const;
    expect(await answerRestore(context, source, request)).toBe('absent');
    expect(looks).toBe(3);
  },
);

describe('wait mode with restore_max_wait', () => {
  const { segmentSize, production } = capturedOf(18).clusters[0]!;
  const systemIdentifier = production.said['systemIdentifier']!;
  const before = process.cwd();
  let folder: string;
  let vault: Vault;
  let cluster: Cluster;
  let server: FakeServer;
  const seat = seatOf('db1');

  beforeEach(async () => {
    folder = makeScratch();
    vault = await createVault(pathToFileURL(path.join(folder, 'vault')).href);
    const facts = { systemIdentifier, segmentSize, majorVersion: 18, timeline: 1, histories: [] };
    const { node, place, store } = seat;
    ({ cluster } = await initCluster(vault, { cluster: 'main', node, place, store, ...facts }));
    server = new FakeServer(folder);
    server.says('standby');
    mkdirSync(path.join(server.pgdata, 'pg_wal/archive_status'), { recursive: true });
    writeFileSync(path.join(server.pgdata, 'recovery.signal'), '');
    await server.start({ fast: 'ends', immediate: 'ends' });
  });
  afterEach(async () => {
    process.chdir(before);
    await server?.close();
    await vault?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const archive = async (number: number) => {
    const name = segment(1, number);
    const bytes = segmentBytes(name, 'original', { systemIdentifier, segmentSize });
    const stored = await storeFile(cluster, { ...seat, epoch: 1 }, { name, bytes });
    await commitFiles(cluster, seat, stored === 'same' ? [] : [stored]);
  };

  test('the clock goes an hour ahead: the primary lives, and no failover begins', async () => {
    await archive(1);
    await newStandby(cluster, 'db2');
    const stateDir = `${server.pgdata}.walvault`;
    await installState({
      ...{ pgdata: server.pgdata, stateDir, programRoot: folder, nodeBinary: process.execPath },
      settings: { node: 'db2', cluster: 'main', vault: vault.url, restoreMaxWait: 60_000, pollInterval: 10 },
    });
    writeFileSync(path.join(stateDir, 'wait'), '');
    writeFileSync(path.join(stateDir, 'served'), `${segment(1, 1)}\n`);
    const said: string[] = [];
    const target = path.join(folder, 'restored');
    const options = { version: 'test', say: (text: string) => void said.push(text) };
    const waiting = waitForFile(stateDir, segment(1, 2), target, options);
    await waitFor('it waits', 5000, () => clock.asked > 20);
    set(HOUR);
    await waitFor('it has looked again and again', 5000, () => clock.asked > 50);
    await archive(2);
    expect(await waiting).toBe(true);
    expect(said).toEqual([]);
    expect(await readControl(cluster)).toMatchObject({ epoch: 1, primary: 'db1' });
  });
});
