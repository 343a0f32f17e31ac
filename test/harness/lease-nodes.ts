/** The machine of a node with a lease, as far as a test can take one machine for several: all its processes, frozen, woken, killed. */
import path from 'node:path';
import { readFileSync } from 'node:fs';
import { parseHistory } from '../../core/wal/history.ts';
import type { Lsn } from '../../core/wal/lsn.ts';
import type { Clients } from './clients.ts';
import { killHard, listProcesses, processesAt, processTree, waitFor } from './scratch.ts';
import type { TestSite } from './site.ts';

/** Watchdogs of `node` that run. */
export function watchdogPids(site: TestSite, node: string): number[] {
  const state = site.state(node);
  return listProcesses()
    .filter(
      ({ command, state: run }) =>
        run !== 'Z' && command.includes('/watchdog.cjs') && command.includes(` ${state} `),
    )
    .map(({ pid }) => pid);
}

/** Watchdog, agent, server and everything the server started. */
function machineOf(site: TestSite, node: string): number[] {
  const postmaster = site.server(node).pid();
  return [
    ...watchdogPids(site, node),
    ...site.agentPids(node),
    ...(postmaster === undefined ? [] : processTree(postmaster)),
  ];
}

export function freezeMachine(site: TestSite, node: string): void {
  // twice: what was forked meanwhile is found the second time
  for (let round = 0; round < 2; round++) for (const pid of machineOf(site, node)) signal(pid, 'SIGSTOP');
}

export function wakeMachine(site: TestSite, node: string): void {
  for (const pid of [...machineOf(site, node)].reverse()) signal(pid, 'SIGCONT');
}

/** As a power failure. */
export async function killMachine(site: TestSite, node: string): Promise<void> {
  // whoever looks after the others first, or they come back
  await killHard(watchdogPids(site, node));
  await killHard(site.agentPids(node));
  const server = site.server(node);
  if (server.pid() !== undefined) await server.kill9();
  for (let left = machineOf(site, node); left.length > 0; left = machineOf(site, node)) await killHard(left);
  await killHard(processesAt(server.pgdata));
}

export function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // gone already
  }
}

/** Until `node` holds a lease, which is from its first renewal on. */
export async function hasLease(site: TestSite, node: string): Promise<void> {
  await waitFor(`${node} has a lease`, 90_000, async () => (await leaseCount(site, node)) !== undefined);
}

export async function leaseCount(site: TestSite, node: string): Promise<number | undefined> {
  const [row] = await site.rows(`node#${node}`);
  const lease = row?.['lease'] as { count: number } | null | undefined;
  return lease?.count;
}

/** Starts a node as its unit would: guard first. @returns exit status of guard; the server runs where it is 0 */
export async function startGuarded(site: TestSite, node: string): Promise<number> {
  const { status } = await site.walvault('guard', '--pgdata', site.server(node).pgdata, '--node', node);
  if (status === 0) await site.server(node).start();
  return status ?? -1;
}

/** Where `node` left the old timeline, by its own history. */
function forkOf(site: TestSite, node: string, timeline: number): Lsn {
  const name = `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;
  const text = readFileSync(path.join(site.server(node).pgdata, 'pg_wal', name), 'utf8');
  return parseHistory(text).at(-1)!.forkLsn;
}

/** What `old` acknowledged before `node` left its timeline, and is not on `node`: nothing may be. */
export async function missingOn(
  site: TestSite,
  node: string,
  clients: Clients,
  { old, timeline }: { old: string; timeline: number },
): Promise<number[]> {
  const fork = forkOf(site, node, timeline);
  const rows = await site.server(node).query<{ n: number }>('SELECT n FROM written');
  const there = new Set(rows.map(({ n }) => n));
  const kept = clients.of(old).filter(({ lsn }) => lsn !== undefined && lsn <= fork);
  if (kept.length === 0) throw new Error(`${old} acknowledged nothing that is archived: this shows nothing`);
  return kept.filter(({ n }) => !there.has(n)).map(({ n }) => n);
}
