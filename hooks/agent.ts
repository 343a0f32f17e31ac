/**
 * The agent's process: `agent.cjs <state>`. Started by a hook that finds none, or by systemd; the loops are in core/work/agent.ts.
 *
 * Its bundle is also where hooks find the heavy part when no agent can be had: `alone`.
 */
import fs from 'node:fs';
import path from 'node:path';
import { runAgent } from '../core/work/agent.ts';
import { archiveAlone, recoveredAlone, restoreAlone } from '../core/work/alone.ts';
import { inWords, Journal } from '../core/work/journal.ts';
import { statePaths } from '../core/work/node-state.ts';
import { waitForFile } from '../core/work/wait-restore.ts';

export const alone = {
  archive: archiveAlone,
  restore: restoreAlone,
  recovered: recoveredAlone,
  wait: (stateDir: string, name: string, target: string) =>
    waitForFile(stateDir, name, target, {
      version: versionOf(),
      say: (text) => process.stderr.write(`walvault: ${text}\n`),
    }),
};
export type Alone = typeof alone;

/** True where this file was started, false where a hook loaded it. */
const isMain = /^agent\.(cjs|ts)$/.test(path.basename(process.argv[1] ?? ''));

if (isMain) {
  const stateDir = process.argv[2] ?? '';
  const failed = (error: unknown) => {
    new Journal(statePaths(stateDir)).state('agent', `agent ${process.pid} ends: ${inWords(error)}`);
    process.stderr.write(`walvault: ${inWords(error)}\n`);
    process.exit(1);
  };
  process.on('uncaughtException', failed);
  process.on('unhandledRejection', failed);
  runAgent(stateDir, versionOf()).then(() => process.exit(0), failed);
}

function versionOf(): string {
  try {
    const file = path.join(import.meta.dirname, '..', 'package.json');
    return String((JSON.parse(fs.readFileSync(file, 'utf8')) as { version?: string }).version);
  } catch {
    return 'unknown';
  }
}
