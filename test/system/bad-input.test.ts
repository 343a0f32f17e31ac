/**
 * Bad input: a clear error with a hint, a non-zero exit, and nothing changed.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { onePair, pairs } from '../harness/pairs.ts';
import { TestSite, type Answer } from '../harness/site.ts';

/** An error as people get it: one code, a reason, a hint; no stack, no bug. */
function isClear(answer: Answer, code: string, reason: RegExp): void {
  expect(answer.stderr).toContain(`walvault: [${code}] `);
  expect(answer.stderr).toMatch(reason);
  expect(answer.stderr).toMatch(/HINT: \S/);
  expect(answer.stderr).not.toMatch(/\n\s+at /);
  expect(answer.status).toBeGreaterThan(0);
  expect(answer.status).toBeLessThan(100);
}

const pair = onePair(0);

describe(`bad input on ${pair.title}`, () => {
  let site: TestSite;
  let pgdata: string;

  beforeAll(async () => {
    site = await TestSite.open({ pair });
    const db1 = await site.makePrimary('db1');
    await site.backup();
    pgdata = db1.pgdata;
  });
  afterAll(() => site.close());

  const unchanged = async (run: () => Promise<void>) => {
    const before = await site.contents();
    const conf = () =>
      readFileSync(path.join(pgdata, 'postgresql.auto.conf'), 'utf8') + readdirSync(pgdata).sort().join();
    const files = conf();
    await run();
    expect(await site.contents()).toEqual(before);
    expect(conf().replace('postmaster.opts', '')).toBe(files.replace('postmaster.opts', ''));
  };

  test('a PGDATA that is none', async () => {
    await unchanged(async () => {
      for (const wrong of [path.join(site.scratch, 'nowhere'), site.scratch]) {
        isClear(
          await site.walvault('init', '--pgdata', wrong, '--node', 'dbx', '--cluster', 'another'),
          'pgdata',
          /pgdata|data directory|nowhere|PG_VERSION|no /i,
        );
        isClear(
          await site.walvault('configure', 'primary', '--pgdata', wrong, '--node', 'dbx'),
          'pgdata',
          /./,
        );
        isClear(await site.walvault('backup', '--pgdata', wrong, '--node', 'dbx'), 'pgdata', /./);
      }
    });
  });

  test('a server that runs where it must not', async () => {
    await unchanged(async () => {
      isClear(
        await site.walvault('standby', 'configure', '--pgdata', pgdata, '--node', 'db1'),
        'refused',
        /runs|running|primary/,
      );
    });
  });

  test('an unknown cluster', async () => {
    await unchanged(async () => {
      isClear(await site.walvault('status', '--cluster', 'nobodys'), 'unconfigured', /nobodys/);
      isClear(
        await site.walvault('trigger', 'smart', '--to', 'db2', '--yes', '--cluster', 'nobodys'),
        'unconfigured',
        /nobodys/,
      );
    });
  });

  test('a system identifier that is not the cluster’s', async () => {
    const other = site.declare('other');
    await other.initdb();
    await unchanged(async () => {
      isClear(
        await site.walvault('init', '--pgdata', other.pgdata, '--node', 'db9'),
        'refused',
        /system identifier|another database/,
      );
      isClear(
        await site.walvault('configure', 'primary', '--pgdata', other.pgdata, '--node', 'db9'),
        'refused',
        /system identifier/,
      );
    });
    expect(existsSync(`${other.pgdata}.walvault`)).toBe(false);
  });

  test('a cluster that is there already', async () => {
    await unchanged(async () => {
      const answer = await site.walvault('init', '--pgdata', pgdata, '--node', 'db2');
      isClear(answer, 'refused', /db1|already|there/);
    });
  });

  test.each(['no-url', '/srv/vault', 'ftp://x/y', 's3://', 'file://relative/path', 's3://bucket/p?tabel=x'])(
    'a vault URL that does not parse: %s',
    async (url) => {
      isClear(await site.walvault('status', '--vault', url), 'usage', /./);
    },
  );

  test('a trigger to nobody, to the primary, and without --yes', async () => {
    await unchanged(async () => {
      isClear(await site.walvault('trigger', 'smart', '--to', 'nobody', '--yes'), 'refused', /nobody/);
      isClear(await site.walvault('trigger', 'smart', '--to', 'db1', '--yes'), 'refused', /db1/);
      expect((await site.walvault('trigger', 'smart', '--to', 'db1')).status).toBeGreaterThan(0);
    });
  });

  test('a target directory that is not empty', async () => {
    const full = path.join(site.folder, 'full');
    mkdirSync(full);
    writeFileSync(path.join(full, 'letter'), 'keep me');
    await unchanged(async () => {
      isClear(
        await site.walvault('standby', 'create', '--pgdata', full, '--node', 'db3'),
        'refused',
        /empty/,
      );
    });
    expect(readdirSync(full)).toEqual(['letter']);
    expect(existsSync(`${full}.walvault`)).toBe(false);
  });

  test('a state directory that cannot be written', async () => {
    const closed = path.join(site.folder, 'closed');
    mkdirSync(closed);
    chmodSync(closed, 0o500);
    await unchanged(async () => {
      const answer = await site.walvault(
        'configure',
        'primary',
        '--pgdata',
        pgdata,
        '--node',
        'db1',
        '--state-dir',
        path.join(closed, 'state'),
      );
      isClear(answer, 'local', /state/);
    });
    chmodSync(closed, 0o700);
  });

  test('an unknown option, an unknown command', async () => {
    expect((await site.walvault('status', '--wrong')).status).toBe(2);
    expect((await site.walvault('stauts')).status).toBe(2);
  });
});

const s3 = pairs.find(({ vault }) => vault === 's3');

// a run that was asked for file vaults only has none
(s3 === undefined ? describe.skip : describe)('bad input for an s3: vault', () => {
  let site: TestSite;
  beforeAll(async () => {
    site = await TestSite.open({ pair: s3! });
    await site.makePrimary('db1');
  });
  afterAll(() => site.close());

  test('a table that is missing', async () => {
    const url = site.vault.url.replace(/table=[^&]*/, 'table=nobodys-table');
    isClear(await site.walvault('status', '--vault', url), 'unconfigured', /nobodys-table/);
  });

  test('a bucket that is missing', async () => {
    const url = site.vault.url.replace(/s3:\/\/[^/]*/, 's3://nobodys-bucket');
    const answer = await site.walvault(
      'init',
      '--vault',
      url,
      '--pgdata',
      site.server('db1').pgdata,
      '--node',
      'db1',
      '--cluster',
      'new',
    );
    isClear(answer, 'unconfigured', /nobodys-bucket/);
  });

  test('no credentials', async () => {
    const kept = { ...site.vault.env };
    delete site.vault.env['AWS_ACCESS_KEY_ID'];
    delete site.vault.env['AWS_SECRET_ACCESS_KEY'];
    isClear(await site.walvault('status'), 'denied', /credential/i);
    Object.assign(site.vault.env, kept);
  });
});
