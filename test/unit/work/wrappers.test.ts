/** The sh wrappers, run by the sh of this machine: what each exit code of the bundle becomes, and what needs no bundle. */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { commandsOf, installState, isCombined } from '../../../core/work/wrappers.ts';

let root: string;
let pgdata: string;
let state: string;

const A = '00000001000000000000000A';

/** A state directory whose "Node" is a script that writes down how it was called and ends with `code`. */
async function install(code: number, piece = '') {
  root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'walvault-wrappers-')));
  pgdata = path.join(root, `data${piece}`);
  state = `${pgdata}.walvault`;
  fs.mkdirSync(path.join(pgdata, 'pg_wal'), { recursive: true });
  fs.writeFileSync(path.join(pgdata, 'PG_VERSION'), '18\n');
  const node = path.join(root, 'node');
  fs.writeFileSync(node, `#!/bin/sh\necho "$*" >> '${root}/calls'\nexit ${code}\n`, { mode: 0o755 });
  const commands = await installState({
    pgdata,
    stateDir: state,
    settings: { node: 'db1' },
    programRoot: root,
    nodeBinary: node,
  });
  const spool = path.join(state, 'spool/x-1');
  fs.mkdirSync(spool);
  fs.symlinkSync('spool/x-1', path.join(state, 'now'));
  return { commands, spool };
}

afterEach(() => fs.rmSync(root, { recursive: true, force: true }));

const call = (name: string, args: string[], cwd = pgdata) =>
  spawnSync(path.join(state, name), args, { cwd, encoding: 'utf8' }).status;
const calls = () =>
  fs.existsSync(`${root}/calls`) ? fs.readFileSync(`${root}/calls`, 'utf8').trim().split('\n').length : 0;
const signal = (name: string, dir = pgdata) => fs.writeFileSync(path.join(dir, name), '');

test('what a killed run had half written goes with the next one; what a living process writes stays', async () => {
  await install(0);
  const { pid: dead } = spawnSync('true');
  const [left, living] = [
    [`identity.json.${dead}.tmp`, `settings.toml.${dead}.new`],
    [`writer.json.${process.pid}.tmp`, 'restartpoint.tmp'],
  ];
  for (const name of [...left, ...living]) signal(name, state);
  const options = { pgdata, stateDir: state, settings: { node: 'db1' } };
  await installState({ ...options, programRoot: root, nodeBinary: path.join(root, 'node') });
  for (const name of left) expect([name, fs.existsSync(path.join(state, name))]).toEqual([name, false]);
  for (const name of living) expect([name, fs.existsSync(path.join(state, name))]).toEqual([name, true]);
});

describe('archive', () => {
  const segment = () => path.join(pgdata, 'pg_wal', A);

  test('a marker newer than the segment answers without Node; an older one asks', async () => {
    const { spool } = await install(0);
    fs.writeFileSync(segment(), 'x');
    fs.writeFileSync(path.join(spool, `${A}.ok`), '');
    fs.utimesSync(segment(), 1000, 1000);
    expect(call('archive', [`pg_wal/${A}`, A])).toBe(0);
    expect(calls()).toBe(0);
    fs.utimesSync(path.join(spool, `${A}.ok`), 900, 900);
    expect(call('archive', [`pg_wal/${A}`, A])).toBe(0);
    expect(calls()).toBe(1);
  });

  test('a marker does not answer for a copied server', async () => {
    const { spool } = await install(1);
    const copy = path.join(root, 'copy');
    fs.cpSync(pgdata, copy, { recursive: true });
    fs.writeFileSync(path.join(copy, 'pg_wal', A), 'x');
    fs.utimesSync(path.join(copy, 'pg_wal', A), 1000, 1000);
    fs.writeFileSync(path.join(spool, `${A}.ok`), '');
    expect(call('archive', [`pg_wal/${A}`, A], copy)).toBe(1);
    expect(calls()).toBe(1);
  });

  test.each([0, 1, 2, 42, 126, 200, 255])('exit %i of the bundle becomes 0 or 1', async (code) => {
    await install(code);
    expect(call('archive', [`pg_wal/${A}`, A])).toBe(code === 0 ? 0 : 1);
  });

  test('a Node that is missing is 1, and so is a name that is no WAL file', async () => {
    await install(0);
    expect(call('archive', ['pg_wal/x', '../../etc/passwd'])).toBe(1);
    fs.rmSync(path.join(state, 'node'));
    expect(call('archive', [`pg_wal/${A}`, A])).toBe(1);
  });
});

