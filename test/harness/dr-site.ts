/**
 * Two vaults at one site: the primary's A and its replica B, a relay between them, nodes at either, and every way between a node and a
 * vault to be cut alone. Set up the person's way, as TestSite is.
 *
 * A command with `--node`, or given by okAt() and walvaultAt(), is typed on that node and goes the node's way to the node's vault; one
 * without by the person, who has ways of their own and means A unless `--vault` says otherwise. A URL that stands in a vault (of its
 * source, of the vault whose place it took) is the one that somebody typed: with file: vaults it leads whoever follows it over the way
 * of the one who typed it, most often the relay's.
 */
import path from 'node:path';
import type { Status } from '../../core/work/status.ts';
import type { TestServer } from './postgres.ts';
import type { ProxyMode } from './proxy.ts';
import { makeScratch, waitFor } from './scratch.ts';
import { type SiteOptions, TestSite, type Way } from './site.ts';
import { openVaultPair, type VaultName, vaultNames, type VaultPair } from './vault-pair.ts';
import { VaultView } from './vault-view.ts';
import type { TestVault } from './vaults.ts';
import { type Answer, RunningCommand } from './walvault-command.ts';

export type { VaultName } from './vault-pair.ts';

export type DrSiteOptions = SiteOptions & {
  /** Every node that will ever be declared: each has its ways from the beginning. */
  nodes?: readonly string[];
};

export type Direction = { from?: VaultName; to?: VaultName };

const PERSON = 'person';
const RELAY = 'relay';

export class DrSite extends TestSite {
  private readonly ways: VaultPair;
  private readonly parties: readonly string[];
  /** The vault that a node belongs to; A where none is said. */
  private readonly homes = new Map<string, VaultName>();
  private readonly commands: RunningCommand[] = [];

  private constructor(options: DrSiteOptions, scratch: string, ways: VaultPair, parties: readonly string[]) {
    const vault: TestVault = {
      url: ways.url('A', PERSON),
      direct: ways.direct('A'),
      env: ways.env(PERSON),
      initArgs: [],
      goAway: async (mode = 'refuse') => this.cut('A', 'everybody', mode),
      comeBack: async () => this.mend('A'),
      close: () => ways.close(),
    };
    super(options, scratch, vault, (node) => this.wayTo(node));
    this.ways = ways;
    this.parties = parties;
  }

  /** Two empty vaults; nothing runs yet. */
  static override async open(options: DrSiteOptions): Promise<DrSite> {
    const scratch = makeScratch();
    const parties = [PERSON, RELAY, ...(options.nodes ?? ['db1', 'db2', 'db3', 'dr1', 'dr2'])];
    const folder = path.join(scratch, `v${options.vaultPiece ?? ''}`);
    return new DrSite(options, scratch, await openVaultPair(options.pair.vault, folder, parties), parties);
  }

  /** From now on `node` belongs to this vault: commands at it mean this one. */
  settle(node: string, vault: VaultName): void {
    this.homes.set(node, vault);
  }

  private wayTo(node: string = PERSON): Way {
    const vault = this.homes.get(node) ?? 'A';
    return { url: this.url(vault, node), direct: this.ways.direct(vault), env: this.ways.env(node) };
  }

  /** The vault's URL as this party writes it: a node, 'relay' or 'person'. */
  url(vault: VaultName, party: string = PERSON): string {
    if (!this.parties.includes(party)) throw new Error(`${party} is not among the nodes of this site`);
    return this.ways.url(vault, party);
  }

  /** From now on `party` does not reach `vault`, while the others do. */
  cut(vault: VaultName, party: 'everybody' | (string & {}) = 'everybody', mode: ProxyMode = 'refuse'): void {
    for (const one of party === 'everybody' ? this.parties : [party]) this.ways.cut(vault, one, mode);
  }

  /** Each answer of `vault`, to everybody, is so late from now on; s3 only. */
  slow(vault: VaultName, delayMs: number): void {
    for (const one of this.parties) this.ways.slow(vault, one, delayMs);
  }

  mend(vault: VaultName, party: 'everybody' | (string & {}) = 'everybody'): void {
    for (const one of party === 'everybody' ? this.parties : [party]) this.ways.mend(vault, one);
  }

  /** A standby that follows B. */
  async addDrStandby(node: string, options?: Parameters<TestSite['addStandby']>[1]): Promise<TestServer> {
    this.settle(node, 'B');
    return await this.addStandby(node, options);
  }

  /** A vault read past proxies and agents. */
  view(vault: VaultName): VaultView {
    return new VaultView(this.ways.direct(vault), this.cluster);
  }

  /** What a vault says, asked by the person or at a node. */
  async statusOf(vault: VaultName, party: string = PERSON): Promise<Status> {
    const url = this.url(vault, party);
    return JSON.parse(await this.okAt(party, 'status', '--json', '--vault', url)) as Status;
  }

  /** One pass of the relay, with whatever end it takes. */
  async relayOnce(direction?: Direction, ...args: string[]): Promise<Answer> {
    return await this.walvaultAt(RELAY, ...this.relayWords(direction), ...args);
  }

  /** `relay --follow` as a process of its own. @param env  e.g. WALVAULT_CRASH_AT */
  startRelay(
    direction?: Direction,
    { args = [] as string[], env = {} as NodeJS.ProcessEnv } = {},
  ): RunningCommand {
    return this.startAt(RELAY, [...this.relayWords(direction), '--follow', ...args], env);
  }

  /** Any command that runs on, typed by this party; it ends with the site at the latest. */
  startAt(party: string, words: string[], env: NodeJS.ProcessEnv = {}): RunningCommand {
    const command = new RunningCommand(words, {
      env: { ...this.personEnvOf(party), ...env },
      cwd: this.scratch,
    });
    this.commands.push(command);
    return command;
  }

  private relayWords({ from = 'A', to = 'B' }: Direction = {}): string[] {
    const urls = ['--from', this.url(from, RELAY), '--to', this.url(to, RELAY)];
    return ['relay', ...urls, '--cluster', this.cluster, '--json'];
  }

  /** Until `to` has what `from` had when this was called: its head is as far, on the same timeline. */
  async relayed({ from = 'A', to = 'B' }: Direction = {}, withinMs = 60_000): Promise<void> {
    const { head } = await this.view(from).heart();
    await waitFor(`${to} holds all of ${from} up to ${head.lastFile}`, withinMs, async () => {
      const there = (await this.view(to).heart()).head;
      if (there.timeline !== head.timeline) return there.timeline > head.timeline;
      return (there.lastFile ?? '') >= (head.lastFile ?? '');
    });
  }

  /** The end of every log of this site, and of every command that ran on. */
  override logs(): string {
    const said = this.commands.map(
      ({ args, ended, stdout, stderr }) =>
        `--- walvault ${args.join(' ')} (${ended === undefined ? 'runs' : `ended with ${ended}`}) ---\n` +
        `${stdout.slice(-3000)}${stderr.slice(-3000)}`,
    );
    return [super.logs(), ...said].join('\n');
  }

  override async close(): Promise<void> {
    for (const vault of vaultNames) this.mend(vault);
    for (const command of this.commands) await command.kill().catch(() => {});
    await super.close();
  }
}
