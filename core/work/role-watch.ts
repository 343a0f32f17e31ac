/**
 * Watches the epoch for one node: tells on_role_change what the node has become, and with on_fenced = "stop" stops a server
 * whose epoch is over.
 *
 * Runs beside the agent's loop, on its own clock: an upload that hangs must not keep a fenced primary up. It stops nothing
 * while the vault is silent, nor while a promotion is pending, nor a standby, nor a server promoted by hand.
 */
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { decideRole, isRoleChange, type KeptRole, type RoleFacts } from '../cluster/decide-role.ts';
import { readControl as readControlFile, runningServer } from '../postgres/pgdata.ts';
import { runCommandLine } from '../postgres/run-command.ts';
import { stopServer } from '../postgres/server.ts';
import { recoveryMode } from '../postgres/signal-files.ts';
import { IN_ARCHIVE_RECOVERY, IN_PRODUCTION } from '../wal/control-file.ts';
import type { Settings } from '../settings/read.ts';
import { putEvent, readControl, readHead, type Cluster } from './cluster.ts';
import { reportNode } from './heartbeat.ts';
import { endLease } from './lease-file.ts';
import { inWords, type Journal } from './journal.ts';
import type { NodeContext } from './node-context.ts';
import { isWaitNode, readKeptRole, writeKeptRole, type StatePaths } from './node-state.ts';

/** How often a server that may have to be stopped is looked at, in ms. */
const STOP_LOOK_MS = 1000;
/** How long a fast stop may take before it becomes an immediate one, in ms: a hanging archive_command holds it up. */
export const FAST_STOP_MS = 10_000;
/** The same for the immediate one; then it is reported, and tried again. */
const IMMEDIATE_STOP_MS = 10_000;

export class RoleWatch {
  readonly #context: NodeContext;
  readonly #journal: Journal;
  #lookedAt = -Infinity;
  #looking: Promise<void> | undefined;
  #commands: Promise<void> = Promise.resolve();

  constructor(context: NodeContext, journal: Journal) {
    this.#context = context;
    this.#journal = journal;
  }

