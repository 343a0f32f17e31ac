/**
 * What only a bucket in a directory can get wrong: half objects after kill -9, modes and owners, a full disk.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileBucket } from '../../../core/vault/bucket-file.ts';
import { FRAME_BYTES } from '../../../core/vault/object-frame.ts';
import { createVault } from '../../../core/vault/open-vault.ts';

const worker = path.resolve(import.meta.dirname, '../../harness/vault-process.ts');
const isRoot = process.getuid?.() === 0;
let directory: string;
let umask: number;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'walvault-file-'));
  umask = process.umask();
});
afterEach(() => {
  process.umask(umask);
  fs.rmSync(directory, { recursive: true });
});

const mode = (file: string) => (fs.statSync(path.join(directory, file)).mode & 0o7777).toString(8);

test('kill -9 of a writer leaves no half object under any key, and all that it said was stored', async () => {
  const vault = path.join(directory, 'vault');
  await (await createVault(`file://${vault}`)).close();
  const bucket = fileBucket('file:', vault);
  const sizeBytes = 3 * 1024 * 1024;
  for (let round = 0; round < 6; round += 1) {
    const child = spawn(process.execPath, [worker, 'put', `file://${vault}`, String(sizeBytes)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exit = once(child, 'exit');
    const said: string[] = [];
    for await (const key of createInterface(child.stdout)) {
      said.push(key);
      // somewhere within the next put
      if (said.length === 2) setTimeout(() => child.kill('SIGKILL'), round * 3);
    }
    await exit;
    for (const key of said) expect(await bucket.facts(key)).toEqual({ key });
  }
  let found = 0;
  for await (const { key, sizeBytes: listed } of bucket.list('')) {
    found += 1;
    expect(listed).toBe(sizeBytes);
    expect((await bucket.get(key))?.equals(Buffer.alloc(sizeBytes, `${key}|`))).toBe(true);
  }
  expect(found).toBeGreaterThanOrEqual(12);
}, 60_000);

test('what a killed writer left aside is never listed, and swept after a day', async () => {
  await fileBucket('file:', directory).putOnce('main/a', Buffer.from('x'));
  const [old, young] = ['1.old', '2.young'].map((name) => path.join(directory, 'tmp', name));
  for (const file of [old!, young!]) fs.writeFileSync(file, 'half');
  fs.utimesSync(old!, new Date(0), new Date(Date.now() - 25 * 3600 * 1000));
  const bucket = fileBucket('file:', directory);
  await bucket.putOnce('main/b', Buffer.from('x'));
  const keys: string[] = [];
  for await (const { key } of bucket.list('')) keys.push(key);
  expect(keys).toEqual(['main/a', 'main/b']);
  expect(fs.readdirSync(path.join(directory, 'tmp'))).toEqual(['2.young']);
});

test('a group-writable vault stays so below, whatever the umask', async () => {
  fs.chmodSync(directory, 0o2770);
  process.umask(0o077);
  await fileBucket('file:', directory).putOnce('main/wal/a', Buffer.from('x'));
  expect([mode('objects'), mode('objects/main'), mode('objects/main/wal'), mode('tmp')]).toEqual([
    '2770',
    '2770',
    '2770',
    '2770',
  ]);
  expect(mode('objects/main/wal/a')).toBe('660');
});

test('elsewhere the umask decides, and others get nothing', async () => {
  process.umask(0o022);
  await fileBucket('file:', directory).putOnce('main/a', Buffer.from('x'));
  expect(mode('objects/main/a')).toBe('640');
  expect(parseInt(mode('objects/main'), 8) & 0o777).toBe(0o750);
});

(isRoot ? test : test.skip)('what root makes belongs to the owner of the vault', async () => {
  fs.chownSync(directory, 65534, 65534);
  await fileBucket('file:', directory).putOnce('main/a', Buffer.from('x'));
  for (const file of ['objects', 'objects/main', 'objects/main/a', 'tmp']) {
    expect(fs.statSync(path.join(directory, file))).toMatchObject({ uid: 65534, gid: 65534 });
  }
});

test('two objects are put side by side though somebody clears empty directories away', async () => {
  const bucket = fileBucket('file:', directory);
  await bucket.putOnce('main/a/1', Buffer.from('x'));
  await bucket.delete('main/a/1');
  fs.rmSync(path.join(directory, 'objects'), { recursive: true });
  expect(await bucket.putOnce('main/a/2', Buffer.from('x'))).toBe('stored');
});

test.each([
  ['truncated', (file: string) => fs.truncateSync(file, FRAME_BYTES + 2)],
  ['emptied', (file: string) => fs.truncateSync(file, 0)],
  ['zeroed', (file: string) => fs.writeFileSync(file, Buffer.alloc(fs.statSync(file).size))],
])('an object that was %s is corrupt, for readers and for a second writer', async (_, damage) => {
  const bucket = fileBucket('file:', directory);
  await bucket.putOnce('main/a', Buffer.from('bytes'));
  damage(path.join(directory, 'objects/main/a'));
  await expect(bucket.get('main/a')).rejects.toMatchObject({ code: 'corrupt' });
  await expect(bucket.facts('main/a')).rejects.toMatchObject({ code: 'corrupt' });
  await expect(bucket.putOnce('main/a', Buffer.from('bytes'))).rejects.toMatchObject({ code: 'conflict' });
});

test('a vault that is not there is said to be missing, and not made', async () => {
  const bucket = fileBucket('file:', path.join(directory, 'unmounted'));
  await expect(bucket.putOnce('main/a', Buffer.from('x'))).rejects.toMatchObject({ code: 'unconfigured' });
  expect(fs.readdirSync(directory)).toEqual([]);
});

test('a file where a directory should be is said with the place and what to do', async () => {
  fs.writeFileSync(path.join(directory, 'objects'), '');
  await expect(fileBucket('file:', directory).putOnce('main/a', Buffer.from('x'))).rejects.toMatchObject({
    code: 'local',
    message: expect.stringContaining(directory),
    hint: expect.stringContaining('something else lies'),
  });
});

const canMount =
  process.platform === 'linux' &&
  spawnSync('unshare', ['-rm', 'mount', '-t', 'tmpfs', 'tmpfs', '/mnt']).status === 0;

(canMount ? test : test.skip)(
  'a full disk: the message names the directory, the hint what to do, and nothing half is left',
  () => {
    const vault = path.join(directory, 'small');
    fs.mkdirSync(vault);
    const script = `
    mount -t tmpfs -o size=1m tmpfs '${vault}' &&
    '${process.execPath}' --input-type=module -e "
      const { createVault } = await import('${path.resolve(import.meta.dirname, '../../../core/vault/open-vault.ts')}');
      const vault = await createVault('file://${vault}');
      const said = [];
      const failed = (error) => said.push([error.code, error.message, error.hint]);
      await vault.bucket.putOnce('main/a', Buffer.alloc(2e6)).catch(failed);
      for await (const { key } of vault.bucket.list('')) said.push(key);
      const text = 'x'.repeat(300000);
      for (let n = 0; n < 9 && said.length < 2; n += 1)
        await vault.manifest.transact([{ do: 'put', row: { pk: 'a', sk: 'b' + n, rev: 1, text }, when: 'any' }]).catch(failed);
      console.log(JSON.stringify(said));
      await vault.close();"`;
    const { stdout, stderr } = spawnSync('unshare', ['-rm', 'sh', '-c', script], { encoding: 'utf8' });
    expect(stderr).toBe('');
    const [object, row] = JSON.parse(stdout) as string[][];
    expect(object).toEqual([
      'local',
      `cannot store 'main/a' in ${vault}: no space left`,
      expect.stringContaining('free space'),
    ]);
    expect(row).toEqual([
      'local',
      `the manifest in ${vault}: no space left`,
      expect.stringContaining('free space'),
    ]);
  },
);
