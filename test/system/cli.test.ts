/**
 * The commands as a person meets them: where they run, what they say and where, what they keep, what they leave alone.
 * (Bad input has bad-input.test.ts, the story as a whole main-job.test.ts.)
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { execFile } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite, walvaultFile } from '../harness/site.ts';

const pair = onePair(0);

describe(`the commands on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer;
  const conf = () => readFileSync(path.join(db1.pgdata, 'postgresql.auto.conf'), 'utf8');
  const json = async (...args: string[]) => {
    const answer = await site.walvault(...args, '--json');
    expect({ status: answer.status, stderr: answer.stderr }).toEqual({ status: 0, stderr: '' });
    return JSON.parse(answer.stdout) as Record<string, unknown>;
  };
  /** The failure of a command under --json: one object on standard error, nothing on standard output. */
  const failure = async (...args: string[]) => {
    const answer = await site.walvault(...args, '--json');
    expect(answer.stdout).toBe('');
    const { error } = JSON.parse(answer.stderr) as {
      error: { code: string; exit: number; message: string; hint: string | null };
    };
    expect(answer.status).toBe(error.exit);
    return error;
  };

  beforeAll(async () => {
    site = await TestSite.open({ pair });
    db1 = site.declare('db1');
    await db1.initdb();
    await db1.start();
  });
  afterAll(() => site.close());

  test('the command runs through a link, from any folder, with an environment of nothing but HOME', async () => {
    const link = path.join(site.scratch, 'bin with spaces');
    mkdirSync(link);
    symlinkSync(walvaultFile, path.join(link, 'walvault'));
    const { stdout } = await promisify(execFile)(path.join(link, 'walvault'), ['--version'], {
      cwd: '/',
      env: { HOME: '/nonexistent' },
    });
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test('init where the state directory cannot be made says so, and makes no vault', async () => {
    const closed = path.join(site.scratch, 'closed');
    mkdirSync(closed, { mode: 0o500 });
    const vault = path.join(site.scratch, 'never made');
    const error = await failure(
      ...['init', '--pgdata', db1.pgdata, '--node', 'db1', '--vault', pathToFileURL(vault).href],
      ...['--state-dir', path.join(closed, 'state')],
    );
    expect(error).toMatchObject({ code: 'local', message: expect.stringContaining(closed) });
    expect(existsSync(vault)).toBe(false);
    chmodSync(closed, 0o700);
  });

  test('init reads a running server, changes nothing in PGDATA, and may be repeated', async () => {
    const before = conf();
    const words = ['init', ...site.vault.initArgs, '--pgdata', db1.pgdata, '--node', 'db1'];
    expect(await json(...words)).toMatchObject({
      was: 'made',
      primary: 'db1',
      timeline: 1,
      majorVersion: pair.major,
    });
    expect(await json(...words)).toMatchObject({ was: 'there', primary: 'db1' });
    expect((await site.walvault(...words)).stderr).toMatch(/next: .*\n +walvault configure primary --pgdata/);
    expect(conf()).toBe(before);
  });

  test('configure --print prints lines for postgresql.conf and changes nothing', async () => {
    const before = conf();
    const answer = await site.walvault(
      'configure',
      'primary',
      '--pgdata',
      db1.pgdata,
      '--node',
      'db1',
      '--print',
    );
    expect(answer.status).toBe(0);
    for (const line of answer.stdout.trimEnd().split('\n')) expect(line).toMatch(/^[a-z_]+ = '.*'$/);
    expect(answer.stdout).toContain('archive_command = ');
    expect(conf()).toBe(before);
    expect(existsSync(path.join(site.state('db1'), 'archive'))).toBe(false);
  });

  test('configure says that a restart is due, and after it that the server archives', async () => {
    const words = [
      'configure',
      'primary',
      '--pgdata',
      db1.pgdata,
      '--node',
      'db1',
      '--heartbeat-interval',
      '1s',
    ];
    expect((await site.walvault(...words)).stderr).toMatch(/RESTART is due.*\n +pg_ctl -D \S+ restart/);
    await db1.stop('fast');
    await db1.start();
    expect((await site.walvault(...words)).stderr).toMatch(/archives into the vault from now on/);
  });

  test('what was said to configure is kept for the node: later commands need PGDATA only', async () => {
    const toml = readFileSync(path.join(site.state('db1'), 'settings.toml'), 'utf8');
    expect(toml).toMatch(/^heartbeat_interval = "1s"$/m);
    expect(toml).toMatch(/^node = "db1"$/m);
    // a default of a later version must reach the node, and another server's port must not
    expect(toml).not.toMatch(/^(zstd_level|pg_port|pg_host) = /m);
    const { stdout } = await promisify(execFile)(walvaultFile, ['status', '--json', '--pgdata', db1.pgdata], {
      env: { ...site.serverEnv, PATH: process.env['PATH'] },
    });
    expect(JSON.parse(stdout)).toMatchObject({ cluster: site.cluster, primary: 'db1' });
  });

  test('a backup proves that WAL arrives, and is listed', async () => {
    const made = await json('backup', '--pgdata', db1.pgdata, '--label', 'of the test');
    expect(made).toMatchObject({ state: 'complete', node: 'db1', timeline: 1 });
    const { stdout } = await site.walvault('backups', '--json');
    expect(JSON.parse(stdout)).toMatchObject([{ id: made['id'], label: 'of the test', state: 'complete' }]);
    expect(await site.ok('backups')).toMatch(
      new RegExp(`^backup +state.*\n${String(made['id'])} +complete +db1`),
    );
  });

  test('a standby takes --port and --set, and status shows it in the table', async () => {
    const db2 = site.declare('db2');
    const made = await json(
      ...['standby', 'create', '--pgdata', db2.pgdata, '--node', 'db2', '--mode', 'hot'],
      ...['--port', String(db2.port), '--set', 'work_mem=5MB'],
    );
    expect(made).toMatchObject({ node: 'db2', pgdata: db2.pgdata });
    await db2.start();
    expect(await db2.value('SHOW work_mem')).toBe('5MB');
    await site.caughtUp('db2');
    await waitFor('db2 in the table', 30_000, async () =>
      /^db2 +standby .* [0-9A-F]{24} /m.test(await site.ok('status')),
    );
    expect(await site.ok('status')).toMatch(/^primary +db1$/m);
  });

  test('init on a standby is refused', async () => {
    const error = await failure('init', '--pgdata', site.server('db2').pgdata, '--node', 'db2');
    expect(error).toMatchObject({ code: 'refused', message: expect.stringContaining('standby') });
  });

  test('claim on a standby is refused, and names the trigger', async () => {
    const error = await failure('claim', '--pgdata', site.server('db2').pgdata, '--yes');
    expect(error).toMatchObject({
      code: 'refused',
      hint: expect.stringContaining('walvault trigger smart --to db2'),
    });
  });

  test('guard refuses a running server, and leaves a stopped one alone', async () => {
    const db2 = site.server('db2');
    expect(await failure('guard', '--pgdata', db2.pgdata)).toMatchObject({ code: 'refused' });
    await site.canBeTarget('db2'); // stopped it says no more that it can, and the next test names it
    await db2.stop('fast');
    expect(await json('guard', '--pgdata', db2.pgdata)).toMatchObject({ repaired: false, removed: [] });
    // an agent outlives its server by a few looks, and would take the trigger of the next test
    await waitFor('the end of the agent', 30_000, () => site.agentPids('db2').length === 0);
  });

  test('a trigger whose target does not run is reported after --wait, goes on, and can be superseded', async () => {
    const error = await failure('trigger', 'smart', '--to', 'db2', '--yes', '--wait', '1s');
    expect(error).toMatchObject({
      code: 'unreachable',
      message: expect.stringMatching(/db2 is triggered, not open, after 1/),
    });
    expect(error.hint).toContain('--supersede 2');
    expect(await site.status()).toMatchObject({
      epoch: 2,
      primary: 'db2',
      trigger: { mode: 'smart', to: 'db2', epoch: 2 },
    });
    expect(await failure('trigger', 'smart', '--to', 'db2', '--yes')).toMatchObject({
      code: 'refused',
      hint: expect.stringContaining('--supersede 2'),
    });
    const again = await json('trigger', 'fast', '--to', 'db2', '--yes', '--supersede', '2', '--no-wait');
    expect(again).toMatchObject({ epoch: 3, node: 'db2', mode: 'fast', state: 'triggered' });
    await site.server('db2').start();
    await waitFor('the promotion is open', 60_000, async () => (await site.status()).trigger === null);
    expect(await site.status()).toMatchObject({ epoch: 3, primary: 'db2', timeline: 2 });
  });

  test('a server promoted by hand is the primary after claim, which wants --yes without a terminal', async () => {
    await db1.stop('immediate');
    const db3 = await site.addStandby('db3');
    await site.caughtUp('db3', 'db2');
    await db3.query('SELECT pg_promote()');
    await waitFor(
      'db3 takes writes',
      30_000,
      async () => (await db3.value('SELECT pg_is_in_recovery()')) === false,
    );
    const words = ['claim', '--pgdata', db3.pgdata];
    const unasked = await site.walvault(...words);
    expect(unasked.status).toBe(2);
    expect(unasked.stderr).toMatch(/This will:\n.*make db3 .* the primary of main\n.*end epoch 3 of db2/);
    expect(await site.status()).toMatchObject({ epoch: 3, primary: 'db2' });
    const { timeline } = (await json(...words, '--yes')) as { timeline: number };
    expect(await site.status()).toMatchObject({ epoch: 4, primary: 'db3', trigger: null, timeline });
    await db3.query('CREATE TABLE of_the_claimed (i int)');
    await site.archiveNow('db3');
  });
});
