/**
 * AWS on this machine: ministack (S3 and DynamoDB) and DynamoDBLocal (AWS's own engine), real processes, each on a free port.
 *
 * What they need is installed once, into .emulator/ of the checkout or, where that cannot be written, into $WALVAULT_CACHE
 * (or a folder of the user below the system's temporary one). Wanted are python3 (with venv), java 17 and mvn.
 * WALVAULT_TEST_ENDPOINT and WALVAULT_TEST_DYNAMODB_ENDPOINT name servers of your own instead (LocalStack, dynamodb-local in Docker).
 * What is missing is an error: a suite that skips would pass on a machine where nothing was tested.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export const MINISTACK = '1.5.33';
export const DYNAMODB_LOCAL = '2.6.1';

/** Longest wait for an installation, a start, a stop; in ms. */
const INSTALL_MS = 600_000;
const START_MS = 60_000;
const STOP_MS = 5_000;

export type Emulator = {
  /** `http://127.0.0.1:<port>` */
  endpoint: string;
  port: number;
  /** Undefined for a server of the person's own. */
  pid: number | undefined;
  stop(): Promise<void>;
};

/** Credentials that any emulator takes; DynamoDBLocal wants the key alphanumeric. Set before a client is made. */
export const CREDENTIALS = {
  AWS_ACCESS_KEY_ID: 'walvault',
  AWS_SECRET_ACCESS_KEY: 'walvault',
  AWS_REGION: 'us-east-1',
  AWS_EC2_METADATA_DISABLED: 'true',
} as const;

/**
 * S3 and DynamoDB, and whatever else it plays.
 *
 * @param more  its environment: AUTH=true has it ask IAM; AWS_ENDPOINT_URL is where the functions that it runs find AWS
 */
export async function startMinistack(more: Record<string, string> = {}): Promise<Emulator> {
  const own = process.env['WALVAULT_TEST_ENDPOINT'];
  if (own !== undefined && own !== '') return foreign(own);
  const program = await installMinistack();
  const node = process.execPath;
  return start('ministack', (port) => ({
    // by the venv's Python, not by the script's first line, which names the place where it was installed: it may be a copy
    command: path.join(path.dirname(program), 'python3'),
    args: [program],
    env: {
      PATH: `${path.dirname(node)}:${process.env['PATH']}`,
      BIND_HOST: '127.0.0.1',
      MINISTACK_HOST: '127.0.0.1',
      GATEWAY_PORT: String(port),
      ...more,
    },
    isReady: async () => (await fetch(`http://127.0.0.1:${port}/_ministack/health`)).ok,
  }));
}

/** DynamoDB alone, by AWS's own engine. */
export async function startDynamoDBLocal(): Promise<Emulator> {
  const own = process.env['WALVAULT_TEST_DYNAMODB_ENDPOINT'];
  if (own !== undefined && own !== '') return foreign(own);
  const lib = await installDynamoDBLocal();
  return start('DynamoDBLocal', (port) => ({
    command: 'java',
    args: [
      '-Xmx256m',
      '-XX:TieredStopAtLevel=1',
      `-Djava.library.path=${lib}`,
      '-Daws.region=us-east-1',
      '-cp',
      path.join(lib, '*'),
      'com.amazonaws.services.dynamodbv2.local.main.ServerRunner',
      '-inMemory',
      '-sharedDb',
      '-disableTelemetry',
      '-port',
      String(port),
    ],
    env: {},
    // any answer of its own will do; a request without a signature is refused
    isReady: async () => (await fetch(`http://127.0.0.1:${port}/`)).status > 0,
  }));
}

/** Where the emulator `name` is installed, or can be: the launcher may have done it as root, for a user who cannot write there. */
export function emulatorFolder(name: string): string {
  const checkout = path.resolve(import.meta.dirname, '../..');
  const inside = path.join(checkout, '.emulator');
  const wanted = process.env['WALVAULT_CACHE'];
  const choices = [
    inside,
    ...(wanted ? [wanted] : []),
    path.join(os.tmpdir(), `walvault-emulator-${os.userInfo().uid}`),
  ];
  const installed = choices.map((choice) => path.join(choice, name)).find(isUsable);
  if (installed !== undefined) return installed;
  for (const folder of choices) {
    try {
      mkdirSync(folder, { recursive: true });
      accessSync(folder, constants.W_OK);
      return path.join(folder, name);
    } catch {
      continue;
    }
  }
  throw new Error(`no place for the emulators: none of ${choices.join(', ')} can be written`);
}

/** Installed, and with a Python that this user can start: root's own may lie under its home. */
function isUsable(folder: string): boolean {
  const started = [
    path.join(folder, 'bin/python3'),
    path.join(folder, `lib/DynamoDBLocal-${DYNAMODB_LOCAL}.jar`),
  ];
  return existsSync(path.join(folder, '.installed')) && started.some((file) => existsSync(file));
}

/** The program `ministack`. */
export async function installMinistack(): Promise<string> {
  const folder = emulatorFolder(`ministack-${MINISTACK}`);
  const program = path.join(folder, 'bin/ministack');
  await installOnce(folder, async () => {
    await must(
      'python3',
      ['-m', 'venv', folder],
      'install Python 3 with its venv module (Debian: python3-venv)',
    );
    await must(
      path.join(folder, 'bin/pip'),
      ['install', '--quiet', '--disable-pip-version-check', `ministack==${MINISTACK}`],
      'see what pip says; a registry must be in reach',
    );
  });
  return program;
}

