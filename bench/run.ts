/**
 * Side-by-side measurements on one machine: what walvault costs next to what it replaces, in one run, so that the ratio means
 * something though the figures are this machine's.
 *
 *   archive    64 waiting segments, by walvault, by `cp`, and by `cp` with fsync (which is what "archived" ought to mean)
 *   restore    `standby create` next to `cp -r` of the same data directory
 *   failover   kill -9 of a primary with a lease until its standby takes a write, by the witness, nobody asked; next to the lease itself
 *   promote    `trigger smart` until the standby takes writes, next to pg_promote() on an equal standby
 *
 * Run by `npm run bench` (`-- --smoke` for a short one); docs/performance.md says how to read it.
 */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, realpath, rename, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { DemoServers, type DemoServer, type SqlClient } from '../bin/demo/servers.ts';
import { programRoot } from '../bin/program-root.ts';
import { formatBytes, formatDuration } from '../bin/ui/format.ts';
import { table } from '../bin/ui/table.ts';
import type { Status } from '../core/work/status.ts';

const run = promisify(execFile);
const walvaultFile = path.join(programRoot(), 'bin/walvault');

type Size = { segments: number; rounds: number; dataMiB: number; promotions: number; failovers: Failovers };
/** Settings of walvault, as variables; what is not named is the default. */
type Failovers = { rounds: number; leaseMs: number; settings: Record<string, string> };
const WHOLE: Size = {
  ...{ segments: 64, rounds: 2, dataMiB: 512, promotions: 3 },
  failovers: { rounds: 3, leaseMs: 30_000, settings: {} },
};
const SMOKE: Size = {
  ...{ segments: 8, rounds: 1, dataMiB: 48, promotions: 1 },
  failovers: {
    ...{ rounds: 1, leaseMs: 6_000 },
    settings: { WALVAULT_HEARTBEAT_INTERVAL: '1s', WALVAULT_WITNESS_INTERVAL: '500ms' },
  },
};
const SEGMENT_MIB = 16;
const LIMIT_MS = 300_000;

type Figure = { what: string; how: string; value: number; unit: string };

/** One scratch directory with servers db1 and db2 in it, and a vault. */
class Bench {
  readonly scratch: string;
  readonly servers: DemoServers;
  readonly env: NodeJS.ProcessEnv;

  constructor(scratch: string, servers: DemoServers, settings: Record<string, string> = {}) {
    this.scratch = scratch;
    this.servers = servers;
    this.env = {
      ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(PG|WALVAULT_)/.test(name))),
      WALVAULT_VAULT: pathToFileURL(path.join(scratch, 'vault')).href,
      WALVAULT_CLUSTER: 'bench',
      ...settings,
    };
  }

  /** What the command answers on standard output. */
  async walvault(...words: string[]): Promise<string> {
    return (await run(walvaultFile, words, { env: this.env, maxBuffer: 64 << 20 })).stdout;
  }

  async preparePrimary(): Promise<SqlClient> {
    const { db1 } = this.servers;
    await this.servers.makePrimary(SEGMENT_MIB);
    await this.walvault('init', '--pgdata', db1.pgdata, '--node', 'db1');
    await this.walvault('configure', 'primary', '--pgdata', db1.pgdata, '--node', 'db1');
    await this.servers.start(db1);
    const client = await this.servers.connect(db1);
    await client.query(`ALTER SYSTEM SET max_wal_size = '8GB'`);
    await client.query('SELECT pg_reload_conf()');
    await client.query('CREATE TABLE filler (id bigint, note text)');
    return client;
  }
}

/** Segments a second, from the moment the command is set until the last waiting segment is archived. */
async function archiveRate(
  bench: Bench,
  client: SqlClient,
  command: string,
  { segments, isOurs }: { segments: number; isOurs: boolean },
): Promise<number> {
  await setArchiveCommand(client, '');
  // it pushes whatever is ready, whether anybody asks or not: the segments would be in the vault before the clock starts
  const agent = await agentOf(bench.servers.db1);
  signal(agent, 'SIGSTOP');
  try {
    const last = await fillSegments(client, segments);
    const waiting = await waitingSegments(bench);
    const begun = performance.now();
    if (isOurs) signal(agent, 'SIGCONT');
    await setArchiveCommand(client, command);
    await until('the archiver', async () => {
      const archived = await client.query<{ name: string | null }>(
        'SELECT last_archived_wal AS name FROM pg_stat_archiver',
      );
      return (archived.rows[0]?.name ?? '') >= last;
    });
    return waiting / ((performance.now() - begun) / 1000);
  } finally {
    signal(agent, 'SIGCONT');
  }
}

