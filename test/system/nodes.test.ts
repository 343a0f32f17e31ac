/** Nodes come by one line to paste, go by `node drop`, and are opened for a test by `standby detach`. */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { onePair } from '../harness/pairs.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite, walvaultFile } from '../harness/site.ts';

const pair = onePair(0);

describe(`nodes on ${pair.title}`, () => {
  let site: TestSite;
  const refusal = async (...args: string[]) => {
    const answer = await site.walvault(...args);
    expect([args.join(' '), answer.status]).not.toEqual([args.join(' '), 0]);
    return answer.stderr;
  };
  const node = async (name: string) => {
    const nodes = JSON.parse(await site.ok('node', 'list', '--json')) as Record<string, unknown>[];
    return nodes.find((each) => each['name'] === name);
  };

  beforeAll(async () => {
    site = await TestSite.open({ pair, walvault: { WALVAULT_HEARTBEAT_INTERVAL: '1s' } });
    await site.makePrimary();
    await site.backup();
  });
  afterAll(() => site.close());

  test('node add prints one line; pasted into a shell that knows nothing, it makes the standby', async () => {
    const db2 = site.declare('db2');
    const line = await site.ok('node', 'add', 'db2', '--at', db2.pgdata, '--port', String(db2.port));
    expect(line).toMatch(
      /^export WALVAULT_VAULT=\S+ WALVAULT_CLUSTER=main .*walvault standby create [^\n]*\n$/,
    );
    expect(line).not.toMatch(/SECRET|ACCESS_KEY/i);
    expect(await node('db2')).toMatchObject({ role: 'unknown', heartbeatAt: null, place: null });
    expect(await site.ok('node', 'add', 'db2', '--at', db2.pgdata, '--port', String(db2.port))).toBe(line);
    // credentials are the machine's own
    const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY } = site.serverEnv;
    const own = {
      HOME: site.scratch,
      ...(AWS_ACCESS_KEY_ID && { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY }),
    };
    await promisify(execFile)('/bin/sh', ['-c', line], {
      env: { ...own, PATH: `${path.dirname(walvaultFile)}:${process.env['PATH']}` },
    });
    await db2.start();
    await site.caughtUp('db2');
    // its row was there before it ran, but without a heartbeat
    await waitFor(
      'db2 reports',
      30_000,
      async () => typeof (await node('db2'))?.['heartbeatAt'] === 'string',
    );
    expect(await node('db2')).toMatchObject({
      role: 'standby',
      postgresVersion: String(pair.major),
      place: expect.stringContaining(db2.pgdata),
      trouble: null,
    });
    expect(await site.ok('node', 'list')).toMatch(/^db2 +standby .*glibc/m);
    expect(await refusal('node', 'add', 'db2')).toMatch(/has a node db2 already, at .*node drop db2/s);
    expect(await refusal('node', 'add', 'a/b')).toMatch(/not a name/);
  });

  test('node check tries both stores both ways, and leaves one small object', async () => {
    const proofs = JSON.parse(await site.ok('node', 'check', '--node', 'db2', '--json')) as {
      state: string;
    }[];
    expect(proofs.map(({ state }) => state).filter((state) => state === 'failed')).toEqual([]);
    expect(proofs).toHaveLength(4);
    await site.ok('node', 'check', '--node', 'db2');
    const { objects } = await site.contents();
    expect(objects.filter((key) => key.endsWith('/node/db2.probe'))).toHaveLength(1);
  });

  test('the primary, and a node at work, are not dropped', async () => {
    expect(await refusal('node', 'drop', 'db1', '--yes')).toMatch(/db1 is the primary/);
    expect(await refusal('node', 'drop', 'db2', '--yes')).toMatch(/db2 is at work: it reported \d+ s ago/);
    expect(await refusal('node', 'drop', 'db9', '--yes')).toMatch(/no node db9 is known/);
  });

  test.each(['detach-marked', 'detach-reported', 'detach-configured'])(
    'detach killed at %s leaves a standby that follows nobody; the same command goes on',
    async (point) => {
      if (!site.servers.has('db3')) {
        await site.addStandby('db3');
        await site.caughtUp('db3');
      }
      const db3 = site.server('db3');
      const words = ['standby', 'detach', '--pgdata', db3.pgdata, '--node', 'db3', '--yes'];
      await expect(
        promisify(execFile)(walvaultFile, words, { env: { ...site.personEnv, WALVAULT_CRASH_AT: point } }),
      ).rejects.toThrow();
      expect(existsSync(path.join(site.state('db3'), 'detached'))).toBe(true);
      expect(await db3.value('SELECT pg_is_in_recovery()')).toBe(true);
      expect((await site.hook('db3', 'restore', '000000010000000000000001', 'pg_wal/x')).status).toBe(1);
      expect(await site.hook('db3', 'archive', 'pg_wal/x', '000000010000000000000009')).toMatchObject({
        status: 1,
        stderr: expect.stringContaining('detached'),
      });
    },
  );

  test('a detached standby takes writes while primary, epoch and other standbys go on', async () => {
    const db3 = site.server('db3');
    const before = await site.status();
    const detached = await site.ok('standby', 'detach', '--pgdata', db3.pgdata, '--node', 'db3', '--yes');
    expect(detached).toMatch(/^open since +\S+, timeline 2 of its own$/m);
    await db3.query('CREATE TABLE of_the_test AS SELECT generate_series(1, 100000) AS i');
    await db3.query('SELECT pg_switch_wal()');
    await db3.query('CHECKPOINT');
    await site.server('db1').query('CREATE TABLE of_the_primary (i int)');
    await site.caughtUp('db2');
    expect(await site.status()).toMatchObject({
      epoch: before.epoch,
      primary: 'db1',
      timeline: 1,
      trigger: null,
    });
    const { wal, histories } = await site.contents();
    expect([...wal.keys()].filter((name) => name.startsWith('00000002'))).toEqual([]);
    expect(histories).toEqual([]);
    expect(await db3.value('SHOW archive_mode')).toBe('on');
    await waitFor('its WAL is let go', 30_000, async () =>
      Boolean(await db3.value('SELECT archived_count > 0 FROM pg_stat_archiver')),
    );
  });

  test('nothing that is called on it writes to the vault or names it', async () => {
    const db3 = site.server('db3');
    expect((await node('db3'))?.['trouble']).toMatch(/^detached since .*never writes to this vault again/);
    expect(await refusal('trigger', 'smart', '--to', 'db3', '--yes')).toMatch(
      /db3 is not a standby .*detached/,
    );
    expect(await refusal('claim', '--pgdata', db3.pgdata, '--yes')).toMatch(/detached from its vault/);
    expect(await refusal('standby', 'detach', '--pgdata', db3.pgdata, '--yes')).toMatch(
      /was detached at .* and is open/,
    );
    const segment = String(await db3.value('SELECT pg_walfile_name(pg_current_wal_lsn())'));
    const before = (await site.contents()).wal.size;
    expect((await site.hook('db3', 'archive', `pg_wal/${segment}`, segment)).status).toBe(1);
    // past the wrapper too: the bundle that it would start
    const state = site.state('db3');
    const bundle = promisify(execFile)(
      path.join(state, 'node'),
      [path.join(state, 'program/dist/archive.cjs'), state, `pg_wal/${segment}`, segment],
      { cwd: db3.pgdata, env: db3.env },
    );
    await expect(bundle).rejects.toMatchObject({ code: 1, stderr: expect.stringContaining('detached') });
    expect((await site.contents()).wal.size).toBe(before);
    expect((await site.hook('db3', 'recovered')).status).toBe(0);
    expect(site.agentPids('db3')).toEqual([]);
  });

  test('it stays detached over a restart, and makes a standby again only anew', async () => {
    const db3 = site.server('db3');
    await db3.stop();
    expect(await refusal('standby', 'configure', '--pgdata', db3.pgdata, '--node', 'db3')).toMatch(
      /detached/,
    );
    await db3.start();
    expect(await db3.number('SELECT count(*) FROM of_the_test')).toBe(100_000);
    await db3.stop();
  });

  test('a detached node is dropped at once, one that went silent after half a minute', async () => {
    await site.ok('node', 'drop', 'db3', '--yes');
    expect(await node('db3')).toBeUndefined();
    await site.server('db2').stop();
    await waitFor('db2 can be dropped', 60_000, async () => {
      const answer = await site.walvault('node', 'drop', 'db2', '--yes');
      return answer.status === 0;
    });
    expect((await site.status()).nodes.map(({ name }) => name)).toEqual(['db1']);
    expect(await site.events('node-drop')).toHaveLength(2);
  });

  test('the primary has archived all the while', async () => {
    await site.archiveNow();
    expect(readFileSync(path.join(site.state('db1'), 'agent.log'), 'utf8')).not.toMatch(/fenced|copied/);
  });
});
