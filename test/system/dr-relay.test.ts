/**
 * `walvault relay`: killed anywhere, twice at once, without its target for an hour of segments, refused where two vaults hold different
 * bytes under one name; and what becomes of those who follow a replica meanwhile.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { keys, type WalRow } from '../../core/cluster/facts.ts';
import { asRow, type Cluster } from '../../core/work/cluster.ts';
import type { OtherVault } from '../../core/work/other-vaults.ts';
import type { Status } from '../../core/work/status.ts';
import { fetchFile, storeFile } from '../../core/work/store-file.ts';
import { DrSite } from '../harness/dr-site.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { expectSound, holdings } from '../harness/two-vaults.ts';
import { VaultView } from '../harness/vault-view.ts';
import type { RunningCommand } from '../harness/walvault-command.ts';
import { missingRows, SteadyWriter, tableSum } from '../harness/writer.ts';

/** A segment a minute is sixty an hour on a quiet server; this one is not quiet. */
const HOUR_OF_SEGMENTS = 120;

/** Of a command with --json that failed. */
const errorOf = (stderr: string): unknown => (JSON.parse(stderr) as { error: unknown }).error;

describe.each(pairs)('relay on $title', (pair) => {
  let site: DrSite;
  let A: VaultView, B: VaultView, C: VaultView;
  let db1: TestServer, db2: TestServer, dr1: TestServer;

  beforeAll(async () => {
    site = await DrSite.open({
      // no segment but those that a test ends: it counts them
      ...{ pair, segmentSizeMiB: 1, settings: { archive_timeout: '1h' } },
      walvault: { WALVAULT_ARCHIVE_TIMEOUT: '5s', WALVAULT_VAULT_TIMEOUT: '2s' },
    });
    [A, B] = [site.view('A'), site.view('B')];
    C = new VaultView(pathToFileURL(path.join(site.scratch, 'C')).href, site.cluster);
    db1 = await site.makePrimary('db1');
    await db1.query('CREATE TABLE marks (x int)');
    await site.backup();
  });
  afterAll(() => site.close());

  /** Ends `count` segments, and waits until A has them. @returns the last of them */
  async function fill(count: number, node = 'db1'): Promise<string> {
    const [last] = await site.server(node).query<{ name: string }>(
      `SELECT pg_walfile_name(max(lsn)) AS name
       FROM (SELECT pg_logical_emit_message(false, 'fill', 'x') AS lsn, pg_switch_wal() FROM generate_series(1, ${count})) AS each`,
    );
    await site.holds(last!.name, 120_000, node);
    return last!.name;
  }

  /** One pass as a process of its own, e.g. to be killed. */
  const startPass = (env: NodeJS.ProcessEnv, ...args: string[]): RunningCommand =>
    site.startAt('relay', ['relay', ...ends(), '--json', ...args], env);
  const ends = (from = site.url('A', 'relay'), to = site.url('B', 'relay')): string[] => [
    ...['--from', from, '--to', to, '--cluster', site.cluster],
  ];

  async function pass(...args: string[]): Promise<Record<string, unknown>> {
    const { status, stdout, stderr } = await site.relayOnce({}, ...args);
    expect({ status, stderr: status === 0 ? '' : stderr }).toEqual({ status: 0, stderr: '' });
    return JSON.parse(stdout) as Record<string, unknown>;
  }

  const read = new Map<VaultView, Set<string>>();
  /** No hole up to the head, and each object that was not read before is what its row says. */
  async function isSound(view: VaultView): Promise<void> {
    if (!read.has(view)) read.set(view, new Set());
    await view.withCluster((cluster) => expectSound(cluster, read.get(view)));
    const { lastFile } = (await view.heart()).head;
    expect([...(await view.contents()).wal.keys()]).toContain(lastFile);
  }

  /** The same files with the same bytes in both, each object read and held against its row. */
  async function expectLevel(from = A, to = B): Promise<void> {
    expect(await to.withCluster(holdings)).toEqual(await from.withCluster(holdings));
    await isSound(to);
    expect(position(await to.heart())).toEqual(position(await from.heart()));
  }
  const position = ({ control, head }: Awaited<ReturnType<VaultView['heart']>>) => ({
    ...{ epoch: control.epoch, primary: control.primary, timeline: head.timeline, lsn: head.lsn },
    ...{ lastFile: head.lastFile, firstLsn: head.firstLsn },
  });

  const statusOf = async (vault: 'A' | 'B') =>
    (await site.statusOf(vault)) as Status & { others: OtherVault[] };

  test('--dry-run says what a pass would bring, and makes nothing', async () => {
    await fill(5);
    const rows = (await A.contents()).wal.size;
    const plan = await pass('--dry-run');
    expect(plan).toMatchObject({ would: 'make', backups: [{ id: expect.any(String) }] });
    // the row of the backup history file is none of the lag
    expect(plan).toMatchObject({ lag: { rows: rows - 1 } });
    expect((await site.walvault('status', '--vault', site.url('B'))).status).toBe(67);
  });

  test('one pass makes the replica, says what it brought, and both vaults are level; the next one brings nothing', async () => {
    const { wal } = await A.contents();
    const { id } = (await statusOf('A')).backups[0]!;
    const first = await pass();
    expect(first).toMatchObject({ rows: wal.size, backups: [id], timelines: [], epoch: 1, timeline: 1 });
    expect(first).toMatchObject({ lsn: (await A.heart()).head.lsn, lag: { rows: 0, bytes: 0, seconds: 0 } });
    expect(first['bytes']).toBeGreaterThan(0);
    await expectLevel();
    expect(await pass('--dry-run')).toMatchObject({ would: 'relay', lag: { rows: 0 }, backups: [] });
    expect(await pass('--sweep')).toMatchObject({ rows: 0, bytes: 0, backups: [] });
  });

  test('a standby is made of the replica alone, with the source away', async () => {
    site.cut('A');
    dr1 = await site.addDrStandby('dr1');
    expect(await dr1.value('SELECT pg_is_in_recovery()')).toBe(true);
    expect(await dr1.number('SELECT count(*) FROM marks')).toBe(0);
    site.mend('A');
  });

  /** All that ever happened on the primary has come to dr1, through A and B. */
  async function comesThrough(node = 'dr1', primary = 'db1'): Promise<void> {
    await site.server(primary).query('INSERT INTO marks VALUES (1)');
    const lsn = String(await site.server(primary).value('SELECT pg_current_wal_lsn()'));
    await site.archiveNow(primary);
    await pass();
    await site.replayed(node, lsn);
    expect(await site.server(node).number('SELECT count(*) FROM marks')).toBe(
      await site.server(primary).number('SELECT count(*) FROM marks'),
    );
  }

  /** @returns what the next pass brings */
  async function killedAt(point: string): Promise<Record<string, unknown>> {
    expect(await startPass({ WALVAULT_CRASH_AT: point }).end(60_000)).toBe('SIGKILL');
    await isSound(B);
    const next = await pass();
    await expectLevel();
    return next;
  }

  test.each([
    ['relay-copied', 35],
    ['relay-committed', 7],
  ] as const)(
    'killed at %s: no hole and nothing untrue in the replica, and the same command goes on',
    async (point, missing) => {
      await fill(35);
      expect(await killedAt(point)).toMatchObject({ rows: missing, backups: [] });
      await comesThrough();
    },
  );

  test('Ctrl-C in the middle: it ends in order and says so, what it brought stays, the same command goes on', async () => {
    await fill(140); // five transactions: it must not be through before it is seen to have begun
    const before = (await B.heart()).head.lastFile!;
    const broken = startPass({ WALVAULT_UPLOAD_PARALLEL: '1' });
    await waitFor('its first rows', 60_000, async () => (await B.heart()).head.lastFile! > before);
    process.kill(broken.pid, 'SIGINT');
    expect(await broken.end()).toBe(3);
    expect(errorOf(broken.stderr)).toMatchObject({
      ...{ code: 'refused', message: 'the relay was broken off' },
      hint: expect.stringContaining('the same command goes on'),
    });
    const { lastFile } = (await B.heart()).head;
    expect(lastFile! > before).toBe(true);
    expect(lastFile! < (await A.heart()).head.lastFile!).toBe(true);
    expect((await pass())['rows']).toBeGreaterThan(0);
    await expectLevel();
  });

  test('two that stay, at once and under load, do no harm: neither ends, and every row comes through once', async () => {
    const writer = await SteadyWriter.start(db1);
    const relays = [1, 2].map(() => site.startRelay({}, { args: ['--interval', '100ms'] }));
    const begin = Number.parseInt((await B.heart()).head.lastFile!.slice(16), 16);
    await waitFor('twenty segments more in B', 120_000, async () => {
      await db1.query('SELECT pg_switch_wal()');
      return Number.parseInt((await B.heart()).head.lastFile!.slice(16), 16) >= begin + 20;
    });
    await writer.stop();
    await site.archiveNow();
    await site.relayed();
    expect(relays.map(({ ended }) => ended)).toEqual([undefined, undefined]);
    expect(await Promise.all(relays.map((relay) => relay.stop()))).toEqual([0, 0]);
    await expectLevel();
    await comesThrough();
    expect(await tableSum(dr1)).toEqual(await tableSum(db1));
    expect(await missingRows(dr1, writer.acknowledged.at(-1)!.id)).toBe(0);
  });

  test(`the replica away for ${HOUR_OF_SEGMENTS} segments: archiving goes on, A tells the lag, and all of it comes when it is back`, async () => {
    const relay = site.startRelay({}, { args: ['--interval', '200ms'] });
    await waitFor('its first pass', 30_000, () => relay.said.length > 0);
    const behind = (await A.heart()).head.lastFile!;
    site.cut('B');
    await fill(HOUR_OF_SEGMENTS);
    const away = await waitFor('A says that B is away', 60_000, async () => {
      const seen = await statusOf('A');
      return /^(unreachable|unconfigured): /.test(seen.relays[0]?.trouble ?? '') && seen;
    });
    expect(away.relays).toMatchObject([
      { direction: 'to', rows: HOUR_OF_SEGMENTS, bytes: expect.any(Number) },
    ]);
    expect(away.relays[0]!.bytes).toBeGreaterThan(0);
    expect(away.others).toMatchObject([{ reachable: false }]);
    expect(relay.ended).toBeUndefined();
    site.mend('B');
    expect((await B.heart()).head.lastFile).toBe(behind);
    await site.relayed();
    const back = await waitFor('nothing is behind', 60_000, async () => {
      const seen = await statusOf('A');
      return seen.relays[0]?.trouble === null && seen.relays[0].rows === 0 && seen;
    });
    expect(back.others).toMatchObject([{ reachable: true, lastSegment: (await A.heart()).head.lastFile }]);
    expect(await relay.stop()).toBe(0);
    await expectLevel();
    await comesThrough();
  });

  describe('different bytes under one name', () => {
    let next: string;

    /** B holds, under this name, what a server with another past would have written. */
    async function plant(name: string): Promise<void> {
      const row = (await A.contents()).wal.get(name)!;
      const bytes = await A.withCluster((cluster) => fetchFile(cluster, row));
      bytes.fill(0xab, bytes.length - 8192);
      await B.withCluster(async (cluster) => {
        const { archivedAt, ...stored } = (await storeFile(
          cluster,
          { node: 'db1', epoch: 1 },
          { name, bytes },
        )) as Exclude<Awaited<ReturnType<typeof storeFile>>, 'same'>;
        const { key, sha256, sizeBytes, storedBytes } = stored;
        const facts = { key, sha256, sizeBytes, storedBytes, archivedAt, compression: 'zstd', node: 'db1' };
        const put = { ...keys.wal(cluster.partition, name), rev: 1, epoch: 1, ...facts };
        await cluster.vault.manifest.transact([{ do: 'put', row: asRow(put), when: 'absent' }]);
      });
    }
    const remove = async (name: string): Promise<WalRow> => {
      const row = (await B.contents()).wal.get(name)!;
      await B.withCluster(({ vault, partition }: Cluster) =>
        vault.manifest.transact([{ do: 'delete', key: keys.wal(partition, name), when: 'present' }]),
      );
      return row;
    };

    async function isRefused(name: string, ...args: string[]): Promise<void> {
      const before = [await A.withCluster(holdings), await B.withCluster(holdings), (await B.heart()).head];
      const events = (await A.events('conflict')).length;
      const refused = await site.relayOnce({}, ...args);
      expect(refused.status).toBe(65);
      expect(errorOf(refused.stderr)).toMatchObject({
        ...{ code: 'conflict', message: expect.stringMatching(`hold different bytes under ${name}$`) },
        hint: expect.stringContaining('nothing was changed'),
      });
      const after = [await A.withCluster(holdings), await B.withCluster(holdings), (await B.heart()).head];
      expect(after).toEqual(before);
      for (const vault of ['A', 'B'] as const) {
        const seen = await statusOf(vault);
        expect(seen.relays).toMatchObject([{ trouble: expect.stringMatching(`^conflict: .*${name}$`) }]);
        const said = await site.view(vault).events('conflict');
        expect(said).toHaveLength(events + 1);
        expect(said.at(-1)).toContain(name);
      }
    }

    test('in the way of the relay: refused and said in both vaults, nothing is changed', async () => {
      next = await fill(3);
      const name = `${next.slice(0, 16)}${(Number.parseInt(next.slice(16), 16) - 1).toString(16).toUpperCase().padStart(8, '0')}`;
      await plant(name);
      await isRefused(name);
      await remove(name);
      await pass();
      await expectLevel();
      for (const vault of ['A', 'B'] as const)
        expect((await statusOf(vault)).relays).toMatchObject([{ trouble: null, rows: 0 }]);
    });

    test('among the rows that are there already: found by a sweep, and by a relay that stays', async () => {
      const row = await remove(next);
      await plant(next);
      expect(await pass()).toMatchObject({ rows: 0 });
      await isRefused(next, '--sweep');
      const relay = site.startRelay();
      await waitFor('its word', 30_000, () => relay.stderr.includes(`different bytes under ${next}`));
      expect(relay.ended).toBeUndefined();
      await remove(next);
      await B.withCluster(({ vault }) =>
        vault.manifest.transact([{ do: 'put', row: asRow(row), when: 'absent' }]),
      );
      await waitFor('the end of the trouble', 60_000, async () => {
        return (await statusOf('A')).relays[0]?.trouble === null;
      });
      expect(await relay.stop()).toBe(0);
      await expectLevel();
    });
  });

  test('killed at relay-backup: the replica says nothing of a backup before all of it is there', async () => {
    await site.backup();
    expect(await killedAt('relay-backup')).toMatchObject({ rows: 0, backups: [expect.any(String)] });
    expect((await statusOf('B')).backups).toEqual((await statusOf('A')).backups);
  });

  test('a chain A to B to C: the last vault has the same bytes, and a standby of it the same rows', async () => {
    const answer = await site.walvaultAt('relay', 'relay', ...ends(site.url('B', 'relay'), C.url), '--json');
    expect(answer).toMatchObject({ status: 0 });
    await expectLevel(A, C);
    expect(await C.heart()).toMatchObject({ control: { role: 'replica', primary: 'db1' } });
    const dr2 = await site.addStandby('dr2', { args: ['--vault', C.url] });
    await comesThrough();
    const lsn = String(await dr1.value('SELECT pg_last_wal_replay_lsn()'));
    await site.okAt('relay', 'relay', ...ends(site.url('B', 'relay'), C.url));
    await site.replayed('dr2', lsn);
    expect(await tableSum(dr2)).toEqual(await tableSum(db1));
  });

  test('several replicas of one vault: it tells the lag of each', async () => {
    const url = pathToFileURL(path.join(site.scratch, 'D')).href;
    await site.okAt('relay', 'relay', ...ends(site.url('A', 'relay'), url));
    await fill(2);
    await pass();
    const { relays } = await statusOf('A');
    expect(relays.find(({ vault }) => vault.url === url)).toMatchObject({ direction: 'to', rows: 2 });
    expect(relays.find(({ vault }) => vault.url === site.url('B', 'relay'))).toMatchObject({ rows: 0 });
    await expectLevel();
  });

  describe('a new timeline', () => {
    /** dr1 stops and starts while the replica is as it is: it may wait, and never opens. */
    async function restarts(): Promise<void> {
      await dr1.stop('fast');
      await dr1.start();
      expect(await dr1.value('SELECT pg_is_in_recovery()')).toBe(true);
    }

    test('killed between its history and its first row, with the DR node restarted each time: it follows all the same', async () => {
      db2 = await site.addStandby('db2');
      await site.caughtUp('db2');
      await pass();
      await db1.kill9();
      await site.trigger('smart', 'db2');
      await site.promoted('db2', 30_000);
      await db2.query('INSERT INTO marks VALUES (2)');
      await fill(3, 'db2');
      expect((await A.heart()).head.timeline).toBe(2);
      expect((await B.heart()).head.timeline).toBe(1);

      expect(await startPass({ WALVAULT_CRASH_AT: 'relay-history' }).end()).toBe('SIGKILL');
      expect(await B.heart()).toMatchObject({ control: { epoch: 2, primary: 'db2' }, head: { timeline: 1 } });
      await isSound(B);
      await restarts();

      expect(await startPass({ WALVAULT_CRASH_AT: 'relay-copied' }).end()).toBe('SIGKILL');
      expect((await B.heart()).head.timeline).toBe(2);
      expect([...(await B.contents()).wal.keys()].filter((name) => name.startsWith('00000002'))).toEqual([]);
      await isSound(B);
      await restarts();

      await pass();
      await expectLevel();
      await comesThrough('dr1', 'db2');
      expect(await tableSum(dr1)).toEqual(await tableSum(db2));
    });

    test('the chain carries it on', async () => {
      await site.okAt('relay', 'relay', ...ends(site.url('B', 'relay'), C.url));
      await expectLevel(A, C);
      await site.replayed('dr2', String(await dr1.value('SELECT pg_last_wal_replay_lsn()')));
      expect(await tableSum(site.server('dr2'))).toEqual(await tableSum(db2));
    });
  });
});
