/**
 * Retention under real servers: what it leaves is enough for the standby that was there, stopped and started, and for a new one.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { SteadyWriter, tableSum } from '../harness/writer.ts';

const pair = onePair(1);
const POLICY = ['--keep-backups', '1', '--pitr-window', '0'];

type Report = {
  cut: string;
  why: string;
  wal: { rows: number; first: string | null; last: string | null };
  backups: { id: string; do: string }[];
};

describe(`retention on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer;
  let writer: SteadyWriter;

  const retention = async (...args: string[]): Promise<Report> =>
    JSON.parse(await site.ok('retention', ...POLICY, ...args, '--json')) as Report;
  const backups = async (): Promise<{ id: string; startSegment: string }[]> =>
    JSON.parse(await site.ok('backups', '--json')) as { id: string; startSegment: string }[];
  const segments = async (): Promise<string[]> =>
    await site.withVault(async ({ manifest }) => {
      const { systemIdentifier } = await site.status();
      const found: string[] = [];
      const pk = `${site.cluster}/${systemIdentifier}`;
      for await (const row of manifest.query({ pk, from: 'wal#', to: 'wal$' })) found.push(row.sk.slice(4));
      return found.filter((name) => name.length === 24);
    });

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1 });
    db1 = await site.makePrimary('db1');
    await site.backup();
    db2 = await site.addStandby('db2');
    writer = await SteadyWriter.start(db1);
    for (let each = 0; each < 3; each++) await site.archiveNow();
  });
  afterAll(async () => {
    await writer?.stop();
    await site?.close();
  });

  test('a standby that has not come far keeps the WAL of its beginning, though its backup goes', async () => {
    const [first] = await backups();
    await site.backup();
    const before = await segments();
    const report = await retention('--dry-run');
    expect(report.why).toMatch(/^node db2: restart point/);
    expect(report.backups.filter((each) => each.do === 'delete').map(({ id }) => id)).toEqual([first!.id]);
    expect(await segments()).toEqual(expect.arrayContaining(before));
    expect(await backups()).toHaveLength(2);
    await site.ok('backups', 'pin', first!.id);
    expect((await retention('--dry-run')).backups.filter((each) => each.do === 'delete')).toEqual([]);
    expect(await site.ok('backups')).toContain('complete, pinned');
    await site.ok('backups', 'unpin', first!.id);
  });

  test('what it leaves is enough for the standby, stopped and started, and for a new one', async () => {
    for (let each = 0; each < 2; each++) await site.archiveNow();
    await db1.query('CHECKPOINT');
    await site.caughtUp('db2');
    const [newest] = await backups();
    await db2.query('CHECKPOINT');
    await waitFor('the restart point of db2 is past the newest backup', 60_000, async () => {
      const { nodes } = await site.status();
      return (nodes.find(({ name }) => name === 'db2')?.restartPoint ?? '') > newest!.startSegment;
    });
    await db2.stop('fast');
    const before = await segments();
    const report = await retention();
    expect(report.why).toContain(`backup ${newest!.id}`);
    expect(report.wal.rows).toBeGreaterThan(2);
    expect((await backups()).map(({ id }) => id)).toEqual([newest!.id]);
    const left = await segments();
    expect(before[0]! < newest!.startSegment).toBe(true);
    expect(left[0]).toBe(newest!.startSegment);

    await db2.start();
    const db3 = await site.addStandby('db3');
    const written = writer.acknowledged.at(-1)!.id;
    for (const [name, server] of [
      ['db2', db2],
      ['db3', db3],
    ] as const) {
      await site.caughtUp(name);
      expect(await tableSum(server, written)).toEqual(await tableSum(db1, written));
    }
    expect(await retention()).toMatchObject({ wal: { rows: 0 } });
  });
});
