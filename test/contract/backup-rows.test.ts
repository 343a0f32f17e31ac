/** The rows of a base backup on every kind of vault, where an answer is lost, or another process takes its own for dead. */
import type { BackupRow, EventRow } from '../../core/cluster/facts.ts';
import { VaultError } from '../../core/errors.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { parseLsn } from '../../core/wal/lsn.ts';
import { beginBackup, completeBackup, failBackup, sweepInterrupted } from '../../core/work/backup-rows.ts';
import type { Copied } from '../../core/work/backup-stream.ts';
import { backupPrefix } from '../../core/work/bundles.ts';
import { listRows, openCluster, type Cluster } from '../../core/work/cluster.ts';
import { dropHold, readHolds } from '../../core/work/holds.ts';
import { findBackup } from '../../core/work/restore-backup.ts';
import { newCluster, onWire, segment, type Wire } from '../harness/fake-node.ts';
import { siteOf, vaultKinds } from '../harness/open-vaults.ts';
import { lsnText } from '../harness/promotions.ts';

describe.each(vaultKinds)('rows of a backup in $name', (kind) => {
  const site = siteOf(kind);
  let vault: Vault;
  let cluster: Cluster;
  let started: BackupRow;
  let copied: Copied;
  let number = 0;

  beforeEach(async () => {
    vault = await site.connect();
    const db1 = await newCluster(vault, `backup${++number}`);
    cluster = db1.cluster;
    for (const each of [1, 2, 3]) await db1.archive(segment(1, each));
    const [lsn, stop] = [parseLsn(lsnText(2)), parseLsn(lsnText(3))];
    const redo = { timeline: 1, lsn };
    started = await beginBackup(cluster, { node: 'db1', label: '', timeline: 1, redo });
    const indexKey = `${backupPrefix(cluster, started.id)}index.json.zst`;
    for (const key of [indexKey, `${backupPrefix(cluster, started.id)}bundle-00001.zst`])
      await vault.bucket.putOnce(key, Buffer.from(key));
    const sizes = { sizeBytes: 1, storedBytes: 1, files: 1 };
    copied = { start: redo, stop: { timeline: 1, lsn: stop }, ...sizes, indexKey };
  });
  afterEach(() => vault?.close());

  const wired = (wire: Wire) => openCluster(onWire(vault, wire), cluster.name);
  const expectComplete = async () => {
    expect(await findBackup(cluster, started.id)).toMatchObject({ state: 'complete' });
    const objects: string[] = [];
    for await (const { key } of vault.bucket.list(backupPrefix(cluster, started.id))) objects.push(key);
    expect(objects).toHaveLength(2);
    expect((await readHolds(cluster))?.holds).toEqual({});
    const kinds = (await listRows<EventRow>(cluster, 'event#')).map((event) => event.kind);
    expect(kinds.filter((each) => each.startsWith('backup'))).toEqual(['backup']);
  };

  test('complete, and the answer to that is lost: it is looked up', async () => {
    let isLost = false;
    const lossy = await wired({
      async after(outcome) {
        if (isLost || !outcome.done) return;
        isLost = true;
        throw new VaultError('unreachable', 'the answer was lost');
      },
    });
    expect(await completeBackup(lossy, started, copied)).toMatchObject({ state: 'complete' });
    await expectComplete();
  });

  test('the process does not learn that it is complete, and clears away: nothing goes', async () => {
    await completeBackup(cluster, started, copied);
    await failBackup(cluster, started.id, 'db1', new Error('the vault did not answer'));
    await expectComplete();
  });

  test('taken for dead by the next one just before it is complete: nothing goes', async () => {
    await dropHold(cluster, `backup-${started.id}`); // as retention does with one that is stale
    let isPaused = false;
    const other = await wired({
      async before() {
        if (isPaused) return;
        isPaused = true;
        await completeBackup(cluster, started, copied);
      },
    });
    const tomorrow = jest.spyOn(Date, 'now').mockReturnValue(Date.now() + 86_400_000);
    try {
      await sweepInterrupted(other);
    } finally {
      tomorrow.mockRestore();
    }
    expect(isPaused).toBe(true);
    await expectComplete();
  });

  test('taken for dead before it is complete: it is told so, and leaves nothing', async () => {
    await failBackup(cluster, started.id, 'db1', new Error('interrupted'));
    await expect(completeBackup(cluster, started, copied)).rejects.toMatchObject({ code: 'refused' });
    await expect(findBackup(cluster, started.id)).rejects.toMatchObject({ code: 'refused' });
  });
});
