/**
 * What is right and wrong with a node's server: its parameters against what `configure` would write, what waits to be archived and
 * why, its disks, its tablespaces.
 *
 * Pure; core/work/doctor-server.ts looks at it.
 */
import type { Commands } from './examine-node.ts';
import { bad, inWords, ok, quoted, sizeInWords, warn, type Finding, type Unseen } from './finding.ts';

export type ParameterFacts = {
  /** As they rule: of the running server, else by its files. */
  found: ReadonlyMap<string, ParameterRow>;
  /** What configure would write, of those that are not so. */
  wanted: Readonly<Record<string, string>>;
  /** Longest length of a command, and what it would be with its arguments, where it is too long. */
  tooLong: { name: string; bytes: number; limit: number }[];
  /** Lines of configuration files that PostgreSQL refuses. */
  refused: { file: string; line: number; name: string; error: string }[];
  isRunning: boolean;
  isStandby: boolean;
};

export type ParameterRow = {
  value: string;
  /** As the files say; undefined: they do not, or cannot be asked. */
  written?: string;
  /** pg_settings.source, and where the line stands. */
  source?: string;
  file?: string;
  line?: number;
  pendingRestart?: boolean;
  /** postmaster: only a start changes it. */
  context?: string;
};

/** Without these nothing is archived, or nothing is restored; the others are worth a look. */
const VITAL = new Set(['archive_mode', 'archive_command', 'archive_library', 'restore_command', 'wal_level']);
const NEEDS_START = new Set(['archive_mode', 'wal_level', 'max_wal_senders']);
/** They rule over postgresql.auto.conf. */
const OVERRULING = new Set(['command line', 'environment variable', 'override']);

export function examineParameters(facts: ParameterFacts, commands: Commands): Finding[] {
  const what = 'parameters';
  const findings: Finding[] = [];
  for (const { name, bytes, limit } of facts.tooLong)
    findings.push(
      bad(what, `${name} takes ${bytes} bytes with its arguments: PostgreSQL 15 cuts it at ${limit}`, {
        fix: 'configure the node with a shorter --state-dir',
      }),
    );
  for (const [name, value] of Object.entries(facts.wanted)) {
    const row = facts.found.get(name);
    if (row?.value === '(disabled)') continue; // what SHOW says while archive_mode is off, which is found by itself
    if (row !== undefined && sameValue(row.value, value)) continue;
    const is = row === undefined || row.value === '' ? 'not set' : row.value;
    const says = `${name} is ${is}, configure would write ${value === '' ? 'nothing' : value}`;
    const where = row?.file === undefined ? '' : ` (${row.file}, line ${row.line ?? '?'})`;
    const make = VITAL.has(name) ? bad : warn;
    if (row?.source !== undefined && OVERRULING.has(row.source)) {
      const fix = `it is set by the ${row.source} of the server: take it out there, and restart the server`;
      findings.push(make(what, says, { fix }));
      continue;
    }
    const needsStart = NEEDS_START.has(name) && facts.isRunning;
    findings.push(
      make(what, says + where, {
        fix: 'write it as configure does',
        run: needsStart ? commands.configureRestart : commands.configure,
      }),
    );
  }
  if (facts.isStandby)
    for (const [name, row] of facts.found) {
      if (!/^recovery_target/.test(name)) continue;
      if (name === 'recovery_target_timeline' ? sameValue(row.value, 'latest') : row.value === '') continue;
      if (['recovery_target_action', 'recovery_target_inclusive'].includes(name)) continue;
      findings.push(
        bad(what, `${name} is ${row.value}: this standby stops there, and does not follow to the end`, {
          fix: 'write it as configure does',
          run: commands.configure,
        }),
      );
    }
  if (findings.length > 0) return findings;
  const command = facts.found.get('archive_command')?.value;
  return [ok(what, `as configure writes them${command === undefined ? '' : `; archive_command ${command}`}`)];
}

/** What is written and does not rule yet, and what PostgreSQL refuses to read. */
export function examinePending(facts: ParameterFacts, commands: Commands): Finding[] {
  const what = 'pending';
  const findings = facts.refused.map(({ file, line, name, error }) =>
    bad(
      what,
      `line ${line} of ${file} (${name}): ${error}; nothing of that file is read again until it is mended`,
      {
        fix: `take line ${line} out of ${file}, or correct it; then`,
        run: commands.reload,
      },
    ),
  );
  const restart: string[] = [];
  const reload: string[] = [];
  for (const [name, { value, written, pendingRestart, context, source }] of facts.found) {
    if (value === '(disabled)' || (source !== undefined && OVERRULING.has(source))) continue;
    const differs = written !== undefined && !sameValue(written, value);
    if (pendingRestart === true || (differs && context === 'postmaster')) restart.push(name);
    else if (differs) reload.push(name);
  }
  if (restart.length > 0)
    findings.push(
      warn(what, `${restart.join(', ')}: written, and not in force before a restart`, {
        run: commands.restart,
      }),
    );
  if (reload.length > 0)
    findings.push(
      warn(what, `${reload.join(', ')}: written, and not in force before a reload`, { run: commands.reload }),
    );
  return findings.length > 0 ? findings : [ok(what, 'what is written is in force')];
}

