/**
 * The quantities that the cost is reckoned from are those of the program: each act is done on a vault that counts, by the code that does
 * it on a node. Who changes how often the vault is asked, or how large a row is, changes core/cost/acts.ts, or this fails.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import * as acts from '../../../core/cost/acts.ts';
import { writeSettingsFile } from '../../../core/settings/file.ts';
import { loadSettings } from '../../../core/settings/read.ts';
import { SETTINGS } from '../../../core/settings/settings.ts';
import { FRAME_BYTES } from '../../../core/vault/object-frame.ts';
import { readHead, type Cluster } from '../../../core/work/cluster.ts';
import { QUIET_MS } from '../../../core/work/follow.ts';
import { heartbeat, swapNonce } from '../../../core/work/heartbeat.ts';
import { renewLease } from '../../../core/work/lease.ts';
import { initCluster } from '../../../core/work/init.ts';
import type { NodeContext } from '../../../core/work/node-context.ts';
import { statePaths } from '../../../core/work/node-state.ts';
import { VaultLane } from '../../../core/work/push-lane.ts';
import { openReplica, relayPass } from '../../../core/work/relay.ts';
import { runRetention } from '../../../core/work/retention.ts';
import { fetchFile } from '../../../core/work/store-file.ts';
import { readWitnessFacts } from '../../../core/work/witness-facts.ts';
import { findSegment } from '../../../core/work/tail.ts';
import { countingVault, type Counted, type CountingVault } from '../../harness/counting-vault.ts';
import { seatOf, segment } from '../../harness/fake-node.ts';
import { segmentBytes, SEGMENT_SIZE, SYSTEM_IDENTIFIER } from '../../harness/segments.ts';
import { memoryVault } from '../../harness/two-vaults.ts';

/** Names as long as people choose them: rows must stay in the units that are reckoned with. */
const CLUSTER = 'customer-orders-production';
const seat = seatOf(
  'db1-eu-west-1a',
  'ip-10-0-112-134.eu-west-1.compute.internal:/var/lib/postgresql/18/main',
);

let scratch: string;
let a: CountingVault, b: CountingVault;
let A: Cluster;
let lane: VaultLane;

beforeEach(async () => {
  scratch = mkdtempSync(path.join(os.tmpdir(), 'walvault-cost-'));
  [a, b] = [countingVault(await memoryVault()), countingVault(await memoryVault())];
  const facts = { systemIdentifier: SYSTEM_IDENTIFIER, segmentSize: SEGMENT_SIZE, majorVersion: 18 };
  const { cluster } = await initCluster(a, {
    ...{ cluster: CLUSTER, node: seat.node, place: seat.place, store: seat.store },
    ...{ ...facts, timeline: 1, histories: [] },
  });
  A = cluster;
  lane = new VaultLane(contextOf(), () => {});
  await archive(1);
  a.take();
});
afterEach(async () => {
  await a.close();
  await b.close();
  rmSync(scratch, { recursive: true, force: true });
});

function contextOf(): NodeContext {
  const stateDir = path.join(scratch, 'state');
  mkdirSync(stateDir);
  writeSettingsFile(path.join(stateDir, 'settings.toml'), {});
  return {
    ...{
      stateDir,
      paths: statePaths(stateDir),
      node: seat.node,
      pgdata: scratch,
      seat,
      histories: new Map(),
    },
    settings: loadSettings({ flags: {}, env: {}, stateDir }),
    cluster: async () => A,
    other: async () => A,
    close: async () => {},
  };
}

/** As the agent does it. */
async function archive(number: number, by = lane): Promise<void> {
  const name = segment(1, number);
  const file = path.join(scratch, name);
  writeFileSync(file, segmentBytes(name));
  const stored = await by.store(A, { name, path: file });
  if (stored !== 'same') await by.commit(A, [stored]);
}

const units = ({ readUnits, writeUnits }: Counted) => ({ reads: readUnits, writes: writeUnits });

test('a segment archived is one object and one transaction, in the units that are reckoned', async () => {
  // a lane of its own, as after a second: it looks anew whether it may write
  await archive(2, new VaultLane(contextOf2(), () => {}));
  const counted = a.take();
  expect({ ...units(counted), puts: counted.puts }).toEqual(acts.ARCHIVE);
  expect(counted).toMatchObject({ transactions: 1, gets: 0, lists: 0, copies: 0, deletes: 0 });
});

const contextOf2 = (): NodeContext => {
  rmSync(path.join(scratch, 'state'), { recursive: true });
  return contextOf();
};

