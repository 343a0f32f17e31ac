/**
 * archive_command's bundle: `archive.cjs <state> %p %f`. Exit 0 when the file is durable in bucket and manifest,
 * or ignored and declared lost since archiving is off; else 1.
 *
 * It waits for the durable answer: a failed archive_command can cost PostgreSQL's archiver a pause of 60 s.
 */
import path from 'node:path';
import { ask, checkCaller, enter, loadAlone, runHook } from './hook.ts';

runHook(1, async () => {
  const [stateDir = '', file = '', name = ''] = process.argv.slice(2);
  const call = enter(stateDir);
  checkCaller(call);
  const absolute = path.resolve(call.calledFrom, file);
  const answer = await ask(call, { op: 'archive', name, path: absolute });
  const note =
    answer === undefined ? await (await loadAlone()).archive(call.stateDir, name, absolute) : answer.note;
  // the server's log: archiving is off, and this file was ignored
  if (note !== undefined) process.stderr.write(`walvault: ${note}\n`);
  return 0;
});