/** Process id of the agent of a server, as it says itself; undefined while there is none. */
async function agentOf({ pgdata }: DemoServer): Promise<number | undefined> {
  const said = await readFile(`${pgdata}.walvault/agent.json`, 'utf8').catch(() => undefined);
  return said === undefined ? undefined : (JSON.parse(said) as { pid: number }).pid;
}

function signal(pid: number | undefined, name: NodeJS.Signals): void {
  if (pid !== undefined) process.kill(pid, name);
}

async function setArchiveCommand(client: SqlClient, command: string): Promise<void> {
  await client.query(`ALTER SYSTEM SET archive_command = '${command.replaceAll("'", "''")}'`);
  await client.query('SELECT pg_reload_conf()');
  await until('the reload', async () => {
    const { rows } = await client.query<{ archive_command: string }>('SHOW archive_command');
    return rows[0]?.archive_command === command;
  });
}

/** WAL of ordinary rows, as compressible as rows are: `count` full segments of it. @returns the last one's name */
async function fillSegments(client: SqlClient, count: number): Promise<string> {
  let last = '';
  for (let done = 0; done < count; done += 1) {
    await client.query(
      `INSERT INTO filler SELECT id, md5(id::text) || md5((id * 7)::text) FROM generate_series(1, 90000) id`,
    );
    // before the switch: afterwards the position may be the beginning of a segment that nothing was written into
    const { rows } = await client.query<{ name: string }>(
      'SELECT pg_walfile_name(pg_current_wal_insert_lsn()) AS name',
    );
    last = rows[0]?.name ?? '';
    await client.query('SELECT pg_switch_wal()');
  }
  return last;
}

async function waitingSegments(bench: Bench): Promise<number> {
  const names = await readdir(path.join(bench.servers.db1.pgdata, 'pg_wal/archive_status'));
  return names.filter((name) => name.endsWith('.ready')).length;
}

async function measureArchive(bench: Bench, client: SqlClient, size: Size): Promise<Figure[]> {
  const { rows } = await client.query<{ archive_command: string }>('SHOW archive_command');
  const target = path.join(bench.scratch, 'copies');
  await run('mkdir', [target]);
  const commands = {
    walvault: rows[0]?.archive_command ?? '',
    cp: `test ! -f ${target}/%f && cp %p ${target}/%f`,
    'cp, durable': `test ! -f ${target}/%f && cp %p ${target}/%f && sync ${target}/%f ${target}`,
  };
  const found = { walvault: [] as number[], cp: [] as number[], 'cp, durable': [] as number[] };
  // walvault's own chain must have no hole, so what the others took is handed in afterwards, outside the measurement
  for (let round = 0; round < size.rounds; round += 1)
    for (const how of ['walvault', 'cp', 'cp, durable'] as const) {
      found[how].push(
        await archiveRate(bench, client, commands[how], {
          segments: size.segments,
          isOurs: how === 'walvault',
        }),
      );
      if (how !== 'walvault') await handInAgain(bench, client, target, commands.walvault);
    }
  await setArchiveCommand(client, commands.walvault);
  return Object.entries(found).map(([how, values]) => ({
    what: 'archive',
    how,
    value: median(values),
    unit: 'segments/s',
  }));
}

/** What cp archived is `.done` for PostgreSQL: marked `.ready` again it comes to walvault in its order. The copies go. */
async function handInAgain(bench: Bench, client: SqlClient, copies: string, command: string): Promise<void> {
  const status = path.join(bench.servers.db1.pgdata, 'pg_wal/archive_status');
  await setArchiveCommand(client, '');
  for (const name of await readdir(copies)) {
    await rename(path.join(status, `${name}.done`), path.join(status, `${name}.ready`));
    await rm(path.join(copies, name));
  }
  await setArchiveCommand(client, command);
  await until('all segments in the vault', async () => (await waitingSegments(bench)) === 0);
}

