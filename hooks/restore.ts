/**
 * restore_command's bundle: `restore.cjs <state> %f %p`. Exit 0: served. 42: absent, and said so by who knows; the wrapper makes only
 * this "not there". Anything else is a failure, which in archive recovery stops PostgreSQL.
 *
 * Called from elsewhere than the configured PGDATA (pg_rewind, a copied server) it reads the vault by itself: the spool, and what
 * was served last, belong to the configured server.
 */
import fs from 'node:fs';
import path from 'node:path';
import { VaultError } from '../core/errors.ts';
import { writeServed, statePaths } from '../core/work/node-state.ts';
import { ask, enter, loadAlone, runHook } from './hook.ts';

const ABSENT = 42;
const ROUNDS = 5;

runHook(1, async () => {
  const [stateDir = '', name = '', file = ''] = process.argv.slice(2);
  const call = enter(stateDir);
  const target = path.resolve(call.calledFrom, file);
  const own = fs.existsSync(path.join(call.calledFrom, 'PG_VERSION')) && !call.foreign;
  const server = call.foreign ? call.calledFrom : call.pgdata;
  const mode = fs.existsSync(path.join(server, 'standby.signal'))
    ? ('standby' as const)
    : ('archive' as const);
  // The server that waits asks nobody else. Its signal file is gone before PostgreSQL asks for its parent's history to write its own.
  const waits = fs.existsSync(path.join(server, 'recovery.signal')) || fs.existsSync('seal');
  if (own && mode === 'archive' && fs.existsSync('wait') && waits)
    return (await (await loadAlone()).wait(call.stateDir, name, target)) ? 0 : ABSENT;
  const promotionPending = (own && fs.existsSync('seal')) || fs.existsSync(path.join(server, 'promote'));
  // The spool goes over to another directory when the epoch does: what was there when the agent answered is asked for once more.
  for (let round = 1; own; round++) {
    const answer = await ask(call, { op: 'restore', name, mode, promotionPending }).catch(
      (error: unknown) => {
        // An agent that died, or stood still together with this hook, is no answer. A standby asks again; any other server would stop here.
        const isStopped = mode === 'archive' || promotionPending;
        if (isStopped && error instanceof VaultError && error.code === 'unreachable') return undefined;
        throw error;
      },
    );
    if (answer === undefined) break;
    if ('absent' in answer) return ABSENT;
    if (answer.file === undefined) throw new Error('the agent served nothing');
    writeServed(statePaths('.'), name); // before the move: what was served must never be unknown to a seal
    try {
      if (answer.how === 'rename') move(answer.file, target);
      else fs.copyFileSync(answer.file, target);
      return 0;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || round === ROUNDS) throw error;
    }
  }
  const served = await (
    await loadAlone()
  ).restore(call.stateDir, { name, mode, promotionPending, own }, target);
  if (served && own) writeServed(statePaths('.'), name);
  return served ? 0 : ABSENT;
});

/** Spool and pg_wal may lie on two file systems. */
function move(from: string, to: string): void {
  try {
    fs.renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    fs.copyFileSync(from, to);
    fs.rmSync(from, { force: true });
  }
}
