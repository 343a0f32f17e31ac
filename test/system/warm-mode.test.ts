/**
 * Warm mode, and going from one mode to another: nobody is let in before the promotion, triggers work as on a hot standby.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { pairs } from '../harness/pairs.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { WaitNode } from '../harness/wait-node.ts';

describe.each(pairs)('warm mode on $title', (pair) => {
  let site: TestSite;
  let primary = 'db1';
  let rows = 0;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1, walvault: { WALVAULT_HEARTBEAT_INTERVAL: '1s' } });
    const db1 = await site.makePrimary('db1');
    await site.backup();
    await db1.query('CREATE TABLE archived (x int)');
    await archiveRow();
    for (const name of ['db2', 'db3']) await site.addStandby(name, { args: ['--mode', 'warm'] });
  });
  afterAll(() => site.close());

  async function archiveRow(): Promise<void> {
    await site.server(primary).query('INSERT INTO archived VALUES ($1)', [++rows]);
    await site.archiveNow(primary);
  }

  const follows = (name: string) =>
    waitFor(`${name} has everything`, 30_000, async () => {
      const row = (await site.status()).nodes.find((one) => one.name === name);
      return row?.lagSegments === 0 ? row : undefined;
    });

  async function failsOverTo(name: string, mode: 'smart' | 'fast', timeline: number): Promise<void> {
    await site.server(primary).kill9();
    await killHard(site.agentPids(primary));
    await site.trigger(mode, name);
    await site.promoted(name, 30_000);
    expect(await site.server(name).number('SELECT count(*) FROM archived')).toBe(rows);
    expect(await site.status()).toMatchObject({ primary: name, timeline, trigger: null });
    primary = name;
    await archiveRow();
  }

  test('it follows by standby.signal, and lets nobody in', async () => {
    await archiveRow();
    expect(await follows('db2')).toMatchObject({ role: 'standby', mode: 'warm', trouble: null });
    expect(new WaitNode(site, 'db2').traits().signals).toEqual(['standby.signal']);
    await expect(site.server('db2').query('SELECT 1')).rejects.toThrow(
      /not accepting connections|not yet accepting/,
    );
    expect(await site.ok('status')).toMatch(/db2\s+.*standby \(warm\)/);
  });

  test('smart', async () => {
    for (let more = 0; more < 5; more++) await archiveRow();
    await failsOverTo('db2', 'smart', 2);
  });

  test('the other one follows to the new timeline by itself; then fast', async () => {
    await follows('db3');
    await failsOverTo('db3', 'fast', 3);
  });

  test('from mode to mode: each has its signal file and parameters, and doing it twice changes nothing', async () => {
    await site.backup('db3');
    const node = await WaitNode.create(site, 'db4');
    const { pgdata, port } = node.server;
    const configure = (...args: string[]) =>
      site.walvault(
        'standby',
        'configure',
        '--pgdata',
        pgdata,
        '--node',
        'db4',
        '--port',
        String(port),
        ...args,
      );
    const parameters = () => {
      const text = readFileSync(path.join(pgdata, 'postgresql.auto.conf'), 'utf8');
      return Object.fromEntries(
        ['hot_standby', 'recovery_prefetch'].map((name) => [
          name,
          new RegExp(`^${name} = '(.*)'`, 'm').exec(text)?.[1],
        ]),
      );
    };
    await node.waits();
    await site.canBeTarget('db4');
    const refused = await site.walvault('standby', 'detach', '--pgdata', pgdata, '--node', 'db4', '--yes');
    expect(refused.stderr).toMatch(/db4 is in wait mode/);
    await node.server.stop('fast');
    expect((await configure('--mode', 'wait', '--set', 'recovery_prefetch=try')).status).toBe(2);
    for (const [mode, signals, set] of [
      ['wait', ['recovery.signal'], { hot_standby: 'off', recovery_prefetch: 'off' }],
      ['warm', ['standby.signal'], { hot_standby: 'off', recovery_prefetch: undefined }],
      ['wait', ['recovery.signal'], { hot_standby: 'off', recovery_prefetch: 'off' }],
      ['hot', ['standby.signal'], { hot_standby: 'on', recovery_prefetch: undefined }],
    ] as const)
      for (const again of [1, 2]) {
        expect([mode, again, (await configure('--mode', mode)).status]).toEqual([mode, again, 0]);
        expect(node.traits().signals).toEqual(signals);
        expect(parameters()).toEqual(set);
      }
    await node.server.start();
    await site.caughtUp('db4', 'db3');
    expect(await node.server.number('SELECT count(*) FROM archived')).toBe(rows);
  });
});
