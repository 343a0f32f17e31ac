/**
 * The relay that stays: a pass whenever the source has moved, a whole comparison now and then, and the other way round once the two
 * vaults have changed roles. A vault that is away costs a line in the log, not the relay.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { VaultError } from '../errors.ts';
import { readControl, readHead, type Cluster } from './cluster.ts';
import { relayPass, tellTrouble, Turned, type RelayOptions, type RelayReport } from './relay.ts';

export type FollowOptions = Omit<RelayOptions, 'sweep'> & {
  /** Between two looks at the source, ms. */
  everyMs: number;
  /** Between two comparisons of every row, ms. */
  sweepEveryMs?: number;
  /** After each pass that brought something or changed what is known. */
  onPass?: (report: RelayReport, source: Cluster, target: Cluster) => void;
  /** Why a pass did not come to its end; it is tried again. */
  onTrouble?: (error: VaultError) => void;
};

const SWEEP_EVERY_MS = 600_000;
const LONGEST_PAUSE_MS = 10_000;
/** How often lag is told even where nothing moves, ms. */
const TELL_EVERY_MS = 15_000;

/**
 * Goes on until `signal` ends it.
 *
 * @throws VaultError  only what no repetition cures: usage, refused (not the same database), format
 */
export async function followRelay(one: Cluster, other: Cluster, options: FollowOptions): Promise<void> {
  let [source, target] = [one, other];
  let [sweptAt, passedAt, pause] = [-Infinity, -Infinity, options.everyMs];
  let seen = '';
  const isEnded = (): boolean => options.signal?.aborted === true;
  while (!isEnded()) {
    try {
      const now = await positionOf(source, target).catch(async (error: unknown) => {
        await tellTrouble(source, target, error); // the pass that would say so does not begin
        throw error;
      });
      const sweep = performance.now() - sweptAt >= (options.sweepEveryMs ?? SWEEP_EVERY_MS);
      if (now !== seen || sweep || performance.now() - passedAt >= TELL_EVERY_MS) {
        const report = await relayPass(source, target, { ...options, sweep });
        passedAt = performance.now();
        if (sweep) sweptAt = passedAt;
        if (now !== seen) options.onPass?.(report, source, target);
        seen = now;
      }
      pause = options.everyMs;
    } catch (error) {
      if (isEnded()) return;
      if (error instanceof Turned) {
        options.onStep?.({ step: 'turned', message: error.message });
        [source, target] = [target, source];
        seen = '';
        continue;
      }
      if (!(error instanceof VaultError) || ['usage', 'refused', 'format'].includes(error.code)) throw error;
      options.onTrouble?.(error);
      seen = '';
      pause = Math.min(LONGEST_PAUSE_MS, pause * 2);
    }
    await sleep(pause, undefined, { signal: options.signal }).catch(() => {});
  }
}

/** What a pass would start from: two small reads a vault. */
async function positionOf(source: Cluster, target: Cluster): Promise<string> {
  const revisions = await Promise.all(
    [source, target].map(async (cluster) => {
      const [control, head] = await Promise.all([readControl(cluster), readHead(cluster)]);
      return [control.rev, head.rev, head.lsn, control.epoch];
    }),
  );
  return JSON.stringify(revisions[0]!.concat(revisions[1]!.slice(0, 1)));
}
