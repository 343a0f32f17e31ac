import {
  decideClaim,
  decideDiverged,
  decideOpen,
  decideSeal,
  decideTrigger,
} from '../../../core/cluster/decide-roles.ts';
import type { Promotion } from '../../../core/cluster/facts.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { control, head, MiB, standby } from '../../harness/facts.ts';

const size = 16 * MiB;
const onOne = lineageOf(1, undefined);
const at = '2026-01-01T00:00:00.000Z';
const promotion = (changes: Partial<Promotion> = {}): Promotion => ({
  id: 't1',
  epoch: 2,
  node: 'db2',
  mode: 'smart',
  state: 'triggered',
  at,
  ...changes,
});
const sealed = (changes: Partial<Promotion> = {}) =>
  promotion({ state: 'sealed', timeline: 1, lsn: '0/5000000', reserved: 2, ...changes });
const triggered = control({ epoch: 2, primary: 'db2' });

describe('trigger', () => {
  const request = { id: 't1', mode: 'smart' as const, to: 'db2', at };

  test('raises the epoch, names the target and touches head', () => {
    const decision = decideTrigger(control(), head(), standby(), request);
    expect(decision).toMatchObject({
      do: 'trigger',
      control: {
        rev: 2,
        epoch: 2,
        primary: 'db2',
        trigger: { id: 't1', epoch: 2, mode: 'smart', to: 'db2' },
      },
      head: { rev: 2, epoch: 2, promotion: { id: 't1', epoch: 2, node: 'db2', state: 'triggered' } },
    });
  });

  test('clears a flush, so that trigger and undo exclude each other', () => {
    const decision = decideTrigger(
      control(),
      head({ flush: { lsn: '0/5000000', rev: 1 } }),
      standby(),
      request,
    );
    expect(decision).toMatchObject({ do: 'trigger', head: { flush: null } });
  });

  test.each([
    ['an unknown node', control(), head(), undefined],
    ['the primary itself', control({ primary: 'db2' }), head(), standby()],
    ['a node that is a primary by its own report', control(), head(), standby({ role: 'primary' })],
    ['a standby that has not reached its backup’s end', control(), head(), standby({ consistent: false })],
    ['a standby that has diverged', control(), head(), standby({ trouble: 'it is past the fork' })],
    ['a replica vault', control({ role: 'replica' }), head(), standby()],
    [
      'a second promotion beside a pending one',
      triggered,
      head({ promotion: promotion({ node: 'db3' }) }),
      standby(),
    ],
  ])('is refused for %s', (_what, ctl, hd, target) => {
    expect(decideTrigger(ctl, hd, target, request)).toMatchObject({ do: 'refuse', code: 'refused' });
  });

  test('takes the place of a pending promotion only by the epoch it names', () => {
    const pending = head({ promotion: promotion({ node: 'db3' }) });
    expect(decideTrigger(triggered, pending, standby(), { ...request, supersede: 1 })).toMatchObject({
      do: 'refuse',
    });
    expect(
      decideTrigger(control({ epoch: 2, primary: 'db3' }), pending, standby(), { ...request, supersede: 2 }),
    ).toMatchObject({ do: 'trigger', control: { epoch: 3 } });
  });

  test('keeps a number reserved by the promotion that is given up', () => {
    const pending = head({ lastTimeline: 2, promotion: sealed({ node: 'db3' }) });
    expect(
      decideTrigger(control({ epoch: 2, primary: 'db3' }), pending, standby(), { ...request, supersede: 2 }),
    ).toMatchObject({ head: { lastTimeline: 2 } });
  });
});

