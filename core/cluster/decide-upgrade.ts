/**
 * Whether a database that pg_upgrade made may take the place of the one that a cluster was: a new generation, in the next epoch. The old
 * generation's rows and objects stay as they are, in a partition of their own that nothing reads any more.
 *
 * Pure. Source: PostgreSQL docs, "pg_upgrade": the new cluster has a system identifier of its own, and WAL of the old one means nothing to it.
 */
import type { FailureCode } from '../errors.ts';
import type { Control, Head } from './facts.ts';

export type NewDatabase = Pick<Control, 'systemIdentifier' | 'segmentSize' | 'majorVersion'> & {
  node: string;
};

export type UpgradeDecision =
  | { do: 'renew'; control: Control }
  /** This very database has taken the place already. */
  | { do: 'there' }
  | { do: 'refuse'; code: FailureCode; message: string; hint: string };

export function decideUpgrade(control: Control, head: Head, database: NewDatabase): UpgradeDecision {
  const { systemIdentifier, node } = database;
  const { generations = [] } = control;
  const refuse = (message: string, hint: string): UpgradeDecision => ({
    do: 'refuse',
    code: 'refused',
    message,
    hint,
  });
  if (systemIdentifier === control.systemIdentifier) {
    if (generations.length > 0 && control.primary === node) return { do: 'there' };
    if (generations.length > 0)
      return refuse(
        `${control.pk} is this database already, and ${control.primary ?? 'no node'} is its primary`,
        `give --node of that one; another becomes the primary by 'walvault trigger'.`,
      );
    return refuse(
      `${control.pk} is this very database (system identifier ${systemIdentifier}): nothing was upgraded`,
      `name the data directory that pg_upgrade made: --pgdata.`,
    );
  }
  if (generations.includes(systemIdentifier))
    return refuse(
      `this database (system identifier ${systemIdentifier}) is one that ${control.pk} was before an upgrade`,
      `name the data directory that pg_upgrade made: --pgdata. To go back to the old one, give it a cluster name of its own.`,
    );
  if (control.role !== 'active')
    return refuse(
      `this vault is a ${control.role}`,
      `run it on the active vault: the relay then makes the new generation here, too.`,
    );
  if (control.direct !== null)
    return refuse(
      `the old primary may spill to ${control.direct.url}`,
      `first end that: 'walvault configure primary --dr-vault none' on it, with everything at home.`,
    );
  const { promotion } = head;
  if (promotion !== null && promotion.state !== 'open')
    return refuse(
      `the promotion of ${promotion.node} in epoch ${promotion.epoch} is under way`,
      `wait for it ('walvault status'), and upgrade the server that it makes the primary.`,
    );
  if (database.majorVersion < control.majorVersion)
    return refuse(
      `this database is of PostgreSQL ${database.majorVersion}, ${control.pk} is of ${control.majorVersion} already`,
      `name the data directory that pg_upgrade made: --pgdata.`,
    );
  const { segmentSize, majorVersion } = database;
  const epoch = control.epoch + 1;
  return {
    do: 'renew',
    control: {
      ...control,
      rev: control.rev + 1,
      ...{ systemIdentifier, segmentSize, majorVersion },
      generations: [...generations, control.systemIdentifier],
      ...{ epoch, reign: epoch, primary: node, archiving: true, trigger: null },
    },
  };
}

/** Is what the replica holds a generation that its own source has left? Then the relay makes the new one beside it. */
export function isOlderGeneration(source: Control, target: Control): boolean {
  return (
    target.role === 'replica' &&
    target.source?.id === source.vaultId &&
    (source.generations ?? []).includes(target.systemIdentifier)
  );
}
