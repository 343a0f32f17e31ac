/** What a node is told of its role, who is stopped, and a trigger whose target died. */
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { stopFenced } from '../../core/work/role-watch.ts';
import { onePair } from '../harness/pairs.ts';
import { TestServer } from '../harness/postgres.ts';
import { killHard, makeScratch, processTree, removeScratch, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';

const pair = onePair(1);

describe(`roles told and fenced servers stopped, ${pair.title}`, () => {
  let site: TestSite;
  const told = (): string[] => {
    const file = path.join(site.scratch, 'roles');
    return existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : [];
  };
  const isTold = (line: string) => waitFor(`'${line}' is told`, 30_000, () => told().includes(line));
  const signal = (node: string, name: 'SIGSTOP' | 'SIGCONT') => {
    for (const pid of [...processTree(site.server(node).pid() ?? 0), ...site.agentPids(node)])
      process.kill(pid, name);
  };

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      walvault: {
        WALVAULT_ON_FENCED: 'stop',
        WALVAULT_HEARTBEAT_INTERVAL: '1s',
        WALVAULT_ON_ROLE_CHANGE: `echo "$1 $2 $3" >> "$TEST_SCRATCH/roles"; test "$WALVAULT_ROLE $WALVAULT_NODE $WALVAULT_EPOCH" = "$*" && test $1 != fenced`,
      },
    });
    await site.makePrimary();
    await site.backup();
    for (const node of ['db2', 'db3']) {
      await site.addStandby(node);
      await site.caughtUp(node);
    }
  });
  afterAll(() => site.close());

  test('each node is told what it is', async () => {
    for (const line of ['primary db1 1', 'standby db2 1', 'standby db3 1']) await isTold(line);
  });

  test('a trigger whose target died is followed by another; the dead one follows when it is back', async () => {
    await site.canBeTarget('db3');
    await killHard(site.agentPids('db3'));
    await site.server('db3').kill9();
    await killHard(site.agentPids('db3'));
    signal('db1', 'SIGSTOP');
    const dead = await site.walvault('trigger', 'smart', '--to', 'db3', '--yes', '--wait', '1s');
    expect(dead.status).toBe(75);
    expect(dead.stderr).toContain('--supersede 2');
    await site.ok('trigger', 'smart', '--to', 'db2', '--yes', '--supersede', '2');
    expect(await site.status()).toMatchObject({ epoch: 3, primary: 'db2', trigger: null });
    await isTold('primary db2 3');
    await site.server('db3').start();
    await site.caughtUp('db3', 'db2');
    expect(told()).not.toContain('primary db3 2');
  });

  test('an old primary that was paused and wakes is stopped within seconds, and told', async () => {
    expect(site.server('db1').pid()).toBeDefined();
    signal('db1', 'SIGCONT');
    await site.server('db1').ended(30_000);
    await isTold('fenced db1 3');
    const [event] = await waitFor('the event', 10_000, async () => {
      const events = await site.events('fenced-stop');
      return events.length > 0 && events;
    });
    expect(event).toMatch(
      /db1 is fenced: db2 holds epoch 3; on_fenced = "stop": its agent stopped the server/,
    );
    // said after the event
    await waitFor('the row says so', 10_000, async () => {
      const { nodes } = await site.status();
      return /fenced|not the primary/.test(nodes.find(({ name }) => name === 'db1')?.trouble ?? '');
    });
  });

  test('a command that fails is logged and an event, and changes nothing else', async () => {
    const failed = await waitFor('the event', 10_000, async () =>
      (await site.events('on_role_change')).at(-1),
    );
    expect(failed).toContain('on_role_change (fenced db1 3) ended with 1');
    expect(readFileSync(path.join(site.state('db1'), 'agent.log'), 'utf8')).toContain(failed);
  });

  test('started again it is stopped again, and not told twice', async () => {
    const ofDb1 = async () => [...(await site.contents()).wal.values()].filter(({ node }) => node === 'db1');
    const before = (await ofDb1()).length;
    await site.server('db1').start();
    // an agent comes with the first file to archive: have one
    await site
      .server('db1')
      .query('SELECT pg_switch_wal()')
      .catch(() => {});
    await site.server('db1').ended(60_000);
    expect(await ofDb1()).toHaveLength(before);
    expect(told().filter((line) => line.startsWith('fenced'))).toEqual(['fenced db1 3']);
  });

  test('primary and standby stay up while the vault is away', async () => {
    await site.vault.goAway();
    const since = performance.now();
    await waitFor('some looks at a vault that is not there', 10_000, () => performance.now() - since > 4000);
    await site.vault.comeBack();
    expect(await site.server('db2').value('SELECT pg_is_in_recovery()')).toBe(false);
    await site.caughtUp('db3', 'db2');
    expect(told()).toHaveLength(5);
  });

  test('a standby promoted by hand is not stopped: it may be about to be claimed', async () => {
    await site.server('db3').promoteByHand();
    await waitFor('the vault hears of it', 30_000, async () => {
      const node = (await site.status()).nodes.find(({ name }) => name === 'db3');
      return /claim/.test(node?.trouble ?? '');
    });
    expect(site.server('db3').pid()).toBeDefined();
    await site.ok('claim', '--pgdata', site.server('db3').pgdata, '--yes');
    await isTold('primary db3 4');
    await site.server('db2').ended(60_000);
    await isTold('fenced db2 4');
  });
});

test('a fast stop that a hanging archive_command holds up becomes an immediate one', async () => {
  const scratch = makeScratch();
  const server = new TestServer({ major: pair.major, pgdata: `${scratch}/d`, sockets: scratch, port: 5432 });
  try {
    await server.initdb({ settings: { archive_mode: 'on', archive_command: 'sleep 60' } });
    await server.start();
    await server.query('CREATE TABLE t (i int)');
    await server.query('SELECT pg_switch_wal()');
    await waitFor('the archiver is at it', 10_000, () =>
      processTree(server.pid() ?? 0).some((pid) => {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
        return words.includes('sleep');
      }),
    );
    expect(await stopFenced(server.pgdata, 1000)).toMatch(
      /immediate: it had not ended 1 s after a fast stop/,
    );
    expect(server.pid()).toBeUndefined();
  } finally {
    await server.stop('immediate').catch(() => {});
    await removeScratch(scratch);
  }
});
