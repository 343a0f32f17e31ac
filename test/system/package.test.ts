/**
 * The installed package: unpacked on a machine where PATH has neither Node nor npm nor git it does the whole job, and a server is moved
 * from one version to another under load, versions mixed for a while.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { execFile } from 'node:child_process';
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { openCluster } from '../../core/work/cluster.ts';
import { onePair } from '../harness/pairs.ts';
import { makeScratch, removeScratch, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { endOf } from '../harness/walvault-command.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';

const run = promisify(execFile);
const pair = onePair(0);
const NEXT = '99.1.0';
/** What the scripts call, and a shell: all that such a machine has. */
const TOOLS = ['sh', 'mv', 'cp', 'dirname', 'readlink', 'uname', 'cat', 'rm', 'id'];

describe(`the package on ${pair.title}`, () => {
  let scratch: string;
  let folder: string, next: string;
  let site: TestSite;
  let machine: { PATH: string; HOME: string };

  beforeAll(async () => {
    scratch = makeScratch();
    const make = path.resolve(import.meta.dirname, '../../bin/launcher/package.mjs');
    const made = await run(process.execPath, [make, '--out', path.join(scratch, 'made')]);
    const [, tarball, deb] = made.stdout.trim().split('\n');
    mkdirSync(path.join(scratch, 'opt'));
    await run('tar', ['-C', path.join(scratch, 'opt'), '-xzf', tarball!]);
    folder = path.join(scratch, 'opt', readdirSync(path.join(scratch, 'opt'))[0]!);
    await run(process.execPath, [
      make,
      '--out',
      path.join(scratch, 'opt'),
      '--version',
      NEXT,
      '--folder-only',
    ]);
    next = path.join(
      path.dirname(folder),
      path.basename(folder).replace(/^walvault-[^-]+-/, `walvault-${NEXT}-`),
    );
    expect(deb).toMatch(/walvault-\d+\.\d+\.\d+_(amd64|arm64)\.deb$/);

    const tools = path.join(scratch, 'tools');
    mkdirSync(tools);
    for (const tool of TOOLS)
      symlinkSync((await run('/bin/sh', ['-c', `command -v ${tool}`])).stdout.trim(), path.join(tools, tool));
    machine = { PATH: tools, HOME: path.join(scratch, 'nobody') };
    site = await TestSite.open({
      pair,
      segmentSizeMiB: 1,
      program: path.join(folder, 'bin/walvault'),
      machine,
    });
  });
  afterAll(async () => {
    await site?.close();
    await removeScratch(scratch);
  });

  test('every bundled package is in it with its licence, and Node', () => {
    const texts = readdirSync(path.join(folder, 'licences'));
    const packages = JSON.parse(
      readFileSync(path.resolve(import.meta.dirname, '../../dist/packages.json'), 'utf8'),
    ) as { name: string }[];
    const names = ['node', ...packages.map(({ name }) => name.replaceAll('/', '+'))];
    for (const name of names) {
      const text = texts.find((file) => file.startsWith(`${name}-`));
      expect([name, text && readFileSync(path.join(folder, 'licences', text), 'utf8').length > 500]).toEqual([
        name,
        true,
      ]);
    }
  });

  test('what it is made of can be read by everybody, and nothing of it needs the place where it was made', async () => {
    const checkout = path.resolve(import.meta.dirname, '../..');
    for (const file of readdirSync(path.join(folder, 'dist')))
      expect(readFileSync(path.join(folder, 'dist', file), 'utf8').includes(checkout)).toBe(false);
    const version = await endOf(path.join(folder, 'bin/walvault'), ['--version'], {
      env: machine,
      cwd: scratch,
    });
    expect(version).toMatchObject({ status: 0, stderr: '' });
    expect(path.basename(folder)).toContain(`-${version.stdout.trim()}-`);
    expect(
      (
        await endOf(path.join(next, 'bin/walvault'), ['--version'], { env: machine, cwd: scratch })
      ).stdout.trim(),
    ).toBe(NEXT);
  });

  test('without Node on the machine: init, configure, archive, backup, and a standby that follows', async () => {
    await expect(
      endOf('/bin/sh', ['-c', 'command -v node npm git'], { env: machine, cwd: scratch }),
    ).resolves.toMatchObject({
      stdout: '',
    });
    await site.makePrimary('db1');
    await site.backup();
    await site.addStandby('db2');
    await site.server('db1').query('CREATE TABLE proof AS SELECT 1 AS x');
    await site.caughtUp('db2');
    expect(await site.server('db2').number('SELECT x FROM proof')).toBe(1);
    for (const node of ['db1', 'db2'])
      expect(realpathSync(readlinkSync(path.join(site.state(node), 'program')))).toBe(realpathSync(folder));
  });

  test('a server is moved to the next version under load: nothing fails, nothing is lost, and a standby of the old one follows', async () => {
    const [db1, db2] = [site.server('db1'), site.server('db2')];
    const writer = await SteadyWriter.start(db1);
    const failed = () => db1.number('SELECT failed_count FROM pg_stat_archiver');
    const upgrade = (node: string, ...more: string[]) =>
      endOf(
        path.join(next, 'bin/walvault'),
        ['upgrade-hooks', '--json', '--pgdata', site.server(node).pgdata, ...more],
        { env: site.personEnvOf(node), cwd: scratch },
      );
    const program = (node: string) => realpathSync(path.join(site.state(node), 'program'));
    const switchEach = async (times: number) => {
      for (let each = 0; each < times; each++) await site.archiveNow('db1');
    };
    await switchEach(3);
    expect(await failed()).toBe(0);
    const [before] = site.agentPids('db1');

    const dry = await upgrade('db1', '--dry-run');
    expect(JSON.parse(dry.stdout)).toMatchObject({ dryRun: true, to: { version: NEXT }, unasked: null });
    expect(program('db1')).toBe(realpathSync(folder));
    const busy = switchEach(6);
    const answer = await upgrade('db1');
    expect(answer).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(answer.stdout)).toMatchObject({
      dryRun: false,
      agent: 'finished',
      wrappers: [],
      to: { version: NEXT },
    });
    expect(program('db1')).toBe(realpathSync(next));
    await busy;
    await waitFor('an agent of the next version', 10_000, async () => {
      await site.archiveNow('db1');
      const [pid] = site.agentPids('db1');
      return pid !== undefined && pid !== before;
    });
    await waitFor('the vault knows its version', 20_000, async () => {
      const [row] = await site.withVault(async (vault) => {
        const { partition } = await openCluster(vault, 'main');
        return [await vault.manifest.get({ pk: partition, sk: 'node#db1' })];
      });
      return row?.['walvaultVersion'] === NEXT;
    });

    // one of each version, either way round
    await site.caughtUp('db2');
    expect(program('db2')).toBe(realpathSync(folder));
    expect((await upgrade('db2')).status).toBe(0);
    await switchEach(2);
    await site.caughtUp('db2');
    const back = await endOf(path.join(folder, 'bin/walvault'), ['upgrade-hooks', '--pgdata', db1.pgdata], {
      env: site.personEnvOf('db1'),
      cwd: scratch,
    });
    expect(back).toMatchObject({ status: 0, stdout: expect.stringContaining(`from ${NEXT}`) });
    await switchEach(3);
    await writer.stop();
    await site.caughtUp('db2');
    expect(await failed()).toBe(0);
    expect(await missingRows(db2, writer.acknowledged.length)).toBe(0);

    const again = await upgrade('db2');
    expect(JSON.parse(again.stdout)).toMatchObject({ agent: 'kept', wrappers: [] });
  });

  test('the old version is removed only after its servers have moved; one that has not is mended by the same command', async () => {
    const db1 = site.server('db1');
    rmSync(folder, { recursive: true });
    const failedBefore = await db1.number('SELECT failed_count FROM pg_stat_archiver');
    const answer = await endOf(path.join(next, 'bin/walvault'), ['upgrade-hooks', '--pgdata', db1.pgdata], {
      env: site.personEnvOf('db1'),
      cwd: scratch,
    });
    expect(answer).toMatchObject({ status: 0, stdout: expect.stringContaining(`to ${NEXT}`) });
    await site.archiveNow('db1');
    expect(await db1.number('SELECT failed_count FROM pg_stat_archiver')).toBe(failedBefore);
  });

  test('what cannot be moved is left as it is', async () => {
    const at = (pgdata: string) =>
      endOf(path.join(next, 'bin/walvault'), ['upgrade-hooks', '--pgdata', pgdata], {
        env: site.personEnvOf('db1'),
        cwd: scratch,
      });
    mkdirSync(path.join(scratch, 'empty'));
    expect(await at(path.join(scratch, 'empty'))).toMatchObject({
      status: 67,
      stderr: expect.stringContaining('walvault configure primary'),
    });
    const identity = path.join(site.state('db1'), 'identity.json');
    const text = readFileSync(identity, 'utf8');
    writeFileSync(identity, text.replace(/"inode": "\d+"/, '"inode": "1"'));
    expect(await at(site.server('db1').pgdata)).toMatchObject({ status: 78 });
    writeFileSync(identity, text);
  });
});
