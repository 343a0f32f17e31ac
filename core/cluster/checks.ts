/**
 * The table of checks of `walvault doctor`: what each looks at, and how its facts become findings. docs/doctor.md is made from it.
 *
 * Pure. A check whose facts could not be had says nothing here: why they could not is a finding of the check that wanted them first.
 */
import type { Writer } from './decide-archive.ts';
import { examineLease } from './examine-lease.ts';
import {
  examineAgent,
  examineErrors,
  examineIdentity,
  examineMarks,
  examinePermissions,
  examineProgram,
  examineSettings,
  examineSignals,
  examineStateDirectory,
  examineWrappers,
  isConfigured,
  type Commands,
  type SettingsFacts,
  type SignalFacts,
  type StateFacts,
} from './examine-node.ts';
import {
  examineArchiving,
  examineChain,
  examineDisks,
  examineParameters,
  examinePending,
  examineServer,
  examineTablespaces,
  isStanding,
  type ArchivingFacts,
  type ChainFacts,
  type DiskFacts,
  type ParameterFacts,
  type ServerState,
  type TablespaceFacts,
  type WalLook,
} from './examine-server.ts';
import {
  examineBackups,
  examineClock,
  examineCredentials,
  examineDatabase,
  examineLibrary,
  examineNodeRow,
  examineOthers,
  examineProbe,
  examineReachOf,
  examineWriter,
  type CredentialClues,
  type DatabaseFacts,
  type OwnFacts,
  type ProbeFacts,
  type VaultFacts,
} from './examine-vault.ts';
import { bad, isUnseen, ok, warn, type Finding, type Unseen } from './finding.ts';

/** The server of PGDATA, as its files and, where it runs, it itself say. */
export type ServerFacts = {
  owner: { uid: number; name: string };
  server: ServerState;
  signals: SignalFacts;
  database: DatabaseFacts;
  parameters: ParameterFacts;
  archiving: ArchivingFacts;
  disks: DiskFacts[];
  looks: WalLook[];
  tablespaces: TablespaceFacts[];
  chain: ChainFacts | undefined;
};

export type Facts = {
  nowMs: number;
  /** Of the program that examines. */
  version: string;
  person: { uid: number; name: string };
  commands: Commands;
  settings: SettingsFacts;
  /** undefined: no data directory was named. */
  server: ServerFacts | Unseen | undefined;
  state: StateFacts | undefined;
  own: OwnFacts | undefined;
  /** undefined: no vault or no cluster was named. */
  vault: VaultFacts | Unseen | undefined;
  /** undefined: it never wrote, or is no open server. */
  writer: Writer | Unseen | undefined;
  credentials: { isWanted: boolean; person: CredentialClues; server: CredentialClues | undefined };
  library: string | null;
  probe: ProbeFacts | undefined;
};

export type Check = {
  /** Its name; findings carry it. */
  what: string;
  /** What it looks at, for the page. */
  looks: string;
  /** Undefined: made by examine-pair.ts, of two vaults. */
  examine?: (facts: Facts) => Finding[];
};

const server = ({ server: found }: Facts): ServerFacts | undefined => (isUnseen(found) ? undefined : found);
const vault = ({ vault: found }: Facts): VaultFacts | undefined => (isUnseen(found) ? undefined : found);
const state = ({ state: found }: Facts): StateFacts | undefined =>
  found !== undefined && isConfigured(found) ? found : undefined;
const life = (facts: Facts) => {
  const signals = server(facts)?.signals;
  return { runs: signals?.running === 'yes', inRecovery: signals?.inRecovery ?? false };
};
/** Open for writes, by all that its files say. */
const isOpen = (facts: Facts): boolean => {
  const signals = server(facts)?.signals;
  return signals?.running === 'yes' && !signals.inRecovery;
};
const none: Finding[] = [];

