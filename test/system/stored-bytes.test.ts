/**
 * An object of the vault that was truncated, zeroed or swapped: restore refuses it, whatever asks for it.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(1);

describe(`spoiled objects on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer;
  let name: string, other: string;
  let right: Buffer, key: string;

  beforeAll(async () => {
    site = await TestSite.open({ pair, walvault: { WALVAULT_RESTORE_TIMEOUT: '2s' } });
    db1 = await site.makePrimary('db1');
    await site.backup();
    db2 = await site.addStandby('db2');
    await site.caughtUp('db2');
    await db2.stop('fast');
    // its agent would fetch ahead what is about to be spoiled
    await waitFor('the end of the agent', 30_000, () => site.agentPids('db2').length === 0);
    await db1.query('CREATE TABLE spoiled AS SELECT generate_series(1, 1000) AS x');
    name = await site.archiveNow('db1');
    await db1.query('INSERT INTO spoiled VALUES (0)');
    other = await site.archiveNow('db1');
    key = (await site.contents()).wal.get(name)!.key;
    right = (await site.withVault((vault) => vault.bucket.get(key)))!;
  });
  afterAll(() => site.close());

  const put = (bytes: Buffer) =>
    site.withVault(async (vault) => {
      const facts = await vault.bucket.facts(key);
      await vault.bucket.delete(key);
      await vault.bucket.putOnce(key, bytes, facts);
    });

  const ways: [string, () => Promise<Buffer>][] = [
    ['truncated', async () => right.subarray(0, right.length >> 1)],
    ['empty', async () => Buffer.alloc(0)],
    ['zeroed', async () => Buffer.alloc(right.length)],
    ['with one byte changed', async () => Buffer.from(right).fill(right[200]! ^ 1, 200, 201)],
    [
      'swapped with the next',
      async () => {
        const otherKey = (await site.contents()).wal.get(other)!.key;
        return (await site.withVault((vault) => vault.bucket.get(otherKey)))!;
      },
    ],
  ];

  test.each(ways)(
    '%s: restore serves nothing; a standby is told to ask again, archive recovery is stopped',
    async (_way, spoil) => {
      await put(await spoil());
      const target = path.join(db2.pgdata, 'pg_wal/RECOVERYXLOG');
      rmSync(target, { force: true });
      // A plain standby is answered within a second, come what may: where that was not enough it is told of a vault that does not answer.
      const answers: { status: number; isThere: boolean }[] = [];
      await waitFor('what is wrong with it is told', 60_000, async () => {
        const { status, stderr } = await site.hook('db2', 'restore', name, 'pg_wal/RECOVERYXLOG');
        answers.push({ status, isThere: existsSync(target) });
        return /walvault: \[corrupt\]/.test(stderr);
      });
      expect(answers.filter(({ status, isThere }) => status !== 1 || isThere)).toEqual([]);
      renameSync(path.join(db2.pgdata, 'standby.signal'), path.join(db2.pgdata, 'recovery.signal'));
      try {
        expect((await site.hook('db2', 'restore', name, 'pg_wal/RECOVERYXLOG')).status).toBe(200);
        expect(existsSync(target)).toBe(false);
      } finally {
        renameSync(path.join(db2.pgdata, 'recovery.signal'), path.join(db2.pgdata, 'standby.signal'));
      }
    },
  );

  test('an object that is gone is not an absent segment', async () => {
    await site.withVault((vault) => vault.bucket.delete(key));
    writeFileSync(path.join(db2.pgdata, 'recovery.signal'), '');
    rmSync(path.join(db2.pgdata, 'standby.signal'));
    expect((await site.hook('db2', 'restore', name, 'pg_wal/RECOVERYXLOG')).status).toBe(200);
    rmSync(path.join(db2.pgdata, 'recovery.signal'));
    writeFileSync(path.join(db2.pgdata, 'standby.signal'), '');
    expect((await site.hook('db2', 'restore', name, 'pg_wal/RECOVERYXLOG')).status).toBe(1);
  });

  test('a standby waits in front of it, and goes on when the right bytes are back', async () => {
    await put(Buffer.alloc(right.length));
    await db2.start();
    await waitFor('a refusal in the log', 60_000, () => db2.log(500).includes('[corrupt]'));
    expect(await db2.value('SELECT pg_is_in_recovery()')).toBe(true);
    expect(await db2.value(`SELECT to_regclass('spoiled')`)).toBeNull();
    await put(right);
    await waitFor(
      'the rows of it',
      60_000,
      async () => (await db2.number('SELECT count(*) FROM spoiled')) >= 1000,
    );
  });
});
