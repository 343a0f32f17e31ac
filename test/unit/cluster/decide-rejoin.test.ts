import {
  decideGuard,
  decideRejoin,
  type LocalServer,
  type RejoinFacts,
  type VaultFacts,
} from '../../../core/cluster/decide-rejoin.ts';
import { formatHistory } from '../../../core/wal/history.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { parseLsn, type Lsn } from '../../../core/wal/lsn.ts';
import { control, head } from '../../harness/facts.ts';

const at = parseLsn;
const history2 = formatHistory([{ timeline: 1, forkLsn: at('0/50000A0') }], 'no recovery target specified');
const elsewhere2 = formatHistory([{ timeline: 1, forkLsn: at('0/4000000') }], 'no recovery target specified');

/** db2 holds epoch 2 on timeline 2, which left timeline 1 at 0/50000A0. */
const vault = (changes: Partial<VaultFacts> = {}): VaultFacts => ({
  control: control({ epoch: 2, primary: 'db2' }),
  head: head({
    epoch: 2,
    timeline: 2,
    lsn: '0/6000000',
    writer: { node: 'db2', nonce: 'n2', place: 'h2:/pg' },
  }),
  lineage: lineageOf(2, history2),
  history: undefined,
  ...changes,
});

/** db1, stopped cleanly by a flush: its last record is the checkpoint that ends at the fork. */
const local = (changes: Partial<LocalServer> = {}): LocalServer => ({
  node: 'db1',
  state: 1,
  stateText: 'shut down',
  signal: 'none',
  hasBackupLabel: false,
  isHalfRewound: false,
  timeline: 1,
  historyText: undefined,
  lineage: lineageOf(1, undefined),
  openedHere: false,
  checkpoint: at('0/5000028'),
  minRecovery: 0n,
  ...changes,
});

const facts = (
  ends: string,
  changes: Partial<LocalServer> = {},
  more: Partial<RejoinFacts> = {},
): RejoinFacts => {
  const server = local(changes);
  return {
    local: server,
    ends: at(ends),
    lastRecord: server.checkpoint,
    compared: [
      {
        name: '000000010000000000000005',
        begins: at('0/5000000'),
        ends: at(ends),
        held: { is: 'same', upTo: least(at(ends), at('0/50000A0')) },
      },
    ],
    ...more,
  };
};
const least = (one: Lsn, other: Lsn): Lsn => (one < other ? one : other);
const held = (verdict: RejoinFacts['compared'][number]['held'], ends = '0/50000A0') => ({
  compared: [{ name: '000000010000000000000005', begins: at('0/5000000'), ends: at(ends), held: verdict }],
});

describe('rejoin', () => {
  test('a server that was flushed, and ends exactly at the fork, is kept as it is', () => {
    expect(decideRejoin(facts('0/50000A0'), vault())).toMatchObject({
      do: 'keep',
      common: { timeline: 1, lsn: at('0/50000A0') },
    });
  });

  test('the primary of the epoch has nothing to rejoin', () => {
    const holder = vault({ control: control({ epoch: 2, primary: 'db1' }) });
    expect(decideRejoin(facts('0/50000A0'), holder)).toMatchObject({ do: 'refuse', code: 'refused' });
  });

  test('one more write past the fork is found, with how much it is', () => {
    const decision = decideRejoin(facts('0/5000100', { checkpoint: at('0/50000A0') }), vault());
    expect(decision).toMatchObject({ do: 'rebuild', diverged: true, pastBytes: 0x60 });
  });

  test.each([
    ['crashed', { state: 6, stateText: 'in production' }],
    ['crashed in its stop', { state: 3, stateText: 'shutting down' }],
    [
      'crashed, with standby.signal put there by hand',
      { state: 6, stateText: 'in production', signal: 'standby' as const },
    ],
    ['killed in the middle of a promotion', { state: 5, stateText: 'in archive recovery' }],
  ])('a server that was %s is never kept, wherever its WAL ends', (_, changes) => {
    expect(decideRejoin(facts('0/50000A0', changes), vault())).toMatchObject({ do: 'rebuild' });
  });

  test('a half rewound directory is made anew', () => {
    expect(decideRejoin(facts('0/50000A0', { isHalfRewound: true }), vault())).toMatchObject({
      do: 'rebuild',
      common: null,
    });
  });

  test('WAL that goes on after the checkpoint of the stop was not stopped by it', () => {
    const decision = decideRejoin(facts('0/50000A0', {}, { lastRecord: at('0/5000070') }), vault());
    expect(decision).toMatchObject({ do: 'rebuild', diverged: false });
  });

  test('other bytes before the fork are divergence, from where they begin', () => {
    const decision = decideRejoin(
      facts('0/50000A0', {}, held({ is: 'differs', at: at('0/5000040') })),
      vault(),
    );
    expect(decision).toMatchObject({
      do: 'rebuild',
      diverged: true,
      common: { timeline: 1, lsn: at('0/5000040') },
      pastBytes: 0x60,
    });
  });

  test('last WAL that the vault does not hold is not believed to be on the live branch', () => {
    expect(decideRejoin(facts('0/50000A0', {}, held({ is: 'absent' })), vault())).toMatchObject({
      do: 'rebuild',
      diverged: false,
    });
    expect(decideRejoin(facts('0/50000A0', {}, { compared: [] }), vault())).toMatchObject({ do: 'rebuild' });
  });

  describe('of a server that had been promoted to timeline 2 itself', () => {
    const own = {
      timeline: 2,
      historyText: history2,
      lineage: lineageOf(2, history2),
      checkpoint: at('0/5800028'),
    };
    const live = { control: control({ epoch: 3, primary: 'db3' }) };

    test('the same history, opened by another node, is another timeline', () => {
      const other = vault({ ...live, history: { text: history2, node: 'db2' } });
      expect(decideRejoin(facts('0/58000A0', { ...own, openedHere: true }), other)).toMatchObject({
        do: 'rebuild',
        diverged: true,
        common: { timeline: 1, lsn: at('0/50000A0') },
      });
    });

    test('the same number with another history is another timeline', () => {
      const other = vault({
        ...live,
        lineage: lineageOf(2, elsewhere2),
        history: { text: elsewhere2, node: 'db1' },
      });
      expect(decideRejoin(facts('0/58000A0', own), other)).toMatchObject({
        do: 'rebuild',
        diverged: true,
        common: { timeline: 1, lsn: at('0/4000000') },
      });
    });

    test('a number that the vault never heard of is divergence at the fork', () => {
      const other = vault({ ...live, lineage: lineageOf(1, undefined), history: undefined });
      expect(decideRejoin(facts('0/58000A0', own), other)).toMatchObject({
        do: 'rebuild',
        diverged: true,
        common: { timeline: 1, lsn: at('0/50000A0') },
      });
    });
  });

  test.each([
    ['before the fork it is kept', '0/5000028', 'keep'],
    ['past the fork it is not', '0/5100000', 'rebuild'],
  ])('a standby that has replayed to %s', (_, minRecovery, outcome) => {
    const standby = { state: 2, stateText: 'shut down in recovery', signal: 'standby' as const };
    const decision = decideRejoin(facts('0/5100000', { ...standby, minRecovery: at(minRecovery) }), vault());
    expect(decision.do).toBe(outcome);
  });
});

