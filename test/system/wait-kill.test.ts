/**
 * The command, the agent and the server killed at each step of a promotion in wait mode, then started again through `walvault guard`:
 * the target is promoted in the end, and no archived row is missing.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { CRASH_POINTS } from '../../core/work/crash-points.ts';
import { onePair } from '../harness/pairs.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { WaitNode } from '../harness/wait-node.ts';

const pair = onePair(0);
/** promote-signalled is no step of it: nobody asks PostgreSQL to promote. */
const points = CRASH_POINTS.filter(
  (point) => (point.startsWith('promote-') && point !== 'promote-signalled') || point.startsWith('open-'),
);

describe(`a promotion in wait mode broken off on ${pair.title}`, () => {
  let site: TestSite;
  let primary = 'db1';
  let rows = 0;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1, walvault: { WALVAULT_OPEN_MAX_WAIT: '5s' } });
    const db1 = await site.makePrimary('db1');
    await db1.query('CREATE TABLE archived (x int)');
  });
  afterAll(() => site.close());
  beforeEach(() => site.backup(primary));

  async function nodeBehind(name: string, env: NodeJS.ProcessEnv = {}): Promise<WaitNode> {
    const node = await WaitNode.create(site, name, [], false);
    Object.assign(node.server.env, env);
    await node.server.start();
    await site.canBeTarget(name);
    await site.server(primary).query('INSERT INTO archived SELECT generate_series(1, 20)');
    rows += 20;
    await site.archiveNow(primary);
    await site.server(primary).kill9();
    await killHard(site.agentPids(primary));
    return node;
  }

  async function startAgain({ name, server }: WaitNode): Promise<void> {
    delete server.env['WALVAULT_CRASH_AT'];
    if (server.pid() !== undefined) await server.kill9();
    await killHard(site.agentPids(name));
    await site.ok('guard', '--pgdata', server.pgdata);
    await server.start();
  }

  async function isPromotedWhole(name: string): Promise<void> {
    await site.promoted(name, 60_000);
    expect(await site.server(name).number('SELECT count(*) FROM archived')).toBe(rows);
    await waitFor('the promotion is open in the vault', 60_000, async () => {
      const { trigger, primary: named } = await site.status();
      return trigger === null && named === name;
    });
    primary = name;
    await site.archiveNow(name);
  }

  test.each(points)('killed at %s', async (point) => {
    const node = await nodeBehind(`after-${point}`, { WALVAULT_CRASH_AT: point });
    await site.ok('trigger', 'smart', '--to', node.name, '--yes', '--no-wait');
    await waitFor(`the crash at ${point}`, 60_000, () => node.lately().includes('Killed') || isOpen(node));
    await startAgain(node);
    await isPromotedWhole(node.name);
  });

  const isOpen = ({ server }: WaitNode) =>
    server.value('SELECT pg_is_in_recovery()').then(
      (recovering) => recovering === false,
      () => false,
    );

  test('killed when the signal file is gone and the new history is not written: guard puts recovery.signal back', async () => {
    const node = await nodeBehind('half-done');
    const { held, release } = node.holdNode(`[ ! -e '${node.server.pgdata}/recovery.signal' ]`);
    await site.ok('trigger', 'smart', '--to', node.name, '--yes', '--no-wait');
    await waitFor('its parent is asked for', 60_000, held);
    await node.server.kill9();
    release();
    expect(node.traits().signals).toEqual([]);
    const done = JSON.parse(await site.ok('guard', '--pgdata', node.server.pgdata, '--json')) as object;
    expect(done).toMatchObject({ repaired: true });
    expect(node.traits().signals).toEqual(['recovery.signal']);
    await node.server.start();
    await isPromotedWhole(node.name);
  });
});
