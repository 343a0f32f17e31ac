/** What an agent says of its node while that changes from a primary into a standby. The vault is real; the server is a process and a pg_control. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { loadSettings } from '../../core/settings/read.ts';
import { writeSettingsFile } from '../../core/settings/file.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { openCluster, readNode } from '../../core/work/cluster.ts';
import { ExternalRoles } from '../../core/work/external.ts';
import { Follower } from '../../core/work/follow.ts';
import { Journal } from '../../core/work/journal.ts';
import { LeaseKeeper } from '../../core/work/lease.ts';
import type { NodeContext } from '../../core/work/node-context.ts';
import { NodeReporter, type Role } from '../../core/work/node-report.ts';
import { statePaths } from '../../core/work/node-state.ts';
import { Pusher } from '../../core/work/push.ts';
import { Spool } from '../../core/work/spool.ts';
import { newCluster, newStandby, onWire, segment, type FakeNode, type Wire } from '../harness/fake-node.ts';
import { FakeServer } from '../harness/fake-server.ts';
import { promote } from '../harness/promotions.ts';
import { makeScratch, waitFor } from '../harness/scratch.ts';
import { memoryVault } from '../harness/two-vaults.ts';

let scratch: string;
let vault: Vault;
let db1: FakeNode;
let server: FakeServer;
let isFinished: boolean;
let role: Role;
let beats: Promise<void>;

beforeEach(async () => {
  scratch = makeScratch('report');
  vault = await memoryVault();
  db1 = await newCluster(vault, 'reports');
  await db1.archive(segment(1, 1));
  await promote(db1.cluster, await newStandby(db1.cluster, 'db2'), 2); // db1 is fenced from here on
  server = new FakeServer(scratch);
  mkdirSync(path.join(server.pgdata, 'pg_wal/archive_status'), { recursive: true });
  await server.start({ fast: 'ends', immediate: 'ends' });
  [isFinished, role] = [false, 'push'];
});
afterEach(async () => {
  isFinished = true;
  await beats;
  await server.close();
  await vault.close();
  rmSync(scratch, { recursive: true, force: true });
});

async function report(wire: Wire = {}): Promise<void> {
  const stateDir = path.join(scratch, 'state');
  mkdirSync(stateDir);
  writeSettingsFile(path.join(stateDir, 'settings.toml'), {});
  const cluster = await openCluster(onWire(vault, wire), db1.cluster.name);
  const context: NodeContext = {
    ...{ stateDir, paths: statePaths(stateDir), node: 'db1', pgdata: server.pgdata, histories: new Map() },
    settings: loadSettings({ flags: { node: 'db1', heartbeatInterval: '1s' }, env: {}, stateDir }),
    seat: db1.seat,
    cluster: () => Promise.resolve(cluster),
    other: () => Promise.reject(new Error('one vault')),
    close: () => Promise.resolve(),
  };
  const journal = new Journal(context.paths);
  const [follower, pusher] = [
    new Follower(context, journal, new Spool(context.paths)),
    new Pusher(context, journal),
  ];
  const external = new ExternalRoles(context, journal, () => {});
  const lease = new LeaseKeeper(context);
  beats = new NodeReporter(context, journal, 'test', follower, pusher, external, lease).beat(
    () => isFinished,
    () => role,
  );
}

const row = () => readNode(db1.cluster, 'db1');
/** Its server was started again, as a standby, within the time after which its agent would have gone. */
function becomesStandby(): void {
  server.says('standby');
  writeFileSync(path.join(server.pgdata, 'standby.signal'), '');
  role = 'follow';
}

test('what kept it from writing as a primary is not said of the standby that it has become', async () => {
  await report();
  await waitFor('the trouble', 5000, async () => (await row())?.trouble?.includes('db2'));
  becomesStandby();
  const standby = await waitFor('its report as a standby', 5000, async () => {
    const now = await row();
    return now?.role === 'standby' && now;
  });
  expect(standby.trouble).toBeNull();
});

test('a word of the primary that comes late is none of the standby', async () => {
  const said: unknown[] = [];
  await report({
    async before(changes) {
      for (const change of changes)
        if (change.do === 'put') {
          if (change.row.kind === 'fenced') becomesStandby(); // between what it was told and what it says of itself
          if (change.row.sk === 'node#db1') said.push([change.row.role, change.row.trouble]);
        }
    },
  });
  await waitFor('its report as a standby', 5000, async () => (await row())?.role === 'standby');
  expect(said).toEqual([
    ['primary', null],
    ['standby', null],
  ]);
});
