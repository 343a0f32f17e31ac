/** Waiting for a DR vault: what its relay says in this vault's manifest decides, and nothing else. */
import { keys, type RelayRow } from '../../../core/cluster/facts.ts';
import { openVault } from '../../../core/vault/open-vault.ts';
import { asRow, type Cluster } from '../../../core/work/cluster.ts';
import { checkRelays, isRelayed, untilRelayed } from '../../../core/work/wait-relay.ts';
import { parseLsn } from '../../../core/wal/lsn.ts';
import { newCluster } from '../../harness/fake-node.ts';

const goal = { timeline: 2, lsn: parseLsn('0/5000060') };

describe('a vault has everything up to an LSN', () => {
  test.each([
    ['whole segments past it', { timeline: 2, lsn: '0/6000000', tailLsn: null }, true],
    ['a tail that ends there', { timeline: 2, lsn: '0/5000000', tailLsn: '0/5000060' }, true],
    ['no tail yet', { timeline: 2, lsn: '0/5000000', tailLsn: null }, false],
    ['a shorter tail', { timeline: 2, lsn: '0/5000000', tailLsn: '0/5000028' }, false],
    ['the timeline before, however far', { timeline: 1, lsn: '0/9000000', tailLsn: null }, false],
    ['the timeline after: it has passed there', { timeline: 3, lsn: '0/1000000', tailLsn: null }, true],
    ['nothing', { timeline: 2, lsn: null, tailLsn: null }, false],
  ])('%s', (_what, row, expected) => expect(isRelayed(row, goal)).toBe(expected));
});

/** A relay of this vault whose word is put by the test. */
async function relayed(name: string, changes: Partial<RelayRow> = {}) {
  const { cluster } = await newCluster(await openVault(`memory:wait-relay-${name}`), 'main');
  let row: RelayRow = {
    ...keys.relay(cluster.partition, 'bbbb'),
    ...{ rev: 0, direction: 'to', vault: { id: 'bbbb', url: 'file:///b' }, epoch: 1 },
    ...{ timeline: 2, lsn: '0/3000000', tailLsn: null, lastFile: null, rows: 0, bytes: 0, seconds: 0 },
    ...{ at: '2026-01-01T00:00:00.000Z', trouble: null },
    ...changes,
  };
  const say = async (said: Partial<RelayRow> = {}) => {
    row = { ...row, ...said, rev: row.rev + 1 };
    await cluster.vault.manifest.transact([{ do: 'put', row: asRow(row), when: 'any' }]);
  };
  await say();
  return { cluster, say };
}

/** While `work` runs the relay goes on saying the same, as one that has nothing to bring does. */
async function alive<T>(say: () => Promise<void>, work: Promise<T>): Promise<T> {
  const timer = setInterval(() => void say(), 50);
  return work.finally(() => clearInterval(timer));
}

test('a vault that nothing follows is waited for by nobody', async () => {
  const { cluster } = await newCluster(await openVault('memory:wait-relay-none'), 'main');
  await checkRelays(cluster, { waitMs: 0 });
  expect(await untilRelayed(cluster, goal, { waitMs: 0 })).toEqual([]);
});

test('a vault that is itself the replica waits for nobody: rows come from there', async () => {
  const { cluster } = await relayed('from', { direction: 'from' });
  await checkRelays(cluster, { waitMs: 0 });
});

describe('before anything is changed', () => {
  const check = (cluster: Cluster, waitMs = 400) => checkRelays(cluster, { waitMs });

  test('a relay that moves is good', async () => {
    const { cluster, say } = await relayed('moves');
    await alive(() => say(), check(cluster));
  });

  test('a relay that says nothing is refused, with its last word and the way round it', async () => {
    const { cluster } = await relayed('silent');
    await expect(check(cluster)).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringMatching(
        /file:\/\/\/b was not heard of for 0 s \(its last word is of 2026-01-01T00/,
      ),
      hint: expect.stringContaining('--without-dr'),
    });
  });

  test('a relay in trouble is refused by its own word; trouble that is over is none', async () => {
    const { cluster, say } = await relayed('trouble', { trouble: 'unreachable: no answer' });
    await alive(() => say({ trouble: null }), check(cluster));
    await expect(
      alive(() => say({ trouble: 'conflict: other bytes' }), check(cluster, 10_000)),
    ).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('conflict: other bytes'),
      hint: expect.stringContaining('--without-dr'),
    });
  });

  test('a relay far behind is waited for, then refused', async () => {
    const { cluster, say } = await relayed('behind', { rows: 400 });
    await expect(alive(() => say(), check(cluster))).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringMatching(/400 rows behind, more than 16/),
    });
    await alive(() => say({ rows: 3 }), check(cluster));
  });

  test('of two replicas each must be in order', async () => {
    const { cluster, say } = await relayed('two');
    const row = { ...keys.relay(cluster.partition, 'cccc'), rev: 1, direction: 'to', rows: 0, trouble: null };
    const other = { ...row, vault: { id: 'cccc', url: 'file:///c' }, at: 'yesterday' };
    await cluster.vault.manifest.transact([{ do: 'put', row: asRow(other), when: 'absent' }]);
    await expect(alive(() => say(), check(cluster))).rejects.toMatchObject({
      message: expect.stringContaining('file:///c was not heard of'),
    });
  });
});

describe('after the flush', () => {
  test('it ends when the shutdown checkpoint is there, and says each vault once', async () => {
    const { cluster, say } = await relayed('arrives');
    const steps: string[] = [];
    const waiting = untilRelayed(cluster, goal, {
      waitMs: 5000,
      onStep: (step) => steps.push(`${step.step} ${step.url} ${step.lsn}`),
    });
    await say({ lsn: '0/5000000' });
    await say({ tailLsn: '0/5000060' });
    expect(await waiting).toEqual(['file:///b']);
    expect(steps.at(-1)).toBe('relayed file:///b 0/5000060');
    expect(steps.filter((step) => step.startsWith('relayed'))).toHaveLength(1);
  });

  test('a relay that brings nothing more is given up, with what it says of it', async () => {
    const { cluster, say } = await relayed('stands', { trouble: 'unreachable: no answer' });
    await expect(alive(() => say(), untilRelayed(cluster, goal, { waitMs: 300 }))).rejects.toMatchObject({
      code: 'unreachable',
      message: expect.stringMatching(/file:\/\/\/b stands at 0\/3000000, not at 0\/5000060.*no answer/),
      hint: expect.stringContaining('--without-dr'),
    });
  });

  test('a backlog that shrinks is waited for', async () => {
    const { cluster, say } = await relayed('shrinks');
    const waiting = untilRelayed(cluster, goal, { waitMs: 400 });
    for (const lsn of ['0/3400000', '0/3800000', '0/3C00000', '0/4000000']) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      await say({ lsn });
    }
    await say({ lsn: '0/6000000' });
    expect(await waiting).toEqual(['file:///b']);
  });
});
