/**
 * What the witness function asks for in each of its three configurations, recorded on an emulator, held against the policy that the stack gives it
 * then: nothing is missing, and nothing is allowed that it never asks for. KMS is asked by S3 on its behalf, and seen by nobody here.
 */
import { createVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { armSpill } from '../../core/work/arm.ts';
import type { Cluster } from '../../core/work/cluster.ts';
import { openReplica, relayPass } from '../../core/work/relay.ts';
import { commitSpill } from '../../core/work/spill-commit.ts';
import { storeFile, type StoredFile } from '../../core/work/store-file.ts';
import { handler, type Watched } from '../../lambdas/witness.ts';
import { makeBucket } from '../harness/buckets.ts';
import { seatOf, newStandby, segment } from '../harness/fake-node.ts';
import { listOf, matches, statementsOf, type Policy, type Request, type Statement } from '../harness/iam.ts';
import { requestsAsIam } from '../harness/iam-requests.ts';
import { promote } from '../harness/promotions.ts';
import { startEmulation, type Emulation } from '../harness/relay-site.ts';
import { segmentBytes } from '../harness/segments.ts';
import { ACCOUNT, synthesise, type DeployedTemplate } from '../harness/template.ts';
import { WitnessedCluster } from '../harness/witnessed-cluster.ts';

jest.setTimeout(120_000);

const [HERE, THERE] = ['eu-west-1', 'eu-central-1'];
const PAIR = `[regions]\nprimary = "${HERE}"\ndr = "${THERE}"\n`;

let emulation: Emulation;
const urls: Record<string, string> = {};
/** The test's own hands: past the proxy, by the URLs that the function knows. */
let a: Vault, b: Vault;
let site: WitnessedCluster;
let number = 0;

beforeAll(async () => {
  emulation = await startEmulation();
  for (const region of [HERE, THERE]) {
    const bucket = await makeBucket(emulation.emulator.endpoint, `walvault-${ACCOUNT}-${region}`, region);
    urls[region!] = `s3://${bucket}?table=walvault&region=${region}`;
  }
  process.env['AWS_ENDPOINT_URL'] = emulation.emulator.endpoint;
  a = await createVault(urls[HERE!]!, { createTable: true });
  b = await createVault(urls[THERE!]!, { createTable: true });
  for (const vault of [a, b]) {
    await vault.bucket.get('x'); // the way is taken up at the first call
    await vault.manifest.get({ pk: 'x', sk: 'x' });
  }
  Object.assign(process.env, {
    ...{ AWS_ENDPOINT_URL: emulation.proxy.endpoint, WALVAULT_WITNESS_INTERVAL: '200ms' },
  });
}, 60_000);
afterAll(async () => {
  for (const vault of [a, b]) await vault?.close();
  await emulation?.close();
});
afterEach(() => site?.close());

/** What the function asks for, as IAM is asked. */
async function recorded(
  region: string,
  settings: Record<string, string>,
  work: () => Promise<unknown>,
): Promise<Request[]> {
  Object.assign(process.env, {
    ...{ WALVAULT_VAULT: urls[region], AWS_REGION: region, WALVAULT_AUTO_FAILOVER: 'off' },
    ...{ WALVAULT_DR_FAILOVER: 'off', ...settings },
  });
  emulation.proxy.requests.length = 0;
  await work();
  return emulation.proxy.requests.flatMap((asked) => requestsAsIam(asked, ACCOUNT));
}
const watch = (seconds: number): Promise<Record<string, Watched>> =>
  handler({ seconds }, { getRemainingTimeInMillis: () => 150_000 });

const roleOf = ({ region }: DeployedTemplate): string => `walvault-${region}-witness`;
function missing(template: DeployedTemplate, asked: readonly Request[]): unknown[] {
  expect(asked.length).toBeGreaterThan(20);
  const refused = asked.filter((request) => !template.may(roleOf(template), request));
  return [...new Set(refused.map(({ action, resource }) => `${action} ${resource}`))];
}
/**
 * S3 asks KMS, Lambda writes the log; who may list is told that an object is not there; and a history is read where an earlier take-over, which
 * was broken off, has put it.
 */
const UNSEEN = /^(kms:|logs:|s3:ListBucket |s3:GetObject \S+\/history\/)/;
/** Actions on a place, allowed to the witness of either region, that none of them asked for. */
function idle(templates: readonly DeployedTemplate[], asked: readonly Request[]): string[] {
  const anyRegion = (resource: string) => resource.replaceAll(new RegExp(`${HERE}|${THERE}`, 'g'), '*');
  const statements = templates.flatMap((template) => {
    const { Policies } = template.one('AWS::IAM::Role', { RoleName: roleOf(template) }).Properties;
    return statementsOf(
      (Policies as { PolicyDocument: Policy }[]).map(({ PolicyDocument }) => PolicyDocument),
    );
  });
  const unused = statements.flatMap((statement) =>
    listOf(statement.Action).flatMap((action) =>
      listOf(statement.Resource)
        .filter((place) => {
          const alone = {
            ...statement,
            ...{ Action: action, Resource: anyRegion(place), Condition: undefined },
          } as unknown as Statement;
          return !UNSEEN.test(`${action} ${place}`) && !asked.some((request) => matches(alone, request));
        })
        .map((place) => `${action} ${anyRegion(place)}`),
    ),
  );
  return [...new Set(unused)];
}

const replica = async (): Promise<Cluster> => {
  const there = await openReplica(site.cluster, b);
  await relayPass(site.cluster, there);
  return there;
};

test('one that only watches reads, here and in the active vault, and writes nothing but rows beside control', async () => {
  const { primary, dr } = synthesise(PAIR);
  site = await WitnessedCluster.open(a, `seen${++number}`);
  await replica();
  const here = await recorded(HERE!, {}, async () => {
    await watch(1);
    await site.die();
    await watch(4);
  });
  const there = await recorded(THERE!, {}, () => watch(4));
  expect((await site.events('silent')).length).toBe(1);
  expect([missing(primary, here), missing(dr!, there)]).toEqual([[], []]);
  expect(idle([primary, dr!], [...here, ...there])).toEqual([]);
});

/** What the primary could not get into its own vault. */
async function spillInto(there: Cluster): Promise<void> {
  await armSpill(site.cluster, there);
  await relayPass(site.cluster, there);
  const bytes = segmentBytes(segment(1, 3));
  const stored = await storeFile(there, { node: 'db1', epoch: 1 }, { name: segment(1, 3), bytes });
  const spiller = seatOf('db1', 'host-db1:/pg', { epoch: 1, nonce: '', next: null });
  await commitSpill(there, spiller, [stored as StoredFile]);
}

test('one that triggers may raise the epoch here, and fence the replica into which the primary spills', async () => {
  const { primary } = synthesise(`${PAIR}[witness]\nauto_failover = "on"`);
  site = await WitnessedCluster.open(a, `seen${++number}`);
  await spillInto(await replica());
  await site.die();
  const asked = await recorded(HERE!, { WALVAULT_AUTO_FAILOVER: 'on' }, () => watch(10));
  expect(await site.standing()).toMatchObject({ primary: 'db2' });
  expect((await site.events('home')).length).toBe(1);
  expect(missing(primary, asked)).toEqual([]);
  expect(idle([primary], asked)).toEqual([]);
});

test('one that takes over from a replica may carry what is missing, fence the active vault, and make the replica active', async () => {
  const { dr } = synthesise(`${PAIR}[witness]\ndr_failover = "on"`);
  const asked: Request[] = [];
  const takesOver = async (there: Cluster) => {
    await site.die('db2'); // no standby is fit here
    await site.follow('dr1', there);
    asked.push(...(await recorded(THERE!, { WALVAULT_DR_FAILOVER: 'on' }, () => watch(12))));
    expect(await site.standing(there)).toMatchObject({ primary: 'dr1' });
    await site.close();
  };
  site = await WitnessedCluster.open(a, `seen${++number}`);
  const spilled = await replica();
  await spillInto(spilled);
  await site.die();
  await takesOver(spilled);

  site = await WitnessedCluster.open(a, `seen${++number}`);
  const there = await replica();
  const db3 = await newStandby(site.cluster, 'db3');
  await promote(site.cluster, db3, 3);
  await db3.archive(segment(2, 3));
  await site.die();
  await site.lead(db3);
  await site.die('db3');
  await takesOver(there);
  expect(missing(dr!, asked)).toEqual([]);
  expect(idle([dr!], asked)).toEqual([]);
});
