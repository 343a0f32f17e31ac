/**
 * `configure primary` run again: twice it gives the same, and one that was killed half way, wherever, is made whole by the next.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import path from 'node:path';
import { onePair } from '../harness/pairs.ts';
import type { TestServer } from '../harness/postgres.ts';
import { isAlive, killHard } from '../harness/scratch.ts';
import { TestSite, walvaultFile } from '../harness/site.ts';

const pair = onePair(0);

describe(`configure again on ${pair.title}`, () => {
  let site: TestSite;
  let db1: TestServer;
  const words = () => ['configure', 'primary', '--pgdata', db1.pgdata, '--node', 'db1'];
  /** All that configure writes, as text: files, links, modes, and the server's own lines. */
  const written = (): Record<string, string> => {
    const found: Record<string, string> = {};
    const state = site.state('db1');
    for (const name of ['settings.toml', 'identity.json', 'archive', 'restore', 'cleanup', 'recovered'])
      found[name] =
        `${(lstatSync(path.join(state, name)).mode & 0o777).toString(8)} ${readFileSync(path.join(state, name), 'utf8')}`;
    for (const name of ['program', 'node']) found[name] = readlinkSync(path.join(state, name));
    // sorted: ALTER SYSTEM puts a line that it writes anew at the end
    found['auto.conf'] = readFileSync(path.join(db1.pgdata, 'postgresql.auto.conf'), 'utf8')
      .split('\n')
      .sort()
      .join('\n');
    // not what an agent that a hook has started is just writing
    const isBeingWritten = (name: string) => {
      const pid = /\.(\d+)\.tmp$/.exec(name)?.[1];
      return pid !== undefined && isAlive(Number(pid));
    };
    found['left behind'] = readdirSync(state)
      .filter((name) => /tmp|~|\.new/.test(name) && !isBeingWritten(name))
      .join();
    return found;
  };
  let whole: Record<string, string>;

  beforeAll(async () => {
    site = await TestSite.open({ pair, segmentSizeMiB: 1 });
    db1 = await site.makePrimary('db1');
    await site.archiveNow();
    whole = written();
    expect(whole['left behind']).toBe('');
  });
  afterAll(() => site.close());

  test.each(['running', 'stopped'])('twice gives the same, with the server %s', async (how) => {
    if (how === 'stopped') await db1.stop('fast');
    try {
      await site.ok(...words());
      expect(written()).toEqual(whole);
    } finally {
      if (how === 'stopped') await db1.start();
    }
    await site.archiveNow();
  });

  // as a kill between any two of its steps would leave it
  test.each([
    'settings.toml',
    'identity.json',
    'archive',
    'restore',
    'cleanup',
    'recovered',
    'program',
    'node',
  ])('with %s missing it is made whole', async (name) => {
    rmSync(path.join(site.state('db1'), name));
    await site.ok(...words());
    expect(written()).toEqual(whole);
    await site.archiveNow();
  });

  test('with the parameters of the server not written it is made whole', async () => {
    await db1.query('ALTER SYSTEM RESET archive_command');
    await db1.query('ALTER SYSTEM RESET restore_command');
    await db1.reload();
    await site.ok(...words());
    expect(written()).toEqual(whole);
    await site.archiveNow();
  });

  test.each(['settings.toml', 'archive', 'recovered'])(
    'killed as soon as %s is there, it is made whole',
    async (name) => {
      await db1.allArchived(); // no hook runs, nor starts an agent, and none writes where all is removed
      await killHard(site.agentPids('db1'));
      rmSync(site.state('db1'), { recursive: true });
      const child = spawn(walvaultFile, words(), { env: site.personEnvOf('db1'), stdio: 'ignore' });
      const ended = once(child, 'exit');
      while (!existsSync(path.join(site.state('db1'), name)) && child.exitCode === null)
        await new Promise(setImmediate);
      child.kill('SIGKILL');
      await ended;
      await site.ok('init', ...words().slice(2)); // the seat of the primary was there, too
      await site.ok(...words());
      expect(written()).toEqual(whole);
    },
  );
});
