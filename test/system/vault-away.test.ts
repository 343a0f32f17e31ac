/**
 * Silence is not absence: the vault unreachable or silent, the bundle missing or throwing, while there is more WAL to come.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import type { ProxyMode } from '../harness/proxy.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

describe.each(pairs)('the vault away on $title', (pair) => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer, db3: TestServer;
  const modes: ProxyMode[] = pair.vault === 's3' ? ['refuse', 'hang', 'cut-answer'] : ['refuse'];

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      walvault: {
        WALVAULT_RESTORE_TIMEOUT: '3s',
        WALVAULT_VAULT_TIMEOUT: '3s',
        WALVAULT_ARCHIVE_TIMEOUT: '5s',
      },
    });
    db1 = await site.makePrimary('db1');
    await site.backup();
    db2 = await site.addStandby('db2');
    db3 = await site.addStandby('db3', { start: false });
    await db1.query('CREATE TABLE archived (x int)');
    for (let segment = 1; segment <= 4; segment++) {
      await db1.query('INSERT INTO archived VALUES ($1)', [segment]);
      await site.archiveNow('db1');
    }
    renameSync(path.join(db3.pgdata, 'standby.signal'), path.join(db3.pgdata, 'recovery.signal'));
  });
  afterAll(() => site.close());

  /** db3 is in archive recovery with more WAL to come: it must go down, and never open. */
  async function abortsRecovery(): Promise<void> {
    await db3.start({ timeoutS: 90 }).catch(() => {}); // hot_standby: pg_ctl may see it consistent before it goes down
    await db3.ended(60_000);
    expect(db3.log(100)).toMatch(/could not restore file|restore_command|exit code 200/);
    expect(existsSync(path.join(db3.pgdata, 'recovery.signal'))).toBe(true);
    expect(
      readdirSync(path.join(db3.pgdata, 'pg_wal')).filter((name) => name.startsWith('00000002')),
    ).toEqual([]);
  }

  test.each(modes)('%s: archive recovery aborts, and never opens', async (mode) => {
    await site.vault.goAway(mode);
    try {
      await abortsRecovery();
    } finally {
      await site.vault.comeBack();
    }
  });

  test('the bundle is missing: archive recovery aborts', async () => {
    const program = path.join(site.state('db3'), 'program');
    await killHard(site.agentPids('db3'));
    renameSync(program, `${program}.kept`);
    try {
      await abortsRecovery();
    } finally {
      renameSync(`${program}.kept`, program);
    }
  });

  test('the bundle throws: archive recovery aborts', async () => {
    const program = path.join(site.state('db3'), 'program');
    await killHard(site.agentPids('db3'));
    renameSync(program, `${program}.kept`);
    mkdirSync(path.join(site.scratch, 'broken/dist'), { recursive: true });
    for (const name of ['restore.cjs', 'agent.cjs'])
      writeFileSync(path.join(site.scratch, 'broken/dist', name), 'throw new Error("broken");\n');
    symlinkSync(path.join(site.scratch, 'broken'), program);
    try {
      await abortsRecovery();
    } finally {
      rmSync(program);
      renameSync(`${program}.kept`, program);
    }
  });

  test('with the vault back the same server recovers every archived row, and opens', async () => {
    // this once with patience: recovery may be stopped by a vault that is slow, too, and is only started again then
    await killHard(site.agentPids('db3'));
    const file = path.join(site.state('db3'), 'settings.toml');
    const settings = readFileSync(file, 'utf8');
    expect(settings).toContain('restore_timeout = "3s"');
    writeFileSync(file, settings.replace('restore_timeout = "3s"', 'restore_timeout = "5m"'));
    await db3.start();
    await site.promoted('db3', 60_000);
    expect(await db3.number('SELECT count(*) FROM archived')).toBe(4);
    await db3.stop('fast');
  });

  test.each(modes)('%s: a standby stays up, answers, and goes on when the vault is back', async (mode) => {
    await site.caughtUp('db2');
    const rows = await db2.number('SELECT count(*) FROM archived');
    await site.vault.goAway(mode);
    await db1.query('INSERT INTO archived VALUES (5)');
    await db1.query('SELECT pg_switch_wal()');
    await waitFor(
      'the primary notices',
      120_000,
      async () => (await db1.number('SELECT failed_count FROM pg_stat_archiver')) > 0,
    );
    expect(await db2.number('SELECT count(*) FROM archived')).toBe(rows);
    expect(await db2.value('SELECT pg_is_in_recovery()')).toBe(true);
    await site.vault.comeBack();
    await waitFor(
      'the row is there',
      120_000,
      async () => (await db2.number('SELECT count(*) FROM archived')) === rows + 1,
    );
    expect(await db2.value('SELECT pg_is_in_recovery()')).toBe(true);
    await db1.query(`SELECT pg_stat_reset_shared('archiver')`);
  });
});
