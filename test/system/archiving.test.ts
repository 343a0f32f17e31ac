/**
 * Archiving off and on around writes, on real servers: the gap is just what was ignored, and nobody passes it unseen.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync, readFileSync, renameSync } from 'node:fs';
import path from 'node:path';
import { gapOf } from '../../core/cluster/gaps.ts';
import { nextSegment, segmentStart } from '../../core/wal/name.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import type { LocalStatus } from '../../core/work/archiving.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const MiB = 1 << 20;

describe.each(pairs)('archiving off and on: $title', (pair) => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer, db3: TestServer;
  /** Every segment that was ignored so far, in order. */
  const ignored: string[] = [];
  let backupBefore = '';
  let rows = 0;

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      segmentSizeMiB: 1,
      settings: { archive_timeout: '1h' }, // each segment that is ended is one of the test's
      walvault: {
        WALVAULT_HEARTBEAT_INTERVAL: '1s',
        WALVAULT_RESTORE_TIMEOUT: '3s',
      },
    });
    db1 = await site.makePrimary('db1');
    await db1.query('CREATE TABLE written (x int)');
    await site.backup();
    db2 = await site.addStandby('db2');
    db3 = await site.addStandby('db3', { start: false });
    await write();
    await site.caughtUp('db2');
    backupBefore = (await site.status()).backups[0]!.id;
  });
  afterAll(() => site.close());

  async function write(): Promise<void> {
    await db1.query('INSERT INTO written VALUES ($1)', [rows++]);
  }

  /** Writes and ends `count` segments, and waits until PostgreSQL takes all of them for archived. @returns their names */
  async function writeSegments(count: number): Promise<string[]> {
    const names: string[] = [];
    for (let segment = 0; segment < count; segment++) {
      await write();
      names.push(String(await db1.value('SELECT pg_walfile_name(pg_current_wal_insert_lsn())')));
      await db1.query('SELECT pg_switch_wal()');
    }
    await db1.allArchived();
    return names;
  }

  /** The server's log says of each that it was ignored; archive_command never failed; the vault has none of them, and a gap of just these. */
  async function areLost(names: readonly string[]): Promise<void> {
    const log = readFileSync(db1.logFile, 'utf8');
    for (const name of names)
      expect(log).toMatch(
        new RegExp(`archiving not active: ignoring pg_wal/${name} \\(would be stored as \\S+${name}\\S*\\)`),
      );
    expect(await db1.number('SELECT failed_count FROM pg_stat_archiver')).toBe(0);
    ignored.push(...names);
    const { wal } = await site.contents();
    expect(ignored.filter((name) => wal.has(name))).toEqual([]);
    const { gaps } = await site.status();
    const declared: string[] = [];
    for (const { from, to } of gaps)
      for (let name = from; name <= to; name = nextSegment(name, MiB)) declared.push(name);
    expect(declared).toEqual(ignored);
  }

  test('what is ignored is declared, each segment and none else, and PostgreSQL never hears of a failure', async () => {
    const before = await writeSegments(2);
    expect(await site.ok('archiving', 'off', '--yes')).toContain('is off');
    const lost = await writeSegments(12);
    expect((await site.status()).archiving).toBe(false);
    await areLost(lost);
    expect((await site.contents()).wal.has(before[1]!)).toBe(true);
    expect(await site.events('archiving-off')).toHaveLength(1);
    expect(await site.events('gap')).toHaveLength(1);
  });

  test('while it is off neither a backup nor a flush is taken', async () => {
    const backup = await site.walvault('backup', '--pgdata', db1.pgdata, '--node', 'db1');
    expect([backup.status, backup.stderr]).toEqual([3, expect.stringContaining('archiving is off')]);
    const flush = await site.walvault('flush', '--pgdata', db1.pgdata, '--node', 'db1', '--yes');
    expect([flush.status, flush.stderr]).toEqual([3, expect.stringContaining('archiving is off')]);
    expect(await db1.number('SELECT 1')).toBe(1);
  });

  test('switched on again it archives from the next segment on, and says that a base backup is needed', async () => {
    const answer = await site.walvault('archiving', 'on', '--pgdata', db1.pgdata);
    expect([answer.status, answer.stderr]).toEqual([0, expect.stringContaining('walvault backup')]);
    const kept = await writeSegments(3);
    const { wal } = await site.contents();
    expect(kept.filter((name) => !wal.has(name))).toEqual([]);
    await areLost([]);
    const { backupNeeded } = await site.status();
    expect(backupNeeded).toMatchObject({ from: ignored[0], to: ignored.at(-1) });
    expect(await site.ok('status')).toContain('A NEW ONE IS NEEDED');
  });

  test('a standby that follows stays before the gap, and says so', async () => {
    await waitFor('db2 says why it does not go on', 60_000, () =>
      /cannot be restored: it lies in a declared gap/.test(readFileSync(db2.logFile, 'utf8')),
    );
    await waitFor('status says it as well', 30_000, async () => {
      const db2Now = (await site.status()).nodes.find(({ name }) => name === 'db2');
      return db2Now?.trouble?.includes('stands before a declared gap') === true;
    });
    const replayed = parseLsn(String(await db2.value('SELECT pg_last_wal_replay_lsn()')));
    expect(replayed <= segmentStart(ignored[0]!, MiB)).toBe(true);
    expect(await db2.value('SELECT pg_is_in_recovery()')).toBe(true);
  });

  test('archive recovery over the gap is stopped with its reason, and never opens', async () => {
    renameSync(path.join(db3.pgdata, 'standby.signal'), path.join(db3.pgdata, 'recovery.signal'));
    await db3.start({ timeoutS: 90 }).catch(() => {});
    await db3.ended(60_000);
    expect(readFileSync(db3.logFile, 'utf8')).toMatch(
      /\[unsafe\] \S+ cannot be restored: it lies in a declared gap/,
    );
    expect(existsSync(path.join(db3.pgdata, 'recovery.signal'))).toBe(true);
  });

  test('no standby is made over the gap, and no trigger names one that stands before it', async () => {
    const db4 = site.declare('db4');
    const made = await site.walvault('standby', 'create', '--pgdata', db4.pgdata, '--node', 'db4');
    expect([made.status, made.stderr]).toEqual([3, expect.stringContaining('before a declared gap')]);
    expect(existsSync(path.join(db4.pgdata, 'PG_VERSION'))).toBe(false);
    const triggered = await site.walvault('trigger', 'smart', '--to', 'db2', '--yes');
    expect([triggered.status, triggered.stderr]).toEqual([
      3,
      expect.stringMatching(/stands before a declared gap[^]*--accept-gap/),
    ]);
    expect((await site.status()).epoch).toBe(1);
  });

  test('retention and status agree on which backup leads to the live end', async () => {
    const verdict = async (id: string): Promise<string | undefined> => {
      const report = JSON.parse(await site.ok('retention', '--dry-run', '--json')) as {
        backups: { id: string; why: string }[];
      };
      return report.backups.find((one) => one.id === id)?.why;
    };
    expect(await verdict(backupBefore)).toContain('a gap cuts it from the live end');
    await site.backup();
    const seen = await site.status();
    expect(seen.backupNeeded).toBeNull();
    expect(await verdict(seen.backups.find(({ id }) => id !== backupBefore)!.id)).not.toContain('gap');
    const db5 = await site.addStandby('db5');
    await site.caughtUp('db5');
    expect(await db5.number('SELECT count(*) FROM written')).toBe(rows);
    await db5.stop('fast');
    await site.ok('node', 'drop', 'db5', '--yes').catch(() => {});
  });

  test('with the vault away, off --local lets pg_wal go at once, and all of it is declared when the vault is back', async () => {
    await site.vault.goAway();
    const at = ['--pgdata', db1.pgdata];
    await site.ok('archiving', 'off', '--local', '--yes', ...at);
    const lost = await writeSegments(6);
    const during = JSON.parse(await site.ok('archiving', 'status', '--json', ...at)) as {
      vault: null;
      local: LocalStatus;
    };
    expect(during.vault).toBeNull();
    expect(during.local.off).toBe(true);
    expect(lost.map((name) => gapOf(during.local.undeclared, name) !== undefined)).toEqual(
      lost.map(() => true),
    );
    await site.vault.comeBack();
    const local = async (): Promise<LocalStatus> =>
      (JSON.parse(await site.ok('archiving', 'status', '--json', ...at)) as { local: LocalStatus }).local;
    await waitFor('all is declared', 60_000, async () => (await local()).undeclared.length === 0);
    await areLost(lost);
    await waitFor('the node says that it is off here', 30_000, async () =>
      Boolean((await site.status()).nodes.find(({ name }) => name === 'db1')?.trouble?.includes('--local')),
    );
    await site.ok('archiving', 'on', '--local', ...at);
    const kept = await writeSegments(2);
    await site.holds(kept[1]!);
    await areLost([]);
    expect((await site.status()).archiving).toBe(true);
  });

  test('without an agent a hook does the same, off, on, and off by its node alone', async () => {
    await site.ok('configure', 'primary', '--pgdata', db1.pgdata, '--node', 'db1', '--agent', 'off');
    await site.ok('archiving', 'off', '--yes');
    await areLost(await writeSegments(2));
    await site.ok('archiving', 'on');
    const kept = await writeSegments(1);
    await site.holds(kept[0]!);
    await site.ok('archiving', 'off', '--local', '--yes', '--pgdata', db1.pgdata);
    const lost = await writeSegments(2);
    await site.ok('archiving', 'on', '--pgdata', db1.pgdata);
    const after = await writeSegments(1);
    await site.holds(after[0]!);
    await areLost(lost);
    expect(site.agentPids('db1')).toEqual([]);
    await site.ok('configure', 'primary', '--pgdata', db1.pgdata, '--node', 'db1', '--agent', 'on');
  });

  test('switch ends the running segment and waits for it; with nothing written it says so', async () => {
    await write();
    const switched = async (): Promise<Record<string, unknown>> =>
      JSON.parse(
        await site.ok('archiving', 'switch', '--wait', '--json', '--pgdata', db1.pgdata, '--node', 'db1'),
      ) as Record<string, unknown>;
    const first = await switched();
    expect(first).toMatchObject({ switched: true, became: 'archived' });
    expect((await site.contents()).wal.has(String(first['segment']))).toBe(true);
    // four times a minute the server writes a snapshot of its transactions after what was written: then there is something to end
    let last = first;
    const idle = await waitFor('nothing to end', 30_000, async () => {
      const now = await switched();
      if (now['switched'] === false) return now;
      last = now;
      return undefined;
    });
    expect(idle).toMatchObject({ segment: nextSegment(String(last['segment']), MiB) });
  });

  test('a trigger that accepts the gap opens with all that lies before it', async () => {
    await db1.kill9();
    await site.ok('trigger', 'smart', '--to', 'db2', '--yes', '--accept-gap');
    await site.promoted('db2', 30_000);
    // 0 to 2: everything before archiving was switched off for the first time
    expect(await db2.number('SELECT count(*) FROM written')).toBe(3);
    await db2.query('CREATE TABLE after_it (x int)');
    expect(await site.archiveNow('db2')).toMatch(/^00000002/);
    await db2.query('SELECT 1');
    const seen = await site.status();
    expect([seen.timeline, seen.backupNeeded]).toEqual([2, null]);
  });
});
