import { mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { TestServer } from '../../harness/postgres.ts';

test('a number that a dead postmaster left, and another process has by now, is no running server: nobody is stopped for it', () => {
  const pgdata = realpathSync(mkdtempSync(path.join(os.tmpdir(), 'walvault-server-')));
  try {
    const server = new TestServer({ major: 18, pgdata, sockets: pgdata, port: 5432, bin: pgdata });
    expect(server.pid()).toBeUndefined();
    writeFileSync(path.join(pgdata, 'postmaster.pid'), `${process.pid}\n${pgdata}\n`);
    expect(server.pid()).toBeUndefined();
  } finally {
    rmSync(pgdata, { recursive: true });
  }
});
