/** The demo, as a person starts it: it tells its story, proves its promise, and leaves nothing behind, however it ends. */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { makeScratch, processesIn, removeScratch, waitFor } from '../harness/scratch.ts';
import { openTestVault } from '../harness/vaults.ts';
import { walvaultFile } from '../harness/site.ts';
import { pairs } from '../harness/pairs.ts';

let scratch: string;
beforeEach(() => {
  scratch = makeScratch();
  mkdirSync(path.join(scratch, 'tmp'));
});
afterEach(() => removeScratch(scratch));

/** Starts the demo in a temporary directory of its own; a stray PGHOST of the person must not lead it to another server. */
function startDemo(words: string[], env: NodeJS.ProcessEnv = {}) {
  const child = spawn(walvaultFile, ['demo', ...words], {
    cwd: scratch,
    env: {
      PATH: process.env['PATH'],
      HOME: scratch,
      TMPDIR: path.join(scratch, 'tmp'),
      PGHOST: 'nowhere.invalid',
      PGPORT: '1',
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code));
  });
  return { child, said: () => said, ended };
}

function expectTold(said: string): void {
  expect(said).toMatch(/archived when db1 died {3}[\d,]+ rows, up to .*: every one is on db2/);
  expect(said).toMatch(/on db2 {19}[\d,]+ rows, none missing in between/);
  expect(said).toMatch(
    /lost {21}(nothing|the last [\d,]+ rows?: they lay in WAL that db1 had not archived yet)/,
  );
  expect(said).toMatch(/db2 goes on .* is written and archived, on timeline 2/);
  expect(said).toMatch(/walvault configure primary --pgdata \$P --node db1/);
  expect(said).toMatch(/no process is left/);
}

test('the demo shows a failover with every archived commit there, within two minutes, and leaves nothing behind', async () => {
  const demo = startDemo(['--for', '4s']);
  const begun = performance.now();
  const code = await demo.ended;
  expect({ code, said: code === 0 ? '' : demo.said() }).toEqual({ code: 0, said: '' });
  expect(performance.now() - begun).toBeLessThan(120_000);
  expectTold(demo.said());
  expect(demo.said()).toMatch(/removed: .*walvault-demo-/);
  expect(processesIn(scratch)).toEqual([]);
  expect(readdirSync(path.join(scratch, 'tmp'))).toEqual([]);
});

test('--keep keeps servers, logs and vault to look into', async () => {
  const demo = startDemo(['--for', '3s', '--keep']);
  expect(await demo.ended).toBe(0);
  const kept = /kept: (\S+)/.exec(demo.said())?.[1] ?? '';
  for (const name of ['db1/PG_VERSION', 'db2/PG_VERSION', 'db1.log', 'db2.log', 'vault'])
    expect([name, existsSync(path.join(kept, name))]).toEqual([name, true]);
  expect(processesIn(scratch)).toEqual([]);
});

test.each([
  ['while the first server is made', /1\. a PostgreSQL/, 'SIGINT'],
  ['while it is shown what flows', /3\. what flows\n.*\n/, 'SIGINT'],
  ['by SIGTERM', /3\. what flows\n/, 'SIGTERM'],
] as const)('ended %s it says so, and leaves no process and no directory', async (_when, seen, signal) => {
  const demo = startDemo([]);
  await waitFor(`the demo says ${seen}`, 60_000, () => seen.test(demo.said()));
  demo.child.kill(signal);
  expect(await demo.ended).toBe(3);
  expect(demo.said()).toMatch(/\[refused\] the demo was ended before its end/);
  expect(processesIn(scratch)).toEqual([]);
  expect(readdirSync(path.join(scratch, 'tmp'))).toEqual([]);
});

if (pairs.some(({ vault }) => vault === 's3'))
  test('--vault s3://… tells the same story there, under a cluster name of its own', async () => {
    const vault = await openTestVault('s3', scratch);
    try {
      const demo = startDemo(['--for', '3s', '--vault', vault.url, ...vault.initArgs], vault.env);
      const code = await demo.ended;
      expect({ code, said: code === 0 ? '' : demo.said() }).toEqual({ code: 0, said: '' });
      expectTold(demo.said());
      expect(demo.said()).toMatch(/what the demo stored stays in s3:.* under demo-[0-9a-f]{8}\//);
    } finally {
      await vault.close();
    }
  });