describe('restore', () => {
  test('a spooled segment is moved into place without Node, and written down as served', async () => {
    const { spool } = await install(1);
    fs.writeFileSync(path.join(spool, A), 'bytes');
    signal('standby.signal');
    expect(call('restore', [A, 'pg_wal/RECOVERYXLOG'])).toBe(0);
    expect(fs.readFileSync(path.join(pgdata, 'pg_wal/RECOVERYXLOG'), 'utf8')).toBe('bytes');
    expect(fs.existsSync(path.join(spool, A))).toBe(false);
    expect(fs.readFileSync(path.join(state, 'served'), 'utf8')).toBe(`${A}\n`);
    expect(calls()).toBe(0);
  });

  test('a word is counted down to nothing, then Node is asked', async () => {
    await install(42);
    signal('standby.signal');
    fs.writeFileSync(path.join(state, 'word', A), '3\n');
    expect([1, 2, 3, 4].map(() => call('restore', [A, 'pg_wal/X']))).toEqual([1, 1, 1, 1]);
    expect(calls()).toBe(1);
  });

  test.each(['seal', 'promote', 'archive recovery'])(
    'with %s no word and no spooled file is taken',
    async (what) => {
      const { spool } = await install(7);
      if (what !== 'archive recovery') signal('standby.signal');
      if (what === 'seal') signal('seal', state);
      if (what === 'promote') signal('promote');
      fs.writeFileSync(path.join(state, 'word', A), '3\n');
      if (what !== 'archive recovery') fs.writeFileSync(path.join(spool, A), 'bytes');
      expect(call('restore', [A, 'pg_wal/X'])).toBe(200);
      expect(calls()).toBe(1);
    },
  );

  test('in wait mode nothing comes from the spool; a node that starts by standby.signal all the same is a standby', async () => {
    const { spool } = await install(42);
    signal('wait', state);
    signal('recovery.signal');
    for (const name of [A, '00000002.history']) fs.writeFileSync(path.join(spool, name), 'bytes');
    expect(call('restore', [A, 'pg_wal/X'])).toBe(1);
    expect(call('restore', ['00000002.history', 'pg_wal/X'])).toBe(1);
    expect(calls()).toBe(2);
    signal('standby.signal');
    expect(call('restore', [A, 'pg_wal/X'])).toBe(0);
    expect(calls()).toBe(2);
  });

  const codes = [0, 1, 2, 42, 75, 125, 126, 127, 200];
  test.each(codes)('exit %i of the bundle on a standby never stops it', async (code) => {
    await install(code);
    signal('standby.signal');
    expect(call('restore', [A, 'pg_wal/X'])).toBe(code === 0 ? 0 : 1);
  });
  test.each(codes)(
    'exit %i of the bundle in archive recovery is "not there" only when it was said',
    async (code) => {
      await install(code);
      signal('recovery.signal');
      expect(call('restore', [A, 'pg_wal/X'])).toBe(code === 0 ? 0 : code === 42 ? 1 : 200);
    },
  );
  test.each(codes)('exit %i of the bundle with a seal is "not there" only when it was said', async (code) => {
    await install(code);
    signal('standby.signal');
    signal('seal', state);
    expect(call('restore', [A, 'pg_wal/X'])).toBe(code === 0 ? 0 : code === 42 ? 1 : 200);
  });

  test.each([
    [0, 0],
    [42, 1],
    [1, 200],
  ])('what failed before a seal that is there now is asked again: then %i is %i', async (then, answer) => {
    await install(then);
    signal('standby.signal');
    const node = path.join(state, 'node');
    const real = fs.realpathSync(node);
    const sealing = `if [ -e '${state}/seal' ]; then exec '${real}' "$@"; fi\n: > '${state}/seal'; exit 77`;
    fs.rmSync(node);
    fs.writeFileSync(node, `#!/bin/sh\n${sealing}\n`, { mode: 0o755 });
    expect(call('restore', [A, 'pg_wal/X'])).toBe(answer);
    expect(calls()).toBe(1);
  });

  test('a Node that is missing stops archive recovery and leaves a standby up', async () => {
    await install(0);
    fs.rmSync(path.join(state, 'node'));
    expect(call('restore', [A, 'pg_wal/X'])).toBe(200);
    signal('standby.signal');
    expect(call('restore', [A, 'pg_wal/X'])).toBe(1);
  });

  test('called from elsewhere (pg_rewind, a copy) it leaves spool and words alone', async () => {
    const { spool } = await install(0);
    signal('standby.signal');
    fs.writeFileSync(path.join(spool, A), 'bytes');
    expect(call('restore', [A, path.join(root, 'X')], root)).toBe(0);
    expect(fs.existsSync(path.join(spool, A))).toBe(true);
    expect(calls()).toBe(1);
  });

  test('a copy in archive recovery is judged by its own signal files', async () => {
    await install(1);
    signal('standby.signal');
    const copy = path.join(root, 'copy');
    fs.cpSync(pgdata, copy, { recursive: true });
    fs.rmSync(path.join(copy, 'standby.signal'));
    expect(call('restore', [A, 'pg_wal/X'], copy)).toBe(200);
  });
});

