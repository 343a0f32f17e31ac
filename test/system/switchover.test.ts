/**
 * Planned changes of roles: nothing that was acknowledged is lost, no base backup and no rewind is needed, and what was broken off
 * goes on or goes back.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite, walvaultFile } from '../harness/site.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';

const pair = onePair(1);

type SwitchedOver = { to: string; state: string; withoutPrimaryMs: number | null; timeline: number };

describe(`switchover on ${pair.title}`, () => {
  let site: TestSite;
  let primary = 'db1';
  let standby = 'db2';
  /** Rows of the table `kept`, each committed and answered. */
  let rows = 0;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1 });
    const db1 = await site.makePrimary('db1');
    await site.backup();
    await site.addStandby('db2');
    await site.addStandby('db3');
    await db1.query('CREATE TABLE kept (x int)');
    await site.caughtUp('db2');
    await site.caughtUp('db3');
  });
  afterAll(() => site.close());

  const server = (node: string): TestServer => site.server(node);
  const words = (from: string, to: string, ...more: string[]) => [
    ...['switchover', '--pgdata', server(from).pgdata, '--node', from, '--to', to, '--yes'],
    ...more,
  ];

  async function write(): Promise<void> {
    await server(primary).query('INSERT INTO kept VALUES (1)');
    rows++;
  }

  /** What a switchover has left: the new primary whole, the old one a standby of it as it is, the third node with them. */
  async function isSwitched(): Promise<void> {
    [primary, standby] = [standby, primary];
    await site.promoted(primary, 30_000);
    expect((await site.status()).primary).toBe(primary);
    expect(await server(primary).number('SELECT count(*) FROM kept')).toBe(rows);
    if (server(standby).pid() === undefined) await server(standby).start();
    await write();
    for (const follower of [standby, 'db3']) {
      await site.caughtUp(follower, primary);
      expect(await server(follower).value('SELECT pg_is_in_recovery()')).toBe(true);
      expect(await server(follower).number('SELECT count(*) FROM kept')).toBe(rows);
    }
  }

  const sum = "SELECT md5(string_agg(id || pad, E'\\n' ORDER BY id)) FROM steady";

  test('under load every transaction that was acknowledged is on the new primary', async () => {
    const writer = await SteadyWriter.start(server('db1'));
    await waitFor('some rows', 10_000, () => writer.acknowledged.length > 200);
    const answer = JSON.parse(await site.ok(...words('db1', 'db2', '--json'))) as SwitchedOver;
    await writer.stop();
    expect(answer).toMatchObject({ to: 'db2', state: 'open', timeline: 2 });
    expect(answer.withoutPrimaryMs).toBeGreaterThan(0);
    expect(answer.withoutPrimaryMs).toBeLessThan(120_000);
    await isSwitched();
    expect(await missingRows(server('db2'), writer.acknowledged.at(-1)!.id)).toBe(0);
    const all = await server('db2').value(sum);
    for (const node of ['db1', 'db3']) expect(await server(node).value(sum)).toBe(all);
  });

  test('there and back ten times, without a base backup', async () => {
    const backups = (await site.status()).backups.length;
    for (let round = 0; round < 10; round++) {
      await write();
      await switchable(standby);
      await site.ok(...words(primary, standby));
      await isSwitched();
    }
    expect((await site.status()).backups).toHaveLength(backups);
    expect((await site.status()).timeline).toBe(12);
  });

  test('a standby made from the backup of before all the switches comes to the head of the live branch', async () => {
    await write();
    const db4 = await site.addStandby('db4');
    await site.caughtUp('db4', primary);
    expect(await db4.number('SELECT count(*) FROM kept')).toBe(rows);
    expect(await db4.value(sum)).toBe(await server(primary).value(sum));
    await db4.stop('fast');
  });

  /** A node that was just the old primary has to say that it is a standby. */
  async function switchable(node: string): Promise<void> {
    await waitFor(`${node} as a standby`, 30_000, async () => {
      const found = (await site.status()).nodes.find(({ name }) => name === node);
      return found?.role === 'standby' && found.trouble === null;
    });
  }

  test.each([
    ['flush-stopped', true],
    ['flush-committed', true],
    ['switchover-flushed', true],
    ['switchover-triggered', false],
  ] as const)('killed at %s: the same command goes on', async (point, before) => {
    await write();
    await switchable(standby);
    expect(await killedAt(point)).toBe('SIGKILL');
    expect((await site.status()).primary === primary).toBe(before);
    await site.ok(...words(primary, standby));
    await isSwitched();
  });

  test('killed before the trigger it can be backed out', async () => {
    await write();
    await switchable(standby);
    expect(await killedAt('switchover-flushed')).toBe('SIGKILL');
    await site.ok('flush', '--undo', '--pgdata', server(primary).pgdata, '--node', primary);
    await server(primary).start();
    await write();
    await site.caughtUp(standby, primary);
    expect(await server(standby).number('SELECT count(*) FROM kept')).toBe(rows);
  });

  test('step by step by hand it is the same', async () => {
    await write();
    await switchable(standby);
    await site.ok('flush', '--pgdata', server(primary).pgdata, '--node', primary, '--yes');
    await site.trigger('smart', standby);
    await isSwitched();
  });

  test('a target that is not there, or is the primary, is refused, and nothing is changed', async () => {
    for (const to of ['db9', primary]) {
      const refused = await site.walvault(...words(primary, to));
      expect(refused.status).toBe(3);
    }
    await write();
  });

  test('a target that does not answer is refused before anything is changed', async () => {
    await switchable(standby);
    await server(standby).stop('fast');
    await waitFor('the end of its agent', 30_000, () => site.agentPids(standby).length === 0);
    const refused = await site.walvault(...words(primary, standby, '--wait', '3s'));
    expect(refused.status).toBe(3);
    expect(refused.stderr).toContain(`${standby} was not heard of for 3 s`);
    expect(refused.stderr).toContain('the server runs and takes connections');
    expect(existsSync(path.join(server(primary).pgdata, 'standby.signal'))).toBe(false);
    await write();
    await server(standby).start();
    await site.caughtUp(standby, primary);
  });

  async function killedAt(point: string): Promise<NodeJS.Signals | null> {
    const child = spawn(walvaultFile, words(primary, standby), {
      env: { ...site.personEnv, WALVAULT_CRASH_AT: point },
      cwd: site.scratch,
      stdio: 'ignore',
    });
    return await new Promise((resolve) => child.on('close', (_, signal) => resolve(signal)));
  }
});
