/**
 * What a relay that is called, and does not stay, does for one cluster: finds out whether this vault is the one that carries, makes a pass,
 * and tells the other region what has arrived. Which ends are failures, and which are only no business of this vault any more.
 */
import { VaultError } from '../errors.ts';
import { announceArrivals, type Publish } from './announce.ts';
import { readControl, type Cluster } from './cluster.ts';
import { relayPass, Turned, type RelayReport } from './relay.ts';

export type Carried = {
  /**
   * done: nothing was left. unfinished: the time was over while it got on; somebody must call again. elsewhere: this vault is not the
   * active one, the other region's relay carries.
   */
  end: 'done' | 'unfinished' | 'elsewhere';
  report?: RelayReport;
  /** Messages to the topic. */
  told: number;
};

export type CarryCall = {
  sweep: boolean;
  /** Ends the pass in order. */
  signal: AbortSignal;
  publish: Publish;
};

/**
 * @param reach  opens the replica, or makes it @throws VaultError  the pass failed, or the time was over before it had brought anything;
 * what `publish` throws  the rows are there all the same, and the next call tells of them
 */
export async function carryCluster(
  source: Cluster,
  reach: () => Promise<Cluster>,
  { sweep, signal, publish }: CarryCall,
): Promise<Carried> {
  if ((await readControl(source)).role !== 'active') return { end: 'elsewhere', told: 0 };
  const target = await reach();
  let steps = 0;
  let end: Pick<Carried, 'end' | 'report'> = { end: 'unfinished' };
  let failure: unknown;
  try {
    end = { end: 'done', report: await relayPass(source, target, { sweep, signal, onStep: () => steps++ }) };
  } catch (error) {
    // A switchover or a disaster came between: the pass was right to refuse.
    if (error instanceof Turned || (await isElsewhere(source))) end = { end: 'elsewhere' };
    else if (!isTimeOver(error, signal) || steps === 0) failure = error;
  }
  // What was committed before a pass broke off has arrived, too.
  const told = await announceArrivals(target, publish).catch((error: unknown) => {
    throw failure ?? error;
  });
  if (failure === undefined) return { ...end, told };
  if (!isTimeOver(failure, signal)) throw failure;
  throw new VaultError('unreachable', 'the time was over before anything was brought', {
    hint: 'How slow are the two vaults? Give the function more time, or bring up what waits by walvault relay.',
    cause: failure,
  });
}

function isTimeOver(error: unknown, signal: AbortSignal): boolean {
  return signal.aborted && error === signal.reason;
}

async function isElsewhere(source: Cluster): Promise<boolean> {
  return await readControl(source).then(
    ({ role }) => role !== 'active',
    () => false, // the failure that is known says more
  );
}