describe('cleanup and recovered', () => {
  test('cleanup keeps the restart point, never zeros, and always ends with 0', async () => {
    await install(1);
    expect(call('cleanup', [A])).toBe(0);
    expect(call('cleanup', ['000000000000000000000000'])).toBe(0);
    expect(call('cleanup', ['nonsense'])).toBe(0);
    expect(fs.readFileSync(path.join(state, 'restartpoint'), 'utf8')).toBe(`${A}\n`);
    expect(calls()).toBe(0);
  });

  test('recovered without a seal is 0 at once', async () => {
    await install(1);
    expect(call('recovered', [])).toBe(0);
    expect(calls()).toBe(0);
  });

  test.each([0, 1, 42, 126, 200, 255])(
    'exit %i of the bundle with a seal: only the gate says 200',
    async (code) => {
      await install(code);
      signal('seal', state);
      expect(call('recovered', [])).toBe(code === 0 || code === 200 ? code : 1);
    },
  );
});

describe('recovered with a lease', () => {
  test.each([1, 126, 127, 137, 255])(
    'a bundle that ends with %i closes the gate: PostgreSQL would open with no word of the vault',
    async (code) => {
      await install(code);
      fs.appendFileSync(path.join(state, 'settings.toml'), 'lease = "30s"\n');
      signal('seal', state);
      expect(call('recovered', [])).toBe(200);
      expect(fs.existsSync(path.join(pgdata, 'standby.signal'))).toBe(true);
    },
  );

  test('its own signal file is that of wait mode there, and a lease of 0 is none', async () => {
    await install(1);
    signal('seal', state);
    fs.appendFileSync(path.join(state, 'settings.toml'), 'lease = "0"\n');
    expect(call('recovered', [])).toBe(1);
    fs.appendFileSync(path.join(state, 'settings.toml'), 'lease = "1m"\n');
    signal('wait', state);
    expect(call('recovered', [])).toBe(200);
    expect(fs.existsSync(path.join(pgdata, 'recovery.signal'))).toBe(true);
    expect(fs.existsSync(path.join(pgdata, 'standby.signal'))).toBe(false);
  });
});

describe('paths', () => {
  test.each([` with spaces`, `it's "quoted"`, `$(touch x) \`y\``])(
    'a data directory named %s works',
    async (piece) => {
      const { spool } = await install(0, piece);
      signal('standby.signal');
      fs.writeFileSync(path.join(spool, A), 'bytes');
      expect(call('restore', [A, 'pg_wal/X'])).toBe(0);
      expect(calls()).toBe(0);
      const { restoreCommand } = commandsOf(state);
      fs.writeFileSync(path.join(spool, A), 'more');
      execFileSync('/bin/sh', ['-c', restoreCommand.replace('%f', A).replace('%p', 'pg_wal/Y')], {
        cwd: pgdata,
      });
      expect(fs.readFileSync(path.join(pgdata, 'pg_wal/Y'), 'utf8')).toBe('more');
    },
  );

  test('a % in a path is doubled for PostgreSQL', () => {
    expect(commandsOf('/srv/50%').archiveCommand).toBe(`'/srv/50%%/archive' %p %f`);
  });

  test.each([
    ['/usr/local/bin/both /srv/db1.walvault/archive %p %f', true],
    [`both '/srv/db1.walvault/archive' %p %f`, true],
    [`'/srv/db1.walvault/archive' %p %f`, false], // ours, alone
    ['both /srv/db1.walvault/archive-old %p', false],
    ['both /srv/db2.walvault/archive %p %f', false],
    ['pgbackrest --stanza=main archive-push %p', false],
    ['', false],
    [undefined, false],
  ])('archive_command %j calls ours among others: %s', (command, is) => {
    expect(isCombined(command, commandsOf('/srv/db1.walvault'))).toBe(is);
  });

  test('a state directory inside PGDATA is refused', async () => {
    await install(0);
    const inside = path.join(pgdata, 'state');
    const request = { pgdata, stateDir: inside, settings: {}, programRoot: root, nodeBinary: '/bin/sh' };
    await expect(installState(request)).rejects.toMatchObject({ code: 'usage' });
    expect(fs.existsSync(inside)).toBe(false);
  });

  test('installing twice keeps what the node has written meanwhile', async () => {
    await install(0);
    fs.writeFileSync(path.join(state, 'writer.json'), '{"epoch":3}');
    await installState({
      pgdata,
      stateDir: state,
      settings: { node: 'db1' },
      programRoot: root,
      nodeBinary: '/bin/sh',
    });
    expect(fs.readFileSync(path.join(state, 'writer.json'), 'utf8')).toBe('{"epoch":3}');
    expect(fs.statSync(state).mode & 0o777).toBe(0o700);
  });
});
