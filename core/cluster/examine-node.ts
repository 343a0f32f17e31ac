/**
 * What is right and wrong with one node's own files: its settings, its state directory with wrappers, links, identity and marks, its
 * agent, and the files by which PostgreSQL is told its role.
 *
 * Pure; core/work/doctor-node.ts looks at them.
 */
import type { LeaseFacts } from './examine-lease.ts';
import { bad, isUnseen, ok, quoted, warn, type Finding, type Unseen } from './finding.ts';

/** Commands to paste, as they mean this node; made by bin, which knows what was typed. */
export type Commands = {
  /** Writes wrappers, settings and parameters of this node again: what its role takes for it. */
  configure: string;
  /** The same, and the server started anew. */
  configureRestart: string;
  restart: string;
  reload: string;
  start: string;
  backup: string;
  guard: string;
  claim: string;
  rejoin: string;
  startAgent: string;
  /** Doctor as the user who owns the server. */
  asOwner: string;
};

export type SettingsFacts = {
  /** Those that were given somewhere. */
  given: { name: string; value: string; origin: string }[];
  /** Those without which nothing can be examined. */
  missing: { name: string; hint: string }[];
  /** settings.toml holds what nobody knows. */
  broken: Unseen | undefined;
  /** It may not be read by whoever examines. */
  closed: Unseen | undefined;
  /** Where flag or environment say other than settings.toml, by which hooks and agent go. */
  differing: { name: string; here: string; origin: string; node: string }[];
};

export function examineSettings(facts: SettingsFacts, commands: Commands): Finding[] {
  const what = 'settings';
  const findings: Finding[] = [];
  const hint = (facts.broken?.fix ?? '').slice(0, 200);
  if (facts.broken !== undefined)
    findings.push(
      bad(what, `${facts.broken.unseen}; hooks and agent cannot start`, {
        fix: `correct it in settings.toml, or take that line out${hint === '' ? '' : `. ${hint}`}`,
      }),
    );
  if (facts.closed !== undefined)
    findings.push(
      bad(what, facts.closed.unseen, {
        fix: 'run doctor as the user who owns the server',
        run: commands.asOwner,
      }),
    );
  for (const { name, hint } of facts.missing) findings.push(bad(what, `${name} is not given`, { fix: hint }));
  for (const { name, here, origin, node } of facts.differing)
    findings.push(
      warn(
        what,
        `${name} is ${here} by ${origin}, but ${node} in settings.toml, by which hooks and agent go`,
        {
          fix: 'which is true? this writes what was given here into settings.toml; else give it no more',
          run: commands.configure,
        },
      ),
    );
  if (findings.length > 0) return findings;
  return [ok(what, facts.given.map(({ name, value, origin }) => `${name} ${value} (${origin})`).join(', '))];
}

/** A file as it lies there; `text` only of what is small and was asked for. */
export type FileFacts = {
  path: string;
  kind: 'file' | 'directory' | 'other' | 'absent';
  /** Permission bits. */
  mode: number;
  uid: number;
  text?: string;
  unseen?: string;
};

export type StateFacts = {
  dir: FileFacts;
  /** Lies in PGDATA: a base backup carries it. */
  isInside: boolean;
  /** What must be there, whole and private. */
  files: FileFacts[];
  wrappers: { file: FileFacts; wanted: string }[];
  links: { name: 'program' | 'node'; path: string; target: string | undefined; resolves: boolean }[];
  /** Bundles that the program link does not lead to. */
  lacks: string[];
  /** Of the program that the link leads to; undefined: it does not say. */
  version: string | undefined;
  identity: { kept: IdentityFacts | undefined; present: IdentityFacts } | Unseen;
  agent: AgentFacts;
  lease: LeaseFacts;
  marks: MarkFacts;
  /** The last failures in agent.log, oldest first. */
  failures: string[];
};

type Owner = { uid: number; name: string };

/** Not there at all: nothing else about it is worth a word. */
export function isConfigured(state: StateFacts): boolean {
  return state.dir.kind === 'directory' && state.dir.unseen === undefined;
}

export function examineStateDirectory(state: StateFacts, person: Owner, commands: Commands): Finding[] {
  const what = 'state directory';
  const { dir } = state;
  if (dir.unseen !== undefined && dir.kind === 'directory' && dir.uid === person.uid)
    return [
      bad(what, `${dir.path} is closed to its own user (${octal(dir.mode)}): no hook can work`, {
        run: `chmod 700 ${quoted(dir.path)}`,
      }),
    ];
  if (dir.unseen !== undefined)
    return [
      bad(what, `${dir.path} cannot be looked into: ${dir.unseen}`, {
        fix: 'run doctor as the user whom it belongs to',
        run: commands.asOwner,
      }),
    ];
  if (dir.kind !== 'directory')
    return [
      bad(
        what,
        `${dir.path} ${dir.kind === 'absent' ? 'is not there' : 'is no directory'}: this server is not configured`,
        {
          fix: 'have it work with its vault',
          run: commands.configure,
        },
      ),
    ];
  if (state.isInside)
    return [
      bad(what, `${dir.path} lies in the data directory: every base backup would carry it`, {
        fix: 'configure the node again without --state-dir, or with one outside',
        run: commands.configure,
      }),
    ];
  return [ok(what, `${dir.path} is there`)];
}

