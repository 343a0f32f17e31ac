/**
 * The recipe of docs/moving-over.md, its script taken from the page: one archive_command for walvault and for another archiver. That is a
 * stand-in which copies files, and pgBackRest itself where this machine has it.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(0);
const page = readFileSync(path.resolve(import.meta.dirname, '../../docs/moving-over.md'), 'utf8');
const PUSH = 'pgbackrest --stanza=main archive-push "$path"';

/** The archiver that walvault shall take the place of. */
type Other = {
  name: string;
  major: number;
  /** Makes it ready; the server runs. @returns its push, as a line of the script */
  setUp(site: TestSite, server: TestServer): Promise<string> | string;
  goAway(site: TestSite): void;
  comeBack(site: TestSite): void;
  /** Has it this segment? */
  has(site: TestSite, segment: string): boolean;
  /** Segments that it misses while it is away. */
  away: number;
  /** What it says of its whole archive. @throws where it is not in order */
  check?(site: TestSite): void;
};

const move = (from: string, to: string) => (site: TestSite) =>
  renameSync(path.join(site.scratch, from), path.join(site.scratch, to));

/** Copies, and refuses other content under a name, as archivers do. Away: its program is gone, and sh ends with 127. */
const standIn: Other = {
  name: 'a stand-in that copies files',
  major: pair.major,
  setUp({ scratch }) {
    mkdirSync(path.join(scratch, 'copies'));
    const program = path.join(scratch, 'copy-archiver');
    const lines = [
      '#!/bin/sh',
      `to='${scratch}/copies'/$2`,
      'if [ -e "$to" ]; then cmp -s "$1" "$to"; exit; fi',
      'cp "$1" "$to.new" && mv "$to.new" "$to"',
    ];
    writeFileSync(program, `${lines.join('\n')}\n`, { mode: 0o755 });
    return `'${program}' "$path" "$name"`;
  },
  goAway: move('copy-archiver', 'copy-archiver.away'),
  comeBack: move('copy-archiver.away', 'copy-archiver'),
  has: ({ scratch }, segment) => existsSync(path.join(scratch, 'copies', segment)),
  away: 300, // more than one look of the agent into archive_status takes
};

