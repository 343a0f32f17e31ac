/** The state directory as a command meets it: found from the settings, proven to be writable before anything else is changed. */
import { mkdirSync } from 'node:fs';
import { access, constants, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { VaultError } from '../core/errors.ts';
import type { Pgdata } from '../core/postgres/pgdata.ts';
import type { Settings } from '../core/settings/read.ts';
import type { WriterStore } from '../core/work/writer.ts';
import { stateDirOf, statePaths, writerStore, type StatePaths } from '../core/work/node-state.ts';

/** Where this node says that it runs; the message that names two copies shows it. */
export function placeOf(pgdata: Pgdata): string {
  return `${os.hostname()}:${pgdata.path}`;
}

/** @throws VaultError local (it, or what it would be made in, cannot be written) */
export async function findStateDirectory(settings: Settings, pgdata: Pgdata): Promise<StatePaths> {
  const directory = settings.stateDir ?? stateDirOf(pgdata.path);
  let there = directory;
  while (
    !(await stat(there).then(
      () => true,
      (error: NodeJS.ErrnoException) => error.code !== 'ENOENT',
    ))
  )
    there = path.dirname(there);
  try {
    await access(there, constants.W_OK | constants.X_OK);
  } catch (cause) {
    throw unwritable(directory, cause);
  }
  return statePaths(directory);
}

/**
 * The writer state there; the directory is made (0700: it holds the proof of who the primary is) when something is written, so
 * that a refused command leaves none behind.
 */
export function storeIn(paths: StatePaths): WriterStore {
  const store = writerStore(paths);
  return {
    read: () => store.read(),
    write(state) {
      try {
        mkdirSync(paths.dir, { recursive: true, mode: 0o700 });
      } catch (cause) {
        throw unwritable(paths.dir, cause);
      }
      store.write(state);
    },
  };
}

function unwritable(directory: string, cause: unknown): VaultError {
  return new VaultError(
    'local',
    `the state directory ${directory} cannot be written: ${(cause as Error).message}`,
    {
      cause,
      hint: `It must belong to the user who runs the server (often postgres): make it as root with 'install -d -m 700 -o postgres ${directory}', or name another place with --state-dir.`,
    },
  );
}
