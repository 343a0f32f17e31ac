/**
 * A vault, its primary and its standbys on this machine, set up the person's way: by `bin/walvault` and pg_ctl only.
 *
 * Whatever fails in a test that opened a site, the end of every log of it is printed.
 */
import { execFile } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import type { WalRow } from '../../core/cluster/facts.ts';
import { after } from '../../core/vault/manifest.ts';
import { openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { openCluster } from '../../core/work/cluster.ts';
import type { Status } from '../../core/work/status.ts';
import type { Pair } from './pairs.ts';
import { cleanEnvironment, TestServer } from './postgres.ts';
import { listProcesses, makeScratch, removeScratch, waitFor } from './scratch.ts';
import { openTestVault, type TestVault } from './vaults.ts';

export const walvaultFile = path.resolve(import.meta.dirname, '../../bin/walvault');

export type Answer = { status: number; stdout: string; stderr: string };

export type SiteOptions = {
  pair: Pair;
  segmentSizeMiB?: number;
  /** A piece of every path of nodes, e.g. with spaces and quotes; not `"`, `$`, `\\`, `` ` ``: pg_ctl cannot start a server there. */
  pathPiece?: string;
  /** The same for the vault. */
  vaultPiece?: string;
  linkedWal?: boolean;
  settings?: Record<string, string>;
  /** Settings of walvault, as variables of the person: WALVAULT_… */
  walvault?: Record<string, string>;
};

const sites = new Set<TestSite>();

export class TestSite {
  readonly pair: Pair;
  readonly scratch: string;
  readonly folder: string;
  readonly vault: TestVault;
  readonly cluster = 'main';
  readonly servers = new Map<string, TestServer>();
  private readonly options: SiteOptions;
  private nextPort = 5432;

  private constructor(options: SiteOptions, scratch: string, vault: TestVault) {
    this.options = options;
    this.pair = options.pair;
    this.scratch = scratch;
    this.folder = path.join(scratch, `nodes${options.pathPiece ?? ''}`);
    this.vault = vault;
    mkdirSync(path.join(scratch, 's'));
    mkdirSync(path.join(scratch, 'home'));
    mkdirSync(this.folder);
    sites.add(this);
  }

  /** An empty vault; nothing runs yet. */
  static async open(options: SiteOptions): Promise<TestSite> {
    const scratch = makeScratch();
    return new TestSite(
      options,
      scratch,
      await openTestVault(options.pair.vault, path.join(scratch, `v${options.vaultPiece ?? ''}`)),
    );
  }

  /** The environment of the person, and of the servers (which have no more of walvault's than credentials). */
  get serverEnv(): NodeJS.ProcessEnv {
    return { HOME: path.join(this.scratch, 'home'), TEST_SCRATCH: this.scratch, ...this.vault.env };
  }

  get personEnv(): NodeJS.ProcessEnv {
    return {
      ...cleanEnvironment(),
      ...this.serverEnv,
      PGUSER: 'postgres',
      PGDATABASE: 'postgres',
      WALVAULT_VAULT: this.vault.url,
      WALVAULT_CLUSTER: this.cluster,
      ...this.options.walvault,
    };
  }

  /** A server of this site that nothing has been made of yet. */
  declare(node: string): TestServer {
    const server = new TestServer({
      major: this.pair.major,
      pgdata: path.join(this.folder, node),
      sockets: path.join(this.scratch, 's'),
      port: this.nextPort++,
      env: this.serverEnv,
    });
    this.servers.set(node, server);
    return server;
  }

  server(node: string): TestServer {
    const server = this.servers.get(node);
    if (server === undefined) throw new Error(`no server ${node} in this site`);
    return server;
  }

  /** State directory of a node. */
  state(node: string): string {
    return `${this.server(node).pgdata}.walvault`;
  }

  /** initdb, start, `init`, `configure primary`, and the restart that it asks for. */
  async makePrimary(node = 'db1'): Promise<TestServer> {
    const server = this.declare(node);
    const walDir = this.options.linkedWal ? path.join(this.folder, `${node} wal`) : '';
    const { segmentSizeMiB = 16, settings = {} } = this.options;
    await server.initdb({ segmentSizeMiB, walDir, settings });
    await this.ok('init', ...this.vault.initArgs, '--pgdata', server.pgdata, '--node', node);
    await this.ok('configure', 'primary', '--pgdata', server.pgdata, '--node', node);
    await server.start();
    return server;
  }

  async backup(node = 'db1'): Promise<void> {
    await this.ok('backup', '--pgdata', this.server(node).pgdata, '--node', node);
  }

  /** `standby create` and its start; `settings` become --set. */
  async addStandby(
    node: string,
    { settings = {}, args = [] as string[], start = true } = {},
  ): Promise<TestServer> {
    const server = this.declare(node);
    const given = Object.entries(settings as Record<string, string>).flatMap(([name, value]) => [
      '--set',
      `${name}=${value}`,
    ]);
    const walArgs = this.options.linkedWal ? ['--waldir', path.join(this.folder, `${node} wal`)] : [];
    await this.ok(
      ...['standby', 'create', '--pgdata', server.pgdata, '--node', node, '--port', String(server.port)],
      ...[...walArgs, ...given, ...args],
    );
    if (start) await server.start();
    return server;
  }

  /** One command of the person, with whatever end it takes. */
  async walvault(...args: string[]): Promise<Answer> {
    return await end(walvaultFile, args, { env: this.personEnv, cwd: this.scratch });
  }

  /** Standard output of a command that must succeed. */
  async ok(...args: string[]): Promise<string> {
    const answer = await this.walvault(...args);
    if (answer.status !== 0)
      throw new Error(
        `walvault ${args.join(' ')} ended with ${answer.status}:\n${answer.stdout}${answer.stderr}`,
      );
    return answer.stdout;
  }

  async status(): Promise<Status> {
    return JSON.parse(await this.ok('status', '--json')) as Status;
  }

  /** Waits until the vault knows `to` as a standby that reached the end of its backup: before that it is no target. */
  async trigger(mode: 'smart' | 'fast', to: string): Promise<void> {
    await waitFor(`${to} can be a target`, 20_000, async () => {
      const row = await this.withVault(async (vault) => {
        const { partition } = await openCluster(vault, this.cluster);
        return await vault.manifest.get({ pk: partition, sk: `node#${to}` });
      });
      return row?.['consistent'] === true;
    });
    await this.ok('trigger', mode, '--to', to, '--yes');
  }

  /** Ends the running segment of `node` and waits until the vault holds it. @returns its name */
  async archiveNow(node = 'db1', withinMs = 60_000): Promise<string> {
    const server = this.server(node);
    const name = String(
      await server.value(
        `SELECT pg_walfile_name(lsn) FROM (SELECT pg_create_restore_point('now') AS lsn) AS point`,
      ),
    );
    await server.query('SELECT pg_switch_wal()');
    await this.holds(name, withinMs);
    return name;
  }

  /** Until the head of the vault has reached the segment `name`. */
  async holds(name: string, withinMs = 60_000): Promise<void> {
    await waitFor(
      `the vault holds ${name}`,
      withinMs,
      async () => ((await this.status()).lastSegment ?? '') >= name,
    );
  }

  /** Until `node` has replayed all that `from` had written when this was called. */
  async caughtUp(node: string, from = 'db1', withinMs = 60_000): Promise<void> {
    const lsn = String(await this.server(from).value('SELECT pg_current_wal_lsn()'));
    await this.archiveNow(from, withinMs);
    await this.replayed(node, lsn, withinMs);
  }

  async replayed(node: string, lsn: string, withinMs = 60_000): Promise<void> {
    const standby = this.server(node);
    await waitFor(`${node} has replayed ${lsn}`, withinMs, async () =>
      Boolean(await standby.value('SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn', [lsn])),
    );
  }

  /** Until `node` takes writes. @returns ms it took from this call */
  async promoted(node: string, withinMs: number): Promise<number> {
    const since = performance.now();
    const server = this.server(node);
    await waitFor(
      `${node} is open for writes`,
      withinMs,
      async () => !(await server.value('SELECT pg_is_in_recovery()')),
    );
    return performance.now() - since;
  }

  /** What the vault holds, read past proxy and agents: WAL and history rows by name, and the keys of all objects. */
  async contents(): Promise<{ wal: Map<string, WalRow>; histories: string[]; objects: string[] }> {
    return await this.withVault(async (vault) => {
      const { partition } = await openCluster(vault, this.cluster);
      const wal = new Map<string, WalRow>();
      for await (const row of vault.manifest.query({ pk: partition, from: 'wal#', to: after('wal#') })) {
        wal.set(row.sk.slice('wal#'.length), row as unknown as WalRow);
      }
      const histories: string[] = [];
      for await (const row of vault.manifest.query({
        pk: partition,
        from: 'history#',
        to: after('history#'),
      }))
        histories.push(row.sk);
      const objects: string[] = [];
      for await (const object of vault.bucket.list('')) objects.push(object.key);
      return { wal, histories, objects };
    });
  }

  /** Events of one kind, oldest first, as their texts. */
  async events(kind: string): Promise<string[]> {
    return await this.withVault(async (vault) => {
      const { partition } = await openCluster(vault, this.cluster);
      const texts: string[] = [];
      for await (const row of vault.manifest.query({ pk: partition, from: 'event#', to: after('event#') })) {
        if (row['kind'] === kind) texts.push(String(row['text']));
      }
      return texts;
    });
  }

  async withVault<T>(use: (vault: Vault) => Promise<T>): Promise<T> {
    const vault = await openVault(this.vault.direct);
    try {
      return await use(vault);
    } finally {
      await vault.close();
    }
  }

  /** From now on each start of Node by a hook of `node` is a line of the returned file. */
  countNodeStarts(node: string): string {
    const link = path.join(this.state(node), 'node');
    const log = path.join(this.state(node), 'node-starts');
    const real = readlinkSync(link);
    writeFileSync(log, '');
    const counting = `${link}.counting`;
    writeFileSync(
      counting,
      `#!/bin/sh\nprintf '%s\\n' "$*" >> '${log.replaceAll("'", `'\\''`)}'\nexec '${real}' "$@"\n`,
    );
    chmodSync(counting, 0o755);
    rmSync(link);
    renameSync(counting, link);
    return log;
  }

  /** Calls a wrapper of `node` as its server would: in PGDATA, with the server's environment. */
  async hook(
    node: string,
    name: 'archive' | 'restore' | 'cleanup' | 'recovered',
    ...args: string[]
  ): Promise<Answer> {
    const server = this.server(node);
    return await end(path.join(this.state(node), name), args, { env: server.env, cwd: server.pgdata });
  }

  /** Processes of the agent of `node` that run. */
  agentPids(node: string): number[] {
    const state = this.state(node);
    return listProcesses()
      .filter(
        ({ command, state: run }) =>
          run !== 'Z' && command.includes('/agent.cjs') && command.includes(` ${state}`),
      )
      .map(({ pid }) => pid);
  }

  /** The end of every log of this site. */
  logs(): string {
    return [...this.servers]
      .flatMap(([node, server]) => [
        [`log of ${node}`, server.log()] as const,
        [`agent of ${node}`, tail(path.join(`${server.pgdata}.walvault`, 'agent.log'))] as const,
      ])
      .map(([title, text]) => `--- ${title} ---\n${text}`)
      .join('\n');
  }

  async close(): Promise<void> {
    sites.delete(this);
    for (const server of this.servers.values()) await server.stop('immediate').catch(() => {});
    await this.vault.close();
    await removeScratch(this.scratch);
  }
}

/** A command's end. @throws when it could not be started, or was killed */
async function end(
  file: string,
  args: string[],
  where: { env: NodeJS.ProcessEnv; cwd: string },
): Promise<Answer> {
  return await new Promise((resolve, reject) => {
    const child = execFile(
      file,
      args,
      { ...where, timeout: 120_000, maxBuffer: 64 << 20 },
      (error, stdout, stderr) => {
        if (error && typeof error.code !== 'number')
          reject(new Error(`${file} ${args.join(' ')}: ${error.message}\n${stderr}`));
        else resolve({ status: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
      },
    );
    child.stdin?.end();
  });
}

function tail(file: string): string {
  return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n').slice(-60).join('\n') : '(none)';
}

afterEach(() => {
  if (!(globalThis as { testHasFailed?: boolean }).testHasFailed) return;
  for (const site of sites) process.stderr.write(`${site.logs()}\n`);
});

afterAll(async () => {
  for (const site of [...sites]) await site.close();
});
