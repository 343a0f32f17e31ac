import { decideUpgrade, isOlderGeneration, type NewDatabase } from '../../../core/cluster/decide-upgrade.ts';
import { control, head, MiB } from '../../harness/facts.ts';

const OLD = control().systemIdentifier;
const NEW = '7300000000000000002';
const B = { id: 'b'.repeat(16), url: 'file:///b' };
const upgraded = control({ systemIdentifier: NEW, generations: [OLD], epoch: 5 });
const database = (more: Partial<NewDatabase> = {}): NewDatabase => ({
  ...{ systemIdentifier: NEW, segmentSize: 16 * MiB, majorVersion: 18, node: 'db1' },
  ...more,
});
const pending = {
  ...{ id: 'p', epoch: 2, node: 'db2', mode: 'smart' as const, state: 'sealed' as const, at: '' },
};

test('a new database takes the place of the old one, in the next epoch, and nothing of the old one is forgotten', () => {
  const trigger = { id: 't', epoch: 4, mode: 'smart' as const, to: 'db1', at: '' };
  const before = control({
    majorVersion: 16,
    epoch: 4,
    reign: 2,
    primary: 'db7',
    archiving: false,
    trigger,
    generations: ['1'],
  });
  const decision = decideUpgrade(before, head(), database({ segmentSize: 64 * MiB }));
  expect(decision).toEqual({
    do: 'renew',
    control: {
      ...before,
      ...{ rev: 2, systemIdentifier: NEW, segmentSize: 64 * MiB, majorVersion: 18, generations: ['1', OLD] },
      ...{ epoch: 5, reign: 5, primary: 'db1', archiving: true, trigger: null },
    },
  });
});

test.each([
  ['run again', upgraded, head(), database(), { do: 'there' }],
  [
    'run again by another node',
    upgraded,
    head(),
    database({ node: 'db2' }),
    { message: expect.stringContaining('db1 is its primary') },
  ],
  [
    'the old data directory',
    control(),
    head(),
    database({ systemIdentifier: OLD }),
    { message: expect.stringContaining('nothing was upgraded') },
  ],
  [
    'the old data directory afterwards',
    upgraded,
    head(),
    database({ systemIdentifier: OLD }),
    { message: expect.stringContaining('was before an upgrade') },
  ],
  [
    'an older major',
    control(),
    head(),
    database({ majorVersion: 17 }),
    { message: expect.stringContaining('PostgreSQL 17') },
  ],
  [
    'in a replica',
    control({ role: 'replica', source: B }),
    head(),
    database(),
    { message: expect.stringContaining('is a replica') },
  ],
  [
    'with spilling armed',
    control({ direct: B }),
    head(),
    database(),
    { hint: expect.stringContaining('--dr-vault none') },
  ],
  [
    'with a promotion under way',
    control(),
    head({ promotion: pending }),
    database(),
    { message: expect.stringContaining('db2') },
  ],
  ['after one', control(), head({ promotion: { ...pending, state: 'open' } }), database(), { do: 'renew' }],
  [
    'flushed, as it should be',
    control(),
    head({ flush: { lsn: '0/5', rev: 1 } }),
    database(),
    { do: 'renew' },
  ],
])('%s', (_, before, at, request, expected) => {
  expect(decideUpgrade(before, at, request)).toMatchObject(expected);
});

test.each([
  [
    'a replica of what the source was',
    control({ vaultId: 'r', role: 'replica', source: { id: 'a000000000000000', url: '' } }),
    true,
  ],
  ['of another source', control({ vaultId: 'r', role: 'replica', source: B }), false],
  ['an active vault', control({ vaultId: 'r' }), false],
  [
    'a stranger',
    control({
      vaultId: 'r',
      role: 'replica',
      source: { id: 'a000000000000000', url: '' },
      systemIdentifier: '9',
    }),
    false,
  ],
])('%s: an older generation is %s', (_, target, expected) => {
  expect(isOlderGeneration(upgraded, target)).toBe(expected);
});
