import { decideRole, isRoleChange, type RoleFacts } from '../../../core/cluster/decide-role.ts';
import type { Promotion } from '../../../core/cluster/facts.ts';

const promotion = (node: string, epoch: number, state: Promotion['state']): Promotion => ({
  ...{ id: 'x', at: '', mode: 'smart' },
  ...{ node, epoch, state },
});
const db1 = (facts: Partial<RoleFacts>): RoleFacts => ({
  ...{ node: 'db1', server: 'open', writerEpoch: 1, kept: undefined },
  ...facts,
});

describe('the role of a node', () => {
  test.each<
    [string, RoleFacts, { epoch: number; primary: string | null }, Promotion | null, object | undefined]
  >([
    [
      'the primary of the first epoch',
      db1({}),
      { epoch: 1, primary: 'db1' },
      null,
      { role: 'primary', epoch: 1 },
    ],
    [
      'a primary after its own promotion',
      db1({ writerEpoch: 2 }),
      { epoch: 2, primary: 'db1' },
      promotion('db1', 2, 'open'),
      { role: 'primary', epoch: 2 },
    ],
    [
      'a primary that has not taken up its epoch yet has no new role',
      db1({}),
      { epoch: 2, primary: 'db1' },
      promotion('db1', 2, 'open'),
      undefined,
    ],
    [
      'the target of a pending promotion has no new role',
      db1({}),
      { epoch: 2, primary: 'db1' },
      promotion('db1', 2, 'sealed'),
      undefined,
    ],
    [
      'an old primary is fenced once the promotion is open',
      db1({}),
      { epoch: 2, primary: 'db2' },
      promotion('db2', 2, 'open'),
      { role: 'fenced', epoch: 2 },
    ],
    [
      'an old primary is not fenced while the promotion is pending',
      db1({}),
      { epoch: 2, primary: 'db2' },
      promotion('db2', 2, 'sealed'),
      undefined,
    ],
    ['a vault without a primary fences nobody', db1({}), { epoch: 2, primary: null }, null, undefined],
    [
      'a vault that was set back fences nobody',
      db1({ writerEpoch: 5 }),
      { epoch: 4, primary: 'db2' },
      null,
      undefined,
    ],
    [
      'a standby follows',
      db1({ server: 'recovering' }),
      { epoch: 2, primary: 'db2' },
      promotion('db2', 2, 'open'),
      { role: 'standby', epoch: 2 },
    ],
    [
      'a standby stays one while another is promoted',
      db1({ server: 'recovering' }),
      { epoch: 2, primary: 'db2' },
      promotion('db2', 2, 'triggered'),
      { role: 'standby', epoch: 2 },
    ],
    [
      'a standby that is triggered has no new role',
      db1({ server: 'recovering' }),
      { epoch: 2, primary: 'db1' },
      promotion('db1', 2, 'triggered'),
      undefined,
    ],
    [
      'a primary that was started read-only after a flush is no standby',
      db1({ server: 'recovering' }),
      { epoch: 1, primary: 'db1' },
      null,
      undefined,
    ],
    [
      'a server in between has no new role',
      db1({ server: 'other' }),
      { epoch: 2, primary: 'db2' },
      null,
      undefined,
    ],
    [
      'a standby promoted by hand was never fenced',
      db1({ writerEpoch: 0 }),
      { epoch: 2, primary: 'db2' },
      null,
      undefined,
    ],
    [
      'an old primary, rejoined, promoted by hand was not fenced',
      db1({ kept: { role: 'standby', epoch: 2 } }),
      { epoch: 2, primary: 'db2' },
      null,
      undefined,
    ],
    [
      'a primary that was promoted since it was a standby can be fenced',
      db1({ writerEpoch: 3, kept: { role: 'standby', epoch: 2 } }),
      { epoch: 4, primary: 'db2' },
      null,
      { role: 'fenced', epoch: 4 },
    ],
    [
      'a fenced primary started again is still fenced',
      db1({ kept: { role: 'fenced', epoch: 2 } }),
      { epoch: 3, primary: 'db3' },
      null,
      { role: 'fenced', epoch: 3 },
    ],
  ])('%s', (_, facts, control, pending, expected) => {
    expect(decideRole(facts, { reign: control.epoch, ...control }, pending)).toEqual(expected);
  });

  test.each([
    [undefined, { role: 'standby', epoch: 1 }, true],
    [{ role: 'standby', epoch: 1 }, { role: 'standby', epoch: 2 }, false],
    [{ role: 'fenced', epoch: 2 }, { role: 'fenced', epoch: 3 }, false],
    [{ role: 'primary', epoch: 1 }, { role: 'primary', epoch: 1 }, false],
    [{ role: 'primary', epoch: 1 }, { role: 'primary', epoch: 3 }, true],
    [{ role: 'primary', epoch: 1 }, { role: 'fenced', epoch: 2 }, true],
  ] as const)('from %j to %j: on_role_change is told: %s', (kept, now, told) => {
    expect(isRoleChange(kept, now)).toBe(told);
  });
});
