import { decideArchive, decideWriter, type Writer } from '../../../core/cluster/decide-archive.ts';
import { lineageOf } from '../../../core/wal/lineage.ts';
import { control, head, MiB } from '../../harness/facts.ts';

const writer = (changes: Partial<Writer> = {}): Writer => ({
  node: 'db1',
  epoch: 1,
  nonces: ['n1'],
  place: 'host1:/pg',
  ...changes,
});
const size = 16 * MiB;
const onOne = lineageOf(1, undefined);
const onTwo = lineageOf(2, '1\t0/5000000\tx\n');
const onTwoMid = lineageOf(2, '1\t0/4800000\tx\n');
const two = (changes = {}) => head({ timeline: 2, lastTimeline: 2, ...changes });

describe('who may write', () => {
  test.each([
    ['the primary of this epoch', control(), head(), writer(), undefined],
    ['the primary before anything was written', control(), head({ writer: null }), writer(), undefined],
    [
      'the primary whose last answer was lost',
      control(),
      head({ writer: { node: 'db1', nonce: 'n2', place: 'p' } }),
      writer({ nonces: ['n1', 'n2'] }),
      undefined,
    ],
    ['a node that is not the primary', control({ primary: 'db2' }), head(), writer(), 'fenced'],
    ['the primary of an older epoch', control({ epoch: 2, primary: 'db2' }), head(), writer(), 'fenced'],
    ['a rolled-back machine that is named again', control({ epoch: 3 }), head(), writer(), 'fenced'],
    ['a node newer than the vault', control({ epoch: 1 }), head(), writer({ epoch: 2 }), 'refused'],
    [
      'a copy that comes second',
      control(),
      head({ writer: { node: 'db1', nonce: 'other', place: 'host9:/pg' } }),
      writer(),
      'copied',
    ],
    ['nobody, after a rebuild', control({ primary: null }), head(), writer(), 'fenced'],
    ['a flushed primary', control(), head({ flush: { lsn: '0/5000000', rev: 1 } }), writer(), 'refused'],
  ])('%s', (_what, ctl, hd, who, code) => {
    expect(decideWriter(ctl, hd, who)?.code).toBe(code);
  });

  test('names both copies and the way out', () => {
    const refusal = decideWriter(
      control(),
      head({ writer: { node: 'db1', nonce: 'x', place: 'host9:/copy' } }),
      writer(),
    );
    expect(refusal?.message).toContain('host1:/pg');
    expect(refusal?.message).toContain('host9:/copy');
    expect(refusal?.hint).toContain('walvault claim');
  });
});

describe('what becomes of a file', () => {
  const decide = (name: string, given: Partial<Parameters<typeof decideArchive>[0]> = {}, who = writer()) =>
    decideArchive(
      { control: control(), head: head(), lineage: onOne, held: undefined, ...given },
      who,
      { name, sha256: 'aa' },
      size,
    );

  test.each([
    [
      'the next segment moves head',
      '000000010000000000000005',
      {},
      {
        do: 'commit',
        moves: { lsn: '0/6000000', firstLsn: '0/1000000', lastFile: '000000010000000000000005' },
      },
    ],
    [
      'the first of all starts the chain',
      '000000010000000000000007',
      { head: head({ lsn: null, firstLsn: null, lastFile: null }) },
      {
        do: 'commit',
        moves: { lsn: '0/8000000', firstLsn: '0/7000000', lastFile: '000000010000000000000007' },
      },
    ],
    ['the same content again', '000000010000000000000004', { held: 'aa' }, { do: 'same' }],
    [
      'the same content again, by a fenced node',
      '000000010000000000000004',
      { held: 'aa', control: control({ primary: 'db2', epoch: 2 }) },
      { do: 'same' },
    ],
    ['a backup file beside the chain', '000000010000000000000002.00000028.backup', {}, { do: 'commit' }],
    [
      'a partial segment of the timeline left behind',
      '000000010000000000000004.partial',
      { head: two(), lineage: onTwoMid },
      { do: 'commit' },
    ],
    [
      'the first of the new timeline, where the fork is at a border',
      '000000020000000000000005',
      { head: two(), lineage: onTwo },
      {
        do: 'commit',
        moves: { lsn: '0/6000000', firstLsn: '0/1000000', lastFile: '000000020000000000000005' },
      },
    ],
    [
      'the first of the new timeline, where the fork is within',
      '000000020000000000000004',
      { head: two({ lsn: '0/4800000' }), lineage: onTwoMid },
      {
        do: 'commit',
        moves: { lsn: '0/5000000', firstLsn: '0/1000000', lastFile: '000000020000000000000004' },
      },
    ],
    [
      'a segment before the fork that the vault lacks',
      '000000010000000000000003',
      { head: two(), lineage: onTwo },
      { do: 'commit' },
    ],
    [
      'a history of the live branch that the vault lacks',
      '00000002.history',
      { head: two(), lineage: onTwo },
      { do: 'commit' },
    ],
  ])('%s', (_what, name, given, expected) => {
    expect(decide(name, given)).toEqual(expected);
  });

  test.each([
    ['ends before its timeline begins', '000000020000000000000003', { head: two(), lineage: onTwo }],
    ['reaches past the fork of its timeline', '000000010000000000000005', { head: two(), lineage: onTwo }],
    [
      'holds the fork, under the old number',
      '000000010000000000000004',
      { head: two({ lsn: '0/4800000' }), lineage: onTwoMid },
    ],
    ['ends before the vault begins', '000000010000000000000000', {}],
  ])('is not stored and not missed: %s', (_what, name, given) => {
    expect(decide(name, given)).toMatchObject({ do: 'ignore' });
  });

  test.each([
    ['other bytes under the name', '000000010000000000000004', { held: 'bb' }, 'conflict'],
    ['a hole', '000000010000000000000006', {}, 'hole'],
    ['a timeline that was not opened here', '000000020000000000000005', {}, 'fenced'],
    ['a history that was not opened here', '00000002.history', {}, 'fenced'],
    [
      'a dead branch',
      '000000020000000000000005',
      { head: head({ timeline: 3, lastTimeline: 3 }), lineage: lineageOf(3, '1\t0/5000000\tx\n') },
      'conflict',
    ],
    ['a name that is none', 'nonsense', {}, 'corrupt'],
  ])('is refused: %s', (_what, name, given, code) => {
    expect(decide(name, given)).toMatchObject({ do: 'refuse', code });
  });
});
