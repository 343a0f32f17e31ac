/** `walvault status` of all clusters, for monitoring, for Prometheus, and watched. */
import { rmSync } from 'node:fs';
import { MEASURES } from '../../../core/cluster/decide-check.ts';
import { keys, type BackupRow, type NodeRow } from '../../../core/cluster/facts.ts';
import { createVault, openVault } from '../../../core/vault/open-vault.ts';
import type { Cluster } from '../../../core/work/cluster.ts';
import { exposition } from '../../../bin/ui/exposition.ts';
import { live } from '../../../bin/ui/live.ts';
import type { Io } from '../../../bin/ui/io.ts';
import type { Context } from '../../../bin/command.ts';
import type { Look } from '../../../bin/commands/status.ts';
import { watchStatus } from '../../../bin/status-watch.ts';
import { VaultError } from '../../../core/errors.ts';
import { walvault } from '../../harness/command.ts';
import { standby } from '../../harness/facts.ts';
import { newCluster, segment } from '../../harness/fake-node.ts';
import { livingCommand } from '../../harness/living-command.ts';
import { plant } from '../../harness/planted-rows.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';

const ago = (ms: number) => new Date(Date.now() - ms).toISOString();
const MINUTE = 60_000;

const nodeRow = ({ partition }: Cluster, name: string, changes: Partial<NodeRow> = {}): NodeRow =>
  standby({ ...keys.node(partition, name), name, heartbeatAt: ago(0), lastRestored: null, ...changes });

const backupRow = ({ partition }: Cluster, finishedAt: string): BackupRow => ({
  ...keys.backup(partition, 'b1'),
  ...{ rev: 1, id: 'b1', state: 'complete', node: 'db1', label: '', majorVersion: 18, timeline: 1 },
  ...{ startLsn: '0/200028', stopLsn: '0/200100', startSegment: segment(1, 2), stopSegment: segment(1, 2) },
  ...{ startedAt: finishedAt, finishedAt, sizeBytes: 1, storedBytes: 1, files: 1, indexKey: 'k' },
});

/** db1 reports and waits for nothing, db2 is level, there is a backup of now. */
async function healthy(url: string, name = 'main'): Promise<Cluster> {
  const { cluster } = await newCluster(await openVault(url), name);
  await plant(cluster, [
    nodeRow(cluster, 'db1', { role: 'primary', waitingSince: null }),
    nodeRow(cluster, 'db2'),
    backupRow(cluster, ago(0)),
  ]);
  return cluster;
}

const check = (url: string, ...more: string[]) => walvault(['status', '--check', '--vault', url, ...more]);

test('--all shows every cluster, also where one cannot be read, and then says so by its exit', async () => {
  const url = 'memory:status-all';
  const main = await healthy(url);
  await healthy(url, 'other');
  const { code, out } = await walvault(['status', '--all', '--vault', url]);
  expect([code, out]).toEqual([
    0,
    expect.stringMatching(/^main +active +1 +db1 .*\nother +active +1 +db1 /m),
  ]);
  await plant(main, [{ ...(await main.vault.manifest.get(keys.control('main'))), rev: 2, format: 99 }]);
  const after = await walvault(['status', '--all', '--vault', url, '--json']);
  expect([after.code, JSON.parse(after.out)]).toEqual([
    76,
    [
      { cluster: 'main', error: { code: 'format', message: expect.any(String), hint: expect.any(String) } },
      expect.objectContaining({ cluster: 'other', primary: 'db1', error: null }),
    ],
  ]);
  const text = await walvault(['status', '--all', '--vault', url]);
  expect(text.out).toMatch(/^main +NOT READ: \[format\]/m);
  await openVault('memory:status-none');
  expect(await walvault(['status', '--all', '--vault', 'memory:status-none'])).toMatchObject({
    ...{ code: 0, out: 'no clusters in this vault\n' },
  });
});

