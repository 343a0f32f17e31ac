/**
 * Connections to a server: where it is, as whom, and that it is the one that was meant.
 *
 * Host, port and user come from the settings, else from PGHOST, PGPORT, PGUSER, PGDATABASE as psql takes them (passwords
 * too: PGPASSWORD, ~/.pgpass), else from postmaster.pid in PGDATA.
 *
 * Source: PostgreSQL docs, "libpq: Environment Variables".
 */
import diagnostics from 'node:diagnostics_channel';
import { realpath } from 'node:fs/promises';
import os from 'node:os';
import { Client, DatabaseError } from 'pg';
import { VaultError } from '../errors.ts';
import { controlLine } from './control-words.ts';
import { readPgdata, type Pgdata } from './pgdata.ts';

/** What a person may say of the connection; each is optional. */
export type ConnectionSettings = { pgHost?: string; pgPort?: number; pgUser?: string; pgDatabase?: string };

export type ConnectOptions = {
  /** Also proves that the server found is the one of this data directory. */
  pgdata?: string;
  settings?: ConnectionSettings;
  env?: NodeJS.ProcessEnv;
  /** For BASE_BACKUP and the like: a physical replication connection. */
  replication?: boolean;
  /** ms; 5 s unless told. */
  timeoutMs?: number;
};

type Place = { host: string; port: number; database: string; users: string[]; origin: string };

/**
 * Opens a connection. The caller ends it.
 *
 * @throws VaultError unreachable (nobody answers) | denied (user or password) | refused (another server than PGDATA's) | pgdata
 */
export async function connect(options: ConnectOptions): Promise<Client> {
  const pgdata =
    options.pgdata === undefined ? undefined : await readPgdata(options.pgdata, { anyOwner: true });
  const place = placeOf(pgdata, options);
  let failure: unknown;
  for (const user of place.users) {
    const client = new Client({
      host: place.host,
      port: place.port,
      user,
      database: place.database,
      application_name: 'walvault',
      connectionTimeoutMillis: options.timeoutMs ?? 5000,
      keepAlive: true,
      ...(options.replication === true ? { replication: 'true' } : {}),
    });
    client.on('error', () => {}); // a lost connection is met at the next query; unheard it would end the process
    const sinceMs = performance.now();
    try {
      await client.connect();
      tell(`connect to ${place.host}:${place.port} as ${user}`, sinceMs, 'done');
      listenTo(client);
      if (pgdata !== undefined && options.replication !== true) await checkServer(client, pgdata, place);
      return client;
    } catch (error) {
      await client.end().catch(() => {});
      tell(
        `connect to ${place.host}:${place.port} as ${user}`,
        sinceMs,
        `failed: ${(error as Error).message}`,
      );
      failure = error;
      if (!isUnknownRole(error)) break;
    }
  }
  throw connectionFailure(failure, place, pgdata);
}

const channel = diagnostics.channel('walvault:asked');

/** To whoever listens (`--debug`), on the channel of core/vault/asked.ts. */
function tell(what: string, sinceMs: number, end: string): void {
  if (channel.hasSubscribers) channel.publish({ what, tookMs: performance.now() - sinceMs, end });
}

/** Tells each statement of this connection, as long as somebody listens; without its values, which may be secrets. */
function listenTo(client: Client): void {
  if (!channel.hasSubscribers) return;
  const query = client.query.bind(client) as (...words: unknown[]) => unknown;
  client.query = ((...words: unknown[]) => {
    const [statement] = words;
    const what = `sql ${withoutValues(typeof statement === 'string' ? statement : '(a stream)')}`;
    const sinceMs = performance.now();
    const running = query(...words);
    if (running instanceof Promise)
      running.then(
        () => tell(what, sinceMs, 'done'),
        (error: unknown) => tell(what, sinceMs, `failed: ${(error as Error).message}`),
      );
    return running;
  }) as Client['query'];
}

/** In one short line, its literals gone. */
export function withoutValues(statement: string): string {
  const line = statement
    .replace(/'(?:[^']|'')*'/g, "'…'")
    .replace(/\s+/g, ' ')
    .trim();
  return line.length > 120 ? `${line.slice(0, 120)}…` : line;
}

