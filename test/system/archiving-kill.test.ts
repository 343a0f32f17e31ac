/**
 * Archiving off by a word of the node alone, with its vault away: the hook killed after it wrote down what it ignored, and killed after that
 * was declared and before it was struck off. The gap is exact either way.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { recordingCrashes } from '../harness/crashes.ts';
import { onePair } from '../harness/pairs.ts';
import { TestSite } from '../harness/site.ts';
import { endOf } from '../harness/walvault-command.ts';

const pair = onePair(0);

test(`archiving off --local, the hook killed at each of its steps, on ${pair.title}`, async () => {
  const walvault = { WALVAULT_AGENT: 'off', WALVAULT_VAULT_TIMEOUT: '2s' };
  const site = await TestSite.open({ pair, segmentSizeMiB: 1, walvault });
  const db1 = await site.makePrimary('db1');
  await site.archiveNow();
  // from here on the test hands in what the server would
  await db1.query(`ALTER SYSTEM SET archive_command = 'false'`);
  await db1.reload();
  const finish = async (): Promise<string> => {
    await db1.query(`SELECT pg_create_restore_point('something to switch')`);
    return String(await db1.value('SELECT pg_walfile_name(pg_switch_wal())'));
  };
  const hand = (name: string, crashAt?: string) =>
    endOf(path.join(site.state('db1'), 'archive'), [`pg_wal/${name}`, name], {
      cwd: db1.pgdata,
      env: {
        ...db1.env,
        ...(crashAt === undefined ? {} : { ...recordingCrashes(pair.vault), WALVAULT_CRASH_AT: crashAt }),
      },
    });
  const ignored = (): unknown =>
    JSON.parse(readFileSync(path.join(site.state('db1'), 'ignored.json'), 'utf8'));

  await site.vault.goAway();
  await site.ok('archiving', 'off', '--local', '--yes', '--pgdata', db1.pgdata, '--node', 'db1');
  const first = await finish();
  expect((await hand(first, 'ignored-here')).status).toBe(1); // killed by SIGKILL: never above 125
  expect(ignored()).toEqual([{ from: first, to: first }]);
  expect(await hand(first)).toMatchObject({ status: 0 });
  expect(ignored()).toEqual([{ from: first, to: first }]);

  const second = await finish();
  expect(await hand(second)).toMatchObject({ status: 0 });
  expect(ignored()).toEqual([{ from: first, to: second }]);

  await site.vault.comeBack();
  await site.ok('archiving', 'on', '--local', '--pgdata', db1.pgdata, '--node', 'db1');
  const third = await finish();
  expect((await hand(third, 'local-declared')).status).toBe(1);
  expect((await site.status()).gaps).toMatchObject([{ from: first, to: second }]);
  expect(ignored()).toEqual([{ from: first, to: second }]); // not struck off: it is declared once more
  expect(await hand(third)).toMatchObject({ status: 0 });
  expect(await site.status()).toMatchObject({ gaps: [{ from: first, to: second }], lastSegment: third });
  await site.close();
});
