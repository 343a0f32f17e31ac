/**
 * roles = "external": looks whether this node's server was promoted by somebody else, and claims the next epoch for it where that loses
 * nothing (core/cluster/decide-external.ts). Part of the agent; does nothing where roles = "own".
 */
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { decideExternal, type ExternalDecision, type ExternalFacts } from '../cluster/decide-external.ts';
import type { Control, WalRow } from '../cluster/facts.ts';
import { readControl as readControlFile, runningServer } from '../postgres/pgdata.ts';
import { recoveryMode } from '../postgres/signal-files.ts';
import { IN_PRODUCTION } from '../wal/control-file.ts';
import { readWalFile } from '../postgres/wal-directory.ts';
import { parseHistory } from '../wal/history.ts';
import { segmentsFrom } from '../wal/lineage.ts';
import { formatLsn, type Lsn } from '../wal/lsn.ts';
import { historyName, segmentStart } from '../wal/name.ts';
import { walkRecords, type Carry } from '../wal/records.ts';
import { readBranch, readHistory, type Branch } from './branch.ts';
import { readControl, type Cluster } from './cluster.ts';
import { inWords, type Journal } from './journal.ts';
import { isPassing, type NodeContext } from './node-context.ts';
import { checkAttached, readSeal, replaceDurably } from './node-state.ts';
import { claimRole, FILL_LIMIT, openPromotion } from './promotion.ts';
import { fetchFile } from './store-file.ts';
import { findSegment } from './tail.ts';

/** How soon a claim that a silent vault held up is tried again, in ms. */
const AGAIN_MS = 1000;

type Promoted = { timeline: number; historyText: string };

export class ExternalRoles {
  readonly #context: NodeContext;
  readonly #journal: Journal;
  readonly #claimed: () => void;
  /** The timeline of which is known that there is nothing to claim as long as the server is on it. */
  #settled: number | undefined;
  #nextAt = -Infinity;
  #looking: Promise<void> | undefined;
  /** Of one refusal, so that the bucket is not read again at each look. */
  #examined: { of: string; archivedTo: Lsn } | undefined;
  /** Why this server, promoted outside of walvault, is not the primary; undefined: it was not, or nothing is known. */
  why: string | undefined;

  /** @param claimed  called when this node has become the primary */
  constructor(context: NodeContext, journal: Journal, claimed: () => void) {
    this.#context = context;
    this.#journal = journal;
    this.#claimed = claimed;
  }

