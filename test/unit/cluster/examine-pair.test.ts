/** What is found wrong with two vaults, by table: each row is one thing amiss in a pair that is otherwise well. */
import { examinePair, examineReach, examineRoles, type Patient } from '../../../core/cluster/examine-pair.ts';
import type { Finding } from '../../../core/cluster/finding.ts';
import type { Control, Head, RelayRow } from '../../../core/cluster/facts.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { control, head } from '../../harness/facts.ts';

const NOW = new Date('2026-01-01T01:00:00.000Z');
const A = { id: 'a000000000000000', url: 'file:///a' };
const B = { id: 'b000000000000000', url: 'file:///b' };
const HISTORY = '1\t0/4800000\tno recovery target specified\n';

type Changes = {
  control?: Partial<Control>;
  head?: Partial<Head>;
  relay?: Partial<RelayRow> | null;
  history?: string;
  tookMs?: number;
};

function patient(ref: typeof A, changes: Changes): Patient {
  const top = head(changes.head);
  const { history } = changes;
  const relay = {
    ...{ direction: 'from', vault: A, lsn: '0/5000000', rows: 0, bytes: 0, seconds: 0, trouble: null },
    ...{ at: '2026-01-01T00:59:58.000Z' },
    ...changes.relay,
  } as RelayRow;
  return {
    ...{ url: ref.url, control: control({ vaultId: ref.id, ...changes.control }), head: top },
    lineage: lineageOf(top.timeline, history),
    histories: new Map(history === undefined ? [] : [[top.timeline, history]]),
    relays: changes.relay === null ? [] : [relay],
    tookMs: changes.tookMs ?? 12,
  };
}

const a = (changes: Changes = {}) => patient(A, { relay: null, ...changes });
const b = (changes: Changes = {}) =>
  patient(B, { ...changes, control: { role: 'replica', source: A, ...changes.control } });

/** The lag as the test's relay says it: one that is dead says an old one, which is for core/work to see through. */
const examine = (source: Patient, target: Patient) => {
  const { rows, seconds } = target.relays[0] ?? { rows: 0, seconds: 0 };
  return examinePair(source, target, { rows, seconds }, NOW);
};

const amiss = (findings: Finding[]) =>
  findings.filter(({ state }) => state !== 'ok').map(({ what, state }) => `${what} ${state}`);

test('of a pair that is well nothing is found, and every look says what it saw', () => {
  const findings = examine(a(), b());
  expect(amiss(findings)).toEqual([]);
  expect(findings.map(({ what }) => what)).toEqual(['database', 'epochs', 'histories', 'heads', 'relay']);
});

const spill = {
  ...{ epoch: 1, timeline: 1, firstLsn: '0/5000000', lsn: '0/7000000', lastFile: 'x', files: 2 },
  ...{ writer: { node: 'db1', nonce: 'n', place: 'p' }, at: '2026-01-01T00:50:00.000Z' },
};

