/**
 * The watchdog's process: `watchdog.cjs <state> [process|systemd]`. Started by the agent or by `walvault guard` (process), or by its unit
 * (systemd); what it does is in core/work/watchdog.ts.
 */
import { Journal, inWords } from '../core/work/journal.ts';
import { statePaths } from '../core/work/node-state.ts';
import { runWatchdog } from '../core/work/watchdog.ts';

const [stateDir = '', kind = 'systemd'] = process.argv.slice(2);

const failed = (error: unknown): never => {
  new Journal(statePaths(stateDir)).state('watchdog', `watchdog ${process.pid} ends: ${inWords(error)}`);
  process.stderr.write(`walvault: ${inWords(error)}\n`);
  process.exit(1);
};
process.on('uncaughtException', failed);
process.on('unhandledRejection', failed);
process.removeAllListeners('warning'); // SQLite's "experimental" is no news for the journal
process.on('warning', () => {});

if (kind !== 'process' && kind !== 'systemd')
  failed(new Error(`watchdog.cjs STATE process|systemd, not ${kind}`));
runWatchdog(stateDir, kind === 'process' ? 'process' : 'systemd').then(() => process.exit(0), failed);
