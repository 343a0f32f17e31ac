import { decideRelay, type Side } from '../../../core/cluster/decide-relay.ts';
import type { Control, Head } from '../../../core/cluster/facts.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { control, head } from '../../harness/facts.ts';

const HISTORY = '1\t0/5000000\tno recovery target specified\n';
const A = { id: 'a'.repeat(16), url: 'file:///a' };
const B = { id: 'b'.repeat(16), url: 'file:///b' };

/** A vault on timeline 1, or on timeline 2 with this history. */
function side(
  ref: typeof A,
  changes: Partial<Control> = {},
  at: Partial<Head> & { history?: string } = {},
): Side {
  const { history, ...rest } = at;
  const timeline = history === undefined ? 1 : 2;
  return {
    url: ref.url,
    control: control({ vaultId: ref.id, ...changes }),
    head: head({ timeline, ...rest }),
    lineage: lineageOf(timeline, history),
    histories: new Map(history === undefined ? [] : [[2, history]]),
  };
}
const active = (changes: Partial<Control> = {}, at = {}) => side(A, changes, at);
const replica = (changes: Partial<Control> = {}, at = {}) =>
  side(B, { role: 'replica', source: A, ...changes }, at);

describe('what a relay may do', () => {
  test.each([
    ['a level replica: nothing but rows', active(), replica(), { do: 'relay', control: undefined }],
    [
      'facts of control go along',
      active({ epoch: 2, primary: 'db2', archiving: false, direct: B }),
      replica({ epoch: 1 }),
      {
        do: 'relay',
        control: { rev: 2, role: 'replica', epoch: 2, reign: 2, primary: 'db2', archiving: false, direct: B },
      },
    ],
    [
      'another vault is armed: this one is not',
      active({ direct: A }),
      replica({ direct: B }),
      { do: 'relay', control: { direct: null } },
    ],
    ['a replica that lags', active(), replica({}, { lsn: '0/3000000' }), { do: 'relay' }],
    ['an empty one', active(), replica({}, { lsn: null, firstLsn: null }), { do: 'relay' }],
    [
      'one timeline behind',
      active({ epoch: 2 }, { history: HISTORY, lsn: '0/7000000' }),
      replica(),
      { do: 'relay' },
    ],
    [
      'past the fork that a fast promotion left: the source gave it those rows',
      active({ epoch: 2 }, { history: HISTORY, lsn: '0/7000000' }),
      replica({}, { lsn: '0/6000000' }),
      { do: 'relay' },
    ],
    [
      'past the head of its source, in one epoch',
      active(),
      replica({}, { lsn: '0/6000000' }),
      { do: 'refuse', code: 'conflict', message: expect.stringContaining('ends at 0/6000000') },
    ],
    [
      'the same, of an older epoch: a dead branch',
      active({ epoch: 2 }),
      replica({}, { lsn: '0/6000000' }),
      { do: 'converge' },
    ],
    [
      'on a timeline that the source has not',
      active(),
      replica({}, { history: HISTORY }),
      { do: 'refuse', code: 'conflict', message: expect.stringContaining('timeline 2') },
    ],
    [
      'on a timeline of another history, of an older epoch',
      active({ epoch: 5 }, { history: HISTORY }),
      replica({}, { history: '1\t0/4000000\tother\n' }),
      { do: 'converge' },
    ],
    [
      'a replica of a newer epoch',
      active(),
      replica({ epoch: 2 }),
      { do: 'refuse', code: 'fenced', message: expect.stringContaining('epoch 2, newer than epoch 1') },
    ],
    ['one that is converging', active({ epoch: 2 }), replica({ role: 'converging' }), { do: 'converge' }],
    [
      'from one that is converging',
      active({ role: 'converging' }),
      replica(),
      { do: 'refuse', code: 'busy' },
    ],
    ['a chain', active({ role: 'replica', source: { id: 'c', url: 'c' } }), replica(), { do: 'relay' }],
    [
      'between two replicas of each other',
      active({ role: 'replica', source: B }),
      replica(),
      { do: 'refuse', code: 'refused', message: expect.stringContaining('neither of the two is active') },
    ],
    [
      'the last rows of a vault that was fenced for this replica',
      active({ role: 'replica', source: B, epoch: 2, supersededBy: { ...B, epoch: 2, at: '' } }),
      replica(),
      { do: 'relay' },
    ],
    [
      'into the vault that took its place',
      active({ role: 'replica' }),
      side(B, { epoch: 2 }),
      { do: 'turn' },
    ],
    [
      'into the vault that superseded it without its knowing',
      active(),
      side(B, { epoch: 2, supersedes: { ...A, sinceEpoch: 1, at: '' } }),
      { do: 'turn', message: expect.stringContaining('took the place of file:///a at epoch 2') },
    ],
    [
      'into the one that it superseded, whatever the epochs',
      active({ epoch: 2, supersedes: { ...B, sinceEpoch: 1, at: '' } }),
      side(B, { epoch: 9 }),
      { do: 'converge' },
    ],
    [
      'between two active vaults that know nothing of each other',
      active(),
      side(B),
      { do: 'refuse', code: 'refused', message: expect.stringContaining('both active') },
    ],
    ['into itself', active(), side(A), { do: 'refuse', code: 'usage' }],
    [
      'another database',
      active(),
      replica({ systemIdentifier: '1' }),
      { do: 'refuse', code: 'refused', message: expect.stringContaining('not the same database') },
    ],
    ['another segment size', active(), replica({ segmentSize: 1 << 20 }), { do: 'refuse', code: 'refused' }],
  ])('%s', (_, from, to, expected) => {
    expect(decideRelay(from, to)).toMatchObject(expected);
  });
});