/** MB/s of data directory. */
async function measureRestore(bench: Bench, client: SqlClient, size: Size): Promise<Figure[]> {
  const { db1, db2 } = bench.servers;
  // what was archived is 3.4 GiB of rows by now, and each of the standbys would be made of them
  await client.query('TRUNCATE filler');
  await client.query(
    `INSERT INTO filler SELECT id, repeat(md5(id::text), 8) FROM generate_series(1, ${size.dataMiB * 3400}) id`,
  );
  await client.query('CHECKPOINT');
  const begunBackup = performance.now();
  await bench.walvault('backup', '--pgdata', db1.pgdata, '--node', 'db1');
  const backupMs = performance.now() - begunBackup;
  const begunRestore = performance.now();
  await createStandby(bench, db2);
  const restoreMs = performance.now() - begunRestore;
  const bytes = await sizeOf(db2.pgdata);
  const begunCopy = performance.now();
  await run('cp', ['-r', db2.pgdata, path.join(bench.scratch, 'copied')]);
  await run('sync', ['-f', bench.scratch]);
  const copyMs = performance.now() - begunCopy;
  await rm(path.join(bench.scratch, 'copied'), { recursive: true });
  const rate = (ms: number) => bytes / 1e6 / (ms / 1000);
  return [
    { what: `backup of ${formatBytes(bytes)}`, how: 'walvault', value: rate(backupMs), unit: 'MB/s' },
    { what: 'restore of it', how: 'walvault', value: rate(restoreMs), unit: 'MB/s' },
    { what: 'restore of it', how: 'cp -r, sync', value: rate(copyMs), unit: 'MB/s' },
  ];
}

async function sizeOf(folder: string): Promise<number> {
  const { stdout } = await run('du', ['-sk', folder]);
  return Number(stdout.split('\t')[0]) * 1024;
}

/** ms until a standby with nothing left to replay takes writes. After each trigger the two servers have changed roles. */
async function measurePromote(bench: Bench, size: Size): Promise<Figure[]> {
  const { servers } = bench;
  const found = { trigger: [] as number[], byHand: [] as number[] };
  let [primary, standby] = [servers.db1, servers.db2];
  for (let at = 0; at < size.promotions; at += 1) {
    for (const how of ['byHand', 'trigger'] as const) {
      if (at > 0 || how === 'trigger') await createStandby(bench, standby);
      const client = await followed(bench, primary, standby);
      const begun = performance.now();
      if (how === 'byHand') await client.query('SELECT pg_promote(wait => false)');
      else await bench.walvault('trigger', 'smart', '--to', standby.name, '--yes', '--no-wait');
      await until(`${standby.name} to take writes`, async () => {
        const { rows } = await client.query<{ recovering: boolean }>(
          'SELECT pg_is_in_recovery() AS recovering',
        );
        return rows[0]?.recovering === false;
      });
      found[how].push(performance.now() - begun);
      if (how === 'byHand') await servers.remove(standby);
    }
    await servers.remove(primary);
    [primary, standby] = [standby, primary];
  }
  return [
    { what: 'promote', how: 'walvault trigger smart', value: median(found.trigger), unit: 'ms' },
    { what: 'promote', how: 'pg_promote()', value: median(found.byHand), unit: 'ms' },
  ];
}

/** ms from the kill of the primary to the first write that its standby takes: the witness notices, waits for the lease, triggers. */
async function measureFailover(scratch: string, { failovers }: Size): Promise<Figure[]> {
  const { rounds, leaseMs, settings } = failovers;
  const found: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const home = path.join(scratch, `failover-${round}`);
    await mkdir(home);
    const servers = await DemoServers.prepare(home);
    const lease = { WALVAULT_LEASE: `${leaseMs}ms`, WALVAULT_WATCHDOG: 'process' };
    const bench = new Bench(home, servers, { ...lease, ...settings });
    const over = new AbortController();
    try {
      await bench.preparePrimary();
      const { db1, db2 } = servers;
      await bench.walvault('backup', '--pgdata', db1.pgdata, '--node', 'db1');
      await createStandby(bench, db2);
      const standby = await followed(bench, db1, db2);
      const words = ['witness', '--auto-failover', 'on'];
      const witness = run(walvaultFile, words, { env: bench.env, signal: over.signal }).catch(() => {});
      await until('a lease and a witness', async () => {
        const seen = JSON.parse(await bench.walvault('status', '--json')) as Status;
        return seen.lease !== null && seen.witness?.decision.state === 'well';
      });
      // anywhere between two renewals
      await sleep(Math.random() * (leaseMs / 6));
      const begun = performance.now();
      await servers.kill(db1);
      await until('the standby to take a write', async () =>
        standby.query('CREATE TABLE taken ()').then(
          () => true,
          () => false,
        ),
      );
      found.push(performance.now() - begun);
      over.abort();
      await witness;
    } finally {
      over.abort();
      await servers.stopAll(false);
    }
  }
  return [
    { what: 'failover', how: 'walvault witness', value: median(found), unit: 'ms' },
    { what: 'failover', how: 'the lease alone', value: leaseMs, unit: 'ms' },
  ];
}

