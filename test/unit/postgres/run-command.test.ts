import { mkdtempSync, readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { isAlive, waitFor } from '../../harness/scratch.ts';
import { runCommandLine } from '../../../core/postgres/run-command.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'wv-run-'));
const run = (line: string, limitMs = 5000) =>
  runCommandLine(line, ['primary', 'db 1', '7'], {
    env: { WALVAULT_ROLE: 'primary' },
    limitMs,
    output: path.join(folder, 'said'),
  });

test('arguments arrive whole, and the variables too', async () => {
  expect(await run(`printf '%s|' "$@" "$WALVAULT_ROLE"`)).toEqual({
    ...{ code: 0, signal: null, timedOut: false },
    said: 'primary|db 1|7|primary|',
  });
});

test('a failure is told with its status and its words', async () => {
  expect(await run('echo out; echo err >&2; exit 3')).toMatchObject({ code: 3, said: 'out\nerr' });
  expect(await run('/no/such/program')).toMatchObject({ code: 127 });
});

test('what hangs is ended at the limit, with what it started', async () => {
  const pidFile = path.join(folder, 'pid');
  const end = await run(`sh -c 'echo $$ > ${pidFile}; exec sleep 600'; true`, 300);
  expect(end).toMatchObject({ timedOut: true });
  const pid = Number(readFileSync(pidFile, 'utf8'));
  await waitFor('its end', 2000, () => !isAlive(pid));
});

test('what is left in the background does not hold it up', async () => {
  const since = performance.now();
  expect(await run('sleep 5 & echo done')).toMatchObject({ code: 0, said: 'done' });
  expect(performance.now() - since).toBeLessThan(2000);
});
