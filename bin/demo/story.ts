/**
 * The demo's story: a primary that archives, a standby that follows, the primary's sudden end, the trigger, and the count afterwards.
 *
 * It uses walvault only by its commands, each shown as it would be typed, and fails loudly where an archived commit is missing.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, realpath, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { VaultError } from '../../core/errors.ts';
import { openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { formatLsn, parseLsn, type Lsn } from '../../core/wal/lsn.ts';
import { openCluster, readHead, type Cluster } from '../../core/work/cluster.ts';
import { readStatus } from '../../core/work/status.ts';
import type { Context } from '../command.ts';
import { formatCount, formatDuration, shellWord } from '../ui/format.ts';
import { live } from '../ui/live.ts';
import { highestRow, LedgerWriter, readLedger } from './ledger.ts';
import { DemoServers, type SqlClient } from './servers.ts';

const SEGMENT_MIB = 1;
const SEGMENT_BYTES = SEGMENT_MIB * 1024 * 1024;
/** A standby may be this many segments behind when the primary is killed: the trigger then replays them. */
const FOLLOWS_WITHIN = 8;
/** For each single step; the whole takes about a minute. */
const STEP_LIMIT_MS = 60_000;

export type DemoOptions = {
  /** How long to watch before the primary is killed, in ms. */
  watchMs: number;
  /** Ctrl-C and the like. */
  ended: AbortSignal;
};

