/**
 * recovery_end_command's bundle: `recovered.cjs <state>`. PostgreSQL has taken its new timeline and takes no write yet: the last
 * gate of a promotion.
 *
 * No seal: nobody's trigger asked for this (by hand, a test): exit 0 at once. With one: the vault opens, exit 0; a newer epoch
 * names another node: standby.signal is written again and 200 stops the server before its first write; silence: after
 * `open_max_wait` it opens unconfirmed, and says so.
 */
import fs from 'node:fs';
import { ask, enter, Gate, loadAlone, runHook } from './hook.ts';

runHook(1, async () => {
  const [stateDir = ''] = process.argv.slice(2);
  const call = enter(stateDir);
  if (call.foreign || !fs.existsSync('seal')) return 0;
  try {
    const answer = await ask(call, { op: 'recovered' });
    const note = answer === undefined ? await (await loadAlone()).recovered(call.stateDir) : answer.note;
    if (note !== undefined) process.stderr.write(`walvault: ${note}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof Gate) && (error as { gate?: true }).gate !== true) throw error;
    process.stderr.write(`walvault: ${(error as Error).message}\n`);
    return 200;
  }
});
