/**
 * The agent's queue between two vaults: what waits goes into the vault, beside the replica while that is away, and home before anything
 * else when it is back. The vaults and pg_wal are real; only PostgreSQL is played by the test.
 */
import { mkdirSync, mkdtempSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { VaultError } from '../../core/errors.ts';
import { loadSettings } from '../../core/settings/read.ts';
import { writeSettingsFile } from '../../core/settings/file.ts';
import type { SettingValues } from '../../core/settings/settings.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { armSpill, disarmSpill } from '../../core/work/arm.ts';
import { openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';
import { Journal } from '../../core/work/journal.ts';
import { readIgnored, setLocalWord } from '../../core/work/local-off.ts';
import type { NodeContext } from '../../core/work/node-context.ts';
import { claimRole } from '../../core/work/promotion.ts';
import { readText, statePaths, writerStore } from '../../core/work/node-state.ts';
import { Pusher } from '../../core/work/push.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { triggerPromotion } from '../../core/work/trigger.ts';
import { newCluster, newStandby, onWire, segment, type FakeNode } from '../harness/fake-node.ts';
import { names } from '../harness/promotions.ts';
import { waitFor } from '../harness/scratch.ts';
import { segmentBytes } from '../harness/segments.ts';
import { expectSound, memoryVault } from '../harness/two-vaults.ts';
import { bytesOf, CLUSTERS } from '../unit/wal/samples.ts';

const relay = (from: Cluster, to: Cluster) => relayPass(from, to, { backups: false });
const segments = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => segment(1, from + index));

describe('spilling', () => {
  let scratch: string;
  let a: Vault, b: Vault;
  let A: Cluster, B: Cluster;
  let db1: FakeNode;
  let context: NodeContext;
  let pusher: Pusher;
  /** Which vaults do not answer the agent. */
  let away: { a: boolean; b: boolean };
  let number = 0;

  beforeEach(async () => {
    scratch = mkdtempSync(path.join(os.tmpdir(), 'walvault-push-'));
    away = { a: false, b: false };
    [a, b] = [await memoryVault(), await memoryVault()];
    db1 = await newCluster(a, `push${++number}`);
    A = db1.cluster;
    B = await openReplica(A, b);
    await db1.archive(segment(1, 1));
    await armSpill(A, B);
    await relay(A, B);
    context = contextOf({ drVault: b.url, drAfter: '1s', archiveTimeout: '10s' });
    mkdirSync(path.join(scratch, 'data', 'pg_wal', 'archive_status'), { recursive: true });
    pusher = new Pusher(context, new Journal(context.paths));
  });
  afterEach(async () => {
    await pusher.stop();
    await a.close();
    await b.close();
    rmSync(scratch, { recursive: true, force: true });
  });

  function contextOf(texts: Partial<Record<keyof SettingValues, string>>): NodeContext {
    const stateDir = path.join(scratch, 'state');
    mkdirSync(stateDir, { recursive: true });
    writeSettingsFile(path.join(stateDir, 'settings.toml'), {});
    const flags = { vault: a.url, cluster: A.name, node: 'db1', ...texts };
    const paths = statePaths(stateDir);
    const store = writerStore(paths);
    store.write(db1.seat.store.read()!);
    const silent = (is: () => boolean) => {
      const check = async () => {
        if (is()) throw new VaultError('unreachable', 'it does not answer');
      };
      return { reading: check, before: check };
    };
    const open = (vault: Vault, is: () => boolean) => async () => {
      if (is()) throw new VaultError('unreachable', 'it does not answer');
      return openCluster(onWire(vault, silent(is)), A.name);
    };
    return {
      ...{ stateDir, paths, node: 'db1', pgdata: path.join(scratch, 'data'), histories: new Map() },
      settings: loadSettings({ flags, env: {}, stateDir }),
      seat: { node: 'db1', place: 'host-db1:/pg', store },
      cluster: open(a, () => away.a),
      other: open(b, () => away.b),
      close: async () => {},
    };
  }
  const put = (name: string, bytes = segmentBytes(name)): string => {
    const file = path.join(context.pgdata, 'pg_wal', name);
    writeFileSync(file, bytes);
    writeFileSync(path.join(context.pgdata, 'pg_wal', 'archive_status', `${name}.ready`), '');
    return file;
  };
  /** As PostgreSQL: the next file only when the one before has its answer. */
  const archive = async (name: string): Promise<void> => {
    await pusher.archive(name, put(name));
    unlinkSync(path.join(context.pgdata, 'pg_wal', 'archive_status', `${name}.ready`));
  };
  const spilled = () => names(B, 'spill#');

  test('files go into the vault while it answers', async () => {
    for (const name of segments(2, 4)) await archive(name);
    expect(await names(A)).toEqual(segments(1, 4));
    expect(await spilled()).toEqual([]);
  });

  test('with the vault away for longer than dr_after they go beside the replica’s rows, with what no relay had brought', async () => {
    for (const name of segments(2, 4)) await archive(name);
    away.a = true;
    const startedMs = performance.now();
    await archive(segment(1, 5));
    expect(performance.now() - startedMs).toBeGreaterThan(900);
    expect(await spilled()).toEqual(segments(2, 5));
    const fast = performance.now();
    for (const name of segments(6, 9)) await archive(name);
    expect(performance.now() - fast).toBeLessThan(4 * 900); // none of them waits as the first one did
    expect(await spilled()).toEqual(segments(2, 9));
    expect(await names(B)).toEqual([segment(1, 1)]);
    expect((await readHead(A)).lastFile).toBe(segment(1, 4));
    expect(readText(path.join(context.stateDir, 'agent.log'))).toContain('spilling into');
  });

  test('the vault that is back takes them home, and files go there again', async () => {
    away.a = true;
    for (const name of segments(2, 5)) await archive(name);
    away.a = false;
    await waitFor('the spills at home', 10_000, async () => (await names(A)).length === 5);
    await archive(segment(1, 6));
    await waitFor('the sixth in the vault itself', 10_000, async () => {
      await pusher.scan(true);
      return (await names(A)).includes(segment(1, 6));
    });
    await relay(A, B);
    await archive(segment(1, 7));
    expect(await names(A)).toEqual(segments(1, 7));
    expect(await spilled()).toEqual([]);
    await expectSound(A);
  });

  test('an agent that starts anew with spills away brings them home, although nothing waits', async () => {
    away.a = true;
    for (const name of segments(2, 3)) await archive(name);
    await pusher.stop();
    away.a = false;
    pusher = new Pusher(context, new Journal(context.paths));
    await waitFor('the spills at home', 10_000, async () => {
      await pusher.scan(true);
      return (await names(A)).length === 3;
    });
  });

  test('an agent that starts anew with files waiting takes a hole for what it is: spills that are not home', async () => {
    away.a = true;
    for (const name of segments(2, 3)) await archive(name);
    await pusher.stop();
    away.a = false;
    pusher = new Pusher(context, new Journal(context.paths));
    await archive(segment(1, 4));
    expect(await names(A)).toEqual(segments(1, 4));
  });

  test('where both are away nothing is claimed, and the first that is back takes the file', async () => {
    away = { a: true, b: true };
    const answer = archive(segment(1, 2));
    await new Promise((resolve) => setTimeout(resolve, 2500));
    expect(await spilled()).toEqual([]);
    away.b = false;
    await answer;
    expect(await spilled()).toEqual([segment(1, 2)]);
  });

  test('a hole that pg_wal cannot fill is waited out, and said', async () => {
    for (const name of segments(2, 4)) await archive(name);
    for (const name of segments(2, 4)) unlinkSync(path.join(context.pgdata, 'pg_wal', name));
    away.a = true;
    const answer = archive(segment(1, 5));
    await waitFor('a word about it', 10_000, async () =>
      (readText(path.join(context.stateDir, 'agent.log')) ?? '').includes(`needs ${segment(1, 2)}`),
    );
    expect(await spilled()).toEqual([]);
    away.a = false;
    await answer;
    expect(await names(A)).toEqual(segments(1, 5));
  });

  test('with the epoch moved on nothing more is spilled, and the vault’s return says why', async () => {
    await newStandby(A, 'db2');
    away.a = true;
    await archive(segment(1, 2));
    const direct = { open: () => Promise.resolve(B), lose: false };
    await triggerPromotion(A, { mode: 'fast', to: 'db2', direct });
    const answer = archive(segment(1, 3));
    answer.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 1500));
    expect(await spilled()).toEqual([segment(1, 2)]);
    away.a = false;
    await expect(answer).rejects.toMatchObject({ code: 'fenced' });
    expect(await names(A)).toEqual(segments(1, 2));
  });

  test('of a batch whose later files are refused only the earlier ones are answered and marked', async () => {
    // 3 is not there: 4 would leave a hole, although it was stored in one go with 2
    const answers = [segment(1, 2), segment(1, 4)].map((name) => ({ name, file: put(name) }));
    const results = await Promise.allSettled(answers.map(({ name, file }) => pusher.archive(name, file)));
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
    expect(await names(A)).toEqual(segments(1, 2));
  });

  test('off by the word of the node: each request has its line, however many looks are under way beside it', async () => {
    await archive(segment(1, 2));
    mkdirSync(path.join(context.pgdata, 'global'));
    writeFileSync(
      path.join(context.pgdata, 'global', 'pg_control'),
      bytesOf(CLUSTERS[0]!.cluster.production.control),
    );
    setLocalWord(context.paths, true, '2026-01-01T00:00:00Z');
    const file = put(segment(1, 3));
    const looks = [pusher.scan(true), pusher.scan(true)];
    const lines = await Promise.all([1, 2].map(() => pusher.archive(segment(1, 3), file)));
    await Promise.all(looks);
    const line = expect.stringContaining(`archiving not active: ignoring pg_wal/${segment(1, 3)} `);
    expect(lines).toEqual([line, line]);
    expect(readIgnored(context.paths)).toEqual([{ from: segment(1, 3), to: segment(1, 3) }]);
  });

  test('a refusal that is over is not told for as long as the clock was set back', async () => {
    await newStandby(A, 'db2');
    await triggerPromotion(A, {
      mode: 'fast',
      to: 'db2',
      direct: { open: () => Promise.resolve(B), lose: false },
    });
    await expect(archive(segment(1, 2))).rejects.toMatchObject({ code: 'fenced' });
    await claimRole(A, context.seat, {
      timeline: 1,
      historyText: undefined,
      supersede: 2,
      direct: { open: () => Promise.resolve(B), lose: false },
    });
    const real = Date.now.bind(Date);
    const clock = jest.spyOn(Date, 'now').mockImplementation(() => real() - 3_600_000);
    try {
      await waitFor('the segment in the vault', 10_000, async () => {
        await archive(segment(1, 2));
        return true;
      });
    } finally {
      clock.mockRestore();
    }
    expect(await names(A)).toEqual(segments(1, 2));
  });

  test('a file that PostgreSQL has let go while it waited here is no failure of what lies behind it', async () => {
    await archive(segment(1, 2));
    // as a look finds it that has listed the file before its answer, and asks for the marker after another look swept it away
    put(segment(1, 2));
    unlinkSync(path.join(context.stateDir, 'now', `${segment(1, 2)}.ok`));
    const [held, open] = [Promise.withResolvers<void>(), context.cluster];
    context.cluster = () => held.promise.then(open);
    const done = pusher.archive(segment(1, 3), put(segment(1, 3)));
    await waitFor('both in the queue', 5000, () => pusher.waiting === 2);
    for (const gone of [segment(1, 2), `archive_status/${segment(1, 2)}.ready`])
      unlinkSync(path.join(context.pgdata, 'pg_wal', gone));
    held.resolve();
    await done;
    expect(await names(A)).toEqual(segments(1, 3));
  });

  test('a spill.json that cannot be read does not end the agent: the vault is waited for', async () => {
    const lost: unknown[] = [];
    const note = (error: unknown): void => void lost.push(error);
    process.on('unhandledRejection', note);
    try {
      context = contextOf({ drAfter: '1s', archiveTimeout: '3s' }); // where spills go that file says alone
      pusher = new Pusher(context, new Journal(context.paths));
      writeFileSync(context.paths.spill, '{');
      away.a = true;
      await expect(archive(segment(1, 2))).rejects.toMatchObject({ code: 'unreachable' });
      away.a = false;
      await archive(segment(1, 2));
      expect(lost).toEqual([]);
    } finally {
      process.off('unhandledRejection', note);
    }
  });

  test('what is not armed is not spilled', async () => {
    await disarmSpill(A, B);
    await archive(segment(1, 2)); // the agent hears of it
    away.a = true;
    const answer = archive(segment(1, 3));
    await new Promise((resolve) => setTimeout(resolve, 2000));
    expect(await spilled()).toEqual([]);
    expect((await readControl(B)).direct).toBeNull();
    away.a = false;
    await answer;
    expect(await names(A)).toEqual(segments(1, 3));
  });
});
