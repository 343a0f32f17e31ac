/**
 * A vault, its primary and its standbys on this machine, set up the person's way: by `bin/walvault` and pg_ctl only.
 *
 * Whatever fails in a test that opened a site, the end of every log of it is printed.
 */
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
import type { Vault } from '../../core/vault/vault.ts';
import { readStatus, type Status } from '../../core/work/status.ts';
import { recordingCrashes } from './crashes.ts';
import type { Pair } from './pairs.ts';
import { cleanEnvironment, TestServer } from './postgres.ts';
import { listProcesses, makeScratch, removeScratch, waitFor } from './scratch.ts';
import { type Contents, VaultView } from './vault-view.ts';
import { openTestVault, type TestVault } from './vaults.ts';
import { type Answer, endOf, walvaultFile } from './walvault-command.ts';

export { walvaultFile, type Answer } from './walvault-command.ts';

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
  /** Another `walvault` than that of this checkout. */
  program?: string;
  /** Folder of other programs of PostgreSQL than those of pair.major. */
  postgresBin?: string;
  /** More in the environment of single servers, and so of their hooks and agents. */
  nodeEnv?: Readonly<Record<string, NodeJS.ProcessEnv>>;
  /** PATH and HOME of the person and of the servers, where they are not the tests' own. */
  machine?: { PATH: string; HOME: string };
};

/** How a node comes to its vault. */
export type Way = Pick<TestVault, 'url' | 'direct' | 'env'>;

const sites = new Set<TestSite>();

export class TestSite {
  readonly pair: Pair;
  readonly scratch: string;
  readonly folder: string;
  readonly vault: TestVault;
  readonly cluster = 'main';
  readonly servers = new Map<string, TestServer>();
  protected readonly options: SiteOptions;
  protected readonly wayOf: (node?: string) => Way;
  private nextPort = 5432;

