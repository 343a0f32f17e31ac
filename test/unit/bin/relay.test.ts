/** `walvault relay` on two directories, with PostgreSQL played by the test: what it says, answers and refuses. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { createVault, openVault } from '../../../core/vault/open-vault.ts';
import type { Vault } from '../../../core/vault/vault.ts';
import { asRow, openCluster, readControl, readHead } from '../../../core/work/cluster.ts';
import { FAILURES } from '../../../core/errors.ts';
import { walvault } from '../../harness/command.ts';
import { newCluster, segment, type FakeNode } from '../../harness/fake-node.ts';

let folder: string;
let a: string;
let b: string;
let vault: Vault;
let db1: FakeNode;

const relay = (...more: string[]) =>
  walvault(['relay', '--cluster', 'main', '--from', a, '--to', b, ...more]);

beforeEach(async () => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'walvault-relay-'));
  [a, b] = ['a', 'b'].map((name) => pathToFileURL(path.join(folder, name)).href) as [string, string];
  vault = await createVault(a);
  db1 = await newCluster(vault, 'main');
  for (const number of [1, 2, 3]) await db1.archive(segment(1, number));
});
afterEach(async () => {
  await vault.close();
  rmSync(folder, { recursive: true, force: true });
});

/** One look into B. */
async function inB<T>(look: (cluster: Awaited<ReturnType<typeof openCluster>>) => Promise<T>): Promise<T> {
  const other = await openVault(b);
  try {
    return await look(await openCluster(other, 'main'));
  } finally {
    await other.close();
  }
}

test('--dry-run says what would go and makes nothing; the relay makes the replica and brings just that', async () => {
  const plan = await relay('--dry-run', '--json');
  expect(JSON.parse(plan.out)).toMatchObject({ would: 'make', lag: { rows: 3 }, backups: [] });
  expect(existsSync(path.join(folder, 'b'))).toBe(false);
  const done = await relay('--json');
  expect({ code: done.code, err: done.err }).toEqual({ code: 0, err: '' });
  expect(JSON.parse(done.out)).toMatchObject({
    ...{ cluster: 'main', from: a, to: b, rows: 3, epoch: 1, timeline: 1, lsn: '0/400000' },
    lag: { rows: 0, bytes: 0, seconds: 0 },
  });
  expect((await inB(readControl)).role).toBe('replica');
  expect((await inB(readHead)).lastFile).toBe(segment(1, 3));
  expect(JSON.parse((await relay('--dry-run', '--json')).out)).toMatchObject({
    would: 'relay',
    lag: { rows: 0 },
  });
  expect(JSON.parse((await relay('--json')).out)).toMatchObject({ rows: 0 });
});

test('people read a line a step, where both stand, and how to go on', async () => {
  const { code, out, err } = await relay();
  expect(code).toBe(0);
  expect(err).toMatch(/^3 rows \(.*\), up to 000000010000000000000003$/m);
  expect(err).toContain(`walvault relay --from '${a}' --to '${b}' --cluster main --follow`);
  expect(out).toMatch(/^brought +3 rows/m);
  expect(out).toMatch(/^behind +nothing$/m);
});

test('--from is the vault of the settings where it is not given', async () => {
  const words = ['relay', '--to', b, '--json'];
  const { code, out } = await walvault(words, { WALVAULT_VAULT: a, WALVAULT_CLUSTER: 'main' });
  expect({ code, ...JSON.parse(out) }).toMatchObject({ code: 0, from: a, rows: 3 });
});

test('--sweep brings what no head shows to be missing', async () => {
  await relay();
  const key = { pk: db1.cluster.partition, sk: `wal#${segment(1, 2)}` };
  await inB((cluster) => cluster.vault.manifest.transact([{ do: 'delete', key, when: { rev: 1 } }]));
  expect(JSON.parse((await relay('--json')).out)).toMatchObject({ rows: 0 });
  expect(JSON.parse((await relay('--sweep', '--json')).out)).toMatchObject({ rows: 1 });
});

test.each([
  [['--to', 'memory:x'], /the source is missing/],
  [['--from', 'memory:x'], /the replica is missing/],
])('%j is a usage failure that says which vault is missing', async (words, message) => {
  const { code, err } = await walvault(['relay', '--cluster', 'main', ...words]);
  expect(code).toBe(FAILURES.usage.exit);
  expect(err).toMatch(message);
});

