/**
 * What is right and wrong with the vault as one machine sees it: reach and latency, credentials, clock, and what it says of this node
 * and of the others.
 *
 * Pure; core/work/doctor-vault.ts reads it. (A pair of vaults is examine-pair.ts.)
 */
import { decideWriter, type Writer } from './decide-archive.ts';
import type { Commands } from './examine-node.ts';
import type { BackupRow, Control, Head, NodeRow, WitnessRow } from './facts.ts';
import { bad, inWords, isUnseen, ok, warn, type Finding, type Unseen } from './finding.ts';

export type VaultFacts = {
  url: string;
  control: Control;
  head: Head;
  nodes: readonly NodeRow[];
  backups: readonly Pick<BackupRow, 'id' | 'state'>[];
  /** What a witness wrote last; absent: none ever looked. */
  witness?: Pick<WitnessRow, 'by' | 'at' | 'policy'> | undefined;
  /** How long one read of one row took, ms. */
  manifestMs: number;
  /** The same of an object's facts (the last segment's, where there is one); absent: that object is gone. */
  bucket: { ms: number; key: string | null; isThere: boolean } | Unseen;
  /** How far the clock of the store is ahead of this machine's, ms; undefined: it does not say. */
  clockAheadMs: number | undefined;
  /** The latest failures that the vault knows of this node, oldest first. */
  refusals: string[];
};

/** Each archived segment costs two puts and a transaction: slower than this, and a busy primary gets ahead of its vault. */
const SLOW_MS = 1000;

export function examineReachOf(vault: VaultFacts | Unseen): Finding[] {
  const what = 'vault';
  if (isUnseen(vault))
    return [
      bad(what, vault.unseen, {
        fix:
          vault.fix ?? 'look whether it can be reached from here; what was examined without it stands above',
      }),
    ];
  const { url, manifestMs, bucket, control } = vault;
  const findings: Finding[] = [];
  if (isUnseen(bucket))
    findings.push(
      bad(what, `the manifest answers, the bucket does not: ${bucket.unseen}`, { fix: bucket.fix }),
    );
  else if (!bucket.isThere)
    findings.push(
      bad(what, `the object of the last segment is gone from the bucket: ${bucket.key}`, {
        fix: 'somebody, or a lifecycle rule, deletes in the bucket: end that first. Then take a new base backup: what needs this segment cannot be restored',
      }),
    );
  const slow = Math.max(manifestMs, isUnseen(bucket) ? 0 : bucket.ms);
  if (slow > SLOW_MS)
    findings.push(
      warn(
        what,
        `it answers slowly: manifest ${manifestMs} ms, bucket ${isUnseen(bucket) ? '?' : bucket.ms} ms`,
        {
          fix: 'look at the network between here and there; is it in the same region?',
        },
      ),
    );
  if (control.archiving === false)
    findings.push(
      warn(what, 'archiving is switched off: nothing that is written now can be restored', {
        fix: 'switch it on again, and take a base backup',
      }),
    );
  if (findings.length > 0) return findings;
  return [
    ok(
      what,
      `${url}: ${control.role}, epoch ${control.epoch}, primary ${control.primary ?? 'none'}; manifest ${manifestMs} ms, bucket ${isUnseen(bucket) ? '?' : bucket.ms} ms`,
    ),
  ];
}

/** What the SDK may find its credentials by, in its own order. */
export type CredentialClues = {
  profile: string | undefined;
  environment: Readonly<Record<string, string | undefined>>;
  hasSharedFile: boolean;
};

/** Where credentials come from, in words; a key by its first letters only. */
export function credentialSource({ profile, environment: env, hasSharedFile }: CredentialClues): string {
  const key = env['AWS_ACCESS_KEY_ID'];
  if (profile !== undefined) return `profile ${profile} (setting aws_profile)`;
  if (key !== undefined && key !== '') return `the key ${key.slice(0, 4)}… of AWS_ACCESS_KEY_ID`;
  if (env['AWS_PROFILE']) return `profile ${env['AWS_PROFILE']} (AWS_PROFILE)`;
  if (env['AWS_WEB_IDENTITY_TOKEN_FILE']) return 'web identity (AWS_WEB_IDENTITY_TOKEN_FILE)';
  if (env['AWS_CONTAINER_CREDENTIALS_RELATIVE_URI'] || env['AWS_CONTAINER_CREDENTIALS_FULL_URI'])
    return 'the container';
  return hasSharedFile ? '~/.aws (profile default)' : 'the role of this instance';
}

