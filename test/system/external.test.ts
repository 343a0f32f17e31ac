/**
 * roles = "external": somebody else promotes, the agent claims. What was streamed and never archived comes along, nothing archived is
 * left behind unasked, and of two that are promoted at once one wins.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { parseHistory } from '../../core/wal/history.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import { segmentEnd, segmentStart } from '../../core/wal/name.ts';
import { onePair } from '../harness/pairs.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(1);

describe(`promoted by others, ${pair.title}`, () => {
  let site: TestSite;
  let rows = 0;
  let archiveCommand: unknown;
  const add = async (node: string, count = 100) => {
    await site.server(node).query(`INSERT INTO kept SELECT generate_series(1, ${count})`);
    rows += count;
  };
  const rowsOf = (node: string) => site.server(node).number('SELECT count(*) FROM kept');
  const troubleOf = async (node: string) =>
    (await site.status()).nodes.find(({ name }) => name === node)?.trouble ?? '';
  /** From now on no file comes from the vault: what restore_command asks for now was answered, and the next one is false. */
  const cutOff = async (node: string) => {
    const standby = site.server(node);
    await standby.query(`ALTER SYSTEM SET restore_command = 'false'`);
    await standby.query('SELECT pg_reload_conf()');
    await waitFor(`${node} is cut off`, 20_000, async () =>
      Boolean(
        await standby.value(
          `SELECT current_setting('restore_command') = 'false' AND wait_event = 'RecoveryRetrieveRetryInterval'
           FROM pg_stat_activity WHERE backend_type = 'startup'`,
        ),
      ),
    );
  };
  const isPrimary = (node: string, epoch: number) =>
    waitFor(`${node} is the primary of epoch ${epoch}`, 60_000, async () => {
      const status = await site.status();
      return status.primary === node && status.epoch === epoch && status.trigger === null;
    });

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      segmentSizeMiB: 1,
      walvault: { WALVAULT_ROLES: 'external', WALVAULT_HEARTBEAT_INTERVAL: '1s' },
    });
    const db1 = await site.makePrimary('db1');
    await site.backup();
    const conninfo = `host=${site.scratch}/s port=${db1.port} user=postgres`;
    await site.addStandby('db2', { settings: { primary_conninfo: conninfo } });
    for (const node of ['db3', 'db4']) await site.addStandby(node);
    await db1.query('CREATE TABLE kept (x int)');
    for (const node of ['db2', 'db3', 'db4']) await site.caughtUp(node);
    await waitFor(
      'a stream',
      60_000,
      async () => (await db1.number('SELECT count(*) FROM pg_stat_replication')) === 1,
    );
  });
  afterAll(() => site.close());

  test('pg_promote: claims, fills what was streamed and never archived, archives on, and the others follow', async () => {
    const db1 = site.server('db1');
    archiveCommand = await db1.value('SHOW archive_command');
    await db1.allArchived(); // a hook that loses its agent starts another one, which would push ahead
    await db1.query(`ALTER SYSTEM SET archive_command = 'false'`);
    await db1.query('SELECT pg_reload_conf()');
    await killHard(site.agentPids('db1'));
    const { lastSegment } = await site.status();
    for (let round = 0; round < 3; round++) {
      await add('db1');
      await db1.query('SELECT pg_switch_wal()');
    }
    await add('db1');
    await site.replayed('db2', String(await db1.value('SELECT pg_current_wal_lsn()')));
    expect((await site.status()).lastSegment).toBe(lastSegment);
    await db1.kill9();

    await site.server('db2').query('SELECT pg_promote()');
    await isPrimary('db2', 2);
    expect(await rowsOf('db2')).toBe(rows);
    await add('db2');
    for (const node of ['db3', 'db4']) {
      await site.caughtUp(node, 'db2');
      expect(await rowsOf(node)).toBe(rows);
    }
    expect(await site.server('db2').number('SELECT failed_count FROM pg_stat_archiver')).toBe(0);
    expect(await site.events('claim')).toEqual([
      expect.stringMatching(/db2 claimed epoch 2 on timeline 2 \(was db1, epoch 1\), by its agent/),
    ]);
  });

  test('the old primary, started again, is refused and claims nothing back', async () => {
    const db1 = site.server('db1');
    await db1.start();
    await db1.query(`ALTER SYSTEM SET archive_command = '${String(archiveCommand).replaceAll("'", "''")}'`);
    await db1.query('SELECT pg_reload_conf()');
    await waitFor('db1 is told', 60_000, async () =>
      /not the primary of this vault: db2/.test(await troubleOf('db1')),
    );
    await site.archiveNow('db2');
    expect(await site.status()).toMatchObject({ epoch: 2, primary: 'db2' });
    await db1.stop('immediate');
  });

  test('forked before the end of the vault: not claimed, and told with what would be lost', async () => {
    const db3 = site.server('db3');
    // as a standby that is cut off from its vault: a pause of replay would not do, a promotion asks for all the rest
    await cutOff('db3');
    for (let round = 0; round < 3; round++) {
      await add('db2');
      await site.archiveNow('db2');
    }
    await site.caughtUp('db4', 'db2');
    expect(await db3.value('SELECT pg_last_wal_replay_lsn()')).not.toBe(
      await site.server('db4').value('SELECT pg_last_wal_replay_lsn()'),
    );
    await db3.promoteByHand();
    await waitFor('db3 is told', 60_000, async () =>
      /db3 was promoted outside of walvault and is not claimed: .* which would be lost/.test(
        await troubleOf('db3'),
      ),
    );
    await site.archiveNow('db2');
    expect(await site.status()).toMatchObject({ epoch: 2, primary: 'db2' });
    expect((await site.events('fenced')).join('\n')).toMatch(/db3 was promoted .* would be lost/);
    await db3.stop('immediate');
  });

  test('two promoted at once, their segments ending in half a record: one wins, the other is told', async () => {
    await site.backup('db2');
    await site.addStandby('db5');
    await site.caughtUp('db5', 'db2');
    // segments that are filled, not switched, by records too long to end just at their borders
    await site
      .server('db2')
      .query(
        `SELECT count(pg_logical_emit_message(true, 'fill', repeat('x', 300000))) FROM generate_series(1, 20)`,
      );
    const end = String(await site.server('db2').value('SELECT pg_walfile_name(pg_current_wal_insert_lsn())'));
    const last =
      end.slice(0, 16) + (Number.parseInt(end.slice(16), 16) - 1).toString(16).toUpperCase().padStart(8, '0');
    await site.holds(last);
    await site.server('db2').kill9();
    // At once means: neither knows of the other. Cut off from the vault once both have replayed all of it: one that finds the claim of the
    // other goes over to its timeline, and its own promotion is then a second one after it.
    for (const node of ['db4', 'db5']) {
      const standby = site.server(node);
      await waitFor(`${node} has replayed into ${last}`, 60_000, async () => {
        const at = parseLsn(String(await standby.value('SELECT pg_last_wal_replay_lsn()')));
        return at > segmentStart(last, 1 << 20);
      });
      await cutOff(node);
    }
    await Promise.all(['db4', 'db5'].map((node) => site.server(node).promoteByHand()));
    const primary = await waitFor('one has claimed', 60_000, async () => {
      const status = await site.status();
      return status.epoch === 3 && status.trigger === null && status.primary;
    });
    const winner = site.server(String(primary));
    const history = readFileSync(path.join(winner.pgdata, 'pg_wal/00000003.history'), 'utf8');
    const fork = parseHistory(history).at(-1)!.forkLsn;
    expect(fork).toBeLessThan(segmentEnd(last, 1 << 20)); // what is archived goes on past the fork, by half a record
    const other = primary === 'db4' ? 'db5' : 'db4';
    await waitFor(`${other} is told`, 60_000, async () =>
      new RegExp(`${other} was promoted outside of walvault and is not claimed`).test(await troubleOf(other)),
    );
    await site.archiveNow(String(primary));
    expect(await site.status()).toMatchObject({ epoch: 3, primary });
    expect(await site.events('claim')).toHaveLength(2);
    expect(await rowsOf(String(primary))).toBe(rows);
  });
});
