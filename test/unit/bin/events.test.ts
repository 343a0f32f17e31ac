/** `walvault events`: filters, the newest few of many, and following. */
import { keys, type EventRow } from '../../../core/cluster/facts.ts';
import type { EventKind } from '../../../core/cluster/event-kinds.ts';
import { createVault, openVault } from '../../../core/vault/open-vault.ts';
import { asRow, newId, putEvent, type Cluster } from '../../../core/work/cluster.ts';
import { walvault } from '../../harness/command.ts';
import { newCluster } from '../../harness/fake-node.ts';
import { livingCommand } from '../../harness/living-command.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';

async function put(
  cluster: Cluster,
  at: string,
  kind: EventKind,
  node: string | null,
  text = '',
): Promise<void> {
  const row = { ...keys.event(cluster.partition, at, newId()), rev: 1, at, kind, node, epoch: 1, text };
  await cluster.vault.manifest.transact([{ do: 'put', row: asRow(row), when: 'absent' }]);
}

/** Events of three days of 2026, after that of init, which has the time of the test. */
async function withEvents(url: string): Promise<Cluster> {
  const { cluster } = await newCluster(await openVault(url), 'main');
  await put(cluster, '2026-01-01T00:00:00.000Z', 'trigger', 'db2', 'one');
  await put(cluster, '2026-01-02T00:00:00.000Z', 'open', 'db2', 'two');
  await put(cluster, '2026-01-03T00:00:00.000Z', 'backup', 'db1', 'three');
  return cluster;
}

async function texts(url: string, ...more: string[]): Promise<string[]> {
  const { code, out } = await walvault(['events', '--vault', url, '--cluster', 'main', '--json', ...more]);
  expect(code).toBe(0);
  return (JSON.parse(out) as EventRow[]).filter(({ kind }) => kind !== 'init').map(({ text }) => text);
}

test('the newest stand last, filtered by time, kind and node', async () => {
  const url = 'memory:events-filter';
  await withEvents(url);
  expect(await texts(url)).toEqual(['one', 'two', 'three']);
  expect(await texts(url, '--since', '2026-01-02T00:00:00Z')).toEqual(['two', 'three']);
  expect(await texts(url, '--since', '2026-01-02T02:00:00+02:00')).toEqual(['two', 'three']);
  expect(await texts(url, '--since', '1h')).toEqual([]);
  expect(await texts(url, '--kind', 'open', '--kind', 'backup')).toEqual(['two', 'three']);
  expect(await texts(url, '--of', 'db2')).toEqual(['one', 'two']);
  expect(await texts(url, '--of', 'db2', '--limit', '1')).toEqual(['two']);
  const { out } = await walvault(['events', '--vault', url, '--cluster', 'main', '--kind', 'open']);
  expect(out).toMatch(/^2026-01-02T00:00:00\.000Z +1 +db2 +open +two$/m);
});

test('what is no kind, no moment, no number, no cluster or no vault is refused by its name', async () => {
  const url = 'memory:events-bad';
  await withEvents(url);
  const said = async (...more: string[]) => {
    const { code, err } = await walvault(['events', '--vault', url, '--cluster', 'main', ...more]);
    return [code, err];
  };
  expect(await said('--kind', 'opened')).toEqual([
    2,
    expect.stringMatching(/--kind opened is no kind.*\nHINT: .*open, claim/),
  ]);
  // a name that every object has is no kind either
  expect(await said('--kind', 'constructor')).toEqual([2, expect.stringMatching(/no kind/)]);
  for (const moment of ['yesterday', '5', '2026-13-01', '-1h', ''])
    expect(await said(`--since=${moment}`)).toEqual([2, expect.stringMatching(/neither a duration nor/)]);
  expect(await said('--limit', '0')).toEqual([2, expect.stringMatching(/--limit 0/)]);
  expect(await said('--cluster', 'other')).toEqual([67, expect.stringMatching(/no cluster other/)]);
  expect(await said('--vault', 'file:///nowhere/at/all')).toEqual([67, expect.stringMatching(/nowhere/)]);
});

test('--follow shows what comes, once, also what comes late or from a clock that is ahead, and ends cleanly', async () => {
  const scratch = makeScratch();
  try {
    const vault = await createVault(`file://${scratch}/vault`);
    const { cluster } = await newCluster(vault, 'main');
    const words = [
      'events',
      '--vault',
      vault.url,
      '--cluster',
      'main',
      '--follow',
      '--every',
      '100ms',
      '--json',
    ];
    const command = livingCommand(words);
    await command.says(/"init"/);
    const aside = (ms: number) => new Date(Date.now() + ms).toISOString();
    await put(cluster, aside(3_600_000), 'open', 'db2', 'ahead');
    await command.says(/ahead/);
    await put(cluster, aside(60_000), 'flush', 'db1', 'late');
    await command.says(/late/);
    await putEvent(cluster, { kind: 'undo', node: 'db1', epoch: 1, text: 'now' });
    await command.says(/now/);
    expect(await command.end('SIGINT')).toBe(0);
    expect(command.err()).toBe('');
    const lines = command
      .out()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as EventRow);
    expect(lines.map(({ kind }) => kind)).toEqual(['init', 'open', 'flush', 'undo']);
    await vault.close();
  } finally {
    await removeScratch(scratch);
  }
});
