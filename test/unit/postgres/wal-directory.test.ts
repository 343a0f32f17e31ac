import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {
  isReady,
  listHistories,
  listReady,
  readWalFile,
  waitingSince,
} from '../../../core/postgres/wal-directory.ts';

const name = (number: number, timeline = 1) =>
  [timeline, 0, number].map((part) => part.toString(16).toUpperCase().padStart(8, '0')).join('');

describe('pg_wal', () => {
  let folder: string;
  const ready = (file: string, state = 'ready') =>
    writeFileSync(path.join(folder, 'archive_status', `${file}.${state}`), '');
  beforeEach(() => {
    folder = mkdtempSync(path.join(os.tmpdir(), 'wv-wal-'));
    mkdirSync(path.join(folder, 'archive_status'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  test('ready files come as PostgreSQL archives them: histories first, then by name', async () => {
    for (const file of [
      name(3),
      '00000002.history',
      name(1),
      `${name(1)}.00000028.backup`,
      name(1, 2),
      '00000003.history',
    ])
      ready(file);
    ready(name(2), 'done');
    expect(await listReady(folder)).toEqual([
      '00000002.history',
      '00000003.history',
      name(1),
      `${name(1)}.00000028.backup`,
      name(3),
      name(1, 2),
    ]);
    expect(await isReady(folder, name(3))).toBe(true);
    expect(await isReady(folder, name(2))).toBe(false);
  });

  test('how long WAL waits is since the mark of the file that goes next was made', async () => {
    expect(await waitingSince(folder)).toBeUndefined();
    const marked = (file: string, at: string, state = 'ready') => {
      ready(file, state);
      const time = new Date(at);
      utimesSync(path.join(folder, 'archive_status', `${file}.${state}`), time, time);
    };
    marked(name(1), '2026-01-01T00:00:00.000Z', 'done');
    expect(await waitingSince(folder)).toBeUndefined();
    marked(name(3), '2026-01-03T00:00:00.000Z');
    marked(name(2), '2026-01-02T00:00:00.000Z');
    expect((await waitingSince(folder))?.toISOString()).toBe('2026-01-02T00:00:00.000Z');
    await expect(waitingSince(path.join(folder, 'nowhere'))).rejects.toMatchObject({ code: 'pgdata' });
  });

  test('of 20,000 files the first come in order, in one pass', async () => {
    for (let number = 20_000; number > 0; number -= 1)
      ready(name(number), number % 2 === 0 ? 'ready' : 'done');
    const started = performance.now();
    const found = await listReady(folder, 50);
    expect(performance.now() - started).toBeLessThan(2000);
    expect(found).toEqual(Array.from({ length: 50 }, (_, index) => name(2 * (index + 1))));
  }, 60_000); // making so many files takes its time on a busy machine

  test('a file that is not there is said, a directory that is not there is an error', async () => {
    writeFileSync(path.join(folder, '00000002.history'), 'x');
    expect(await readWalFile(folder, name(1))).toBeUndefined();
    expect(await listHistories(folder)).toEqual(['00000002.history']);
    await expect(listReady(path.join(folder, 'none'))).rejects.toMatchObject({ code: 'pgdata' });
  });
});
