/**
 * Bundles what starts often (hooks, agent, command, functions) into dist/: one CommonJS file each, since CommonJS starts faster than
 * ESM. A function has a folder of its own, dist/lambdas/<name>/, which is what its stack uploads.
 *
 * Does nothing when dist/ is already made from these sources, so that it also works in a checkout that cannot be written.
 * Each bundle appears by rename: a hook that starts meanwhile never reads half of one. Everybody may read them.
 */
import { build } from 'esbuild';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { root, sourceStamp } from './checkout.mjs';

const entries = [
  'hooks/archive.ts',
  'hooks/restore.ts',
  'hooks/cleanup.ts',
  'hooks/recovered.ts',
  'hooks/agent.ts',
  'hooks/watchdog.ts',
  'bin/walvault.ts',
  ...['retention', 'relay', 'notify', 'witness'].map((name) => ({
    in: `lambdas/${name}.ts`,
    out: `lambdas/${name}/index`,
  })),
];

const dist = path.join(root, 'dist');
const stampFile = path.join(dist, '.sources');
const packagesFile = path.join(dist, 'packages.json');
const stamp = sourceStamp();
if (!existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp) {
  const made = await build({
    absWorkingDir: root,
    entryPoints: entries
      .map((entry) => (typeof entry === 'string' ? { in: entry, out: path.parse(entry).name } : entry))
      .filter((entry) => existsSync(path.join(root, entry.in))),
    outdir: dist,
    outExtension: { '.js': '.cjs' },
    bundle: true,
    write: false,
    metafile: true,
    platform: 'node',
    target: 'node24',
    format: 'cjs',
    external: ['pg-native'],
    logLevel: 'warning',
    define: { 'import.meta.dirname': '__dirname', 'import.meta.filename': '__filename' },
  });
  mkdirSync(dist, { recursive: true });
  chmodSync(dist, 0o755);
  for (const { path: file, contents } of made.outputFiles) {
    if (!file.includes('/lambdas/')) {
      publish(file, contents);
      continue;
    }
    // some emulators of Lambda look for index.js alone; in this checkout that would be a module by its package.json
    publish(file.replace(/\.cjs$/, '.js'), contents);
    publish(path.join(path.dirname(file), 'package.json'), '{ "type": "commonjs" }\n');
  }
  publish(packagesFile, `${JSON.stringify(packagesOf(made.metafile), null, 2)}\n`);
  publish(stampFile, stamp);
}

/** The packages of which code is in a bundle of the installed program, and where they lie: their licences go with it. */
export function bundledPackages() {
  return JSON.parse(readFileSync(packagesFile, 'utf8')).map(({ name, home }) => ({
    name,
    home: path.join(root, home),
  }));
}

function packagesOf({ outputs }) {
  const homes = new Map();
  for (const [file, { inputs }] of Object.entries(outputs)) {
    if (file.includes('/lambdas/')) continue;
    for (const input of Object.keys(inputs)) {
      const found = /^(?:.*\/)?node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
      if (found !== null) homes.set(found[0].slice(0, -1), found[1]);
    }
  }
  return [...homes]
    .map(([home, name]) => ({ name, home }))
    .sort((one, other) => (one.home < other.home ? -1 : 1));
}

function publish(file, contents) {
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 });
  const unfinished = `${file}.${process.pid}`;
  writeFileSync(unfinished, contents);
  chmodSync(unfinished, 0o644);
  renameSync(unfinished, file);
}
