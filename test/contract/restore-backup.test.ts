/** Two restores into one directory: the second must not write where the first has ended and a server may run. The backup is a small one. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { keys } from '../../core/cluster/facts.ts';
import {
  backupPrefix,
  bundleKey,
  BundleWriter,
  putPacked,
  type BackupIndex,
  type Bundle,
} from '../../core/work/bundles.ts';
import { asRow, type Cluster } from '../../core/work/cluster.ts';
import { readHolds } from '../../core/work/holds.ts';
import { restoreBackup, type RestoreRequest } from '../../core/work/restore-backup.ts';
import { JOURNAL } from '../../core/work/restore-target.ts';
import { newCluster, segment } from '../harness/fake-node.ts';
import { lsnText } from '../harness/promotions.ts';
import { makeScratch } from '../harness/scratch.ts';
import { memoryVault } from '../harness/two-vaults.ts';

const FILES = { PG_VERSION: '18\n', 'global/pg_control': 'control', 'base/1': 'x'.repeat(200_000) };

describe('a restore', () => {
  let folder: string;
  let cluster: Cluster;
  let target: string;

  beforeEach(async () => {
    jest.spyOn(process, 'getuid').mockReturnValue(1000); // who runs this may be root, to whom it is refused
    folder = makeScratch();
    target = path.join(folder, 'restored');
    const db1 = await newCluster(await memoryVault(), 'main');
    cluster = db1.cluster;
    for (const each of [1, 2, 3]) await db1.archive(segment(1, each));
    await putBackup();
  });
  afterEach(() => {
    jest.restoreAllMocks();
    rmSync(folder, { recursive: true, force: true });
  });

  async function putBackup(): Promise<void> {
    const facts = { node: 'db1', backup: 'a' };
    const bundles: Bundle[] = [];
    const writer = new BundleWriter({
      ...{ bundleSizeBytes: 16 * 1024, parallel: 1 },
      async store({ number, bytes, files }) {
        const put = await putPacked(cluster, bundleKey(cluster, 'a', number), bytes, 1, facts);
        bundles.push({ ...put, files });
      },
    });
    for (const [file, content] of Object.entries(FILES)) {
      await writer.begin(file, 0o600, content.length);
      await writer.content(Buffer.from(content));
    }
    await writer.finish();
    const listed = Object.entries(FILES).map(([Path, content]) => ({
      ...{ Path, Size: content.length, 'Checksum-Algorithm': 'SHA256' },
      Checksum: createHash('sha256').update(content).digest('hex'),
    }));
    const text = `{"PostgreSQL-Backup-Manifest-Version": 1,\n"Files": ${JSON.stringify(listed)},\n`;
    const sum = createHash('sha256').update(text).digest('hex');
    const whole = Buffer.from(`${text}"Manifest-Checksum": "${sum}"}\n`);
    const { partition, systemIdentifier, segmentSize } = cluster;
    const manifest = await putPacked(
      cluster,
      `${backupPrefix(cluster, 'a')}backup_manifest.zst`,
      whole,
      1,
      facts,
    );
    const lsns = { timeline: 1, startLsn: lsnText(2), stopLsn: lsnText(3) };
    const startedAt = new Date().toISOString();
    const index: BackupIndex = {
      ...{ format: 1, id: 'a', cluster: 'main', systemIdentifier, segmentSize, majorVersion: 18 },
      ...{ label: '', node: 'db1', startedAt, ...lsns, tablespaces: [] },
      directories: ['.', 'global', 'base'].map((each) => ({ path: each, mode: 0o700 })),
      ...{ bundles, manifest },
    };
    const bytes = Buffer.from(JSON.stringify(index));
    const { key } = await putPacked(cluster, `${backupPrefix(cluster, 'a')}index.json.zst`, bytes, 1, facts);
    const row = {
      ...keys.backup(partition, 'a'),
      ...{
        rev: 1,
        id: 'a',
        state: 'complete',
        startSegment: segment(1, 2),
        indexKey: key,
        startedAt,
        ...lsns,
      },
    };
    await cluster.vault.manifest.transact([{ do: 'put', row: asRow(row), when: 'absent' }]);
  }

  const restore = (more: Partial<RestoreRequest> = {}) =>
    restoreBackup(cluster, { backup: 'a', node: 'db2', target, ...more });
  const expectRestored = () => {
    for (const [file, content] of Object.entries(FILES))
      expect(readFileSync(path.join(target, file), 'utf8')).toBe(content);
    expect(readdirSync(target).filter((name) => name.startsWith(JOURNAL))).toEqual([]);
  };

  test('that comes second is refused, takes nothing of the first one away, and finds it done in the end', async () => {
    let asked = 0;
    await restore({
      async prepare() {
        asked += 1;
        await expect(restore()).rejects.toMatchObject({
          ...{ code: 'busy', message: expect.stringContaining('at work') },
        });
        const held = Object.values((await readHolds(cluster))?.holds ?? {});
        expect(held).toEqual([expect.objectContaining({ kind: 'restore', node: 'db2' })]);
      },
    });
    expect(asked).toBe(1);
    expectRestored();
    await expect(restore()).rejects.toMatchObject({ code: 'refused' });
  });

  test('that was broken off goes on, whatever a full disk left of the last line of its journal', async () => {
    const broken = new Error('broken off');
    await expect(restore({ prepare: () => Promise.reject(broken) })).rejects.toBe(broken);
    const journal = path.join(target, JOURNAL);
    const [head, ...done] = readFileSync(journal, 'utf8').trim().split('\n');
    expect(done.length).toBeGreaterThan(11);
    rmSync(path.join(target, 'base/1'));
    writeFileSync(journal, `${head}\n1`); // which a 0 behind it would make bundle 10
    const over = new AbortController();
    const onProgress = ({ doneBytes }: { doneBytes: number }) => doneBytes > 0 && over.abort();
    await expect(restore({ parallel: 1, signal: over.signal, onProgress })).rejects.toMatchObject({
      ...{ code: 'refused', message: expect.stringContaining('interrupted') },
    });
    expect(readFileSync(journal, 'utf8')).toBe(`${head}\n0\n`);
    await restore();
    expectRestored();
  });
});
