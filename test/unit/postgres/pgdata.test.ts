import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parsePostmasterPid, readPgdata, runningServer } from '../../../core/postgres/pgdata.ts';
import {
  hasSignalFile,
  recoveryMode,
  removeSignalFile,
  writeSignalFile,
} from '../../../core/postgres/signal-files.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(realpathSync(os.tmpdir()), 'wv-pgdata-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const pidFile = (pid: number, rest = `\n/d\n1700000000\n5433\n/run/pg\nlocalhost\n 5432001 0\nready   \n`) =>
  writeFileSync(path.join(folder, 'postmaster.pid'), `${pid}${rest}`);

describe('a data directory', () => {
  test('what is none is named, with a hint', async () => {
    await expect(readPgdata(folder)).rejects.toMatchObject({
      code: 'pgdata',
      message: `${folder} is not a PostgreSQL data directory`,
    });
    await expect(readPgdata(`${folder}/none`)).rejects.toMatchObject({
      code: 'pgdata',
      message: expect.stringContaining('does not exist'),
    });
    writeFileSync(`${folder}/PG_VERSION`, '15\n');
    await expect(readPgdata(folder)).rejects.toMatchObject({ code: 'pgdata' });
    mkdirSync(`${folder}/global`);
    writeFileSync(`${folder}/global/pg_control`, Buffer.alloc(8192));
    await expect(readPgdata(folder)).rejects.toMatchObject({ code: 'pgdata' });
  });

  test('postmaster.pid says process, port, socket, address and state', () => {
    expect(
      parsePostmasterPid(`17\n/data\n1700000000\n5433\n/run/pg\n*\n  5432001         0\nstandby \n`),
    ).toEqual({
      pid: 17,
      port: 5433,
      socketDir: '/run/pg',
      host: '127.0.0.1',
      status: 'standby',
    });
    expect(parsePostmasterPid('17\n/data\n17')).toMatchObject({ pid: 17, port: 0, status: 'unknown' });
    expect(parsePostmasterPid('-17\n/data\n')).toMatchObject({ pid: 17 });
    expect(parsePostmasterPid('')).toBeUndefined();
  });

  test('a postmaster.pid whose process is gone is stale', async () => {
    const child = spawn('true');
    await once(child, 'exit');
    pidFile(child.pid!);
    expect(await runningServer(folder)).toBeUndefined();
  });

  test('a postmaster.pid whose number another program has now is stale', async () => {
    const child = spawn('sleep', ['60'], { cwd: '/' });
    try {
      pidFile(child.pid!);
      expect(await runningServer(folder)).toBeUndefined();
      pidFile(process.pid);
      expect(await runningServer(folder)).toBeUndefined();
    } finally {
      child.kill();
    }
  });

  test('a process that works in the data directory is its server', async () => {
    const child = spawn('sleep', ['60'], { cwd: folder });
    try {
      await once(child, 'spawn');
      pidFile(child.pid!);
      expect(await runningServer(folder)).toMatchObject({ pid: child.pid, port: 5433 });
    } finally {
      child.kill();
    }
  });

  test('signal files are written, found and removed; standby.signal rules over recovery.signal', async () => {
    expect(await recoveryMode(folder)).toBe('none');
    await writeSignalFile(folder, 'recovery.signal');
    expect(await recoveryMode(folder)).toBe('archive');
    await writeSignalFile(folder, 'standby.signal');
    await writeSignalFile(folder, 'standby.signal');
    expect(await recoveryMode(folder)).toBe('standby');
    await removeSignalFile(folder, 'standby.signal');
    await removeSignalFile(folder, 'standby.signal');
    expect(await hasSignalFile(folder, 'standby.signal')).toBe(false);
  });
});
