/**
 * What only a manifest in a file can get wrong: many processes, kill -9, a lock that is never released, a file that is replaced.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { createFileManifest, fileManifest } from '../../../core/vault/manifest-file.ts';
import type { Row } from '../../../core/vault/manifest.ts';
import { createVault } from '../../../core/vault/open-vault.ts';

const worker = path.resolve(import.meta.dirname, '../../harness/vault-process.ts');
const isRoot = process.getuid?.() === 0;
const counter = { pk: 'main', sk: 'counter' };
let directory: string;
let url: string;
const children = new Set<ChildProcess>();

beforeEach(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'walvault-sqlite-'));
  url = `file://${directory}`;
  await createFileManifest(directory);
});
afterEach(() => {
  for (const child of children) child.kill('SIGKILL');
  children.clear();
  fs.rmSync(directory, { recursive: true });
});

function start(...args: string[]): ChildProcess {
  const child = spawn(process.execPath, [worker, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.add(child);
  return child;
}

test('4 processes that each add one 25 times come to 100', async () => {
  const manifest = await fileManifest(url, directory);
  await manifest.transact([{ do: 'put', row: { ...counter, rev: 1, count: 0 }, when: 'absent' }]);
  const exits = await Promise.all(
    [1, 2, 3, 4].map(async () => (await once(start('add', url, '25'), 'exit')) as [number]),
  );
  expect(exits.map(([code]) => code)).toEqual([0, 0, 0, 0]);
  expect(await manifest.get(counter)).toEqual({ ...counter, rev: 101, count: 100 });
  await manifest.close();
}, 120_000);

test('kill -9 in the middle of transactions: all that was answered is there, and none by half', async () => {
  for (let round = 0; round < 5; round += 1) {
    const child = start('triple', url);
    const exit = once(child, 'exit');
    let said = 0;
    for await (const line of createInterface(child.stdout!)) {
      const isFirst = said === 0;
      said = Number(line);
      if (isFirst) setTimeout(() => child.kill('SIGKILL'), 10 + round * 7);
    }
    await exit;
    const manifest = await fileManifest(url, directory);
    const rows: Row[] = [];
    for await (const row of manifest.query({ pk: 'main' })) rows.push(row);
    await manifest.close();
    expect(rows.map(({ sk }) => sk)).toEqual(['a', 'b', 'c']);
    expect(new Set(rows.map(({ rev }) => rev)).size).toBe(1);
    expect([said, said + 1]).toContain(rows[0]!.rev);
  }
}, 60_000);

test('a process that never lets go of the lock costs the time limit; reads and the event loop go on meanwhile', async () => {
  const manifest = await fileManifest(url, directory, { timeoutMs: 800 });
  await manifest.transact([{ do: 'put', row: { ...counter, rev: 1, count: 0 }, when: 'absent' }]);
  const holder = start('hold', url);
  await once(createInterface(holder.stdout!), 'line');
  let longestMs = 0;
  let last = performance.now();
  const ticking = setInterval(() => {
    longestMs = Math.max(longestMs, performance.now() - last);
    last = performance.now();
  }, 5);
  const started = performance.now();
  const refused = expect(
    manifest.transact([{ do: 'put', row: { ...counter, rev: 2, count: 1 }, when: { rev: 1 } }]),
  ).rejects.toMatchObject({ code: 'unreachable', hint: expect.stringContaining(directory) });
  expect(await manifest.get(counter)).toMatchObject({ rev: 1 });
  await refused;
  clearInterval(ticking);
  expect(performance.now() - started).toBeLessThan(3000);
  expect(longestMs).toBeLessThan(500);
  holder.kill('SIGKILL');
  await once(holder, 'exit');
  expect(await manifest.get(counter)).toMatchObject({ rev: 1 });
  expect(
    await manifest.transact([{ do: 'put', row: { ...counter, rev: 2, count: 1 }, when: { rev: 1 } }]),
  ).toEqual({ done: true });
  await manifest.close();
}, 30_000);

test.each([true, false])(
  'a manifest that was removed and made again is used, not the deleted file (one shot: %s)',
  async (oneShot) => {
    const manifest = await fileManifest(url, directory, { oneShot });
    const row = { ...counter, rev: 1 };
    await manifest.transact([{ do: 'put', row, when: 'absent' }]);
    for (const name of fs.readdirSync(directory)) fs.rmSync(path.join(directory, name));
    await expect(manifest.get(counter)).rejects.toMatchObject({ code: 'unconfigured' });
    await expect(manifest.transact([{ do: 'put', row, when: 'absent' }])).rejects.toMatchObject({
      code: 'unconfigured',
    });
    expect(fs.readdirSync(directory)).toEqual([]);
    await createFileManifest(directory);
    expect(await manifest.get(counter)).toBeUndefined();
    expect(await manifest.transact([{ do: 'put', row, when: 'absent' }])).toEqual({ done: true });
    const other = await fileManifest(url, directory);
    expect(await other.get(counter)).toEqual(row);
    await Promise.all([manifest.close(), other.close()]);
  },
);

test('made twice is made once: what is in it stays', async () => {
  const manifest = await fileManifest(url, directory);
  await manifest.transact([{ do: 'put', row: { ...counter, rev: 1 }, when: 'absent' }]);
  await createFileManifest(directory);
  expect(await manifest.get(counter)).toEqual({ ...counter, rev: 1 });
  await manifest.close();
});

test.each([
  ['nothing there', 'unconfigured', (file: string) => fs.rmSync(file)],
  ['an empty file', 'unconfigured', (file: string) => fs.writeFileSync(file, '')],
  [
    'something else',
    'corrupt',
    (file: string) => fs.writeFileSync(file, 'not a database, but long enough to look at'.repeat(100)),
  ],
])('%s in place of the manifest: %s, with a hint', async (_, code, damage) => {
  damage(path.join(directory, 'manifest.db'));
  await expect(fileManifest(url, directory)).rejects.toMatchObject({ code, hint: expect.any(String) });
});

test('the database is shared as its directory is', async () => {
  const shared = path.join(directory, 'shared');
  fs.mkdirSync(shared);
  fs.chmodSync(shared, 0o2770);
  const umask = process.umask(0o077);
  try {
    const vault = await createVault(`file://${shared}`);
    await vault.manifest.transact([{ do: 'put', row: { ...counter, rev: 1 }, when: 'absent' }]);
    for (const name of ['manifest.db', 'manifest.db-wal', 'manifest.db-shm']) {
      expect(fs.statSync(path.join(shared, name)).mode & 0o777).toBe(0o660);
    }
    await vault.close();
  } finally {
    process.umask(umask);
  }
});

(isRoot ? test : test.skip)('after root has worked on it, its owner can go on', async () => {
  fs.chmodSync(directory, 0o755);
  fs.chownSync(directory, 65534, 65534);
  fs.chownSync(path.join(directory, 'manifest.db'), 65534, 65534);
  const manifest = await fileManifest(url, directory);
  await manifest.transact([{ do: 'put', row: { ...counter, rev: 1, count: 0 }, when: 'absent' }]);
  for (const name of fs.readdirSync(directory)) {
    expect(fs.statSync(path.join(directory, name))).toMatchObject({ uid: 65534, gid: 65534 });
  }
  await manifest.close();
});

test('opening and reading one row takes milliseconds', async () => {
  const manifest = await fileManifest(url, directory);
  await manifest.transact([{ do: 'put', row: { ...counter, rev: 1 }, when: 'absent' }]);
  await manifest.close();
  const tookMs: number[] = [];
  for (let round = 0; round < 10; round += 1) {
    const started = performance.now();
    const again = await fileManifest(url, directory);
    await again.get(counter);
    tookMs.push(performance.now() - started);
    await again.close();
  }
  // 2 to 3 ms on an idle machine
  expect(Math.min(...tookMs)).toBeLessThan(30);
});
