/**
 * PostgreSQL refuses to run as root: who root becomes for a whole run, and where that user's run takes place.
 *
 * The user gets a scratch directory with HOME and TMPDIR in it; where it cannot read the checkout (a clone under a
 * 0700 home) what runs is copied there, too.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lchownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
} from 'node:fs';
import { readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { root, sourceFiles } from './checkout.mjs';

/** What runs, of a checkout: everything but its history and what earlier runs left. */
const parts = [
  'bin',
  'core',
  'hooks',
  'lambdas',
  'infra',
  'test',
  'bench',
  'docs',
  'dist',
  'node_modules',
  '.emulator',
];

export const isRoot = () => process.getuid?.() === 0;

/** Users of this machine, from /etc/passwd: initdb needs one that has a name. */
function users() {
  return readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .filter((fields) => fields.length >= 7)
    .map(([name, , uid, gid]) => ({ name, uid: Number(uid), gid: Number(gid) }));
}

/** The owner of the checkout where that is not root; else nobody, postgres, or the first ordinary user. */
export function chooseUser() {
  const all = users().filter((user) => user.uid > 0);
  const owner = statSync(root).uid;
  const user =
    all.find(({ uid }) => uid === owner) ??
    all.find(({ name }) => name === 'nobody') ??
    all.find(({ name }) => name === 'postgres') ??
    all.find(({ uid }) => uid >= 1000);
  if (user === undefined) {
    throw new Error(
      'started as root, and /etc/passwd knows no ordinary user to run PostgreSQL as: add one (useradd walvault)',
    );
  }
  return user;
}

/** A directory of the user's own under the temporary directory, or /tmp where the user cannot reach that. */
export function makeScratch(user) {
  for (const base of new Set([os.tmpdir(), '/tmp', '/var/tmp'])) {
    if (!existsSync(base)) continue;
    const scratch = mkdtempSync(path.join(realpathSync(base), 'walvault-'));
    for (const folder of [scratch, path.join(scratch, 'home'), path.join(scratch, 'tmp')]) {
      mkdirSync(folder, { recursive: true });
      chmodSync(folder, 0o700);
      chownSync(folder, user.uid, user.gid);
    }
    if (canRead(user, '/', [scratch])) return scratch;
    rmSync(scratch, { recursive: true });
  }
  throw new Error(`user ${user.name} can reach no temporary directory: set TMPDIR to one that it can`);
}

/** PATH as far as the user can reach it: a Python or Java of root's own would be found and could not be started. */
export function pathOf(user) {
  const folders = (process.env['PATH'] ?? '').split(path.delimiter).filter((folder) => existsSync(folder));
  return folders.filter((folder) => canRead(user, folder, ['.'])).join(path.delimiter);
}

/** The environment of that user's run: nothing in it points back into root's home. */
export function environmentOf(user, scratch) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(npm_|XDG_|SUDO_)/.test(name));
  return {
    ...Object.fromEntries(kept),
    PATH: pathOf(user),
    HOME: path.join(scratch, 'home'),
    TMPDIR: path.join(scratch, 'tmp'),
    USER: user.name,
    LOGNAME: user.name,
  };
}

/** The checkout itself where the user can read all that runs, else a copy of it in `scratch`. */
export function reachableCheckout(user, scratch) {
  const needed = [
    ...sourceFiles(),
    ...['dist/walvault.cjs', 'node_modules/jest/bin/jest.js', 'test/harness/jest-transform.cjs'],
    ...readdirSync(path.join(root, 'node_modules')).map((name) => path.join('node_modules', name)),
  ].filter((file) => existsSync(path.join(root, file)));
  if (canRead(user, root, needed)) return root;
  const copy = path.join(scratch, 'checkout');
  console.error(`walvault: user ${user.name} cannot read ${root}; running from a copy in ${scratch}`);
  mkdirSync(copy);
  const files = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isFile());
  for (const part of [...files.map((file) => file.name), ...parts]) {
    const source = path.join(root, part);
    if (existsSync(source))
      cpSync(source, path.join(copy, part), { recursive: true, verbatimSymlinks: true });
  }
  giveTo(user, copy);
  return copy;
}

/** As the user itself: permissions, ACLs and mounts are the kernel's to judge. */
function canRead(user, folder, names) {
  const script = `cd "$1" && while IFS= read -r name; do
    [ -r "$name" ] || exit 1; [ ! -d "$name" ] || [ -x "$name" ] || exit 1; done`;
  const input = names.map((name) => `${name}\n`).join('');
  const options = { uid: user.uid, gid: user.gid, cwd: '/', input, stdio: ['pipe', 'ignore', 'ignore'] };
  return spawnSync('/bin/sh', ['-c', script, 'sh', folder], options).status === 0;
}

/** What root has just made in somebody else's checkout becomes that person's. */
export function giveInstalledTo(user) {
  if (statSync(root).uid !== user.uid) return;
  for (const made of ['node_modules', 'dist', 'test/postgres/node_modules', '.emulator']) {
    const folder = path.join(root, made);
    if (existsSync(folder) && statSync(folder).uid !== user.uid) giveTo(user, folder);
  }
}

function giveTo(user, file) {
  lchownSync(file, user.uid, user.gid);
  for (const entry of readdirSync(file, { withFileTypes: true })) {
    const inside = path.join(file, entry.name);
    if (entry.isDirectory()) giveTo(user, inside);
    else lchownSync(inside, user.uid, user.gid);
  }
}
