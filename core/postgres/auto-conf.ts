/**
 * A server's parameters: read as they rule now, written so that they outlive a restart.
 *
 * Written by ALTER SYSTEM while the server runs, else into postgresql.auto.conf, which rules over postgresql.conf wherever
 * that lies. Of a running server pg_settings says whether a reload suffices.
 */
import path from 'node:path';
import { stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { escapeIdentifier, escapeLiteral, type Client } from 'pg';
import { VaultError } from '../errors.ts';
import { AUTO_CONF, editAutoConf, readConfFiles, readText } from './conf-files.ts';
import { replaceFile } from './durable-write.ts';
import type { Pgdata } from './pgdata.ts';

/** Parameters by name; null: back to what postgresql.conf or PostgreSQL say. */
export type ParameterChanges = Readonly<Record<string, string | null>>;

/** What has to be done until the written values rule; 'none' also where no server runs: its next start reads them. */
export type ConfigurationDue = 'none' | 'reload' | 'restart';

/**
 * Longest archive_command, restore_command and the like, in bytes. PostgreSQL 15 cuts a longer archive_command after
 * expansion without an error, and then runs what is left of it.
 */
export const MAX_COMMAND_BYTES = 1023;

/**
 * Refuses a command that some version of PostgreSQL would cut.
 *
 * @param longestArguments  bytes that the placeholders may become: %p is `pg_wal/` and 40 letters at most
 * @throws VaultError usage
 */
export function checkCommandLength(name: string, command: string, longestArguments = 120): void {
  const length = Buffer.byteLength(command) + longestArguments;
  if (length <= MAX_COMMAND_BYTES) return;
  throw new VaultError(
    'usage',
    `${name} would take ${length} bytes: PostgreSQL 15 cuts a command at ${MAX_COMMAND_BYTES}`,
    {
      hint: 'Give a state directory with a shorter path: --state-dir.',
    },
  );
}

/** Values as they rule: of the running server by pg_settings (`client`), else by the files. Undefined: nothing sets it. */
export async function readParameters(
  pgdata: Pick<Pgdata, 'path' | 'configFile'>,
  names: readonly string[],
  client?: Client,
): Promise<Map<string, string>> {
  if (client !== undefined) {
    const { rows } = await client.query<{ name: string; value: string }>(
      `SELECT name, current_setting(name) AS value FROM pg_settings WHERE name = ANY($1)`,
      [names],
    );
    return new Map(rows.map(({ name, value }) => [name, value]));
  }
  const all = await readConfFiles(pgdata.path, pgdata.configFile);
  return new Map(names.flatMap((name) => (all.has(name) ? [[name, all.get(name) ?? ''] as const] : [])));
}

/**
 * Writes parameters and says what is due. With `client` by ALTER SYSTEM, without one into postgresql.auto.conf (replaced
 * by rename, flushed). Values that stand there already are not written again.
 *
 * @throws VaultError denied (no superuser, allow_alter_system = off) | usage (PostgreSQL refuses the value) | refused (the server came up meanwhile) | local
 */
export async function writeParameters(
  pgdata: Pick<Pgdata, 'path'>,
  changes: ParameterChanges,
  client?: Client,
): Promise<ConfigurationDue> {
  if (client === undefined) {
    const file = path.join(pgdata.path, AUTO_CONF);
    const before = await readText(file);
    const after = editAutoConf(before, new Map(Object.entries(changes)));
    // PGDATA may be open to its group (initdb -g): keep the mode that the file has
    const mode = await stat(file).then(
      (found) => found.mode & 0o777,
      () => 0o600,
    );
    if (after !== before) await replaceFile(file, after, mode);
    return 'none';
  }
  for (const [name, value] of Object.entries(changes)) await alterSystem(client, name, value);
  return dueOf(client, Object.keys(changes));
}

async function alterSystem(client: Client, name: string, value: string | null): Promise<void> {
  const target = name.split('.').map(escapeIdentifier).join('.');
  try {
    await client.query(
      value === null
        ? `ALTER SYSTEM RESET ${target}`
        : `ALTER SYSTEM SET ${target} = ${escapeLiteral(value)}`,
    );
  } catch (error) {
    const code = (error as { code?: string }).code ?? '';
    const refused = code === '42501' || code === '55000' || code === '0A000';
    throw new VaultError(
      refused ? 'denied' : 'usage',
      `ALTER SYSTEM SET ${name}: ${(error as Error).message}`,
      {
        cause: error,
        hint: refused
          ? `Connect as a superuser (PGUSER); where ALTER SYSTEM is not allowed, write the lines of --print by hand.`
          : `'SHOW ${name}' in psql says what it is now; give another value.`,
      },
    );
  }
}

/** The file has just been written; a running backend learns of it by the reload only. */
async function dueOf(client: Client, names: readonly string[]): Promise<ConfigurationDue> {
  const { rows } = await client.query<{
    name: string;
    setting: string;
    context: string;
    applied: boolean | null;
  }>(
    `SELECT s.name, s.context, f.setting, f.applied FROM pg_file_settings f JOIN pg_settings s ON s.name = lower(f.name)
      WHERE lower(f.name) = ANY($1) AND f.sourcefile LIKE '%auto.conf'`,
    [names],
  );
  const current = await client.query<{ name: string; same: string }>(
    `SELECT name, current_setting(name) AS same FROM pg_settings WHERE name = ANY($1)`,
    [names],
  );
  const values = new Map(current.rows.map(({ name, same }) => [name, same]));
  const changed = rows.filter(({ name, setting }) => values.get(name) !== setting);
  const reset = names.filter((name) => !rows.some((row) => row.name === name));
  if (changed.some(({ context }) => context === 'postmaster')) return 'restart';
  return changed.length > 0 || reset.length > 0 ? 'reload' : 'none';
}

/** Has the server read its files again, and waits until this session sees it. Says whether a restart is still due. */
export async function reloadServer(client: Client, names: readonly string[]): Promise<ConfigurationDue> {
  const before = await client.query<{ at: string }>('SELECT pg_conf_load_time()::text AS at');
  await client.query('SELECT pg_reload_conf()');
  const deadline = performance.now() + 5000;
  for (;;) {
    const now = await client.query<{ at: string }>('SELECT pg_conf_load_time()::text AS at');
    if (now.rows[0]?.at !== before.rows[0]?.at || performance.now() > deadline) break;
    await delay(20);
  }
  const pending = await client.query('SELECT 1 FROM pg_settings WHERE pending_restart AND name = ANY($1)', [
    names,
  ]);
  return pending.rowCount === 0 ? 'none' : 'restart';
}