/** @throws VaultError refused (ended early; root) | corrupt (an archived commit is missing) | whatever a command fails with */
export async function runDemo(context: Context, options: DemoOptions): Promise<void> {
  if (process.getuid?.() === 0)
    throw new VaultError('refused', 'PostgreSQL does not run as root, and the demo starts one', {
      hint: `Run it as an ordinary user (sudo -u postgres walvault demo), or 'npm start', which changes to one by itself.`,
    });
  // the servers and their hooks inherit it
  for (const name of Object.keys(process.env)) if (isOthers(name)) delete process.env[name];
  const scratch = await realpath(await mkdtemp(path.join(os.tmpdir(), 'walvault-demo-')));
  const story = new Story(context, options, scratch);
  let done = false;
  try {
    await story.tell();
    done = true;
  } catch (error) {
    throw options.ended.aborted
      ? new VaultError('refused', 'the demo was ended before its end', { cause: error })
      : error;
  } finally {
    await story.end(done);
    const keep = context.flag('keep');
    if (!keep) await rm(scratch, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
    context.say(
      keep ? `kept: ${scratch} (servers db1 and db2, their logs, the vault)` : `removed: ${scratch}`,
    );
  }
}

class Story {
  readonly #context: Context;
  readonly #options: DemoOptions;
  readonly #scratch: string;
  readonly #url: string;
  readonly #name: string;
  readonly #startedMs = Date.now();
  #servers: DemoServers | undefined;
  #writer: LedgerWriter | undefined;
  #vault: Vault | undefined;
  #step = 0;

  constructor(context: Context, options: DemoOptions, scratch: string) {
    this.#context = context;
    this.#options = options;
    this.#scratch = scratch;
    this.#url = context.settings.vault ?? pathToFileURL(path.join(scratch, 'vault')).href;
    this.#name = context.settings.vault === undefined ? 'demo' : `demo-${randomBytes(4).toString('hex')}`;
  }

  async tell(): Promise<void> {
    const servers = (this.#servers = await DemoServers.prepare(this.#scratch));
    const { db1, db2 } = servers;
    this.#say(`everything is in ${this.#scratch}; Ctrl-C ends it at any time`);

    this.#title('a PostgreSQL, the vault, and the two joined');
    await servers.makePrimary(SEGMENT_MIB);
    const table = this.#context.flag('createTable') ? ['--create-table'] : [];
    await this.#command('init', '--pgdata', db1.pgdata, '--node', 'db1', ...table);
    await this.#command('configure', 'primary', '--pgdata', db1.pgdata, '--node', 'db1');
    await servers.start(db1);
    const primary = await servers.connect(db1);
    const writer = (this.#writer = new LedgerWriter(primary));
    await writer.makeTable();
    writer.start();
    this.#say(
      `db1 runs on port ${db1.port}, and ${formatCount(100, 'row')} are written every ${20} ms or so`,
    );

    this.#title('a base backup, and a hot standby from the vault alone');
    await this.#command('backup', '--pgdata', db1.pgdata, '--node', 'db1');
    await this.#command(
      'standby',
      'create',
      '--pgdata',
      db2.pgdata,
      '--node',
      'db2',
      '--port',
      String(db2.port),
    );
    await servers.start(db2);
    const standby = await servers.connect(db2);
    this.#vault = await openVault(this.#url, { timeoutMs: this.#context.settings.vaultTimeout });
    const cluster = await openCluster(this.#vault, this.#name);

    this.#title('what flows');
    await this.#watch(cluster, standby, writer);

    this.#title('the primary dies');
    const pid = await servers.kill(db1);
    await writer.stop();
    this.#say(
      `kill -9 of db1 (process group ${pid}): ${formatCount(writer.acknowledged, 'row')} were acknowledged to the writer`,
    );
    const archived = await this.#archivedEnd(cluster);

    this.#title('the trigger');
    const triggeredMs = Date.now();
    await this.#command('trigger', 'smart', '--to', 'db2', '--yes');
    await this.#until('db2 to take writes', async () => {
      const { rows } = await standby.query<{ recovering: boolean }>(
        'SELECT pg_is_in_recovery() AS recovering',
      );
      return rows[0]?.recovering === false;
    });
    const tookMs = Date.now() - triggeredMs;

    this.#title('the count');
    await this.#count(standby, writer, archived, tookMs);
    await this.#goesOn(cluster, standby);
    await this.#until('db2 to report its new role', async () =>
      (await readStatus(cluster)).nodes.some(({ name, role }) => name === 'db2' && role === 'primary'),
    );
    await this.#command('status');
    this.#attach();
  }

  /** Rows, segments and lag until the time is over and the standby has been seen to follow. */
  async #watch(cluster: Cluster, standby: SqlClient, writer: LedgerWriter): Promise<void> {
    const view = live(this.#context.io);
    const untilMs = Date.now() + this.#options.watchMs;
    const limitMs = untilMs + STEP_LIMIT_MS;
    for (;;) {
      this.#check();
      const [head, there] = await Promise.all([readHead(cluster), followedSoFar(standby)]);
      const here = writer.acknowledged;
      const end = head.lsn === null ? 0n : parseLsn(head.lsn);
      const archived = head.firstLsn === null ? 0 : segmentsBetween(parseLsn(head.firstLsn), end);
      const behind = there === undefined ? undefined : segmentsBetween(there.lsn, end);
      const left = Math.max(0, Math.ceil((untilMs - Date.now()) / 1000));
      const rows = there?.rows ?? 0;
      const lag =
        behind === undefined
          ? 'starting'
          : `${formatCount(behind, 'segment')} and ${formatCount(Math.max(0, here - rows), 'row')} behind`;
      view.draw(
        [
          `   primary db1   ${here.toLocaleString('en-US')} rows acknowledged`,
          `      |          archive_command`,
          `   vault         ${formatCount(archived, 'segment')} archived, the last one ${head.lastFile ?? '-'}`,
          `      |          restore_command`,
          `   standby db2   ${rows.toLocaleString('en-US')} rows replayed and visible; ${lag}`,
          `                 the primary is killed in ${left} s`,
        ],
        `   db1 ${formatCount(here, 'row')} | vault ${formatCount(archived, 'segment')} | db2 ${formatCount(rows, 'row')}, ${lag}`,
      );
      const follows = rows > 0 && behind !== undefined && behind <= FOLLOWS_WITHIN;
      if (Date.now() >= untilMs && follows && (await this.#isFitTarget(cluster))) break;
      if (Date.now() > limitMs)
        throw new VaultError('unreachable', 'db2 does not follow', {
          hint: 'Run the demo with --keep, and look into db2.log.',
        });
      await sleep(this.#context.io.drawable ? 200 : 2000, undefined, { signal: this.#options.ended });
    }
    view.finish();
  }

  /** A trigger wants a standby that has reported itself. */
  async #isFitTarget(cluster: Cluster): Promise<boolean> {
    const { nodes } = await readStatus(cluster);
    return nodes.some(
      ({ name, role, lastRestored }) => name === 'db2' && role === 'standby' && lastRestored !== null,
    );
  }

  async #archivedEnd(cluster: Cluster): Promise<Lsn> {
    const { lsn } = await readHead(cluster);
    if (lsn === null) throw new VaultError('absent', 'not a single segment was archived');
    return parseLsn(lsn);
  }

  /** The promise of the whole thing, counted. @throws VaultError corrupt */
  async #count(standby: SqlClient, writer: LedgerWriter, archived: Lsn, tookMs: number): Promise<void> {
    const found = await readLedger(standby);
    const archivedRows = writer.rowsBefore(archived);
    if (found.missing !== 0 || found.highest < archivedRows)
      throw new VaultError(
        'corrupt',
        `archived commits are missing: ${archivedRows} rows were archived, db2 has ${found.rows} (up to ${found.highest})`,
        {
          hint: 'This must never happen: please report it, with the directory (--keep).',
        },
      );
    const lost = Math.max(0, writer.acknowledged - found.highest);
    this.#say(`db2 took writes ${formatDuration(tookMs)} after the trigger was asked for`);
    this.#say(
      `archived when db1 died   ${formatCount(archivedRows, 'row')}, up to ${formatLsn(archived)}: every one is on db2`,
    );
    this.#say(`acknowledged by db1      ${formatCount(writer.acknowledged, 'row')}`);
    this.#say(`on db2                   ${formatCount(found.rows, 'row')}, none missing in between`);
    this.#say(
      lost === 0
        ? `lost                     nothing`
        : `lost                     the last ${formatCount(lost, 'row')}: they lay in WAL that db1 had not archived yet`,
    );
  }

  /** The new primary archives its own timeline. */
  async #goesOn(cluster: Cluster, standby: SqlClient): Promise<void> {
    const { rows } = await standby.query<{ id: string }>(
      `INSERT INTO ledger SELECT max(id) + 1, now(), 'the first row of the new primary' FROM ledger RETURNING id`,
    );
    await standby.query('SELECT pg_switch_wal()');
    await this.#until(
      'the new timeline in the vault',
      async () => (await readHead(cluster)).lastFile?.startsWith('00000002') === true,
    );
    this.#say(`db2 goes on              row ${rows[0]?.id} is written and archived, on timeline 2`);
  }

  #attach(): void {
    const vault = this.#context.settings.vault ?? 'file:///srv/vault';
    this.#title('your own server');
    this.#say(
      [
        'as the user who runs it, with its data directory as $P (docs/tutorial.md explains each line):',
        `  export WALVAULT_VAULT=${shellWord(vault)} WALVAULT_CLUSTER=main`,
        '  walvault init --pgdata $P --node db1',
        '  walvault configure primary --pgdata $P --node db1     # says whether a reload or a restart is due',
        '  walvault backup --pgdata $P --node db1',
        '  walvault standby create --pgdata $S --node db2        # another folder or machine',
      ].join('\n'),
    );
    if (this.#context.settings.vault !== undefined)
      this.#say(
        `what the demo stored stays in ${this.#url} under ${this.#name}/: remove it there when you like`,
      );
  }

  /** The end of everything that was started. */
  async end(gentle: boolean): Promise<void> {
    await this.#servers?.stopAll(gentle);
    await this.#writer?.stop();
    await this.#vault?.close();
    if (this.#servers !== undefined)
      this.#context.say(`\nended after ${formatDuration(Date.now() - this.#startedMs)}; no process is left`);
  }

  /** One command of walvault, shown and run as typed. @throws VaultError with what it said */
  async #command(...words: string[]): Promise<void> {
    this.#check();
    const { io } = this.#context;
    this.#say(
      `$ walvault ${words.map((word) => shellWord(word.replace(`${this.#scratch}/`, ''))).join(' ')}`,
    );
    const messages: string[] = [];
    const code = await this.#context.perform(words, {
      ...io,
      drawable: io.drawable,
      asks: false,
      out: (text) => io.err(indent(text)),
      err: (text) => {
        messages.push(text);
        if (/^(triggered|sealed|notice)/.test(text)) io.err(indent(text));
      },
      env: { ...withoutOthers(io.env), WALVAULT_VAULT: this.#url, WALVAULT_CLUSTER: this.#name },
    });
    this.#check();
    if (code !== 0)
      throw new VaultError(
        'refused',
        `'walvault ${words.join(' ')}' ended with ${code}: ${messages.join('').trim()}`,
      );
  }

  async #until(what: string, isThere: () => Promise<boolean>): Promise<void> {
    const limitMs = Date.now() + STEP_LIMIT_MS;
    while (!(await isThere())) {
      this.#check();
      if (Date.now() > limitMs)
        throw new VaultError('unreachable', `waited ${formatDuration(STEP_LIMIT_MS)} for ${what}`);
      await sleep(50, undefined, { signal: this.#options.ended });
    }
  }

  #check(): void {
    this.#options.ended.throwIfAborted();
  }

  #title(text: string): void {
    this.#step += 1;
    this.#context.say(`\n${this.#step}. ${text}`);
  }

  #say(text: string): void {
    this.#context.say(indent(text).trimEnd());
  }
}

/** What the standby has replayed; undefined while it does not answer yet. */
async function followedSoFar(standby: SqlClient): Promise<{ rows: number; lsn: Lsn } | undefined> {
  try {
    const { rows } = await standby.query<{ lsn: string | null }>('SELECT pg_last_wal_replay_lsn() AS lsn');
    const lsn = rows[0]?.lsn;
    return lsn === null || lsn === undefined
      ? undefined
      : { rows: await highestRow(standby), lsn: parseLsn(lsn) };
  } catch {
    return undefined; // the ledger's own creation may not be replayed yet
  }
}

/** Whole segments from `from` to `to`; none where `to` is not beyond. */
function segmentsBetween(from: Lsn, to: Lsn): number {
  const size = BigInt(SEGMENT_BYTES);
  return to <= from ? 0 : Number(to / size - from / size);
}

function indent(text: string): string {
  return text.replace(/^(?=.)/gm, '   ');
}

/** Another server's PGHOST, or another vault's name, must not lead the demo's servers and commands astray. */
function isOthers(variable: string): boolean {
  return variable !== 'PGBIN' && /^(PG|WALVAULT_)/.test(variable);
}

function withoutOthers(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !isOthers(name)));
}
