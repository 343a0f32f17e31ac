/**
 * Makes a state directory ready: settings, identity, links, and the four sh wrappers that PostgreSQL calls. Safe to run again.
 *
 * The wrappers are POSIX sh (dash) and answer the frequent questions by themselves, in about a millisecond; everything else starts
 * the bundle. They know their PGDATA by absolute path, since pg_rewind calls restore from elsewhere, and check by `-ef` that
 * the server calling is that one: a copied server carries the same paths.
 *
 * Which exit code stands for what is measured: docs/design.md, "Silence is not absence".
 */
import fs from 'node:fs';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { writeSettingsFile } from '../settings/file.ts';
import { isThere } from './lease-file.ts';
import { identityOf, replaceDurably, statePaths, type StatePaths } from './node-state.ts';

export type InstallRequest = {
  /** The data directory; its real path is kept. */
  pgdata: string;
  /** Absolute. */
  stateDir: string;
  /** What goes into settings.toml. */
  settings: Parameters<typeof writeSettingsFile>[1];
  /** The installed version: the folder that holds dist/. */
  programRoot: string;
  /** The Node 24 that runs it. */
  nodeBinary: string;
};

/** What PostgreSQL gets, ready for postgresql.conf (before its quoting). */
export type Commands = {
  archiveCommand: string;
  restoreCommand: string;
  cleanupCommand: string;
  recoveredCommand: string;
};

/**
 * @returns the four commands; a `%` in a path is doubled (from PostgreSQL 16 on an unknown placeholder is fatal)
 * @throws VaultError local (cannot be written) | pgdata | usage (state directory inside PGDATA)
 */
export async function installState(request: InstallRequest): Promise<Commands> {
  const pgdata = realPath(request.pgdata);
  const dir = path.resolve(request.stateDir);
  checkPlace(pgdata, dir);
  const paths = statePaths(dir);
  try {
    fs.mkdirSync(dir, { recursive: true, mode: 0o700 });
    fs.chmodSync(dir, 0o700);
    for (const each of [paths.spool, paths.word]) fs.mkdirSync(each, { recursive: true, mode: 0o700 });
    sweepHalfWritten(dir);
    linkProgram(paths, request);
    await writeSettingsFile(paths.settings, request.settings);
    replaceDurably(paths.identity, `${JSON.stringify(identityOf(pgdata), null, 2)}\n`);
    writeWrappers(dir, pgdata);
  } catch (cause) {
    if (cause instanceof VaultError) throw cause;
    throw new VaultError('local', `cannot write the state directory ${dir}: ${(cause as Error).message}`, {
      cause,
      hint: `It must belong to the user who runs the server; choose another place with --state-dir.`,
    });
  }
  return commandsOf(dir);
}

/** The commands of a state directory, whether it is made yet or not (`configure --print`). */
export function commandsOf(stateDir: string): Commands {
  const call = (name: string) => shellWord(path.join(path.resolve(stateDir), name)).replaceAll('%', '%%');
  return {
    archiveCommand: `${call('archive')} %p %f`,
    restoreCommand: `${call('restore')} %f %p`,
    cleanupCommand: `${call('cleanup')} %r`,
    recoveredCommand: call('recovered'),
  };
}

/**
 * Does this archive_command call our wrapper among others? While people move over, one command hands each file to walvault and to the
 * archiver of before (docs/moving-over.md): the wrapper's path stands in it as an argument.
 */