/** The folder of its jars and native libraries. */
export async function installDynamoDBLocal(): Promise<string> {
  const folder = emulatorFolder(`dynamodb-local-${DYNAMODB_LOCAL}`);
  const lib = path.join(folder, 'lib');
  await installOnce(folder, async () => {
    mkdirSync(folder, { recursive: true });
    const pom = path.join(folder, 'pom.xml');
    writeFileSync(
      pom,
      `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>walvault</groupId><artifactId>emulator</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>com.amazonaws</groupId><artifactId>DynamoDBLocal</artifactId><version>${DYNAMODB_LOCAL}</version></dependency></dependencies>
</project>
`,
    );
    await must(
      'mvn',
      [
        '-q',
        '-B',
        '-f',
        pom,
        'dependency:copy-dependencies',
        `-DoutputDirectory=${lib}`,
        '-DincludeScope=runtime',
      ],
      'install Java 17 and Maven (Debian: openjdk-17-jre-headless maven)',
    );
  });
  return lib;
}

/** Runs `install` unless it was done; one process at a time, whole or not at all. */
export async function installOnce(folder: string, install: () => Promise<void>): Promise<void> {
  const done = path.join(folder, '.installed');
  const lock = `${folder}.lock`;
  const until = Date.now() + INSTALL_MS;
  while (!existsSync(done)) {
    let held: number;
    try {
      held = openSync(lock, 'wx');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      if (!isAlive(Number(readFileSync(lock, 'utf8') || process.pid))) rmSync(lock, { force: true });
      if (Date.now() > until)
        throw new Error(`${lock} is held by another run: remove it when there is none`, { cause: error });
      await sleep(200);
      continue;
    }
    try {
      writeFileSync(held, String(process.pid));
      closeSync(held);
      if (existsSync(done)) return;
      rmSync(folder, { recursive: true, force: true });
      await install();
      writeFileSync(done, '');
    } finally {
      rmSync(lock, { force: true });
    }
  }
}

export async function must(command: string, args: string[], hint: string): Promise<void> {
  try {
    await run(command, args, { timeout: INSTALL_MS, maxBuffer: 64 * 1024 * 1024 });
  } catch (error) {
    const { stderr, message } = error as { stderr?: string; message: string };
    throw new Error(`'${command} ${args.join(' ')}' failed: ${stderr?.trim() || message}\nHINT: ${hint}`, {
      cause: error,
    });
  }
}

type Plan = { command: string; args: string[]; env: Record<string, string>; isReady(): Promise<boolean> };

async function start(name: string, plan: (port: number) => Plan): Promise<Emulator> {
  let failure = '';
  for (let attempt = 0; attempt < 3; attempt += 1) {
    const port = await freePort();
    const { command, args, env, isReady } = plan(port);
    const folder = await mkdtemp(path.join(os.tmpdir(), `walvault-${name.toLowerCase()}-`));
    const log = path.join(folder, 'log');
    const output = openSync(log, 'w');
    const child = spawn(command, args, {
      cwd: folder,
      stdio: ['ignore', output, output],
      env: { ...process.env, TMPDIR: folder, ...env },
    });
    closeSync(output);
    let spawnError: Error | undefined;
    child.on('error', (error) => (spawnError = error));
    // a test runner that is killed must not leave it behind
    const last = () => child.kill('SIGKILL');
    process.on('exit', last);
    const stop = async () => {
      process.off('exit', last);
      await end(child);
      await rm(folder, { recursive: true, force: true });
    };
    const until = Date.now() + START_MS;
    while (
      spawnError === undefined &&
      child.exitCode === null &&
      child.signalCode === null &&
      Date.now() < until
    ) {
      if (await isReady().catch(() => false)) {
        return { endpoint: `http://127.0.0.1:${port}`, port, pid: child.pid, stop };
      }
      await sleep(50);
    }
    failure = spawnError?.message ?? readFileSync(log, 'utf8').slice(-2000);
    await stop(); // another process may have taken the port: again, with another
  }
  throw new Error(`${name} does not start: ${failure}`);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  child.once('exit', () => resolve());
  child.kill('SIGTERM');
  const late = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await promise;
  clearTimeout(late);
}

function foreign(endpoint: string): Emulator {
  const url = new URL(endpoint);
  const port = Number(url.port || (url.protocol === 'https:' ? 443 : 80));
  return { endpoint: url.origin, port, pid: undefined, stop: async () => undefined };
}

export async function freePort(): Promise<number> {
  const server = net.createServer();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  const { port } = server.address() as net.AddressInfo;
  const closed = Promise.withResolvers<void>();
  server.close(() => closed.resolve());
  await closed.promise;
  return port;
}

/** A name for a bucket or table that no other run has, also on a server of the person's own. */
export function ownName(): string {
  return `walvault-test-${randomBytes(6).toString('hex')}`;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function sleep(ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(resolve, ms);
  await promise;
}
