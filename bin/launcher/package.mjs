/**
 * Makes the package: one folder `walvault-<version>-linux-<cpu>` with a Node of its own, the bundles, the pages and the licences of all
 * that is in it; and a .tar.gz and a .deb of that folder.
 *
 *   npm run package [-- --out DIRECTORY] [--version VERSION] [--folder-only]
 *
 * Versions lie side by side: the Debian package is named for its version (`walvault-0.1.0`, as postgresql-16 is), since one that were
 * merely newer would have dpkg remove the folder from which servers still run their hooks. `update-alternatives` chooses which one
 * `walvault` is; `walvault upgrade-hooks` moves a server to it.
 */
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { pathToFileURL } from 'node:url';
import { findNode, root } from './checkout.mjs';
import { bundledPackages } from './build.mjs';

const ARCHITECTURES = { x64: 'amd64', arm64: 'arm64' };

/**
 * @returns {Promise<string[]>} absolute paths: the folder, the .tar.gz, the .deb
 * @param {{out: string, version?: string, folderOnly?: boolean}} options  version: another than package.json's, for a build between two
 * releases; folderOnly: neither .tar.gz nor .deb, which take a while
 */
export async function makePackage({ out, version, folderOnly = false }) {
  if (process.platform !== 'linux')
    throw new Error(`a package is made on Linux, for Linux; this is ${process.platform}`);
  const own = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  const number = version ?? own.version;
  if (!/^\d+\.\d+\.\d+(-[a-z0-9.]+)?$/.test(number))
    throw new Error(`'${number}' is not a version: 1.2.3, or 1.2.3-rc.1`);
  const name = `walvault-${number}-linux-${process.arch}`;
  mkdirSync(out, { recursive: true });
  const unfinished = mkdtempSync(path.join(out, '.package-'));
  try {
    const made = path.join(unfinished, name);
    fill(made, { ...own, version: number });
    const parts = [made];
    if (!folderOnly) {
      parts.push(path.join(unfinished, `${name}.tar.gz`));
      tar(['-C', unfinished, '-czf', parts[1], name]);
      parts.push(path.join(unfinished, `walvault-${number}_${ARCHITECTURES[process.arch]}.deb`));
      makeDeb(made, { deb: parts[2], scratch: unfinished, name, number });
    }
    return parts.map((file) => {
      const place = path.join(out, path.basename(file));
      rmSync(place, { recursive: true, force: true });
      renameSync(file, place);
      return place;
    });
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}

/** The folder: what a node needs, and nothing that only a checkout uses. */
function fill(folder, { name, version, description, license }) {
  mkdirSync(path.join(folder, 'bin'), { recursive: true });
  mkdirSync(path.join(folder, 'dist'));
  mkdirSync(path.join(folder, 'node/bin'), { recursive: true });
  writeFileSync(
    path.join(folder, 'package.json'),
    `${JSON.stringify({ name, version, description, license, private: true }, null, 2)}\n`,
  );
  copyFileSync(path.join(root, 'bin/walvault'), path.join(folder, 'bin/walvault'));
  copyFileSync(path.join(root, 'README.md'), path.join(folder, 'README.md'));
  copyFileSync(findNode(), path.join(folder, 'node/bin/node'));
  const dist = path.join(root, 'dist');
  for (const file of readdirSync(dist).filter((each) => each.endsWith('.cjs')))
    copyFileSync(path.join(dist, file), path.join(folder, 'dist', file));
  cpSync(path.join(root, 'docs'), path.join(folder, 'docs'), { recursive: true });
  writeLicences(path.join(folder, 'licences'));
  for (const each of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const place = path.join(folder, each);
    const isProgram = ['bin/walvault', 'node/bin/node'].includes(each);
    chmodSync(place, statSync(place).isDirectory() || isProgram ? 0o755 : 0o644);
  }
  chmodSync(folder, 0o755);
}

/** The texts of Node and of each package of which code is in a bundle. @throws Error  one has none: it may not be handed on */
function writeLicences(folder) {
  mkdirSync(folder);
  const packages = bundledPackages();
  for (const each of [{ name: 'node', home: path.resolve(path.dirname(findNode()), '..') }, ...packages]) {
    const { license, version, author } = readPackage(each.home);
    const own = licenceFile(each.home);
    // some carry only the name of their licence: Apache's text is the same for all, MIT's but for the name
    const text =
      own ??
      (license === 'MIT' ? mitText(each.name, author) : undefined) ??
      packages
        .filter(({ home }) => readPackage(home).license === license)
        .map(({ home }) => licenceFile(home))[0];
    if (text === undefined || (own === undefined && !['MIT', 'Apache-2.0'].includes(license)))
      throw new Error(`${each.name} ${version} (${license}) comes without the text of its licence`);
    const file = path.join(folder, `${each.name.replaceAll('/', '+')}-${version}.txt`);
    writeFileSync(file, `${each.name} ${version}\n${license}\n\n${text}`);
  }
}

const readPackage = (home) => JSON.parse(readFileSync(path.join(home, 'package.json'), 'utf8'));

function licenceFile(home) {
  const file = readdirSync(home).find((each) => /^(licen[cs]e|copying)([-.]|$)/i.test(each));
  return file && readFileSync(path.join(home, file), 'utf8');
}

function mitText(name, author) {
  const holder = typeof author === 'string' ? author : (author?.name ?? `the authors of ${name}`);
  return `Copyright (c) ${holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the
"Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to
the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`;
}

/**
 * A Debian package without Debian's tools: an `ar` of three members.
 * Source: deb(5): debian-binary, control.tar.gz, data.tar.gz, in this order.
 */
function makeDeb(folder, { deb, scratch, name, number }) {
  const control = path.join(scratch, 'control');
  const data = path.join(scratch, 'data');
  mkdirSync(control);
  mkdirSync(path.join(data, 'opt/walvault'), { recursive: true });
  cpSync(folder, path.join(data, 'opt/walvault', name), { recursive: true });
  const files = readdirSync(data, { recursive: true, encoding: 'utf8' }).filter(
    (file) => !statSync(path.join(data, file)).isDirectory(),
  );
  const kib = Math.ceil(files.reduce((sum, file) => sum + statSync(path.join(data, file)).size, 0) / 1024);
  const program = `/opt/walvault/${name}/bin/walvault`;
  // newer versions come first; a pre-release goes before its release
  const [release, pre] = number.split('-');
  const weight =
    release.split('.').reduce((sum, part) => sum * 1000 + Number(part), 0) * 2 + (pre === undefined ? 1 : 0);
  const members = {
    control: `Package: walvault-${number}
Version: ${number.replace('-', '~')}
Architecture: ${ARCHITECTURES[process.arch]}
Maintainer: walvault developers
Installed-Size: ${kib}
Depends: libc6 (>= 2.28), libstdc++6
Section: database
Priority: optional
Description: PostgreSQL WAL vault on AWS, with local hooks
 Archives a PostgreSQL primary's WAL into a vault, lets standbys follow that
 vault, and makes one of them the primary when told so. Versions are installed
 side by side; 'walvault upgrade-hooks' moves a server to another one.
`,
    md5sums: files.map((file) => `${md5(path.join(data, file))}  ${file}\n`).join(''),
    postinst: `#!/bin/sh\nset -e\nif [ "$1" = configure ]; then update-alternatives --install /usr/bin/walvault walvault ${program} ${weight}; fi\n`,
    prerm: `#!/bin/sh\nset -e\nif [ "$1" = remove ]; then update-alternatives --remove walvault ${program}; fi\n`,
  };
  for (const [file, text] of Object.entries(members))
    writeFileSync(path.join(control, file), text, { mode: file.startsWith('p') ? 0o755 : 0o644 });
  const owner = ['--owner=root:0', '--group=root:0', '--sort=name', '--numeric-owner'];
  const [controlTar, dataTar] = ['control', 'data'].map((part) => {
    tar([...owner, '-C', path.join(scratch, part), '-czf', path.join(scratch, `${part}.tar.gz`), '.']);
    return readFileSync(path.join(scratch, `${part}.tar.gz`));
  });
  writeFileSync(
    deb,
    Buffer.concat([
      Buffer.from('!<arch>\n'),
      ...arMember('debian-binary', Buffer.from('2.0\n')),
      ...arMember('control.tar.gz', controlTar),
      ...arMember('data.tar.gz', dataTar),
    ]),
  );
}

/** Source: ar(5): name 16, time 12, owner 6, group 6, mode 8, size 10, two bytes of end; members begin on even bytes. */
function arMember(name, body) {
  const head = `${name.padEnd(16)}${'0'.padEnd(12)}${'0'.padEnd(6)}${'0'.padEnd(6)}${'100644'.padEnd(8)}${String(body.length).padEnd(10)}\`\n`;
  return [Buffer.from(head), body, Buffer.from(body.length % 2 === 1 ? '\n' : '')];
}

const md5 = (file) => createHash('md5').update(readFileSync(file)).digest('hex');

function tar(args) {
  const done = spawnSync('tar', args, { stdio: ['ignore', 2, 2] });
  if (done.error) throw new Error(`tar could not be started: ${done.error.message}`);
  if (done.status !== 0) throw new Error(`'tar ${args.join(' ')}' ended with ${done.signal ?? done.status}`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    const { values } = parseArgs({
      options: { out: { type: 'string' }, version: { type: 'string' }, 'folder-only': { type: 'boolean' } },
    });
    const out = path.resolve(values.out ?? path.join(root, 'release'));
    const parts = await makePackage({ out, version: values.version, folderOnly: values['folder-only'] });
    process.stdout.write(`${parts.join('\n')}\n`);
  } catch (error) {
    console.error(`walvault: ${error.message}`);
    process.exitCode = 1;
  }
}
