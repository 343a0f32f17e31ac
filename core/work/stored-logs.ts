/**
 * The server logs that save-logs.ts has put into the vault: listed by their keys alone, and fetched, verified.
 */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { replaceFile } from '../postgres/durable-write.ts';
import type { Cluster } from './cluster.ts';
import { logsPrefix } from './save-logs.ts';
import { sha256Of, unpack } from './store-file.ts';

export type StoredLog = {
  node: string;
  /** When it was saved; what was saved together has one time. */
  at: string;
  file: string;
  key: string;
  storedBytes: number;
};

export type LogFilter = {
  node?: string | undefined;
  /** ISO time. */
  since?: string | undefined;
  /** Only what each node saved last. */
  last?: boolean;
};

/** By node, oldest first. @throws VaultError unreachable */
export async function listLogs(cluster: Cluster, filter: LogFilter = {}): Promise<StoredLog[]> {
  const prefix = logsPrefix(cluster);
  const found: StoredLog[] = [];
  const under = filter.node === undefined ? prefix : `${prefix}${filter.node}/`;
  for await (const { key, sizeBytes } of cluster.vault.bucket.list(under)) {
    const log = parseKey(key, prefix, sizeBytes);
    if (log !== undefined && log.at >= (filter.since ?? '')) found.push(log);
  }
  if (filter.last !== true) return found;
  const latest = new Map<string, string>();
  for (const { node, at } of found) if (at > (latest.get(node) ?? '')) latest.set(node, at);
  return found.filter(({ node, at }) => at === latest.get(node));
}

/** A key says where a file is written: what is no plain name is passed over, whoever put it there. */
function parseKey(key: string, prefix: string, storedBytes: number): StoredLog | undefined {
  const [, node, at, encoded] = /^([^/]+)\/([^/]+)\/([^/]+)\.zst$/.exec(key.slice(prefix.length)) ?? [];
  if (node === undefined || at === undefined || encoded === undefined) return undefined;
  let file: string;
  try {
    file = decodeURIComponent(encoded);
  } catch {
    return undefined;
  }
  const isPlain = [node, at, file].every((part) => !/^\.\.?$|[/\0]/.test(part));
  return isPlain ? { node, at, file, key, storedBytes } : undefined;
}

/**
 * Writes them as <directory>/<node>/<time>/<file>; again over what was fetched before.
 *
 * @returns the files @throws VaultError corrupt | local | unreachable
 */
export async function fetchLogs(
  cluster: Cluster,
  logs: readonly StoredLog[],
  directory: string,
): Promise<string[]> {
  const made: string[] = [];
  for (const log of logs) {
    const bytes = await readLog(cluster, log);
    const folder = path.resolve(directory, log.node, log.at);
    const file = path.join(folder, log.file);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await replaceFile(file, bytes);
    } catch (cause) {
      throw new VaultError('local', `cannot write ${file}: ${(cause as Error).message}`, { cause });
    }
    made.push(file);
  }
  return made;
}

async function readLog({ vault: { bucket } }: Cluster, { key }: StoredLog): Promise<Buffer> {
  const stored = await bucket.get(key);
  const facts = await bucket.facts(key);
  if (stored === undefined || facts === undefined)
    throw new VaultError('corrupt', `${key} was listed, and is gone`);
  const bytes = await unpack(stored, Number(facts['size'])).catch((cause: unknown) => {
    throw new VaultError('corrupt', `${key} does not unpack`, { cause });
  });
  if (sha256Of(bytes) !== facts['sha256']) throw new VaultError('corrupt', `${key} is not what was saved`);
  return bytes;
}
