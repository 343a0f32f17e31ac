/**
 * The launcher behind `npm start` and `npm test`: from a fresh clone, under the person's own Node 20 or newer.
 *
 *   node bin/launcher/run.mjs demo|test|test:unit|test:contract|test:lambdas|test:infra|test:system|test:systemd|test:matrix|test:crashes|docs|package|deploy|… [arguments]
 *
 * Installs what is missing, builds dist/, and runs the command under Node 24, as an ordinary user where it was started
 * as root. Exit status and signals are those of the command.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { findNode, platform, root } from './checkout.mjs';
import {
  chooseUser,
  environmentOf,
  giveInstalledTo,
  isRoot,
  makeScratch,
  pathOf,
  reachableCheckout,
} from './drop-root.mjs';
import { install, postgresFolder } from './install.mjs';
import { matrixRuns, matrixSummary, mergedReport } from './matrix.mjs';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'];

/**
 * A run of jest over `tests` (patterns of paths); the tests read `env`; `needs` is installed first. Where tests mostly wait (for servers, for
 * leases and limits to pass), two `workers` on two cores, of which jest by itself would use one.
 */
const jest = (tests, { env, needs = [], workers } = {}) => ({
  run: ['node_modules/jest/bin/jest.js', ...(workers === undefined ? [] : [`--maxWorkers=${workers}`])],
  tests,
  env,
  needs,
});

const COMMANDS = {
  demo: { run: ['dist/walvault.cjs', 'demo'], needs: [] },
  test: jest(
    // all of infra that needs neither emulator nor servers
    ['test/unit', 'test/contract', 'test/infra/(?!deploy|roles|witness)', 'test/system/main-job'],
    { env: { WALVAULT_TEST_PAIRS: '18:file' }, workers: Math.max(2, os.availableParallelism() - 1) },
  ),
  'test:unit': jest(['test/unit']),
  'test:contract': jest(['test/contract'], {
    env: { WALVAULT_TEST_AWS: '1' },
    needs: ['installMinistack', 'installDynamoDBLocal'],
    workers: 2,
  }),
  'test:lambdas': jest(['test/lambdas'], { env: { WALVAULT_TEST_AWS: '1' }, needs: ['installMinistack'] }),
  'test:infra': jest(['test/infra'], {
    env: { WALVAULT_TEST_AWS: '1' },
    needs: ['postgres', 'installMinistack'],
  }),
  'test:system': jest(['test/system'], {
    env: { WALVAULT_TEST_PAIRS: '18:file,15:s3' },
    needs: ['postgres', 'installMinistack', 'installFullPostgres'],
    workers: 2,
  }),
  // As root where root starts it, for nobody else can give a systemd namespaces of its own; skipped where there is none
  'test:systemd': { ...jest(['test/systemd']), staysRoot: true },
  // Many runs of jest, each with arguments of its own (matrix.mjs)
  'test:matrix': {
    ...jest([], { needs: ['postgres', 'installMinistack', 'installFullPostgres'], workers: 2 }),
    runAs: runMatrix,
  },
  // Last, with WALVAULT_TEST_CRASHES as the other suites had it
  'test:crashes': jest(['test/crashes']),
  bench: { run: ['bench/run.ts'], needs: [] },
  ...Object.fromEntries(
    ['deploy', 'synth', 'diff', 'destroy', 'bootstrap'].map((name) => [
      name,
      // as the person themselves: their credentials lie in their home
      { run: ['bin/launcher/cloud.mjs', name], needs: [], writesCheckout: true },
    ]),
  ),
  docs: { run: ['bin/reference.ts'], needs: [], writesCheckout: true },
  package: { run: ['bin/launcher/package.mjs'], needs: [], writesCheckout: true },
};