const WRITABLE_BY_OTHERS = 0o022;

/** PostgreSQL runs what lies there, as its own user: nobody else may write it, and the directory is nobody else's to read. */
export function examinePermissions(state: StateFacts, owner: Owner): Finding[] {
  const what = 'permissions';
  const findings: Finding[] = [];
  const strange = (file: FileFacts) =>
    bad(what, `${file.path} belongs to user ${file.uid}, the server runs as ${owner.name}`, {
      fix: 'as root:',
      run: `chown ${owner.name} ${quoted(file.path)}`,
    });
  const { dir } = state;
  if (dir.uid !== owner.uid) findings.push(strange(dir));
  if ((dir.mode & 0o077) !== 0)
    findings.push(
      warn(what, `${dir.path} is open to others (${octal(dir.mode)}, should be 700)`, {
        run: `chmod 700 ${quoted(dir.path)}`,
      }),
    );
  if ((dir.mode & 0o700) !== 0o700)
    findings.push(
      bad(what, `${dir.path} is closed to its own user (${octal(dir.mode)}, should be 700)`, {
        run: `chmod 700 ${quoted(dir.path)}`,
      }),
    );
  for (const file of [...state.files, ...state.wrappers.map((each) => each.file)]) {
    if (file.kind === 'absent') continue;
    if (file.uid !== owner.uid) findings.push(strange(file));
    const wanted = state.files.includes(file) && file.kind === 'file' ? 0o600 : 0o700;
    if ((file.mode & WRITABLE_BY_OTHERS) !== 0)
      findings.push(
        bad(what, `${file.path} can be written by others (${octal(file.mode)})`, {
          run: `chmod ${octal(wanted)} ${quoted(file.path)}`,
        }),
      );
    else if (wanted === 0o600 && (file.mode & 0o600) !== 0o600)
      findings.push(
        bad(what, `${file.path} cannot be read and written by its own user (${octal(file.mode)})`, {
          run: `chmod 600 ${quoted(file.path)}`,
        }),
      );
  }
  return findings.length > 0 ? findings : [ok(what, `all of it belongs to ${owner.name} alone`)];
}

const octal = (mode: number): string => (mode & 0o777).toString(8).padStart(3, '0');

export function examineWrappers(state: StateFacts, commands: Commands): Finding[] {
  const what = 'wrappers';
  const findings = state.wrappers.flatMap(({ file, wanted }): Finding[] => {
    const remedy = { fix: 'write it again', run: commands.configure };
    if (file.unseen !== undefined)
      return [bad(what, `${file.path} cannot be read: ${file.unseen}`, { run: commands.asOwner })];
    if (file.kind !== 'file')
      return [bad(what, `${file.path} is not there: PostgreSQL cannot call it`, remedy)];
    if ((file.mode & 0o100) === 0)
      return [
        bad(what, `${file.path} cannot be executed (${octal(file.mode)})`, {
          run: `chmod 700 ${quoted(file.path)}`,
        }),
      ];
    if (file.text !== wanted)
      return [
        bad(what, `${file.path} is not what this version writes: edited, or of another version`, remedy),
      ];
    return [];
  });
  return findings.length > 0
    ? findings
    : [ok(what, `${state.wrappers.length} scripts as configure writes them`)];
}

/** @param version  of the program that examines */
export function examineProgram(state: StateFacts, version: string, commands: Commands): Finding[] {
  const what = 'program';
  const remedy = { fix: 'set the links anew', run: commands.configure };
  const findings: Finding[] = [];
  for (const { name, path, target, resolves } of state.links) {
    if (target === undefined) findings.push(bad(what, `the link ${path} is not there`, remedy));
    else if (!resolves)
      findings.push(
        bad(what, `${path} leads to ${target}, where no ${name === 'node' ? 'Node' : 'walvault'} is`, remedy),
      );
  }
  if (findings.length === 0 && state.lacks.length > 0)
    findings.push(
      bad(what, `the program of this node lacks ${state.lacks.join(', ')}: hooks cannot start`, {
        fix: 'install it again (npm ci), or link the node to this one',
        run: commands.configure,
      }),
    );
  if (findings.length > 0) return findings;
  if (state.version !== version)
    return [
      warn(
        what,
        `hooks and agent are of version ${state.version ?? 'unknown'}, this command is of ${version}`,
        {
          fix: 'have the node use this version, or use the command of that one',
          run: commands.configure,
        },
      ),
    ];
  return [ok(what, `version ${version}, at ${state.links[0]?.target ?? '?'}`)];
}

