/**
 * The relay, for each change of the manifest and, each few minutes, whatever the stream has said: carries this region's vault to the other
 * one, with the engine of `walvault relay`, then tells that region what has arrived. In both regions there is one; only that of the
 * active vault has anything to do, so that after a failover the rows go the other way by themselves.
 *
 * An event is a hint: lost, doubled or out of order it changes nothing, and a pass each few minutes finds what none spoke of.
 */
import { VaultError } from '../core/errors.ts';
import { announceArrivals } from '../core/work/announce.ts';
import { openCluster, readControl, type Cluster } from '../core/work/cluster.ts';
import { reachReplica, relayPass, Turned } from '../core/work/relay.ts';
import {
  forEachCluster,
  functionSettings,
  keptVault,
  log,
  throwFailures,
  untilDeadline,
  type Call,
} from './function.ts';
import { readRelayEvent, type PartialFailure, type RelayEvent } from './relay-event.ts';
import { publishArrival } from './topics.ts';

/** @throws Error  a scheduled pass failed for some cluster; a failed batch is answered, not thrown: what did not fail is not tried again */
export async function handler(event: RelayEvent, call: Call): Promise<PartialFailure | undefined> {
  const work = readRelayEvent(event);
  const settings = functionSettings();
  const [own, other] = [settings.need('vault'), settings.need('relayTo')];
  const [topic] = settings.need('arrivalsTopic');
  const vault = await keptVault(own, settings);
  const signal = untilDeadline(call);

  const ends = await forEachCluster(vault, work.clusters, async (source: Cluster) => {
    // the other region's function carries the other way
    if ((await readControl(source)).role !== 'active') return;
    const open = () => keptVault(other, settings);
    const target = await reachReplica(source, other, { open, make: open });
    try {
      const report = await relayPass(source, target, { sweep: work.sweep, signal });
      if (report.rows + report.home + report.aside > 0 || report.backups.length > 0)
        log({ level: 'info', cluster: source.name, ...report });
    } catch (error) {
      // became a replica since it was looked at
      if (error instanceof Turned) return;
      throw error;
    } finally {
      // what was committed has arrived, whatever became of the rest
      if (topic !== undefined)
        await announceArrivals(await openCluster(target.vault, target.name), publishArrival(topic, target));
    }
  });
  const failed = ends.filter(({ error }) => error !== undefined && !isGone(error));
  if (work.answer === undefined) throwFailures('relay', failed);
  return work.answer?.(new Set(failed.map(({ cluster }) => cluster)));
}

/** A record of a cluster that this vault does not hold, or no more: to try it again would keep its shard back for ever. */
function isGone(error: unknown): boolean {
  return (
    error instanceof VaultError && error.code === 'unconfigured' && error.message.startsWith('no cluster ')
  );
}
