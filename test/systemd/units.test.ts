/**
 * The units of docs/systemd.md as they stand on the page, under a running systemd, with a server of Debian's packages: where root runs this on a
 * machine that has both.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { Status } from '../../core/work/status.ts';
import { waitFor } from '../harness/scratch.ts';
import { SystemdMachine, whyNoSystemd, type Answer } from '../harness/systemd-machine.ts';

const root = path.resolve(import.meta.dirname, '../..');
const page = readFileSync(path.join(root, 'docs/systemd.md'), 'utf8');
const DEBIAN = '/lib/systemd/system/postgresql@.service';
const majors =
  existsSync(DEBIAN) && existsSync('/usr/bin/pg_createcluster') ? readdirSync('/usr/lib/postgresql') : [];
const major = majors.filter((name) => Number(name) >= 15).at(-1);
const whyNot = major === undefined ? "needs Debian's PostgreSQL" : whyNoSystemd();
if (whyNot !== undefined) console.warn(`the units of docs/systemd.md are not tried: ${whyNot}`);

const PGDATA = `/var/lib/postgresql/${major}/main`;
const STATE = `${PGDATA}.walvault`;
const VAULT = ['--vault', 'file:///var/vault', '--cluster', 'main'];
const SERVER = `postgresql@${major}-main`;
const AGENT = `walvault-agent@${major}-main`;
const WATCHDOG = `walvault-watchdog@${major}-main`;

/** The text below a line `# HEADER` of the page, within the section; its names for this machine's version. */
function unit(header: string, section: string): string {
  const from = page.indexOf(`    # ${header}`, page.indexOf(`\n## ${section}\n`));
  expect(from).toBeGreaterThan(0);
  const lines: string[] = [];
  for (const line of page.slice(from).split('\n').slice(1)) {
    if (line !== '' && !line.startsWith('    ')) break;
    if (/^ {4}# (\/etc\/|systemctl )/.test(line)) break;
    lines.push(line.slice(4));
  }
  return `${lines.join('\n').replaceAll('/18/', `/${major}/`)}\n`;
}

(whyNot === undefined ? describe : describe.skip)('units under systemd', () => {
  let machine: SystemdMachine;
  beforeEach(() => (machine = new SystemdMachine()));
  afterEach(async () => {
    if ((globalThis as { testHasFailed?: boolean }).testHasFailed === true)
      console.error(await machine.run('journalctl', '--no-pager', '-n', '60').then(({ out }) => out));
    await machine.close();
  });

  const boot = async (units: Record<string, string>): Promise<void> => {
    await machine.boot(
      {
        'postgresql@.service': readFileSync(DEBIAN, 'utf8'),
        // what the template is part of
        'postgresql.service': '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n',
        ...units,
      },
      { '/opt/walvault': root },
    );
    await machine.ok('rm', '-rf', '/etc/postgresql', '/var/lib/postgresql'); // an overlay: of this machine's own nothing is changed
    await machine.ok('mkdir', '-p', '/etc/walvault', '/run/postgresql', '/var/vault', '/var/lib/postgresql');
    await machine.ok('chown', 'postgres:', '/run/postgresql', '/var/vault', '/var/lib/postgresql');
    await machine.ok('sh', '-c', `echo STATE=${STATE} > /etc/walvault/${major}-main`);
    // by socket alone: the network is this machine's
    const words = ['-p', '5498', '-o', 'listen_addresses=', major!, 'main', '--', '--wal-segsize=1'];
    await machine.ok('pg_createcluster', ...words);
    await server('init', ...VAULT, '--pgdata', PGDATA, '--node', 'db1');
  };
  const as = (...words: string[]): Promise<Answer> =>
    machine.run('runuser', '-u', 'postgres', '--', ...words);
  const walvault = (...words: string[]) => as('/opt/walvault/bin/walvault', ...words);
  const server = async (...words: string[]): Promise<string> => {
    const { status, out } = await walvault(...words);
    if (status !== 0) throw new Error(`walvault ${words.join(' ')} ended with ${status}: ${out}`);
    return out;
  };
  const configure = (...more: string[]) =>
    server(
      'configure',
      'primary',
      ...VAULT,
      '--pgdata',
      PGDATA,
      '--node',
      'db1',
      '--force-switch',
      '0',
      ...more,
    );
  /** db2, beside it, started without a unit. */
  const makeStandby = async (): Promise<void> => {
    const where = ['--pgdata', `${PGDATA}2`, '--node', 'db2', '--port', '5499'];
    await server('standby', 'create', ...VAULT, ...where, '--set', 'listen_addresses=');
    const pgCtl = `/usr/lib/postgresql/${major}/bin/pg_ctl`;
    const started = await as(pgCtl, '-D', `${PGDATA}2`, '-l', `${PGDATA}2.log`, '-w', 'start');
    if (started.status !== 0) throw new Error(`${started.out}\n${await machine.ok('cat', `${PGDATA}2.log`)}`);
  };
  const status = async () => JSON.parse((await walvault('status', '--json', ...VAULT)).out) as Status;
  const runs = (what: string) =>
    waitFor(what, 60_000, async () => {
      const { active, sub } = await machine.state(SERVER);
      return active === 'active' && sub === 'running' && (await walvault('status', ...VAULT)).status === 0;
    });
  const count = async (text: string): Promise<number> =>
    (await machine.journal(SERVER)).split(text).length - 1;
  /** Until the journal of the server has this once more than before. */
  const saysAgain = async (text: string, act: () => Promise<unknown>): Promise<void> => {
    const before = await count(text);
    await act();
    await waitFor(`the journal: ${text}`, 60_000, async () => (await count(text)) > before);
  };

  test('guard before each start of Debian’s own unit: the primary of the epoch is started, a fenced one is not', async () => {
    const dropIn = unit('systemctl edit postgresql@18-main', 'guard before each start');
    await boot({ [`${SERVER}.service.d/override.conf`]: dropIn });
    await configure();
    await machine.ok('systemctl', 'start', SERVER);
    await runs('the server');
    expect(await count('may start (primary): db1 holds epoch 1')).toBe(1);
    await server('backup', '--pgdata', PGDATA);
    await machine.ok('systemctl', 'stop', SERVER);
    expect((await machine.state(SERVER)).active).toBe('inactive');

    await makeStandby();
    await server('trigger', 'smart', ...VAULT, '--to', 'db2', '--yes', '--primary-down');
    expect((await machine.run('systemctl', 'start', SERVER)).status).not.toBe(0);
    expect((await machine.state(SERVER)).active).toBe('failed');
    expect(await machine.journal(SERVER)).toMatch(/walvault: \[fenced\] .*db2/);
  });

  test('guard as root is refused, and so is the start', async () => {
    const dropIn = unit('systemctl edit postgresql-18', 'guard before each start').replace(
      '/var/lib/pgsql/15/data',
      PGDATA,
    );
    await boot({
      [`${SERVER}.service.d/override.conf`]: dropIn.replace(/--pgdata \S+/, `--pgdata ${PGDATA}`),
    });
    await configure();
    expect((await machine.run('systemctl', 'start', SERVER)).status).not.toBe(0);
    expect(await machine.journal(SERVER)).toContain('belongs to postgres, walvault runs as root');
  });

  test('the unit of one’s own: ready when the server says so, and stopped by a fast stop', async () => {
    await boot({
      'own.service': unit('/etc/systemd/system/postgresql.service', 'A unit of one’s own'.replace('’', "'")),
    });
    await configure();
    // its configuration lies in the data directory, as where no package made it
    await as(
      'sh',
      '-c',
      `printf "listen_addresses = ''\\nunix_socket_directories = '/run/postgresql'\\n" > ${PGDATA}/postgresql.conf`,
    );
    await as(
      'cp',
      `/etc/postgresql/${major}/main/pg_hba.conf`,
      `/etc/postgresql/${major}/main/pg_ident.conf`,
      PGDATA,
    );
    await machine.ok('systemctl', 'start', 'own');
    expect(await machine.state('own')).toMatchObject({ active: 'active', sub: 'running' });
    expect(await machine.journal('own')).toContain('may start (primary)');
    await server('backup', '--pgdata', PGDATA);
    await machine.ok('systemctl', 'stop', 'own');
    expect(await machine.journal('own')).toContain('received fast shutdown request');
    expect(await machine.state('own')).toMatchObject({ active: 'inactive', pid: 0 });
  });

  test('with a lease: agent, watchdog and server by three units, and what the table of the page says of each loss', async () => {
    const lease = 'With a lease';
    const dropIn = unit('systemctl edit postgresql@18-main', lease);
    const agent = unit('/etc/systemd/system/walvault-agent@.service', 'Agent and server as one target');
    await boot({
      [`${SERVER}.service.d/override.conf`]: dropIn,
      'walvault-watchdog@.service': unit('/etc/systemd/system/walvault-watchdog@.service', lease),
      // as the page says: without After=, and with the lines of that section
      'walvault-agent@.service': agent.replace(/^After=.*\n/m, ''),
      'walvault-agent@.service.d/override.conf': unit('walvault-agent@.service, [Unit]', lease).replace(
        /^/,
        '[Unit]\n',
      ),
    });
    await machine.ok('mkdir', '-p', `/run/units/${SERVER}.service.wants`); // systemctl enable
    await machine.ok(
      'ln',
      '-s',
      '/run/units/walvault-agent@.service',
      `/run/units/${SERVER}.service.wants/${AGENT}.service`,
    );
    await machine.ok('systemctl', 'daemon-reload');
    const terms = ['--lease', '12s', '--heartbeat-interval', '2s'];

    // a watchdog that guard would have to leave behind
    await configure(...terms, '--watchdog', 'process');
    await saysAgain('systemd ends what an ExecStartPre leaves behind', () =>
      machine.run('systemctl', 'start', SERVER),
    );
    await machine.ok('systemctl', 'stop', SERVER);

    await configure(...terms, '--watchdog', 'systemd');
    await machine.ok('systemctl', 'start', SERVER);
    await runs('the server');
    expect((await machine.state(WATCHDOG)).active).toBe('active');
    await waitFor('the lease', 30_000, async () => (await status()).lease !== null);
    await server('backup', '--pgdata', PGDATA);

    const first = await machine.state(AGENT);
    await machine.ok('systemctl', 'kill', '-s', 'KILL', AGENT);
    await waitFor('another agent', 30_000, async () => {
      const { active, pid } = await machine.state(AGENT);
      return active === 'active' && pid !== first.pid && pid > 0;
    });
    const { pid } = await machine.state(SERVER);

    // the watchdog is killed: the server goes with it, and is not started by itself
    await machine.ok('systemctl', 'kill', '-s', 'KILL', WATCHDOG);
    await waitFor(
      'the end of the server',
      60_000,
      async () => (await machine.state(SERVER)).active === 'inactive',
    );
    await waitFor(
      'another watchdog',
      30_000,
      async () => (await machine.state(WATCHDOG)).active === 'active',
    );
    await machine.ok('systemctl', 'start', SERVER);
    await runs('the server by hand');
    expect((await machine.state(SERVER)).pid).not.toBe(pid);

    // a crash
    await saysAgain('may start (primary): db1 holds epoch 1', () =>
      machine.ok('systemctl', 'kill', '-s', 'KILL', SERVER),
    );
    await runs('the server after its crash');

    // a watchdog that hangs: the agent stops the server, guard lets none start
    await saysAgain('the watchdog of this server does not run', () =>
      machine.ok('systemctl', 'kill', '-s', 'STOP', WATCHDOG),
    );
    await machine.ok('systemctl', 'kill', '-s', 'CONT', WATCHDOG);
    await runs('the server with a watchdog that beats again');

    // the vault is away for longer than two thirds of the lease
    await saysAgain('without the vault’s word it must not start'.replace('’', "'"), () =>
      machine.ok('mv', '/var/vault', '/var/away'),
    );
    expect((await machine.state(SERVER)).active).toBe('activating');
    await machine.ok('mv', '/var/away', '/var/vault');
    await runs('the server with the vault back');

    // another node takes over
    await makeStandby();
    await saysAgain('walvault: [fenced]', () => server('trigger', 'smart', ...VAULT, '--to', 'db2', '--yes'));
    await waitFor(
      'db2',
      60_000,
      async () => (await status()).trigger === null && (await status()).primary === 'db2',
    );

    // a stop is a stop
    await machine.ok('systemctl', 'stop', SERVER);
    const { restarts } = await machine.state(SERVER);
    expect([(await machine.state(SERVER)).active, (await machine.state(SERVER)).restarts]).toEqual([
      'inactive',
      restarts,
    ]);
  });
});
