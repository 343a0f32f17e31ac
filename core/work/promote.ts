/**
 * A promotion, on its target: seal in the vault, put what PostgreSQL will still ask for into the spool, write the seal here, ask
 * PostgreSQL to promote; later open the new timeline. Each step looks up what stands, so each may be done again after a kill.
 *
 *   smart   sealed only when PostgreSQL itself asked for the name after head since the trigger was seen: it has consumed everything
 *   fast    sealed at the end of what it was given; nothing more is given from the moment the trigger is seen
 *
 * After the seal restore answers from seal and spool: one "not yet" after the promote would end recovery early without a message
 * (measured). Histories below the reserved number exist, that one does not: PostgreSQL then takes just that number (15 to 18).
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { tailSegment } from '../cluster/decide-archive.ts';
import type { Promotion } from '../cluster/facts.ts';
import { readControl as readControlFile, serverRun } from '../postgres/pgdata.ts';
import { promote } from '../postgres/server.ts';
import { hasSignalFile, recoveryMode } from '../postgres/signal-files.ts';
import { withConnection } from '../postgres/sql.ts';
import { readWalFile } from '../postgres/wal-directory.ts';
import { parseLsn, type Lsn } from '../wal/lsn.ts';
import { hex8, historyName, isSegmentName } from '../wal/name.ts';
import type { Branch } from './branch.ts';
import { readHead, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { bootMs } from './boot-clock.ts';
import type { Follower } from './follow.ts';
import type { LeaseKeeper } from './lease.ts';
import { inWords, type Journal } from './journal.ts';
import { isPassing, type NodeContext } from './node-context.ts';
import { readSeal, readServed, removeDurably, replaceDurably, writeSeal, type Seal } from './node-state.ts';
import { OldLease } from './old-lease.ts';
import { openPromotion, sealPromotion } from './promotion.ts';
import { givenUpTo, keepLastSegment, prepareSeal, upToName } from './sealing.ts';
import type { Spool } from './spool.ts';

/** How long after a promote signal a standby that still recovers is asked again, in ms. */
const ASK_AGAIN_MS = 5000;

export class Promoter {
  readonly #context: NodeContext;
  readonly #journal: Journal;
  readonly #spool: Spool;
  readonly #follower: Follower;
  readonly #oldLease = new OldLease();
  #seen: string | undefined;
  #askedAt = -Infinity;
  /** The last segment whose file the agent gave to a hook; the hook may not have written `served` yet. */
  lastGiven: string | undefined;

  constructor(context: NodeContext, journal: Journal, spool: Spool, follower: Follower) {
    this.#context = context;
    this.#journal = journal;
    this.#spool = spool;
    this.#follower = follower;
  }

