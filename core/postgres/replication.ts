/**
 * BASE_BACKUP over the replication protocol: a running server's files as tar archives, one for the data directory and one
 * for each tablespace, then PostgreSQL's own backup_manifest.
 *
 * The protocol (15 and newer): a row with start LSN and timeline; a row per tablespace; CopyOutResponse; CopyData, each with
 * a type byte: 'n' a new archive (its name, its location), 'd' its bytes, 'p' progress, 'm' the manifest begins (its bytes
 * come as 'd' too); CopyDone; a row with stop LSN and timeline.
 *
 * Source: PostgreSQL docs, "Frontend/Backend Protocol: Streaming Replication Protocol", BASE_BACKUP.
 */
import { DatabaseError, type Client, type Connection } from 'pg';
import { VaultError } from '../errors.ts';
import { parseLsn, type Lsn } from '../wal/lsn.ts';
import { connect, type ConnectOptions } from './sql.ts';

/** A tablespace besides pg_default and pg_global; `location` is absolute, or relative to PGDATA where it lies in place. */
export type Tablespace = { oid: string; location: string };

/**
 * What flows, in this order: start, then for each archive `archive` and its `data`, then `manifest` pieces, then stop.
 * The archive of the data directory has tablespace null and comes last.
 */
export type BackupEvent =
  | { kind: 'start'; lsn: Lsn; timeline: number; tablespaces: Tablespace[]; estimatedBytes: number }
  | { kind: 'archive'; tablespace: Tablespace | null }
  | { kind: 'data'; bytes: Buffer }
  | { kind: 'manifest'; bytes: Buffer }
  | { kind: 'stop'; lsn: Lsn; timeline: number };

/** Bytes taken from the socket and not yet read by the caller: above the first the socket is paused, below the second it goes on. */
const PAUSE_ABOVE = 8 * 1024 * 1024;
const RESUME_BELOW = 2 * 1024 * 1024;

/**
 * Takes a base backup. Ending the iteration early (break, throw) ends the backup on the server.
 *
 * @param options.silenceMs  how long the server may send nothing; the checkpoint at the beginning counts, so minutes
 * @throws VaultError unreachable | denied | refused (the server refuses: no REPLICATION right, wal_level minimal, promoted meanwhile)
 */
export async function* streamBaseBackup(
  options: ConnectOptions & { label: string; silenceMs?: number },
): AsyncGenerator<BackupEvent, void, void> {
  const client = await connect({ ...options, replication: true });
  const query = new BaseBackupQuery(baseBackupCommand(options.label), options.silenceMs ?? 15 * 60_000);
  try {
    client.query(query);
    yield* query.events();
  } catch (error) {
    throw serverFailure(error);
  } finally {
    query.stop();
    await closeClient(client, query);
  }
}

/** WAIT false: or it would wait for the archiving of its last segment for ever where archiving is broken. */
function baseBackupCommand(label: string): string {
  const quoted = `'${label.replaceAll("'", "''")}'`;
  return `BASE_BACKUP (LABEL ${quoted}, PROGRESS true, CHECKPOINT 'fast', WAIT false, MANIFEST 'yes', MANIFEST_CHECKSUMS 'SHA256')`;
}

/** An interrupted backup leaves the server sending: then the socket is cut, a polite end would wait for the rest of it. */
async function closeClient(client: Client, query: BaseBackupQuery): Promise<void> {
  if (!query.isOver()) (client as unknown as { connection: Connection }).connection.stream.destroy();
  else await client.end().catch(() => {});
}

function serverFailure(error: unknown): unknown {
  if (error instanceof VaultError) return error;
  if (error instanceof DatabaseError) {
    return new VaultError('refused', `the server refuses the base backup: ${error.message}`, {
      cause: error,
      hint:
        error.hint ?? 'The user needs the REPLICATION right, and the server wal_level = replica or higher.',
    });
  }
  return new VaultError(
    'unreachable',
    `the connection to the server broke during the base backup: ${(error as Error).message}`,
    {
      cause: error,
      hint: 'Look into the log of the server; then take the backup again.',
    },
  );
}

type RawMessage = { fields: (string | null)[] };
type CopyMessage = { chunk: Buffer };

/**
 * A query of node-postgres ("submittable"): its handlers get the protocol's messages as they arrive, and queue events.
 * The chunk of a CopyData message is a view on a buffer that the parser overwrites, hence the copies.
 */