/** Runs `work` with a connection and ends it, whatever happens. */
export async function withConnection<T>(
  options: ConnectOptions,
  work: (client: Client) => Promise<T>,
): Promise<T> {
  const client = await connect(options);
  try {
    return await work(client);
  } finally {
    await client.end().catch(() => {});
  }
}

function placeOf(pgdata: Pgdata | undefined, { settings = {}, env = process.env }: ConnectOptions): Place {
  const running = pgdata?.running;
  const told = settings.pgHost ?? env.PGHOST;
  const host = told ?? (running?.socketDir || running?.host);
  const port =
    settings.pgPort ?? (env.PGPORT ? Number(env.PGPORT) : undefined) ?? (running?.port || undefined);
  if (
    pgdata !== undefined &&
    running === undefined &&
    told === undefined &&
    settings.pgPort === undefined &&
    !env.PGPORT
  ) {
    throw new VaultError('unreachable', `no server runs on ${pgdata.path}`, {
      hint: `Start it (${controlLine(pgdata.path, 'start')}), or say with PGHOST and PGPORT where it is.`,
    });
  }
  const user = settings.pgUser ?? env.PGUSER;
  const users = user === undefined ? [osUser(), pgdata?.owner.name, 'postgres'] : [user];
  return {
    host: host ?? 'localhost',
    port: port ?? 5432,
    database: settings.pgDatabase ?? env.PGDATABASE ?? 'postgres',
    users: [...new Set(users)].filter((name): name is string => name !== undefined && !name.startsWith('#')),
    origin: told === undefined ? 'postmaster.pid' : 'PGHOST or --pg-host',
  };
}

function osUser(): string | undefined {
  try {
    return os.userInfo().username;
  } catch {
    return undefined;
  }
}

/** PGPORT of another server in the environment must not make us configure, or back up, that one. */
async function checkServer(client: Client, pgdata: Pgdata, place: Place): Promise<void> {
  const identity = await client.query<{ id: string }>(
    'SELECT system_identifier::text AS id FROM pg_control_system()',
  );
  const directory = await client
    .query<{ data_directory: string }>('SHOW data_directory')
    .then(({ rows }) => rows[0]?.data_directory)
    .catch(() => undefined); // wants pg_read_all_settings
  const same =
    identity.rows[0]?.id === pgdata.control.systemIdentifier &&
    (directory === undefined || (await realpath(directory).catch(() => directory)) === pgdata.path);
  if (same) return;
  throw new VaultError(
    'refused',
    `the server at ${place.host}:${place.port} runs on ${directory ?? 'another data directory'}, not on ${pgdata.path}`,
    { hint: `It was found by ${place.origin}: unset PGHOST and PGPORT, or give the other --pgdata.` },
  );
}

function isUnknownRole(error: unknown): boolean {
  return error instanceof DatabaseError && (error.code === '28000' || error.code === '28P01');
}

function connectionFailure(error: unknown, place: Place, pgdata: Pgdata | undefined): VaultError {
  if (error instanceof VaultError) return error;
  const where = `${place.host}:${place.port}`;
  const said =
    error instanceof Error && error.message !== ''
      ? error.message
      : String((error as { code?: string }).code);
  if (isUnknownRole(error)) {
    return new VaultError('denied', `the server at ${where} refuses ${place.users.join(', ')}: ${said}`, {
      cause: error,
      hint: 'Name a superuser with PGUSER (and PGPASSWORD or ~/.pgpass), and let pg_hba.conf admit it, for replication too.',
    });
  }
  const down = pgdata !== undefined && pgdata.running === undefined;
  return new VaultError('unreachable', `no connection to the server at ${where}: ${said}`, {
    cause: error,
    hint: down
      ? `No server runs on ${pgdata.path}: start it, or correct PGHOST and PGPORT.`
      : 'Look whether the server has finished starting and listens there; PGHOST, PGPORT and PGUSER are taken as psql takes them.',
  });
}
