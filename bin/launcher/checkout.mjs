/**
 * What the launcher knows of this checkout: where its Node 24 is, whether its dependencies and bundles are up to date.
 *
 * Runs under the person's own Node (20 or newer) before anything is installed, so it imports nothing but Node itself.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

export const platform = `${process.platform}-${process.arch}`;

/** Written by install.mjs when all of an installation is done; holds what was installed. */
export const stampFile = (folder) => path.join(folder, 'node_modules/.walvault-installed');

/** What stampFile() should hold: the locked packages, and the platform they were chosen for. */
export function installStamp(folder) {
  const lock = readFileSync(path.join(folder, 'package-lock.json'));
  return `${createHash('sha256').update(lock).digest('hex')} ${platform}\n`;
}

export function isInstalled(folder) {
  const file = stampFile(folder);
  return existsSync(file) && readFileSync(file, 'utf8') === installStamp(folder);
}

/** Node 24 or newer: of the checkout, else the running one, else the first on PATH; undefined when there is none. */
export function findNode(checkout = root) {
  const own = path.join(checkout, `node_modules/node-${platform}/bin/node`);
  if (existsSync(own)) return own;
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath;
  return undefined;
}

/** The sources that dist/ is made from, relative to the checkout, in a fixed order. */
export function sourceFiles(checkout = root) {
  const files = ['package.json', 'package-lock.json', 'bin/launcher/build.mjs'];
  for (const room of ['core', 'hooks', 'bin', 'lambdas']) {
    if (!existsSync(path.join(checkout, room))) continue;
    const names = readdirSync(path.join(checkout, room), { recursive: true, encoding: 'utf8' });
    files.push(...names.filter((name) => name.endsWith('.ts')).map((name) => path.join(room, name)));
  }
  return files.sort();
}

/** What dist/ of these sources is stamped with. */
export function sourceStamp(checkout = root) {
  const hash = createHash('sha256');
  for (const file of sourceFiles(checkout))
    hash.update(`${file}\0`).update(readFileSync(path.join(checkout, file)));
  return `${hash.digest('hex')}\n`;
}

export function isWritable(folder) {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