async function main() {
  const [name, ...args] = process.argv.slice(2);
  const command = Object.hasOwn(COMMANDS, name ?? '') ? COMMANDS[name] : undefined;
  if (command === undefined) {
    console.error(`usage: node bin/launcher/run.mjs ${Object.keys(COMMANDS).join('|')} [arguments]`);
    return 2;
  }
  if (Number(process.versions.node.split('.')[0]) < 20)
    throw new Error(`Node 20 or newer is needed; this is ${process.version}`);

  const { runAs = run } = command;
  const user = isRoot() && !command.writesCheckout && !command.staysRoot ? chooseUser() : undefined;
  install(root);
  await import(pathToFileURL(path.join(root, 'bin/launcher/build.mjs')).href);
  if (command.needs.includes('postgres')) install(postgresFolder);
  if (user !== undefined) {
    installEmulators(command.needs, pathOf(user));
    giveInstalledTo(user);
  }

  if (user === undefined) {
    const scratch = mkdtempSync(path.join(os.tmpdir(), 'walvault-'));
    try {
      return await runAs(command, args, { checkout: root, scratch, env: process.env });
    } finally {
      rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
    }
  }
  const scratch = makeScratch(user);
  try {
    const checkout = reachableCheckout(user, scratch);
    return await runAs(command, args, { checkout, scratch, env: environmentOf(user, scratch), user });
  } finally {
    rmSync(scratch, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** The tests install their emulators by themselves, but a user that root becomes could not keep them: they go into the checkout. */
function installEmulators(needs, PATH) {
  const wanted = needs.filter((need) => need.startsWith('install'));
  const script = `const known = Object.assign({}, ...(await Promise.all(process.argv.slice(1).map((file) => import(file)))));
${wanted.map((name) => `await known.${name}();`).join('\n')}`;
  const files = ['emulators', 'full-postgres'].map((name) => path.join(root, `test/harness/${name}.ts`));
  const args = ['--input-type=module', '-e', script, ...files];
  if (wanted.length > 0)
    spawnSync(findNode(), args, { stdio: ['ignore', 2, 2], env: { ...process.env, PATH } }); // a failure comes again, in its test
}

/** Runs one command to its end, under Node 24. */
async function run(command, args, { checkout, scratch, env, user }) {
  const node = findNode(checkout);
  if (node === undefined)
    throw new Error(
      `Node 24 is needed, and there is no package of it for ${platform}: run this with Node 24`,
    );
  const patterns = args.some((arg) => arg.includes('test/')) ? [] : (command.tests ?? []);
  const wanted = command.tests && env['WALVAULT_TEST_REPORT'];
  const report = path.join(scratch, 'report.json');
  const reported = wanted ? ['--json', `--outputFile=${report}`] : [];
  const crashes = command.tests && env['WALVAULT_TEST_CRASHES'];
  const lent = crashes ? lend(crashes, scratch, user) : undefined;
  const end = await untilItEnds(node, [...command.run, ...patterns, ...reported, ...args], {
    cwd: checkout,
    stdio: 'inherit',
    env: { ...command.env, ...env, ...(lent && { WALVAULT_TEST_CRASHES: lent }) },
    ...(user && { uid: user.uid, gid: user.gid }),
  });
  if (wanted && existsSync(report)) {
    writeFileSync(wanted, readFileSync(report));
    rmSync(report); // the next run may end without its own
  }
  if (lent) cpSync(lent, crashes, { recursive: true });
  return end;
}

/** A directory that the tests add to, where their user can write: what is in it goes along, and all of it is to come back. */
function lend(folder, scratch, user) {
  const own = path.join(scratch, 'crashes');
  mkdirSync(own, { recursive: true });
  if (existsSync(folder)) cpSync(folder, own, { recursive: true });
  if (user) for (const name of ['', ...readdirSync(own)]) chownSync(path.join(own, name), user.uid, user.gid);
  return own;
}

/** Every run of the matrix, whatever becomes of the one before it; then a table. Exit status 1 where anything failed. */
async function runMatrix(command, args, { env, scratch, ...place }) {
  const report = path.join(scratch, 'matrix-report.json');
  const crashes = path.join(scratch, 'matrix-crashes');
  mkdirSync(crashes);
  const runs = [];
  for (const { title, args: words, env: more } of matrixRuns(args)) {
    console.error(`\n=== ${title}`);
    rmSync(report, { force: true });
    const begun = performance.now();
    const own = { ...env, ...more, WALVAULT_TEST_REPORT: report, WALVAULT_TEST_CRASHES: crashes };
    const end = await run(command, words, { ...place, scratch, env: own });
    if (typeof end === 'string') return end; // somebody has had enough
    const seconds = (performance.now() - begun) / 1000;
    const said = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : undefined;
    runs.push({ title, report: said, end, seconds });
  }
  const { text, failed } = matrixSummary(runs);
  console.log(`\n${text}`);
  const asked = env['WALVAULT_TEST_REPORT'];
  if (asked) writeFileSync(asked, JSON.stringify(mergedReport(runs)));
  return failed === 0 ? 0 : 1;
}

/**
 * Exit status, or the signal, of a child that gets the signals which this process gets.
 * A terminal sends Ctrl-C to the child by itself; sent on, it would arrive twice, which asks for an end without order.
 */
function untilItEnds(node, args, options) {
  const child = spawn(node, args, options);
  const pass = (signal) => {
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
  };
  for (const signal of SIGNALS) process.on(signal, pass);
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => {
      for (const passed of SIGNALS) process.off(passed, pass);
      resolve(signal ?? status);
    });
  });
}

try {
  const end = await main();
  if (typeof end === 'string') process.kill(process.pid, end);
  else process.exitCode = end;
} catch (error) {
  console.error(`walvault: ${error.message}`);
  process.exitCode = 1;
}
