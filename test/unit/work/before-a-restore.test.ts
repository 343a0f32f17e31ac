/** What a restore, and a standby made of it, says before anything is started: too little room, parameters that it must not lower. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseControlFile } from '../../../core/wal/control-file.ts';
import type { BackupIndex } from '../../../core/work/bundles.ts';
import { statePaths } from '../../../core/work/node-state.ts';
import { planTarget } from '../../../core/work/restore-target.ts';
import { makeStandby } from '../../../core/work/standby-files.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';
import { bytesOf, CLUSTERS } from '../wal/samples.ts';

let scratch: string;
beforeEach(() => (scratch = makeScratch()));
afterEach(() => removeScratch(scratch));

/** A backup of one file. */
function backupOf(sizeBytes: number, tablespace?: string): BackupIndex {
  const file = {
    path: tablespace === undefined ? 'base/5/1259' : 'pg_tblspc/16384/PG_18/5/1259',
    mode: 0o600,
    ...{ sizeBytes, fileOffset: 0, offset: 0, length: sizeBytes },
  };
  return {
    ...{ format: 1, id: '20260101T000000Z-1', cluster: 'main', systemIdentifier: '7', majorVersion: 18 },
    ...{
      segmentSize: 1 << 20,
      label: '',
      node: 'db1',
      timeline: 1,
      startLsn: '0/2000028',
      stopLsn: '0/2000120',
    },
    startedAt: '2026-01-01T00:00:00Z',
    tablespaces: tablespace === undefined ? [] : [{ oid: '16384', location: tablespace, sizeBytes }],
    directories: [],
    bundles: [{ key: 'b', storedSha256: '', sizeBytes, storedBytes: sizeBytes, files: [file] }],
    manifest: { key: 'm', storedSha256: '', sizeBytes: 0 },
  };
}
const EXBIBYTE = 2 ** 60;

test('too little room is said before anything is written, of the disk that lacks it', async () => {
  const target = path.join(scratch, 'data');
  const place = path.join(scratch, 'elsewhere');
  await expect(planTarget(backupOf(EXBIBYTE), { target }, 'hold')).rejects.toMatchObject({
    code: 'local',
    message: expect.stringMatching(`^${target} has room for \\d+ bytes, the backup needs ${EXBIBYTE}$`),
  });
  await expect(
    planTarget(backupOf(EXBIBYTE, '/old/place'), { target, tablespaceMap: { '/old/place': place } }, 'hold'),
  ).rejects.toMatchObject({ code: 'local', message: expect.stringContaining(`${place} has room for`) });
  expect([existsSync(target), existsSync(place)]).toEqual([false, false]);
  expect((await planTarget(backupOf(8192), { target }, 'hold')).path).toBe(target);
});

describe('parameters that a standby must not lower', () => {
  const { cluster } = CLUSTERS.find(({ major }) => major === 18)!;
  const control = {
    ...parseControlFile(bytesOf(cluster.standby.control)),
    maxConnections: 300,
    maxWalSenders: 3,
  };
  const word = { archiveCommand: 'a', restoreCommand: 'r', cleanupCommand: 'c', recoveredCommand: 'e' };
  const intervals = { forceSwitchMs: 60_000, retrieveRetryMs: 1000 };
  let pgdata: { path: string; configFile: string; control: typeof control };

  beforeEach(() => {
    const at = path.join(scratch, 'data');
    mkdirSync(path.join(scratch, 'state'));
    mkdirSync(at);
    for (const name of ['postgresql.conf', 'postgresql.auto.conf', 'pg_hba.conf'])
      writeFileSync(path.join(at, name), '');
    pgdata = { path: at, configFile: path.join(at, 'postgresql.conf'), control };
  });
  const make = (set: Record<string, string>) =>
    makeStandby(pgdata, word, { ...intervals, set }, statePaths(path.join(scratch, 'state')));

  test('lowered by --set: refused, and it is no standby yet', async () => {
    await expect(make({ max_connections: '299' })).rejects.toMatchObject({
      code: 'usage',
      message: expect.stringContaining('the primary has 300'),
    });
    expect(existsSync(path.join(pgdata.path, 'standby.signal'))).toBe(false);
    expect(readFileSync(path.join(pgdata.path, 'postgresql.auto.conf'), 'utf8')).toBe('');
  });

  test('what stands in no file is raised to what pg_control says of the primary, and nothing else', async () => {
    await make({});
    const written = readFileSync(path.join(pgdata.path, 'postgresql.auto.conf'), 'utf8');
    expect(written).toMatch(/^max_connections = '?300'?$/m);
    expect(written).not.toContain('max_wal_senders');
    expect(existsSync(path.join(pgdata.path, 'standby.signal'))).toBe(true);
  });
});
