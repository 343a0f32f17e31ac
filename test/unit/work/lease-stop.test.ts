/** The end of a lease, carried out on processes that are named postgres and do as they are told. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { killServer, serverProcesses } from '../../../core/postgres/server.ts';
import { writeSignalFile } from '../../../core/postgres/signal-files.ts';
import { bootMs } from '../../../core/work/boot-clock.ts';
import { Journal } from '../../../core/work/journal.ts';
import { forgetLease, keepLease } from '../../../core/work/lease-file.ts';
import { LeaseStop } from '../../../core/work/lease-stop.ts';
import { statePaths, type StatePaths } from '../../../core/work/node-state.ts';
import { FakeServer } from '../../harness/fake-server.ts';
import { isAlive, makeScratch, removeScratch, waitFor } from '../../harness/scratch.ts';

const LEASE_MS = 12_000;
const [FAST, IMMEDIATE, KILL] = [8100, 10_100, 11_100];
const hangs = { fast: 'hangs', immediate: 'hangs' } as const;
const ends = { fast: 'ends', immediate: 'ends' } as const;

let scratch: string;
let paths: StatePaths;
let server: FakeServer;
let stop: LeaseStop;
beforeEach(() => {
  scratch = makeScratch();
  server = new FakeServer(scratch);
  const stateDir = path.join(scratch, 'state');
  mkdirSync(stateDir);
  paths = statePaths(stateDir);
  stop = new LeaseStop(server.pgdata, paths, new Journal(paths), 'watchdog');
});
afterEach(async () => {
  await server.close();
  await removeScratch(scratch);
});

/** The last renewal was sent so long ago, ms. */
const renewed = (age: number) => {
  forgetLease(paths.lease);
  keepLease(paths.lease, { sentAt: bootMs() - age, ms: LEASE_MS, epoch: 1 });
};
const isGone = (pid: number) => waitFor(`the end of ${pid}`, 2000, () => !isAlive(pid));
const log = () => (existsSync(paths.log) ? readFileSync(paths.log, 'utf8') : '');

describe('a server whose lease ends', () => {
  test('runs on while the lease is young, or there is none', async () => {
    const pid = await server.start(ends);
    await stop.look();
    expect([stop.lease, stop.ageMs]).toEqual([undefined, undefined]);
    renewed(7000);
    await stop.look();
    expect(stop.ageMs).toBeGreaterThanOrEqual(7000);
    expect([isAlive(pid), server.signals(), log()]).toEqual([true, ['up'], '']);
  });

  test('is stopped fast, and once; the vault is told of it later', async () => {
    const pid = await server.start(ends);
    renewed(FAST);
    await stop.look();
    await isGone(pid);
    expect(server.signals()).toEqual(['up', 'fast']);
    await waitFor(
      'the note',
      1000,
      () => existsSync(paths.leaseStop) && readFileSync(paths.leaseStop).length > 0,
    );
    expect(readFileSync(paths.leaseStop, 'utf8')).toMatch(/^\d{4}-\d\d-\d\dT.*Z\n$/);
    expect(log()).toMatch(
      /watchdog: the lease of 12 s was not renewed for 8\.\d s: stopping the server \(fast\)/,
    );
  });

  test('is stopped immediately where fast did not end it, and killed where that did not', async () => {
    const pid = await server.start(hangs);
    renewed(FAST);
    await stop.look();
    await stop.look();
    await waitFor('the signal', 1000, () => server.signals().length === 2);
    renewed(IMMEDIATE);
    await stop.look();
    await stop.look();
    await waitFor('the signal', 1000, () => server.signals().length === 3);
    expect([server.signals(), isAlive(pid)]).toEqual([['up', 'fast', 'immediate'], true]);
    renewed(KILL);
    await stop.look();
    await isGone(pid);
    expect(log().match(/stopping the server|stopping it|killing what runs/g)).toEqual([
      ...['stopping the server', 'stopping it', 'killing what runs'],
    ]);
  });

  test('of which only orphans are left is killed as well: they may still commit', async () => {
    const pid = await server.start(ends);
    const orphan = await server.backend();
    renewed(FAST);
    await stop.look();
    await isGone(pid);
    expect(isAlive(orphan)).toBe(true);
    renewed(KILL);
    await stop.look();
    await isGone(orphan);
  });

  test('and that comes up again is stopped again', async () => {
    await server.start(ends);
    renewed(FAST);
    await stop.look();
    await waitFor('the stop', 1000, async () => (await serverProcesses(server.pgdata)).length === 0);
    renewed(0);
    await stop.look();
    const again = await server.start(ends);
    renewed(FAST);
    await stop.look();
    await isGone(again);
    expect(server.signals()).toEqual(['up', 'fast', 'up', 'fast']);
  });

  test('started again in the midst of its fast stop, is sent the fast stop, too', async () => {
    await server.start(ends);
    renewed(FAST);
    await stop.look();
    await waitFor('the stop', 1000, async () => (await serverProcesses(server.pgdata)).length === 0);
    const again = await server.start(ends);
    await stop.look();
    await isGone(again);
  });

  test('that is renewed at the last moment is left alone, until it is due again', async () => {
    const pid = await server.start(hangs);
    renewed(FAST);
    await stop.look();
    await waitFor('the signal', 1000, () => server.signals().length === 2);
    renewed(0);
    await stop.look();
    expect([server.signals(), isAlive(pid)]).toEqual([['up', 'fast'], true]);
    renewed(FAST);
    await stop.look();
    await waitFor('the signal', 1000, () => server.signals().length === 3);
  });
});

