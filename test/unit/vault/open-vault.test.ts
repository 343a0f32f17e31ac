/**
 * Opening and making vaults, and that a backend is loaded only by who uses it, also within a bundle.
 */
import { build } from 'esbuild';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { createVault, openVault } from '../../../core/vault/open-vault.ts';

const run = promisify(execFile);
const core = path.resolve(import.meta.dirname, '../../../core/vault');
let directory: string;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'walvault-open-'));
});
afterEach(() => fs.rmSync(directory, { recursive: true }));

test('a file vault is made with all directories on the way, opened again, and keeps what is in it', async () => {
  const url = `file://${directory}/deep/it's%20a%20%22vault%22`;
  const made = await createVault(url);
  await made.bucket.putOnce('main/a', Buffer.from('x'));
  await made.manifest.transact([{ do: 'put', row: { pk: 'main', sk: 'a', rev: 1 }, when: 'absent' }]);
  await made.close();
  const again = await createVault(url);
  expect(await again.bucket.get('main/a')).toEqual(Buffer.from('x'));
  await again.close();
  const opened = await openVault(`${url}/`);
  expect(opened.url).toBe(url);
  expect(await opened.manifest.get({ pk: 'main', sk: 'a' })).toEqual({ pk: 'main', sk: 'a', rev: 1 });
  await opened.close();
});

test('opening never makes anything', async () => {
  await expect(openVault(`file://${directory}/absent`)).rejects.toMatchObject({
    code: 'unconfigured',
    hint: expect.stringContaining('init'),
  });
  await expect(openVault(`file://${directory}`)).rejects.toMatchObject({ code: 'unconfigured' });
  expect(fs.readdirSync(directory)).toEqual([]);
  fs.writeFileSync(path.join(directory, 'file'), '');
  await expect(openVault(`file://${directory}/file`)).rejects.toMatchObject({ code: 'usage' });
});

test('a directory with other things in it is refused, and stays as it is', async () => {
  fs.writeFileSync(path.join(directory, 'letter.txt'), 'dear');
  await expect(createVault(`file://${directory}`)).rejects.toMatchObject({
    code: 'refused',
    message: expect.stringContaining('letter.txt'),
  });
  expect(fs.readdirSync(directory)).toEqual(['letter.txt']);
});

test('memory vaults of one name are one within the process', async () => {
  const [a, b] = [await openVault('memory:one'), await openVault('memory:one')];
  await a.bucket.putOnce('main/a', Buffer.from('x'));
  await a.close();
  expect(await b.bucket.get('main/a')).toEqual(Buffer.from('x'));
  expect(await (await openVault('memory:two')).bucket.get('main/a')).toBeUndefined();
});

test('no credentials: denied, with the sources that were tried', async () => {
  const home = { HOME: directory, AWS_EC2_METADATA_DISABLED: 'true', PATH: process.env['PATH'] ?? '' };
  const script = `
    import { openVault } from '${core}/open-vault.ts';
    for (const use of [(v) => v.manifest.get({ pk: 'a', sk: 'b' }), (v) => v.bucket.get('a')]) {
      const vault = await openVault('s3://bucket/x?region=eu-west-1&endpoint=http://127.0.0.1:9');
      await use(vault).catch((error) => console.log(JSON.stringify([error.code, error.hint])));
    }`;
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script], { env: home });
  for (const line of stdout.trim().split('\n')) {
    expect(JSON.parse(line)).toEqual(['denied', expect.stringContaining("profile 'default'")]);
  }
  expect(stdout.trim().split('\n')).toHaveLength(2);
}, 30_000);

test('a bundled hook on a file vault loads no AWS, warns of nothing, and its transactions find their thread', async () => {
  const entry = path.join(directory, 'hook.ts');
  const bundle = path.join(directory, 'hook.cjs');
  fs.writeFileSync(
    entry,
    `import { openVault } from '${core}/open-vault.ts';
     void (async () => {
       const vault = await openVault(process.argv[2]!, { oneShot: process.argv[3] === 'one-shot' });
       const row = { pk: 'main', sk: process.argv[3]!, rev: 1 };
       console.log(JSON.stringify(await vault.manifest.transact([{ do: 'put', row, when: 'absent' }])));
       console.log(JSON.stringify(await vault.manifest.get(row)));
       console.log(await vault.bucket.putOnce('main/' + process.argv[3], Buffer.from('x')));
       const loaded = (process as unknown as { moduleLoadList: string[] }).moduleLoadList;
       console.log(JSON.stringify(loaded.filter((name) => /^NativeModule (https?|http2|tls)$/.test(name))));
       if (process.argv[3] !== 'left-open') await vault.close(); // an open vault must not keep a hook from ending
     })();`,
  );
  await build({
    entryPoints: [entry],
    outfile: bundle,
    bundle: true,
    minify: true,
    platform: 'node',
    target: 'node24',
    format: 'cjs',
    logLevel: 'silent',
    nodePaths: [path.resolve(core, '../../node_modules')],
  });
  const url = `file://${directory}/vault`;
  await (await createVault(url)).close();
  for (const how of ['one-shot', 'thread', 'left-open']) {
    const { stdout, stderr } = await run(process.execPath, [bundle, url, how], { timeout: 20_000 });
    expect(stdout).toBe(`{"done":true}\n{"pk":"main","sk":"${how}","rev":1}\nstored\n[]\n`);
    expect(stderr).toBe('');
  }
}, 60_000);