  /**
   * The next step, if there is one. Called at each poll.
   *
   * @throws VaultError unreachable …  the step is done again
   */
  async step(branch: Branch): Promise<void> {
    const { promotion } = branch.head;
    const me = this.#context.node;
    if (promotion === null || promotion.node !== me || promotion.state === 'open') {
      this.#seen = undefined;
      return;
    }
    const cluster = await this.#context.cluster();
    if (promotion.state === 'sealed') return this.#afterSeal(cluster, branch, promotion);
    if (this.#seen !== promotion.id) {
      this.#seen = promotion.id;
      this.#journal.state(
        'promotion',
        `trigger ${promotion.mode} of epoch ${promotion.epoch} names this node`,
      );
      this.#follower.asked.clear(); // what was asked before the trigger proves nothing after a restart of the server
      crashPoint('promote-triggered');
      if (promotion.mode === 'smart') await this.#resumeReplay();
    }
    const why = await this.#oldLease.waitsFor(cluster, promotion);
    if (why !== undefined) return this.#journal.state('promotion', why);
    const at =
      promotion.mode === 'smart'
        ? await this.#consumed(cluster, branch)
        : givenUpTo(this.#context, cluster, branch, this.lastGiven);
    if (at === undefined) {
      if (promotion.mode === 'fast')
        this.#journal.state('promotion', 'fast trigger: PostgreSQL was not given any segment yet');
      return;
    }
    this.#spool.open(cluster, branch.head.epoch);
    // Before the seal, while a vault that does not answer costs only time.
    await keepLastSegment(this.#context, cluster, branch, at.lsn, this.#spool);
    const sealed = await sealPromotion(cluster, { node: me, ...at }, this.#context.histories);
    crashPoint('promote-sealed');
    await this.#afterSeal(cluster, branch, sealed);
  }

  /**
   * Does the seal still hold? One of an epoch that is over must not be pursued: another node was named since.
   *
   * @returns gate: it is over, but PostgreSQL may be promoting just now, so the seal stays, and `recovered` decides; over: it is gone
   */
  async standing(seal: Seal): Promise<'stands' | 'gate' | 'over'> {
    const { pgdata, paths } = this.#context;
    try {
      const head = await readHead(await this.#context.cluster());
      if (head.promotion?.id === seal.id && head.promotion.state !== 'triggered') return 'stands';
      this.#journal.state(
        'promotion',
        `the seal of epoch ${seal.epoch} is over: the vault is at epoch ${head.epoch}`,
      );
      // PostgreSQL takes `promote` away as soon as it has seen it, and its signal file only at the end of recovery
      const isAsked = seal.asked !== undefined && seal.asked === (await serverRun(pgdata));
      if (isAsked || (await recoveryMode(pgdata)) !== 'standby' || (await hasSignalFile(pgdata, 'promote')))
        return 'gate';
      fs.rmSync(paths.seal, { force: true }); // a standby that was not asked follows on
      return 'over';
    } catch {
      return 'stands'; // silence ends nothing
    }
  }

  /** With the seal written here: PostgreSQL is asked to promote, and asked again where it still recovers. */
  async pursue(seal: Seal): Promise<void> {
    if (performance.now() - this.#askedAt < ASK_AGAIN_MS) return;
    if (!(await hasSignalFile(this.#context.pgdata, 'standby.signal'))) return; // it has begun, or is done
    // PostgreSQL writes it only after it has removed its signal file, which lies there again: asked once more it would take another number
    if ((await newHistory(this.#context, seal)) !== undefined)
      return this.#journal.state(
        'promotion',
        `timeline ${seal.reserved} was taken here, and the gate was closed: not promoted again. Trigger another standby with --supersede ${seal.epoch}, and make this one anew by 'walvault rejoin'`,
      );
    this.#askedAt = performance.now();
    this.#follower.words.clear();
    await this.#resumeReplay();
    this.#noteAsked(seal, await serverRun(this.#context.pgdata));
    await promote(this.#context.pgdata);
    this.#journal.state(
      'promotion',
      `PostgreSQL is asked to promote: sealed at ${seal.lsn}, timeline ${seal.reserved} reserved`,
    );
    crashPoint('promote-signalled');
  }

  /** Before it is asked, so that who kills the agent in between leaves a standby that waits, and none that opens with no gate. */
  #noteAsked({ id }: Seal, run: string | undefined): void {
    const seal = readSeal(this.#context.paths); // the gate may have removed it meanwhile
    if (run !== undefined && seal?.id === id && seal.asked !== run)
      writeSeal(this.#context.paths, { ...seal, asked: run });
  }

  /**
   * smart: PostgreSQL asked for the name after head, on head's timeline, since the trigger was seen. With a tail that name is the tail's
   * segment: it was given, and either replayed to the tail's end (so says the server) or asked for again after it was read.
   */
  async #consumed(cluster: Cluster, branch: Branch): Promise<{ timeline: number; lsn: Lsn } | undefined> {
    const { head } = branch;
    const upTo = head.promotion?.upTo;
    if (upTo !== undefined) {
      // triggered with a gap ahead: it asked for the gap's first segment, so it has all that comes before
      const isAsked = this.#follower.hasAsked(upToName(upTo, cluster.segmentSize));
      return isAsked ? { timeline: upTo.timeline, lsn: parseLsn(upTo.lsn) } : undefined;
    }
    const unfinished = tailSegment(head, cluster.segmentSize);
    if (head.tail !== null && unfinished !== undefined) {
      const end = parseLsn(head.tail.lsn);
      const given = readServed(this.#context.paths) === unfinished && this.#follower.hasAsked(unfinished);
      const replayed = await this.#replayedTo();
      if (replayed === undefined ? !given : replayed < end) return undefined;
      return { timeline: head.timeline, lsn: end };
    }
    const next = this.#follower.nameAfterHead(cluster, branch);
    if (head.lsn === null || next === undefined) return undefined;
    // A standby that also streamed is ahead of the vault, and asks for a later name.
    const later = [...this.#follower.asked].some(
      (name) => isSegmentName(name) && name.startsWith(hex8(head.timeline)) && name > next,
    );
    if (!later && !this.#follower.hasAsked(next)) return undefined;
    return { timeline: head.timeline, lsn: parseLsn(head.lsn) };
  }

  /** What the server says it has replayed; undefined: it takes no connections (warm). */
  async #replayedTo(): Promise<Lsn | undefined> {
    const rows = await askServer<{ lsn: string | null }>(
      this.#context,
      'select pg_last_wal_replay_lsn()::text as lsn',
    ).catch(() => []);
    const lsn = rows[0]?.lsn;
    return lsn === undefined || lsn === null ? undefined : parseLsn(lsn);
  }

  async #afterSeal(cluster: Cluster, branch: Branch, sealed: Promotion): Promise<void> {
    this.#spool.open(cluster, branch.head.epoch);
    const seal = await prepareSeal(this.#context, cluster, branch, sealed, this.#spool);
    crashPoint('promote-spooled');
    writeSeal(this.#context.paths, seal);
    crashPoint('promote-seal-written');
    this.#follower.words.clear();
    this.#askedAt = -Infinity;
    await this.pursue(seal);
  }

  /** A promotion while replay is paused ignores all that was not asked for (measured). Without connections (warm) there is no pause. */
  async #resumeReplay(): Promise<void> {
    await askServer(this.#context, 'select pg_wal_replay_resume() where pg_is_wal_replay_paused()').catch(
      () => {},
    );
  }
}

/** One query to the server of this node. @throws VaultError unreachable | denied … (hot_standby = off: nobody gets in) */
export async function askServer<Row extends object>(context: NodeContext, query: string): Promise<Row[]> {
  const { pgHost, pgPort, pgUser, pgDatabase } = context.settings;
  const options = {
    pgdata: context.pgdata,
    settings: { pgHost, pgPort, pgUser, pgDatabase },
    timeoutMs: 2000,
  };
  return withConnection(options, async (client) => (await client.query<Row>(query)).rows);
}

export type OpenOutcome =
  | { done: 'opened' | 'nothing' }
  /** A newer epoch names another node: the server must go down before its first write. */
  | { done: 'gate'; why: string }
  /** The vault was silent, or PostgreSQL has not done its part: opened unconfirmed. */
  | { done: 'unconfirmed'; why: string };

/**
 * Opens the sealed promotion, asking the vault until `limitMs` is over. By `recovered` (PostgreSQL waits), by the agent afterwards, or
 * by the archive path when it is handed the history file.
 */
export async function openSealed(
  context: NodeContext,
  journal: Journal | undefined,
  limitMs: number,
  lease?: LeaseKeeper,
): Promise<OpenOutcome> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const seal = readSeal(context.paths);
    if (seal === undefined) return { done: 'nothing' };
    try {
      await lease?.needWatchdog(); // nobody would stop it at the end of its lease
    } catch (error) {
      if (!(error instanceof VaultError)) throw error;
      return { done: 'gate', why: error.message };
    }
    const historyText = await newHistory(context, seal);
    if (historyText === undefined) {
      return {
        done: 'unconfirmed',
        why: `PostgreSQL did not take timeline ${seal.reserved}, which was reserved for it`,
      };
    }
    const taken = await takenTimeline(context.pgdata);
    if (taken > seal.reserved)
      return { done: 'gate', why: `it took timeline ${taken}, and ${seal.reserved} was reserved for it` };
    crashPoint('open-asked');
    try {
      const cluster = await context.cluster();
      const readSegment = (name: string) => readWalFile(path.join(context.pgdata, 'pg_wal'), name);
      const sentAt = lease?.terms === undefined ? 0 : bootMs();
      await openPromotion(
        cluster,
        context.seat,
        { timeline: seal.reserved, historyText, readSegment, leaseMs: lease?.terms?.ms },
        context.histories,
      );
      lease?.begin(sentAt, seal.epoch);
      crashPoint('open-committed');
      replaceDurably(
        context.paths.opened,
        `${JSON.stringify({ epoch: seal.epoch, timeline: seal.reserved })}\n`,
      );
      removeDurably(context.paths.seal);
      fs.rmSync(context.paths.sealed, { recursive: true, force: true });
      journal?.state(
        'promotion',
        `timeline ${seal.reserved} is open: this node is the primary of epoch ${seal.epoch}`,
      );
      return { done: 'opened' };
    } catch (error) {
      if (error instanceof VaultError && (error.code === 'fenced' || error.code === 'copied'))
        return { done: 'gate', why: error.message };
      if (!isPassing(error)) throw error;
      journal?.state(
        'promotion',
        `the vault cannot be told that timeline ${seal.reserved} is open: ${inWords(error)}`,
      );
      if (performance.now() >= deadline)
        return { done: 'unconfirmed', why: `the vault did not answer (${inWords(error)})` };
    }
    await sleep(200);
  }
}

/** The history that PostgreSQL wrote for the reserved timeline, once its end of recovery stands in pg_control (or `recovered` runs). */
async function newHistory(context: NodeContext, seal: Seal): Promise<string | undefined> {
  const file = path.join(context.pgdata, 'pg_wal', historyName(seal.reserved));
  return fs.promises.readFile(file, 'utf8').catch(() => undefined);
}

/** Has PostgreSQL taken this timeline for good? Until its end-of-recovery record a crash throws it back to the old one. */
export async function hasTaken(pgdata: string, timeline: number): Promise<boolean> {
  return (await takenTimeline(pgdata)) >= timeline;
}

async function takenTimeline(pgdata: string): Promise<number> {
  const { timeline, minRecoveryTimeline } = await readControlFile(pgdata);
  return Math.max(timeline, minRecoveryTimeline);
}