test('a vault is no replica of itself, and a replica no source of the active vault', async () => {
  const same = await walvault(['relay', '--cluster', 'main', '--from', a, '--to', a]);
  expect(same).toMatchObject({ code: FAILURES.usage.exit, err: expect.stringContaining('same vault') });
  await relay();
  const turned = await walvault(['relay', '--cluster', 'main', '--from', b, '--to', a]);
  expect(turned.code).toBe(FAILURES.refused.exit);
  expect(turned.err).toContain(`HINT: run 'walvault relay --from ${a} --to ${b}'`);
});

test('a replica that a trigger has fenced takes nothing more, also in a dry run', async () => {
  await relay();
  await inB(async (cluster) => {
    const control = await readControl(cluster);
    const row = asRow({ ...control, rev: control.rev + 1, epoch: 9 });
    await cluster.vault.manifest.transact([{ do: 'put', row, when: { rev: control.rev } }]);
  });
  for (const more of [[], ['--dry-run']])
    expect(await relay(...more)).toMatchObject({
      code: FAILURES.fenced.exit,
      err: expect.stringMatching(/epoch 9, newer than epoch 1/),
    });
});

test('--follow goes on until Ctrl-C, then ends well and says so', async () => {
  const running = relay('--follow', '--interval', '100ms');
  const arrived = async (name: string) => {
    for (let left = 200; left > 0; left--) {
      const found = await inB(readHead).catch(() => undefined);
      if (found?.lastFile === name) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`${name} did not come`);
  };
  await arrived(segment(1, 3));
  await db1.archive(segment(1, 4));
  await arrived(segment(1, 4));
  process.emit('SIGINT');
  const { code, err } = await running;
  expect(code).toBe(0);
  expect(err).toMatch(/until Ctrl-C/);
  expect(err).toMatch(/at 0\/500000 on timeline 1, behind: nothing/);
  expect(err).toMatch(/ended; the same command goes on\n$/);
}, 30_000);

test('--forget takes a vault out of the other: no flush waits for it, status names it no more', async () => {
  await relay();
  const named = async () =>
    (
      JSON.parse((await walvault(['status', '--vault', a, '--cluster', 'main', '--json'])).out) as {
        others: unknown[];
      }
    ).others;
  expect(await named()).toHaveLength(1);
  expect(await relay('--forget')).toMatchObject({ code: FAILURES.usage.exit }); // nobody to ask, no --yes
  expect(await relay('--forget', '--yes', '--json')).toMatchObject({
    code: 0,
    out: expect.stringContaining(`"forgotten": "${b}"`),
  });
  expect(await named()).toEqual([]);
  expect(JSON.parse((await relay('--forget', '--yes', '--json')).out)).toMatchObject({ forgotten: null });
  const source = await walvault(['relay', '--cluster', 'main', '--from', b, '--to', a, '--forget', '--yes']);
  expect(source).toMatchObject({
    code: FAILURES.refused.exit,
    err: expect.stringContaining('where its rows come from'),
  });
});

test('a replica whose disk is not mounted is not made anew in its place, and the source says so', async () => {
  await relay();
  const real = path.join(folder, 'b');
  renameSync(real, `${real} unmounted`);
  for (const how of [['--follow'], []]) {
    expect(await relay(...how)).toMatchObject({
      code: FAILURES.unconfigured.exit,
      err: expect.stringContaining('Is its disk mounted?'),
    });
  }
  mkdirSync(real); // the empty directory that it is mounted on
  expect(await relay()).toMatchObject({ code: FAILURES.unconfigured.exit });
  expect(readdirSync(real)).toEqual([]);
  const { out } = await walvault(['status', '--vault', a, '--cluster', 'main', '--json']);
  expect(JSON.parse(out)).toMatchObject({ relays: [{ trouble: expect.stringMatching(/^unconfigured: /) }] });
  rmSync(real, { recursive: true });
  renameSync(`${real} unmounted`, real);
  expect(await relay()).toMatchObject({ code: 0 });
  rmSync(real, { recursive: true });
  expect(await relay('--forget', '--yes')).toMatchObject({ code: 0 });
  expect(JSON.parse((await relay('--json')).out)).toMatchObject({ rows: 3 });
});
