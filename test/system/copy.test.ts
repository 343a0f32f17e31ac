/**
 * A copy of the primary beside it: one of the two archives, the other is refused.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(0);

describe(`a copy of the primary on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer;

  beforeEach(async () => {
    site = await TestSite.open({ pair });
    db1 = await site.makePrimary('db1');
    await db1.query('CREATE TABLE rows (x int)');
    await site.archiveNow('db1');
  });
  afterEach(() => site.close());

  const failures = (server: TestServer) => server.number('SELECT failed_count FROM pg_stat_archiver');

  const writeAndSwitch = async (server: TestServer, value: number) => {
    await server.query('INSERT INTO rows SELECT $1 FROM generate_series(1, 100)', [value]);
    await server.query('SELECT pg_switch_wal()');
  };

  /** db1 and its agent, which takes its socket away when it ends: cp would find it listed, and gone. */
  async function stopWhole(): Promise<void> {
    await db1.stop('fast');
    await waitFor('the agent has ended with its server', 30_000, () => !hasAgent(site, 'db1'));
  }

  /** PGDATA and state directory as they are, under another name; nothing in them knows of the move. */
  async function copyOf(name: string): Promise<TestServer> {
    await db1.query('CHECKPOINT');
    await stopWhole();
    const copy = site.declare(name);
    execFileSync('cp', ['-a', db1.pgdata, copy.pgdata]);
    execFileSync('cp', ['-a', site.state('db1'), site.state(name)]);
    copy.configure({ port: String(copy.port) });
    await db1.start();
    return copy;
  }

  test('a copied data directory calls the wrappers of its origin, and is refused with both named', async () => {
    const copy = await copyOf('copy');
    await copy.start();
    await writeAndSwitch(copy, 2);
    await waitFor('the copy is refused', 60_000, async () => (await failures(copy)) > 0);
    expect(copy.log(200)).toMatch(/walvault: \[copied\]/);
    expect(copy.log(200)).toContain(db1.pgdata);
    expect(copy.log(200)).toContain(copy.pgdata);
    await writeAndSwitch(db1, 1);
    await site.archiveNow('db1');
    expect(await failures(db1)).toBe(0);
  });

  test('a copied machine, where every path and number is right: one archives, the other is refused, both are named', async () => {
    const copy = await copyOf('twin');
    moveIdentity(site.state('db1'), site.state('twin'), db1.pgdata, copy.pgdata);
    await copy.start();
    await writeAndSwitch(db1, 1);
    await site.archiveNow('db1');
    await writeAndSwitch(copy, 2);
    await writeAndSwitch(db1, 1);
    await waitFor(
      'one of the two is refused',
      60_000,
      async () => (await failures(copy)) + (await failures(db1)) > 0,
    );
    const refused = (await failures(copy)) > 0 ? copy : db1;
    expect(refused.log(200)).toMatch(/walvault: \[(copied|conflict)\]/);
    const rows = [...(await site.contents()).wal.entries()];
    expect(rows.length).toBeGreaterThan(0);
    // whoever it was: the other one goes on
    await writeAndSwitch(refused === copy ? db1 : copy, 1);
    await site.archiveNow(refused === copy ? 'db1' : 'twin');
    expect(refused.log(400)).toMatch(
      /walvault: .*(nodes.db1).*(nodes.twin)|walvault: .*(nodes.twin).*(nodes.db1)/,
    );
  });

  test('a machine rolled back to an earlier state is refused when it writes other bytes under archived names', async () => {
    await stopWhole();
    const saved = path.join(site.scratch, 'snapshot');
    execFileSync('cp', ['-a', path.dirname(db1.pgdata), saved]);
    await db1.start();
    await writeAndSwitch(db1, 1);
    await site.archiveNow('db1');
    const before = (await site.contents()).wal;
    await db1.kill9();
    await waitFor('the agent has ended with its server', 30_000, () => !hasAgent(site, 'db1'));
    // into the same directories: their inodes stay, as those of a restored disk image do
    for (const [from, into] of [
      [path.join(saved, 'db1'), db1.pgdata],
      [path.join(saved, 'db1.walvault'), site.state('db1')],
    ] as const) {
      for (const entry of readdirSync(into)) rmSync(path.join(into, entry), { recursive: true });
      execFileSync('cp', ['-a', `${from}/.`, into]);
    }
    await db1.start();
    await writeAndSwitch(db1, 3);
    await waitFor('the rolled-back server is refused', 60_000, async () => (await failures(db1)) > 0);
    expect(db1.log(200)).toMatch(/walvault: \[(copied|conflict)\]/);
    expect((await site.contents()).wal).toEqual(before);
  });
});

/** What a copied disk would carry as it is, because there every path stays the same: paths and inode are made the copy's own. */
function moveIdentity(fromState: string, toState: string, fromData: string, toData: string): void {
  const files = ['archive', 'restore', 'cleanup', 'recovered', 'settings.toml', 'identity.json'].map((name) =>
    path.join(toState, name),
  );
  for (const file of [
    ...files,
    path.join(toData, 'postgresql.auto.conf'),
    path.join(toData, 'postgresql.conf'),
  ]) {
    writeFileSync(
      file,
      readFileSync(file, 'utf8').replaceAll(fromState, toState).replaceAll(fromData, toData),
    );
  }
  const identity = path.join(toState, 'identity.json');
  const { dev, ino } = statSync(toData, { bigint: true });
  const facts = JSON.parse(readFileSync(identity, 'utf8')) as Record<string, string>;
  writeFileSync(identity, JSON.stringify({ ...facts, device: String(dev), inode: String(ino) }));
}

function hasAgent(site: TestSite, node: string): boolean {
  return site.agentPids(node).length > 0;
}
