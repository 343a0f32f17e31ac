/** `walvault status` of a cluster with two vaults, as people and programs read it. */
import { describeStatus } from '../../../bin/commands/status.ts';
import { keys, type RelayRow, type Spill } from '../../../core/cluster/facts.ts';
import { openVault } from '../../../core/vault/open-vault.ts';
import { asRow, readControl, readHead, type Cluster } from '../../../core/work/cluster.ts';
import { readStatus } from '../../../core/work/status.ts';
import { newCluster, segment } from '../../harness/fake-node.ts';
import { walvault } from '../../harness/command.ts';

const NOW = '2026-01-01T00:10:00.000Z';

const relayRow = (cluster: Cluster, other: { id: string; url: string }, changes: Partial<RelayRow> = {}) => ({
  ...keys.relay(cluster.partition, other.id),
  ...{ rev: 1, direction: 'to', vault: other, epoch: 1, timeline: 1, lsn: '0/300000', tailLsn: null },
  ...{
    lastFile: null,
    rows: 12,
    bytes: 12 << 20,
    seconds: 90,
    at: '2026-01-01T00:09:58.000Z',
    trouble: null,
  },
  ...changes,
});

const spill: Spill = {
  ...{ epoch: 1, timeline: 1, firstLsn: '0/300000', lsn: '0/500000', lastFile: 'x', files: 2 },
  ...{ writer: { node: 'db1', nonce: 'n', place: 'p' }, at: '2026-01-01T00:09:00.000Z' },
};

/** Two vaults that know of each other, as a relay has left them. */
async function pair(name: string) {
  const [db1, other] = await Promise.all(
    ['a', 'b'].map(async (one) => newCluster(await openVault(`memory:${name}-${one}`), 'main')),
  );
  for (const number of [1, 2, 3, 4, 5]) await db1!.archive(segment(1, number));
  const [a, b] = [db1!.cluster, other!.cluster];
  const [inA, inB] = await Promise.all([readControl(a), readControl(b)]);
  const refs = { a: { id: inA.vaultId, url: a.vault.url }, b: { id: inB.vaultId, url: b.vault.url } };
  const head = await readHead(b);
  await a.vault.manifest.transact([{ do: 'put', row: asRow(relayRow(a, refs.b)), when: 'absent' }]);
  await b.vault.manifest.transact([
    { do: 'put', row: asRow(relayRow(b, refs.a, { direction: 'from' })), when: 'absent' },
    {
      do: 'put',
      row: asRow({ ...inB, rev: inB.rev + 1, role: 'replica', source: refs.a }),
      when: { rev: inB.rev },
    },
    { do: 'put', row: asRow({ ...head, rev: head.rev + 1, spill }), when: { rev: head.rev } },
  ]);
  return { a, b, refs };
}

test('status --json of either vault names its role, its relays and the other vault', async () => {
  const { refs } = await pair('both');
  const ofA = await walvault(['status', '--vault', refs.a.url, '--cluster', 'main', '--json']);
  expect(JSON.parse(ofA.out)).toMatchObject({
    vault: { ...refs.a, role: 'active' },
    source: null,
    supersedes: null,
    supersededBy: null,
    direct: null,
    spills: null,
    relays: [{ direction: 'to', vault: refs.b, rows: 3, bytes: expect.any(Number), trouble: null }],
    others: [{ ...refs.b, role: 'replica', epoch: 1, primary: 'db1', timeline: 1, reachable: true }],
  });
  const ofB = await walvault(['status', '--vault', refs.b.url, '--cluster', 'main', '--json']);
  expect(JSON.parse(ofB.out)).toMatchObject({
    vault: { ...refs.b, role: 'replica' },
    source: refs.a,
    relays: [{ direction: 'from', vault: refs.a, rows: 12, bytes: 12 << 20, seconds: 90 }],
    spills: { files: 2, node: 'db1', epoch: 1, firstLsn: '0/300000', lsn: '0/500000' },
    others: [{ ...refs.a, role: 'active', reachable: true }],
  });
});

test('another vault that cannot be reached, or is not the one that is meant, is said beside what this one knows', async () => {
  const { a, refs } = await pair('lost');
  const row = (await a.vault.manifest.get(keys.relay(a.partition, refs.b.id))) as unknown as RelayRow;
  await a.vault.manifest.transact([
    {
      do: 'put',
      row: asRow({ ...row, rev: 2, vault: { id: refs.b.id, url: 'memory:lost-nowhere' } }),
      when: { rev: 1 },
    },
    { do: 'put', row: asRow(relayRow(a, { id: 'ffff', url: refs.b.url })), when: 'absent' },
  ]);
  const { code, out } = await walvault(['status', '--vault', refs.a.url, '--cluster', 'main', '--json']);
  expect(code).toBe(0);
  expect((JSON.parse(out) as { others: unknown[] }).others).toEqual(
    expect.arrayContaining([
      {
        id: refs.b.id,
        url: 'memory:lost-nowhere',
        reachable: false,
        why: expect.stringMatching(/no cluster/),
      },
      {
        id: 'ffff',
        url: refs.b.url,
        reachable: false,
        why: `another vault is there: ${refs.b.id}, not ffff`,
      },
    ]),
  );
});

test('people read which vault is active, how far the relay is, who took whose place and what waits', async () => {
  const { a, b, refs } = await pair('words');
  const nowMs = Date.parse(NOW);
  const [ofA, ofB] = [await readStatus(a), await readStatus(b)];
  expect(describeStatus(ofA, nowMs)).toMatch(/^vault +memory:words-a: active$/m);
  expect(describeStatus(ofA, nowMs)).toMatch(
    /^relay to +memory:words-b: 3 rows \(.*\) behind, for .*s \(2\.0 s ago\)$/m,
  );
  expect(describeStatus(ofB, nowMs)).toMatch(
    /^relay from +memory:words-a: 12 rows \(12 MiB\) behind, for 1 min 30 s \(2\.0 s ago\)$/m,
  );
  expect(describeStatus(ofB, nowMs)).toMatch(/^vault +memory:words-b: replica of memory:words-a$/m);
  expect(describeStatus(ofB, nowMs)).toMatch(/^spills +2 files of db1, epoch 1, .*WAITING until/m);
  const supersedes = { ...refs.a, sinceEpoch: 3, at: '2026-01-01T00:05:00.000Z' };
  expect(describeStatus({ ...ofA, supersedes }, nowMs)).toMatch(
    /^supersedes +memory:words-a since epoch 3, 5 min 0 s ago: it does NOT KNOW it yet$/m,
  );
  const trouble = {
    ...ofA,
    relays: ofA.relays.map((relay) => ({ ...relay, rows: 0, trouble: 'no answer' })),
  };
  expect(describeStatus(trouble, nowMs)).toMatch(/nothing behind; IN TROUBLE: no answer/);
});

test('a cluster with one vault has no line of a second', async () => {
  const { cluster } = await newCluster(await openVault('memory:single'), 'main');
  const text = describeStatus(await readStatus(cluster), Date.parse(NOW));
  expect(text).not.toMatch(/relay|spill|supersede|other vault/);
});
