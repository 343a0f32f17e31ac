/**
 * Base backups on real PostgreSQL: out of a running server, into a vault, back into a directory, and started there.
 */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import type { Bucket } from '../../core/vault/bucket.ts';
import { openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import type { BackupRow } from '../../core/cluster/facts.ts';
import { writeSignalFile } from '../../core/postgres/signal-files.ts';
import { takeBackup } from '../../core/work/backup.ts';
import { readHolds } from '../../core/work/holds.ts';
import { listBackups, restoreBackup } from '../../core/work/restore-backup.ts';
import { TestServer } from '../harness/postgres.ts';
import { makeScratch, removeScratch, waitFor } from '../harness/scratch.ts';
import { archiveFor, copyInto, walInto, type SimpleArchiver } from '../harness/simple-archiver.ts';

const MiB = 1 << 20;
let vaultNumber = 0;

describe.each([
  { major: 15, segmentSizeMiB: 16 },
  { major: 18, segmentSizeMiB: 1 },
])('PostgreSQL $major with segments of $segmentSizeMiB MiB', ({ major, segmentSizeMiB }) => {
  const scratch = makeScratch(`b${major}`);
  const primary = new TestServer({ major, pgdata: `${scratch}/p'r i`, sockets: scratch, port: 5432 });
  const connection = { pgdata: primary.pgdata, env: { PGUSER: 'postgres' } };
  let vault: Vault;
  let archiver: SimpleArchiver;
  let backup: BackupRow;
  const request = { node: 'db1', connection, bundleSizeBytes: 2 * MiB, uploadParallel: 3, zstdLevel: 1 };

  beforeAll(async () => {
    for (const name of ['arch', 'wal', 'space']) mkdirSync(`${scratch}/${name}`);
    await primary.initdb({
      segmentSizeMiB,
      settings: { archive_mode: 'on', archive_command: copyInto(`${scratch}/arch`) },
    });
    await primary.start();
    await primary.query(`CREATE TABLESPACE beside LOCATION '${scratch}/space'`);
    await primary.query(`CREATE TABLE small AS SELECT g AS id FROM generate_series(1, 1000) g`);
    // larger than a bundle: 9 MB, hardly compressible
    await primary.query(
      `CREATE TABLE large AS SELECT g AS id, sha512(g::text::bytea) AS x FROM generate_series(1, 80000) g`,
    );
    await primary.query(
      `CREATE TABLE beside TABLESPACE beside AS SELECT g AS id FROM generate_series(1, 5000) g`,
    );
    await primary.query(`CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS id`);
    writeFileSync(`${primary.pgdata}/${'n'.repeat(95)}`, 'a long name');
    writeFileSync(`${primary.pgdata}/standby.signal.note`, '');
    vault = await openVault(`memory:backup-${process.pid}-${vaultNumber++}`, { createTable: true });
    archiver = await archiveFor(vault, primary.pgdata, `${scratch}/arch`);
    backup = await takeBackup(archiver.cluster, request);
  });
  afterAll(async () => {
    await primary.stop('immediate');
    await archiver.stop();
    await vault.close();
    await removeScratch(scratch);
  });

  const start = async (target: string, port: number, signal: 'standby.signal' | 'recovery.signal') => {
    await walInto(archiver.cluster, `${scratch}/wal`);
    const server = new TestServer({ major, pgdata: target, sockets: scratch, port });
    server.configure({
      port: String(port),
      restore_command: `cp "${scratch}/wal/%f" %p`,
      archive_mode: 'off',
    });
    await writeSignalFile(target, signal);
    await server.start();
    return server;
  };
  const counts = async (server: TestServer) => [
    await server.number('SELECT count(*) FROM small'),
    await server.number('SELECT count(DISTINCT x) FROM large'),
    await server.number('SELECT count(*) FROM beside'),
  ];
  const tablespaceMap = (name: string) => ({ [`${scratch}/space`]: `${scratch}/${name}` });

  test('a backup is complete with its WAL, and leaves no hold', async () => {
    expect(backup).toMatchObject({ state: 'complete', node: 'db1', majorVersion: major, timeline: 1 });
    expect(backup.startSegment <= backup.stopSegment!).toBe(true);
    expect(backup.sizeBytes).toBeGreaterThan(backup.storedBytes);
    expect((await readHolds(archiver.cluster))?.holds).toEqual({});
    for (const segment of [backup.startSegment, backup.stopSegment!]) {
      expect(
        await vault.manifest.get({ pk: archiver.cluster.partition, sk: `wal#${segment}` }),
      ).toBeDefined();
    }
  });

  test('restored, it starts as a standby with every row, its tablespace elsewhere', async () => {
    const target = `${scratch}/standby one`;
    const progress: number[] = [];
    await restoreBackup(archiver.cluster, {
      backup: 'latest',
      target,
      node: 'db2',
      waldir: `${scratch}/standby wal`,
      tablespaceMap: tablespaceMap('space 2'),
      onProgress: ({ doneBytes }) => progress.push(doneBytes),
    });
    expect(lstatSync(`${target}/pg_wal`).isSymbolicLink()).toBe(true);
    expect(statSync(target).mode & 0o777).toBe(0o700);
    expect(readFileSync(`${target}/${'n'.repeat(95)}`, 'utf8')).toBe('a long name');
    expect(readdirSync(`${scratch}/space 2`)).toHaveLength(1);
    expect(existsSync(`${target}/walvault-restore`)).toBe(false);
    expect(progress).toEqual([...progress].sort((left, right) => left - right));
    expect((await readHolds(archiver.cluster))?.holds).toEqual({});
    const standby = await start(target, 5433, 'standby.signal');
    expect(await counts(standby)).toEqual([1000, 80000, 5000]);
    expect(await standby.value('SELECT pg_is_in_recovery()')).toBe(true);
    await standby.stop('immediate');
  });

  test('restored, it opens after archive recovery with what was written since', async () => {
    await primary.query('INSERT INTO small SELECT 7 FROM generate_series(1, 500)');
    await primary.query('SELECT pg_switch_wal()');
    const second = await takeBackup(archiver.cluster, {
      ...request,
      bundleSizeBytes: 64 * MiB,
      label: `it's a "label"`,
    });
    const target = `${scratch}/opened`;
    await restoreBackup(archiver.cluster, {
      backup: backup.id,
      target,
      node: 'db3',
      tablespaceMap: tablespaceMap('space3'),
    });
    const opened = await start(target, 5434, 'recovery.signal');
    const isOpen = async () => (await opened.value('SELECT pg_is_in_recovery()')) === false;
    await waitFor('the end of recovery', 60_000, isOpen);
    await opened.query('CREATE TABLE written AS SELECT 1');
    expect(await counts(opened)).toEqual([1500, 80000, 5000]);
    await opened.stop('immediate');
    expect((await listBackups(archiver.cluster)).map(({ id }) => id)).toEqual([backup.id, second.id]);
  });

  test('a target that is not empty is refused and stays as it is', async () => {
    const target = `${scratch}/taken`;
    mkdirSync(target);
    writeFileSync(`${target}/mine`, 'x');
    await expect(
      restoreBackup(archiver.cluster, {
        backup: 'latest',
        target,
        node: 'db2',
        tablespaceMap: tablespaceMap('space4'),
      }),
    ).rejects.toMatchObject({ code: 'refused', message: expect.stringContaining('not empty') });
    expect(readdirSync(target)).toEqual(['mine']);
    expect(existsSync(`${scratch}/space4`)).toBe(false);
  });

  test('a tablespace whose place is taken is refused with the option that gives it another', async () => {
    const target = `${scratch}/unmapped`;
    await expect(
      restoreBackup(archiver.cluster, { backup: 'latest', target, node: 'db2' }),
    ).rejects.toMatchObject({
      code: 'refused',
      hint: expect.stringContaining(`--tablespace-mapping '${scratch}/space=`),
    });
    expect(existsSync(target)).toBe(false);
  });

  test.each([
    ['truncated', (bytes: Buffer) => bytes.subarray(0, bytes.length - 100)],
    ['zeroed', (bytes: Buffer) => Buffer.alloc(bytes.length)],
    ['gone', () => undefined],
  ])(
    'a bundle that is %s is refused, and no directory that could be started is left',
    async (name, damage) => {
      const bad = withBucket(archiver.cluster.vault, {
        get: async (key) => {
          const bytes = await vault.bucket.get(key);
          return key.endsWith('bundle-00002.zst') && bytes ? damage(bytes) : bytes;
        },
      });
      const target = `${scratch}/${name}`;
      await expect(
        restoreBackup(
          { ...archiver.cluster, vault: bad },
          { backup: backup.id, target, node: 'db2', tablespaceMap: tablespaceMap(`space ${name}`) },
        ),
      ).rejects.toMatchObject({ code: 'corrupt', message: expect.stringContaining('bundle-00002.zst') });
      expect(existsSync(`${target}/global/pg_control`)).toBe(false);
    },
  );

  test('a bundle swapped for another is refused', async () => {
    const bad = withBucket(archiver.cluster.vault, {
      get: (key) => vault.bucket.get(key.replace('bundle-00003', 'bundle-00002')),
    });
    await expect(
      restoreBackup(
        { ...archiver.cluster, vault: bad },
        {
          backup: backup.id,
          target: `${scratch}/swapped`,
          node: 'db2',
          tablespaceMap: tablespaceMap('space swapped'),
        },
      ),
    ).rejects.toMatchObject({ code: 'corrupt' });
  });

  test('a restore that was broken off goes on where it was', async () => {
    const target = `${scratch}/resumed`;
    const fetched: string[] = [];
    let left = 3;
    const counting = withBucket(archiver.cluster.vault, {
      get: async (key) => {
        if (key.includes('bundle') && left-- <= 0) throw new Error('the network is gone');
        if (key.includes('bundle')) fetched.push(key);
        return vault.bucket.get(key);
      },
    });
    const job = {
      backup: backup.id,
      target,
      node: 'db2',
      parallel: 1,
      tablespaceMap: tablespaceMap('space resumed'),
    };
    const cluster = { ...archiver.cluster, vault: counting };
    await expect(restoreBackup(cluster, job)).rejects.toThrow('the network is gone');
    expect(existsSync(`${target}/global/pg_control`)).toBe(false);
    await expect(
      restoreBackup(cluster, { ...job, tablespaceMap: tablespaceMap('elsewhere') }),
    ).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('unfinished restore'),
    });
    left = Infinity;
    await restoreBackup(cluster, job);
    expect(new Set(fetched).size).toBe(fetched.length);
    const standby = await start(target, 5435, 'standby.signal');
    expect((await counts(standby))[1]).toBe(80000);
    await standby.stop('immediate');
  });

  test('a backup whose WAL does not arrive ends with a clear word and leaves nothing', async () => {
    archiver.paused = true;
    try {
      await expect(takeBackup(archiver.cluster, { ...request, walLimitMs: 1000 })).rejects.toMatchObject({
        code: 'unreachable',
        message: expect.stringMatching(/[0-9A-F]{24} did not arrive in the vault within 1 s/),
        hint: expect.stringContaining('archive_command'),
      });
    } finally {
      archiver.paused = false;
    }
    expect((await listBackups(archiver.cluster)).filter(({ state }) => state === 'running')).toEqual([]);
  });

  test('a backup that fails is marked, its hold and objects go, and the next one succeeds', async () => {
    const failing = withBucket(archiver.cluster.vault, {
      putOnce: async (key, body, facts) => {
        if (key.endsWith('bundle-00003.zst')) throw new Error('disk on fire');
        return vault.bucket.putOnce(key, body, facts);
      },
    });
    await expect(takeBackup({ ...archiver.cluster, vault: failing }, request)).rejects.toThrow(
      'disk on fire',
    );
    const failed = (await listBackups(archiver.cluster)).at(-1)!;
    expect(failed.state).toBe('failed');
    expect((await readHolds(archiver.cluster))?.holds).toEqual({});
    const left: string[] = [];
    for await (const { key } of vault.bucket.list(`${archiver.cluster.partition}/backup/${failed.id}/`))
      left.push(key);
    expect(left).toEqual([]);
    expect(await takeBackup(archiver.cluster, request)).toMatchObject({ state: 'complete' });
  });

  test('an interrupted backup ends the stream and is marked failed', async () => {
    const abort = new AbortController();
    const onProgress = ({ phase }: { phase: string }) => void (phase === 'copy' && abort.abort());
    await expect(
      takeBackup(archiver.cluster, { ...request, signal: abort.signal, onProgress }),
    ).rejects.toMatchObject({
      code: 'refused',
      message: 'the backup was interrupted',
    });
    expect((await listBackups(archiver.cluster)).at(-1)).toMatchObject({ state: 'failed' });
    const walSenders = () => primary.number('SELECT count(*) FROM pg_stat_replication');
    await waitFor('the end of the stream', 10_000, async () => (await walSenders()) === 0);
  });

  test('a backup can be taken from a standby, whose signal file does not come back', async () => {
    const target = `${scratch}/source`;
    await restoreBackup(archiver.cluster, {
      backup: 'latest',
      target,
      node: 'db2',
      tablespaceMap: tablespaceMap('space source'),
    });
    const standby = await start(target, 5436, 'standby.signal');
    const taken = await takeBackup(archiver.cluster, {
      ...request,
      node: 'db2',
      connection: { pgdata: target, env: { PGUSER: 'postgres' } },
    });
    await standby.stop('immediate');
    const again = `${scratch}/from standby`;
    await restoreBackup(archiver.cluster, {
      backup: taken.id,
      target: again,
      node: 'db3',
      tablespaceMap: { [`${scratch}/space source`]: `${scratch}/space again` },
    });
    expect(existsSync(`${again}/standby.signal`)).toBe(false);
    const opened = await start(again, 5437, 'standby.signal');
    expect((await counts(opened))[2]).toBe(5000);
    await opened.stop('immediate');
  });

  test('another cluster’s server is refused', async () => {
    const other = { ...archiver.cluster, systemIdentifier: '7300000000000000001' };
    await expect(takeBackup(other, request)).rejects.toMatchObject({ code: 'refused' });
  });

  test('a target that may not be written is named', async () => {
    mkdirSync(`${scratch}/closed`);
    chmodSync(`${scratch}/closed`, 0o500);
    await expect(
      restoreBackup(archiver.cluster, {
        backup: backup.id,
        target: path.join(scratch, 'closed/target'),
        node: 'db2',
        tablespaceMap: tablespaceMap('space closed'),
      }),
    ).rejects.toMatchObject({ code: 'local', message: expect.stringContaining('closed/target') });
  });
});

function withBucket(vault: Vault, changes: Partial<Bucket>): Vault {
  const bucket = new Proxy(vault.bucket, {
    get: (target, name) => {
      const changed = changes[name as keyof Bucket];
      if (changed !== undefined) return changed;
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? (value as () => unknown).bind(target) : value;
    },
  });
  return { url: vault.url, bucket, manifest: vault.manifest, close: () => vault.close() };
}