/** @param person  of whoever runs doctor @param server  of the server, whose hooks inherit its environment; undefined: not known */
export function examineCredentials(
  isWanted: boolean,
  person: CredentialClues,
  server: CredentialClues | undefined,
): Finding[] {
  const what = 'credentials';
  if (!isWanted) return [ok(what, 'none are needed for this vault')];
  const mine = credentialSource(person);
  if (server === undefined) return [ok(what, mine)];
  const theirs = credentialSource(server);
  if (mine === theirs) return [ok(what, `${mine}, for the server too`)];
  return [
    warn(what, `here ${mine}; the server and its hooks have ${theirs}`, {
      fix: 'that the vault answers here proves nothing for them: run doctor with their environment, or name a profile by configure --aws-profile, and restart the server where its environment was changed',
    }),
  ];
}

/** Signed requests are refused from five minutes on. */
const CLOCK_BAD_MS = 4 * 60_000;
const CLOCK_WARN_MS = 30_000;

export function examineClock(vault: VaultFacts, nowMs: number): Finding[] {
  const what = 'clock';
  const run = 'sudo chronyc makestep';
  const { clockAheadMs } = vault;
  if (clockAheadMs !== undefined && Math.abs(clockAheadMs) > CLOCK_WARN_MS) {
    const says = `this machine is ${inWords(clockAheadMs)} ${clockAheadMs > 0 ? 'behind' : 'ahead of'} the vault's clock`;
    return [
      Math.abs(clockAheadMs) > CLOCK_BAD_MS
        ? bad(what, `${says}: signed requests are refused from 5 min on`, { fix: 'set the clock', run })
        : warn(what, says, { fix: 'set the clock', run }),
    ];
  }
  const times: [string, string | null][] = [
    ['the last segment', vault.head.lastArchivedAt],
    ...vault.nodes.map(({ name, heartbeatAt }): [string, string | null] => [
      `the heartbeat of ${name}`,
      heartbeatAt,
    ]),
  ];
  for (const [whose, at] of times) {
    const ahead = at === null ? 0 : Date.parse(at) - nowMs;
    if (ahead > CLOCK_WARN_MS)
      return [
        warn(
          what,
          `${whose} is ${inWords(ahead)} in the future (${at}): this clock, or that of its node, is wrong`,
          {
            fix: 'set the clock of the machine that is wrong; ages that status tells are false meanwhile',
          },
        ),
      ];
  }
  return [
    ok(what, clockAheadMs === undefined ? 'nothing in the vault is of the future' : 'as that of the vault'),
  ];
}

/** May this node write: the fence, and the nonce that tells a copy. @param writer  undefined: it never wrote */
export function examineWriter(vault: VaultFacts, writer: Writer | undefined, commands: Commands): Finding[] {
  const what = 'writer';
  if (writer === undefined)
    return [
      bad(what, 'this server is open, and has no writer.json: it never took up an epoch of this vault', {
        fix: 'where it shall be the primary:',
        run: commands.claim,
      }),
    ];
  const refusal = decideWriter(vault.control, vault.head, writer);
  if (refusal === undefined) return [ok(what, `${writer.node} may write in epoch ${vault.control.epoch}`)];
  const fix = refusal.hint;
  const isOther = refusal.code === 'fenced' && vault.control.primary !== writer.node;
  const run =
    refusal.code === 'copied'
      ? commands.claim
      : isOther && vault.control.role === 'active'
        ? commands.rejoin
        : undefined;
  return [bad(what, `[${refusal.code}] ${refusal.message}`, { fix, ...(run === undefined ? {} : { run }) })];
}

const SILENT_MS = 60_000;

export type OwnFacts = {
  node: string;
  place: string;
  version: string | undefined;
  runs: boolean;
  inRecovery: boolean;
  heartbeatMs: number;
};

export function examineNodeRow(
  vault: VaultFacts,
  own: OwnFacts,
  nowMs: number,
  commands: Commands,
): Finding[] {
  const what = 'node row';
  const row = vault.nodes.find(({ name }) => name === own.node);
  if (row === undefined)
    return own.runs
      ? [
          warn(what, `the vault has no row of ${own.node}: it never reported`, {
            fix: 'its agent does, within seconds: see the check of the agent',
            run: commands.startAgent,
          }),
        ]
      : [ok(what, `the vault has no row of ${own.node} yet`)];
  const findings: Finding[] = [];
  if (row.trouble !== null)
    findings.push(
      bad(what, `${own.node} says of itself: ${row.trouble}`, { fix: 'the trouble names what to do' }),
    );
  const silentMs = row.heartbeatAt === null ? Infinity : nowMs - Date.parse(row.heartbeatAt);
  if (own.runs && silentMs > Math.max(SILENT_MS, 4 * own.heartbeatMs))
    findings.push(
      warn(
        what,
        `${own.node} runs, and was last heard of ${row.heartbeatAt === null ? 'never' : `${inWords(silentMs)} ago`}`,
        {
          fix: 'its agent reports: see the check of the agent, and agent.log',
          run: commands.startAgent,
        },
      ),
    );
  if (row.place !== null && row.place !== own.place && own.runs)
    findings.push(
      warn(what, `${own.node} reports from ${row.place}, this is ${own.place}: another server has its name`, {
        fix: 'stop the one that is a copy, or give it a name of its own',
      }),
    );
  if (own.runs && row.role !== 'unknown' && (row.role === 'standby') !== own.inRecovery)
    findings.push(
      warn(what, `the vault has it as a ${row.role}, it is a ${own.inRecovery ? 'standby' : 'primary'}`, {
        fix: 'its next report says so; where it stays, see the check of the agent',
      }),
    );
  if (findings.length > 0) return findings;
  return [ok(what, `${own.node}: ${row.role}, heard of ${row.heartbeatAt ?? 'never'}`)];
}