export const CHECKS: readonly Check[] = [
  {
    what: 'settings',
    looks:
      'Which settings are given and where (flag, environment, file); vault and cluster are among them; settings.toml can be read; nothing that was given here differs from settings.toml, by which hooks and agent go.',
    examine: (facts) => examineSettings(facts.settings, facts.commands),
  },
  {
    what: 'user',
    looks: 'Doctor runs as the user who owns the server: another one may not read all of it.',
    examine: (facts) => {
      const found = server(facts);
      if (found === undefined || found.owner.uid === facts.person.uid) return none;
      return [
        warn(
          'user',
          `you are ${facts.person.name}, the server belongs to ${found.owner.name}: what you may not read is not examined`,
          {
            run: facts.commands.asOwner,
          },
        ),
      ];
    },
  },
  {
    what: 'server',
    looks:
      'PGDATA is a data directory that can be read; a server runs on it and lets us in; where it is a standby its replay is not paused.',
    examine: (facts) => {
      if (facts.server === undefined)
        return [ok('server', 'none was named (--pgdata): the vault alone is examined')];
      if (isUnseen(facts.server)) return [bad('server', facts.server.unseen, { fix: facts.server.fix })];
      return examineServer(facts.server.server, facts.commands);
    },
  },
  {
    what: 'state directory',
    looks: 'It is there, can be looked into, and does not lie in PGDATA.',
    examine: (facts) =>
      facts.state === undefined ? none : examineStateDirectory(facts.state, facts.person, facts.commands),
  },
  {
    what: 'permissions',
    looks:
      "Directory and files are the server's own user's; the directory is 700; nothing in it that PostgreSQL runs or goes by can be written by others.",
    examine: (facts) => {
      const found = state(facts);
      return found === undefined ? none : examinePermissions(found, server(facts)?.owner ?? facts.person);
    },
  },
  {
    what: 'identity',
    looks:
      'identity.json names this machine (machine-id) and this data directory (path, inode): otherwise it is a copy, and hooks refuse.',
    examine: (facts) => {
      const found = state(facts);
      return found === undefined ? none : examineIdentity(found, facts.commands);
    },
  },
  {
    what: 'wrappers',
    looks:
      'archive, restore, cleanup and recovered are there, can be executed, and say what configure would write.',
    examine: (facts) => {
      const found = state(facts);
      return found === undefined ? none : examineWrappers(found, facts.commands);
    },
  },
  {
    what: 'program',
    looks:
      'The links program and node lead to a walvault with its bundles and to a Node that can be run; its version is that of this command.',
    examine: (facts) => {
      const found = state(facts);
      return found === undefined ? none : examineProgram(found, facts.version, facts.commands);
    },
  },
  {
    what: 'agent',
    looks: 'An agent runs, answers on its socket, and is of the version of the hooks.',
    examine: (facts) => {
      const found = state(facts);
      return found === undefined ? none : examineAgent(found, life(facts), facts.commands);
    },
  },
  {
    what: 'lease',
    looks:
      'With a lease: the settings give one, its watchdog runs and is of the kind that is set, it is renewed in time and goes with dr_after, a witness watches. Without: the present primary has none either.',
    examine: (facts) => {
      const found = state(facts);
      const about = { vault: vault(facts), node: facts.own?.node, nowMs: facts.nowMs };
      return found === undefined ? none : examineLease(found.lease, life(facts), about);
    },
  },
  {
    what: 'signal files',
    looks:
      'standby.signal, recovery.signal and promote are as the role wants them; a promotion that died half way is told.',
    examine: (facts) => {
      const found = server(facts);
      if (found === undefined) return none;
      const seen = vault(facts);
      const isPrimary = seen === undefined ? undefined : seen.control.primary === facts.own?.node;
      return examineSignals(found.signals, isPrimary, (seen?.head.flush ?? null) !== null, facts.commands);
    },
  },
  {
    what: 'marks',
    looks:
      'What jobs left that were broken off: a seal, a detached node, a refused opening, a killed flush, a broken rewind.',
    examine: (facts) => {
      const found = state(facts);
      return found === undefined
        ? none
        : examineMarks(found, life(facts), vault(facts)?.head.epoch, facts.commands);
    },
  },
  {
    what: 'parameters',
    looks:
      'archive_mode, archive_command, restore_command, archive_cleanup_command, recovery_end_command, archive_library, wal_level, archive_timeout, wal_retrieve_retry_interval and max_wal_senders against what configure would write; of a standby no recovery target; no command longer than PostgreSQL takes.',
    examine: (facts) => {
      const found = server(facts);
      // without a state directory all of them differ, and the one finding says why
      return found === undefined || state(facts) === undefined
        ? none
        : examineParameters(found.parameters, facts.commands);
    },
  },
  {
    what: 'pending',
    looks: 'What is written into the files is in force: no restart or reload is due, no line is refused.',
    examine: (facts) => {
      const found = server(facts);
      return found === undefined || !found.parameters.isRunning
        ? none
        : examinePending(found.parameters, facts.commands);
    },
  },
  {
    what: 'archiving',
    looks: 'What waits in archive_status gets on (pg_stat_archiver, age of the oldest).',
    examine: (facts) => {
      const found = server(facts);
      return found === undefined || facts.own?.inRecovery === true
        ? none
        : examineArchiving(found.archiving, facts.nowMs);
    },
  },
  {
    what: 'chain',
    looks:
      'On the primary: each segment behind the vault’s head waits in archive_status; none was marked done that the vault has not got, none is lost.',
    examine: (facts) => {
      const found = server(facts);
      return found?.chain === undefined ? none : examineChain(found.chain, facts.commands);
    },
  },
  {
    what: 'disk',
    looks: 'Room for pg_wal and spool; where archiving stands still, in how many minutes pg_wal is full.',
    examine: (facts) => {
      const found = server(facts);
      if (found === undefined) return none;
      const standing = isStanding(found.archiving, facts.nowMs) && facts.own?.inRecovery !== true;
      const { disks, looks, database } = found;
      return examineDisks(disks, { standing, looks, segmentSize: database.segmentSize });
    },
  },
  {
    what: 'tablespaces',
    looks: 'Each link in pg_tblspc leads somewhere.',
    examine: (facts) => {
      const found = server(facts);
      return found === undefined ? none : examineTablespaces(found.tablespaces, facts.state?.dir.path ?? '');
    },
  },
  {
    what: 'last errors',
    looks:
      'The last failure in agent.log and the last refusal among the events of this node; for information.',
    examine: (facts) => {
      const found = state(facts);
      return found === undefined ? none : examineErrors(found, vault(facts)?.refusals ?? []);
    },
  },
  {
    what: 'credentials',
    looks:
      'Where those for an s3 vault come from, here and for the server, whose hooks have its environment.',
    examine: ({ credentials, vault: found }) =>
      found === undefined
        ? none
        : examineCredentials(credentials.isWanted, credentials.person, credentials.server),
  },
  {
    what: 'vault',
    looks:
      'Manifest and bucket answer, and how fast; the object of the last segment is there; archiving is switched on.',
    examine: (facts) => (facts.vault === undefined ? none : examineReachOf(facts.vault)),
  },
  {
    what: 'probe',
    looks:
      'With --probe: an object is written, read and deleted, and this node’s row written. A key for nodes may not delete: that is said, and is right.',
    examine: (facts) => (vault(facts) === undefined ? none : examineProbe(facts.probe)),
  },
  {
    what: 'clock',
    looks: 'This machine’s clock against that of the store (s3), and against the times in the vault.',
    examine: (facts) => {
      const found = vault(facts);
      return found === undefined ? none : examineClock(found, facts.nowMs);
    },
  },
  {
    what: 'system identifier',
    looks: 'PGDATA is the database that the vault’s cluster is, of the same PostgreSQL and segment size.',
    examine: (facts) => {
      const [found, own] = [vault(facts), server(facts)];
      return found === undefined || own === undefined ? none : examineDatabase(found, own.database);
    },
  },
  {
    what: 'writer',
    looks:
      'An open server may write: the epoch is its own, its nonce is the vault’s, no flush stands (fenced, copied).',
    examine: (facts) => {
      const found = vault(facts);
      if (found === undefined || facts.own === undefined || !isOpen(facts)) return none;
      if (isUnseen(facts.writer)) return [bad('writer', facts.writer.unseen, { fix: facts.writer.fix })];
      return examineWriter(found, facts.writer, facts.commands);
    },
  },
  {
    what: 'node row',
    looks: 'What the vault has of this node: it reports, from here, as what it is, and has no trouble.',
    examine: (facts) => {
      const found = vault(facts);
      return found === undefined || facts.own === undefined
        ? none
        : examineNodeRow(found, facts.own, facts.nowMs, facts.commands);
    },
  },
  {
    what: 'nodes',
    looks: 'The other nodes were heard of lately, and have no trouble.',
    examine: (facts) => {
      const found = vault(facts);
      return found === undefined ? none : examineOthers(found, facts.own?.node, facts.nowMs);
    },
  },
  {
    what: 'backups',
    looks: 'One is complete.',
    examine: (facts) => {
      const found = vault(facts);
      // a person elsewhere asks after the vaults: without a server nobody can say whether one is due yet
      return found === undefined || facts.own === undefined ? none : examineBackups(found, facts.commands);
    },
  },
  {
    what: 'library',
    looks: 'The C library is that of the primary: text is sorted by it.',
    examine: (facts) => {
      const found = vault(facts);
      return found === undefined || facts.own === undefined
        ? none
        : examineLibrary(found, facts.own.node, facts.library);
    },
  },
  { what: 'reach', looks: 'Every vault that this one names answers, and is the one that was meant.' },
  { what: 'roles', looks: 'Just one vault is active, and every other one follows.' },
  { what: 'database', looks: 'Two vaults hold the same database.' },
  { what: 'epochs', looks: 'A follower knows the epoch of its source.' },
  { what: 'histories', looks: 'A follower is on its source’s branch.' },
  { what: 'heads', looks: 'A follower is not past its source.' },
  { what: 'relay', looks: 'The relay was heard of lately, gets on, and is not far behind.' },
  { what: 'spills', looks: 'Nothing that was spilled waits.' },
  { what: 'armed', looks: 'Spilling is armed in both vaults or in none.' },
];

/** All that can be said of these facts, in the order of the table. */
export function examine(facts: Facts): Finding[] {
  return CHECKS.flatMap((check) => check.examine?.(facts) ?? []);
}
