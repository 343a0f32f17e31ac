import fc from 'fast-check';
import { VaultError } from '../../../core/errors.ts';
import { parseControlFile } from '../../../core/wal/control-file.ts';
import { parseLsn } from '../../../core/wal/lsn.ts';
import { bytesOf, CLUSTERS, type Sample } from './samples.ts';

const LSNS = ['checkpointLsn', 'redoLsn', 'minRecoveryLsn', 'backupStartLsn', 'backupEndLsn'];

/** What the server said by SQL, each in the type that we give it. */
function asSaid(sample: Sample): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(sample.said).map(([member, text]) => {
      if (LSNS.includes(member)) return [member, parseLsn(text)];
      if (member === 'systemIdentifier' || member === 'walLevel') return [member, text];
      return [member, text === 'true' || text === 'false' ? text === 'true' : Number(text)];
    }),
  );
}

describe.each(CLUSTERS)('$title', ({ cluster, major }) => {
  test.each(['production', 'standby', 'forked'] as const)(
    '%s: says what the server says by SQL',
    (moment) => {
      const control = parseControlFile(bytesOf(cluster[moment].control));
      expect(control).toMatchObject({ majorVersion: major, ...asSaid(cluster[moment]) });
      expect(Object.keys(cluster[moment].said)).toHaveLength(22);
    },
  );

  test('the state is told: in production, shut down, in archive recovery', () => {
    const stateOf = (control: string) => parseControlFile(bytesOf(control)).stateText;
    expect(stateOf(cluster.production.control)).toBe('in production');
    expect(stateOf(cluster.stopped.control)).toBe('shut down');
    expect(stateOf(cluster.standby.control)).toBe('in archive recovery');
    expect(stateOf(cluster.forked.control)).toBe('in production');
    expect(parseControlFile(bytesOf(cluster.standby.control)).state).toBe(5);
  });

  test('any changed bit before the checksum, or in it, is noticed', () => {
    const right = bytesOf(cluster.production.control);
    const checked = major === 18 ? 296 : 292;
    for (let index = 0; index < checked; index += 1) {
      const changed = Buffer.from(right);
      changed[index]! ^= 1 << (index % 8);
      expect(() => parseControlFile(changed)).toThrow(VaultError);
    }
  });
});

test.each(CLUSTERS.filter(({ cluster }) => cluster.backup !== undefined))(
  '$title: a standby before the end of its backup is told by the start that stands',
  ({ cluster }) => {
    const backup = cluster.backup!;
    const control = parseControlFile(bytesOf(backup.control));
    expect(control).toMatchObject({ state: 5, backupStartLsn: parseLsn(backup.startLsn), backupEndLsn: 0n });
    expect(parseControlFile(bytesOf(cluster.standby.control)).minRecoveryLsn).toBe(parseLsn(backup.stopLsn));
  },
);

const right = () => bytesOf(CLUSTERS[0]!.cluster.production.control);

test.each([
  ['an empty file', Buffer.alloc(0), 'pg_control has only 0 bytes'],
  ['a cut file', right().subarray(0, 200), 'pg_control has only 200 bytes'],
  ['zeros', Buffer.alloc(8192), 'pg_control has version 0, catalog 0, which is not known'],
  [
    'half of a new one',
    Buffer.concat([right().subarray(0, 40), Buffer.alloc(8, 7), right().subarray(48)]),
    'the checksum of pg_control does not fit its content',
  ],
])('%s: refused with a hint where there is one', (_, bytes, message) => {
  expect(() => parseControlFile(bytes)).toThrow(
    expect.objectContaining({ code: 'pgdata', message }) as VaultError,
  );
});

test('a version that is not 15 to 18 is refused before anything else is believed', () => {
  const older = right();
  older.writeUInt32LE(1201, 8);
  expect(() => parseControlFile(older)).toThrow('pg_control has version 1201, catalog 202209061');
});

test('whatever the bytes: a VaultError, never a wild value', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
      expect(() => parseControlFile(bytes)).toThrow(VaultError);
    }),
  );
});