test.each<[string, Patient, Patient, string[], RegExp]>([
  [
    'another database',
    a(),
    b({ control: { systemIdentifier: '7300000000000000009' } }),
    ['database bad'],
    /7300000000000000001, file:\/\/\/b holds 7300000000000000009/,
  ],
  [
    'another segment size',
    a(),
    b({ control: { segmentSize: 1 << 20 } }),
    ['database bad'],
    /16777216 bytes .* 1048576/,
  ],
  [
    'a follower that was fenced by a trigger',
    a(),
    b({ control: { epoch: 2 } }),
    ['epochs bad'],
    /epoch 2, newer/,
  ],
  [
    'a follower that does not know the epoch yet',
    a({ control: { epoch: 3, primary: 'db2' } }),
    b(),
    ['epochs warn'],
    /epoch 1 \(primary db1\).*epoch 3 \(primary db2\)/,
  ],
  [
    'a timeline with another history',
    a({ head: { timeline: 2 }, history: HISTORY }),
    b({ head: { timeline: 2 }, history: HISTORY.replace('48', '47') }),
    ['histories bad'],
    /timeline 2 of file:\/\/\/b/,
  ],
  [
    'a timeline that the source does not know',
    a(),
    b({ head: { timeline: 2 }, history: HISTORY }),
    ['histories bad'],
    /timeline 2/,
  ],
  [
    'a follower past its source',
    a(),
    b({ head: { lsn: '0/6000000' } }),
    ['heads bad'],
    /0\/6000000.*past 0\/5000000/,
  ],
  ['no relay ever', a(), b({ relay: null }), ['relay bad'], /no relay .* was ever/],
  [
    'a relay in trouble',
    a(),
    b({ relay: { trouble: 'conflict: other bytes' } }),
    ['relay bad'],
    /other bytes/,
  ],
  [
    'a relay that went silent',
    a(),
    b({ relay: { at: '2026-01-01T00:40:00.000Z' } }),
    ['relay warn'],
    /not heard of for 20 min/,
  ],
  [
    'a relay that falls behind',
    a(),
    b({ relay: { rows: 90, seconds: 1800 } }),
    ['relay warn'],
    /90 rows behind, .* 30 min/,
  ],
  [
    'spills that wait',
    a(),
    b({ head: { spill } }),
    ['spills warn'],
    /2 files of db1, up to 0\/7000000, wait in/,
  ],
  [
    'spills of an epoch that is over',
    a({ control: { epoch: 2, primary: 'db2' } }),
    b({ control: { epoch: 2, reign: 2, primary: 'db2' }, head: { spill } }),
    ['spills warn'],
    /epoch 1, which is over/,
  ],
  ['armed in the source alone', a({ control: { direct: B } }), b(), ['armed warn'], /does not know it yet/],
  [
    'armed in the follower alone',
    a(),
    b({ control: { direct: B } }),
    ['armed warn'],
    /does not say so any more/,
  ],
])('%s', (_what, source, target, expected, says) => {
  const findings = examine(source, target);
  expect(amiss(findings)).toEqual(expected);
  const found = findings.find(({ state }) => state !== 'ok');
  expect(found?.says).toMatch(says);
  expect(found?.fix).toBeTruthy();
});

test('armed in both is well', () => {
  const findings = examine(a({ control: { direct: B } }), b({ control: { direct: B } }));
  expect(amiss(findings)).toEqual([]);
  expect(findings.at(-1)).toMatchObject({ what: 'armed', state: 'ok' });
});

describe('roles', () => {
  const supersedes = { ...A, sinceEpoch: 2, at: '2026-01-01T00:00:00.000Z' };
  const taken = { role: 'active', source: null, epoch: 2 } as const;
  test.each<[string, Patient[], number, Finding['state'], RegExp]>([
    ['one active, one follower', [a(), b()], 0, 'ok', /a is the active vault/],
    ['none', [b()], 0, 'bad', /no vault is active/],
    ['none that was reached', [b()], 1, 'warn', /none|no vault that was reached/],
    [
      'one took the place of another that is not reached',
      [b({ control: { ...taken, supersedes } })],
      1,
      'warn',
      /file:\/\/\/a, whose place it took at epoch 2, does not know/,
    ],
    [
      'the other is back and still takes archives',
      [a(), b({ control: { ...taken, supersedes } })],
      0,
      'bad',
      /file:\/\/\/a still takes archives/,
    ],
    [
      'two that know nothing of each other',
      [a(), b({ control: taken })],
      0,
      'bad',
      /are all active, and none says/,
    ],
  ])('%s', (_what, patients, unreached, state, says) => {
    const found = examineRoles(patients, unreached);
    expect(found).toMatchObject({ state, says: expect.stringMatching(says) });
    expect(found.fix === undefined).toBe(state === 'ok');
  });
});

test('a vault that is slow is said', () => {
  expect(examineReach(a())).toMatchObject({ state: 'ok', says: expect.stringContaining('12 ms') });
  expect(examineReach(a({ tookMs: 3000 }))).toMatchObject({ state: 'warn' });
});