describe('seal', () => {
  const request = { node: 'db2', timeline: 1, lsn: 0x500_0000n };

  test('reserves the next timeline number', () => {
    expect(decideSeal(triggered, head({ promotion: promotion() }), onOne, request)).toMatchObject({
      do: 'seal',
      head: { lastTimeline: 2, promotion: { state: 'sealed', timeline: 1, lsn: '0/5000000', reserved: 2 } },
    });
  });

  test('is answered as it stands when it is asked for again', () => {
    expect(
      decideSeal(triggered, head({ promotion: sealed() }), onOne, { ...request, lsn: 0x400_0000n }),
    ).toEqual({ do: 'sealed', promotion: sealed() });
  });

  test.each([
    ['without a trigger', control(), head(), request],
    ['for another node', triggered, head({ promotion: promotion({ node: 'db3' }) }), request],
    [
      'after another trigger took its place',
      control({ epoch: 3, primary: 'db3' }),
      head({ promotion: promotion() }),
      request,
    ],
    [
      'smart, before everything is consumed',
      triggered,
      head({ promotion: promotion() }),
      { ...request, lsn: 0x400_0000n },
    ],
    [
      'on a timeline that is not on the branch',
      triggered,
      head({ promotion: promotion({ mode: 'fast' }) }),
      { ...request, timeline: 7 },
    ],
  ])('is refused %s', (_what, ctl, hd, asked) => {
    expect(decideSeal(ctl, hd, onOne, asked)).toMatchObject({ do: 'refuse' });
  });

  test('fast: wherever the node is on the branch, but not past a fork', () => {
    const onTwo = lineageOf(2, '1\t0/4000000\tx\n');
    const two = head({ timeline: 2, lastTimeline: 2, promotion: promotion({ mode: 'fast' }) });
    expect(decideSeal(triggered, two, onTwo, { ...request, lsn: 0x300_0000n })).toMatchObject({
      do: 'seal',
      head: { lastTimeline: 3 },
    });
    expect(decideSeal(triggered, two, onTwo, { ...request, lsn: 0x500_0000n })).toMatchObject({
      do: 'refuse',
    });
  });
});

describe('open', () => {
  const request = {
    node: 'db2',
    place: 'host2:/pg',
    nonce: 'n9',
    timeline: 2,
    ancestors: [{ timeline: 1, forkLsn: 0x500_0000n }],
  };
  const waiting = head({ lastTimeline: 2, promotion: sealed() });

  test('makes the new timeline the live one, with a writer of its own', () => {
    expect(decideOpen(triggered, waiting, onOne, request, size)).toMatchObject({
      do: 'open',
      parent: 1,
      forkSegmentWhole: true,
      head: {
        timeline: 2,
        lsn: '0/5000000',
        epoch: 2,
        writer: { node: 'db2', nonce: 'n9' },
        promotion: { state: 'open' },
      },
    });
  });

  test('says whether the segment that holds the fork was consumed to its end', () => {
    const within = { ...request, ancestors: [{ timeline: 1, forkLsn: 0x4f0_0000n }] };
    expect(decideOpen(triggered, waiting, onOne, within, size)).toMatchObject({
      do: 'open',
      forkSegmentWhole: true,
    });
    const partly = head({ lastTimeline: 2, promotion: sealed({ lsn: '0/4F00000' }) });
    expect(decideOpen(triggered, partly, onOne, within, size)).toMatchObject({
      do: 'open',
      forkSegmentWhole: false,
    });
  });

  test('takes a history whose forks do not ascend, as PostgreSQL writes it for a recovery that stopped before a fork', () => {
    const ancestors = [
      { timeline: 1, forkLsn: 0x500_0000n },
      { timeline: 2, forkLsn: 0x400_0000n },
    ];
    const fast = sealed({ mode: 'fast', timeline: 2, lsn: '0/4000000', reserved: 3 });
    const behind = head({ timeline: 2, lastTimeline: 3, promotion: fast });
    const onTwo = lineageOf(2, '1\t0/5000000\tx\n');
    expect(decideOpen(triggered, behind, onTwo, { ...request, timeline: 3, ancestors }, size)).toMatchObject({
      do: 'open',
      parent: 2,
      fork: 0x400_0000n,
    });
  });

  test('past the end of the vault only with the segments between: streamed, and archived by nobody', () => {
    const streamed = { ...request, ancestors: [{ timeline: 1, forkLsn: 0x680_0000n }] };
    expect(decideOpen(triggered, waiting, onOne, streamed, size)).toMatchObject({
      do: 'refuse',
      code: 'hole',
    });
    const filled = { ...streamed, fills: ['000000010000000000000005'] };
    expect(decideOpen(triggered, waiting, onOne, filled, size)).toMatchObject({
      do: 'open',
      fork: 0x680_0000n,
      forkSegmentWhole: false,
      head: { lsn: '0/6800000' },
    });
  });

  test('is done once', () => {
    const open = head({ timeline: 2, lastTimeline: 2, promotion: sealed({ state: 'open' }) });
    expect(decideOpen(triggered, open, lineageOf(2, '1\t0/5000000\tx\n'), request, size)).toEqual({
      do: 'already',
    });
  });

  test.each([
    ['by a node that a newer epoch does not name', control({ epoch: 3, primary: 'db3' }), waiting, request],
    ['without a seal', triggered, head({ promotion: promotion() }), request],
    ['with another number than was reserved', triggered, waiting, { ...request, timeline: 3 }],
    [
      'with a history that is not that of the vault',
      triggered,
      waiting,
      { ...request, ancestors: [{ timeline: 4, forkLsn: 0x400_0000n }] },
    ],
    ['with a history without a parent', triggered, waiting, { ...request, ancestors: [] }],
  ])('is refused %s', (_what, ctl, hd, asked) => {
    expect(decideOpen(ctl, hd, onOne, asked, size)).toMatchObject({ do: 'refuse', code: 'fenced' });
  });
});

