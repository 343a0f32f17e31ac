/**
 * pg_rewind: makes a data directory that went its own way one that can follow another server again, over a connection to that server.
 *
 * It takes the configuration files of the source along, and leaves a directory of no one moment where it is broken off.
 * Source: PostgreSQL docs, "pg_rewind". No -R: the standby follows the vault, not the source.
 */
import { spawn } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import path from 'node:path';
import { Client, type ClientConfig } from 'pg';

/** The program, or undefined where this installation has none (the binaries of the npm registry). */
export async function findRewind(binDir: string | undefined): Promise<string | undefined> {
  if (binDir === undefined) return undefined;
  const file = path.join(binDir, 'pg_rewind');
  return access(file, constants.X_OK).then(
    () => file,
    () => undefined,
  );
}

export type RewindRequest = {
  program: string;
  pgdata: string;
  /** postgresql.conf, where it lies outside: pg_rewind reads restore_command from it. */
  configFile: string;
  /** libpq connection string of the new primary; a superuser's, or one that may read its files. */
  source: string;
  /** Where it runs: not a data directory, or the wrapper would take the call for the server's own and use the spool. */
  workDirectory: string;
};

/**
 * Runs it; the target must not run. Once it has begun and failed, the directory can only be made anew.
 *
 * @returns its last words where it failed; undefined: done
 */
export async function rewind(request: RewindRequest): Promise<string | undefined> {
  // 15 goes by the source's last checkpoint: just promoted it would still be on the old timeline, and "no rewind required"
  const complaint = await checkpointSource(request.source);
  if (complaint !== undefined) return complaint;
  const failure = await run(request);
  if (failure !== undefined) return failure;
  const isDone = await access(path.join(request.pgdata, 'backup_label')).then(
    () => true,
    () => false,
  );
  if (!isDone) return 'pg_rewind changed nothing: it found no fork between the two';
  await switchSource(request.source);
  return undefined;
}

/**
 * The rewound server answers once it has replayed up to where the source stood just now, and gets that by its archive alone: on an idle
 * source not before the next checkpoint (measured: 5 minutes). Without the right to switch it waits, nothing worse.
 */
async function switchSource(source: string): Promise<void> {
  const client = new Client({ ...connectionOf(source), connectionTimeoutMillis: 5000 });
  client.on('error', () => {});
  try {
    await client.connect();
    // a record first: a segment in which nothing was written yet is not switched
    await client.query(`SELECT pg_logical_emit_message(false, 'walvault', 'rewound')`);
    await client.query('SELECT pg_switch_wal()');
  } catch {
    // said nowhere: the server comes up all the same, later
  } finally {
    await client.end().catch(() => {});
  }
}

async function checkpointSource(source: string): Promise<string | undefined> {
  const client = new Client({ ...connectionOf(source), connectionTimeoutMillis: 5000 });
  client.on('error', () => {});
  try {
    await client.connect();
    const { rows } = await client.query<{ recovering: boolean }>('SELECT pg_is_in_recovery() AS recovering');
    if (rows[0]?.recovering !== false) return 'the source is not a primary';
    await client.query('CHECKPOINT');
    return undefined;
  } catch (error) {
    return `the source cannot be asked: ${(error as Error).message}`;
  } finally {
    await client.end().catch(() => {});
  }
}

/** libpq's `name=value …`, or a URI. */
export function connectionOf(source: string): ClientConfig {
  if (/^postgres(ql)?:\/\//.test(source)) return { connectionString: source };
  const words = new Map<string, string>();
  for (const [, name, quoted, plain] of source.matchAll(/(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|([^\s']*))/g))
    words.set(name!, (quoted ?? plain ?? '').replace(/\\(.)/g, '$1'));
  const port = words.get('port');
  return {
    host: words.get('host') ?? words.get('hostaddr'),
    port: port === undefined ? undefined : Number(port),
    user: words.get('user'),
    database: words.get('dbname') ?? 'postgres',
    password: words.get('password'),
  };
}

function run(request: RewindRequest): Promise<string | undefined> {
  const words = ['-D', request.pgdata, '--source-server', request.source, '--restore-target-wal'];
  words.push('--config-file', request.configFile);
  return new Promise((resolve) => {
    const child = spawn(request.program, words, {
      cwd: request.workDirectory,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C' },
    });
    let output = '';
    const take = (chunk: Buffer) => (output = (output + chunk.toString()).slice(-4000));
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.on('error', (error) => resolve(error.message));
    child.on('close', (code) => {
      if (code === 0) return resolve(undefined);
      const lines = output.trim().split('\n');
      resolve(lines.filter((line) => /(error|fatal|FATAL):/.test(line)).join('; ') || (lines.at(-1) ?? ''));
    });
  });
}