const PROGRAM = '/usr/bin/pgbackrest';
const backrest = ({ scratch }: TestSite, ...args: string[]) =>
  execFileSync(PROGRAM, [`--config=${scratch}/pgbackrest.conf`, '--stanza=main', ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
/** On 15, which every release of the last years knows. */
const pgBackRest: Other = {
  name: 'pgBackRest',
  major: 15,
  setUp(site, server) {
    const { scratch } = site;
    for (const folder of ['repo', 'lock', 'log']) mkdirSync(path.join(scratch, folder));
    const lines = [
      '[global]',
      `repo1-path=${scratch}/repo`,
      `lock-path=${scratch}/lock`,
      `log-path=${scratch}/log`,
      'start-fast=y',
      'archive-timeout=10',
      '[main]',
      `pg1-path=${server.pgdata}`,
      `pg1-socket-path=${server.sockets}`,
      `pg1-port=${server.port}`,
      'pg1-user=postgres',
    ];
    writeFileSync(path.join(scratch, 'pgbackrest.conf'), `${lines.join('\n')}\n`);
    backrest(site, 'stanza-create');
    return PUSH.replace('pgbackrest', `${PROGRAM} --config='${scratch}/pgbackrest.conf'`);
  },
  goAway: move('repo', 'repo.away'),
  comeBack: move('repo.away', 'repo'),
  has({ scratch }, segment) {
    const found = execFileSync('find', [path.join(scratch, 'repo'), '-name', `${segment}-*`], {
      encoding: 'utf8',
    });
    return found !== '';
  },
  away: 5,
  check(site) {
    backrest(site, 'check');
    backrest(site, 'backup', '--type=full');
    expect(backrest(site, 'info')).toMatch(/status: ok/);
  },
};

const others = [standIn, ...(existsSync(PROGRAM) ? [pgBackRest] : [])];

describe.each(others)('archiving to walvault and to $name', (other) => {
  let site: TestSite;
  let db1: TestServer;
  let combined: string;
  const failures = () => db1.number('SELECT failed_count FROM pg_stat_archiver');
  /** Ends a segment with something in it. @returns its name */
  const endSegment = async () => {
    const point = `SELECT pg_walfile_name(lsn) FROM (SELECT pg_create_restore_point('x') AS lsn) AS point`;
    const name = String(await db1.value(point));
    await db1.query('SELECT pg_switch_wal()');
    return name;
  };
  const isWithOther = (segment: string) =>
    waitFor(`the other archiver has ${segment}`, 60_000, async () => {
      if (!other.has(site, segment)) await endSegment(); // what wakes an archiver that pauses after failures
      return other.has(site, segment);
    });
  const setCommand = async (command: string) => {
    await db1.query(`ALTER SYSTEM SET archive_command = '${command.replaceAll("'", "''")}'`);
    await db1.query('SELECT pg_reload_conf()');
  };

  beforeAll(async () => {
    site = await TestSite.open({
      pair: { major: other.major, vault: 'file' },
      segmentSizeMiB: 1,
      // long enough for the hook that starts the agent: no failure is counted while all is well
      walvault: { WALVAULT_ARCHIVE_TIMEOUT: '10s', WALVAULT_VAULT_TIMEOUT: '2s' },
    });
    db1 = await site.makePrimary();
    const push = await other.setUp(site, db1);
    const [, script] = /```sh\n(#!\/bin\/sh\n[\s\S]*?)```/.exec(page) ?? [];
    expect(script).toContain(PUSH);
    const file = path.join(site.scratch, 'walvault-and-pgbackrest');
    writeFileSync(
      file,
      String(script).replace(PUSH, () => push),
      { mode: 0o755 },
    );
    combined = `${file} ${site.state('db1')}/archive %p %f`;
    await setCommand(combined);
  });
  afterAll(() => site.close());

  test('each segment goes to both, and configure leaves the command and says so', async () => {
    const segment = await endSegment();
    await site.holds(segment);
    await isWithOther(segment);
    expect(await failures()).toBe(0);
    const again = await site.walvault('configure', 'primary', '--pgdata', db1.pgdata, '--node', 'db1');
    expect(again.status).toBe(0);
    expect(again.stderr).toContain(
      `kept archive_command, which calls walvault and something else: ${combined}`,
    );
    expect(again.stderr).not.toContain('replaced archive_command');
    expect(await db1.value('SHOW archive_command')).toBe(combined);
    other.check?.(site);
  });

  test('the other one down: counted, pg_wal keeps all, the vault stays up to date; nothing is missing afterwards', async () => {
    await db1.allArchived(); // what an earlier test ended last would be the one that waits
    const before = await failures();
    other.goAway(site);
    const first = await endSegment();
    await db1.query(
      `DO $$ BEGIN FOR round IN 3..${other.away} LOOP PERFORM pg_create_restore_point('x'), pg_switch_wal(); END LOOP; END $$`,
    );
    const segments = [first, await endSegment()];
    await site.holds(segments.at(-1)!);
    await waitFor('a failure that is counted', 30_000, async () => (await failures()) > before);
    for (const name of segments)
      expect(existsSync(path.join(db1.pgdata, 'pg_wal/archive_status', `${name}.ready`))).toBe(true);
    other.comeBack(site);
    for (const name of segments) await isWithOther(name);
  });

  test('walvault down: counted, the other one stays up to date up to the segment that waits; nothing is missing afterwards', async () => {
    await db1.allArchived(); // what an earlier test ended last would be the one that waits
    const before = await failures();
    await site.vault.goAway('refuse');
    const segments = [await endSegment(), await endSegment()];
    await waitFor('a failure that is counted', 30_000, async () => (await failures()) > before);
    expect(other.has(site, segments[0]!)).toBe(true);
    await site.vault.comeBack();
    for (const name of segments) await isWithOther(name);
    await site.holds(segments.at(-1)!);
  });

  test('one of the two dropped: a reload, and archiving goes on', async () => {
    const { stdout } = await site.walvault(
      'configure',
      'primary',
      '--print',
      '--pgdata',
      db1.pgdata,
      '--node',
      'db1',
    );
    expect(stdout).toContain(combined);
    await setCommand(`'${site.state('db1')}/archive' %p %f`);
    const segment = await endSegment();
    await site.holds(segment);
    await waitFor('it is archived', 30_000, async () =>
      Boolean(await db1.value('SELECT last_archived_wal >= $1 FROM pg_stat_archiver', [segment])),
    );
    expect(other.has(site, segment)).toBe(false);
  });
});
