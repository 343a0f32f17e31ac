/**
 * Following: on a standby the agent reads head at each poll, fetches the next segments ahead of PostgreSQL, and keeps the "not yet" words
 * of just the two names that PostgreSQL asks for when it has everything.
 *
 * It is pulled by what PostgreSQL asked for or was served last, never by a position of its own. A word is given only after a read of
 * head said so, and is gone with the poll that says otherwise.
 */
import { segmentsFrom } from '../wal/lineage.ts';
import { historyName, isSegmentName, parseWalName, segmentEnd, segmentStart } from '../wal/name.ts';
import { parseLsn, type Lsn } from '../wal/lsn.ts';
import { placeOnBranch } from '../cluster/decide-restore.ts';
import { tailSegment } from '../cluster/decide-archive.ts';
import type { GapRow, Head } from '../cluster/facts.ts';
import { gapOf, gapText } from '../cluster/gaps.ts';
import { readBranch, readHistory, type Branch } from './branch.ts';
import { readHead, type Cluster } from './cluster.ts';
import { readGaps } from './gap-rows.ts';
import { inWords, type Journal } from './journal.ts';
import type { NodeContext } from './node-context.ts';
import { readServed, servedAt, WORD_COUNT, Words } from './node-state.ts';
import { RESERVED_HISTORY, viewOf, type RestoreView } from './restore-request.ts';
import type { Spool } from './spool.ts';
import { findSegment } from './tail.ts';

/** After this long without any change of head the poll slows down to idlePollInterval, in ms. */
export const QUIET_MS = 5 * 60_000;
/** How long a tail that was given is not given again, in ms. */
const TAIL_AGAIN_MS = 5000;
/** Raw bytes being fetched at once. */
const MEMORY = 256 * 1024 * 1024;
/** While the own promotion waits to be sealed: a word that is told from one that a wrapper writes back late. */
export const WATCHED_WORD = 2 * WORD_COUNT;

export class Follower {
  readonly #context: NodeContext;
  readonly #journal: Journal;
  readonly #spool: Spool;
  readonly words: Words;
  #branch: Branch | undefined;
  #changedAt = performance.now();
  /** Where the next segment that PostgreSQL wants begins, as far as is known. */
  #wanted: Lsn | undefined;
  #servedSeen: string | undefined;
  #servedAt = 0;
  /** The tail of the live timeline, and when PostgreSQL was last given it. */
  #tail: { name: string; lsn: string; givenAt?: number } | undefined;
  /** Declared gaps, as of this head.gap. */
  #gaps: { of: string; rows: readonly GapRow[] } = { of: 'null', rows: [] };
  #lastAsked: string | undefined;
  /** Names asked for while another node's promotion holds everybody: their words save the questions. */
  #held = new Set<string>();
  /** Asked for since this moment by PostgreSQL itself: what a smart promotion waits for. */
  readonly asked = new Set<string>();

  constructor(context: NodeContext, journal: Journal, spool: Spool) {
    this.#context = context;
    this.#journal = journal;
    this.#spool = spool;
    this.words = new Words(context.paths);
  }

  get branch(): Branch | undefined {
    return this.#branch;
  }

  /** ms until the next poll. */
  get interval(): number {
    const { pollInterval, idlePollInterval } = this.#context.settings;
    return performance.now() - this.#changedAt > QUIET_MS
      ? Math.max(pollInterval, idlePollInterval)
      : pollInterval;
  }

  /** PostgreSQL asked for this name (through the bundle). */
  note(name: string, cluster: Cluster): void {
    this.asked.add(name);
    if (this.asked.size > 64) this.asked.delete(this.asked.values().next().value!);
    if (!isSegmentName(name)) return;
    this.#lastAsked = name;
    try {
      this.#wanted = segmentStart(name, cluster.segmentSize);
    } catch {
      // a name of another segment size: decideRestore refuses it
    }
  }

