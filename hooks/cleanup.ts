/**
 * archive_cleanup_command's bundle: `cleanup.cjs <state> %r`. The wrapper does it by itself (a slow cleanup holds a fast stop);
 * this is the same for who calls it without sh. Exit 0, whatever happens: its failure is only a warning.
 */
import fs from 'node:fs';
import { parseWalName } from '../core/wal/name.ts';
import { enter, runHook } from './hook.ts';

runHook(0, async () => {
  const [stateDir = '', restartPoint = ''] = process.argv.slice(2);
  const call = enter(stateDir);
  if (call.foreign || parseWalName(restartPoint) === undefined) return 0;
  fs.writeFileSync('restartpoint.tmp', `${restartPoint}\n`, { mode: 0o600 });
  fs.renameSync('restartpoint.tmp', 'restartpoint');
  return 0;
});
