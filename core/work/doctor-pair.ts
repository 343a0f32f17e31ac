/**
 * The vaults of a cluster side by side: reads each that can be reached, and says what is right and wrong with them.
 */
import type { RelayRow, VaultRef } from '../cluster/facts.ts';
import { examinePair, examineReach, examineRoles, type Patient } from '../cluster/examine-pair.ts';
import { worstOf, type Finding } from '../cluster/finding.ts';
import { VaultError } from '../errors.ts';
import { withLimit } from '../vault/time-limit.ts';
import type { Vault } from '../vault/vault.ts';
import { listRows, openCluster, type Cluster } from './cluster.ts';
import { namedVaults } from './other-vaults.ts';
import { relayLag } from './relay-lag.ts';
import { readSide, type Reading } from './replica.ts';

export type PairExam = {
  findings: Finding[];
  /** The worst of them, as a monitoring plug-in answers: 0 ok, 1 warn, 2 bad. */
  worst: 0 | 1 | 2;
};

/**
 * Looks at this vault and at each that it names.
 *
 * @param open     opens a vault by its URL; whoever gave it closes it
 * @param limitMs  for one of the others @param now  for ages
 * @throws VaultError unreachable (this vault itself)
 */
export async function examineVaults(
  cluster: Cluster,
  open: (url: string) => Promise<Vault>,
  limitMs: number,
  now: Date = new Date(),
): Promise<PairExam> {
  const mine = await readPatient(cluster);
  const { control, relays } = mine;
  const { vaultId: id, source, supersedes, supersededBy, direct } = control;
  const vault = { id, url: mine.url, role: control.role };
  const named = namedVaults({ vault, source, supersedes, supersededBy, direct, relays });
  const looked = await Promise.all(named.map((ref) => lookAt(cluster.name, ref, open, limitMs)));
  const reached = looked.flatMap((each) => ('control' in each ? [each] : []));
  const unreached = looked.flatMap((each) => ('control' in each ? [] : [each]));
  const findings = [...[mine, ...reached].map(examineReach), ...unreached];
  if (named.length === 0) {
    findings.push({
      ...{ what: 'roles', state: control.role === 'active' ? 'ok' : 'bad' },
      says: `${mine.url} is ${control.role}, and names no other vault`,
    });
    return { findings, worst: worstOf(findings) };
  }
  const patients = [mine, ...reached];
  findings.push(examineRoles(patients, unreached.length));
  for (const target of patients) {
    const from = patients.find((each) => each.control.vaultId === target.control.source?.id);
    if (from === undefined) continue;
    const lag = await relayLag(from, target, now);
    findings.push(...examinePair(from, target, lag, now));
  }
  return { findings, worst: worstOf(findings) };
}

type Examined = Patient & Reading;

async function readPatient(cluster: Cluster, sinceMs = performance.now()): Promise<Examined> {
  const side = await readSide(cluster);
  const relays = await listRows<RelayRow>(cluster, 'relay#');
  return { ...side, relays, tookMs: Math.round(performance.now() - sinceMs) };
}

async function lookAt(
  name: string,
  { id, url }: VaultRef,
  open: (url: string) => Promise<Vault>,
  limitMs: number,
): Promise<Examined | Finding> {
  const sinceMs = performance.now();
  const bad = (says: string): Finding => ({
    ...{ what: 'reach', state: 'bad', says },
    fix: `is it away? try from a machine near it: walvault status --vault '${url}'`,
  });
  try {
    return await withLimit(limitMs, `a look at ${url}`, async () => {
      const found = await readPatient(await openCluster(await open(url), name), sinceMs);
      return found.control.vaultId === id
        ? found
        : bad(`${url} is another vault by now: ${found.control.vaultId}, not ${id}`);
    });
  } catch (error) {
    if (!(error instanceof VaultError)) throw error;
    return bad(`${url} is not reached: ${error.message}`);
  }
}
