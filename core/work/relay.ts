/**
 * The relay: one pass from a vault to its replica. Facts of control first (they are the fence of what the old primary may spill), then
 * the live branch in its order, then backups. At least once, in any number at a time, killed anywhere: each transaction is conditional
 * on what was read of the replica, and the next pass reads anew.
 *
 * `walvault relay` and the relay function run this very pass.
 */
import { VaultError } from '../errors.ts';
import { decideRelay } from '../cluster/decide-relay.ts';
import { eventChange, type Cluster } from './cluster.ts';
import { clearSuperseded, converge } from './converge.ts';
import { carryBackups, missingBackups } from './relay-backups.ts';
import { relayLag, relaysWith, reportRelay, reportTrouble, type Lag } from './relay-lag.ts';
import type { CarryOptions, RelayStep } from './relay-copy.ts';
import { carryBranch, fillGaps } from './relay-rows.ts';
import { sweepRows } from './relay-sweep.ts';
import { Outrun, readSide, Target, type Reading } from './replica.ts';
import { setAsideSpills, takeHome } from './spill.ts';

export type { RelayStep } from './relay-copy.ts';
export { openReplica, reachReplica } from './replica.ts';

export type RelayOptions = {
  /** Hold every row against the replica, not only what lies beyond its head. */
  sweep?: boolean;
  /** Base backups, too (default). */
  backups?: boolean;
  /** Objects on their way at a time. */
  parallel?: number;
  signal?: AbortSignal;
  onStep?: (step: RelayStep) => void;
};

export type RelayReport = {
  /** What this pass brought. */
  rows: number;
  bytes: number;
  timelines: number[];
  backups: string[];
  /** Spilled files that the source has taken over, and those that were kept as salvage. */
  home: number;
  salvaged: number;
  /** Rows that were set aside since the replica held a branch that is not live. */
  aside: number;
  /** Where the replica stands now. */
  epoch: number;
  timeline: number;
  lsn: string | null;
  lag: Lag;
};

/** The roles have changed since this relay was set up: rows go from `target` to `source` now. */
export class Turned extends VaultError {
  constructor(message: string, source: string, target: string) {
    super('refused', message, { hint: `run 'walvault relay --from ${target} --to ${source}'` });
  }
}

/** Rows in memory at most, raw: segments may have 1 GiB. */
const MEMORY = 256 * 1024 * 1024;
const PARALLEL = 4;
/** How often a pass is begun anew because another relay, or a trigger, was faster. */
const ROUNDS = 50;
/** How long WAL may wait behind an object of a backup, ms. */
const ROWS_EVERY_MS = 5000;

/**
 * One pass, until nothing is left that was there when it looked last.
 *
 * @throws Turned | VaultError refused | fenced (the replica is of a newer epoch) | conflict | hole | corrupt | busy | unreachable
 */
export async function relayPass(
  source: Cluster,
  target: Cluster,
  options: RelayOptions = {},
): Promise<RelayReport> {
  const report: Omit<RelayReport, 'epoch' | 'timeline' | 'lsn' | 'lag'> = {
    ...{ rows: 0, bytes: 0, timelines: [], backups: [], home: 0, salvaged: 0, aside: 0 },
  };
  const carry: CarryOptions = {
    parallel: Math.max(
      1,
      Math.min(options.parallel ?? PARALLEL, Math.floor(MEMORY / (source.segmentSize * 2))),
    ),
    signal: options.signal,
    onStep(step) {
      if (step.step === 'rows') {
        report.rows += step.rows;
        report.bytes += step.bytes;
      }
      if (step.step === 'history') report.timelines.push(step.timeline);
      if (step.step === 'home') report.home += step.files;
      if (step.step === 'salvage') report.salvaged += step.files;
      if (step.step === 'aside') report.aside += step.rows;
      options.onStep?.(step);
    },
  };
  for (let round = 1; ; round++) {
    try {
      const end = await onePass(source, target, carry, options, report.backups);
      return { ...report, ...end };
    } catch (error) {
      if (!(error instanceof Outrun)) {
        await tellTrouble(source, target, error);
        throw error;
      }
      if (round === ROUNDS)
        throw new VaultError(
          'busy',
          `${target.vault.url} was changed by others ${ROUNDS} times during one pass`,
          {
            hint: 'how many relays run? one is enough.',
          },
        );
    }
  }
}

