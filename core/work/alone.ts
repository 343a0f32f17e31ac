/**
 * A hook without an agent: the one file, by itself, correctly. Archiving and opening take the node's lock, so that they never run beside
 * an agent that merely did not answer; restoring only reads the vault and needs none.
 */
import fs from 'node:fs';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import type { RestoreRequest } from '../cluster/decide-restore.ts';
import { historyName } from '../wal/name.ts';
import { readBranch } from './branch.ts';
import { readControl as readControlFile } from '../postgres/pgdata.ts';
import { readControl, type Cluster } from './cluster.ts';
import { commitFiles, NotStored } from './commit.ts';
import { crashPoint } from './crash-points.ts';
import { declareIgnored, ignoredHereText, ignoreHere, readLocalWord } from './local-off.ts';
import { passGate } from './gate.ts';
import { LeaseKeeper } from './lease.ts';
import { openNode, type NodeContext } from './node-context.ts';
import { takeNodeLock } from './node-lock.ts';
import { readSeal, readText } from './node-state.ts';
import { hasTaken, openSealed, type OpenOutcome } from './promote.ts';
import { answerRestore, sealedView, viewOf, type RestoreSource } from './restore-request.ts';
import { bringHomeAlone } from './push-spill.ts';
import { fetchFile, handIn, readWhole } from './store-file.ts';

/**
 * @returns a line for the server's log, where the file was ignored since archiving is off
 * @throws VaultError busy (an agent holds the lock and does not answer) and everything that archiving may say
 */
export async function archiveAlone(
  stateDir: string,
  name: string,
  file: string,
): Promise<string | undefined> {
  return withNode(stateDir, { lock: true }, async (context) => {
    const { paths, seat } = context;
    const seal = readSeal(paths);
    if (
      seal !== undefined &&
      name === historyName(seal.reserved) &&
      (await hasTaken(context.pgdata, seal.reserved))
    ) {
      await openSealed(context, undefined, context.settings.archiveTimeout);
    }
    if (readLocalWord(paths) !== undefined) {
      ignoreHere(paths, [name], (await readControlFile(context.pgdata)).segmentSize);
      return ignoredHereText(name, undefined);
    }
    const bytes = await readWhole(file);
    const cluster = await context.cluster();
    await withSpillsHome(context, cluster, () => declareIgnored(cluster, seat, paths));
    for (;;) {
      try {
        const isOff = !(await readControl(cluster)).archiving;
        const { zstdLevel } = context.settings;
        const handed = await handIn(cluster, seat, { name, bytes }, { isOff, zstdLevel });
        const results =
          handed === 'same'
            ? []
            : await withSpillsHome(context, cluster, () => commitFiles(cluster, seat, [handed]));
        crashPoint('alone-committed');
        return results[0]?.notice;
      } catch (error) {
        if (!(error instanceof NotStored)) throw error; // archiving is on again: it is stored now
      }
    }
  });
}

/**
 * A lone hook spills nothing, since it does not live long enough to know for how long the vault has been away; but what an agent had
 * spilled may be what the vault misses, and comes home first.
 */
async function withSpillsHome<T>(
  context: NodeContext,
  cluster: Cluster,
  commit: () => Promise<T>,
): Promise<T> {
  try {
    return await commit();
  } catch (error) {
    if (!(error instanceof VaultError && error.code === 'hole')) throw error;
    if ((await bringHomeAlone(context, cluster)) === 0) throw error;
    return commit();
  }
}

/** @returns true: it lies at `target`; false: absent. @throws VaultError */
export async function restoreAlone(
  stateDir: string,
  request: RestoreRequest & { name: string; own: boolean },
  target: string,
): Promise<boolean> {
  return withNode(stateDir, { lock: false }, async (context) => {
    const seal = request.own ? readSeal(context.paths) : undefined;
    const spooled = path.join(context.paths.now, request.name);
    const source: RestoreSource = {
      async view() {
        if (seal !== undefined) return sealedView(seal, seal.segmentSize);
        const cluster = await context.cluster();
        const branch = await readBranch(cluster, context.histories);
        const view = viewOf(cluster, branch, context.node);
        const { promotion } = branch.head;
        const frozen =
          promotion?.node === context.node && promotion.state !== 'open' && promotion.mode === 'fast';
        return { ...view, held: view.held || (request.own && frozen) };
      },
      ready(name) {
        if (seal === undefined || readText(spooled) === undefined) return false;
        fs.copyFileSync(path.join(context.paths.now, name), target);
        return true;
      },
      async fetch(cluster, row) {
        fs.writeFileSync(target, await fetchFile(cluster, row), { mode: 0o600 });
      },
      async put(_, text) {
        fs.writeFileSync(target, text, { mode: 0o600 });
      },
    };
    return (await answerRestore(context, source, request)) === 'served';
  });
}

/** The gate said no. */
export class GateClosed extends Error {
  readonly gate = true;
}

/**
 * @returns what is to be said in the server's log, if anything
 * @throws GateClosed  standby.signal is written; with a lease also where an agent has the lock and does not answer
 */
export async function recoveredAlone(stateDir: string): Promise<string | undefined> {
  const need = {
    lock: true,
    busy: (context: NodeContext, busy: VaultError) => letIn(context, Promise.reject(busy)),
  };
  return withNode(stateDir, need, (context) =>
    letIn(context, openSealed(context, undefined, context.settings.openMaxWait, new LeaseKeeper(context))),
  );
}

/** @returns what is to be said of a server that opens @throws GateClosed */
async function letIn(context: NodeContext, opening: Promise<OpenOutcome>): Promise<string | undefined> {
  const outcome = await passGate(context, new LeaseKeeper(context).terms, opening);
  if (outcome.done === 'gate') throw new GateClosed(`this server must not open: ${outcome.why}`);
  return outcome.done === 'unconfirmed' ? `opening unconfirmed: ${outcome.why}` : undefined;
}

/** @param need.busy  what is done where another holds the lock; else that is thrown */
async function withNode<T>(
  stateDir: string,
  need: { lock: boolean; busy?: (context: NodeContext, busy: VaultError) => Promise<T> },
  work: (context: NodeContext) => Promise<T>,
): Promise<T> {
  process.chdir(stateDir);
  const context = openNode(stateDir);
  const lock = need.lock ? await takeNodeLock(context.paths.lock, 2000) : undefined;
  try {
    if (!need.lock || lock !== undefined) return await work(context);
    const busy = new VaultError(
      'busy',
      `the agent of this server holds ${path.join(stateDir, 'agent.lock')} and does not answer`,
      {
        hint: 'look into agent.log in the state directory; kill -9 of the agent loses nothing',
      },
    );
    if (need.busy === undefined) throw busy;
    return await need.busy(context, busy);
  } finally {
    await context.close();
    lock?.release();
  }
}