test('heartbeats, looks and fetches are what is reckoned', async () => {
  const primary = { name: seat.node, role: 'primary', lastArchived: segment(1, 1) } as const;
  await heartbeat(A, { ...primary, place: seat.place }, seat); // the first makes the row
  a.take();
  await heartbeat(A, primary, seat);
  expect(units(a.take())).toEqual(acts.BEAT_PRIMARY);

  const renew = () => renewLease(A, seat, primary, { ms: 30_000, watchdog: 'systemd' });
  await renew();
  a.take();
  await renew();
  await swapNonce(A, seat);
  expect(units(a.take())).toEqual(acts.BEAT_LEASE);

  const standby = { name: 'db2-eu-west-1b', role: 'standby', place: seat.place, consistent: true } as const;
  await heartbeat(A, standby);
  a.take();
  const trouble = 'the vault did not answer for 120 s: look at the route to it and at its credentials';
  await heartbeat(A, { ...standby, lastRestored: segment(1, 1), restartPoint: segment(1, 1), trouble });
  expect(units(a.take())).toEqual(acts.BEAT_STANDBY);

  await readWitnessFacts(A);
  expect(units(a.take())).toEqual({ ...acts.WITNESS_LOOK, writes: 0 });

  await readHead(A);
  expect(units(a.take())).toEqual({ ...acts.POLL, writes: 0 });

  await fetchFile(A, (await findSegment(A, segment(1, 1)))!);
  const fetched = a.take();
  expect({ reads: fetched.readUnits, gets: fetched.gets }).toEqual(acts.FETCH);
});

test('a pass of a relay costs what is reckoned: for itself, for a transaction, for each segment', async () => {
  const B = await openReplica(A, b);
  const pass = async () => {
    a.take();
    b.take();
    await relayPass(A, B);
    return [a.take(), b.take()] as const;
  };
  let number = 1;
  await pass(); // the first begins the chain

  const [emptyA, emptyB] = await pass();
  expect(units(emptyA)).toEqual(acts.RELAY_PASS.source);
  expect(units(emptyB)).toEqual(acts.RELAY_PASS.target);

  for (const count of [1, 3]) {
    for (let each = 0; each < count; each++) await archive(++number);
    const [source, target] = await pass();
    const { reads, writes, copies } = acts.RELAY_SEGMENT.target;
    expect(source.readUnits).toBe(emptyA.readUnits + acts.RELAY_BATCH.source.reads);
    expect(source.writeUnits).toBe(emptyA.writeUnits);
    expect(target.readUnits).toBe(emptyB.readUnits + count * reads);
    expect(target.writeUnits).toBe(emptyB.writeUnits + acts.RELAY_BATCH.target.writes + count * writes);
    expect(target.copies).toBe(count * copies);
  }
});

test('a run of retention costs what is reckoned, and two units for each row that goes', async () => {
  const policy = {
    keepBackups: 2,
    keepDays: 0,
    pitrWindowMs: 0,
    nodeLeaseMs: 3600_000,
    relayLeaseMs: 3600_000,
  };
  for (const number of [2, 3, 4]) await archive(number);
  await runRetention(A, policy);
  a.take();
  await runRetention(A, policy);
  const idle = a.take();
  expect(idle.readUnits).toBeLessThanOrEqual(acts.RETENTION_RUN.reads);
  expect(idle.readUnits).toBeGreaterThanOrEqual(acts.RETENTION_RUN.reads / 2);
  expect(idle.lists).toBe(1);

  await heartbeat(A, { name: 'db2', role: 'standby', consistent: true, restartPoint: segment(1, 3) });
  a.take();
  const { wal } = await runRetention(A, policy);
  const { writeUnits, deletes } = a.take();
  expect(wal.rows).toBe(2);
  expect(deletes).toBe(2);
  expect(writeUnits).toBeLessThanOrEqual(acts.RETENTION_RUN.writes + 2 * acts.RETENTION_SEGMENT.writes + 2);
});

test('rows are as large as is reckoned', async () => {
  await openReplica(A, b);
  await relayPass(A, await openReplica(A, b));
  for (const vault of [a, b]) for (const bytes of vault.largest.values()) expect(bytes).toBeLessThan(1024);
  const row = Math.max(a.largest.get('wal')!, b.largest.get('wal')!);
  expect(row).toBeLessThanOrEqual(acts.WAL_ROW_BYTES);
  expect(row).toBeGreaterThan(acts.WAL_ROW_BYTES * 0.8);
});

test('what else is taken from the program is as there', () => {
  expect(acts.FRAME_BYTES).toBe(FRAME_BYTES);
  expect(acts.QUIET_MS).toBe(QUIET_MS);
  expect(acts.SWEEP_LOOK_MS).toBe(SETTINGS.sweepInterval.kind.parse(SETTINGS.sweepInterval.default));
});
