import type { Writer } from '../../../core/cluster/decide-archive.ts';
import {
  chainEnd,
  decideHome,
  decideSpill,
  decideSpiller,
  isStale,
  nextSpill,
} from '../../../core/cluster/decide-spill.ts';
import type { Control, Head, Spill } from '../../../core/cluster/facts.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { control, head, MiB } from '../../harness/facts.ts';

const SIZE = 16 * MiB;
const B = 'b000000000000000';
const replica = (changes: Partial<Control> = {}): Control =>
  control({
    vaultId: B,
    role: 'replica',
    source: { id: 'a000000000000000', url: 'file:///a' },
    direct: { id: B, url: 'file:///b' },
    ...changes,
  });
const chain = (changes: Partial<Spill> = {}): Spill => ({
  epoch: 1,
  timeline: 1,
  firstLsn: '0/5000000',
  lsn: '0/7000000',
  lastFile: '000000010000000000000006',
  files: 2,
  writer: { node: 'db1', nonce: 's1', place: 'host1:/pg' },
  at: '2026-01-01T00:00:00.000Z',
  ...changes,
});
const writer = (changes: Partial<Writer> = {}): Writer => ({
  node: 'db1',
  epoch: 1,
  nonces: ['s1'],
  place: 'host1:/pg',
  ...changes,
});

describe('who may spill', () => {
  test.each<[string, Control, Head, Writer, string | undefined]>([
    ['the primary of the epoch, armed', replica(), head(), writer(), undefined],
    ['with a chain of its own', replica(), head({ spill: chain() }), writer(), undefined],
    [
      'with the next nonce of its chain',
      replica(),
      head({ spill: chain() }),
      writer({ nonces: ['s0', 's1'] }),
      undefined,
    ],
    ['not in an active vault', replica({ role: 'active' }), head(), writer(), 'fenced'],
    ['not in one that is being made a replica', replica({ role: 'converging' }), head(), writer(), 'fenced'],
    ['not where nothing is armed', replica({ direct: null }), head(), writer(), 'refused'],
    [
      'not where another vault is armed',
      replica({ direct: { id: 'c', url: 'x' } }),
      head(),
      writer(),
      'refused',
    ],
    ['not another node', replica({ primary: 'db2' }), head(), writer(), 'fenced'],
    ['not after a trigger', replica({ epoch: 2, primary: 'db2' }), head(), writer(), 'fenced'],
    ['not with an epoch from before the reign', replica({ epoch: 2 }), head(), writer(), 'fenced'],
    [
      'in an epoch raised without a change of primary',
      replica({ epoch: 2, reign: 1 }),
      head(),
      writer(),
      undefined,
    ],
    ['not ahead of the relay', replica(), head(), writer({ epoch: 2 }), 'refused'],
    ['not a copy', replica(), head({ spill: chain() }), writer({ nonces: ['other'] }), 'copied'],
    ['not a copy without a nonce', replica(), head({ spill: chain() }), writer({ nonces: [] }), 'copied'],
  ])('%s', (_what, atControl, atHead, as, code) => {
    expect(decideSpiller(atControl, atHead, as)?.code).toBe(code);
  });
});

