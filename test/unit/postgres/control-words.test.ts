import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { controlLine, controlWords, debianCluster } from '../../../core/postgres/control-words.ts';
import { makeScratch, removeScratch } from '../../harness/scratch.ts';

let pgdata: string;
beforeEach(() => (pgdata = makeScratch()));
afterEach(() => removeScratch(pgdata));

// as PostgreSQL 15 of Debian 12 wrote it
const DEBIAN = `/usr/lib/postgresql/15/bin/postgres "-D" "/var/lib/postgresql/15/main" "-c" "config_file=/etc/postgresql/15/main/postgresql.conf"\n`;

test.each([
  [DEBIAN, ['15', 'main']],
  ['', undefined],
  ['/usr/pgsql-18/bin/postgres "-D" "/var/lib/pgsql/18/data"\n', undefined],
  ['/opt/bin/postgres "-D" "/data" "-c" "config_file=/etc/pg/postgresql.conf"\n', undefined],
])('a cluster of Debian by its last start: %j', (words, cluster) => {
  expect(debianCluster(words)).toEqual(cluster);
});

test('pg_ctl, which finds the configuration in the data directory', () => {
  expect(controlWords(pgdata, 'start', '/log')).toEqual(['pg_ctl', '-D', pgdata, '-l', '/log', 'start']);
  expect(controlWords(pgdata, 'stop', '/log')).toEqual(['pg_ctl', '-D', pgdata, 'stop', '-m', 'fast']);
  expect(controlLine(pgdata, 'reload')).toBe(`pg_ctl -D '${pgdata}' reload`);
});

test('pg_ctlcluster, where Debian keeps it elsewhere', () => {
  writeFileSync(path.join(pgdata, 'postmaster.opts'), DEBIAN);
  expect(controlWords(pgdata, 'restart', '/log')).toEqual(['pg_ctlcluster', '15', 'main', 'restart']);
  expect(controlLine(pgdata, 'start')).toBe('pg_ctlcluster 15 main start');
});
