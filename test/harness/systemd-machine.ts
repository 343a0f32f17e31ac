/**
 * A machine with a running systemd: namespaces of this one (processes, mounts, host name, control groups; not the network), in which systemd is
 * process 1 and knows no unit but those that it is given, besides the journal. /tmp and /run are empty there; what is written to /etc, /opt,
 * /usr/lib or /var is gone with it. Linux, root, and a systemd to run (Debian 12: 252).
 */
import { execFile, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { makeScratch, removeScratch, waitFor } from './scratch.ts';

const run = promisify(execFile);
const SYSTEMD = '/lib/systemd/systemd';
const LIBRARY = '/lib/systemd/system';
/** Of the machine's own units: nothing else may run there (systemd-tmpfiles would clear directories of this machine). */
const JOURNAL = ['systemd-journald.service', 'systemd-journald.socket', 'systemd-journald-dev-log.socket'];
/** What units are ordered by without a word of theirs; here they bring nothing along. */
const TARGETS = [
  'sysinit',
  'basic',
  'shutdown',
  'umount',
  'final',
  'local-fs-pre',
  'local-fs',
  'swap',
  'network',
  'network-online',
  'multi-user',
  'machine',
];
const OVERLAID = ['etc', 'opt', 'usr/lib', 'var'];

/** Why there can be none here; undefined: one was started that had nothing to do, and ended. */
export function whyNoSystemd(): string | undefined {
  if (process.platform !== 'linux') return 'needs Linux';
  if (process.getuid?.() !== 0) return 'needs root';
  if (!existsSync(SYSTEMD)) return 'needs systemd';
  const scratch = makeScratch('-sd');
  try {
    const nothing = '[Unit]\nSuccessAction=exit-force\n[Service]\nType=oneshot\nExecStart=/bin/true\n';
    const boot = writeBoot(scratch, { 'nothing.service': nothing }, {}, 'nothing.service');
    const { status, stderr } = spawnSync('unshare', [...NAMESPACES, '/bin/bash', boot], {
      timeout: 30_000,
      killSignal: 'SIGKILL',
      stdio: ['ignore', 'ignore', 'pipe'],
      encoding: 'utf8',
    });
    return status === 0 ? undefined : `none starts here: ${stderr}`;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const NAMESPACES = ['--pid', '--fork', '--kill-child', '--mount', '--uts', '--ipc', '--cgroup'];

/** @returns the script that becomes process 1 */
function writeBoot(
  scratch: string,
  units: Readonly<Record<string, string>>,
  binds: Readonly<Record<string, string>>,
  first: string,
): string {
  const folder = path.join(scratch, 'units');
  mkdirSync(folder);
  for (const name of JOURNAL) copyFileSync(path.join(LIBRARY, name), path.join(folder, name));
  for (const name of TARGETS)
    writeFileSync(path.join(folder, `${name}.target`), '[Unit]\nDefaultDependencies=no\n');
  for (const [name, text] of Object.entries(units)) {
    mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    writeFileSync(path.join(folder, name), text);
  }
  const script = [
    'set -e',
    'mount --make-rprivate /',
    'mount -t proc proc /proc',
    'mount -t tmpfs tmpfs /run',
    'mkdir /run/over /run/lock /run/none',
    ...OVERLAID.flatMap((at, number) => {
      const own = `/run/over/${number}`;
      return [
        `mkdir -p ${own}/upper ${own}/work`,
        `mount -t overlay overlay -o lowerdir=/${at},upperdir=${own}/upper,workdir=${own}/work /${at}`,
      ];
    }),
    ...Object.entries(binds).flatMap(([at, from]) => [`mkdir -p ${at}`, `mount --bind '${from}' ${at}`]),
    `cp -r ${folder} /run/units`,
    'mount -t tmpfs tmpfs /tmp', // last: what is bound may lie below it
    'chmod 1777 /tmp',
    'export container=test SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none',
    `exec ${SYSTEMD} --system --unit=${first} --log-target=journal-or-kmsg --show-status=0`,
  ];
  const boot = path.join(scratch, 'boot.sh');
  writeFileSync(boot, script.join('\n'));
  return boot;
}

export type UnitState = { active: string; sub: string; pid: number; restarts: number };
export type Answer = { status: number; out: string };

export class SystemdMachine {
  readonly #scratch = makeScratch('-sd');
  #unshare: ChildProcess | undefined;
  #init = 0;

  /**
   * @param units  texts by name of file, with drop-ins as `NAME.d/override.conf`
   * @param binds  directories of this machine by the place where they are seen there, below /etc, /opt, /usr/lib or /var
   */
  async boot(
    units: Readonly<Record<string, string>>,
    binds: Readonly<Record<string, string>>,
  ): Promise<void> {
    const boot = writeBoot(this.#scratch, units, binds, 'machine.target');
    const log = openSync(path.join(this.#scratch, 'log'), 'a');
    this.#unshare = spawn('unshare', [...NAMESPACES, '/bin/bash', boot], {
      stdio: ['ignore', log, log],
      detached: true,
    });
    await waitFor('systemd', 20_000, async () => {
      const [child] = readFileSync(
        `/proc/${this.#unshare!.pid}/task/${this.#unshare!.pid}/children`,
        'utf8',
      ).split(' ');
      this.#init = Number(child);
      return (
        this.#init > 0 && /running|degraded/.test((await this.run('systemctl', 'is-system-running')).out)
      );
    }).catch((error: unknown) => {
      throw new Error(`${String(error)}: ${readFileSync(path.join(this.#scratch, 'log'), 'utf8')}`);
    });
    await this.ok('systemctl', 'start', 'systemd-journald');
  }

  /** A program there, as root. */
  async run(...words: string[]): Promise<Answer> {
    try {
      const { stdout, stderr } = await run(
        'nsenter',
        ['-t', String(this.#init), '-m', '-p', '-u', '-i', ...words],
        {
          env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' },
        },
      );
      return { status: 0, out: stdout + stderr };
    } catch (error) {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { status: code, out: `${stdout}${stderr}` };
    }
  }

  /** The same; @throws where it fails */
  async ok(...words: string[]): Promise<string> {
    const { status, out } = await this.run(...words);
    if (status !== 0) throw new Error(`${words.join(' ')} ended with ${status}: ${out}`);
    return out;
  }

  async state(unit: string): Promise<UnitState> {
    const show = await this.ok('systemctl', 'show', unit, '-p', 'ActiveState,SubState,MainPID,NRestarts');
    const of = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(show)?.[1] ?? '';
    return {
      ...{ active: of('ActiveState'), sub: of('SubState') },
      ...{ pid: Number(of('MainPID')), restarts: Number(of('NRestarts')) },
    };
  }

  journal(unit: string): Promise<string> {
    return this.ok('journalctl', '--no-pager', '-o', 'cat', '-u', unit);
  }

  /** A file of its own, wherever it is mounted there. */
  at(file: string): string {
    return `/proc/${this.#init}/root${file}`;
  }

  /** The end of process 1 is that of everything in there. */
  async close(): Promise<void> {
    if (this.#init > 0) process.kill(this.#init, 'SIGKILL');
    else this.#unshare?.kill('SIGKILL');
    await removeScratch(this.#scratch);
  }
}
