/**
 * pg_upgrade from 16 to 18 on a cluster that is archived, followed and relayed: the commands of docs/runbook/upgrading-postgresql.md, run
 * from the page.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { DrSite } from '../harness/dr-site.ts';
import { fullPostgres } from '../harness/full-postgres.ts';
import { TestServer } from '../harness/postgres.ts';
import { listProcesses, waitFor } from '../harness/scratch.ts';
import { endOf, walvaultFile } from '../harness/walvault-command.ts';

const PAGE = 'docs/runbook/upgrading-postgresql.md';
const page = readFileSync(path.resolve(import.meta.dirname, '../..', PAGE), 'utf8');
/** The blocks of the page, by the heading above them. */
const blocks = new Map<string, string[]>();
for (const part of page.split(/^## /m).slice(1))
  blocks.set(
    part.slice(0, part.indexOf('\n')),
    [...part.matchAll(/^```sh\n([^]*?)^```$/gm)].map(([, text]) => text!),
  );

describe('pg_upgrade from PostgreSQL 16 to 18, file vaults', () => {
  let site: DrSite;
  let oldBin: string, newBin: string;
  let db1: TestServer, next: TestServer, standby: TestServer;
  const run = async (heading: string, index = 0) => {
    const script = blocks.get(heading)?.[index];
    if (script === undefined) throw new Error(`${PAGE} has no block ${index} under '${heading}'`);
    const env = {
      ...site.personEnvOf('db1'),
      ...{ OLD: db1.pgdata, NEW: next.pgdata, STANDBY: standby.pgdata, OLD_BIN: oldBin, NEW_BIN: newBin },
      INITDB_OPTIONS: '--wal-segsize 1 --no-data-checksums -N',
      PATH: `${path.dirname(walvaultFile)}:${process.env['PATH']}`,
    };
    const answer = await endOf('/bin/sh', ['-euc', script], { env, cwd: site.scratch });
    if (answer.status !== 0)
      throw new Error(`${heading}: ended with ${answer.status}\n${answer.stdout}${answer.stderr}`);
    return answer;
  };
  const server = (name: string) =>
    new TestServer({
      ...{ major: 18, bin: newBin, env: site.serverEnvOf('db1'), sockets: db1.sockets },
      pgdata: path.join(path.dirname(db1.pgdata), name),
      port: name === 'next' ? db1.port : 5491,
    });

  beforeAll(async () => {
    [oldBin, newBin] = [await fullPostgres(16), await fullPostgres(18)];
    site = await DrSite.open({ pair: { major: 16, vault: 'file' }, segmentSizeMiB: 1, postgresBin: oldBin });
    db1 = await site.makePrimary('db1');
    await db1.query(
      'CREATE TABLE kept AS SELECT g AS id, md5(g::text) AS text FROM generate_series(1, 20000) AS g',
    );
    await site.archiveNow('db1');
    [next, standby] = [server('next'), server('standby')];
  });
  afterAll(async () => {
    for (const each of [next, standby]) await each?.stop('immediate').catch(() => {});
    await site?.close();
  });
  const hasAgent = ({ pgdata }: TestServer) =>
    listProcesses().some(
      ({ command, state }) =>
        state !== 'Z' && command.includes('/agent.cjs') && command.includes(` ${pgdata}.walvault`),
    );
  const generation = async (vault: 'A' | 'B') => (await site.view(vault).heart()).control;

  test('the page: backup, stop, pg_upgrade, a new generation that archives and is backed up', async () => {
    await run('Before');
    expect((await site.relayOnce()).status).toBe(0);
    await run('Before', 1);
    const before = await generation('A');
    await run('Upgrade');
    await run('The new generation');
    const after = await generation('A');
    expect(after).toMatchObject({
      ...{ epoch: before.epoch + 1, majorVersion: 18, primary: 'db1', role: 'active' },
      generations: [before.systemIdentifier],
    });
    expect(after.systemIdentifier).not.toBe(before.systemIdentifier);
    expect(await next.number('SELECT count(*) FROM kept')).toBe(20000);
    expect((await site.status()).backups).toMatchObject([{ state: 'complete' }]);
    expect(await next.number('SELECT failed_count FROM pg_stat_archiver')).toBe(0);
  });

  test('a standby of the new generation follows, made by the page', async () => {
    await run('The new generation', 1);
    await next.query('INSERT INTO kept SELECT 0, $1', ['after the upgrade']);
    const lsn = String(await next.value('SELECT pg_current_wal_lsn()'));
    await next.query('SELECT pg_switch_wal()');
    await waitFor('the standby has replayed', 60_000, async () =>
      Boolean(await standby.value('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn', [lsn])),
    );
    expect(await standby.value('SELECT text FROM kept WHERE id = 0')).toBe('after the upgrade');
  });

  test('the relay makes the new generation in the replica, and leaves the old one there', async () => {
    const { systemIdentifier: old } = await generation('B');
    expect(await site.relayOnce()).toMatchObject({ status: 0 });
    const [here, there] = [await generation('A'), await generation('B')];
    expect(there).toMatchObject({
      role: 'replica',
      systemIdentifier: here.systemIdentifier,
      epoch: here.epoch,
    });
    const rows = (generationOf: string) =>
      site.view('B').with(async ({ manifest }) => {
        const found: string[] = [];
        for await (const { sk } of manifest.query({ pk: `main/${generationOf}`, from: 'wal#', to: 'wal$' }))
          found.push(sk);
        return found;
      });
    expect((await rows(old)).length).toBeGreaterThan(0);
    expect((await rows(there.systemIdentifier)).length).toBeGreaterThan(0);
  });

  test('the old server, started again, archives nothing and is told why; neither is it taken for an upgrade', async () => {
    await next.stop('fast');
    // its last heartbeat moves the head once more
    await waitFor('the end of its agent', 30_000, () => !hasAgent(next));
    const head = (await site.view('A').heart()).head;
    await db1.start();
    await db1.query('CREATE TABLE too_late AS SELECT 1 AS x');
    await db1.query('SELECT pg_switch_wal()');
    await waitFor(
      'a refused archive_command',
      60_000,
      async () => (await db1.number('SELECT failed_count FROM pg_stat_archiver')) > 0,
    );
    expect(db1.log(200)).toMatch(
      /walvault: \[refused\] cluster main is system identifier \d+ in .*, the database in .* is \d+/,
    );
    expect((await site.view('A').heart()).head).toEqual(head);
    await db1.stop('immediate');
    const answer = await site.walvault(
      'init',
      '--upgraded',
      '--pgdata',
      db1.pgdata,
      '--node',
      'db1',
      '--yes',
    );
    expect(answer).toMatchObject({ status: 3, stderr: expect.stringContaining('was before an upgrade') });
    await next.start();
  });

  test('the way back: the old data directory under another name', async () => {
    await run('The way back');
    expect(await db1.number('SELECT count(*) FROM kept')).toBe(20000);
    await db1.query('SELECT pg_switch_wal()');
    await waitFor(
      'it archives',
      60_000,
      async () => (await db1.number('SELECT archived_count FROM pg_stat_archiver')) > 0,
    );
  });
});