  /** Called often; looks when it is due, one look at a time. Never throws, never waits. */
  look(): void {
    const { heartbeatInterval } = this.#context.settings;
    const every = stopsFenced(this.#context.settings)
      ? Math.min(STOP_LOOK_MS, heartbeatInterval)
      : heartbeatInterval;
    if (this.#looking !== undefined || performance.now() - this.#lookedAt < every) return;
    this.#lookedAt = performance.now();
    this.#looking = this.#lookOnce()
      .catch((error: unknown) => this.#journal.state('role', `role: ${inWords(error)}`))
      .finally(() => (this.#looking = undefined));
  }

  /** The role may just have changed: the next look() looks at once. */
  expect(): void {
    this.#lookedAt = -Infinity;
  }

  /** Until a command of on_role_change that runs has ended; each has its own time limit. */
  async settle(): Promise<void> {
    await this.#looking;
    await this.#commands;
  }

  async #lookOnce(): Promise<void> {
    const { node, paths, seat, pgdata } = this.#context;
    const kept = readKeptRole(paths);
    const server = await serverRole(pgdata, paths);
    // What a standby is needs no reading: it changes by its own server only.
    if (server === 'other' || (server === 'recovering' && kept?.role === 'standby')) return;
    const cluster = await this.#context.cluster();
    const facts: RoleFacts = { node, server, writerEpoch: seat.store.read()?.epoch ?? 0, kept };
    // head after control: a trigger commits both, so a promotion of this epoch is not missed
    const control = await readControl(cluster);
    const isOver = control.primary !== node && facts.writerEpoch > 0;
    // the trigger is committed, so another may open in the next moment: nobody waits for that here
    if (isOver && server === 'open' && this.#context.settings.lease > 0) endLease(paths.lease);
    const { promotion } = await readHead(cluster);
    const now = decideRole(facts, control, promotion);
    if (now === undefined) return;
    if (isRoleChange(kept, now)) this.#change(cluster, now);
    if (now.role === 'fenced') await this.#fenced(cluster, now, control.primary ?? 'nobody');
  }

  /** Kept before the command runs: at most once for a role and epoch, whoever is killed when. */
  #change(cluster: Cluster, now: KeptRole): void {
    writeKeptRole(this.#context.paths, now);
    this.#journal.state(
      'role',
      `this node is ${now.role === 'fenced' ? 'fenced' : `the ${now.role}`}, epoch ${now.epoch}`,
    );
    const line = this.#context.settings.onRoleChange;
    if (line === undefined) return;
    this.#commands = this.#commands.then(() => this.#tell(cluster, line, now)).catch(() => {});
  }

  async #tell(cluster: Cluster, line: string, { role, epoch }: KeptRole): Promise<void> {
    const { node, pgdata, settings, stateDir } = this.#context;
    const limitMs = settings.roleChangeTimeout;
    const end = await runCommandLine(line, [role, node, String(epoch)], {
      limitMs,
      output: path.join(stateDir, 'on_role_change.log'),
      env: {
        WALVAULT_ROLE: role,
        WALVAULT_NODE: node,
        WALVAULT_EPOCH: String(epoch),
        WALVAULT_CLUSTER: cluster.name,
        PGDATA: pgdata,
      },
    });
    if (end.code === 0 && !end.timedOut) {
      this.#journal.state('on_role_change', `on_role_change was told: ${role}, epoch ${epoch}`);
      return;
    }
    const how = end.timedOut
      ? `was ended after ${limitMs / 1000} s`
      : `ended with ${end.code ?? end.signal ?? 'nothing'}`;
    const text = `on_role_change (${role} ${node} ${epoch}) ${how}${end.said === '' ? '' : `: ${end.said}`}`;
    this.#journal.state('on_role_change', text);
    await putEvent(cluster, { kind: 'on_role_change', node, epoch, text }).catch((error: unknown) =>
      this.#journal.state('on_role_change', `${text}; not in the vault: ${inWords(error)}`),
    );
  }

  async #fenced(cluster: Cluster, { epoch }: KeptRole, primary: string): Promise<void> {
    const { node, paths, pgdata, settings } = this.#context;
    const why = `${node} is fenced: ${primary} holds epoch ${epoch}`;
    if (!stopsFenced(settings)) {
      this.#journal.state('fenced', `${why}; on_fenced = "none" leaves its server running`);
      return;
    }
    this.#journal.state('fenced', `${why}; stopping its server`);
    // Asked once more right before: in the time that the vault took it may have become a standby, or have gone.
    if ((await serverRole(pgdata, paths)) !== 'open') return;
    const by = settings.lease > 0 ? 'a lease ends with its epoch' : 'on_fenced = "stop"';
    const text = `${why}; ${by}: its agent ${await stopFenced(pgdata)}`;
    this.#journal.state('fenced', text);
    await putEvent(cluster, { kind: 'fenced-stop', node, epoch, text });
    await reportNode(cluster, { name: node, trouble: `${text}; make it a standby: 'walvault rejoin'` });
  }
}

/** A node with a lease has said that it goes on with the vault's word only. */
const stopsFenced = ({ onFenced, lease }: Settings): boolean => onFenced === 'stop' || lease > 0;

/** Fast, then immediate. @returns what was done @throws VaultError unreachable (it still runs) | denied */
export async function stopFenced(pgdata: string, fastMs = FAST_STOP_MS): Promise<string> {
  try {
    await stopServer(pgdata, 'fast', fastMs);
    return 'stopped the server (fast)';
  } catch (error) {
    if (!(error instanceof VaultError) || error.code !== 'unreachable') throw error;
    await stopServer(pgdata, 'immediate', IMMEDIATE_STOP_MS);
    return `stopped the server (immediate: it had not ended ${fastMs / 1000} s after a fast stop)`;
  }
}

/** By signal files and pg_control, read anew: a memory of it could stop the wrong server. */
export async function serverRole(pgdata: string, paths: StatePaths): Promise<RoleFacts['server']> {
  if ((await runningServer(pgdata)) === undefined) return 'other';
  const mode = await recoveryMode(pgdata);
  const { state } = await readControlFile(pgdata);
  if (mode === 'none' && state === IN_PRODUCTION) return 'open';
  const follows = mode === 'standby' || (mode === 'archive' && isWaitNode(paths));
  return follows && state === IN_ARCHIVE_RECOVERY ? 'recovering' : 'other';
}