describe('where the chain goes', () => {
  const decide = (atHead: Head, name: string, held?: string, atControl = replica()) =>
    decideSpill(
      { control: atControl, head: atHead, lineage: lineageOf(1, undefined), held },
      writer(),
      { name, sha256: 'aa' },
      SIZE,
    );
  const at = (part: string) => `0000000100000000000000${part}`;

  test('from the replica’s head on, and then from its own end', () => {
    expect(decide(head(), at('05'))).toEqual({
      do: 'spill',
      grown: false,
      chain: { timeline: 1, firstLsn: '0/5000000', lsn: '0/6000000', lastFile: at('05'), files: 1 },
    });
    expect(decide(head({ spill: chain() }), at('07'))).toMatchObject({
      do: 'spill',
      chain: { firstLsn: '0/5000000', lsn: '0/8000000', lastFile: at('07'), files: 3 },
    });
  });

  test.each<[string, Head, string, string | undefined, object]>([
    ['a hole before it', head(), at('06'), undefined, { do: 'refuse', code: 'hole' }],
    [
      'a hole behind the chain',
      head({ spill: chain() }),
      at('08'),
      undefined,
      { do: 'refuse', code: 'hole' },
    ],
    ['an empty replica', head({ lsn: null }), at('05'), undefined, { do: 'refuse', code: 'hole' }],
    [
      'a timeline that no relay has brought',
      head(),
      '000000020000000000000005',
      undefined,
      { do: 'refuse', code: 'hole' },
    ],
    ['a history', head(), '00000002.history', undefined, { do: 'refuse', code: 'refused' }],
    ['the same content', head(), at('05'), 'aa', { do: 'same' }],
    ['other content', head(), at('05'), 'bb', { do: 'refuse', code: 'conflict' }],
    ['no name of a WAL file', head(), 'nonsense', undefined, { do: 'refuse', code: 'corrupt' }],
    [
      'a backup label',
      head({ spill: chain() }),
      `${at('06')}.00000028.backup`,
      undefined,
      { do: 'spill', chain: { lsn: '0/7000000', files: 3 } },
    ],
    [
      'a label before any segment',
      head(),
      `${at('04')}.00000028.backup`,
      undefined,
      { do: 'spill', chain: { firstLsn: '0/5000000', lsn: '0/5000000' } },
    ],
    [
      'the segment that outgrows a tail',
      head({ tail: { timeline: 1, lsn: '0/5000100' } }),
      at('05'),
      undefined,
      { do: 'spill', grown: true },
    ],
    [
      'what ends before the vault begins',
      head({ firstLsn: '0/2000000' }),
      at('01'),
      undefined,
      { do: 'ignore' },
    ],
    [
      'rows that a relay brought past the chain',
      head({ lsn: '0/9000000', spill: chain() }),
      at('09'),
      undefined,
      { do: 'spill' },
    ],
  ])('%s', (_what, atHead, name, held, expected) => {
    expect(decide(atHead, name, held)).toMatchObject(expected);
  });

  test('a chain of an epoch that is over goes out of the way first, whatever it holds', () => {
    const now = replica({ epoch: 2, reign: 2 });
    const stale = head({ spill: chain() });
    const as = writer({ epoch: 2, nonces: [] });
    const state = { control: now, head: stale, lineage: lineageOf(1, undefined) };
    for (const held of [undefined, 'aa', 'bb'])
      expect(decideSpill({ ...state, held }, as, { name: at('05'), sha256: 'aa' }, SIZE)).toEqual({
        do: 'set-aside',
      });
  });

  test('its end is that of the replica’s rows where those go further', () => {
    expect(chainEnd(head())).toBe(0x5000000n);
    expect(chainEnd(head({ spill: chain() }))).toBe(0x7000000n);
    expect(chainEnd(head({ lsn: '0/9000000', spill: chain() }))).toBe(0x9000000n);
    expect(chainEnd(head({ lsn: null }))).toBeNull();
    expect(nextSpill(head({ spill: chain() }), lineageOf(1, undefined), SIZE)).toBe(at('07'));
  });
});

describe('the way home', () => {
  const active = (changes: Partial<Control> = {}, heads: Partial<Head> = {}) => ({
    control: control(changes),
    head: head(heads),
  });
  const flushed = { flush: { lsn: '0/5000100', rev: 3 } };
  test.each<[string, ReturnType<typeof active>, Spill, boolean, object]>([
    ['of the primary’s own epoch', active(), chain(), true, { do: 'home' }],
    [
      'in an epoch raised without a change of primary',
      active({ epoch: 2, reign: 1 }),
      chain(),
      true,
      { do: 'home' },
    ],
    ['not after a trigger', active({ epoch: 2, primary: 'db2' }), chain(), true, { do: 'aside' }],
    ['not after a claim of the same node', active({ epoch: 2 }), chain(), true, { do: 'aside' }],
    ['not after there and back again', active({ epoch: 3 }), chain({ epoch: 2 }), true, { do: 'aside' }],
    [
      'not where the active vault was set back',
      active(),
      chain({ epoch: 2 }),
      true,
      { do: 'refuse', code: 'refused' },
    ],
    ['not into a replica', active({ role: 'replica' }), chain(), true, { do: 'refuse', code: 'refused' }],
    ['not behind a flush', active({}, flushed), chain(), true, { do: 'refuse', code: 'refused' }],
    ['behind a flush, when all of it is there', active({}, flushed), chain(), false, { do: 'home' }],
  ])('%s', (_what, at, spill, isNew, expected) => {
    expect(decideHome(at, spill, isNew)).toMatchObject(expected);
  });

  test('a chain is stale when its reign is over, or another is the primary', () => {
    expect(isStale(control(), chain())).toBe(false);
    expect(isStale(control({ epoch: 2 }), chain())).toBe(true);
    expect(isStale(control({ primary: 'db2' }), chain())).toBe(true);
    expect(isStale(control({ primary: null }), chain())).toBe(true);
  });
});
