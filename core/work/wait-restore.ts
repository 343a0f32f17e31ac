/**
 * restore_command in wait mode (recovery.signal): one process asks the vault until the file is there, or a trigger for this node is, and
 * then seals by itself. No agent is needed; one that runs reports the node and keeps its hands off the promotion.
 *
 * It ends without an answer only where recovery must stop, and where nobody waits for it any more: PostgreSQL, blocked in the command,
 * cannot notice a dead postmaster, so this process does. SIGTERM (a fast stop) ends it as it ends any process.
 */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { tailSegment } from '../cluster/decide-archive.ts';
import {
  decideWait,
  placeForWaiting,
  placeUnderSeal,
  retryPause,
  type WaitAction,
  type WaitState,
} from '../cluster/decide-wait.ts';
import type { Promotion } from '../cluster/facts.ts';
import { runningServer } from '../postgres/pgdata.ts';
import { hasSignalFile } from '../postgres/signal-files.ts';
import { formatLsn, parseLsn } from '../wal/lsn.ts';
import { segmentsFrom } from '../wal/lineage.ts';
import { historyName, isSegmentName, parseWalName } from '../wal/name.ts';
import { readBranch, type Branch } from './branch.ts';
import { readHead, type Cluster } from './cluster.ts';
import { crashPoint } from './crash-points.ts';
import { reportNode } from './heartbeat.ts';
import { isPassing, openNode, type NodeContext } from './node-context.ts';
import { standbyReport } from './node-report.ts';
import {
  isReportDue,
  noteReport,
  readSeal,
  removeDurably,
  writeSeal,
  writeServed,
  type Seal,
} from './node-state.ts';
import { OldLease } from './old-lease.ts';
import { sealPromotion } from './promotion.ts';
import { lookUp, sealedView, viewOf, type Found } from './restore-request.ts';
import { givenUpTo, keepLastSegment, prepareSeal, upToName } from './sealing.ts';
import { Spool } from './spool.ts';
import { fetchFile } from './store-file.ts';
import { triggerPromotion } from './trigger.ts';

/** After this long without any move of the chain the pauses are idle_poll_interval, in ms. */
const QUIET_MS = 5 * 60_000;
/** How often the postmaster is looked for, in ms. */
const LOOK_MS = 1000;
/** Pause after a failure that the vault's return does not end, and that is no fetch, in ms. */
const ODD_PAUSE_MS = 1000;
/** How long a last report may hold up the end of this process, in ms. */
const LAST_REPORT_MS = 2000;

/** Where a name's bytes are; undefined: the vault is silent. */
type Answer = Found | { kept: string } | 'unseen' | undefined;

/**
 * @param stateDir  absolute; the process works in it from here on
 * @param target  absolute: where PostgreSQL wants the file
 * @param say  to the server's log
 * @returns true: it lies at `target`; false: absent, and said so by the seal or, of a history, by the vault
 * @throws VaultError unsafe (recovery must stop, or nobody waits for the answer any more) | unconfigured | copied
 */
export async function waitForFile(
  stateDir: string,
  name: string,
  target: string,
  options: { version: string; say: (text: string) => void },
): Promise<boolean> {
  process.chdir(stateDir);
  const context = openNode(stateDir);
  try {
    return await new Wait(context, name, target, options).run();
  } finally {
    await Promise.race([context.close(), sleep(500)]);
  }
}

class Wait {
  readonly #context: NodeContext;
  readonly #name: string;
  readonly #target: string;
  readonly #version: string;
  readonly #say: (text: string) => void;
  readonly #parent = process.ppid;
  readonly #startedAt = performance.now();
  #branch: Branch | undefined;
  /** The primary was heard of (head moved), and the chain moved, at these moments. */
  #heardAt = performance.now();
  #movedAt = performance.now();
  #failures = 0;
  readonly #oldLease = new OldLease();
  #last: unknown;
  #said: string | undefined;
  #reporting: Promise<void> | undefined;
  #lookedAt = -Infinity;
  #failoverAt = -Infinity;