export function isCombined(command: string | undefined, { archiveCommand }: Commands): boolean {
  if (command === undefined || command === archiveCommand) return false;
  const word = archiveCommand.slice(0, archiveCommand.indexOf(' %p %f'));
  const bare = word.startsWith("'") ? word.slice(1, -1) : word;
  return [word, bare].some((one) => {
    const next = command.charAt(command.indexOf(one) + one.length);
    return command.includes(one) && (next === '' || /[\s'"]/.test(next));
  });
}

function realPath(pgdata: string): string {
  try {
    return fs.realpathSync(pgdata);
  } catch (cause) {
    throw new VaultError('pgdata', `cannot read ${pgdata}: ${(cause as Error).message}`, { cause });
  }
}

/** A base backup carries what lies in PGDATA: the copy would come with our identity. */
function checkPlace(pgdata: string, dir: string): void {
  if (dir !== pgdata && !dir.startsWith(pgdata + path.sep)) return;
  throw new VaultError('usage', `the state directory ${dir} lies inside the data directory ${pgdata}`, {
    hint: `Choose a place beside it, for instance --state-dir '${pgdata}.walvault'.`,
  });
}

/** What a process that was killed was just about to put in the place of a file: `settings.toml.4711.new`, `identity.json.4711.tmp`. */
function sweepHalfWritten(dir: string): void {
  for (const name of fs.readdirSync(dir)) {
    const pid = /\.(\d+)\.(?:new|tmp)$/.exec(name)?.[1];
    if (pid !== undefined && !isThere(Number(pid))) fs.rmSync(path.join(dir, name), { force: true });
  }
}

/**
 * Node before the program: either goes with both versions of the other, and a new bundle may want the new Node.
 *
 * @throws Error of the file system
 */
export function linkProgram(
  paths: Pick<StatePaths, 'program' | 'node'>,
  { programRoot, nodeBinary }: Pick<InstallRequest, 'programRoot' | 'nodeBinary'>,
): void {
  relink(paths.node, path.resolve(nodeBinary));
  relink(paths.program, path.resolve(programRoot));
}

/** Those that differ, each by rename: PostgreSQL may call one at this moment. @returns their names */
export function writeWrappers(dir: string, pgdata: string): string[] {
  const differing = Object.entries(wrapperTexts(dir, pgdata)).filter(
    ([name, text]) => !isWrapper(path.join(dir, name), text),
  );
  for (const [name, text] of differing) replaceDurably(path.join(dir, name), text, { mode: 0o700 });
  return differing.map(([name]) => name);
}

function isWrapper(file: string, text: string): boolean {
  try {
    return fs.readFileSync(file, 'utf8') === text && (fs.statSync(file).mode & 0o777) === 0o700;
  } catch {
    return false;
  }
}

/** In one step, so that a wrapper that runs meanwhile finds the old version or the new. */
function relink(link: string, target: string): void {
  const beside = `${link}.${process.pid}.tmp`;
  fs.rmSync(beside, { force: true });
  fs.symlinkSync(target, beside);
  fs.renameSync(beside, link);
}

function shellWord(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const HEX8 = '[0-9A-F]'.repeat(8);
const SEGMENT = HEX8.repeat(3);
const WAL_FILE = `${SEGMENT}|${HEX8}.history|${SEGMENT}.partial|${SEGMENT}.${HEX8}.backup`;

/** The four scripts, by name. Only built-ins of sh on the fast paths, but for the one `mv` of a spooled file. */
export function wrapperTexts(
  stateDir: string,
  pgdata: string,
): Record<'archive' | 'restore' | 'cleanup' | 'recovered', string> {
  const head = (usage: string) =>
    `#!/bin/sh\n# made by walvault configure; PostgreSQL runs: ${usage}\nLC_ALL=C; export LC_ALL\nS=${shellWord(stateDir)}\nP=${shellWord(pgdata)}\n`;
  const run = (bundle: string) => `"$S/node" "$S/program/dist/${bundle}.cjs" "$S"`;
  return {
    // Exit codes above 125 are not counted by PostgreSQL as failures: everything but 0 becomes 1.
    archive: `${head('archive %p %f')}case $2 in
${WAL_FILE}) ;;
*) echo "walvault: [usage] not the name of a WAL file: $2" >&2; exit 1 ;;
esac
if [ -e "$S/detached" ]; then echo "walvault: [fenced] this node was detached from its vault: it archives nothing there, ever" >&2; exit 1; fi
if [ . -ef "$P" ] && [ -e "$S/now/$2.ok" ] && [ -e "$1" ] && [ "$S/now/$2.ok" -nt "$1" ]; then
  if [ -s "$S/now/$2.ok" ] && IFS= read -r why < "$S/now/$2.ok"; then echo "walvault: $why" >&2; fi # archiving is off: ignored
  exit 0
fi
${run('archive')} "$1" "$2" || exit 1
exit 0
`,
    // A detached node is opened for a test with what it has: it shall find the end, and nobody waits for its archive.
    // What failed before a seal is asked once more after it: "refused" while a fast trigger waits for its seal would stop the server.
    // In wait mode nothing comes from a spool: a segment may be there that must not be replayed before the trigger.
    // 1 is said only where the bundle said "absent" (42), or where a standby will ask again; 200 stops recovery, nothing is lost.
    restore: `${head('restore %f %p')}own=no
if [ . -ef "$P" ]; then own=yes; fi
if [ $own = no ] && [ -e PG_VERSION ]; then D=.; else D=$P; fi
if [ $own = yes ] && [ -e "$S/detached" ]; then exit 1; fi # asked again in fail: it may be marked meanwhile
pending=no
if [ -e "$S/seal" ] || [ -e "$D/promote" ]; then pending=yes; fi
fail() {
  if [ $own = yes ] && [ -e "$S/detached" ]; then exit 1; fi
  if [ -e "$D/standby.signal" ] && [ $pending = no ] && [ ! -e "$S/seal" ] && [ ! -e "$D/promote" ]; then exit 1; fi
  exit 200
}
case $1 in
${WAL_FILE}) ;;
*) echo "walvault: [usage] not the name of a WAL file: $1" >&2; fail ;;
esac
if [ $own = yes ] && [ $pending = no ] && { [ ! -e "$S/wait" ] || [ -e "$D/standby.signal" ]; }; then
  if [ -f "$S/now/$1" ]; then
    case $1 in
    *.history) cp "$S/now/$1" "$2" 2>/dev/null && exit 0 ;;
    *) echo "$1" > "$S/served"; mv -f "$S/now/$1" "$2" 2>/dev/null && exit 0 ;;
    esac
  elif [ -e "$D/standby.signal" ] && [ -f "$S/word/$1" ]; then
    n=0
    read -r n < "$S/word/$1" || n=0
    case $n in
    ''|*[!0-9]*) n=0 ;;
    esac
    if [ "$n" -gt 0 ] && [ ! -e "$S/seal" ]; then
      echo $((n - 1)) > "$S/word/$1" && exit 1
    fi
  fi
fi
${run('restore')} "$1" "$2"
case $? in
0) exit 0 ;;
42) exit 1 ;;
esac
if [ $pending = no ] && { [ -e "$S/seal" ] || [ -e "$D/promote" ]; }; then # sealed while it was asked: now there is an answer
  ${run('restore')} "$1" "$2"
  case $? in
  0) exit 0 ;;
  42) exit 1 ;;
  esac
fi
fail
`,
    // A slow or failing cleanup holds a fast stop: one rename, and the agent reports it.
    cleanup: `${head('cleanup %r')}if [ . -ef "$P" ]; then
  case $1 in
  00000000*) ;;
  ${SEGMENT}|${SEGMENT}.partial) echo "$1" > "$S/restartpoint.tmp" && mv -f "$S/restartpoint.tmp" "$S/restartpoint" ;;
  esac
fi
exit 0
`,
    // 200 is the gate's; anything else above 125 would kill the promotion with the signal files already gone. With a lease the gate is closed
    // here where the bundle cannot, being killed: PostgreSQL takes any other failure for leave to open.
    recovered: `${head('recovered')}[ . -ef "$P" ] || exit 0
[ -e "$S/detached" ] && exit 0
[ -e "$S/seal" ] || exit 0
${run('recovered')}
case $? in
0) exit 0 ;;
200) exit 200 ;;
esac
if grep -q '^ *lease *= *"*0*[1-9]' "$S/settings.toml" 2>/dev/null; then
  F=standby.signal
  if [ -e "$S/wait" ]; then F=recovery.signal; fi
  echo "walvault: this server must not open: the vault was not asked, and this node has a lease" >&2
  : >> "$P/$F" && exit 200
fi
exit 1
`,
  };
}
