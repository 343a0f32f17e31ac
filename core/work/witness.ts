/**
 * The witness: looks at a cluster again and again, decides (core/cluster/decide-witness.ts), warns, and triggers where it may. The command
 * `walvault witness` and the function of lambdas/ run this same loop; any number of them may watch one cluster.
 *
 * Its trigger is a person's smart trigger with more conditions, all in the one transaction: the sign of the primary that it saw standing still
 * stands, nobody said maintenance, and no other witness was faster. What it remembers is its own, on its own clock, and is gone with it: one
 * that was started a moment ago has seen nobody silent yet.
 *
 * In a replica it watches the primary of the active vault. There a failover is a take-over of the vault: a person's, unless dr_failover says
 * otherwise, and never where the active vault cannot be fenced.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import {
  chooseStandby,
  coolDownLeft,
  decideBrokenOff,
  decideWitness,
  plannedStop,
  remember,
  sightOf,
  signOf,
  type Sight,
  type WitnessDecision,
  type WitnessFacts,
  type WitnessMemory,
  type WitnessState,
} from '../cluster/decide-witness.ts';
import {
  keys,
  type Control,
  type Head,
  type VaultRef,
  type WitnessPolicy,
  type WitnessRow,
} from '../cluster/facts.ts';
import { leaseOf, silenceNeeded } from '../cluster/lease.ts';
import type { EventKind } from '../cluster/event-kinds.ts';
import type { Change } from '../vault/manifest.ts';
import { withLimit } from '../vault/time-limit.ts';
import { asRow, changing, eventChange, readControl, type Cluster, readNode } from './cluster.ts';
import type { DirectWay } from './direct.ts';
import { openKnown } from './peer.ts';
import { takeOver } from './takeover.ts';
import { triggerPromotion } from './trigger.ts';
import { newWitnessCache, readWitnessFacts, readWitnessRow, type Looked } from './witness-facts.ts';

/** A look that has not ended by then is none, ms. */
const LOOK_LIMIT_MS = 6000;

/** Its row is written at each change, and this often without one, so that others see that somebody watches, ms. */
const ROW_EVERY_MS = 30_000;

/** So long the active vault may be silent, seen from a replica, before it is worth a word, ms. */
const AWAY_MS = 60_000;

/** The primary is there. */
const HEARD: readonly WitnessState[] = ['well', 'no lease'];

export type WitnessOptions = {
  policy: WitnessPolicy;
  /** In a replica: take over where that is safe, rather than warn. */
  drFailover: boolean;
  everyMs: number;
  /** Who this is, for the witness row. */
  by: string;
  /** Decides and says, and writes nothing. */
  dryRun: boolean;
  /** Opens another vault of this cluster: the armed replica, or the active vault of a replica. */
  open: (url: string) => Promise<Cluster>;
  /** Ends the loop; a trigger that is under way is finished. */
  signal: AbortSignal;
  /** Each look's decision. */
  onDecision?: (seen: WitnessSeen) => void;
  /** What keeps it from looking or from writing; it goes on. */
  onTrouble?: (error: VaultError) => void;
};

export type WitnessSeen = { decision: WitnessDecision; silentMs: number; isNew: boolean };

/** Runs until the signal. @throws VaultError  what trying again does not mend (no such cluster, a format that is too new, no right to read) */
export async function runWitness(cluster: Cluster, options: WitnessOptions): Promise<void> {
  const witness = new Witness(cluster, options);
  while (!options.signal.aborted) {
    const started = performance.now();
    await witness.look();
    const pause = Math.max(10, options.everyMs - (performance.now() - started));
    await sleep(pause, undefined, { signal: options.signal }).catch(() => {});
  }
}

class Witness {
  readonly #cluster: Cluster;
  readonly #options: WitnessOptions;
  readonly #caches = new Map<Cluster, ReturnType<typeof newWitnessCache>>();
  readonly #memories = new Map<Cluster, WitnessMemory | undefined>();
  #said: string | undefined;
  #hasLooked = false;
  #wroteAt = -Infinity;
  #peer: { id: string; cluster: Cluster } | undefined;
  /** Since when the active vault is silent, seen from here. */
  #awaySince: number | undefined;

  constructor(cluster: Cluster, options: WitnessOptions) {
    this.#cluster = cluster;
    this.#options = options;
  }

