/**
 * Servers for the facts-*.test.ts files, which keep what PostgreSQL does and walvault rests on. No part of walvault runs in them:
 * archive_command and restore_command are a few lines of sh, and a test gives its own answer to a file name as a line of sh.
 *
 * One site: a primary with segments of 1 MiB whose table holds the rows 0 to 4; row 0 is in the cold copies, row N came with the Nth
 * of four archived segments. The primary is dead when the tests begin: nothing moves but what a test moves.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { pairs } from '../harness/pairs.ts';
import { TestServer } from '../harness/postgres.ts';
import { makeScratch, removeScratch, waitFor } from '../harness/scratch.ts';

const run = promisify(execFile);

/** The versions of this run: those of WALVAULT_TEST_PAIRS, each once. */
export const majors = [...new Set(pairs.map(({ major }) => major))];

export const zeros = '0'.repeat(24);

/** What PostgreSQL asked restore_command for: the file, and the restart point (%r). */
export type Request = { name: string; restartPoint: string };

/** A server whose commands are sh, beside its data directory: what they were asked for, and what they answer. */
export class ScriptedServer extends TestServer {
  /** Where archive_command puts files. */
  readonly archived: string;
  private readonly answers: string;

  constructor(scratch: string, name: string, major: number, port: number) {
    super({ major, pgdata: `${scratch}/${name}`, sockets: scratch, port });
    this.archived = `${this.pgdata}.archived`;
    this.answers = `${this.pgdata}.answers`;
    mkdirSync(this.archived);
    mkdirSync(this.answers);
  }

  /** Settings with this server's commands; restore_command serves what lies in `wal`, and exits 1 for what does not. */
  commands(wal: string): Record<string, string> {
    const sourced = (name: string) => `[ ! -e '${this.answers}/'${name} ] || . '${this.answers}/'${name}`;
    writeFileSync(
      `${this.pgdata}.restore`,
      `echo "$1 $3" >> '${this.pgdata}.asked'
${sourced('"$1"')}
[ -e '${wal}/'"$1" ] || exit 1
cp '${wal}/'"$1" "$2"
`,
    );
    writeFileSync(
      `${this.pgdata}.archive`,
      `echo "$2" >> '${this.pgdata}.handed'
${sourced('archive')}
cp "$1" '${this.archived}/'"$2.tmp" && mv '${this.archived}/'"$2.tmp" '${this.archived}/'"$2"
`,
    );
    return {
      archive_mode: 'on',
      archive_command: `sh '${this.pgdata}.archive' %p %f`,
      restore_command: `sh '${this.pgdata}.restore' %f %p %r`,
    };
  }

  /** From now on `script` answers for the file `name` ($1 name, $2 target, in PGDATA); where it does not exit, the file is served. */
  answer(name: string, script: string): void {
    writeFileSync(`${this.answers}.new`, `${script}\n`);
    renameSync(`${this.answers}.new`, `${this.answers}/${name}`);
  }

  /** archive_command runs `script` first from now on. */
  answerArchive(script: string): void {
    this.answer('archive', script);
  }

  /** `name` is served again, if it is there. */
  serve(name: string): void {
    rmSync(`${this.answers}/${name}`);
  }

  asked(): Request[] {
    return linesOf(`${this.pgdata}.asked`).map((line) => {
      const [name = '', restartPoint = ''] = line.split(' ');
      return { name, restartPoint };
    });
  }

  /** The names handed to archive_command, in order, each as often as it was. */
  handed(): string[] {
    return linesOf(`${this.pgdata}.handed`);
  }

  /** Until restore_command has been asked for `name` another `times` times. */
  async askedAgain(name: string, times = 1): Promise<void> {
    const count = () => this.asked().filter((request) => request.name === name).length;
    const before = count();
    await waitFor(`${name} is asked for`, 20_000, () => count() >= before + times);
  }

  async rows(): Promise<number[]> {
    return (await this.query<{ n: number }>('SELECT n FROM t ORDER BY n')).map(({ n }) => n);
  }

  /** Until the table holds just the rows 0 to `last`. */
  async holdsRows(last: number): Promise<void> {
    await waitFor(
      `row ${last}`,
      20_000,
      async () => (await this.rows()).join() === [...Array(last + 1).keys()].join(),
    );
  }

  async isInRecovery(): Promise<boolean> {
    return (await this.value('SELECT pg_is_in_recovery()')) === true;
  }

