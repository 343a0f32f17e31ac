/**
 * Both stacks deployed by the command that a person types, and then the whole of it at work: a real PostgreSQL archives, the relay function
 * runs on the table's stream and fills the other region, a standby follows there, retention deletes, people are told, the region
 * fails over and the rows go the other way, and what is destroyed leaves the data.
 *
 * On the emulator. What it gets wrong (partial failures of a stream, bisecting, KMS, TTL, throttling) is shown by test/lambdas and by the
 * templates: docs/deploying.md says which claim rests on what.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { keys, type WalRow } from '../../core/cluster/facts.ts';
import { after } from '../../core/vault/manifest.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import { segmentEnd } from '../../core/wal/name.ts';
import { CloudSite } from '../harness/cloud-site.ts';
import { REGION } from '../harness/cloud.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import type { Subscription } from '../harness/subscription.ts';
import { missingRows, SteadyWriter } from '../harness/writer.ts';

const CONFIG = 'retention = { keep_backups = 1, pitr_window = "0" }';

describe('two regions on the emulator', () => {
  let site: CloudSite;
  let said: string;
  let db1: TestServer, dr1: TestServer;
  let writer: SteadyWriter;
  let notices: { primary: Subscription; dr: Subscription };
  let arrivals: Subscription;

  beforeAll(async () => {
    Object.assign(process.env, {
      AWS_ACCESS_KEY_ID: 'test',
      AWS_SECRET_ACCESS_KEY: 'test',
      AWS_EC2_METADATA_DISABLED: 'true',
    });
    ({ site, said } = await CloudSite.deploy(
      { pair: { major: 18, vault: 's3' }, segmentSizeMiB: 1 },
      { config: CONFIG },
    ));
    const { cloud } = site;
    notices = {
      primary: await cloud.listen(cloud.topic('notices', 'primary')),
      dr: await cloud.listen(cloud.topic('notices', 'dr')),
    };
    arrivals = await cloud.listen(cloud.topic('arrivals', 'dr'));
  });
  afterAll(() => site?.close());

  /** Until the vault of `to` has all that the other one has now. */
  const relayed = async (to: 'primary' | 'dr') => {
    const from = to === 'dr' ? 'primary' : 'dr';
    const { head } = await site.view(from).heart();
    await waitFor(`${to} holds all up to ${head.lastFile}`, 60_000, async () => {
      const there = (await site.view(to).heart()).head;
      return (
        there.timeline > head.timeline ||
        (there.timeline === head.timeline && (there.lastFile ?? '') >= (head.lastFile ?? ''))
      );
    });
  };
  const wal = (side: 'primary' | 'dr') =>
    site.view(side).withCluster(async ({ vault, partition }) => {
      const rows: WalRow[] = [];
      for await (const row of vault.manifest.query({ pk: partition, from: 'wal#', to: after('wal#') }))
        rows.push(row as unknown as WalRow);
      return rows;
    });

  test('retention of a vault that holds nothing yet comes to its end', async () => {
    expect(await site.cloud.invoke('retention', {})).toEqual({});
  });

  test('the deployment says where the vaults are, and the line to type makes the cluster', async () => {
    expect(said).toContain(`vault      ${site.cloud.url('primary')}\n`);
    expect(said).toContain(`DR vault   ${site.cloud.url('dr')}\n`);
    const line = /^ {2}(walvault init .*)$/m.exec(said)?.[1];
    db1 = await site.makePrimaryBy(line ?? 'no line was printed');
    expect(await site.status()).toMatchObject({
      cluster: 'main',
      primary: 'db1',
      epoch: 1,
      vault: { url: expect.any(String) },
    });
    writer = await SteadyWriter.start(db1);
  });

  test('the relay function runs on the stream: the other region fills, and is told', async () => {
    await site.archiveNow();
    await site.archiveNow();
    const last = await site.archiveNow();
    await waitFor(
      'the other region has the cluster',
      60_000,
      async () => (await site.view('dr').heart()).control.role === 'replica',
    );
    await relayed('dr');
    const there = (await wal('dr')).map(({ sk, sha256 }) => [sk, sha256]); // first: more comes meanwhile
    const here = (await wal('primary')).map(({ sk, sha256 }) => [sk, sha256]);
    expect(there).toEqual(here.slice(0, there.length));
    const told = await arrivals.until(
      `${last} is told`,
      30_000,
      ({ message }) => typeof message === 'object' && String(message['last']) >= last,
    );
    expect(told.attributes).toMatchObject({ kind: 'segments', cluster: 'main' });
  });

  test('a standby of the other region is made from what the relay brought, and follows it', async () => {
    await site.backup();
    await arrivals.until('the backup is told', 60_000, ({ attributes }) => attributes['kind'] === 'backup');
    site.settle('dr1', 'dr');
    dr1 = await site.addStandby('dr1');
    await db1.query('CREATE TABLE seen_there AS SELECT 7 AS x');
    const lsn = String(await db1.value('SELECT pg_current_wal_lsn()'));
    await site.archiveNow();
    await site.replayed('dr1', lsn);
    expect(await dr1.number('SELECT x FROM seen_there')).toBe(7);
  });

  test('retention says what it would do, then does it: the older backup and its WAL go, row and object, and no more', async () => {
    const before = await wal('primary');
    await site.archiveNow();
    await site.backup();
    // what a relay has not got yet is needed, too: where it stands shall not move the cut from one call to the next
    const newest = (await site.status()).backups
      .map(({ startSegment }) => startSegment)
      .sort()
      .at(-1)!;
    await waitFor('the relay is past the start of the newest backup', 60_000, async () => {
      const [row] = await site.view('primary').rows('relay#');
      return parseLsn(String(row?.['lsn'] ?? '0/0')) >= segmentEnd(newest, 1 << 20);
    });
    const { cloud } = site;
    const dry = (await cloud.invoke('retention', { dryRun: true })) as Record<
      string,
      { wal: { rows: number }; cut: string }
    >;
    expect(dry['main']!.wal.rows).toBeGreaterThan(0);
    expect((await wal('primary')).length).toBeGreaterThanOrEqual(before.length);
    const done = (await cloud.invoke('retention', {})) as typeof dry;
    expect(done['main']).toMatchObject({ cut: dry['main']!.cut, wal: { rows: dry['main']!.wal.rows } });
    const rows = await wal('primary');
    expect(rows.some(({ sk }) => sk === before[0]!.sk)).toBe(false);
    const { backups } = await site.status();
    expect(backups.map(({ state }) => state)).toEqual(['complete']);
    // each row that is left has its object, and no object is left without a row
    const objects = await site.view('primary').withCluster(async ({ vault, partition }) => {
      const found: string[] = [];
      for await (const { key } of vault.bucket.list(`${partition}/wal/`)) found.push(key);
      return found;
    });
    expect(rows.every(({ key }) => objects.includes(key))).toBe(true);
    // one that was just stored gets its row in a moment
    await waitFor('each object has a row', 10_000, async () => {
      const named = new Set((await wal('primary')).map(({ key }) => key));
      return objects.every((key) => named.has(key));
    });
    // what is left is enough for a new standby
    await site.addStandby('db2');
    await site.caughtUp('db2');
    expect(await missingRows(site.server('db2'), 10)).toBe(0);
  });

  test('a trigger is told in both regions, once, in words; so is the promotion', async () => {
    await writer.stop();
    await db1.stop('fast');
    await site.trigger('smart', 'db2');
    await site.promoted('db2', 30_000);
    for (const heard of Object.values(notices)) {
      const trigger = await heard.until(
        'the trigger is told',
        60_000,
        ({ attributes }) => attributes['kind'] === 'trigger',
      );
      expect(trigger.subject).toMatch(/main/);
      expect(String(trigger.message)).toContain('db2');
      await heard.until('the promotion is told', 60_000, ({ attributes }) => attributes['kind'] === 'open');
      const all = (await heard.hear()).filter(({ attributes }) => attributes['kind'] === 'trigger');
      expect(all.length).toBe(1);
    }
  });

  test('the new timeline comes to the other region, and its standby goes over to it', async () => {
    await site.server('db2').query('CREATE TABLE of_two AS SELECT 2 AS x');
    const lsn = String(await site.server('db2').value('SELECT pg_current_wal_lsn()'));
    await site.archiveNow('db2');
    await site.replayed('dr1', lsn);
    expect(await dr1.number('SELECT x FROM of_two')).toBe(2);
    await arrivals.until(
      'the history is told',
      60_000,
      ({ attributes, message }) =>
        attributes['kind'] === 'history' && (message as { timeline: number }).timeline === 2,
    );
  });

  test('a look puts the figures and finds nothing wrong', async () => {
    expect(await site.cloud.invoke('notify', { look: true })).toMatchObject({
      main: { archiveWait: 0, relayLag: expect.any(Number) },
    });
  });

  test('failed over to the other region, its own function carries the rows back', async () => {
    await site.server('db2').stop('fast');
    await relayed('dr');
    await site.trigger('smart', 'dr1');
    await site.promoted('dr1', 30_000);
    await dr1.query('CREATE TABLE of_three AS SELECT 3 AS x');
    await site.archiveNow('dr1');
    await waitFor(
      'the first vault is a replica',
      60_000,
      async () => (await site.view('primary').heart()).control.role === 'replica',
    );
    await relayed('primary');
    expect((await site.view('primary').heart()).head.timeline).toBe(
      (await site.view('dr').heart()).head.timeline,
    );
  });

  test('destroyed, nothing but the data is left, and the data is whole', async () => {
    const before = await wal('dr');
    await dr1.stop('fast');
    await site.cloud.cdk('destroy');
    expect(await site.cloud.stack('primary')).toBeUndefined();
    expect(await site.cloud.stack('dr')).toBeUndefined();
    await expect(site.cloud.invoke('retention', {})).rejects.toThrow(/not found/i);
    const rows = await wal('dr');
    expect(rows.length).toBeGreaterThanOrEqual(before.length);
    for (const row of rows)
      expect(await site.view('dr').withCluster(({ vault }) => vault.bucket.get(row.key))).toBeDefined();
    expect(
      await site.view('primary').withCluster(({ vault }) => vault.manifest.get(keys.control('main'))),
    ).toBeDefined();
    expect(REGION.dr).toBe('eu-west-1');
  });
});
