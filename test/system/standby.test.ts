/**
 * Configuring a primary and making standbys, with the real hooks in between: what `configure primary`, `standby create` and
 * `standby configure` do, without the command line.
 */
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { createVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { keys } from '../../core/cluster/facts.ts';
import { readPgdata } from '../../core/postgres/pgdata.ts';
import { takeBackup } from '../../core/work/backup.ts';
import { readHead, type Cluster } from '../../core/work/cluster.ts';
import { configurePrimary, type ConfigureRequest } from '../../core/work/configure.ts';
import { readHolds } from '../../core/work/holds.ts';
import { initCluster } from '../../core/work/init.ts';
import { statePaths, writerStore } from '../../core/work/node-state.ts';
import { configureStandby, createStandby } from '../../core/work/standby.ts';
import { pgBin, TestServer } from '../harness/postgres.ts';
import { makeScratch, removeScratch, waitFor } from '../harness/scratch.ts';

const programRoot = path.resolve(import.meta.dirname, '../..');
const MiB = 1 << 20;

describe.each([{ major: 15 }, { major: 18 }])('PostgreSQL $major', ({ major }) => {
  const scratch = makeScratch(`s${major}`);
  const folder = `${scratch}/it's 5% here`;
  const primary = new TestServer({ major, pgdata: `${folder}/db1`, sockets: scratch, port: 5432 });
  const url = pathToFileURL(`${scratch}/vault`).href;
  const env = { PGUSER: 'postgres' };
  const connection = { pgdata: primary.pgdata, env };
  let vault: Vault;
  let cluster: Cluster;

  const installation = (node: string) => ({
    programRoot,
    nodeBinary: process.execPath,
    settings: { vault: url, cluster: 'main', node },
  });
  const intervals = { retrieveRetryMs: 200, forceSwitchMs: 60_000 };
  const parameters = (port: number, set: Record<string, string> = {}) => ({
    ...intervals,
    mode: 'hot' as const,
    port,
    set,
  });
  const configure = (changes: Partial<ConfigureRequest> = {}) =>
    configurePrimary(cluster, {
      ...intervals,
      node: 'db1',
      pgdata: primary.pgdata,
      connection: { env },
      installation: installation('db1'),
      print: false,
      reload: true,
      ...changes,
    });
  const backup = () =>
    takeBackup(cluster, {
      node: 'db1',
      connection,
      bundleSizeBytes: 4 * MiB,
      uploadParallel: 2,
      zstdLevel: 1,
    });
  const followed = (server: TestServer, sql: string, value: unknown) =>
    waitFor(
      `${sql} = ${String(value)}`,
      60_000,
      async () => String(await server.value(sql)) === String(value),
    );

  // the programs that a person would have on the PATH
  const pgbin = process.env['PGBIN'];

  beforeAll(async () => {
    process.env['PGBIN'] = pgBin(major);
    mkdirSync(folder);
    await primary.initdb({ segmentSizeMiB: 1, settings: { wal_level: 'minimal', max_wal_senders: '0' } });
    vault = await createVault(url);
    const { control, majorVersion } = await readPgdata(primary.pgdata);
    mkdirSync(`${primary.pgdata}.walvault`, { mode: 0o700 });
    ({ cluster } = await initCluster(vault, {
      cluster: 'main',
      node: 'db1',
      place: `${os.hostname()}:${primary.pgdata}`,
      store: writerStore(statePaths(`${primary.pgdata}.walvault`)),
      systemIdentifier: control.systemIdentifier,
      segmentSize: control.segmentSize,
      majorVersion,
      timeline: control.timeline,
      histories: [],
    }));
  });
  afterAll(async () => {
    if (pgbin === undefined) delete process.env['PGBIN'];
    else process.env['PGBIN'] = pgbin;
    await primary.stop('immediate');
    await vault.close();
    await removeScratch(scratch);
  });

  test('print says the lines and changes nothing', async () => {
    const before = readFileSync(`${primary.pgdata}/postgresql.auto.conf`, 'utf8');
    const { lines } = await configure({ print: true });
    expect(lines).toEqual(
      expect.arrayContaining([
        `archive_mode = 'on'`,
        `wal_level = 'replica'`,
        `archive_timeout = '60s'`,
        expect.stringMatching(/^archive_command = '.*5%% here.* %p %f'$/),
      ]),
    );
    expect(readFileSync(`${primary.pgdata}/postgresql.auto.conf`, 'utf8')).toBe(before);
    expect(existsSync(`${primary.pgdata}.walvault/archive`)).toBe(false);
  });

  test('a stopped primary is configured in postgresql.auto.conf and reads it at its start', async () => {
    expect(await configure()).toMatchObject({ due: 'none', running: false, replaced: [] });
    await primary.start();
    expect(await primary.value('SHOW archive_mode')).toBe('on');
    expect(await primary.value('SHOW wal_level')).toBe('replica');
    expect(await primary.value('SHOW archive_timeout')).toBe('1min');
    expect(await primary.value('SHOW archive_command')).toContain('5%% here');
  });

  test('a running primary is configured by ALTER SYSTEM, and what a person chose stays', async () => {
    await primary.query(`ALTER SYSTEM SET archive_timeout = '5min'`);
    await primary.query(`ALTER SYSTEM SET archive_command = 'false'`);
    await primary.reload();
    await waitFor(
      'the reload',
      10_000,
      async () => (await primary.value('SHOW archive_command')) === 'false',
    );
    const configured = await configure();
    expect(configured).toMatchObject({
      due: 'none',
      running: true,
      replaced: [{ name: 'archive_command', was: 'false' }],
    });
    expect(await primary.value('SHOW archive_command')).toContain('.walvault');
    expect(await primary.value('SHOW archive_timeout')).toBe('5min');
  });

  test('it says when a restart is due', async () => {
    await primary.query(`ALTER SYSTEM SET archive_mode = 'off'`);
    await primary.stop();
    await primary.start();
    expect(await configure()).toMatchObject({ due: 'restart', running: true });
    await expect(backup()).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('archive_mode is off'),
    });
    await primary.stop();
    await primary.start();
    expect(await configure()).toMatchObject({ due: 'none' });
  });

  test('another node, another database, and a path that PostgreSQL would cut are refused', async () => {
    await expect(configure({ node: 'db9' })).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('db1 is the primary'),
    });
    const other = { ...cluster, systemIdentifier: '7300000000000000001' };
    await expect(
      configurePrimary(other, {
        ...intervals,
        node: 'db1',
        pgdata: primary.pgdata,
        connection: { env },
        installation: installation('db1'),
        print: false,
        reload: true,
      }),
    ).rejects.toMatchObject({ code: 'refused' });
    await expect(
      configure({ installation: { ...installation('db1'), stateDir: `/tmp/${'long/'.repeat(200)}x` } }),
    ).rejects.toMatchObject({ code: 'usage', message: expect.stringContaining('1023') });
  });

  test('a standby made from a backup follows the primary', async () => {
    await primary.query('CREATE TABLE rows AS SELECT g AS id FROM generate_series(1, 10000) g');
    await backup();
    const standby = new TestServer({ major, pgdata: `${folder}/db2`, sockets: scratch, port: 5433 });
    const made = await createStandby(cluster, {
      backup: 'latest',
      node: 'db2',
      target: standby.pgdata,
      waldir: `${folder}/db2 wal`,
      installation: installation('db2'),
      parameters: parameters(5433, { shared_buffers: '20MB' }),
    });
    expect(made).toMatchObject({
      pgdata: standby.pgdata,
      stateDir: `${standby.pgdata}.walvault`,
      notices: [],
    });
    expect((await readHolds(cluster))?.holds).toEqual({});
    const row = await vault.manifest.get(keys.node(cluster.partition, 'db2'));
    expect(row).toMatchObject({ role: 'standby', restartPoint: made.firstSegment });
    await standby.start();
    expect(await standby.value('SHOW shared_buffers')).toBe('20MB');
    await primary.query('INSERT INTO rows SELECT generate_series(1, 5000)');
    await primary.query('SELECT pg_switch_wal()');
    await followed(standby, 'SELECT count(*) FROM rows', 15000);
    expect(await standby.value('SELECT pg_is_in_recovery()')).toBe(true);
    await standby.stop();
    expect(lstatSync(`${standby.pgdata}/pg_wal`).isSymbolicLink()).toBe(true);
  });

  test('a standby whose making was broken off cannot be started, and is made by the same call', async () => {
    const target = `${folder}/db5`;
    const request = {
      backup: 'latest',
      node: 'db5',
      target,
      installation: installation('db5'),
      parameters: parameters(5436),
    };
    const broken = { ...request, installation: { ...request.installation, nodeBinary: 'x\0y' } };
    await expect(createStandby(cluster, broken)).rejects.toThrow();
    expect(existsSync(`${target}/global/pg_control`)).toBe(false);
    await createStandby(cluster, request);
    const standby = new TestServer({ major, pgdata: target, sockets: scratch, port: 5436 });
    await standby.start();
    await followed(standby, 'SELECT count(*) FROM rows', 15000);
    await standby.stop();
  });

  test('settings that a standby cannot have are refused before anything is restored', async () => {
    const target = `${folder}/never`;
    const attempt = (set: Record<string, string>, port = 5434) =>
      createStandby(cluster, {
        backup: 'latest',
        node: 'db3',
        target,
        installation: installation('db3'),
        parameters: parameters(port, set),
      });
    await expect(attempt({ restore_command: 'true' })).rejects.toMatchObject({ code: 'usage' });
    await expect(attempt({ 'no name': '1' })).rejects.toMatchObject({ code: 'usage' });
    await expect(attempt({ port: '1' })).rejects.toMatchObject({ code: 'usage' });
    await expect(attempt({}, 70000)).rejects.toMatchObject({ code: 'usage' });
    expect(existsSync(target)).toBe(false);
    const inVault = createStandby(cluster, {
      backup: 'latest',
      node: 'db1',
      target,
      installation: installation('db1'),
      parameters: parameters(5434),
    });
    await expect(inVault).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('db1 is the primary'),
    });
    expect(existsSync(target)).toBe(false);
  });

  test('a copy made by hand becomes a standby: pg_wal emptied through its link, the origin’s roles gone', async () => {
    const copy = `${folder}/db4`;
    const standby = new TestServer({ major, pgdata: copy, sockets: scratch, port: 5435 });
    const client = await primary.connect();
    await client.query(`SELECT pg_backup_start('by hand', true)`);
    await primary.allArchived(); // it ends a segment, whose .ready would be renamed under the copy
    cpSync(primary.pgdata, copy, { recursive: true, filter: (source) => !source.endsWith('postmaster.pid') });
    const { rows } = await client.query<{ labelfile: string }>('SELECT labelfile FROM pg_backup_stop(false)');
    await client.end();
    writeFileSync(`${copy}/backup_label`, rows[0]!.labelfile);
    renameSync(`${copy}/pg_wal`, `${folder}/db4 wal`);
    symlinkSync(`${folder}/db4 wal`, `${copy}/pg_wal`);
    writeFileSync(`${copy}/recovery.signal`, '');
    await configureStandby(cluster, {
      node: 'db4',
      pgdata: copy,
      installation: installation('db4'),
      parameters: parameters(5435),
    });
    expect(readdirSync(`${folder}/db4 wal`).filter((name) => /^[0-9A-F]{24}/.test(name))).toEqual([]);
    expect(existsSync(`${copy}/recovery.signal`)).toBe(false);
    await standby.start();
    await followed(standby, 'SELECT count(*) FROM rows', 15000);
    await expect(
      configureStandby(cluster, {
        node: 'db4',
        pgdata: copy,
        installation: installation('db4'),
        parameters: parameters(5435),
      }),
    ).rejects.toMatchObject({ code: 'refused', message: expect.stringContaining('runs on') });
    await standby.stop();
  });

  test('a standby that was stopped is configured again and goes on', async () => {
    const standby = new TestServer({ major, pgdata: `${folder}/db4`, sockets: scratch, port: 5437 });
    await configureStandby(cluster, {
      node: 'db4',
      pgdata: standby.pgdata,
      installation: installation('db4'),
      parameters: parameters(5437),
    });
    await primary.query('INSERT INTO rows SELECT generate_series(1, 100)');
    await primary.query('SELECT pg_switch_wal()');
    await standby.start();
    await followed(standby, 'SELECT count(*) FROM rows', 15100);
    await standby.stop();
  });

  test('the primary itself, stopped, is never made a standby, by its name or by its place', async () => {
    await primary.stop();
    const attempt = (node: string) =>
      configureStandby(cluster, {
        node,
        pgdata: primary.pgdata,
        installation: installation(node),
        parameters: parameters(5432),
      });
    await expect(attempt('db1')).rejects.toMatchObject({ code: 'refused' });
    await expect(attempt('db8')).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('db1'),
    });
    expect(existsSync(`${primary.pgdata}/standby.signal`)).toBe(false);
    const copy = `${folder}/crashed`;
    await primary.start();
    await primary.stop('immediate');
    cpSync(primary.pgdata, copy, { recursive: true });
    rmSync(`${copy}/postmaster.pid`, { force: true });
    await expect(
      configureStandby(cluster, {
        node: 'db6',
        pgdata: copy,
        installation: installation('db6'),
        parameters: parameters(5438),
      }),
    ).rejects.toMatchObject({ code: 'refused', message: expect.stringContaining('no backup_label') });
    expect((await readHead(cluster)).epoch).toBe(1);
  });
});