describe('no lease stops', () => {
  const waiting: [string, () => Promise<void> | void][] = [
    ['a standby', () => writeSignalFile(server.pgdata, 'standby.signal')],
    ['an archive recovery', () => writeSignalFile(server.pgdata, 'recovery.signal')],
    ['a promotion before its gate', () => server.says('standby')],
    ['a server that was opened for a test', () => writeFileSync(paths.detached, '{}')],
  ];
  test.each(waiting)('%s', async (_what, make) => {
    await make();
    const pid = await server.start(ends);
    for (const age of [FAST, IMMEDIATE, KILL]) {
      renewed(age);
      await stop.look();
    }
    expect([server.signals(), isAlive(pid), existsSync(paths.leaseStop)]).toEqual([['up'], true, false]);
  });
});

const unreadable: [string, () => void][] = [
  ['pg_control', () => writeFileSync(path.join(server.pgdata, 'global/pg_control'), Buffer.alloc(8192))],
  ['postmaster.pid', () => replaceByFolder(path.join(server.pgdata, 'postmaster.pid'))],
];
test.each(unreadable)(
  'a server of which %s cannot be read is stopped all the same',
  async (_what, damage) => {
    const pid = await server.start(hangs);
    damage();
    for (const age of [FAST, IMMEDIATE]) {
      renewed(age);
      await stop.look();
    }
    expect(isAlive(pid)).toBe(true);
    renewed(KILL);
    await stop.look();
    await isGone(pid);
    expect(log()).toMatch(/watchdog: \[pgdata\]/);
  },
);

function replaceByFolder(file: string): void {
  rmSync(file);
  mkdirSync(file);
}

test('a state directory that takes no file keeps no server from its stop', async () => {
  mkdirSync(paths.leaseStop);
  mkdirSync(paths.log);
  const pid = await server.start(ends);
  renewed(FAST);
  await stop.look();
  await isGone(pid);
});

test('two looks at once are one', async () => {
  const pid = await server.start(hangs);
  renewed(FAST);
  await Promise.all([stop.look(), stop.look()]);
  await waitFor('the signal', 1000, () => server.signals().length > 1);
  expect([server.signals(), isAlive(pid)]).toEqual([['up', 'fast'], true]);
});

describe('killServer', () => {
  test('ends the postmaster and all that works in its data directory, and nothing else', async () => {
    const other = new FakeServer(path.join(scratch, 'other'));
    const stranger = await other.start(hangs);
    const pids = [await server.start(hangs), await server.backend(), await server.backend()];
    try {
      expect((await serverProcesses(server.pgdata)).toSorted()).toEqual(pids.toSorted());
      expect(await killServer(server.pgdata)).toBe(3);
      for (const pid of pids) await isGone(pid);
      expect(isAlive(stranger)).toBe(true);
      expect(await killServer(server.pgdata)).toBe(0);
    } finally {
      await other.close();
    }
  });

  test('ends the orphans of a postmaster that is dead', async () => {
    const orphan = await server.backend();
    expect(await killServer(server.pgdata)).toBe(1);
    await isGone(orphan);
  });
});