export type IdentityFacts = { machineId: string; pgdata: string; inode: string };

/** Whether this is the server that was configured, or a copy of it. */
export function examineIdentity(state: StateFacts, commands: Commands): Finding[] {
  const what = 'identity';
  const { identity } = state;
  if (isUnseen(identity))
    return [
      bad(what, identity.unseen, { fix: identity.fix ?? 'run doctor as the user who owns the server' }),
    ];
  const { kept, present } = identity;
  if (kept === undefined)
    return [
      bad(what, `no identity.json: hooks refuse to work`, { fix: 'write it again', run: commands.configure }),
    ];
  const copied = (says: string) =>
    bad(what, says, {
      fix: 'a copy must not write as its origin: stop it where it is one. If this is the server that shall go on, and no other runs:',
      run: commands.configure,
    });
  if (kept.pgdata !== present.pgdata)
    return [copied(`the state directory is that of ${kept.pgdata}, not of ${present.pgdata}`)];
  if (kept.machineId !== present.machineId)
    return [copied(`it was configured on machine ${kept.machineId}, this is ${present.machineId}`)];
  if (kept.inode !== present.inode)
    return [
      copied(
        `${present.pgdata} is another directory than the one that was configured (inode ${present.inode}, was ${kept.inode})`,
      ),
    ];
  return [ok(what, `configured for ${kept.pgdata} on this machine`)];
}

export type AgentFacts = {
  /** The setting `agent`. */
  isWanted: boolean;
  /** agent.json, where its process is an agent. */
  runs: { pid: number; version: string } | undefined;
  answers: 'yes' | 'no' | 'hangs' | 'unseen';
};

export function examineAgent(
  state: StateFacts,
  server: { runs: boolean; inRecovery: boolean },
  commands: Commands,
): Finding[] {
  const what = 'agent';
  const { agent, version } = state;
  if (!agent.isWanted) return [ok(what, 'switched off by the setting agent')];
  if (agent.answers === 'unseen')
    return [warn(what, 'its socket cannot be asked', { run: commands.asOwner })];
  if (agent.answers === 'hangs') {
    const kill = agent.runs === undefined ? undefined : `kill -9 ${agent.runs.pid}`;
    return [
      bad(what, `agent ${agent.runs?.pid ?? ''} does not answer: hooks wait for it`, {
        fix: 'end it, which loses nothing, and start another',
        ...(kill === undefined ? {} : { run: `${kill}; ${commands.startAgent}` }),
      }),
    ];
  }
  if (agent.answers === 'no') {
    if (!server.runs) return [ok(what, 'none runs, nor does the server')];
    return [
      warn(
        what,
        server.inRecovery
          ? 'none runs: triggers are not seen until PostgreSQL asks for the next segment'
          : 'none runs: this node reports nothing until the next segment is full',
        { fix: 'the next hook starts one; or now:', run: commands.startAgent },
      ),
    ];
  }
  if (agent.runs !== undefined && version !== undefined && agent.runs.version !== version)
    return [
      warn(what, `agent ${agent.runs.pid} is of version ${agent.runs.version}, the hooks are of ${version}`, {
        fix: 'the next hook replaces it; or now:',
        run: `kill ${agent.runs.pid}; ${commands.startAgent}`,
      }),
    ];
  return [ok(what, `agent ${agent.runs?.pid ?? '?'} answers, version ${agent.runs?.version ?? 'unknown'}`)];
}

export type SignalFacts = {
  pgdata: string;
  standby: boolean;
  recovery: boolean;
  promote: boolean;
  /** The state by pg_control is "in archive recovery". */
  inRecovery: boolean;
  running: 'no' | 'starting' | 'yes';
};

