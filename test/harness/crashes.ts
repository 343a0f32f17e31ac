/**
 * Processes that are to die at a crash point, and the record of where they did.
 *
 * With WALVAULT_TEST_CRASHES (a directory) each death leaves its name in a file there, `file` or `s3` by the kind of the vaults that the
 * process worked on; test/crashes then holds the whole list against what a run of the suites has left.
 */
import { spawn } from 'node:child_process';
import path from 'node:path';
import type { CrashPoint } from '../../core/work/crash-points.ts';
import type { Cluster } from '../../core/work/cluster.ts';
import type { CrashJob } from './crash-process.ts';

export const crashKinds = ['file', 's3'] as const;
export type CrashKind = (typeof crashKinds)[number];

/** Where deaths on vaults of this kind are written down; undefined: nobody asked. */
export function crashRecordOf(kind: CrashKind): string | undefined {
  const folder = process.env['WALVAULT_TEST_CRASHES'];
  return folder === undefined ? undefined : path.join(folder, kind);
}

/** For the environment of whatever a test may kill at a point. */
export function recordingCrashes(kind: CrashKind): NodeJS.ProcessEnv {
  const record = crashRecordOf(kind);
  return record === undefined ? {} : { WALVAULT_CRASH_RECORD: record };
}

/** Of a vault that outlives its process; undefined: `memory:` */
export function crashKindOf(url: string): CrashKind | undefined {
  return crashKinds.find((kind) => url.startsWith(`${kind}:`));
}

/**
 * One job in a process of its own that dies at `point`.
 *
 * @param clusters  one cluster, in each vault that the job works on
 * @throws where it ended in any other way
 */
export async function dieAt(point: CrashPoint, job: CrashJob, ...clusters: Cluster[]): Promise<void> {
  const urls = clusters.map(({ vault }) => vault.url);
  const kind = crashKindOf(urls[0]!);
  if (kind === undefined) throw new Error(`${urls[0]} does not outlive a process`);
  const file = path.join(import.meta.dirname, 'crash-process.ts');
  const child = spawn(process.execPath, [file, job, clusters[0]!.name, ...urls], {
    env: { ...process.env, ...recordingCrashes(kind), WALVAULT_CRASH_AT: point },
    stdio: ['ignore', 'inherit', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (text) => (stderr += text));
  const end = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve(signal ?? status));
  });
  if (end !== 'SIGKILL') throw new Error(`${job} came past ${point} and ended with ${end}: ${stderr}`);
}
