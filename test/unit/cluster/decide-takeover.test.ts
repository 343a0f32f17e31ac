import {
  decideActivate,
  decideFence,
  decideRaise,
  decideTakeOver,
} from '../../../core/cluster/decide-takeover.ts';
import { control, head, standby } from '../../harness/facts.ts';

const A = { id: 'a'.repeat(16), url: 'file:///a' };
const B = { id: 'b'.repeat(16), url: 'file:///b' };
const replica = control({ vaultId: B.id, role: 'replica', source: A });
const request = { id: 'x', mode: 'smart' as const, to: 'dr1', at: '2026-01-01T00:00:00.000Z' };
const pending = {
  ...{ id: 'p', epoch: 2, node: 'db2', mode: 'smart' as const, state: 'triggered' as const, at: '' },
};

describe('taking the place of the active vault', () => {
  test.each([
    ['a standby that follows', replica, head(), standby({ name: 'dr1' }), undefined],
    [
      'nobody of that name',
      replica,
      head(),
      undefined,
      { code: 'refused', message: expect.stringContaining('no node dr1') },
    ],
    ['one that is behind its backup', replica, head(), standby({ consistent: false }), { code: 'refused' }],
    [
      'one in trouble',
      replica,
      head(),
      standby({ trouble: 'diverged' }),
      { message: expect.stringContaining('diverged') },
    ],
    [
      'in a vault that is being made a replica',
      control({ role: 'converging' }),
      head(),
      standby(),
      { code: 'busy' },
    ],
    ['with a promotion pending', replica, head({ promotion: pending }), standby(), { code: 'refused' }],
  ])('%s', (_, facts, at, node, expected) => {
    const decision = decideTakeOver(facts, at, node, request);
    if (expected === undefined) expect(decision).toBeUndefined();
    else expect(decision).toMatchObject(expected);
  });
});

describe('the fence of the vault that answers', () => {
  const by = { ref: B, control: replica };

  test('is above both epochs, names the other and its primary, and ends the latch of a flush', () => {
    const at = head({ flush: { lsn: '0/5000000', rev: 1 }, tail: { timeline: 1, lsn: '0/5000060' } });
    const decision = decideFence(
      control({ epoch: 3, direct: B }),
      at,
      { ...by, control: { ...replica, epoch: 5 } },
      request,
    );
    expect(decision).toMatchObject({
      do: 'fence',
      control: {
        ...{ rev: 2, epoch: 6, reign: 6, role: 'replica', primary: 'dr1', direct: null, trigger: null },
        source: B,
        supersededBy: { ...B, epoch: 6 },
      },
      head: { rev: 2, epoch: 6, flush: null, promotion: null, writer: null, tail: { lsn: '0/5000060' } },
    });
  });

  test('stands already for just this takeover', () => {
    const fenced = control({
      role: 'replica',
      epoch: 6,
      source: B,
      supersededBy: { ...B, epoch: 6, at: '' },
    });
    expect(decideFence(fenced, head(), by, request)).toEqual({ do: 'fenced', epoch: 6 });
  });

  test.each([
    [
      'of a replica of a third vault',
      control({ role: 'replica', source: { id: 'c', url: 'file:///c' } }),
      head(),
      'file:///c',
    ],
    ['of a converging one', control({ role: 'converging' }), head(), 'converging'],
    ['while a promotion is pending there', control(), head({ promotion: pending }), 'db2 is pending'],
  ])('is refused: %s', (_, facts, at, says) => {
    expect(decideFence(facts, at, by, request)).toMatchObject({
      do: 'refuse',
      message: expect.stringContaining(says),
    });
  });

  test('over a pending promotion where its epoch is named', () => {
    const named = { ...request, supersede: 2 };
    expect(decideFence(control({ epoch: 2 }), head({ promotion: pending }), by, named)).toMatchObject({
      do: 'fence',
    });
  });
});

describe('the new epoch in the replica', () => {
  test('of a lost vault is one more than was known, and says since when it supersedes', () => {
    expect(decideRaise(replica, head(), request, A, undefined)).toMatchObject({
      do: 'raise',
      control: {
        role: 'replica',
        epoch: 2,
        reign: 2,
        primary: 'dr1',
        direct: null,
        supersedes: { ...A, sinceEpoch: 1 },
      },
      head: { epoch: 2 },
    });
  });

  test('of a fenced vault is that of the fence, and an earlier "unfenced" is taken back', () => {
    const raised = control({
      role: 'replica',
      epoch: 4,
      primary: 'dr1',
      supersedes: { ...A, sinceEpoch: 1, at: '' },
    });
    expect(decideRaise(raised, head(), request, undefined, 6)).toMatchObject({
      do: 'raise',
      control: { epoch: 6, supersedes: null },
    });
    expect(decideRaise({ ...raised, epoch: 6, supersedes: null }, head(), request, undefined, 6)).toEqual({
      do: 'raised',
    });
  });

  test('asked again keeps the epoch since which it supersedes', () => {
    const raised = control({
      role: 'replica',
      epoch: 4,
      primary: 'dr1',
      supersedes: { ...A, sinceEpoch: 1, at: '' },
    });
    expect(decideRaise(raised, head(), request, A, undefined)).toMatchObject({
      control: { epoch: 5, supersedes: { sinceEpoch: 1 } },
    });
  });
});

test('active is a vault with a trigger, without a source, without spills', () => {
  const raised = control({ role: 'replica', epoch: 2, primary: 'dr1', source: A });
  const next = decideActivate(raised, head({ writer: null }), request);
  expect(next.control).toMatchObject({
    role: 'active',
    source: null,
    supersededBy: null,
    direct: null,
    epoch: 2,
    trigger: { id: 'x', to: 'dr1' },
  });
  expect(next.head).toMatchObject({
    epoch: 2,
    spill: null,
    promotion: { id: 'x', node: 'dr1', state: 'triggered', epoch: 2 },
  });
});
