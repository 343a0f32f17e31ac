/**
 * What a dead primary has not archived is brought into the vault from its disk: before a failover into the live timeline, so that nothing
 * is lost; after one beside it.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { mkdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';

const pair = onePair(0);

describe(`salvage on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer;
  let written: number;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1 });
    db1 = await site.makePrimary('db1');
    await site.backup();
    db2 = await site.addStandby('db2');
    const writer = await SteadyWriter.start(db1);
    await site.caughtUp('db2');
    // from here on nothing is archived, as with a vault out of reach: finished segments wait, and the last one is half full
    await db1.query(`ALTER SYSTEM SET archive_command = 'false'`);
    await db1.reload();
    await db1.query('SELECT pg_switch_wal()');
    // only a hook would start another agent, and one may be at work: by the first failure none is
    await waitFor('archive_command is the new one', 60_000, () =>
      db1.value('SELECT failed_count > 0 FROM pg_stat_archiver').then(Boolean),
    );
    await killHard(site.agentPids('db1')); // it pushes ahead, asked or not
    const before = writer.acknowledged.length;
    await db1.query('SELECT pg_switch_wal()');
    await waitFor('some segments of rows', 60_000, () => writer.acknowledged.length > before + 1500);
    await db1.kill9();
    await writer.stop();
    written = writer.acknowledged.at(-1)!.id;
  });
  afterAll(() => site.close());

  test('is refused while the server runs', async () => {
    const answer = await site.walvault('salvage', '--pgdata', db2.pgdata, '--node', 'db2');
    expect(answer.status).toBe(3);
    expect(answer.stderr).toMatch(/runs on/);
  });

  test('before a failover: finished segments and the last partial one are in the vault', async () => {
    const before = (await site.status()).lastSegment!;
    const answer = JSON.parse(await site.ok('salvage', '--pgdata', db1.pgdata, '--node', 'db1', '--json'));
    expect(answer).toMatchObject({ into: 'vault', epoch: 1, timeline: 1 });
    expect(answer.files.length).toBeGreaterThan(1);
    expect((await site.status()).lastSegment! > before).toBe(true);
    expect((await site.events('salvage')).at(-1)).toMatch(`up to ${answer.endLsn}`);
  });

  test('done again it changes nothing', async () => {
    const before = await site.contents();
    const answer = JSON.parse(await site.ok('salvage', '--pgdata', db1.pgdata, '--node', 'db1', '--json'));
    expect(answer).toMatchObject({ into: 'nothing', files: [] });
    expect((await site.contents()).objects).toEqual(before.objects);
  });

  test('the smart failover that follows loses nothing: every acknowledged row is there', async () => {
    await site.trigger('smart', 'db2');
    await site.promoted('db2', 30_000);
    expect(await missingRows(db2, written)).toBe(0);
    await waitFor('the promotion is open', 20_000, async () => (await site.status()).trigger === null);
    expect(await site.status()).toMatchObject({ primary: 'db2', epoch: 2 });
  });

  test('after a failover: what the old primary wrote since lies aside, listed and fetched, never in the live branch', async () => {
    await db1.start(); // nobody asked the guard
    await db1.query('CREATE TABLE written_after_the_fence (x int)');
    await db1.kill9();
    const before = await site.contents();
    const answer = JSON.parse(await site.ok('salvage', '--pgdata', db1.pgdata, '--node', 'db1', '--json'));
    expect(answer).toMatchObject({ into: 'aside', epoch: 1 });
    const { aside } = JSON.parse(await site.ok('salvage', '--list', '--json'));
    expect(aside.map(({ file }: { file: string }) => file)).toEqual(
      answer.files.map(({ file }: { file: string }) => file),
    );
    expect(aside.at(-1)).toMatchObject({ node: 'db1', epoch: 1, endLsn: answer.endLsn });
    const after = await site.contents();
    // the new primary may archive meanwhile
    const known = ({ wal }: typeof before) => [...wal.keys()].filter((name) => name.startsWith('00000001'));
    expect(known(after)).toEqual(known(before));
    expect(after.objects.filter((key) => key.includes('/aside/1/db1/'))).toHaveLength(aside.length);

    const place = path.join(site.scratch, 'fetched');
    mkdirSync(place);
    const { files } = JSON.parse(await site.ok('salvage', '--fetch', place, '--json'));
    const name = path.basename(files.at(-1));
    expect(readFileSync(files.at(-1))).toEqual(readFileSync(path.join(db1.pgdata, 'pg_wal', name)));
    expect(
      JSON.parse(await site.ok('salvage', '--pgdata', db1.pgdata, '--node', 'db1', '--json')).files,
    ).toEqual(answer.files);
    expect((await site.contents()).objects).toEqual(after.objects);
  });
});