describe('guard', () => {
  const writer = { node: 'db1', epoch: 1, nonces: ['n1'], place: 'h1:/pg' };
  const standby = { signal: 'standby' as const };

  test('the primary of the epoch may start', () => {
    const mine = vault({ control: control(), head: head(), lineage: lineageOf(1, undefined) });
    expect(decideGuard(local(), writer, mine)).toMatchObject({ do: 'allow', as: 'primary' });
  });

  test.each([
    ['another node holds the epoch', vault(), writer, 'fenced'],
    [
      'it was flushed',
      vault({ control: control(), head: head({ flush: { lsn: '0/50000A0', rev: 1 } }) }),
      writer,
      'fenced',
    ],
    [
      'it was set back',
      vault({ control: control({ epoch: 3 }), head: head({ epoch: 3 }) }),
      writer,
      'fenced',
    ],
    [
      'a copy of it writes',
      vault({ control: control(), head: head({ writer: { node: 'db1', nonce: 'x', place: 'h9:/pg' } }) }),
      writer,
      'copied',
    ],
  ])('as a primary it must not start where %s', (_, seen, who, code) => {
    expect(decideGuard(local(), who, seen)).toMatchObject({ do: 'refuse', code });
  });

  test.each([
    ['flushed, and another was triggered', local(standby)],
    ['that follows', local({ ...standby, state: 5, minRecovery: at('0/5000000') })],
    ['fresh from a base backup', local({ ...standby, state: 6, hasBackupLabel: true })],
  ])('a standby %s may start', (_, server) => {
    expect(decideGuard(server, writer, vault())).toMatchObject({ do: 'allow', as: 'standby' });
  });

  test.each([
    ['a crashed primary with standby.signal', local({ ...standby, state: 6, stateText: 'in production' })],
    ['stopped with its checkpoint past the fork', local({ ...standby, checkpoint: at('0/50000A0') })],
    ['that replayed past the fork', local({ ...standby, state: 2, minRecovery: at('0/5100000') })],
    ['half rewound', local({ ...standby, isHalfRewound: true })],
  ])('a standby %s may not: it would replay past the fork', (_, server) => {
    expect(decideGuard(server, writer, vault())).toMatchObject({ do: 'refuse', code: 'fenced' });
  });

  test('a restore is nobody’s primary, and may start', () => {
    expect(decideGuard(local({ signal: 'archive' }), writer, vault())).toMatchObject({ do: 'allow' });
  });

  test('a promotion that is under way goes on', () => {
    const pending = vault({
      control: control({ epoch: 2, primary: 'db1' }),
      head: head({
        epoch: 2,
        promotion: {
          id: 't',
          epoch: 2,
          node: 'db1',
          mode: 'smart',
          state: 'sealed',
          at: '2026-01-01T00:00:00Z',
        },
      }),
    });
    expect(decideGuard(local({ state: 5 }), writer, pending)).toMatchObject({ do: 'allow', as: 'primary' });
  });
});