  async opened(): Promise<void> {
    await waitFor('the end of recovery', 20_000, async () => !(await this.isInRecovery()));
  }

  /** The timeline that an open server writes on. */
  async timeline(): Promise<number> {
    return parseInt(String(await this.value('SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)')), 16);
  }

  /** A start that is expected to end in a stop, before or after the first connection is let in. */
  async startAndEnd(): Promise<void> {
    await this.start().catch(() => undefined);
    await this.ended(20_000);
  }

  /** What pg_ctl promote does, without waiting for the end. */
  askToPromote(): void {
    writeFileSync(`${this.pgdata}/promote`, '');
    process.kill(this.pid()!, 'SIGUSR1');
  }

  has(file: string): boolean {
    return existsSync(`${this.pgdata}/${file}`);
  }

  /** The cluster's state in pg_control (1: shut down, 5: in archive recovery), and the timeline of its last checkpoint. */
  controlFile(): { state: number; timeline: number } {
    const bytes = readFileSync(`${this.pgdata}/global/pg_control`);
    return { state: bytes.readUInt32LE(16), timeline: bytes.readUInt32LE(48) };
  }
}

export class FactsSite {
  readonly scratch = makeScratch('f');
  readonly major: number;
  readonly primary: ScriptedServer;
  /** The four archived segments; the fifth name is the one that follows them, not archived. */
  segments: string[] = [];
  private readonly copies: ScriptedServer[] = [];
  private stopped = 0;

  constructor(major: number) {
    this.major = major;
    this.primary = new ScriptedServer(this.scratch, 'primary', major, 5500);
  }

  async open(): Promise<void> {
    const { primary } = this;
    await primary.initdb({
      segmentSizeMiB: 1,
      settings: {
        ...primary.commands(primary.archived),
        wal_retrieve_retry_interval: '50ms',
        checkpoint_timeout: '1h',
      },
    });
    await primary.start();
    await primary.query('CREATE TABLE t (n int)');
    await primary.query('INSERT INTO t VALUES (0)');
    await primary.stop();
    await run('cp', ['-a', primary.pgdata, `${this.scratch}/cold`]);
    await primary.start();
    for (const n of [1, 2, 3, 4]) this.segments.push(await fillSegment(primary, n));
    this.segments.push(
      String(await primary.value('SELECT pg_walfile_name(pg_current_wal_insert_lsn() + 1)')),
    );
    await waitFor('the fourth segment is archived', 20_000, () =>
      primary.has(`pg_wal/archive_status/${this.segments[3]}.done`),
    );
    await primary.stop('immediate');
  }

  /** A server made of the copy with row 0, not yet started; it is served what lies in `wal`. */
  async copy(
    signal: 'standby.signal' | 'recovery.signal',
    { settings = {} as Record<string, string>, wal = this.primary.archived } = {},
  ): Promise<ScriptedServer> {
    const number = this.copies.length + 1;
    const server = new ScriptedServer(this.scratch, `copy${number}`, this.major, 5500 + number);
    await run('cp', ['-a', `${this.scratch}/cold`, server.pgdata]);
    server.configure({ port: String(server.port), ...server.commands(wal), ...settings });
    writeFileSync(`${server.pgdata}/${signal}`, '');
    this.copies.push(server);
    return server;
  }

  /** After each test: stops what it has started (idle standbys ask for files all the time), and shows the logs where it failed. */
  async stopCopies(): Promise<void> {
    const isShown = (globalThis as { testHasFailed?: boolean }).testHasFailed;
    for (const copy of this.copies.slice(this.stopped)) {
      await copy.stop('immediate');
      if (isShown) console.log(`${copy.pgdata}, asked for ${JSON.stringify(copy.asked())}\n${copy.log()}`);
    }
    this.stopped = this.copies.length;
  }

  async close(): Promise<void> {
    await removeScratch(this.scratch);
  }
}

/** Inserts the row `n`, ends the segment that holds it, and gives that segment's name. */
export async function fillSegment(server: TestServer, n: number): Promise<string> {
  await server.query('INSERT INTO t VALUES ($1)', [n]);
  const name = await server.value('SELECT pg_walfile_name(pg_current_wal_insert_lsn())');
  await server.query('SELECT pg_switch_wal()');
  return String(name);
}

export function linesOf(file: string): string[] {
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').slice(0, -1) : [];
}

export function segmentsIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .sort();
}