describe('claim', () => {
  const request = {
    node: 'db2',
    place: 'host2:/pg',
    nonce: 'n9',
    timeline: 2,
    ancestors: [{ timeline: 1, forkLsn: 0x500_0000n }],
    id: 'c1',
    at,
  };

  test('a node promoted by hand: trigger and seal in one, open follows', () => {
    expect(decideClaim(control(), head(), onOne, request)).toMatchObject({
      do: 'claim',
      then: 'open',
      control: { epoch: 2, primary: 'db2' },
      head: { lastTimeline: 2, promotion: { state: 'sealed', mode: 'claim', reserved: 2, lsn: '0/5000000' } },
    });
  });

  test('the true one of two copies: a new nonce on the same timeline', () => {
    expect(
      decideClaim(control(), head(), onOne, { ...request, node: 'db1', timeline: 1, ancestors: [] }),
    ).toMatchObject({
      do: 'claim',
      then: 'nothing',
      control: { epoch: 2, primary: 'db1' },
      head: { timeline: 1, writer: { node: 'db1', nonce: 'n9' }, promotion: { state: 'open' } },
    });
  });

  test.each([
    ['a number that is another’s', head({ lastTimeline: 2 }), request],
    [
      'a history that is not that of the vault',
      head(),
      { ...request, ancestors: [{ timeline: 5, forkLsn: 1n }] },
    ],
    ['a pending promotion of another node', head({ promotion: promotion({ node: 'db3' }) }), request],
  ])('is refused over %s', (_what, hd, asked) => {
    expect(decideClaim(control(), hd, onOne, asked)).toMatchObject({ do: 'refuse' });
  });
});

describe('divergence', () => {
  const lineage = lineageOf(3, '1\t0/3000000\tno\n2\t0/5000000\tno\n');

  test.each([
    ['on the live timeline, anywhere', 3, 0x9000000n, undefined],
    ['on an ancestor, before its fork', 1, 0x2000000n, undefined],
    ['on an ancestor, just at its fork', 2, 0x5000000n, undefined],
    ['on an ancestor, past its fork', 1, 0x3000001n, /is past 0\/3000000, where timeline 1 was left/],
    [
      'on a timeline that the live branch does not know',
      4,
      0x3000000n,
      /timeline 4, which is not on the live branch/,
    ],
  ])('%s', (_where, timeline, lsn, why) => {
    const decided = decideDiverged(lineage, { timeline, lsn });
    if (why === undefined) expect(decided).toBeUndefined();
    else expect(decided).toMatch(why);
  });
});
