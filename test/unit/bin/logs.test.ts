/** `walvault logs save|list|fetch`: what was saved comes back, byte for byte, and nothing is written elsewhere than it was asked for. */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createVault, openVault } from '../../../core/vault/open-vault.ts';
import type { Cluster } from '../../../core/work/cluster.ts';
import { logsPrefix } from '../../../core/work/save-logs.ts';
import type { StoredLog } from '../../../core/work/stored-logs.ts';
import { walvault, type Said } from '../../harness/command.ts';
import { newCluster, seatOf } from '../../harness/fake-node.ts';
import { capturedOf } from '../wal/samples.ts';
import { initCluster } from '../../../core/work/init.ts';
import { parseControlFile } from '../../../core/wal/control-file.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';

let scratch: string;
beforeEach(() => (scratch = makeScratch()));
afterEach(() => removeScratch(scratch));

const logs = (url: string, command: string, ...more: string[]): Promise<Said> =>
  walvault(['logs', command, '--vault', url, '--cluster', 'main', '--json', ...more]);

async function saved(url: string, node: string, ...files: string[]): Promise<void> {
  const { code, err } = await logs(url, 'save', '--node', node, ...files.flatMap((file) => ['--file', file]));
  expect([code, err]).toEqual([0, '']);
}

async function listed(url: string, ...more: string[]): Promise<StoredLog[]> {
  const said = await logs(url, 'list', ...more);
  expect(said).toMatchObject({ code: 0, err: '' });
  return JSON.parse(said.out) as StoredLog[];
}

function file(name: string, content: string): string {
  const place = path.join(scratch, name);
  mkdirSync(path.dirname(place), { recursive: true });
  writeFileSync(place, content);
  return place;
}

async function fileVault(): Promise<{ url: string; cluster: Cluster; close: () => Promise<void> }> {
  const vault = await createVault(`file://${scratch}/vault`);
  return { url: vault.url, cluster: (await newCluster(vault, 'main')).cluster, close: () => vault.close() };
}

test('what was saved is listed and fetched as it was, compressed in between, each time beside those before', async () => {
  const { url, cluster, close } = await fileVault();
  const text = 'LOG:  checkpoint complete\n'.repeat(10_000);
  const main = file('postgresql.log', text);
  await saved(url, 'db1', main, file('größe 1%2F.log', 'ä\n'), file('empty.log', ''));
  writeFileSync(main, `${text}more\n`);
  await saved(url, 'db1', main);
  await saved(url, 'db2', main);
  const all = await listed(url);
  expect(all.map(({ node, file: name }) => `${node} ${name}`)).toEqual([
    ...[
      'db1 empty.log',
      'db1 größe 1%2F.log',
      'db1 postgresql.log',
      'db1 postgresql.log',
      'db2 postgresql.log',
    ].sort(),
  ]);
  expect(all.every(({ key }) => key.startsWith(`main/${cluster.systemIdentifier}/logs/db`))).toBe(true);
  expect(all.find(({ file: name }) => name === 'postgresql.log')!.storedBytes).toBeLessThan(text.length / 50);
  const to = path.join(scratch, 'out');
  const fetched = await logs(url, 'fetch', '--to', to, '--of', 'db1');
  const { files } = JSON.parse(fetched.out) as { files: string[] };
  expect(files).toHaveLength(4);
  const contents = (name: string) =>
    files.filter((one) => path.basename(one) === name).map((one) => readFileSync(one, 'utf8'));
  expect(contents('postgresql.log')).toEqual([text, `${text}more\n`]);
  expect(contents('größe 1%2F.log')).toEqual(['ä\n']);
  expect(contents('empty.log')).toEqual(['']);
  expect(statSync(files[0]!).mode & 0o777).toBe(0o600);
  // again: the same files
  expect(JSON.parse((await logs(url, 'fetch', '--to', to, '--of', 'db1')).out)).toEqual({ files });
  await close();
});