class BaseBackupQuery {
  readonly #text: string;
  readonly #silenceMs: number;
  #connection: Connection | undefined;
  #queue: BackupEvent[] = [];
  #queuedBytes = 0;
  #paused = false;
  #over = false;
  #failure: unknown;
  #wake: (() => void) | undefined;
  #silence: NodeJS.Timeout | undefined;
  /** Rows seen so far: the first has start LSN and timeline, the last the stop; those between are tablespaces. */
  #start: { lsn: Lsn; timeline: number } | undefined;
  #tablespaces: Tablespace[] = [];
  #estimatedBytes = 0;
  #started = false;
  #inManifest = false;

  constructor(text: string, silenceMs: number) {
    this.#text = text;
    this.#silenceMs = silenceMs;
  }

  submit(connection: Connection): void {
    this.#connection = connection;
    this.#listen();
    connection.query(this.#text);
  }

  async *events(): AsyncGenerator<BackupEvent, void, void> {
    for (;;) {
      for (let event = this.#queue.shift(); event !== undefined; event = this.#queue.shift()) {
        if (event.kind === 'data' || event.kind === 'manifest') this.#taken(event.bytes.length);
        yield event;
      }
      if (this.#failure !== undefined) throw this.#failure;
      if (this.#over) return;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  isOver(): boolean {
    return this.#over;
  }

  stop(): void {
    clearTimeout(this.#silence);
    this.#queue = [];
  }

  handleRowDescription(): void {}

  handleDataRow({ fields }: RawMessage): void {
    this.#listen();
    if (this.#start === undefined) {
      this.#start = { lsn: parseLsn(String(fields[0])), timeline: Number(fields[1]) };
    } else if (this.#started) {
      this.#push({ kind: 'stop', lsn: parseLsn(String(fields[0])), timeline: Number(fields[1]) });
    } else {
      const [oid, location, kilobytes] = fields;
      this.#estimatedBytes += Number(kilobytes ?? 0) * 1024;
      if (oid !== null && oid !== undefined) this.#tablespaces.push({ oid, location: location ?? '' });
    }
  }

  handleCopyData({ chunk }: CopyMessage): void {
    this.#listen();
    if (!this.#started) {
      this.#started = true;
      const start = this.#start ?? { lsn: 0n, timeline: 0 };
      this.#push({
        kind: 'start',
        ...start,
        tablespaces: this.#tablespaces,
        estimatedBytes: this.#estimatedBytes,
      });
    }
    const type = String.fromCharCode(chunk[0] ?? 0);
    if (type === 'd') {
      const bytes = Buffer.from(chunk.subarray(1));
      this.#queuedBytes += bytes.length;
      this.#push({ kind: this.#inManifest ? 'manifest' : 'data', bytes });
      if (this.#queuedBytes > PAUSE_ABOVE) this.#pause();
    } else if (type === 'n') {
      const [, location] = chunk.subarray(1).toString('utf8').split('\0');
      const tablespace = this.#tablespaces.find((one) => one.location === location) ?? null;
      this.#push({ kind: 'archive', tablespace });
    } else if (type === 'm') {
      this.#inManifest = true;
    }
  }

  handleCommandComplete(): void {
    this.#listen();
  }

  handleReadyForQuery(): void {
    this.#end(undefined);
  }

  handleError(error: unknown): void {
    this.#end(error);
  }

  handleEmptyQuery(): void {}
  handlePortalSuspended(): void {}
  handleCopyInResponse(): void {}

  #push(event: BackupEvent): void {
    this.#queue.push(event);
    this.#wake?.();
  }

  #end(error: unknown): void {
    clearTimeout(this.#silence);
    this.#failure ??= error;
    this.#over = true;
    this.#wake?.();
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    clearTimeout(this.#silence); // now it is us who are silent
    this.#silence = undefined;
    this.#connection?.stream.pause();
  }

  #taken(size: number): void {
    this.#queuedBytes -= size;
    if (!this.#paused || this.#queuedBytes > RESUME_BELOW) return;
    this.#paused = false;
    this.#listen();
    this.#connection?.stream.resume();
  }

  /** Something came (or is awaited anew): the silence begins again. */
  #listen(): void {
    if (this.#paused || this.#over) return;
    if (this.#silence !== undefined) {
      this.#silence.refresh();
      return;
    }
    this.#silence = setTimeout(() => {
      this.#connection?.stream.destroy();
      this.#end(new Error(`nothing came for ${this.#silenceMs / 1000} s`));
    }, this.#silenceMs);
  }
}
