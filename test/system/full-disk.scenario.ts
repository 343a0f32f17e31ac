/**
 * Run by full-disk.test.ts, where WALVAULT_TEST_SMALL_DISK is a file system of 40 MB.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { existsSync, openSync, closeSync, rmdirSync, rmSync, symlinkSync, writeSync } from 'node:fs';
import path from 'node:path';
import { TestSite } from '../harness/site.ts';

test('flush with a full vault', async () => {
  const disk = process.env['WALVAULT_TEST_SMALL_DISK']!;
  const site = await TestSite.open({ pair: { major: 18, vault: 'file' }, segmentSizeMiB: 1 });
  try {
    const vault = path.join(site.scratch, 'v');
    rmdirSync(vault);
    symlinkSync(disk, vault);
    const db1 = await site.makePrimary('db1');
    await site.backup();
    const db2 = await site.addStandby('db2');
    await db1.query('CREATE TABLE kept (x int)');
    await site.caughtUp('db2');

    const filler = path.join(disk, 'filler');
    fill(filler);
    await db1.query('INSERT INTO kept SELECT generate_series(1, 1000)');
    const flush = ['flush', '--pgdata', db1.pgdata, '--node', 'db1', '--yes'];
    const refused = await site.walvault(...flush, '--wait', '5s');
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toMatch(/no space left|did not arrive/);
    expect(refused.stderr).toContain('Nothing is flushed');
    expect(existsSync(path.join(db1.pgdata, 'standby.signal'))).toBe(false);

    rmSync(filler);
    if (db1.pid() === undefined) await db1.start();
    await db1.query('INSERT INTO kept VALUES (0)');
    await site.caughtUp('db2');
    expect(await db2.number('SELECT count(*) FROM kept')).toBe(1001);
    await site.ok(...flush);
    await site.trigger('smart', 'db2');
    await site.promoted('db2', 30_000);
    expect(await db2.number('SELECT count(*) FROM kept')).toBe(1001);
  } finally {
    await site.close();
  }
});

/** Writes until nothing more goes in, down to the last small piece. */
function fill(file: string): void {
  const handle = openSync(file, 'w');
  for (const piece of [1 << 20, 1 << 12, 1]) {
    try {
      for (;;) writeSync(handle, Buffer.alloc(piece));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    }
  }
  closeSync(handle);
}
