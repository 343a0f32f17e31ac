/**
 * `archiving off --local`: archiving is off for this node, by a word that lies in its state directory, for the day on which pg_wal fills
 * because the vault cannot be reached.
 *
 * What is ignored meanwhile is written down here, fsynced, before PostgreSQL is told that it need not keep it. At the next contact it is
 * declared in the vault, in order and before anything else is archived: nothing can be committed past it, since head stands where it
 * begins. What is declared is struck off here afterwards; done twice it changes nothing.
 */
import { VaultError } from '../errors.ts';
import { gapOf, ignoringText, segmentsOf } from '../cluster/gaps.ts';
import { isSegmentName, nextSegment } from '../wal/name.ts';
import { objectKeys, type Cluster } from './cluster.ts';
import { COMMIT_BATCH, commitFiles } from './commit.ts';
import { crashPoint } from './crash-points.ts';
import type { HistoryCache } from './branch.ts';
import { readText, removeDurably, replaceDurably, type StatePaths } from './node-state.ts';
import type { WriterSeat } from './writer.ts';

/** archiving.json, which only the command writes; absent: nothing was said here. */
export type LocalWord = { off: true; at: string };

/** ignored.json, which only the holder of the node's lock writes: segments that are not declared in the vault yet, oldest first. */
export type Ignored = { from: string; to: string }[];

/** `off --local` stands here. @throws VaultError local (it cannot be read, or is damaged: nothing may be answered then) */
export const readLocalWord = (paths: StatePaths): LocalWord | undefined =>
  readJson<LocalWord>(paths.archiving);

/** @throws VaultError local */
export const readIgnored = (paths: StatePaths): Ignored => readJson<Ignored>(paths.ignored) ?? [];

function readJson<T>(file: string): T | undefined {
  const text = readText(file);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new VaultError('local', `${file} is damaged: ${(cause as Error).message}`, { cause });
  }
}

function write(file: string, content: object | undefined): void {
  try {
    if (content === undefined) removeDurably(file);
    else replaceDurably(file, `${JSON.stringify(content)}\n`);
  } catch (cause) {
    throw new VaultError('local', `cannot write ${file}: ${(cause as Error).message}`, { cause });
  }
}

/** The word of a person. @returns false where it stood so already @throws VaultError local */
export function setLocalWord(paths: StatePaths, off: boolean, at: string): boolean {
  if ((readLocalWord(paths) !== undefined) === off) return false;
  write(paths.archiving, off ? { off, at } : undefined);
  return true;
}

/** Writes down that these files are ignored; durable when it returns. Only segments are missed by anybody. @throws VaultError local */
export function ignoreHere(paths: StatePaths, names: readonly string[], segmentSize: number): void {
  const before = readIgnored(paths);
  const ignored = before.map((range) => ({ ...range }));
  for (const name of names.filter(isSegmentName)) {
    if (gapOf(ignored, name) !== undefined) continue;
    const last = ignored.at(-1);
    if (last !== undefined && nextSegment(last.to, segmentSize) === name) last.to = name;
    else ignored.push({ from: name, to: name });
  }
  if (JSON.stringify(ignored) !== JSON.stringify(before)) write(paths.ignored, ignored);
  crashPoint('ignored-here');
}

/** The line for the server's log. @param cluster  undefined: it was not opened since this agent started */
export function ignoredHereText(name: string, cluster: Cluster | undefined): string {
  const key =
    cluster === undefined
      ? `…/wal/${name.slice(0, 8)}/${name}-*.zst`
      : objectKeys.walStem(cluster, name, undefined);
  return `${ignoringText(name, key)}: off on this node alone, by --local`;
}

/**
 * Declares in the vault what was ignored here. Called before anything is archived, and when the vault answers again.
 *
 * @returns how many segments were declared
 * @throws VaultError hole (what was spilled has to come home first) | fenced | copied | unreachable …  what is not declared yet stays
 */
export async function declareIgnored(
  cluster: Cluster,
  seat: WriterSeat,
  paths: StatePaths,
  cache?: HistoryCache,
): Promise<number> {
  let declared = 0;
  for (;;) {
    const [first] = readIgnored(paths);
    if (first === undefined) return declared;
    const names: string[] = [];
    for (const name of segmentsOf(first, cluster.segmentSize)) {
      if (names.length >= COMMIT_BATCH) break;
      names.push(name);
    }
    const files = names.map((name) => ({ name, sha256: undefined, unstored: true }) as const);
    const offHere = `archiving off --local on ${seat.node}`;
    const results = await commitFiles(cluster, seat, files, cache, { offHere });
    crashPoint('local-declared');
    declared += results.filter(({ result }) => result === 'gap').length;
    strike(paths, names.slice(0, results.length), cluster.segmentSize);
  }
}

/** They are in the vault's manifest now. What was ignored meanwhile stays. */
function strike(paths: StatePaths, names: readonly string[], segmentSize: number): void {
  const last = names.at(-1);
  const [first, ...rest] = readIgnored(paths);
  if (last === undefined || first === undefined) return;
  const left = last < first.to ? [{ from: nextSegment(last, segmentSize), to: first.to }, ...rest] : rest;
  write(paths.ignored, left.length === 0 ? undefined : left);
}