test('--check exits 0, 1 and 2 by what it finds, with one line of figures', async () => {
  const url = 'memory:status-check';
  const cluster = await healthy(url);
  const well = await check(url, '--cluster', 'main');
  expect(well).toMatchObject({ code: 0, err: '' });
  expect(well.out).toMatch(
    /^WALVAULT OK - main: primary db1, .*standbys 1 \| waiting=0s;120;600;0 silence_db1=\ds;60;600;0 silence_db2=\ds;60;600;0 lag_db2=0s;300;1800;0 backup=\ds;172800;691200;0\n$/,
  );
  await plant(cluster, [nodeRow(cluster, 'db2', { heartbeatAt: ago(5 * MINUTE) })]);
  expect(await check(url, '--cluster', 'main')).toMatchObject({
    code: 1,
    out: expect.stringMatching(/^WALVAULT WARNING - main: db2 is silent for 5 min \|/),
  });
  expect(await check(url, '--cluster', 'main', '--silence', '1h,2h')).toMatchObject({ code: 0 });
  expect(await check(url, '--cluster', 'main', '--silence', 'none')).toMatchObject({ code: 0 });
  expect(await check(url, '--cluster', 'main', '--silence', 'none,4m')).toMatchObject({ code: 2 });
  // by the primary's own clock, whatever its age
  const waiting = { role: 'primary', heartbeatAt: ago(MINUTE / 2), waitingSince: ago(20 * MINUTE) } as const;
  await plant(cluster, [nodeRow(cluster, 'db1', waiting)]);
  const bad = await check(url, '--cluster', 'main', '--json');
  expect([bad.code, JSON.parse(bad.out)]).toEqual([
    2,
    {
      level: 'critical',
      checks: [
        expect.objectContaining({
          findings: [
            { level: 'critical', text: 'a segment waits to be archived for 19 min' },
            { level: 'warning', text: 'db2 is silent for 5 min' },
          ],
        }),
      ],
    },
  ]);
});

test('--check --all takes the worst; a vault, cluster or threshold that cannot be read is 3, on standard output', async () => {
  const url = 'memory:status-check-all';
  await healthy(url);
  const other = await healthy(url, 'other');
  expect(await check(url, '--all')).toMatchObject({ code: 0 });
  await plant(other, [{ ...(await other.vault.manifest.get(keys.control('other'))), rev: 2, format: 99 }]);
  expect(await check(url, '--all')).toMatchObject({
    code: 3,
    out: expect.stringMatching(
      /^WALVAULT UNKNOWN - other: \[format\].*; main: primary db1.*\| main_waiting=/,
    ),
  });
  const unknown = { code: 3, err: '', out: expect.stringMatching(/^WALVAULT UNKNOWN - /) as unknown };
  expect(await check('file:///nowhere/at/all', '--cluster', 'main')).toMatchObject(unknown);
  expect(await check('file:///nowhere/at/all', '--all')).toMatchObject(unknown);
  expect(await check(url, '--cluster', 'absent')).toMatchObject(unknown);
  for (const bad of ['5', '5m', '10m,5m', '1m,2m,3m', ',', 'x,y'])
    expect(await check(url, '--cluster', 'main', '--lag', bad)).toMatchObject({
      ...{ code: 3, out: expect.stringMatching(/^WALVAULT UNKNOWN - main: \[usage\] --lag/) },
    });
  for (const measure of Object.keys(MEASURES))
    expect(await check(url, '--cluster', 'main', `--${measure}`, 'none')).toMatchObject({ code: 0 });
  expect(await walvault(['status', '--check', '--watch', '--vault', url])).toMatchObject({ code: 2 });
});

type Parsed = { type: string; samples: { labels: Record<string, string>; value: number }[] };

