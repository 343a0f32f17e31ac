/** How long WAL waits on a primary is what its agent says of PostgreSQL's own marks, and what a look at the cluster measures. */
import type { NodeRow } from '../../core/cluster/facts.ts';
import { lookAt } from '../../core/work/look.ts';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { VaultView } from '../harness/vault-view.ts';

const pair = onePair(1);

describe(`WAL that waits on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer;
  let view: VaultView;
  const db1Row = async () => (await view.rows('node#'))[0] as unknown as NodeRow;
  const archiveWait = () =>
    view.withCluster(async (cluster) => {
      const limits = { lagMs: 60_000, archiveMs: 60_000, silenceMs: 60_000 };
      const { figures } = await lookAt(cluster, { limits, destinations: [], now: new Date() });
      return figures.archiveWait;
    });
  const setCommand = async (command: string) => {
    await db1.query(`ALTER SYSTEM SET archive_command = '${command.replaceAll("'", "''")}'`);
    await db1.query('SELECT pg_reload_conf()');
  };

  beforeAll(async () => {
    site = await TestSite.open({ pair, walvault: { WALVAULT_HEARTBEAT_INTERVAL: '1s' } });
    db1 = await site.makePrimary();
    view = new VaultView(site.vault.direct, 'main');
    await db1.query('CREATE TABLE written (x int)');
    await site.archiveNow();
  });
  afterAll(() => site.close());

  test('is none while the archiver goes, counts from the mark of the oldest, and is none again', async () => {
    await db1.allArchived();
    const done = Date.now();
    const beats = new Set<string>();
    // the first one from now on may have looked before
    await waitFor('two heartbeats, and nothing waits', 30_000, async () => {
      const { heartbeatAt, waitingSince } = await db1Row();
      if (heartbeatAt !== null && Date.parse(heartbeatAt) > done) beats.add(heartbeatAt);
      return beats.size > 1 && waitingSince === null;
    });
    expect(await archiveWait()).toBe(0);

    const command = String(await db1.value('SHOW archive_command'));
    await setCommand('false');
    const before = Date.now();
    await db1.query('INSERT INTO written VALUES (1)');
    await db1.query('SELECT pg_switch_wal()');
    const marked = Date.now();
    const since = await waitFor(
      'a heartbeat that says since when',
      30_000,
      async () => (await db1Row()).waitingSince ?? undefined,
    );
    // by the clock of files, which may be a tick behind
    expect(Date.parse(since)).toBeGreaterThanOrEqual(before - 1000);
    expect(Date.parse(since)).toBeLessThanOrEqual(marked);
    await db1.query('INSERT INTO written VALUES (2)');
    await db1.query('SELECT pg_switch_wal()');
    await waitFor('a wait of more than two seconds', 30_000, async () => ((await archiveWait()) ?? 0) > 2);
    expect((await db1Row()).waitingSince).toBe(since);

    await setCommand(command);
    await waitFor('nothing to wait', 90_000, async () => (await archiveWait()) === 0);
  });
});