  /** Answers "not yet" for this name while the promotion of another node lasts. */
  hold(name: string): void {
    this.#held.add(name);
    if (this.#held.size > 8) this.#held.delete(this.#held.values().next().value!);
  }

  /** One read of head, and the branch where it changed. @throws VaultError unreachable … */
  async read(cluster: Cluster): Promise<Branch> {
    const head = await readHead(cluster);
    const known = this.#branch;
    if (known !== undefined && known.head.rev === head.rev) return known;
    const same = known !== undefined && known.head.timeline === head.timeline;
    if (known === undefined || !sameChain(known.head, head)) this.#changedAt = performance.now();
    const next = same ? { ...known, head } : await readBranch(cluster, this.#context.histories, head);
    // Two reads may overlap; an older answer must not take the place of a newer one.
    if (this.#branch === undefined || next.head.rev >= this.#branch.head.rev) {
      this.#branch = next;
      this.#noteTail(cluster, next.head); // before anybody is served by what was read
    }
    return this.#branch;
  }

  /** One poll. @throws VaultError unreachable … (words run out by themselves meanwhile) */
  async poll(): Promise<Branch> {
    const cluster = await this.#context.cluster();
    const branch = await this.read(cluster);
    const { head } = branch;
    const view = viewOf(cluster, branch, this.#context.node);
    this.#spool.open(cluster, head.epoch);
    this.#noteServed(cluster);
    await this.#noteGaps(cluster, head);
    const mine = head.promotion?.state === 'triggered' && head.promotion.node === this.#context.node;
    this.#setWords(cluster, branch, view, mine);
    if (view.held || (mine && head.promotion?.mode === 'fast')) this.#spool.empty();
    else {
      this.#prefetch(cluster, branch, view);
      await this.#spoolHistories(cluster, head);
    }
    this.#journal.state(
      'follow',
      `following ${cluster.vault.url}, timeline ${head.timeline}, epoch ${head.epoch}`,
    );
    return branch;
  }

  /** A tail that grew, or gave way to the finished segment: what was fetched of it is no longer the answer. */
  #noteTail(cluster: Cluster, head: Head): void {
    const name = tailSegment(head, cluster.segmentSize);
    const now = name === undefined ? undefined : { name, lsn: head.tail!.lsn };
    if (this.#tail?.name === now?.name && this.#tail?.lsn === now?.lsn) return;
    if (this.#tail !== undefined) this.#spool.remove(this.#tail.name);
    this.#tail = now;
  }

  /** The tail was given a moment ago. PostgreSQL asks for it again at each interval; it is given again now and then, for a restart. */
  get #restsOnTail(): boolean {
    return this.#tail?.givenAt !== undefined && performance.now() - this.#tail.givenAt < TAIL_AGAIN_MS;
  }

  /** Nothing past a gap is ever asked for by a server that stands before it; that it does is said once. */
  async #noteGaps(cluster: Cluster, head: Head): Promise<void> {
    const of = JSON.stringify(head.gap ?? null);
    if (of !== this.#gaps.of) this.#gaps = { of, rows: await readGaps(cluster, head) };
    const gap = this.#lastAsked === undefined ? undefined : gapOf(this.#gaps.rows, this.#lastAsked);
    if (gap !== undefined)
      this.#journal.state(
        'gap',
        `stands before a declared gap, ${gapText(gap)} (${gap.reason}): it cannot go past it, make it anew by 'walvault standby create'`,
      );
  }

  #noteServed(cluster: Cluster): void {
    const served = readServed(this.#context.paths);
    const at = servedAt(this.#context.paths);
    if (served !== undefined && served === this.#tail?.name && at !== this.#servedAt) {
      this.#tail.givenAt = performance.now();
      this.asked.delete(served); // from here on, asking for it again means that it was read
    }
    this.#servedAt = at;
    if (served === undefined || served === this.#servedSeen) return;
    this.#servedSeen = served;
    this.#wanted = segmentEnd(served, cluster.segmentSize);
    this.#changedAt = performance.now();
  }

  /** The name after head, on the live branch; undefined where nothing was archived yet. */
  nameAfterHead(cluster: Cluster, branch: Branch): string | undefined {
    if (branch.head.lsn === null) return undefined;
    return segmentsFrom(branch.lineage, parseLsn(branch.head.lsn), cluster.segmentSize).next().value;
  }

  #setWords(cluster: Cluster, branch: Branch, view: RestoreView, mine: boolean): void {
    const counts = new Map<string, number>();
    if (!view.held) this.#held.clear();
    for (const name of this.#held) counts.set(name, WORD_COUNT);
    const next = this.nameAfterHead(cluster, branch);
    if (!view.held) {
      if (next !== undefined && (next !== this.#tail?.name || this.#restsOnTail))
        counts.set(next, mine ? WATCHED_WORD : WORD_COUNT);
      counts.set(historyName(view.branch.nextTimeline), WORD_COUNT);
      // no waiting helps; the own promotion has to see that it is asked for
      const asked = this.#lastAsked;
      if (!mine && asked !== undefined && gapOf(this.#gaps.rows, asked) !== undefined)
        counts.set(asked, WORD_COUNT);
    }
    this.words.set(counts);
  }

  #prefetch(cluster: Cluster, branch: Branch, view: RestoreView): void {
    if (this.#wanted === undefined) return;
    const { prefetchCount, prefetchBytes, uploadParallel } = this.#context.settings;
    const size = cluster.segmentSize;
    const count = Math.max(1, Math.min(prefetchCount, Math.floor(prefetchBytes / size)));
    const most = Math.max(1, Math.min(uploadParallel, Math.floor(MEMORY / (size * 2))));
    const window: string[] = [];
    for (const name of segmentsFrom(branch.lineage, this.#wanted, size)) {
      if (window.length >= count || placeOnBranch(name, view.branch) !== 'due') break;
      if (gapOf(this.#gaps.rows, name) !== undefined) break;
      window.push(name);
    }
    for (const name of this.#spool.segments()) {
      if (!window.includes(name) && name !== this.#lastAsked) this.#spool.remove(name);
    }
    for (const name of window) {
      if (this.#spool.fetchingCount >= most) break;
      if (this.#spool.has(name) || this.#spool.isFetching(name)) continue;
      if (name === this.#tail?.name && this.#restsOnTail) continue;
      void this.#fetch(cluster, name);
    }
  }

  /** A server that starts asks for every history from 2 on, one Node start each: after many switches that took half a minute. */
  async #spoolHistories(cluster: Cluster, head: Head): Promise<void> {
    for (let timeline = 2; timeline <= head.timeline; timeline++) {
      const name = historyName(timeline);
      if (this.#spool.has(name)) continue;
      // Below the live timeline and without a row: the number was given up, and is never used again.
      const row = await readHistory(cluster, timeline, this.#context.histories);
      await this.#spool.put(name, row?.text ?? RESERVED_HISTORY);
    }
  }

  async #fetch(cluster: Cluster, name: string): Promise<void> {
    try {
      const row = await findSegment(cluster, name);
      if (row === undefined) return;
      await this.#spool.fetch(cluster, row);
      this.#journal.count('fetched');
    } catch (error) {
      this.#journal.state(
        `fetch ${parseWalName(name)?.timeline}`,
        `${name} cannot be fetched ahead: ${inWords(error)}`,
      );
    }
  }

  /** Has PostgreSQL asked for `name` since `watch()` began? By the bundle, or by the wrapper, which counts the word down. */
  hasAsked(name: string): boolean {
    const left = this.words.left(name);
    return this.asked.has(name) || (left !== undefined && left < WATCHED_WORD && left > WORD_COUNT);
  }

  forget(): void {
    this.asked.clear();
    this.#branch = undefined;
  }
}

/** Nothing moved but a primary's nonce. */
function sameChain(one: Head, other: Head): boolean {
  return (
    one.lsn === other.lsn &&
    one.epoch === other.epoch &&
    one.timeline === other.timeline &&
    one.tail?.lsn === other.tail?.lsn &&
    one.gap?.to === other.gap?.to &&
    one.promotion?.state === other.promotion?.state
  );
}