async function createStandby(bench: Bench, { name, pgdata, port }: DemoServer): Promise<void> {
  await bench.walvault('standby', 'create', '--pgdata', pgdata, '--node', name, '--port', String(port));
}

/** Starts the standby; a connection to it once it has replayed everything that the primary has. */
async function followed(bench: Bench, primary: DemoServer, standby: DemoServer): Promise<SqlClient> {
  await bench.servers.start(standby);
  const [from, to] = [await bench.servers.connect(primary), await bench.servers.connect(standby)];
  const { rows } = await from.query<{ lsn: string }>(`SELECT pg_create_restore_point('bench')::text AS lsn`);
  await from.query('SELECT pg_switch_wal()');
  await until(`${standby.name} to follow`, async () => {
    const replayed = await to.query<{ there: boolean }>(
      'SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn AS there',
      [rows[0]?.lsn],
    );
    return replayed.rows[0]?.there === true;
  });
  // a trigger waits for a standby that has not reported itself yet: that is no part of a promotion
  await until(`${standby.name} to report`, async () => {
    const { nodes, lastSegment } = JSON.parse(await bench.walvault('status', '--json')) as Status;
    return nodes.some(({ name, lastRestored }) => name === standby.name && lastRestored === lastSegment);
  });
  return to;
}

async function until(what: string, isThere: () => Promise<boolean>): Promise<void> {
  const limit = performance.now() + LIMIT_MS;
  while (!(await isThere())) {
    if (performance.now() > limit) throw new Error(`waited ${formatDuration(LIMIT_MS)} for ${what}`);
    await sleep(5);
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

/** Each figure beside that of walvault in the same row of work. */
function report(figures: readonly Figure[]): string {
  const ours = (what: string) =>
    figures.find((figure) => figure.what === what && figure.how.startsWith('walvault'))?.value;
  return table(
    ['what', 'how', 'measured', 'walvault is'],
    figures.map(({ what, how, value, unit }) => {
      const own = ours(what);
      const ratio =
        own === undefined || how.startsWith('walvault') ? null : unit === 'ms' ? value / own : own / value;
      return [
        what,
        how,
        `${value.toFixed(value < 100 ? 1 : 0)} ${unit}`,
        ratio === null ? null : `${ratio.toFixed(2)} x as fast`,
      ];
    }),
  );
}

async function main(): Promise<void> {
  const smoke = process.argv.includes('--smoke');
  const size = smoke ? SMOKE : WHOLE;
  const scratch = await realpath(await mkdtemp(path.join(os.tmpdir(), 'walvault-bench-')));
  const servers = await DemoServers.prepare(scratch);
  const bench = new Bench(scratch, servers);
  const begun = performance.now();
  const end = async () => {
    await servers.stopAll(false);
    await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void end().finally(() => process.exit(130)));
  try {
    const client = await bench.preparePrimary();
    const figures = [
      ...(await measureArchive(bench, client, size)),
      ...(await measureRestore(bench, client, size)),
      ...(await measurePromote(bench, size)),
      ...(await measureFailover(scratch, size)),
    ];
    if (process.argv.includes('--json')) console.log(JSON.stringify(figures, null, 2));
    else {
      const cpus = os.cpus();
      console.log(
        `${cpus.length} CPUs (${cpus[0]?.model.trim()}), Node ${process.version}, ${size.segments} segments of ${SEGMENT_MIB} MiB, median of ${size.rounds}`,
      );
      console.log(report(figures));
      console.error(`took ${formatDuration(performance.now() - begun)}`);
    }
  } finally {
    await end();
  }
}

await main();
