/**
 * The server's own log, kept in the vault beside its WAL: of a machine that goes away after a change of roles nothing else tells later
 * what its server said.
 *
 *   <cluster>/<system id>/logs/<node>/<time>/<file, %-encoded>.zst
 */
import { open, readdir, readlink, stat } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { readParameters } from '../postgres/auto-conf.ts';
import type { Pgdata } from '../postgres/pgdata.ts';
import type { Cluster } from './cluster.ts';
import { pack, sha256Of } from './store-file.ts';

/** Of each file its end, of many files the latest: a log that has grown for years must not keep a stopped primary waiting. */
const MOST_BYTES = 64 * 1024 * 1024;
const MOST_FILES = 20;

/**
 * The files that the server writes its log to, the latest first: the log collector's, else what the running postmaster's standard
 * error is (`pg_ctl -l`). Empty: it goes elsewhere (journal, syslog).
 */
export async function findLogs(pgdata: Pgdata): Promise<string[]> {
  const set = await readParameters(pgdata, ['logging_collector', 'log_directory']);
  if (/^(on|true|yes|1)$/i.test(set.get('logging_collector') ?? '')) {
    const directory = path.resolve(pgdata.path, set.get('log_directory') ?? 'log');
    const names = await readdir(directory).catch(() => []);
    return latestFiles(names.map((name) => path.join(directory, name)));
  }
  if (pgdata.running === undefined) return [];
  const target = await readlink(`/proc/${pgdata.running.pid}/fd/2`).catch(() => '');
  return latestFiles(path.isAbsolute(target) ? [target] : []);
}

async function latestFiles(files: readonly string[]): Promise<string[]> {
  const found = await Promise.all(
    files.map(async (file) => ({ file, facts: await stat(file).catch(() => undefined) })),
  );
  return found
    .flatMap(({ file, facts }) => (facts?.isFile() === true ? [{ file, at: facts.mtimeMs }] : []))
    .sort((left, right) => right.at - left.at)
    .slice(0, MOST_FILES)
    .map(({ file }) => file);
}

export const logsPrefix = ({ partition }: Cluster): string => `${partition}/logs/`;

/** @returns the keys of the objects @throws VaultError usage (two files of one name) | unreachable | local … */
export async function saveLogs(cluster: Cluster, node: string, files: readonly string[]): Promise<string[]> {
  const at = new Date().toISOString();
  const keys: string[] = [];
  const names = files.map((file) => path.basename(file));
  const twice = names.find((name, index) => names.indexOf(name) < index);
  if (twice !== undefined)
    throw new VaultError('usage', `two of the files are named ${twice}`, { hint: 'Save them one by one.' });
  for (const file of files) {
    const bytes = await readEnd(file);
    const key = `${logsPrefix(cluster)}${node}/${at}/${encodeURIComponent(path.basename(file))}.zst`;
    await cluster.vault.bucket.putOnce(key, await pack(bytes, 1), {
      cluster: cluster.name,
      'system-identifier': cluster.systemIdentifier,
      node,
      sha256: sha256Of(bytes),
      size: String(bytes.length),
      'archived-at': at,
    });
    keys.push(key);
  }
  return keys;
}

async function readEnd(file: string): Promise<Buffer> {
  try {
    const handle = await open(file, 'r');
    try {
      const { size } = await handle.stat();
      const length = Math.min(size, MOST_BYTES);
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, size - length);
      return buffer.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (cause) {
    throw new VaultError('local', `cannot read ${file}: ${(cause as Error).message}`, { cause });
  }
}