  /** One look, where it is due; cheap where nothing has changed. Never throws: what keeps it from a claim is `why`. */
  async look(): Promise<void> {
    if (this.#context.settings.roles !== 'external') return;
    this.#looking ??= this.#lookOnce().finally(() => (this.#looking = undefined));
    await this.#looking;
  }

  async #lookOnce(): Promise<void> {
    let promoted: Promoted | undefined;
    try {
      promoted = await this.#promoted();
      if (promoted === undefined || performance.now() < this.#nextAt) return;
      await this.#claim(await this.#context.cluster(), promoted);
    } catch (error) {
      const { heartbeatInterval } = this.#context.settings;
      const isAway = error instanceof VaultError && ['unreachable', 'busy'].includes(error.code);
      this.#nextAt = performance.now() + (isAway ? AGAIN_MS : heartbeatInterval);
      this.why = whyNot(this.#context.node, error);
      this.#journal.state('external', this.why);
    }
  }

  /** The timeline on which the server takes writes, where it has one that was not looked at yet. */
  async #promoted(): Promise<Promoted | undefined> {
    const { pgdata, paths } = this.#context;
    const control = await readControlFile(pgdata);
    if (control.state !== IN_PRODUCTION || (await recoveryMode(pgdata)) !== 'none') {
      this.#settled = undefined;
      this.why = undefined;
      return undefined;
    }
    // until the first checkpoint after a promotion is through, the new number stands in the second place only
    const timeline = Math.max(control.timeline, control.minRecoveryTimeline);
    if (timeline === this.#settled) return undefined;
    if (readSeal(paths) !== undefined || (await runningServer(pgdata)) === undefined) return undefined;
    checkAttached(paths);
    const history =
      timeline === 1 ? undefined : await readWalFile(path.join(pgdata, 'pg_wal'), historyName(timeline));
    return { timeline, historyText: history?.toString('utf8') ?? '' };
  }

  async #claim(cluster: Cluster, promoted: Promoted): Promise<void> {
    const { node, seat, pgdata, paths } = this.#context;
    const { timeline } = promoted;
    const first = await this.#decide(
      cluster,
      await readControl(cluster),
      await readBranch(cluster),
      promoted,
    );
    if (first.do === 'refuse') throw refusal(first);
    if (first.do === 'nothing') {
      this.#settled = timeline;
      this.why = undefined;
      return;
    }
    const readSegment = (name: string) => readWalFile(path.join(pgdata, 'pg_wal'), name);
    const opening = { ...promoted, readSegment };
    if (first.do === 'open') await openPromotion(cluster, seat, opening, this.#context.histories);
    else
      await claimRole(cluster, seat, {
        ...opening,
        by: 'its agent (roles = "external")',
        direct: { open: ({ url }) => this.#context.other(url), lose: false },
        judge: async (control: Control, branch: Branch) => {
          const decision = await this.#decide(cluster, control, branch, promoted);
          if (decision.do === 'refuse') throw refusal(decision);
          if (decision.do !== 'claim')
            throw new VaultError('fenced', `timeline ${timeline} of ${node} is not to be claimed any more`);
        },
      });
    const { epoch } = await readControl(cluster);
    replaceDurably(paths.opened, `${JSON.stringify({ epoch, timeline })}\n`);
    this.#settled = timeline;
    this.why = undefined;
    this.#journal.state(
      'external',
      `promoted outside of walvault: claimed epoch ${epoch} on timeline ${timeline}`,
    );
    this.#claimed();
  }

  async #decide(
    cluster: Cluster,
    control: Control,
    branch: Branch,
    { timeline, historyText }: Promoted,
  ): Promise<Exclude<ExternalDecision, { do: 'examine' }>> {
    const { head, lineage } = branch;
    const opened = timeline === 1 ? undefined : await readHistory(cluster, timeline);
    const facts: ExternalFacts = {
      node: this.#context.node,
      timeline,
      ancestors: parseHistory(historyText),
      openedBy: opened?.node,
      archivedTo: undefined,
      held: undefined,
    };
    const limits = { segmentSize: cluster.segmentSize, fills: FILL_LIMIT };
    const decision = decideExternal(control, head, lineage, facts, limits);
    if (decision.do !== 'examine') return decision;
    const { fork, upTo, missing } = decision;
    const archivedTo = upTo === null ? fork : await this.#archivedTo(cluster, branch, fork, upTo);
    const held: string[] = [];
    for (const name of missing)
      if ((await readWalFile(path.join(this.#context.pgdata, 'pg_wal'), name)) !== undefined) held.push(name);
    const next = decideExternal(control, head, lineage, { ...facts, archivedTo, held }, limits);
    if (next.do === 'examine') throw new Error(`nothing more is to be examined of timeline ${timeline}`);
    return next;
  }

  async #archivedTo(cluster: Cluster, branch: Branch, fork: Lsn, upTo: Lsn): Promise<Lsn> {
    const of = `${branch.head.timeline} ${fork} ${upTo}`;
    if (this.#examined?.of !== of)
      this.#examined = { of, archivedTo: await archivedPast(cluster, branch, fork, upTo) };
    return this.#examined.archivedTo;
  }
}

/**
 * Where the last whole record ends that the vault holds from the segment of `fork` on: `fork` itself, or what is left of a segment after it,
 * where nothing would be lost. A segment that a load filled ends in half a record: a server that has replayed all of it forks before
 * its end.
 *
 * @param upTo  end of what is archived (exclusive)
 * @returns the first such end that is past the fork, else `fork`
 * @throws VaultError hole (a segment in between is not there: nobody knows) | corrupt | unreachable
 */
export async function archivedPast(
  cluster: Cluster,
  { lineage }: Branch,
  fork: Lsn,
  upTo: Lsn,
): Promise<Lsn> {
  const { segmentSize, systemIdentifier } = cluster;
  let carry: Carry | undefined;
  for (const name of segmentsFrom(lineage, fork, segmentSize)) {
    if (segmentStart(name, segmentSize) >= upTo) return fork;
    const row: WalRow | undefined = await findSegment(cluster, name);
    if (row === undefined)
      throw new VaultError('hole', `${name}, past the fork at ${formatLsn(fork)}, is not in the vault`, {
        hint: `'walvault claim' here decides; see 'walvault status' for gaps`,
      });
    const bytes = await fetchFile(cluster, row);
    const walk = walkRecords(bytes, { name, segmentSize, systemIdentifier, carry });
    if (walk.records > 0 && walk.ends > fork) return walk.ends;
    if (walk.skippedTo !== undefined && walk.skippedTo > fork) return walk.skippedTo;
    carry = walk.carry;
  }
  return fork;
}

const refusal = ({ code, message, hint }: ExternalDecision & { do: 'refuse' }): VaultError =>
  new VaultError(code, message, { hint });

/** For the node's row and its journal: what keeps this server from the claim, and what to do. */
export function whyNot(node: string, error: unknown): string {
  if (!(error instanceof VaultError)) return inWords(error);
  if (error.code === 'denied')
    return `${node} was promoted outside of walvault, and its key may not claim the epoch for it (${error.message}): give it the operator's right, or run 'walvault claim' here with a key that has it`;
  return isPassing(error) || error.hint === undefined ? inWords(error) : `${error.message}; ${error.hint}`;
}
