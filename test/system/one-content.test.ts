/**
 * A name has one content: what archive_command answers when it is handed a file again, or a wrong one.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(1);

describe(`one content a name on ${pair.title}`, () => {
  let site: TestSite;
  let name: string;
  let next: string;
  let kept: string;

  beforeAll(async () => {
    site = await TestSite.open({ pair });
    const db1 = await site.makePrimary('db1');
    kept = path.join(site.scratch, 'kept');
    await db1.query('CREATE TABLE rows AS SELECT generate_series(1, 1000) AS x');
    name = String(await db1.value('SELECT pg_walfile_name(pg_current_wal_insert_lsn())'));
    await site.archiveNow('db1');
    copyFileSync(path.join(db1.pgdata, 'pg_wal', name), kept);
    next = String(await db1.value('SELECT pg_walfile_name(pg_current_wal_insert_lsn())'));
  });
  afterAll(() => site.close());

  /** Hands `file` in as `as`, with the fast path of the wrapper out of the way: the file is newer than any marker. */
  const handIn = async (file: string, as: string) => {
    const fresh = path.join(site.scratch, `fresh-${Math.random()}`);
    copyFileSync(file, fresh);
    return await site.hook('db1', 'archive', fresh, as);
  };

  test('the same bytes again: 0, and nothing is stored twice', async () => {
    const before = await site.contents();
    expect(await handIn(kept, name)).toMatchObject({ status: 0 });
    expect(await site.contents()).toEqual(before);
  });

  test.each<[string, (bytes: Buffer) => void | string, string]>([
    ['other bytes', (bytes) => void bytes.fill(7, 100_000, 100_100), 'conflict'],
    ['bytes of another cluster', (bytes) => void bytes.writeBigUInt64LE(123n, 24), 'corrupt'],
    ['zeros', (bytes) => void bytes.fill(0), 'corrupt'],
    ['a truncated file', () => 'half', 'corrupt'],
    ['an empty file', () => 'empty', 'corrupt'],
    ['a file that is too long', () => 'long', 'corrupt'],
  ])('%s: 1, and nothing changes', async (_what, spoil, code) => {
    const before = await site.contents();
    const file = path.join(site.scratch, 'spoiled');
    const bytes = readFileSync(kept);
    const size = spoil(bytes);
    writeFileSync(file, bytes);
    if (size !== undefined)
      truncateSync(file, { half: bytes.length / 2, empty: 0, long: bytes.length + 8192 }[size] ?? 0);
    const answer = await handIn(file, name);
    expect(answer.status).toBe(1);
    expect(answer.stderr).toContain(`walvault: [${code}]`);
    const after = await site.contents();
    expect(after.wal).toEqual(before.wal);
  });

  test('the bytes of one segment under the name of the next: 1, and nothing changes', async () => {
    const before = await site.contents();
    const answer = await handIn(kept, next);
    expect(answer.status).toBe(1);
    expect(answer.stderr).toContain('walvault: [corrupt]');
    expect((await site.contents()).wal).toEqual(before.wal);
  });

  test('a name that is none of PostgreSQL: 1', async () => {
    expect((await handIn(kept, '../../etc/passwd')).status).toBe(1);
    expect((await handIn(kept, 'core')).status).toBe(1);
  });

  test('archiving goes on afterwards', async () => {
    await site.server('db1').query('INSERT INTO rows VALUES (0)');
    await site.archiveNow('db1');
  });
});
