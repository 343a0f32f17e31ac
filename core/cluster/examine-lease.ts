/**
 * What is right and wrong with the lease of a node and with who watches it: settings, watchdog, renewals, and the witness that counts on them.
 *
 * Pure; core/work/doctor-node.ts looks at the node, core/work/doctor-vault.ts at the vault.
 */
import type { VaultFacts } from './examine-vault.ts';
import { bad, inWords, ok, warn, type Finding } from './finding.ts';
import { leaseOf, leaseTimes, type WatchdogKind } from './lease.ts';

export type LeaseFacts = {
  /** As settings.toml has it, ms; 0: none. */
  ms: number;
  watchdog: 'none' | WatchdogKind;
  /** Why these settings give none; undefined: they do, or none is asked for. */
  refused: { message: string; hint: string } | undefined;
  /** The watchdog that lives. */
  runs: { pid: number; kind: WatchdogKind } | undefined;
  /** Since the sending of the last confirmed renewal, ms; Infinity: of an earlier boot; undefined: there never was one. */
  ageMs: number | undefined;
  /** dr_after, where dr_vault is set; ms. */
  spillsAfterMs: number | undefined;
};

/** A witness writes its row twice a minute; older than this nobody watches, ms. */
const WITNESS_AGE_MS = 120_000;

export function examineLease(
  facts: LeaseFacts,
  server: { runs: boolean; inRecovery: boolean },
  { vault, node, nowMs }: { vault: VaultFacts | undefined; node: string | undefined; nowMs: number },
): Finding[] {
  const what = 'lease';
  const { ms, watchdog, refused, runs, ageMs } = facts;
  if (refused !== undefined) return [bad(what, refused.message, { fix: refused.hint })];
  const primary = vault?.nodes.find(({ name }) => name === vault.control.primary);
  const theirs = vault === undefined ? undefined : leaseOf(vault.control, primary);
  if (ms === 0) {
    const isOther = theirs !== undefined && vault?.control.primary !== node;
    return isOther
      ? [
          warn(
            what,
            `${vault?.control.primary} has a lease, this node has none: as the primary it would run without`,
            {
              fix: `set lease and watchdog here, too (docs/witness.md)`,
            },
          ),
        ]
      : [ok(what, 'none')];
  }
  const findings: Finding[] = [];
  if (server.runs && runs === undefined)
    findings.push(
      bad(
        what,
        `its watchdog does not run: ${server.inRecovery ? 'it is no target of a trigger' : 'the lease is not renewed, and the server will be stopped'}`,
        {
          fix:
            watchdog === 'systemd'
              ? 'start its unit (docs/systemd.md)'
              : 'its agent starts it within a heartbeat; agent.log says why it could not',
        },
      ),
    );
  if (runs !== undefined && runs.kind !== watchdog)
    findings.push(
      warn(
        what,
        `watchdog = "${watchdog}", but the one that runs (pid ${runs.pid}) was started as "${runs.kind}"`,
        {
          fix: `end it: kill ${runs.pid}; the right one is started by ${watchdog === 'systemd' ? 'its unit' : 'the agent'}`,
        },
      ),
    );
  const isOpen = server.runs && !server.inRecovery;
  if (isOpen && ageMs !== undefined && ageMs > leaseTimes(ms).fast / 2)
    findings.push(
      bad(
        what,
        `not renewed for ${Number.isFinite(ageMs) ? inWords(ageMs) : 'longer than this machine runs'}, of ${inWords(ms)}: the server is stopped at ${inWords(leaseTimes(ms).fast)}`,
        {
          fix: 'the checks of vault and agent say why',
        },
      ),
    );
  const { spillsAfterMs } = facts;
  if (spillsAfterMs !== undefined && leaseTimes(ms).fast <= spillsAfterMs)
    findings.push(
      warn(
        what,
        `it stops the primary after ${inWords(leaseTimes(ms).fast)}, before dr_after (${inWords(spillsAfterMs)}) lets it archive into dr_vault`,
        {
          fix: 'make dr_after shorter, or the lease longer, or do without one of them',
        },
      ),
    );
  const witness = vault?.witness;
  const isWatched = witness !== undefined && nowMs - Date.parse(witness.at) < WITNESS_AGE_MS;
  if (vault !== undefined && theirs !== undefined && !isWatched)
    findings.push(
      warn(
        what,
        witness === undefined
          ? 'no witness has ever looked'
          : `the witness (${witness.by}) looked last ${inWords(nowMs - Date.parse(witness.at))} ago`,
        {
          fix: `nobody would notice that the primary is silent: run 'walvault witness' somewhere, or deploy the function (docs/witness.md)`,
        },
      ),
    );
  if (findings.length > 0) return findings;
  const renewed = isOpen && ageMs !== undefined ? `, renewed ${inWords(ageMs)} ago` : '';
  const watched = isWatched
    ? `; ${witness.by} watches, auto_failover ${witness.policy.autoFailover ? 'on' : 'off'}`
    : '';
  return [
    ok(
      what,
      `${inWords(ms)}${renewed}, watchdog ${watchdog}${runs === undefined ? '' : ` (pid ${runs.pid})`}${watched}`,
    ),
  ];
}
