/**
 * Wait mode and the changes of roles: triggers smart and fast, a timeline that ends, the unfinished segment of a flush, the gate, and
 * restore_max_wait.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { pairs } from '../harness/pairs.ts';
import { killHard, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { WaitNode } from '../harness/wait-node.ts';

describe.each(pairs)('wait mode and triggers on $title', (pair) => {
  let site: TestSite;
  let primary = 'db1';
  let rows = 0;

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      segmentSizeMiB: 1,
      walvault: { WALVAULT_HEARTBEAT_INTERVAL: '1s' },
    });
    const db1 = await site.makePrimary('db1');
    await site.backup();
    await db1.query('CREATE TABLE archived (x int)');
  });
  afterAll(() => site.close());

  async function archiveRow(): Promise<string> {
    await site.server(primary).query('INSERT INTO archived VALUES ($1)', [++rows]);
    return site.archiveNow(primary);
  }

  /** Open in the vault and on the server, with just so many rows, on the timeline that was reserved. */
  async function isPrimary(name: string, { timeline, has = rows }: { timeline: number; has?: number }) {
    await site.promoted(name, 60_000);
    const status = await waitFor('the promotion is open in the vault', 20_000, async () => {
      const seen = await site.status();
      return seen.trigger === null && seen.primary === name ? seen : undefined;
    });
    expect(status.timeline).toBe(timeline);
    const server = site.server(name);
    expect(await server.number('SELECT count(*) FROM archived')).toBe(has);
    // after the vault was told: by `recovered` before the server opens, by the agent where that one did not get through
    await waitFor('the seal is gone', 20_000, () =>
      ['seal', 'sealed'].every((file) => !existsSync(path.join(site.state(name), file))),
    );
    primary = name;
    rows = has;
    await archiveRow(); // it archives, hence it is known as the writer
  }

  async function retire(name: string): Promise<void> {
    if (site.server(name).pid() !== undefined) await site.server(name).kill9();
    await killHard(site.agentPids(name));
  }

  let db3: WaitNode;

  test('smart: seals by itself only when it has taken everything up to head, and opens on the reserved timeline', async () => {
    const db2 = await WaitNode.create(site, 'db2');
    db3 = await WaitNode.create(site, 'db3');
    await archiveRow();
    await db2.waits();
    await db3.waits();
    await site.canBeTarget('db2');
    await db2.server.stop('fast');
    for (let more = 0; more < 5; more++) await archiveRow();
    await retire('db1');
    await site.trigger('smart', 'db2', '--no-wait');
    await db2.server.start();
    await isPrimary('db2', { timeline: 2 });
    expect(db2.server.log(1000)).toMatch(/smart trigger of epoch 2: sealed at \S+, timeline 2 reserved/);
  });

  test('a timeline that ended: the server stops with 200 and says so, and a restart follows the live one', async () => {
    await db3.server.ended(60_000);
    expect(db3.lately()).toMatch(/timeline 1 ended at \S+, the live one is 2/);
    expect(db3.lately()).toMatch(/exit code 200/);
    expect(db3.traits()).toEqual({ signals: ['recovery.signal'], opened: false });
    const row = (await site.status()).nodes.find(({ name }) => name === 'db3');
    expect(row?.trouble).toMatch(/timeline 1 ended .* start the server again/i);
    expect((await site.walvault('guard', '--pgdata', db3.server.pgdata)).status).toBe(0);
    await db3.server.start();
    await db3.waits();
    const name = await db3.takesWhatComes('db2');
    expect(name).toMatch(/^00000002/);
    expect(db3.traits()).toEqual({ signals: ['recovery.signal'], opened: false });
    await waitFor('it is in order again', 20_000, async () => {
      const row = (await site.status()).nodes.find(({ name }) => name === 'db3');
      return row?.trouble === null && row.lagSegments === 0;
    });
  });

  test('fast: seals at what it was given, however much more there is', async () => {
    await site.canBeTarget('db3');
    await db3.server.stop('fast');
    const has = rows;
    await archiveRow();
    await archiveRow();
    await site.trigger('fast', 'db3', '--no-wait');
    await retire('db2');
    await db3.server.start();
    await isPrimary('db3', { timeline: 3, has });
  });

  test('the unfinished segment of a flush is not replayed before the trigger, and all of it is by a smart one', async () => {
    await site.backup('db3');
    const db4 = await WaitNode.create(site, 'db4');
    await archiveRow();
    await db4.waits();
    await site.canBeTarget('db4');
    await site.server('db3').query('INSERT INTO archived VALUES ($1)', [++rows]);
    await site.ok('flush', '--pgdata', site.server('db3').pgdata, '--node', 'db3', '--yes');
    await waitFor('it waits for the trigger', 20_000, () =>
      /unfinished: only a smart trigger/.test(db4.lately()),
    );
    await db4.waits();
    expect(db4.traits()).toEqual({ signals: ['recovery.signal'], opened: false });
    await site.ok('trigger', 'smart', '--to', 'db4', '--yes', '--no-wait');
    await isPrimary('db4', { timeline: 4 });
  });

  test('the flushed one follows as it is, read-only; rejoin makes a waiting one of it again', async () => {
    const db3 = site.server('db3');
    await db3.start();
    await archiveRow();
    await waitFor('db3 follows', 30_000, async () => {
      const row = (await site.status()).nodes.find(({ name }) => name === 'db3');
      return row?.mode === 'warm' && row.lagSegments === 0;
    });
    await db3.stop('fast');
    await site.ok('rejoin', '--pgdata', db3.pgdata, '--node', 'db3', '--yes');
    const node = new WaitNode(site, 'db3');
    expect(node.traits().signals).toEqual(['recovery.signal']);
    await killHard(site.agentPids('db3'));
    await db3.start();
    await node.waits();
    await node.takesWhatComes('db4');
  });

  test('switchover to a waiting node', async () => {
    await site.canBeTarget('db3');
    await site.server('db4').query('INSERT INTO archived VALUES ($1)', [++rows]);
    const { pgdata } = site.server('db4');
    await site.ok('switchover', '--pgdata', pgdata, '--node', 'db4', '--to', 'db3', '--yes');
    await isPrimary('db3', { timeline: 5 });
    await retire('db4');
  });

  test('the gate: superseded after its seal, it opens nothing, and follows the other', async () => {
    await site.backup('db3');
    const db5 = await WaitNode.create(site, 'db5', [], false);
    await site.addStandby('db6');
    const seal = path.join(site.state('db5'), 'seal');
    const asksForNumber = `case $* in *00000006.history*) true ;; *) false ;; esac`;
    const { held, release } = db5.holdNode(`[ -e '${seal}' ] && ${asksForNumber}`);
    await db5.server.start();
    await archiveRow();
    await db5.waits();
    await site.canBeTarget('db6');
    await site.trigger('smart', 'db5', '--no-wait');
    await waitFor('it asks for the reserved history', 60_000, held);
    await supersede('db3', 'db6');
    release();
    await db5.server.ended(60_000);
    expect(db5.lately()).toMatch(/the seal of epoch 6 is over: the vault is at epoch 7, which names db6/);
    expect(db5.traits()).toEqual({ signals: ['recovery.signal'], opened: false });
    expect(existsSync(seal)).toBe(false);
    await isPrimary('db6', { timeline: 7 });
    await db5.server.start();
    await db5.waits();
    expect(await db5.takesWhatComes('db6')).toMatch(/^00000007/);
  });

  test('the gate in the last moment: nothing is written, the next start is read-only, and rejoin makes it anew', async () => {
    await site.backup('db6');
    const db5 = new WaitNode(site, 'db5');
    await site.addStandby('db8');
    const { held, release } = db5.holdNode('case $* in *recovered.cjs*) true ;; *) false ;; esac');
    await site.canBeTarget('db8');
    await site.trigger('smart', 'db5', '--no-wait');
    await waitFor('recovered is asked', 60_000, held);
    await supersede('db6', 'db8');
    release();
    await db5.server.ended(60_000);
    expect(db5.lately()).toMatch(/this server must not open/);
    expect(db5.traits().signals).toEqual(['recovery.signal']);
    await isPrimary('db8', { timeline: 9 });
    await killHard(site.agentPids('db5'));
    const { pgdata } = db5.server;
    expect((await site.walvault('guard', '--pgdata', pgdata)).status).toBe(77);
    await db5.server.start().catch(() => {});
    await db5.server.ended(60_000);
    await site.ok('rejoin', '--pgdata', pgdata, '--node', 'db5', '--yes');
    expect(db5.traits().signals).toEqual(['recovery.signal']);
    await db5.server.start();
    await db5.waits();
    await db5.takesWhatComes('db8');
    await db5.server.stop('fast');
  });

  /** The primary dies, and another than the one that was triggered is named. */
  async function supersede(dead: string, to: string): Promise<void> {
    const { epoch } = await site.status();
    await retire(dead);
    await site.ok('trigger', 'smart', '--to', to, '--yes', '--no-wait', '--supersede', String(epoch));
  }

  test('restore_max_wait: not while the primary lives, however idle; then a fast failover', async () => {
    // long enough for a heartbeat that a busy machine is late with
    const db7 = await WaitNode.create(site, 'db7', ['--restore-max-wait', '10s']);
    await db7.waits();
    await site.canBeTarget('db7');
    const beatAt = async () => {
      const { nodes } = await site.status();
      return Date.parse(nodes.find(({ name }) => name === 'db8')?.heartbeatAt ?? '');
    };
    const first = await beatAt();
    await waitFor('heartbeats of the idle primary', 60_000, async () => (await beatAt()) > first + 12_000);
    expect((await site.status()).trigger).toBeNull();
    expect(db7.lately()).not.toMatch(/failover/);
    await retire('db8');
    await isPrimary('db7', { timeline: 10 });
    expect(db7.lately()).toMatch(/nothing was heard of the primary for restore_max_wait \(10 s\)/);
  });
});