  protected constructor(
    options: SiteOptions,
    scratch: string,
    vault: TestVault,
    /** The vault of a node, and its way there; of the person where no node is named. One vault for all, unless a site has more. */
    wayOf: (node?: string) => Way = () => vault,
  ) {
    this.wayOf = wayOf;
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

  /** The environment of the servers, which have no more of walvault's than credentials (and where deaths are written down, in a run that asks). */
  serverEnvOf(node?: string): NodeJS.ProcessEnv {
    return {
      HOME: path.join(this.scratch, 'home'),
      TEST_SCRATCH: this.scratch,
      ...recordingCrashes(this.pair.vault),
      ...this.options.machine,
      ...this.wayOf(node).env,
      ...this.options.nodeEnv?.[node ?? ''],
    };
  }

  /** The environment of the person, who stands at `node` or at none. */
  personEnvOf(node?: string): NodeJS.ProcessEnv {
    return {
      ...cleanEnvironment(),
      ...this.serverEnvOf(node),
      PGUSER: 'postgres',
      PGDATABASE: 'postgres',
      WALVAULT_VAULT: this.wayOf(node).url,
      WALVAULT_CLUSTER: this.cluster,
      ...this.options.walvault,
    };
  }

  get segmentMiB(): number {
    return this.options.segmentSizeMiB ?? 16;
  }

  get serverEnv(): NodeJS.ProcessEnv {
    return this.serverEnvOf();
  }

  get personEnv(): NodeJS.ProcessEnv {
    return this.personEnvOf();
  }

  /** A server of this site that nothing has been made of yet. */
  declare(node: string): TestServer {
    const server = new TestServer({
      major: this.pair.major,
      pgdata: path.join(this.folder, node),
      sockets: path.join(this.scratch, 's'),
      port: this.nextPort++,
      env: this.serverEnvOf(node),
      ...(this.options.postgresBin === undefined ? {} : { bin: this.options.postgresBin }),
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
    // a new emulator takes its time for the first table, whatever limit the nodes of this site have
    await this.ok(
      'init',
      ...this.vault.initArgs,
      '--vault-timeout',
      '1m',
      '--pgdata',
      server.pgdata,
      '--node',
      node,
    );
    await this.ok('configure', 'primary', '--pgdata', server.pgdata, '--node', node);
    await server.start();
    return server;
  }

  /** A base backup, and until the history file that PostgreSQL archives of it has gone the same way: the command does not wait for that. */
  async backup(node = 'db1'): Promise<void> {
    const server = this.server(node);
    await this.ok('backup', '--pgdata', server.pgdata, '--node', node);
    await waitFor('the history file of the backup is archived', 60_000, () =>
      server.archiveStatus('ready').every((name) => !name.endsWith('.backup')),
    );
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

  /** One command of the person, with whatever end it takes; typed at the node that `--node` names. */
  async walvault(...args: string[]): Promise<Answer> {
    return await this.walvaultAt(nodeIn(args), ...args);
  }

  async walvaultAt(node: string | undefined, ...args: string[]): Promise<Answer> {
    return await endOf(this.options.program ?? walvaultFile, args, {
      env: this.personEnvOf(node),
      cwd: this.scratch,
    });
  }

  /** Standard output of a command that must succeed. */
  async ok(...args: string[]): Promise<string> {
    return await this.okAt(nodeIn(args), ...args);
  }

  async okAt(node: string | undefined, ...args: string[]): Promise<string> {
    const answer = await this.walvaultAt(node, ...args);
    if (answer.status !== 0)
      throw new Error(
        `walvault ${args.join(' ')} ended with ${answer.status}:\n${answer.stdout}${answer.stderr}`,
      );
    return answer.stdout;
  }

  /** `walvault status --json` of the vault of `node`, without a process of its own each time a wait looks (0.2 s of CPU, 1 s on a slow machine). */
  async status(node?: string): Promise<Status> {
    return await this.viewOf(node).withCluster((cluster) => readStatus(cluster));
  }

  /** Until the vault of `to` knows it as a standby in order that reached the end of its backup, and no more as what it was before. */
  async canBeTarget(to: string): Promise<void> {
    await waitFor(`${to} can be a target`, 20_000, async () => {
      const [row] = await this.viewOf(to).rows(`node#${to}`);
      return row?.['consistent'] === true && row['role'] === 'standby' && row['trouble'] === null;
    });
  }

  /** The trigger, once `to` can be its target. */
  async trigger(mode: 'smart' | 'fast', to: string, ...args: string[]): Promise<void> {
    await this.canBeTarget(to);
    await this.okAt(to, 'trigger', mode, '--to', to, '--yes', ...args);
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
    await this.holds(name, withinMs, node);
    return name;
  }

  /** Until the head of the vault (of `node`) has reached the segment `name`. */
  async holds(name: string, withinMs = 60_000, node?: string): Promise<void> {
    await waitFor(
      `the vault holds ${name}`,
      withinMs,
      async () => ((await this.status(node)).lastSegment ?? '') >= name,
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

  /** The vault of `node`, read past proxies and agents. */
  protected viewOf(node?: string): VaultView {
    return new VaultView(this.wayOf(node).direct, this.cluster);
  }

  async contents(): Promise<Contents> {
    return await this.viewOf().contents();
  }

  /** Rows of this cluster's partition whose names begin so. */
  async rows(prefix: string): Promise<Record<string, unknown>[]> {
    return await this.viewOf().rows(prefix);
  }

  async events(kind: string): Promise<string[]> {
    return await this.viewOf().events(kind);
  }

  async withVault<T>(use: (vault: Vault) => Promise<T>): Promise<T> {
    return await this.viewOf().with(use);
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
    return await endOf(path.join(this.state(node), name), args, { env: server.env, cwd: server.pgdata });
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

  /** How many agents of `node` have begun so far, by its log. */
  agentsBegun(node: string): number {
    const log = path.join(this.state(node), 'agent.log');
    const begun = new RegExp(` agent \\d+ of ${node} `, 'g');
    return existsSync(log) ? (readFileSync(log, 'utf8').match(begun)?.length ?? 0) : 0;
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

/** `db1` of `… --node db1 …`: such a command is always typed on that node. */
function nodeIn(args: string[]): string | undefined {
  const at = args.indexOf('--node');
  return at === -1 ? undefined : args[at + 1];
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
