/**
 * Paths with spaces, quotes and percent signs, a linked pg_wal, and other segment sizes: the main job all the same.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { lstatSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import { TestSite } from '../harness/site.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';
import { segmentEnd } from '../../core/wal/name.ts';

describe.each([
  { segmentSizeMiB: 1, pair: onePair(0) },
  { segmentSizeMiB: 64, pair: onePair(1) },
])('segments of $segmentSizeMiB MiB under odd paths on $pair.title', ({ segmentSizeMiB, pair }) => {
  let site: TestSite;

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      segmentSizeMiB,
      pathPiece: ` it's 50% ü`,
      vaultPiece: ` "50%" #1 ?\\'`,
      linkedWal: true,
    });
  });
  afterAll(() => site.close());

  test('archive, follow and smart trigger', async () => {
    const db1 = await site.makePrimary('db1');
    expect(lstatSync(path.join(db1.pgdata, 'pg_wal')).isSymbolicLink()).toBe(true);
    await site.backup();
    const db2 = await site.addStandby('db2');
    expect(lstatSync(path.join(db2.pgdata, 'pg_wal')).isSymbolicLink()).toBe(true);
    const writer = await SteadyWriter.start(db1);
    for (let round = 0; round < 3; round++) await site.archiveNow('db1');
    await writer.stop();
    await site.caughtUp('db2');
    await db1.kill9();
    const archived = (await site.status()).lastSegment!;
    await site.trigger('smart', 'db2');
    await site.promoted('db2', 20_000);
    const rows = writer.rowsBefore(segmentEnd(archived, segmentSizeMiB << 20));
    expect(rows).toBeGreaterThan(0);
    expect(await missingRows(db2, rows)).toBe(0);
    await db2.query('CREATE TABLE after_it (x int)');
    expect(await site.archiveNow('db2')).toMatch(/^00000002/);
  });
});
