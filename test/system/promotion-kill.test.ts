/**
 * Agent, hook and postmaster killed at each step of a promotion, then everything started again, through `walvault guard`:
 * the target is promoted in the end, and no archived row is missing.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { CRASH_POINTS } from '../../core/work/crash-points.ts';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { isAlive, killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(1);
/** A backup costs about as much as a standby takes to replay the epochs of four promotions. */
const BACKUP_EVERY = 4;
const points = CRASH_POINTS.filter((point) => point.startsWith('promote-') || point.startsWith('open-'));

describe(`a promotion broken off on ${pair.title}`, () => {
  let site: TestSite;
  let primary: string;
  let rows = 0;
  let promotions = 0;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1, walvault: { WALVAULT_OPEN_MAX_WAIT: '5s' } });
    const db1 = await site.makePrimary('db1');
    primary = 'db1';
    await site.backup();
    await db1.query('CREATE TABLE archived (x int)');
  });
  afterAll(() => site.close());

  /** A standby with all that is archived, then 20 more rows and segments that it has not applied yet. */
  async function standbyBehind(node: string, env: NodeJS.ProcessEnv = {}): Promise<TestServer> {
    const server = await site.addStandby(node, { start: false });
    Object.assign(server.env, env);
    await server.start();
    await site.caughtUp(node, primary);
    await server.query('SELECT pg_wal_replay_pause()');
    await site.server(primary).query('INSERT INTO archived SELECT generate_series(1, 20)');
    rows += 20;
    await site.archiveNow(primary);
    await site.server(primary).kill9();
    return server;
  }

  async function startAgain(node: string): Promise<void> {
    const server = site.server(node);
    delete server.env['WALVAULT_CRASH_AT'];
    if (server.pid() !== undefined) await server.kill9();
    await killHard(site.agentPids(node));
    await site.ok('guard', '--pgdata', server.pgdata);
    await server.start();
  }

  async function isPromotedWhole(node: string): Promise<void> {
    await site.promoted(node, 60_000);
    expect(await site.server(node).number('SELECT count(*) FROM archived')).toBe(rows);
    await waitFor(
      'the promotion is open in the vault',
      60_000,
      async () => (await site.status()).trigger === null,
    );
    expect((await site.status()).primary).toBe(node);
    const previous = site.server(primary);
    if (previous.pid() !== undefined) await previous.stop('immediate');
    primary = node;
    await site.server(node).query('INSERT INTO archived VALUES (0)');
    rows++;
    await site.archiveNow(node);
    promotions++;
    if (promotions % BACKUP_EVERY === 0) await site.backup(node);
  }

  test.each(points)('everything killed at %s', async (point) => {
    const node = `after-${point}`;
    await standbyBehind(node, { WALVAULT_CRASH_AT: point });
    const agents = site.agentPids(node);
    expect(agents).not.toEqual([]);
    await site.ok('trigger', 'smart', '--to', node, '--yes', '--no-wait');
    // the agent dies at the point, and again each time a hook starts another; or recovered does
    await waitFor(`the crash at ${point}`, 60_000, () => !agents.some(isAlive));
    await startAgain(node);
    await isPromotedWhole(node);
  });

  test.each(points)('the agent killed at %s, the server stopped by its operator', async (point) => {
    const node = `alone-${point}`;
    const server = await standbyBehind(node, { WALVAULT_CRASH_AT: point });
    const agents = site.agentPids(node);
    expect(agents).not.toEqual([]);
    await site.ok('trigger', 'smart', '--to', node, '--yes', '--no-wait');
    await waitFor(`the crash at ${point}`, 60_000, () => !agents.some(isAlive));
    // an operator's restart without the fault, and without guard: a plain stop where it still runs
    delete server.env['WALVAULT_CRASH_AT'];
    if (server.pid() !== undefined) await server.stop('fast');
    await killHard(site.agentPids(node));
    await site.ok('guard', '--pgdata', server.pgdata);
    await server.start();
    await isPromotedWhole(node);
  });

  test('postmaster killed at random moments of a promotion', async () => {
    for (let round = 0; round < 4; round++) {
      const node = `random-${round}`;
      const server = await standbyBehind(node);
      await site.ok('trigger', 'smart', '--to', node, '--yes', '--no-wait');
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 600));
      if (server.pid() !== undefined) await server.kill9();
      await startAgain(node);
      await isPromotedWhole(node);
    }
  });
});