/** The text format, strictly: HELP and TYPE before the samples of a family, each family once and in one piece. */
function parseExposition(text: string): Map<string, Parsed> {
  const families = new Map<string, Parsed>();
  const seen = new Set<string>();
  expect(text.endsWith('\n')).toBe(true);
  const lines = text.slice(0, -1).split('\n');
  for (let index = 0; index < lines.length;) {
    const [, name = ''] = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (?:[^\\]|\\\\|\\n)+$/.exec(lines[index]!) ?? [];
    expect([lines[index], name]).toEqual([lines[index], expect.stringMatching(/./)]);
    expect(families.has(name)).toBe(false);
    const [, type = ''] = new RegExp(`^# TYPE ${name} (gauge|counter)$`).exec(lines[index + 1]!) ?? [];
    expect([lines[index + 1], type]).toEqual([lines[index + 1], expect.stringMatching(/./)]);
    const family: Parsed = { type, samples: [] };
    families.set(name, family);
    for (index += 2; index < lines.length && !lines[index]!.startsWith('#'); index++) {
      const line = lines[index]!;
      const found = new RegExp(
        `^${name}(?:\\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*",?)+)\\})? (-?\\d+(?:\\.\\d+)?(?:e[+-]\\d+)?)$`,
      ).exec(line);
      expect([line, found]).toEqual([line, expect.anything()]);
      expect(seen.has(line.slice(0, line.lastIndexOf(' ')))).toBe(false); // no series twice
      seen.add(line.slice(0, line.lastIndexOf(' ')));
      const labels = Object.fromEntries(
        [...(found![1] ?? '').matchAll(/([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g)].map(([, label, value]) => [
          label,
          value!.replaceAll(/\\(.)/g, (_, one: string) => (one === 'n' ? '\n' : one)),
        ]),
      ) as Record<string, string>;
      family.samples.push({ labels, value: Number(found![2]) });
    }
    expect(family.samples.length).toBeGreaterThan(0);
  }
  return families;
}

test('--prometheus prints families that its format allows, with every cluster by --all', async () => {
  const url = 'memory:status-metrics';
  await healthy(url);
  const other = await healthy(url, 'other');
  await plant(other, [{ ...(await other.vault.manifest.get(keys.control('other'))), rev: 2, format: 99 }]);
  const one = await walvault(['status', '--prometheus', '--vault', url, '--cluster', 'main']);
  expect(one).toMatchObject({ code: 0, err: '' });
  const families = parseExposition(one.out);
  const of = (name: string) => families.get(name)?.samples;
  expect(of('walvault_up')).toEqual([{ labels: { cluster: 'main' }, value: 1 }]);
  expect(of('walvault_epoch')).toEqual([{ labels: { cluster: 'main' }, value: 1 }]);
  expect(of('walvault_archive_waiting_seconds')).toEqual([{ labels: { cluster: 'main' }, value: 0 }]);
  expect(of('walvault_node_trouble')).toHaveLength(2);
  expect(
    of('walvault_node_heartbeat_timestamp_seconds')?.every(
      ({ value }) => Math.abs(value - Date.now() / 1000) < 600,
    ),
  ).toBe(true);
  expect(of('walvault_backups')).toContainEqual({ labels: { cluster: 'main', state: 'complete' }, value: 1 });
  expect(of('walvault_trigger_timestamp_seconds')).toBeUndefined();
  expect(of('walvault_lease_seconds')).toBeUndefined();
  expect(of('walvault_maintenance')).toEqual([{ labels: { cluster: 'main' }, value: 0 }]);
  const all = await walvault(['status', '--prometheus', '--all', '--vault', url]);
  expect(parseExposition(all.out).get('walvault_up')?.samples).toEqual([
    { labels: { cluster: 'main' }, value: 1 },
    { labels: { cluster: 'other' }, value: 0 },
  ]);
  expect(await walvault(['status', '--prometheus', '--vault', 'file:///nowhere', '--all'])).toMatchObject({
    code: 67,
    out: '',
  });
  expect(await walvault(['status', '--prometheus', '--json', '--all', '--vault', url])).toMatchObject({
    code: 2,
    out: '',
  });
});

test('labels and help texts are escaped as the format wants it', () => {
  const value = 'a"b\\c\nd\\n';
  const text = exposition([
    {
      name: 'x',
      help: 'one\ntwo \\ three',
      type: 'gauge',
      samples: [{ labels: { url: value }, value: 1e-7 }],
    },
    { name: 'empty', help: 'none', type: 'gauge', samples: [] },
  ]);
  expect(text).toBe('# HELP x one\\ntwo \\\\ three\n# TYPE x gauge\nx{url="a\\"b\\\\c\\nd\\\\n"} 1e-7\n');
  expect(parseExposition(text).get('x')?.samples).toEqual([{ labels: { url: value }, value: 1e-7 }]);
});

test('--watch prints one block for each change, none for a heartbeat, and ends cleanly', async () => {
  const scratch = makeScratch();
  try {
    const vault = await createVault(`file://${scratch}/vault`);
    const db1 = await newCluster(vault, 'main');
    const words = [
      'status',
      '--vault',
      vault.url,
      '--cluster',
      'main',
      '--watch',
      '--every',
      '100ms',
      '--json',
    ];
    const command = livingCommand(words);
    await command.says(/"lastSegment":null/);
    const beat = (heartbeatAt: string) => plant(db1.cluster, [nodeRow(db1.cluster, 'db2', { heartbeatAt })]);
    await beat(ago(2000));
    await command.says(/"name":"db2"/);
    await beat(ago(1000));
    const row = await db1.cluster.vault.manifest.get(keys.node(db1.cluster.partition, 'db1'));
    const renew = (count: number) =>
      plant(db1.cluster, [
        {
          ...row!,
          rev: Number(row!.rev) + count,
          lease: { epoch: 1, count, ms: 30_000, watchdog: 'process' },
        },
      ]);
    await renew(1);
    await command.says(/"lease":\{/);
    for (const count of [2, 3]) await renew(count);
    await db1.archive(segment(1, 1));
    await command.says(new RegExp(`"lastSegment":"${segment(1, 1)}"`));
    expect(await command.end('SIGINT')).toBe(0);
    expect(command.err()).toBe('');
    const blocks = command
      .out()
      .trim()
      .split('\n')
      .map(
        (line) =>
          JSON.parse(line) as { at: string; status: { nodes: unknown[]; lastSegment: string | null } },
      );
    expect(blocks.map(({ status }) => [status.nodes.length, status.lastSegment])).toEqual([
      [1, null],
      [2, null],
      [2, null], // the lease has begun; its renewals are no news
      [2, segment(1, 1)],
    ]);
    await vault.close();
    rmSync(`${scratch}/vault`, { recursive: true });
    expect(await walvault(words)).toMatchObject({ code: 67, out: '' });
  } finally {
    await removeScratch(scratch);
  }
});

test('a watch that was begun goes on while the vault does not answer, and shows what it knew; another failure ends it', async () => {
  let out = '';
  const io = { out: (text: string) => (out += text), drawable: false } as unknown as Io;
  const context = { io, json: false, duration: () => 1, exit: 0 } as unknown as Context;
  const one = { value: { a: 1 }, text: () => 'one' };
  const answers: (() => Promise<Look>)[] = [
    () => Promise.resolve(one),
    () => Promise.reject(new VaultError('unreachable', 'no answer')),
    () => Promise.reject(new VaultError('unreachable', 'no answer')),
    () => Promise.resolve(one),
  ];
  await watchStatus(context, () => {
    const answer = answers.shift();
    if (answer !== undefined) return answer();
    process.emit('SIGINT');
    return Promise.resolve(one);
  });
  expect(out.replaceAll(/^--- .*Z$/gm, '---')).toBe(
    '---\none\n\n---\nNOT READ: [unreachable] no answer\n\nas it was:\none\n\n---\none\n\n',
  );
  answers.push(
    () => Promise.resolve(one),
    () => Promise.reject(new VaultError('denied', 'no')),
  );
  await expect(watchStatus(context, () => answers.shift()!())).rejects.toMatchObject({ code: 'denied' });
  // the first look must succeed: nothing is known that could be shown
  answers.push(() => Promise.reject(new VaultError('unreachable', 'no')));
  await expect(watchStatus(context, () => answers.shift()!())).rejects.toMatchObject({ code: 'unreachable' });
});

test('a live block that has become shorter leaves nothing behind, and is cut to the height of the terminal', () => {
  let text = '';
  const io = {
    ...{ err: (more: string) => (text += more), drawable: true, columns: 80, stderr: { rows: 4 } },
  } as unknown as Io;
  const view = live(io);
  view.draw(['1', '2', '3', '4', '5'], '');
  view.draw(['a'], '');
  expect(text).toBe('\x1b[2K1\n\x1b[2K2\n\x1b[2K3\n\x1b[3A\x1b[2Ka\n\x1b[J');
});