/** @param isPrimary  by the vault; undefined: it could not be asked */
export function examineSignals(
  facts: SignalFacts,
  isPrimary: boolean | undefined,
  isFlushed: boolean,
  commands: Commands,
): Finding[] {
  const what = 'signal files';
  const file = (name: string) => quoted(`${facts.pgdata}/${name}`);
  const findings: Finding[] = [];
  if (facts.standby && facts.recovery)
    findings.push(
      warn(what, 'standby.signal and recovery.signal both stand there: standby.signal rules', {
        run: `rm ${file('recovery.signal')}`,
      }),
    );
  else if (facts.recovery)
    findings.push(
      warn(what, 'recovery.signal: the server opens by itself where the WAL of the vault ends', {
        fix: 'right for a point-in-time restore; a node of this cluster has standby.signal instead: while the server is stopped,',
        run: `mv ${file('recovery.signal')} ${file('standby.signal')}`,
      }),
    );
  if (facts.promote && facts.running !== 'yes')
    findings.push(
      bad(what, `a file 'promote' was left behind: the server would open at its next start, unasked`, {
        run: `rm ${file('promote')}`,
      }),
    );
  const isStandby = facts.standby || facts.recovery;
  if (facts.standby && isPrimary === true && facts.running === 'yes' && !facts.inRecovery)
    findings.push(
      bad(what, 'standby.signal stands beside the open primary: its next start would be that of a standby', {
        run: `rm ${file('standby.signal')}`,
      }),
    );
  if (facts.standby && isPrimary === true && facts.running === 'no' && !isFlushed && !facts.inRecovery)
    findings.push(
      warn(what, 'the vault names this node the primary, but standby.signal has it start as a standby', {
        fix: 'was it flushed? then walvault flush --undo; else, if it was the primary and is whole:',
        run: `rm ${file('standby.signal')}`,
      }),
    );
  if (!isStandby && facts.inRecovery && facts.running === 'no')
    findings.push(
      bad(
        what,
        'no signal file, though the server was in recovery: a promotion died half way, or a file was taken away',
        {
          fix: 'it would open on the old timeline; before any start:',
          run: commands.guard,
        },
      ),
    );
  if (findings.length > 0) return findings;
  return [ok(what, facts.standby ? 'standby.signal' : 'none: it starts as a primary')];
}

export type MarkFacts = {
  detached: string | undefined;
  seal: { epoch: number; timeline: number; reserved: number } | undefined;
  refused: string | undefined;
  /** A flush was killed while it refused connections. */
  refusing: boolean;
  /** A pg_rewind was broken off. */
  rewinding: boolean;
};

/** What past jobs left in the state directory. @param headEpoch  of the vault; undefined: not known */
export function examineMarks(
  state: StateFacts,
  server: { runs: boolean; inRecovery: boolean },
  headEpoch: number | undefined,
  commands: Commands,
): Finding[] {
  const what = 'marks';
  const { detached, seal, refused, refusing, rewinding } = state.marks;
  const findings: Finding[] = [];
  if (rewinding)
    findings.push(
      bad(what, 'pg_rewind was broken off here: this data directory is neither old nor new', {
        fix: 'stop the server where it runs, and make it anew',
        run: `${commands.rejoin} --replace`,
      }),
    );
  if (detached !== undefined)
    findings.push(
      warn(what, `detached from its vault at ${detached}: it neither archives nor follows, ever`, {
        fix: 'when the test is over, stop it and make it a standby again',
        run: commands.rejoin,
      }),
    );
  if (seal !== undefined && headEpoch !== undefined && headEpoch > seal.epoch)
    findings.push(
      warn(what, `a seal of epoch ${seal.epoch}, which is over (the vault is at ${headEpoch})`, {
        fix: server.inRecovery
          ? 'the agent drops it within seconds: see the check of the agent'
          : `this server opened timeline ${seal.reserved} without the vault: stop it and rejoin, or claim`,
      }),
    );
  else if (seal !== undefined)
    findings.push(
      warn(
        what,
        `a promotion of this node is sealed and not yet open (epoch ${seal.epoch}, timeline ${seal.reserved})`,
        {
          fix: server.runs ? 'it goes on by itself: look again' : 'start the server: it goes on by itself',
          ...(server.runs ? {} : { run: commands.start }),
        },
      ),
    );
  if (refused !== undefined && !server.inRecovery && !server.runs)
    findings.push(
      warn(what, `the gate turned this node back into a standby: ${refused}`, {
        fix: 'start it as the standby that it is',
        run: commands.start,
      }),
    );
  if (refusing)
    findings.push(
      bad(what, 'a flush was killed, or runs: the server may refuse every connection', {
        fix: 'an agent that runs ends it within seconds; without one:',
        run: commands.startAgent,
      }),
    );
  return findings.length > 0 ? findings : [ok(what, 'nothing was left behind by a job that was broken off')];
}

/** Information only: what failed once may be well by now, and what is not is found by the other checks. */
export function examineErrors(state: StateFacts, events: readonly string[]): Finding[] {
  const last = state.failures.at(-1);
  const event = events.at(-1);
  return [
    ok(
      'last errors',
      [
        last === undefined ? 'none in agent.log' : `in agent.log: ${last}`,
        event === undefined ? 'no event of a refusal' : `event: ${event}`,
      ].join('; '),
    ),
  ];
}
