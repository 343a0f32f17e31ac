/**
 * The agent as a process: what it inherits, that there is one, that it makes way for another version, that it goes with its server; and
 * a promotion that broke off between PostgreSQL's own steps.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { guardPromotion } from '../../core/work/guard.ts';
import { onePair } from '../harness/pairs.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(0);

describe(`the agent on ${pair.title}`, () => {
  let site: TestSite;
  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1 });
    await site.makePrimary('db1');
    await site.archiveNow('db1');
  });
  afterAll(() => site.close());

  const only = (node: string) => {
    const pids = site.agentPids(node);
    expect(pids).toHaveLength(1);
    return pids[0]!;
  };

  test('nothing of the server is left open in it, and it leads a session of its own', async () => {
    const pid = only('db1');
    const server = site.server('db1');
    const look = () =>
      readdirSync(`/proc/${pid}/fd`).map((fd) => [Number(fd), open(`/proc/${pid}/fd/${fd}`)] as const);
    // what it reads itself, postmaster.pid twice a second, is closed by the next look; what it inherited never is
    const targets = await waitFor('a look at no file of the server', 5_000, () => {
      const seen = look();
      return !seen.some(([, target]) => target.startsWith(server.pgdata + path.sep)) && seen;
    });
    for (const fd of [0, 1, 2]) expect(targets.find(([number]) => number === fd)?.[1]).toBe('/dev/null');
    // every pipe and socket has both its ends here, or is the agent's own listening socket
    const mine = new Set(targets.map(([, target]) => target));
    const postmasters = readdirSync(`/proc/${server.pid()!}/fd`).map((fd) =>
      open(`/proc/${server.pid()!}/fd/${fd}`),
    );
    expect(postmasters.filter((target) => /^(pipe|socket):/.test(target) && mine.has(target))).toEqual([]);
    const session = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')[3];
    expect(session).toBe(String(pid));
  });

  test('hooks that find none at the same time start one agent only', async () => {
    const name = await site.archiveNow('db1');
    await site.server('db1').allArchived(); // a hook that the kill leaves without its answer fails some time later
    await killHard(site.agentPids('db1'));
    // without the marker, or the wrapper answers by itself
    rmSync(path.join(site.state('db1'), 'now', `${name}.ok`), { force: true });
    const ask = () => site.hook('db1', 'archive', `pg_wal/${name}`, name);
    const answers = await Promise.all([ask(), ask(), ask(), ask()]);
    expect(answers.map(({ status, stderr }) => [status, stderr])).toEqual(answers.map(() => [0, '']));
    await waitFor('one agent', 10_000, () => site.agentPids('db1').length === 1);
  });

  test('an agent of another version makes way for one of the installed', async () => {
    const before = only('db1');
    const failed = () => site.server('db1').number('SELECT failed_count FROM pg_stat_archiver');
    const failedBefore = await failed();
    const link = path.join(site.state('db1'), 'program');
    const installed = readlinkSync(link);
    const copy = path.join(site.scratch, 'program-copy');
    copyProgram(installed, copy);
    symlinkSync(copy, `${link}.new`);
    renameSync(`${link}.new`, link); // at once, as an upgrade does it: a hook may start at any moment
    const name = await site.archiveNow('db1');
    // the old agent may have been ahead: then the marker answered, and no hook of the new version has asked yet
    rmSync(path.join(site.state('db1'), 'now', `${name}.ok`), { force: true });
    expect(await site.hook('db1', 'archive', `pg_wal/${name}`, name)).toMatchObject({
      status: 0,
      stderr: '',
    });
    expect(await failed()).toBe(failedBefore);
    await waitFor('the old agent is gone', 10_000, () => !site.agentPids('db1').includes(before));
    await waitFor('one agent', 10_000, () => site.agentPids('db1').length === 1); // hooks at one time may have started more
  });

  test('it does not hold up a stop, and goes when its server is gone', async () => {
    const server = site.server('db1');
    const since = performance.now();
    await server.stop('fast');
    expect(performance.now() - since).toBeLessThan(120_000);
    await waitFor('the end of the agent', 30_000, () => site.agentPids('db1').length === 0);
    expect(existsSync(path.join(site.state('db1'), 'agent.sock'))).toBe(false);
    await server.start();
    await site.archiveNow('db1');
  });

  test('guard leaves alone what is in order, and refuses while a server runs', async () => {
    const server = site.server('db1');
    await expect(guardPromotion(server.pgdata, site.state('db1'))).rejects.toMatchObject({ code: 'refused' });
    await server.stop('fast');
    expect(await guardPromotion(server.pgdata, site.state('db1'))).toMatchObject({
      repaired: false,
      removed: [],
    });
    expect(existsSync(path.join(server.pgdata, 'standby.signal'))).toBe(false);
    await server.start();
  });

  test('a standby whose signal file is gone while it recovered becomes a standby again, twice the same', async () => {
    await site.backup();
    const standby = await site.addStandby('db2');
    await site.caughtUp('db2');
    await standby.kill9();
    rmSync(path.join(standby.pgdata, 'standby.signal'));
    const unborn = path.join(standby.pgdata, 'pg_wal', '00000002.history');
    writeFileSync(unborn, '1\t0/3000000\tbroken off\n');
    const done = await guardPromotion(standby.pgdata, site.state('db2'));
    expect(done).toMatchObject({ repaired: true, removed: ['00000002.history'] });
    expect(existsSync(path.join(standby.pgdata, 'standby.signal'))).toBe(true);
    expect(existsSync(unborn)).toBe(false);
    expect(await guardPromotion(standby.pgdata, site.state('db2'))).toMatchObject({ repaired: false });
    await standby.start();
    expect(await standby.value('SELECT pg_is_in_recovery()')).toBe(true);
    await site.caughtUp('db2');
  });
});

// each answer of this vault can be held back
describe(`an agent with work in hand on PostgreSQL ${pair.major}, s3 vault`, () => {
  let site: TestSite;
  beforeAll(async () => {
    site = await TestSite.open({ pair: { ...pair, vault: 's3' }, segmentSizeMiB: 1 });
    await site.makePrimary('db1');
    await site.archiveNow('db1');
  });
  afterAll(() => site.close());

  test('asked to end, it first answers the hooks that wait for it', async () => {
    const server = site.server('db1');
    const failed = () => server.number('SELECT failed_count FROM pg_stat_archiver');
    await server.allArchived();
    const [agent] = site.agentPids('db1');
    const failedBefore = await failed();
    await site.vault.goAway('delay');
    const hook = new AgentLine(site);
    const finish = new AgentLine(site);
    try {
      await server.query(`SELECT pg_create_restore_point('x')`);
      const name = String(await server.value('SELECT pg_walfile_name(pg_current_wal_insert_lsn())'));
      await server.query('SELECT pg_switch_wal()');
      await hook.put({ op: 'archive', name, path: path.join(server.pgdata, 'pg_wal', name) });
      await finish.put({ op: 'finish' });
      expect(await finish.answer()).toBe('{"ok":true}');
    } finally {
      await site.vault.comeBack();
    }
    expect(await hook.answer()).toBe('{"ok":true}');
    await waitFor('its end', 10_000, () => !site.agentPids('db1').includes(agent!));
    await server.allArchived(); // by the server's own hook, which was one of those that waited or came to the next agent
    expect(await failed()).toBe(failedBefore);
  });
});

/** One question to the agent of db1, as a hook puts it. */
class AgentLine {
  private readonly socket: net.Socket;
  private readonly closed: Promise<unknown>;
  private said = '';

  constructor(site: TestSite) {
    this.socket = net.connect(path.join(site.state('db1'), 'agent.sock')).setEncoding('utf8');
    this.socket.on('data', (text) => (this.said += text));
    this.closed = once(this.socket, 'close');
    this.closed.catch(() => {}); // told by answer()
  }

  /** @returns when the agent has it, or will find it */
  async put(request: object): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<unknown>();
    this.socket.write(`${JSON.stringify({ ...request, build: null })}\n`, resolve);
    await promise;
  }

  /** Without the empty lines, which say that it works on it. */
  async answer(): Promise<string> {
    await this.closed;
    return this.said.trim();
  }
}

function open(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}

/** dist/ and package.json are all that hooks and agent need. */
function copyProgram(from: string, to: string): void {
  mkdirSync(to);
  cpSync(path.join(from, 'dist'), path.join(to, 'dist'), { recursive: true });
  cpSync(path.join(from, 'package.json'), path.join(to, 'package.json'));
}