async function onePass(
  source: Cluster,
  targetCluster: Cluster,
  carry: CarryOptions,
  options: RelayOptions,
  backups: string[],
): Promise<Pick<RelayReport, 'epoch' | 'timeline' | 'lsn' | 'lag'>> {
  const rows = async (): Promise<{ from: Reading; target: Target }> => {
    const read = await look(source, targetCluster, carry);
    await carryBranch(read.from, read.target, carry);
    await fillGaps(read.from, read.target, carry);
    await syncHead(read.from, read.target);
    return read;
  };
  let { from, target } = await rows();
  if (options.sweep === true) await sweepRows(from, target, carry);
  const missing = options.backups === false ? [] : await missingBackups(source, targetCluster);
  if (missing.length > 0) {
    await tell(from, target); // a backup takes long, and who waits for WAL must not
    let rowsAt = performance.now();
    backups.push(
      ...(await carryBackups(from, target, missing, carry, async () => {
        if (performance.now() - rowsAt < ROWS_EVERY_MS) return;
        ({ from, target } = await rows());
        await tell(from, target);
        rowsAt = performance.now();
      })),
    );
  }
  const { head, control } = target.side;
  // What the source took meanwhile is the lag that is told: a pass never says "nothing" of what it did not look at.
  const lag = await tell(await readSide(source), target);
  return { epoch: control.epoch, timeline: head.timeline, lsn: head.lsn, lag };
}

async function tell(from: Reading, target: Target): Promise<Lag> {
  const lag = await relayLag(from, target.side);
  await reportRelay(from.cluster, target.side.cluster, {
    source: from,
    target: target.side,
    lag,
    trouble: null,
  });
  return lag;
}

/** Reads both, the target first, and does what must come before any row. */
async function look(
  source: Cluster,
  targetCluster: Cluster,
  carry: CarryOptions,
): Promise<{ from: Reading; target: Target }> {
  for (;;) {
    carry.signal?.throwIfAborted();
    const target = new Target(await readSide(targetCluster));
    const from = await readSide(source);
    const decision = decideRelay(from, target.side);
    if (decision.do === 'refuse')
      throw new VaultError(decision.code, decision.message, { hint: decision.hint });
    if (decision.do === 'turn') throw new Turned(decision.message, source.vault.url, targetCluster.vault.url);
    if (decision.do === 'converge') {
      const { aside } = await converge(source, targetCluster);
      carry.onStep({ step: 'aside', rows: aside });
      continue;
    }
    // a first contact that died right before its last step
    if (from.control.supersedes?.id === target.side.control.vaultId) {
      await clearSuperseded(source, targetCluster);
      continue;
    }
    if (decision.control !== undefined) {
      const { epoch, primary } = decision.control;
      const isNews = epoch !== target.side.control.epoch || primary !== target.side.control.primary;
      const text = `epoch ${epoch}, primary ${primary ?? 'none'}: came from ${source.vault.url}`;
      const at = new Date().toISOString();
      await target.commit(
        isNews ? [eventChange(targetCluster, { at, kind: 'epoch', node: primary, epoch, text })] : [],
        { control: decision.control, head: { epoch: from.head.epoch } },
      );
      if (isNews) carry.onStep({ step: 'facts', epoch, primary });
    }
    if (await handleSpills(from, target, carry)) continue;
    return { from, target };
  }
}

/**
 * What the primary spilled into the replica: home, where it is still the primary of its vault; salvage, where the epoch has moved on.
 * @returns true where the replica was changed
 */
async function handleSpills(from: Reading, target: Target, carry: CarryOptions): Promise<boolean> {
  const { spill } = target.head;
  const { control } = from;
  // A replica is no home; and one that hands over to this target leaves to it what becomes of them.
  if (spill === null || control.role !== 'active') return false;
  if (control.primary === spill.writer.node && spill.epoch >= control.reign) {
    const { files } = await takeHome(from.cluster, target.side.cluster);
    if (files > 0) carry.onStep({ step: 'home', files });
    return files > 0;
  }
  const { files } = await setAsideSpills(target.side.cluster);
  carry.onStep({ step: 'salvage', files });
  return true;
}

/** Facts of the head that no row has brought along. */
async function syncHead(from: Reading, target: Target): Promise<void> {
  const { epoch, lastTimeline } = from.head;
  const { head } = target;
  if (head.epoch === epoch && head.lastTimeline >= lastTimeline) return;
  await target.commit([], { head: { epoch, lastTimeline: Math.max(lastTimeline, head.lastTimeline) } });
}

/** In both manifests, as far as they answer: a relay that stands still must be seen without its log. @throws never */
export async function tellTrouble(source: Cluster, target: Cluster, error: unknown): Promise<void> {
  if (!(error instanceof VaultError) || error instanceof Turned) return;
  const tellOne = async (cluster: Cluster, other: Cluster): Promise<void> => {
    for (const { vault } of await relaysWith(cluster, other.vault.url))
      await reportTrouble(cluster, vault.id, `${error.code}: ${error.message}`);
  };
  await Promise.allSettled([tellOne(source, target), tellOne(target, source)]);
}