  async look(): Promise<void> {
    const here = await this.#lookAt(this.#cluster);
    if (here === undefined) return;
    try {
      if (here.facts.control.role === 'replica') await this.#watchFromReplica(here);
      else await this.#watch(here);
    } catch (error) {
      this.#trouble(error);
    }
  }

  /** One look; undefined: it failed, and that is remembered. */
  async #lookAt(cluster: Cluster): Promise<Looked | undefined> {
    const { everyMs } = this.#options;
    const started = performance.now();
    const cache = this.#caches.get(cluster) ?? newWitnessCache();
    this.#caches.set(cluster, cache);
    let looked: Looked | undefined;
    let failure = '';
    try {
      looked = await withLimit(LOOK_LIMIT_MS, 'a look at the table', () => readWitnessFacts(cluster, cache));
      this.#hasLooked = true;
    } catch (error) {
      this.#trouble(error);
      failure = (error as Error).message;
    }
    const at = performance.now();
    const look = { at, tookMs: at - started, everyMs };
    const memory = remember(
      this.#memories.get(cluster),
      looked === undefined ? { ...look, failure } : { ...look, facts: looked.facts },
    );
    this.#memories.set(cluster, memory);
    return looked;
  }

  #sightOf(cluster: Cluster, { control, primary }: Pick<WitnessFacts, 'control' | 'primary'>): Sight {
    const memory = this.#memories.get(cluster);
    if (memory === undefined) return { silentMs: 0, heard: new Set(), blind: 'nothing was seen yet' };
    return sightOf(memory, performance.now(), leaseOf(control, primary)?.ms);
  }

  async #watch({ facts, row }: Looked): Promise<void> {
    const { policy } = this.#options;
    const sight = this.#sightOf(this.#cluster, facts);
    const nowMs = Date.now();
    const coolMs = coolDownLeft(row?.lastFailover ?? null, policy, nowMs);
    const decision = decideWitness(facts, sight, policy, { nowMs, coolMs });
    this.#tell(decision, sight.silentMs);
    if (this.#options.dryRun) return;
    if (decision.do !== 'trigger' || decision.to === null) return this.#write(row, facts, decision);
    try {
      await this.#trigger(facts, decision, decision.to);
    } catch (error) {
      await this.#write(row, facts, failedTrigger(decision, error));
      throw error;
    }
  }

  async #trigger(seen: WitnessFacts, decision: WitnessDecision, to: string): Promise<void> {
    const cluster = this.#cluster;
    const { open } = this.#options;
    const promotion = await triggerPromotion(cluster, {
      ...{ mode: 'smart', to, by: `the witness (${this.#options.by}): ${decision.why}` },
      primaryDown: true, // by the end of its lease, which is conditional on the sign that was seen standing
      direct: { open: ({ url }) => open(url), lose: false } satisfies DirectWay,
      judge: async ({ control, head }) => this.#judge(cluster, seen, { control, head }, decision, to),
    });
    this.#said = `${promotion.epoch} triggered`;
  }

  /** Asked of the rows that the trigger is conditional on: is all as it was seen? @throws VaultError refused */
  async #judge(
    cluster: Cluster,
    seen: WitnessFacts,
    { control, head }: { control: Control; head: Head },
    decision: WitnessDecision,
    to: string,
  ): Promise<Change[]> {
    const refuse = (why: string) => new VaultError('refused', `the witness does not trigger: ${why}`);
    const name = seen.control.primary ?? '';
    const primary = await readNode(cluster, name);
    if (primary === undefined || signOf({ control, head, primary }) !== signOf(seen))
      throw refuse(`${name} was heard again`);
    const nowMs = Date.now();
    const planned = plannedStop(control, head, nowMs);
    if (planned !== undefined) throw refuse(planned);
    const own = this.#cluster;
    const row = await readWitnessRow(own);
    if (coolDownLeft(row?.lastFailover ?? null, this.#options.policy, nowMs) > 0)
      throw refuse('another witness was faster');
    const lastFailover = { epoch: control.epoch + 1, to, at: new Date(nowMs).toISOString() };
    return [
      { do: 'check', key: keys.node(cluster.partition, name), when: { rev: primary.rev } },
      ...(cluster === own
        ? [this.#rowChange(row, cluster.vault.url, decision, { lastFailover, warned: null })]
        : []),
    ];
  }

  #rowChange(
    row: WitnessRow | undefined,
    watches: string,
    { do: does, state, why, reasons }: WitnessDecision,
    more: Partial<Pick<WitnessRow, 'warned' | 'lastFailover'>> = {},
  ): Change {
    const { by, everyMs, policy } = this.#options;
    const at = new Date().toISOString();
    const isSame = row?.decision.do === does && row.decision.state === state;
    const next: WitnessRow = {
      ...keys.witness(this.#cluster.partition),
      rev: (row?.rev ?? 0) + 1,
      ...{ by, at, everyMs, policy, watches },
      decision: { do: does, state, why, reasons, since: isSame ? row.decision.since : at },
      warned: row?.warned ?? null,
      lastFailover: row?.lastFailover ?? null,
      ...more,
    };
    return { do: 'put', row: asRow(next), when: row === undefined ? 'absent' : { rev: row.rev } };
  }

  /** The row, where it has something new to say or is old; with it, once for each silence, the event. */
  async #write(
    row: WitnessRow | undefined,
    { control, head, primary }: Pick<WitnessFacts, 'control' | 'head' | 'primary'>,
    decision: WitnessDecision,
    watches = this.#cluster.vault.url,
  ): Promise<void> {
    const sign = signOf({ control, head, primary });
    const before = row?.warned ?? null;
    const isWell = decision.do === 'nothing' && HEARD.includes(decision.state);
    // Only another sign is news of the primary: a witness that was started a moment ago finds it well, whatever it is, and unsays nothing.
    if (isWell && sign === before) return;
    const warned = decision.do === 'warn' ? sign : isWell ? null : before;
    const isNews = row === undefined || warned !== before;
    const isOther = row?.decision.do !== decision.do || row.decision.state !== decision.state;
    if (!isNews && !isOther && performance.now() - this.#wroteAt < ROW_EVERY_MS) return;
    const changes: Change[] = [this.#rowChange(row, watches, decision, { warned })];
    const event = (kind: EventKind, text: string) =>
      changes.push(
        eventChange(this.#cluster, {
          ...{ at: new Date().toISOString(), kind, node: control.primary, epoch: control.epoch, text },
        }),
      );
    if (warned !== null && warned !== before) event('silent', [decision.why, ...decision.reasons].join('; '));
    else if (warned === null && before !== null) event('heard', `${control.primary} is heard again`);
    // Whoever was faster has said it; the next look sees that.
    await this.#cluster.vault.manifest.transact(changes);
    this.#wroteAt = performance.now();
  }

  async #watchFromReplica(here: Looked): Promise<void> {
    const { source } = here.facts.control;
    const seen = source === null ? undefined : await this.#lookAtActive(source);
    const url = source?.url ?? 'no vault';
    const decision =
      seen === undefined ? this.#decideAway(here, url) : this.#decideRemote(here, seen.peer, seen.looked);
    const silentMs =
      seen === undefined ? this.#awayMs() : this.#sightOf(seen.peer, seen.looked.facts).silentMs;
    this.#tell(decision, silentMs);
    if (this.#options.dryRun) return;
    if (decision.do === 'trigger' && decision.to !== null && seen !== undefined) {
      try {
        return await this.#takeOver(seen.peer, seen.looked.facts, decision, decision.to);
      } catch (error) {
        await this.#write(here.row, seen.looked.facts, failedTrigger(decision, error), url);
        throw error;
      }
    }
    const watched = seen?.looked.facts ?? here.facts;
    await this.#write(here.row, watched, decision, url);
  }

  async #lookAtActive(source: VaultRef) {
    try {
      const peer = await this.#peerOf(source);
      const looked = await this.#lookAt(peer);
      if (looked === undefined) return undefined;
      this.#awaySince = undefined;
      return { peer, looked };
    } catch (error) {
      this.#trouble(error);
      return undefined;
    }
  }

  /** Opened once: what is remembered of it hangs on it. */
  async #peerOf(source: VaultRef): Promise<Cluster> {
    if (this.#peer?.id !== source.id) {
      const cluster = await withLimit(LOOK_LIMIT_MS, `opening ${source.url}`, () =>
        openKnown(source, this.#options.open),
      );
      this.#peer = { id: source.id, cluster };
    }
    return this.#peer.cluster;
  }

  #awayMs(): number {
    this.#awaySince ??= performance.now();
    return performance.now() - this.#awaySince;
  }

  /** The active vault is silent: its region, or the way there. Nobody can be fenced, so this is a person's. */
  #decideAway(here: Looked, url: string): WitnessDecision {
    const silentMs = this.#awayMs();
    const { to, reasons } = chooseStandby(
      here.facts,
      this.#sightOf(this.#cluster, here.facts),
      this.#options.policy,
    );
    if (silentMs < AWAY_MS)
      return { do: 'nothing', state: 'blind', why: `${url} does not answer`, reasons, to };
    return {
      ...{ do: 'warn', state: 'silent', reasons, to },
      why: `${url} did not answer for ${Math.floor(silentMs / 1000)} s: its region is lost, or only the way there, and then its primary goes on; a person decides (walvault trigger smart --to ${to ?? 'NODE'} --unfenced)`,
    };
  }

  #decideRemote(here: Looked, peer: Cluster, { facts }: Looked): WitnessDecision {
    const { policy, drFailover } = this.#options;
    const sight = this.#sightOf(peer, facts);
    const nowMs = Date.now();
    const coolMs = coolDownLeft(here.row?.lastFailover ?? null, policy, nowMs);
    if (facts.control.supersededBy?.id === here.facts.control.vaultId)
      return decideBrokenOff({
        to: facts.control.primary,
        isThere: here.facts.standbys.some(({ row }) => row.name === facts.control.primary),
        ...{ silentMs: sight.silentMs, drFailover, url: this.#cluster.vault.url },
      });
    // As the witness there would with auto_failover: what it can do itself is not ours.
    const there = decideWitness(facts, sight, { ...policy, autoFailover: true }, { nowMs, coolMs: 0 });
    if (there.do !== 'warn' || there.to !== null || there.state !== 'silent')
      return { ...there, do: there.do === 'trigger' ? 'nothing' : there.do };
    const lease = leaseOf(facts.control, facts.primary);
    if (lease === undefined || sight.silentMs < silenceNeeded(lease.ms)) return { ...there, to: null };
    const own = chooseStandby(here.facts, this.#sightOf(this.#cluster, here.facts), policy);
    const reasons = [...there.reasons, ...own.reasons.map((reason) => `here: ${reason}`)];
    const warn = (why: string): WitnessDecision => ({
      do: 'warn',
      state: 'silent',
      why: `${there.why}; ${why}`,
      reasons,
      to: own.to,
    });
    if (own.to === null) return warn('none is fit here either');
    if (!drFailover)
      return warn(
        `dr_failover is off: 'walvault trigger smart --to ${own.to}' in ${this.#cluster.vault.url} takes over`,
      );
    if (coolMs > 0) return warn('the last automatic failover was a short time ago');
    return {
      do: 'trigger',
      state: 'silent',
      why: `${there.why}; ${own.to} here takes over`,
      reasons,
      to: own.to,
    };
  }

  async #takeOver(peer: Cluster, seen: WitnessFacts, decision: WitnessDecision, to: string): Promise<void> {
    await takeOver(this.#cluster, async () => peer, {
      ...{ mode: 'smart', to },
      primaryDown: true, // as above
      judge: (active, control, head) => this.#judge(active, seen, { control, head }, decision, to),
    });
    const { vault } = this.#cluster;
    const { epoch } = await readControl(this.#cluster);
    const lastFailover = { epoch, to, at: new Date().toISOString() };
    await changing(
      async () => {
        const row = await readWitnessRow(this.#cluster);
        return { result: undefined, changes: [this.#rowChange(row, vault.url, decision, { lastFailover })] };
      },
      (changes) => vault.manifest.transact(changes),
    );
  }

  #tell(decision: WitnessDecision, silentMs: number): void {
    const said = `${decision.do} ${decision.state} ${decision.to}`;
    this.#options.onDecision?.({ decision, silentMs, isNew: said !== this.#said });
    this.#said = said;
  }

  /** @throws what no next look mends */
  #trouble(error: unknown): void {
    if (!(error instanceof VaultError)) throw error;
    // a vault that was there once is away now: its disk is not mounted, its table is being restored
    const isAway = error.code === 'unconfigured' && this.#hasLooked;
    if (['unconfigured', 'format', 'usage'].includes(error.code) && !isAway) throw error;
    this.#options.onTrouble?.(error);
  }
}

/** For the row, and so for `status`: why nobody takes over though it was decided. It is tried again at the next look. */
function failedTrigger(decision: WitnessDecision, error: unknown): WitnessDecision {
  if (!(error instanceof VaultError)) throw error;
  return {
    ...decision,
    do: 'warn',
    why: `${decision.why}, but that failed: [${error.code}] ${error.message}`,
  };
}
