/**
 * Wait mode ends by a trigger and by nothing else: whatever is away, broken or killed, the server waits on or goes down, never opens.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { WalRow } from '../../core/cluster/facts.ts';
import { pairs } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import type { ProxyMode } from '../harness/proxy.ts';
import { isAlive, killHard, listProcesses, PATIENCE, waitFor } from '../harness/scratch.ts';
import { TestSite } from '../harness/site.ts';
import { endOf } from '../harness/walvault-command.ts';
import { WaitNode } from '../harness/wait-node.ts';

describe.each(pairs)('wait mode on $title', (pair) => {
  let site: TestSite;
  let db1: TestServer, db2: TestServer;
  let node: WaitNode;
  let rows = 0;
  const modes: ProxyMode[] = pair.vault === 's3' ? ['refuse', 'hang', 'cut-answer'] : ['refuse'];

  beforeAll(async () => {
    site = await TestSite.open({
      pair,
      segmentSizeMiB: 1,
      walvault: {
        WALVAULT_RESTORE_TIMEOUT: '1s',
        WALVAULT_VAULT_TIMEOUT: '2s',
        WALVAULT_HEARTBEAT_INTERVAL: '1s',
        WALVAULT_ARCHIVE_TIMEOUT: '5s',
      },
    });
    db1 = await site.makePrimary('db1');
    await site.backup();
    await db1.query('CREATE TABLE archived (x int)');
    node = await WaitNode.create(site, 'db2');
    db2 = node.server;
  });
  afterAll(() => site.close());
  beforeEach(async () => {
    if (db2.pid() === undefined) await db2.start(); // after a test that failed
  });

  async function archiveRow(): Promise<string> {
    await db1.query('INSERT INTO archived VALUES ($1)', [++rows]);
    return site.archiveNow('db1');
  }

  /** It waits as before, and takes what comes. */
  async function stillFollows(): Promise<void> {
    if (db2.pid() === undefined) await db2.start();
    await node.waits();
    await archiveRow();
    await node.waits();
    expect(node.traits()).toEqual({ signals: ['recovery.signal'], opened: false });
    expect(node.onTimeline(2)).toEqual([]);
  }

  /** A plain archive recovery, with the limits of this node, has given up meanwhile. */
  async function longerThanOthersWait(rounds = 3): Promise<void> {
    for (let round = 0; round < rounds; round++) {
      const restore = path.join(site.state('db2'), 'restore');
      const name = `${'0'.repeat(7)}1${'0'.repeat(14)}FF`;
      const answer = await endOf(restore, [name, path.join(site.scratch, 'x')], {
        env: db2.env,
        cwd: site.scratch,
      });
      expect(answer.status).toBe(200);
    }
  }

  /** @param before  what stood there before does not count */
  const logged = (text: RegExp, before = 0) =>
    waitFor(`${text} in the log of db2`, 60_000, () => text.test(node.lately().slice(before)));

  test('follows by recovery.signal and its command alone, and the vault knows what it is', async () => {
    await stillFollows();
    expect(site.agentPids('db2')).toEqual([]);
    await expect(db2.query('SELECT 1')).rejects.toThrow(/not accepting connections|starting up|recovery/);
    const seen = await waitFor('a consistent standby in the vault', 20_000, async () => {
      const { nodes } = await site.status();
      const row = nodes.find(({ name }) => name === 'db2');
      return row !== undefined && row.lagSegments === 0 ? row : undefined;
    });
    expect(seen).toMatchObject({ role: 'standby', mode: 'wait', trouble: null });
    await site.canBeTarget('db2');
    expect(await site.ok('status')).toMatch(/db2\s+.*standby \(wait\)/);
    expect(await site.ok('guard', '--pgdata', db2.pgdata).catch((error: Error) => error.message)).toMatch(
      /a server runs/,
    );
  });

  test.each(modes)(
    'the vault away (%s): waits longer than anything else would, and goes on',
    async (mode) => {
      const pid = await node.waits();
      const before = node.lately().length;
      await site.vault.goAway(mode);
      if (pair.vault === 's3') await logged(/waiting for .*: the vault does not answer/, before);
      await longerThanOthersWait();
      expect(node.command()?.pid).toBe(pid);
      await site.vault.comeBack();
      await stillFollows();
    },
  );

  test.each(modes)(
    'started with the vault away (%s): waits before it is told of any history',
    async (mode) => {
      await node.waits();
      await db2.stop('fast');
      await site.vault.goAway(mode);
      await db2.start({ timeoutS: 2 }).catch(() => {}); // it has not begun yet
      const pid = await node.waitsFor('00000002.history');
      await logged(/waiting for 00000002.history: the vault does not answer/);
      await longerThanOthersWait(2);
      expect(node.command()?.pid).toBe(pid);
      await site.vault.comeBack();
      await stillFollows();
    },
  );

  test('an agent beside it does no harm, and neither does its kill', async () => {
    await node.waits();
    const state = site.state('db2');
    const agent = spawn(path.join(state, 'node'), [path.join(state, 'program/dist/agent.cjs'), state], {
      env: db2.env,
      stdio: 'ignore',
      detached: true,
    });
    await waitFor('an agent', 20_000, () =>
      readFileSync(path.join(state, 'agent.log'), 'utf8').includes(`agent ${agent.pid}`),
    );
    await stillFollows();
    await killHard([agent.pid!]);
    await stillFollows();
  });

  test.each([
    ['SIGKILL', 'Node'],
    ['SIGTERM', 'Node'],
    ['SIGKILL', 'sh'],
  ] as const)('%s of the waiting %s: the server goes down and has lost nothing', async (signal, which) => {
    const pid = await node.waits();
    const { parent } = node.command()!;
    process.kill(which === 'Node' ? pid : parent, signal);
    await db2.ended(60_000);
    expect(db2.log(50)).toMatch(which === 'Node' ? /exit code 200/ : /exit code 137|signal 9/);
    expect(node.traits()).toEqual({ signals: ['recovery.signal'], opened: false });
    await waitFor('the end of the command', 20_000, () => !isAlive(pid));
    await stillFollows();
  });

  test('a fast stop ends it at once, without a promotion', async () => {
    const pid = await node.waits();
    const before = performance.now();
    await db2.stop('fast');
    expect(performance.now() - before).toBeLessThan(5000 * PATIENCE);
    await waitFor('the end of the command', 5000, () => !isAlive(pid));
    expect(node.lately()).not.toMatch(/FATAL.*restore/);
    expect(JSON.parse(await site.ok('guard', '--pgdata', db2.pgdata, '--json'))).toMatchObject({
      repaired: false,
    });
    await stillFollows();
  });

  test('the postmaster killed: the command notices, and leaves nothing behind that keeps the next start away', async () => {
    const pid = await node.waits();
    await killHard([db2.pid()!]);
    await waitFor('the end of the command', 20_000, () => !isAlive(pid));
    await waitFor(
      'the end of its server',
      20_000,
      () =>
        !listProcesses().some(
          ({ command, state }) =>
            state !== 'Z' && command.startsWith('postgres:') && command.includes(db2.pgdata),
        ),
    );
    await waitFor('a start', 20_000, async () => db2.start().then(() => true));
    await stillFollows();
  });

  test('a corrupt object: tried again, then the server goes down; with the right bytes it goes on', async () => {
    await node.waits();
    await db2.stop('fast');
    const name = await archiveRow();
    const { key } = (await site.contents()).wal.get(name) as WalRow;
    const right = (await site.withVault((vault) => vault.bucket.get(key)))!;
    const wrong = Uint8Array.from(right);
    wrong[wrong.length - 20] = wrong[wrong.length - 20]! ^ 1;
    const put = (bytes: Uint8Array) =>
      site.withVault(async (vault) => {
        const facts = await vault.bucket.facts(key);
        await vault.bucket.delete(key);
        await vault.bucket.putOnce(key, bytes, facts);
      });
    await put(wrong);
    await db2.start().catch(() => {});
    await db2.ended(60_000);
    expect(node.lately()).toMatch(/4 attempts failed \(restore_retries\)/);
    expect(node.traits()).toEqual({ signals: ['recovery.signal'], opened: false });
    await put(right);
    await stillFollows();
  });

  test.each(['program', 'node'])(
    '%s missing, then broken: the server goes down and has lost nothing',
    async (link) => {
      await node.waits();
      const kept = path.join(site.state('db2'), link);
      await db2.stop('fast');
      renameSync(kept, `${kept}.kept`);
      await db2.start().catch(() => {});
      await db2.ended(60_000);
      if (link === 'program') {
        mkdirSync(path.join(site.scratch, 'broken/dist'), { recursive: true });
        // the bundle that answers is whole, the one that it loads is not
        symlinkSync(path.join(site.scratch, 'broken'), kept);
        const real = path.join(`${kept}.kept`, 'dist/restore.cjs');
        writeFileSync(path.join(site.scratch, 'broken/dist/restore.cjs'), readFileSync(real));
        writeFileSync(path.join(site.scratch, 'broken/dist/agent.cjs'), 'throw new Error("broken");\n');
      } else writeFileSync(kept, '#!/bin/sh\nexit 1\n', { mode: 0o755 });
      await db2.start().catch(() => {});
      await db2.ended(60_000);
      expect(node.traits()).toEqual({ signals: ['recovery.signal'], opened: false });
      rmSync(kept);
      renameSync(`${kept}.kept`, kept);
      await stillFollows();
    },
  );

  test('the primary dead: waits on, since restore_max_wait is not set', async () => {
    const pid = await node.waits();
    await db1.kill9();
    await killHard(site.agentPids('db1'));
    const beats = new Set<string | null | undefined>();
    await waitFor('more reports of db2', 60_000, async () => {
      beats.add((await site.status()).nodes.find(({ name }) => name === 'db2')?.heartbeatAt);
      return beats.size > 5;
    });
    expect(node.command()?.pid).toBe(pid);
    await db1.start();
    await stillFollows();
  });
});