/** The other nodes: those that fell silent. @param own  undefined: no server was named */
export function examineOthers(vault: VaultFacts, own: string | undefined, nowMs: number): Finding[] {
  const what = 'nodes';
  const others = vault.nodes.filter(({ name }) => name !== own);
  const findings = others.flatMap((row): Finding[] => {
    const since = row.heartbeatAt ?? row.registeredAt ?? null;
    const silentMs = since === null ? 0 : nowMs - Date.parse(since);
    if (row.trouble !== null)
      return [
        warn(what, `${row.name} says of itself: ${row.trouble}`, {
          fix: `run doctor on the machine of ${row.name}`,
        }),
      ];
    if (silentMs <= 5 * SILENT_MS) return [];
    return [
      warn(
        what,
        `${row.name} (${row.role}) was last heard of ${inWords(silentMs)} ago, and keeps its WAL from retention`,
        {
          fix: `start it, or where it is gone for good: walvault node drop ${row.name}`,
        },
      ),
    ];
  });
  return findings.length > 0
    ? findings
    : [ok(what, others.length === 0 ? 'no other' : `${others.length} other, heard of lately`)];
}

export function examineBackups(vault: VaultFacts, commands: Commands): Finding[] {
  const what = 'backups';
  const complete = vault.backups.filter(({ state }) => state === 'complete');
  if (complete.length > 0)
    return [ok(what, `${complete.length} complete, last ${complete.at(-1)?.id ?? ''}`)];
  return [
    warn(what, 'none is complete: nothing can be restored, no standby be made', {
      fix: vault.control.primary === null ? 'take one' : `on ${vault.control.primary}:`,
      run: commands.backup,
    }),
  ];
}

export type DatabaseFacts = {
  pgdata: string;
  systemIdentifier: string;
  segmentSize: number;
  majorVersion: number;
};

export function examineDatabase(vault: VaultFacts, own: DatabaseFacts): Finding[] {
  const what = 'system identifier';
  const { control } = vault;
  if (control.systemIdentifier !== own.systemIdentifier)
    return [
      bad(
        what,
        `${own.pgdata} is database ${own.systemIdentifier}, the vault's cluster is ${control.systemIdentifier}`,
        {
          fix: 'give the --cluster of this database, or the --pgdata of that cluster',
        },
      ),
    ];
  if (control.majorVersion !== own.majorVersion || control.segmentSize !== own.segmentSize)
    return [
      bad(
        what,
        `PostgreSQL ${own.majorVersion} with segments of ${own.segmentSize} bytes here, ${control.majorVersion} with ${control.segmentSize} in the vault`,
        {
          fix: 'a database of another version has a vault, or a cluster name, of its own: walvault init --cluster NAME',
        },
      ),
    ];
  return [ok(what, `${own.systemIdentifier}, as in the vault`)];
}

/** @param here  of this machine; null: not known */
export function examineLibrary(vault: VaultFacts, own: string, here: string | null): Finding[] {
  const what = 'library';
  const { primary } = vault.control;
  const there = vault.nodes.find(({ name }) => name === primary)?.library ?? null;
  if (here === null || there === null || primary === own || here === there)
    return [
      ok(what, here === null ? 'not known' : there === null ? here : `${here}, as on ${primary ?? '?'}`),
    ];
  return [
    warn(
      what,
      `${here} here, ${there} on ${primary}: where text is sorted by the C library, indexes may be wrong here`,
      {
        fix: 'use the same system on both, or ICU or C collations; else REINDEX after a switchover',
      },
    ),
  ];
}

export type ProbeFacts = { what: string; isDone: boolean; text: string; hint?: string | undefined }[];

/** A write, a read, a delete. A key for nodes may not delete, and does not have to. */
export function examineProbe(steps: ProbeFacts | undefined): Finding[] {
  const what = 'probe';
  if (steps === undefined) return [ok(what, 'not tried: --probe writes, reads and deletes a small object')];
  return steps.map(({ what: step, isDone, text, hint }) =>
    isDone || step === 'delete'
      ? ok(what, `${step}: ${isDone ? text : `not allowed, which is right for the key of a node (${text})`}`)
      : bad(what, `${step}: ${text}`, {
          fix: hint ?? 'give this node the rights that docs/reference.md names',
        }),
  );
}
