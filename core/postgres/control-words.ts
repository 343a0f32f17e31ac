/**
 * How a person starts or stops the server on a data directory, for hints and next steps: pg_ctl, or pg_ctlcluster where Debian's packages keep
 * the configuration, since pg_ctl finds none in the data directory there. https://manpages.debian.org/pg_ctlcluster
 */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { configFileIn } from './pgdata.ts';

export type ControlAction = 'start' | 'stop' | 'restart' | 'reload';

/**
 * @param pgdata  as the person gave it
 * @param log     where a server that pg_ctl starts writes before its own log is open; Debian's clusters have one of their own
 */
export function controlWords(pgdata: string, action: ControlAction, log?: string): string[] {
  const cluster = debianCluster(lastStart(pgdata));
  if (cluster !== undefined) return ['pg_ctlcluster', ...cluster, action];
  const logged = log === undefined || action === 'stop' || action === 'reload' ? [] : ['-l', log];
  return ['pg_ctl', '-D', pgdata, ...logged, action, ...(action === 'stop' ? ['-m', 'fast'] : [])];
}

/** The same as a line of a hint. */
export const controlLine = (pgdata: string, action: ControlAction): string =>
  controlWords(pgdata, action)
    .map((word) => (word === pgdata ? `'${pgdata}'` : word))
    .join(' ');

/**
 * Version and name of the cluster, by the command line of the server's last start.
 *
 * @param words  of postmaster.opts; '' where the server was never started
 */
export function debianCluster(words: string): [string, string] | undefined {
  const [, version, name] =
    /^\/etc\/postgresql\/([^/]+)\/([^/]+)\/postgresql\.conf$/.exec(configFileIn(words) ?? '') ?? [];
  return version === undefined || name === undefined ? undefined : [version, name];
}

function lastStart(pgdata: string): string {
  try {
    return readFileSync(path.join(pgdata, 'postmaster.opts'), 'utf8');
  } catch {
    return '';
  }
}
