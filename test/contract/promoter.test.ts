/**
 * The target of a promotion between its seal and its open, when the vault names another node meanwhile. The vault is real, and the server is a
 * process that takes the signal of a promotion; nothing of PostgreSQL.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { loadSettings } from '../../core/settings/read.ts';
import { writeSettingsFile } from '../../core/settings/file.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { readBranch } from '../../core/work/branch.ts';
import { Follower } from '../../core/work/follow.ts';
import { Journal } from '../../core/work/journal.ts';
import type { NodeContext } from '../../core/work/node-context.ts';
import { readSeal, statePaths } from '../../core/work/node-state.ts';
import { openSealed, Promoter } from '../../core/work/promote.ts';
import { Spool } from '../../core/work/spool.ts';
import { triggerPromotion } from '../../core/work/trigger.ts';
import { newCluster, newStandby, seatOf, segment, type FakeNode } from '../harness/fake-node.ts';
import { FakeServer } from '../harness/fake-server.ts';
import { historyText } from '../harness/promotions.ts';
import { makeScratch, waitFor } from '../harness/scratch.ts';
import { memoryVault } from '../harness/two-vaults.ts';

let scratch: string;
let vault: Vault;
let db1: FakeNode;
let server: FakeServer;
let context: NodeContext;

const standbySignal = () => path.join(server.pgdata, 'standby.signal');
/** An agent that was just started: all that it knows lies on the disk. */
const newPromoter = (): Promoter => {
  const journal = new Journal(context.paths);
  const spool = new Spool(context.paths);
  return new Promoter(context, journal, spool, new Follower(context, journal, spool));
};

beforeEach(async () => {
  scratch = makeScratch('seal');
  vault = await memoryVault();
  db1 = await newCluster(vault, 'seals');
  await db1.archive(segment(1, 1));
  for (const node of ['db2', 'db3']) await newStandby(db1.cluster, node);
  server = new FakeServer(scratch);
  server.says('standby');
  writeFileSync(standbySignal(), '');
  mkdirSync(path.join(server.pgdata, 'pg_wal/archive_status'), { recursive: true });
  writeFileSync(path.join(server.pgdata, 'pg_wal/archive_status', `${segment(1, 1)}.done`), '');
  await server.start({ fast: 'ends', immediate: 'ends' });
  const stateDir = path.join(scratch, 'state');
  mkdirSync(stateDir);
  writeSettingsFile(path.join(stateDir, 'settings.toml'), {});
  context = {
    ...{ stateDir, paths: statePaths(stateDir), node: 'db2', pgdata: server.pgdata, histories: new Map() },
    settings: loadSettings({ flags: { node: 'db2' }, env: {}, stateDir }),
    seat: seatOf('db2'),
    cluster: () => Promise.resolve(db1.cluster),
    other: () => Promise.reject(new Error('one vault')),
    close: () => Promise.resolve(),
  };
});
afterEach(async () => {
  await server.close();
  await vault.close();
  rmSync(scratch, { recursive: true, force: true });
});

/** db2 is sealed and its server asked to promote: it has taken the file away, and its signal file still lies there. */
async function sealed(): Promise<void> {
  await triggerPromotion(db1.cluster, { mode: 'fast', to: 'db2' });
  await newPromoter().step(await readBranch(db1.cluster));
  await waitFor(
    'the server to see it',
    5000,
    () => server.signals().includes('promote') && !existsSync(path.join(server.pgdata, 'promote')),
  );
  expect(existsSync(standbySignal())).toBe(true);
}
const supersede = () => triggerPromotion(db1.cluster, { mode: 'fast', to: 'db3', supersede: 2 });

test('a server that was asked to promote keeps its seal, and with it its gate, when another node is named', async () => {
  await sealed();
  await supersede();
  expect(await newPromoter().standing(readSeal(context.paths)!)).toBe('gate');
  expect(readSeal(context.paths)).toBeDefined();
});

test('restarted it has forgotten that it was asked, and follows on', async () => {
  await sealed();
  await supersede();
  server.restarted();
  expect(await newPromoter().standing(readSeal(context.paths)!)).toBe('over');
  expect(readSeal(context.paths)).toBeUndefined();
});

test('turned back at its gate with the vault’s word still to come, it is not asked to promote again', async () => {
  await sealed();
  writeFileSync(path.join(server.pgdata, 'pg_wal/00000002.history'), historyText(2));
  server.restarted();
  await newPromoter().pursue(readSeal(context.paths)!);
  expect(server.signals().filter((word) => word === 'promote')).toHaveLength(1);
  expect(existsSync(path.join(server.pgdata, 'promote'))).toBe(false);
});

test('a server that took another timeline than its own is not let in, and the vault is told of none', async () => {
  await sealed();
  writeFileSync(path.join(server.pgdata, 'pg_wal/00000002.history'), historyText(2));
  server.hasTaken(3);
  expect(await openSealed(context, undefined, 0)).toMatchObject({
    done: 'gate',
    why: expect.stringContaining('timeline 3') as string,
  });
  expect((await readBranch(db1.cluster)).head.timeline).toBe(1);
  server.hasTaken(2);
  expect(await openSealed(context, undefined, 0)).toEqual({ done: 'opened' });
});

test('while the vault names it the seal stands', async () => {
  await sealed();
  expect(await newPromoter().standing(readSeal(context.paths)!)).toBe('stands');
});