  constructor(
    context: NodeContext,
    name: string,
    target: string,
    options: { version: string; say: (text: string) => void },
  ) {
    this.#context = context;
    this.#name = name;
    this.#target = target;
    this.#version = options.version;
    this.#say = options.say;
  }

  async run(): Promise<boolean> {
    const { settings } = this.#context;
    this.#report(null);
    for (;;) {
      await this.#checkAwaited();
      let pause =
        performance.now() - this.#movedAt > QUIET_MS ? settings.idlePollInterval : settings.pollInterval;
      pause = Math.max(pause, settings.pollInterval);
      try {
        const { action, found } = await this.#look();
        switch (action.do) {
          case 'absent':
            return false;
          case 'serve':
            if (await this.#serve(found)) {
              await Promise.race([this.#reporting, sleep(LAST_REPORT_MS)]);
              return true;
            }
            pause = retryPause(this.#failures, settings.pollInterval);
            break;
          case 'seal':
            if (await this.#seal()) continue;
            break;
          case 'failover':
            await this.#failover();
            break;
          case 'stop':
            return await this.#stop(action);
          case 'wait':
            this.#tell(action.why);
        }
      } catch (error) {
        if (!(error instanceof VaultError) || error.code === 'unsafe') throw error;
        this.#note(error);
        if (!isPassing(error)) pause = Math.max(pause, ODD_PAUSE_MS);
      }
      this.#report(null);
      await sleep(pause);
    }
  }

  async #look(): Promise<{ action: WaitAction; found: Answer }> {
    const { paths, settings, node } = this.#context;
    const seal = readSeal(paths);
    const cluster = await this.#context.cluster().catch((error: unknown) => this.#silence(error));
    if (seal !== undefined && !(await this.#sealStands(cluster, seal)))
      return { action: { do: 'wait', why: 'the vault has not confirmed the seal' }, found: undefined };
    const branch = seal === undefined && cluster ? await this.#read(cluster) : undefined;
    const view = seal !== undefined ? sealedView(seal, seal.segmentSize) : this.#viewOf(cluster, branch);
    const place = view && (seal !== undefined ? placeUnderSeal : placeForWaiting)(this.#name, view.branch);
    const isSegment = isSegmentName(this.#name);
    const { promotion, flush } = branch?.head ?? { promotion: null, flush: null };
    const asked = promotionFor(node, promotion);
    const state: Omit<WaitState, 'row'> = {
      place,
      isSegment,
      sealed: seal !== undefined,
      promotion: asked,
      isNext: branch !== undefined && cluster !== undefined && this.#name === nameAfterHead(cluster, branch),
      isUpTo: cluster !== undefined && promotion?.upTo !== undefined && this.#isUpTo(cluster, promotion.upTo),
      given:
        asked === 'fast' && cluster && branch
          ? givenUpTo(this.#context, cluster, branch) !== undefined
          : false,
      flushed: Boolean(flush),
      quietMs: performance.now() - this.#heardAt,
      maxWaitMs: settings.restoreMaxWait,
      failures: this.#failures,
      retries: settings.restoreRetries,
    };
    const first = decideWait({ ...state, row: 'silent' });
    if (place !== 'due' && place !== 'perhaps') return { action: first, found: undefined };
    if (first.do !== 'wait') return { action: first, found: undefined };
    const found = this.#kept(seal) ?? (cluster && (await this.#find(cluster, place)));
    const row =
      found === undefined ? 'silent' : found === 'unseen' ? 'unseen' : 'gap' in found ? 'gap' : 'seen';
    return { action: decideWait({ ...state, row }), found };
  }

  /**
   * The gate of wait mode. Archive recovery ends with a checkpoint on the new timeline before recovery_end_command runs (measured, 15 to
   * 18): a server stopped there has written nothing, but can only be made anew. So the vault is asked while recovery.signal is still
   * there, last when PostgreSQL asks for the reserved history, the step before it takes that number.
   *
   * @returns false: the vault is silent, and open_max_wait is not over
   * @throws VaultError unsafe  superseded; the seal is gone, and a restart follows on
   */
  async #sealStands(cluster: Cluster | undefined, seal: Seal): Promise<boolean> {
    const { paths, pgdata, settings } = this.#context;
    if (!(await hasSignalFile(pgdata, 'recovery.signal'))) return true; // too late: `recovered` is the gate now
    const head = cluster && (await readHead(cluster).catch((error: unknown) => this.#silence(error)));
    if (head === undefined)
      return (
        this.#name !== historyName(seal.reserved) ||
        performance.now() - this.#startedAt >= settings.openMaxWait
      );
    if (head.promotion?.id === seal.id) return true;
    removeDurably(paths.seal);
    throw new VaultError(
      'unsafe',
      `the seal of epoch ${seal.epoch} is over: the vault is at epoch ${head.epoch}, which names ${head.promotion?.node ?? 'nobody'}`,
      { hint: 'Start the server again: it has opened nothing, and follows on.' },
    );
  }

  /** What the seal put aside needs no vault. */
  #kept(seal: Seal | undefined): { kept: string } | undefined {
    const kept = `${this.#context.paths.sealed}/${this.#name}`;
    return seal !== undefined && fs.existsSync(kept) ? { kept } : undefined;
  }

  async #find(cluster: Cluster, place: 'due' | 'perhaps'): Promise<Found | 'unseen' | undefined> {
    return lookUp(this.#context, cluster, this.#name, place).catch((error: unknown) => this.#silence(error));
  }

  /** An answer that did not come; a failure that asking again cannot end is thrown. */
  #silence(error: unknown): undefined {
    if (!isPassing(error)) throw error;
    this.#last = error;
    return undefined;
  }

  /** One read of head, and the branch where it changed; undefined: the vault is silent. */
  async #read(cluster: Cluster): Promise<Branch | undefined> {
    try {
      const head = await readHead(cluster);
      const known = this.#branch;
      if (known?.head.rev === head.rev) return known;
      this.#heardAt = performance.now();
      const { lsn, epoch, timeline, tail } = head;
      if (known?.head.lsn !== lsn || known.head.epoch !== epoch || known.head.tail?.lsn !== tail?.lsn)
        this.#movedAt = performance.now();
      this.#branch =
        known?.head.timeline === timeline
          ? { ...known, head }
          : await readBranch(cluster, this.#context.histories, head);
      return this.#branch;
    } catch (error) {
      this.#heardAt = performance.now(); // nobody is heard of while the vault is silent: that says nothing of the primary
      return this.#silence(error);
    }
  }

  #viewOf(cluster: Cluster | undefined, branch: Branch | undefined) {
    return cluster && branch && viewOf(cluster, branch, this.#context.node);
  }

  /** @returns false: it failed, and may be tried again */
  async #serve(found: Answer): Promise<boolean> {
    try {
      if (found === undefined || found === 'unseen' || 'gap' in found) return false;
      const bytes =
        'kept' in found
          ? fs.readFileSync(found.kept)
          : 'text' in found
            ? found.text
            : await fetchFile(await this.#context.cluster(), found.row);
      this.#write(bytes);
      return true;
    } catch (error) {
      if (!(error instanceof VaultError)) throw error;
      if (!isPassing(error)) this.#failures += 1;
      this.#note(error);
      return false;
    }
  }

  /** `served` before the end of this process: PostgreSQL reads the file only then. @throws VaultError local */
  #write(bytes: Uint8Array | string): void {
    try {
      fs.writeFileSync(this.#target, bytes, { mode: 0o600 });
      writeServed(this.#context.paths, this.#name);
    } catch (cause) {
      throw new VaultError('local', `cannot write ${this.#target}: ${(cause as Error).message}`, { cause });
    }
  }

  #note(error: VaultError): void {
    this.#last = error;
    this.#tell(`[${error.code}] ${error.message}`);
  }

  /** Each step looks up what stands, so each may be done again after a kill. @throws VaultError  the step is done again */
  /** @returns false: not yet */
  async #seal(): Promise<boolean> {
    const { node, paths, histories } = this.#context;
    const cluster = await this.#context.cluster();
    const branch = await readBranch(cluster, histories);
    const { promotion } = branch.head;
    if (promotion === null || promotion.node !== node || promotion.state === 'open') return true;
    crashPoint('promote-triggered');
    fs.rmSync(paths.sealed, { recursive: true, force: true });
    const keep = new Spool(paths, paths.sealed);
    let sealed = promotion;
    if (promotion.state === 'triggered') {
      const why = await this.#oldLease.waitsFor(cluster, promotion);
      if (why !== undefined) this.#tell(why.replace(/\d+ s/, 'a while'));
      const at = this.#sealAt(cluster, branch, promotion.mode);
      if (at === undefined || why !== undefined) return false;
      // Before the seal, while a vault that does not answer costs only time.
      await keepLastSegment(this.#context, cluster, branch, at.lsn, keep);
      sealed = await sealPromotion(cluster, { node, ...at }, histories);
      crashPoint('promote-sealed');
    }
    const seal = await prepareSeal(this.#context, cluster, branch, sealed, keep);
    crashPoint('promote-spooled');
    writeSeal(paths, seal);
    crashPoint('promote-seal-written');
    this.#say(
      `${sealed.mode} trigger of epoch ${sealed.epoch}: sealed at ${seal.lsn}, timeline ${seal.reserved} reserved`,
    );
    return true;
  }

  #isUpTo({ segmentSize }: Cluster, upTo: NonNullable<Promotion['upTo']>): boolean {
    return this.#name === upToName(upTo, segmentSize);
  }

  /** undefined: head has moved since it was decided, and there is more to replay. */
  #sealAt(cluster: Cluster, branch: Branch, mode: Promotion['mode']) {
    if (mode === 'fast') return givenUpTo(this.#context, cluster, branch);
    const { head } = branch;
    const upTo = head.promotion?.upTo;
    if (upTo !== undefined)
      return this.#isUpTo(cluster, upTo) ? { timeline: upTo.timeline, lsn: parseLsn(upTo.lsn) } : undefined;
    const unfinished = tailSegment(head, cluster.segmentSize);
    if (head.tail !== null && unfinished !== undefined)
      return this.#name === unfinished
        ? { timeline: head.timeline, lsn: parseLsn(head.tail.lsn) }
        : undefined;
    return head.lsn !== null && this.#name === nameAfterHead(cluster, branch)
      ? { timeline: head.timeline, lsn: parseLsn(head.lsn) }
      : undefined;
  }

  /** restore_max_wait is over: this node triggers itself, as an operator would. A key that may not raise the epoch is refused, and waits on. */
  async #failover(): Promise<void> {
    const { node, settings } = this.#context;
    if (performance.now() - this.#failoverAt < settings.heartbeatInterval) return;
    this.#failoverAt = performance.now();
    this.#say(
      `nothing was heard of the primary for restore_max_wait (${settings.restoreMaxWait / 1000} s): fast failover to ${node}`,
    );
    await triggerPromotion(await this.#context.cluster(), {
      mode: 'fast',
      to: node,
      direct: { open: ({ url }) => this.#context.other(url), lose: false },
    }).catch((error: unknown) => {
      if (!(error instanceof VaultError)) throw error;
      this.#tell(`no failover, still waiting: [${error.code}] ${error.message}`);
    });
  }

  async #stop({ because }: WaitAction & { do: 'stop' }): Promise<never> {
    const { why, hint } = this.#reasonOf(because);
    const error = new VaultError('unsafe', `${this.#name} cannot be restored: ${why}`, {
      cause: this.#last,
      hint,
    });
    await this.#reporting;
    if (because !== 'failures') this.#report(`${why}; ${hint}`, true);
    await Promise.race([this.#reporting, sleep(LAST_REPORT_MS)]);
    throw error;
  }

  #reasonOf(because: (WaitAction & { do: 'stop' })['because']): { why: string; hint: string } {
    const lineage = this.#branch?.lineage ?? [];
    const asked = parseWalName(this.#name)?.timeline;
    if (because === 'ended') {
      const ends = lineage.find(({ timeline }) => timeline === asked)?.ends;
      return {
        why: `timeline ${asked} ended at ${ends ? formatLsn(ends) : 'its fork'}, the live one is ${lineage.at(-1)?.timeline}`,
        hint: 'Start the server again: it follows the live timeline from there.',
      };
    }
    if (because === 'unknown')
      return {
        why: `timeline ${asked} is not on the live branch of the vault`,
        hint: `This server has diverged, or belongs to another cluster: 'walvault rejoin', or 'walvault standby create' into an empty directory.`,
      };
    const last = this.#last instanceof Error ? this.#last.message : String(this.#last);
    return {
      why: `${this.#failures} attempts failed (restore_retries): ${last}`,
      hint: 'Nothing is lost: recovery stops here instead of ending too early. Start the server again when that is mended.',
    };
  }

  /** One line a change: a log that says the same ten times a second is not read. */
  #tell(why: string): void {
    const silent = this.#last instanceof VaultError && why.includes('does not answer');
    const text = silent ? `${why} (${(this.#last as VaultError).message})` : why;
    if (this.#said === text) return;
    // that nothing has come yet is no news, unless something else was said before
    const isNews = this.#said !== undefined || why !== 'it is not archived yet';
    this.#said = text;
    if (isNews || this.#context.settings.logLevel === 'debug')
      this.#say(`waiting for ${this.#name}: ${text}`);
  }

  /** @throws VaultError unsafe  the wrapper or the postmaster is gone, or the node was detached */
  async #checkAwaited(): Promise<void> {
    if (process.ppid !== this.#parent)
      throw this.#nobodyWaits('the restore command that started this is gone');
    if (performance.now() - this.#lookedAt < LOOK_MS) return;
    this.#lookedAt = performance.now();
    if (fs.existsSync(this.#context.paths.detached))
      throw this.#nobodyWaits('this node was detached from its vault');
    if ((await runningServer(this.#context.pgdata).catch(() => undefined)) === undefined)
      throw this.#nobodyWaits('the postmaster is gone');
  }

  #nobodyWaits(why: string): VaultError {
    return new VaultError('unsafe', `nobody waits for ${this.#name} any more: ${why}`);
  }

  /** The node's row, at each heartbeat_interval, by whoever does it: an agent that runs writes it too. */
  #report(trouble: string | null, now = false): void {
    const { paths, settings } = this.#context;
    if (this.#reporting !== undefined && !now) return;
    if (!now && !isReportDue(paths, settings.heartbeatInterval)) return;
    this.#reporting = (async () => {
      const cluster = await this.#context.cluster();
      const report = await standbyReport(this.#context, this.#version);
      await reportNode(cluster, { ...report, trouble });
      noteReport(paths, report.consistent === true);
    })()
      .catch(() => {}) // the loop says what is wrong with the vault
      .finally(() => (this.#reporting = undefined));
  }
}

function promotionFor(node: string, promotion: Promotion | null): WaitState['promotion'] {
  if (promotion === null || promotion.state === 'open') return 'none';
  // a claim is for a server that is open already: not for this one
  if (promotion.node !== node || promotion.mode === 'claim') return 'other';
  return promotion.state === 'sealed' ? 'sealed' : promotion.mode;
}

function nameAfterHead(cluster: Cluster, { head, lineage }: Branch): string | undefined {
  if (head.lsn === null) return undefined;
  return segmentsFrom(lineage, parseLsn(head.lsn), cluster.segmentSize).next().value;
}
