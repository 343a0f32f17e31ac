/** What is found wrong with a lease, by table: each row is one thing amiss in a node that is otherwise well. */
import { examineLease, type LeaseFacts } from '../../../core/cluster/examine-lease.ts';
import type { VaultFacts } from '../../../core/cluster/examine-vault.ts';
import type { NodeRow } from '../../../core/cluster/facts.ts';
import { control, head, standby } from '../../harness/facts.ts';

const NOW = '2026-01-01T00:00:00.000Z';
const nowMs = Date.parse(NOW);
const leased = (changes: Partial<NodeRow> = {}): NodeRow =>
  standby({
    name: 'db1',
    role: 'primary',
    lease: { epoch: 1, count: 7, ms: 30_000, watchdog: 'process' },
    ...changes,
  });
const vaultOf = (changes: Partial<VaultFacts> = {}): VaultFacts => ({
  ...{
    url: 'file:///v',
    control: control({ primary: 'db1', epoch: 1, reign: 1 }),
    head: head(),
    nodes: [leased()],
  },
  ...{
    backups: [],
    manifestMs: 1,
    bucket: { ms: 1, key: null, isThere: true },
    clockAheadMs: 0,
    refusals: [],
  },
  witness: { by: 'w1:7', at: NOW, policy: { autoFailover: true, maxLagMs: 1, coolDownMs: 1 } },
  ...changes,
});
const well: LeaseFacts = {
  ...{ ms: 30_000, watchdog: 'process', refused: undefined, runs: { pid: 42, kind: 'process' } },
  ...{ ageMs: 2000, spillsAfterMs: undefined },
};
const open = { runs: true, inRecovery: false };

const examine = (
  changes: Partial<LeaseFacts>,
  { server = open, vault = vaultOf() as VaultFacts | undefined, node = 'db1' } = {},
) => examineLease({ ...well, ...changes }, server, { vault, node, nowMs });

test('a lease that is renewed, under a watchdog, before a witness', () => {
  expect(examine({})).toEqual([
    {
      what: 'lease',
      state: 'ok',
      says: '30 s, renewed 2 s ago, watchdog process (pid 42); w1:7 watches, auto_failover on',
    },
  ]);
  expect(
    examine(
      { ms: 0, watchdog: 'none', runs: undefined },
      { vault: vaultOf({ nodes: [leased({ lease: null })] }) },
    ),
  ).toEqual([{ what: 'lease', state: 'ok', says: 'none' }]);
  // while the vault is away, what is here is told all the same
  expect(examine({}, { vault: undefined })).toMatchObject([{ state: 'ok' }]);
});

test.each<[string, Partial<LeaseFacts>, Parameters<typeof examine>[1], 'warn' | 'bad', RegExp]>([
  ['settings that give none', { refused: { message: 'too short', hint: 'longer' } }, {}, 'bad', /too short/],
  ['no watchdog', { runs: undefined }, {}, 'bad', /watchdog does not run.*will be stopped/],
  [
    'a standby without a watchdog',
    { runs: undefined },
    { server: { runs: true, inRecovery: true }, node: 'db2' },
    'bad',
    /no target/,
  ],
  ['a watchdog of the other kind', { watchdog: 'systemd' }, {}, 'warn', /started as "process"/],
  [
    'not renewed',
    { ageMs: 12_000 },
    {},
    'bad',
    /not renewed for 12 s, of 30 s: the server is stopped at 20 s/,
  ],
  ['of an earlier boot', { ageMs: Infinity }, {}, 'bad', /longer than this machine runs/],
  ['spilling that never begins', { spillsAfterMs: 60_000 }, {}, 'warn', /before dr_after \(60 s\)/],
  ['no witness ever', {}, { vault: vaultOf({ witness: undefined }) }, 'warn', /no witness has ever looked/],
  [
    'a witness that is gone',
    {},
    { vault: vaultOf({ witness: { ...vaultOf().witness!, at: '2025-12-31T23:00:00.000Z' } }) },
    'warn',
    /w1:7\) looked last 60 min ago/,
  ],
  [
    'none here, and the primary has one',
    { ms: 0, watchdog: 'none' },
    { node: 'db2' },
    'warn',
    /db1 has a lease/,
  ],
])('%s', (_what, changes, about, state, says) => {
  const found = examine(changes, about);
  expect(found).toEqual([
    { what: 'lease', state, says: expect.stringMatching(says), fix: expect.any(String) },
  ]);
});
