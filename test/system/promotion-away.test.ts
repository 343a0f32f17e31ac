/**
 * The vault away, slow or flapping at each moment of a promotion: the target never opens with archived rows missing.
 * Two triggers at once: one wins.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import type { ProxyMode } from '../harness/proxy.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = pairs.find(({ vault }) => vault === 's3') ?? pairs[0]!;

/** A backup costs about as much as a standby takes to replay the epochs of three promotions. */
const BACKUP_EVERY = 3;

describe(`a promotion with an unsteady vault on ${pair.title}`, () => {
  let site: TestSite;
  let primary = 'db1';
  let rows = 0;
  let number = 1;
  let promotions = 0;

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      walvault: {
        WALVAULT_OPEN_MAX_WAIT: '5s',
        WALVAULT_RESTORE_TIMEOUT: '3s',
        WALVAULT_VAULT_TIMEOUT: '2s',
      },
    });
    const db1 = await site.makePrimary('db1');
    await site.backup();
    await db1.query('CREATE TABLE archived (x int)');
  });
  afterAll(() => site.close());

  /** A standby that has something left to apply when the trigger comes. */
  async function standbyBehind(): Promise<[string, TestServer]> {
    const node = `db${++number}`;
    const server = await site.addStandby(node);
    await site.caughtUp(node, primary);
    await server.query('SELECT pg_wal_replay_pause()');
    for (let segment = 0; segment < 3; segment++) {
      await site.server(primary).query('INSERT INTO archived SELECT generate_series(1, 20)');
      rows += 20;
      await site.archiveNow(primary);
    }
    await site.server(primary).kill9();
    return [node, server];
  }

  /** Open sooner or later, by itself or after a start, and never with a row missing. */
  async function opensWhole(node: string): Promise<void> {
    const server = site.server(node);
    await waitFor(`${node} is open`, 120_000, async () => {
      if (server.pid() === undefined) {
        // silence stopped it: nothing is lost, a start goes on
        await site.ok('guard', '--pgdata', server.pgdata);
        await server.start().catch(() => {});
        return false;
      }
      return !(await server.value('SELECT pg_is_in_recovery()'));
    });
    expect(await server.number('SELECT count(*) FROM archived')).toBe(rows);
    await waitFor(
      'the promotion is open in the vault',
      60_000,
      async () => (await site.status()).trigger === null,
    );
    expect((await site.status()).primary).toBe(node);
    primary = node;
    promotions++;
    if (promotions % BACKUP_EVERY === 0) await site.backup(node);
  }

  const modes: ProxyMode[] = pair.vault === 's3' ? ['refuse', 'hang', 'cut-answer', 'delay'] : ['refuse'];
  const moments = [0, 100, 400];

  test.each(modes.flatMap((mode) => moments.map((after) => [mode, after] as const)))(
    '%s, %i ms after the trigger',
    async (mode, after) => {
      const [node] = await standbyBehind();
      await site.ok('trigger', 'smart', '--to', node, '--yes', '--no-wait');
      await new Promise((resolve) => setTimeout(resolve, after));
      await site.vault.goAway(mode);
      await new Promise((resolve) => setTimeout(resolve, 4_000));
      await site.vault.comeBack();
      await opensWhole(node);
    },
  );

  test('flapping all the while', async () => {
    const [node] = await standbyBehind();
    await site.ok('trigger', 'smart', '--to', node, '--yes', '--no-wait');
    const until = performance.now() + 8_000;
    while (performance.now() < until) {
      await site.vault.goAway(Math.random() < 0.5 ? 'refuse' : 'cut-answer');
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 300));
      await site.vault.comeBack();
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 150));
    }
    await opensWhole(node);
  });

  test('two triggers at once: one wins, the other is told so', async () => {
    const one = `db${++number}`;
    const other = `db${++number}`;
    for (const node of [one, other]) {
      await site.addStandby(node);
      await site.caughtUp(node, primary);
    }
    const { epoch } = await site.status();
    await site.server(primary).kill9();
    const answers = await Promise.all(
      [one, other].map((node) => site.walvault('trigger', 'smart', '--to', node, '--yes', '--no-wait')),
    );
    expect(answers.map(({ status }) => status === 0).sort()).toEqual([false, true]);
    const winner = answers[0]!.status === 0 ? one : other;
    const loser = winner === one ? other : one;
    expect(answers.find(({ status }) => status !== 0)!.stderr).toMatch(/walvault: \[(refused|busy)\]/);
    await opensWhole(winner);
    expect((await site.status()).epoch).toBe(epoch + 1);
    expect(await site.server(loser).value('SELECT pg_is_in_recovery()')).toBe(true);
  });
});
