/**
 * The old primary comes back after a failover or a switchover: never as a second primary, never past the fork, and without a base backup
 * where it has not diverged.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

type Answer = { how: string; diverged: boolean; why: string; pastBytes: number; commonLsn: string };

async function open(pair: ReturnType<typeof onePair>, settings = {}): Promise<TestSite> {
  const site = await TestSite.open({ pair, segmentSizeMiB: 1, settings });
  const db1 = await site.makePrimary('db1');
  await site.backup();
  await site.addStandby('db2');
  await db1.query('CREATE TABLE archived (x int)');
  await db1.query('INSERT INTO archived SELECT generate_series(1, 1000)');
  await site.caughtUp('db2');
  return site;
}

async function failOver(site: TestSite, to: string): Promise<void> {
  await site.trigger('smart', to);
  await site.promoted(to, 30_000);
  await waitFor('the promotion is open', 30_000, async () => (await site.status()).trigger === null);
}

const rejoinOf = async (site: TestSite, node: string, ...more: string[]) =>
  JSON.parse(
    await site.ok('rejoin', '--pgdata', site.server(node).pgdata, '--node', node, '--json', ...more),
  ) as Answer & { movedAside: string | null; setAside: string | null };

const guardOf = (site: TestSite, node: string) =>
  site.walvault('guard', '--pgdata', site.server(node).pgdata);

const inodeOf = (server: TestServer) => statSync(server.pgdata).ino;

const one = onePair(1);

describe(`after kill -9 and a failover on ${one.title}`, () => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer;

  beforeAll(async () => {
    site = await open(one);
    [db1, db2] = [site.server('db1'), site.server('db2')];
    await db1.query('CREATE TABLE never_archived (x int)');
    await db1.kill9();
  });
  afterAll(() => site.close());

  test('before it: the primary of the epoch may start, and has nothing to rejoin', async () => {
    const answer = await guardOf(site, 'db1');
    expect(answer).toMatchObject({ status: 0 });
    expect(answer.stdout).toMatch(/may start \(primary\)/);
    const refused = await site.walvault('rejoin', '--pgdata', db1.pgdata, '--dry-run');
    expect(refused.status).toBe(3);
    expect(refused.stderr).toMatch(/db1 is the primary of epoch 1/);
  });

  test('everything archived is there, and only the unarchived tail is lost', async () => {
    await failOver(site, 'db2');
    expect(await db2.number('SELECT count(*) FROM archived')).toBe(1000);
    expect(await db2.value(`SELECT to_regclass('never_archived')`)).toBeNull();
  });

  test('guard refuses the start of the old primary, with its reason and what to do', async () => {
    const answer = await guardOf(site, 'db1');
    expect(answer.status).toBe(77);
    expect(answer.stderr).toMatch(/\[fenced\] .*db2 holds epoch 2/);
    expect(answer.stderr).toMatch(/HINT: .*walvault rejoin/);
  });

  test('guard refuses it too with a standby.signal put there by hand: PostgreSQL would replay past the fork', async () => {
    const signal = path.join(db1.pgdata, 'standby.signal');
    writeFileSync(signal, '');
    const answer = await guardOf(site, 'db1');
    rmSync(signal);
    expect(answer.status).toBe(77);
    expect(answer.stderr).toMatch(/not stopped cleanly/);
  });

  test('a vault that does not answer keeps nobody from starting, within seconds', async () => {
    const begun = performance.now();
    const answer = await site.walvault(
      'guard',
      '--pgdata',
      db1.pgdata,
      '--vault',
      `file://${site.scratch}/none`,
    );
    expect(answer.status).toBe(0);
    expect(answer.stdout).toMatch(/unasked/);
    expect(performance.now() - begun).toBeLessThan(60_000);
  });

  test('rejoin --dry-run says from where and by how much it diverged, and changes nothing', async () => {
    // after its promotion the new primary finishes a segment by itself, and that is archived some time later
    await site.archiveNow('db2');
    const before = await site.contents();
    const plan = await rejoinOf(site, 'db1', '--dry-run');
    expect(plan).toMatchObject({ diverged: true, how: 'replace', primary: 'db2', epoch: 2 });
    expect(plan.pastBytes).toBeGreaterThan(0);
    expect(plan.commonLsn).toMatch(/^0\/[0-9A-F]+$/);
    expect((await site.contents()).objects).toEqual(before.objects);
    expect(existsSync(path.join(db1.pgdata, 'standby.signal'))).toBe(false);
  });

  test('it is replaced by a new standby: tail salvaged, old directory kept, own configuration kept', async () => {
    const answer = await rejoinOf(site, 'db1', '--yes');
    expect(answer.how).toBe('replace');
    expect(existsSync(path.join(answer.movedAside!, 'PG_VERSION'))).toBe(true);
    const { aside } = JSON.parse(await site.ok('salvage', '--list', '--json'));
    expect(aside).toContainEqual(expect.objectContaining({ node: 'db1', epoch: 1 }));
    expect(await guardOf(site, 'db1')).toMatchObject({ status: 0 });
    await db1.start(); // on its own port
    await site.caughtUp('db1', 'db2');
    expect(await db1.value('SELECT pg_is_in_recovery()')).toBe(true);
    expect(await db1.number('SELECT count(*) FROM archived')).toBe(1000);
    expect(await db1.value(`SELECT to_regclass('never_archived')`)).toBeNull();
  });

  test('it can be the primary again', async () => {
    await db2.stop('fast');
    await failOver(site, 'db1');
    await db1.query('INSERT INTO archived VALUES (0)');
    await site.archiveNow('db1');
  });
});

describe(`after a flush and a trigger on ${onePair(0).title}`, () => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer;

  beforeAll(async () => {
    site = await open(onePair(0));
    [db1, db2] = [site.server('db1'), site.server('db2')];
    await site.ok('flush', '--pgdata', db1.pgdata, '--node', 'db1', '--yes');
    await failOver(site, 'db2');
    await db2.query('INSERT INTO archived VALUES (2)');
    await site.archiveNow('db2');
  });
  afterAll(() => site.close());

  test('rejoin keeps the directory: no base backup, and it follows', async () => {
    const before = inodeOf(db1);
    const answer = await rejoinOf(site, 'db1', '--yes');
    expect(answer).toMatchObject({ how: 'keep', diverged: false, movedAside: null, pastBytes: 0 });
    expect(inodeOf(db1)).toBe(before);
    expect(await guardOf(site, 'db1')).toMatchObject({ status: 0 });
    await db1.start();
    await site.caughtUp('db1', 'db2');
    expect(await db1.number('SELECT count(*) FROM archived')).toBe(1001);
    const writer = JSON.parse(readFileSync(path.join(site.state('db1'), 'writer.json'), 'utf8'));
    expect(writer).toMatchObject({ epoch: 0, nonce: '' });
  });

  test('of a standby that follows it says so, and changes nothing that matters', async () => {
    await db1.stop('fast');
    const answer = await rejoinOf(site, 'db1', '--yes');
    expect(answer).toMatchObject({ how: 'keep', diverged: false });
    await db1.start();
    await site.caughtUp('db1', 'db2');
  });

  test('switched back by a plain stop and a salvage it needs no base backup either', async () => {
    const before = inodeOf(db2);
    await db2.stop('fast');
    await site.ok('salvage', '--pgdata', db2.pgdata, '--node', 'db2');
    await failOver(site, 'db1');
    expect((await rejoinOf(site, 'db2', '--yes')).how).toBe('keep');
    await db2.start();
    await site.caughtUp('db2', 'db1');
    expect(inodeOf(db2)).toBe(before);
  });

  test('one more write on the old side is found: it has diverged, and is not kept', async () => {
    await db1.stop('fast');
    await site.ok('salvage', '--pgdata', db1.pgdata, '--node', 'db1');
    await failOver(site, 'db2');
    await db1.start();
    await db1.query('CREATE TABLE one_more (x int)');
    await db1.stop('fast');
    const answer = await guardOf(site, 'db1');
    expect(answer.status).toBe(77);
    const plan = await rejoinOf(site, 'db1', '--dry-run');
    expect(plan).toMatchObject({ diverged: true, how: 'replace' });
    expect(plan.pastBytes).toBeGreaterThan(0);
    expect((await rejoinOf(site, 'db1', '--yes')).how).toBe('replace');
    await db1.start();
    await site.caughtUp('db1', 'db2');
    expect(await db1.value(`SELECT to_regclass('one_more')`)).toBeNull();
  });
});

const rewindFolder = '/usr/lib/postgresql/15/bin';
const withRewind = existsSync(path.join(rewindFolder, 'pg_rewind')) ? describe : describe.skip;

withRewind('with pg_rewind, on PostgreSQL 15', () => {
  let site: TestSite;
  const own = process.env['PGBIN'];

  beforeAll(async () => {
    process.env['PGBIN'] = rewindFolder;
    site = await open({ ...onePair(0), major: 15 }, { wal_log_hints: 'on' });
    await site.server('db1').query('CREATE TABLE never_archived (x int)');
    await site.server('db1').kill9();
    await failOver(site, 'db2');
  });
  afterAll(async () => {
    await site.close();
    if (own === undefined) delete process.env['PGBIN'];
    else process.env['PGBIN'] = own;
  });

  test('a crashed, diverged primary is rewound: same directory, own port, tail salvaged', async () => {
    const db1 = site.server('db1');
    const before = inodeOf(db1);
    const source = `host=${db1.sockets} port=${site.server('db2').port} user=postgres dbname=postgres`;
    const answer = await rejoinOf(site, 'db1', '--source-server', source, '--yes');
    expect(answer).toMatchObject({ how: 'rewind', movedAside: null, diverged: true });
    expect(inodeOf(db1)).toBe(before);
    await db1.start();
    await site.caughtUp('db1', 'db2');
    expect(await db1.value(`SELECT to_regclass('never_archived')`)).toBeNull();
    const { aside } = JSON.parse(await site.ok('salvage', '--list', '--json'));
    expect(aside).toContainEqual(expect.objectContaining({ node: 'db1', epoch: 1 }));
  });
});
