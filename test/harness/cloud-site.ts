/**
 * A site whose vaults are those of a deployed cloud: servers and person reach them with the keys of the roles they have. Set up the
 * person's way, as TestSite is.
 */
import path from 'node:path';
import { Cloud, type Side } from './cloud.ts';
import type { TestServer } from './postgres.ts';
import { makeScratch, removeScratch } from './scratch.ts';
import { type SiteOptions, TestSite, type Way } from './site.ts';
import type { TestVault } from './vaults.ts';
import { VaultView } from './vault-view.ts';

export class CloudSite extends TestSite {
  readonly cloud: Cloud;
  /** The region that a node lies in; the primary one where none is said. */
  private readonly regions = new Map<string, Side>();
  private readonly ways: Record<'node' | 'person', Record<Side, Record<string, string>>>;

  private constructor(
    options: SiteOptions,
    scratch: string,
    cloud: Cloud,
    ways: Record<'node' | 'person', Record<Side, Record<string, string>>>,
  ) {
    const vault: TestVault = {
      ...{
        url: cloud.url('primary'),
        direct: cloud.direct('primary'),
        env: ways.person.primary,
        initArgs: [],
      },
      goAway: () => Promise.reject(new Error('the proxy of the cloud disturbs single calls')),
      comeBack: async () => {},
      close: () => cloud.close(),
    };
    super(options, scratch, vault, (node) => this.wayTo(node));
    this.cloud = cloud;
    this.ways = ways;
  }

  /**
   * Both stacks, deployed; nothing else runs yet.
   *
   * @param auth  IAM is asked, and everybody has a role; else all are root
   */
  static async deploy(
    options: SiteOptions,
    { auth = false, config = '' } = {},
  ): Promise<{ site: CloudSite; said: string }> {
    const scratch = makeScratch();
    const cloud = await Cloud.open(path.join(scratch, 'cloud'), { auth, config });
    try {
      return await CloudSite.onCloud(options, scratch, cloud, auth);
    } catch (error) {
      await cloud.close();
      await removeScratch(scratch);
      throw error;
    }
  }

  private static async onCloud(
    options: SiteOptions,
    scratch: string,
    cloud: Cloud,
    auth: boolean,
  ): Promise<{ site: CloudSite; said: string }> {
    const said = await cloud.cdk('deploy');
    const own = async (role: 'node-writer' | 'operator', side: Side) =>
      auth ? await cloud.roleEnv(role, side) : cloud.rootEnv();
    if (auth) await cloud.fitToEmulator();
    const ways = {
      node: { primary: await own('node-writer', 'primary'), dr: await own('node-writer', 'dr') },
      person: { primary: await own('operator', 'primary'), dr: await own('operator', 'dr') },
    };
    return { site: new CloudSite(options, scratch, cloud, ways), said };
  }

  /** From now on this node lies in that region: its vault is the one there. */
  settle(node: string, side: Side): void {
    this.regions.set(node, side);
  }

  private wayTo(node?: string): Way {
    const side = (node === undefined ? undefined : this.regions.get(node)) ?? 'primary';
    const env = this.ways[node === undefined ? 'person' : 'node'][side];
    return { url: this.cloud.url(side), direct: this.cloud.direct(side), env };
  }

  /** As makePrimary, with the line that the deployment prints, typed by the operator. */
  async makePrimaryBy(initLine: string, node = 'db1'): Promise<TestServer> {
    const server = this.declare(node);
    const { segmentSizeMiB = 16, settings = {} } = this.options;
    await server.initdb({ segmentSizeMiB, settings });
    const [program, ...words] = initLine
      .split(' ')
      .map((word) => word.replaceAll("'", '').replace('$PGDATA', server.pgdata));
    if (program !== 'walvault') throw new Error(`'${initLine}' is no line of walvault`);
    await this.okAt(undefined, ...words);
    await this.ok('configure', 'primary', '--pgdata', server.pgdata, '--node', node);
    await server.start();
    return server;
  }

  view(side: Side): VaultView {
    return new VaultView(this.cloud.direct(side), this.cluster);
  }
}
