/**
 * recovery_end_command's bundle: `recovered.cjs <state>`. PostgreSQL has taken its new timeline and takes no write yet: the last
 * gate of a promotion.
 *
 * No seal: nobody's trigger asked for this (by hand, a test): exit 0 at once. With one: the vault opens, exit 0; a newer epoch
 * names another node: standby.signal is written again and 200 stops the server before its first write; silence: after
 * `open_max_wait` it opens unconfirmed, and says so.
 *
 * To PostgreSQL any other failure of this command is a warning, and it opens. So an agent that gives no answer is asked again.
 */
import fs from 'node:fs';
import { VaultError } from '../core/errors.ts';
import { ask, enter, Gate, loadAlone, runHook, type Call } from './hook.ts';

/** How often an agent is asked that gives no answer: one that died is followed by another, one that stood still together with this hook (a machine that was paused) answers. */
const ROUNDS = 3;

runHook(1, async () => {
  const [stateDir = ''] = process.argv.slice(2);
  const call = enter(stateDir);
  if (call.foreign || !fs.existsSync('seal')) return 0;
  try {
    const note = await recovered(call);
    if (note !== undefined) process.stderr.write(`walvault: ${note}\n`);
    return 0;
  } catch (error) {
    if (!(error instanceof Gate) && (error as { gate?: true }).gate !== true) throw error;
    process.stderr.write(`walvault: ${(error as Error).message}\n`);
    return 200;
  }
});

/** @returns what is to be said in the server's log @throws Gate, or what stands for it from the agent's bundle */
async function recovered(call: Call): Promise<string | undefined> {
  for (let round = 1; round <= ROUNDS; round++) {
    try {
      const answer = await ask(call, { op: 'recovered' });
      if (answer === undefined) break;
      return answer.note;
    } catch (error) {
      if (!(error instanceof VaultError && error.code === 'unreachable')) throw error;
    }
  }
  return (await loadAlone()).recovered(call.stateDir);
}
