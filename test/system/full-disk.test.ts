/**
 * A vault whose disk is full. The small disk is a tmpfs that only this test's own namespace sees: the scenario (full-disk.scenario.ts) is
 * run by a second Jest within it, as the same user.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { makeScratch, removeScratch } from '../harness/scratch.ts';

const root = path.resolve(import.meta.dirname, '../..');
const [uid, gid] = [process.getuid?.() ?? 0, process.getgid?.() ?? 0];
const inner = `exec unshare -U --map-user=${uid} --map-group=${gid}`;
const canMount =
  process.platform === 'linux' &&
  spawnSync('unshare', ['-rm', 'sh', '-c', `mount -t tmpfs -o size=1m tmpfs /mnt && ${inner} true`])
    .status === 0;

(canMount ? test : test.skip)(
  'flush with a full vault: nothing is flushed or lost, and it goes on when there is room',
  async () => {
    const scratch = makeScratch('fd');
    const disk = path.join(scratch, 'disk');
    mkdirSync(disk);
    try {
      const jestFile = path.join(root, 'node_modules/jest/bin/jest.js');
      const match = '**/test/system/full-disk.scenario.ts';
      const { status, stderr } = spawnSync(
        'unshare',
        [
          ...['-rm', 'sh', '-c'],
          `mount -t tmpfs -o size=40m,mode=0777 tmpfs "$1" && shift && ${inner} "$@"`,
          ...['sh', disk, process.execPath, jestFile, '--rootDir', root, '--runInBand', '--testMatch', match],
        ],
        { cwd: root, encoding: 'utf8', env: { ...process.env, WALVAULT_TEST_SMALL_DISK: disk } },
      );
      expect(`${status}\n${status === 0 ? '' : stderr}`).toBe('0\n');
      expect(stderr).toContain('1 passed');
    } finally {
      await removeScratch(scratch);
    }
  },
);