const UNITS: Readonly<Record<string, number>> = {
  us: 0.001,
  ms: 1,
  s: 1000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** PostgreSQL prints 60s as 1min, and takes any word for a boolean. */
export function sameValue(one: string, other: string): boolean {
  return normal(one) === normal(other);
}

function normal(value: string): string {
  const text = value.trim();
  const time = /^(\d+(?:\.\d+)?)\s*(us|ms|s|min|h|d)$/.exec(text);
  if (time !== null) return `${Number(time[1]) * (UNITS[time[2] ?? ''] ?? 1)} ms`;
  if (/^0+$/.test(text)) return '0 ms'; // no unit needed
  if (/^(on|true|yes|t|y)$/i.test(text)) return 'on';
  if (/^(off|false|no|f|n)$/i.test(text)) return 'off';
  return text;
}

export type ArchivingFacts = {
  /** Files that wait in archive_status; `oldestAtMs`: when the oldest was finished. */
  waiting: { count: number; first: string | undefined; oldestAtMs: number | undefined };
  /** pg_stat_archiver; undefined: the server does not run, or is in recovery. Times in ms. */
  archiver:
    | {
        failed: number;
        lastFailed: string | null;
        lastFailedAtMs: number | null;
        lastArchivedAtMs: number | null;
      }
    | undefined;
};

/** A finished segment is archived within seconds. */
const LATE_MS = 5 * 60_000;

/** Nothing gets on: the last try failed, or what waits does so for long. */
export function isStanding({ waiting, archiver }: ArchivingFacts, nowMs: number): boolean {
  if (waiting.count === 0) return false;
  const failedAt = archiver?.lastFailedAtMs ?? null;
  if (failedAt !== null && failedAt > (archiver?.lastArchivedAtMs ?? 0)) return true;
  return waiting.oldestAtMs !== undefined && nowMs - waiting.oldestAtMs > LATE_MS;
}

export function examineArchiving(facts: ArchivingFacts, nowMs: number): Finding[] {
  const what = 'archiving';
  const { waiting, archiver } = facts;
  const age =
    waiting.oldestAtMs === undefined ? '' : `, the oldest for ${inWords(nowMs - waiting.oldestAtMs)}`;
  const queue =
    waiting.count === 0
      ? 'nothing waits'
      : `${waiting.count} file${waiting.count === 1 ? ' waits' : 's wait'}${age}`;
  if (!isStanding(facts, nowMs)) return [ok(what, queue)];
  const failed =
    archiver === undefined || archiver.lastFailed === null
      ? ''
      : `; ${archiver.failed} tries failed, ${archiver.lastFailed} last`;
  return [
    bad(what, `stands still: ${queue}${failed}`, {
      fix: 'the reason is among the other findings, and in the log of the server; it goes on by itself once that is mended',
    }),
  ];
}

/** WAL that was written in some time; the greatest rate of all is the careful one. */
export type WalLook = { bytes: number; ms: number };

/** Bytes a second; 0: nothing is known, or nothing is written. */
export function walRate(looks: readonly WalLook[]): number {
  return Math.max(0, ...looks.filter(({ ms }) => ms > 0).map(({ bytes, ms }) => (bytes / ms) * 1000));
}

/** Until `freeBytes` are used up; undefined: never, as it looks. */
export function minutesUntilFull(freeBytes: number, bytesPerSecond: number): number | undefined {
  return bytesPerSecond <= 0 ? undefined : Math.floor(freeBytes / bytesPerSecond / 60);
}

export type DiskFacts = { name: 'pg_wal' | 'spool'; path: string; freeBytes: number; totalBytes: number };

export function examineDisks(
  disks: readonly DiskFacts[],
  wal: { standing: boolean; looks: readonly WalLook[]; segmentSize: number },
): Finding[] {
  const what = 'disk';
  const findings: Finding[] = [];
  for (const { name, path, freeBytes, totalBytes } of disks) {
    const says = `${name} (${path}): ${sizeInWords(freeBytes)} of ${sizeInWords(totalBytes)} free`;
    const remedy = {
      fix:
        name === 'pg_wal'
          ? 'make room on that file system; never remove files from pg_wal by hand'
          : 'make room on that file system',
    };
    if (freeBytes < 2 * wal.segmentSize)
      findings.push(bad(what, `${says}: not enough for two segments`, remedy));
    else if (freeBytes < totalBytes * 0.05) findings.push(warn(what, says, remedy));
    else findings.push(ok(what, says));
    if (name !== 'pg_wal' || !wal.standing) continue;
    const minutes = minutesUntilFull(freeBytes, walRate(wal.looks));
    if (minutes === undefined) continue;
    const full = `archiving stands still: pg_wal is full in about ${minutes} min, and the server stops then`;
    const urgent = { fix: 'mend archiving (see the other findings), or make room on that file system' };
    findings.push((minutes < 24 * 60 ? bad : warn)(what, full, urgent));
  }
  return findings;
}

export type TablespaceFacts = {
  oid: string;
  link: string;
  target: string;
  state: 'there' | 'absent' | 'inside';
};

export function examineTablespaces(tablespaces: readonly TablespaceFacts[], stateDir: string): Finding[] {
  const what = 'tablespaces';
  const findings = tablespaces.flatMap(({ oid, link, target, state }): Finding[] => {
    if (state === 'absent')
      return [
        bad(
          what,
          `tablespace ${oid} lies in ${target}, where nothing is: the server cannot start, a backup cannot be taken`,
          {
            fix: `mount ${target}; where that tablespace was dropped long ago, remove the link ${link}`,
          },
        ),
      ];
    if (target === stateDir || target.startsWith(`${stateDir}/`))
      return [
        bad(what, `tablespace ${oid} lies in the state directory`, { fix: `move it out of ${stateDir}` }),
      ];
    return [];
  });
  return findings.length > 0
    ? findings
    : [ok(what, tablespaces.length === 0 ? 'none' : `${tablespaces.length}, all there`)];
}

export type ServerState = {
  pgdata: string;
  running: 'no' | 'starting' | 'stopping' | 'yes';
  stateText: string;
  majorVersion: number;
  /** Why there is no connection; undefined: there is one, or no server runs. */
  noConnection: Unseen | undefined;
  /** Replay was paused by hand. */
  isReplayPaused: boolean;
};

export function examineServer(facts: ServerState, commands: Commands): Finding[] {
  const what = 'server';
  if (facts.running === 'no')
    return [
      warn(what, `no server runs on ${facts.pgdata} (${facts.stateText})`, {
        fix: 'where it shall run:',
        run: commands.start,
      }),
    ];
  if (facts.noConnection !== undefined)
    return [
      (facts.running === 'yes' ? bad : warn)(what, facts.noConnection.unseen, {
        fix: facts.noConnection.fix ?? 'look again once it has started',
      }),
    ];
  if (facts.isReplayPaused)
    return [
      warn(what, 'replay is paused: this standby does not follow', {
        fix: 'in psql: SELECT pg_wal_replay_resume();',
      }),
    ];
  return [ok(what, `PostgreSQL ${facts.majorVersion} on ${facts.pgdata}, ${facts.stateText}`)];
}

/** Segments between the end of the vault's head and the one that is written: each must wait, or the chain is broken. */
export type ChainFacts = {
  walDirectory: string;
  /** What was spilled into the other vault has not come home yet: it is archived, and the vault has not got it. */
  isSpillAway: boolean;
  segments: {
    name: string;
    /** '': in pg_wal, and archive_status says nothing. */
    status: 'ready' | 'done' | '' | 'absent';
  }[];
};

export function examineChain(facts: ChainFacts, commands: Commands): Finding[] {
  const what = 'chain';
  const { segments } = facts;
  // what was written last may not have its status yet
  const known = segments.findLastIndex(({ status }) => status === 'ready' || status === 'done');
  const lost = segments.find(({ status }, index) => status === 'absent' && index < known);
  if (lost !== undefined)
    return [
      bad(what, `${lost.name} is neither in the vault nor in pg_wal: the vault can take nothing behind it`, {
        fix: 'find that file (another archive, another copy of pg_wal) and put it there; where it is lost, take the cluster into a new vault and a new base backup',
      }),
    ];
  const skipped = segments.filter(
    ({ status }, index) => status === 'done' || (status === '' && index < known),
  );
  const [first] = skipped;
  if (first === undefined) {
    const waiting = segments.filter(({ status }) => status === 'ready').length;
    return [
      ok(what, waiting === 0 ? 'the vault has every finished segment' : `${waiting} wait, none is missing`),
    ];
  }
  if (facts.isSpillAway)
    return [
      warn(what, `${first.name} and later ones may be spills, which the vault has not taken home yet`, {
        fix: 'the agent brings them, or a relay; look again in a minute. Where the check of spills below finds none, and this stays, the log of the agent says why',
      }),
    ];
  const at = (name: string, status: string) =>
    quoted(`${facts.walDirectory}/archive_status/${name}.${status}`);
  const moves = skipped
    .slice(0, 50)
    .map(({ name, status }) =>
      status === 'done' ? `mv ${at(name, 'done')} ${at(name, 'ready')}` : `touch ${at(name, 'ready')}`,
    );
  return [
    bad(
      what,
      `${first.name}${skipped.length === 1 ? '' : ` and ${skipped.length - 1} more`}: PostgreSQL takes it for archived, the vault has not got it, and takes nothing behind it`,
      {
        fix: 'archive_command told success for another archive once; have PostgreSQL hand it in again, in this order',
        run: [...moves, commands.startAgent].join(' && '),
      },
    ),
  ];
}