test('the files are found by the settings of the server, and only those of the cluster are taken', async () => {
  const [sample] = capturedOf(18).clusters;
  const control = Buffer.from(sample!.production.control, 'base64');
  const { systemIdentifier } = parseControlFile(control);
  const vault = await createVault(`file://${scratch}/vault`);
  const seat = seatOf('db1');
  await initCluster(vault, {
    ...{ cluster: 'main', node: 'db1', place: seat.place, store: seat.store, majorVersion: 18, timeline: 1 },
    ...{ systemIdentifier: String(systemIdentifier), segmentSize: sample!.segmentSize, histories: [] },
  });
  file('data/PG_VERSION', '18\n');
  mkdirSync(`${scratch}/data/pg_wal`);
  mkdirSync(`${scratch}/data/global`);
  writeFileSync(`${scratch}/data/global/pg_control`, control);
  const conf = file('data/postgresql.conf', "logging_collector = on\nlog_directory = 'said'\n");
  const words = ['--node', 'db1', '--pgdata', `${scratch}/data`] as const;
  const none = await logs(vault.url, 'save', ...words);
  expect([none.code, none.err]).toEqual([3, expect.stringMatching(/no log files.*--file/)]);
  file('data/said/one.log', 'one');
  file('data/said/two.log', 'two');
  expect((await logs(vault.url, 'save', ...words)).code).toBe(0);
  expect((await listed(vault.url)).map((one) => one.file)).toEqual(['one.log', 'two.log']);
  writeFileSync(conf, '');
  expect((await logs(vault.url, 'save', ...words)).code).toBe(3);
  await newCluster(vault, 'other');
  const other = await logs(vault.url, 'save', ...words, '--cluster', 'other');
  expect([other.code, other.err]).toEqual([3, expect.stringMatching(/has system identifier/)]);
  await vault.close();
});

test('filters by node, time and the last save', async () => {
  const { url, close } = await fileVault();
  const log = file('a.log', 'one');
  await saved(url, 'db1', log, file('b.log', 'two'));
  await saved(url, 'db1', log);
  await saved(url, 'db10', log);
  const names = async (...more: string[]) =>
    (await listed(url, ...more)).map((one) => `${one.node} ${one.file}`);
  expect(await names('--of', 'db1')).toEqual(['db1 a.log', 'db1 b.log', 'db1 a.log']);
  expect(await names('--last')).toEqual(['db1 a.log', 'db10 a.log']);
  expect(await names('--since', '1h')).toHaveLength(4);
  expect(await names('--since', '2099-01-01')).toEqual([]);
  expect(await names('--of', 'db3')).toEqual([]);
  await close();
});

test('a key that leads elsewhere is passed over, and a damaged object is not written', async () => {
  const { cluster } = await newCluster(await openVault('memory:logs-evil'), 'main');
  const { bucket } = cluster.vault;
  const prefix = logsPrefix(cluster);
  for (const key of [
    'db1/t/..%2F..%2Fevil.zst',
    'db1/t/%2e%2e.zst',
    'db1/t/%00.zst',
    'db1/t/%zz.zst',
    'db1/x.zst',
  ])
    await bucket.putOnce(prefix + key, Buffer.from('evil'));
  expect(await listed('memory:logs-evil')).toEqual([]);
  await bucket.putOnce(`${prefix}db1/2026/a.log.zst`, Buffer.from('no frame'), { size: '8', sha256: 'x' });
  const to = path.join(scratch, 'out');
  const { code, err } = await logs('memory:logs-evil', 'fetch', '--to', to);
  expect([code, err]).toEqual([66, expect.stringMatching(/does not unpack/)]);
  expect(existsSync(to)).toBe(false);
  expect(readdirSync(scratch)).toEqual([]);
});

test('no node, no file, two files of one name, no directory, no cluster and no vault are named', async () => {
  const { url, close } = await fileVault();
  const log = file('a.log', 'one');
  const said = async (command: string, ...more: string[]) => {
    const { code, err } = await logs(url, command, ...more);
    return [code, err];
  };
  expect(await said('save', '--file', log)).toEqual([2, expect.stringMatching(/node/)]);
  expect(await said('save', '--node', 'db1', '--file', `${scratch}/absent`)).toEqual([
    73,
    expect.stringMatching(/cannot read.*absent/),
  ]);
  expect(await said('save', '--node', 'db1', '--file', scratch)).toEqual([
    73,
    expect.stringMatching(/cannot read/),
  ]);
  expect(await said('save', '--node', 'db1', '--file', log, '--file', file('b/a.log', 'two'))).toEqual([
    2,
    expect.stringMatching(/two of the files are named a\.log/),
  ]);
  expect(await said('save', '--node', 'db1', '--pgdata', scratch)).toEqual([69, expect.any(String)]);
  expect(await listed(url)).toEqual([]);
  expect(await said('fetch')).toEqual([2, expect.stringMatching(/no directory/)]);
  expect(await said('list', '--of', '../db1')).toEqual([2, expect.stringMatching(/--of/)]);
  expect(await said('list', '--since', 'x')).toEqual([2, expect.stringMatching(/--since/)]);
  expect(await said('list', '--cluster', 'other')).toEqual([67, expect.stringMatching(/no cluster other/)]);
  expect(await said('list', '--vault', 'file:///nowhere/at/all')).toEqual([
    67,
    expect.stringMatching(/nowhere/),
  ]);
  expect(await said('fetch', '--to', log)).toEqual([0, '']); // nothing to write
  await saved(url, 'db1', log);
  expect(await said('fetch', '--to', log)).toEqual([73, expect.stringMatching(/cannot write/)]);
  await close();
});
