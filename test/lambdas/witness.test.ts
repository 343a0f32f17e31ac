/**
 * The witness function on S3 and DynamoDB (an emulator), with a primary that dies and a standby that lives on: who takes its place, what people are
 * told, and what two functions at once, a table that is not seen and a stop on purpose make of it.
 */
import { CloudWatchClient, GetMetricStatisticsCommand } from '@aws-sdk/client-cloudwatch';
import { keys, type WitnessRow } from '../../core/cluster/facts.ts';
import { METRICS, NAMESPACE, type MetricName } from '../../core/cluster/metrics.ts';
import { createVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { asRow } from '../../core/work/cluster.ts';
import { setMaintenance } from '../../core/work/maintenance.ts';
import { handler, type Watched, type WitnessCall } from '../../lambdas/witness.ts';
import type { AwsRequest } from '../harness/aws-proxy.ts';
import { makeBucket } from '../harness/buckets.ts';
import { ownName } from '../harness/emulators.ts';
import { startEmulation, type Emulation } from '../harness/relay-site.ts';
import { waitFor } from '../harness/scratch.ts';
import { LEASE_MS, WitnessedCluster } from '../harness/witnessed-cluster.ts';

const REGION = 'us-east-1';
/** A lease, its margin, and a little. */
const ENOUGH = (LEASE_MS + 1000) / 1000 + 3;

let emulation: Emulation;
let table: string;
/** Past the proxy. */
let vault: Vault;
let site: WitnessedCluster;
let number = 0;

beforeAll(async () => {
  emulation = await startEmulation();
});
afterAll(() => emulation?.close());
beforeEach(async () => {
  table = ownName();
  const url = `s3://${await makeBucket(emulation.emulator.endpoint)}/some/prefix?table=${table}&region=${REGION}`;
  const direct = `${url}&endpoint=${encodeURIComponent(emulation.emulator.endpoint)}`;
  vault = await createVault(direct, { createTable: true });
  Object.assign(process.env, {
    ...{ WALVAULT_VAULT: url, WALVAULT_WITNESS_INTERVAL: '200ms', WALVAULT_AUTO_FAILOVER: 'on' },
  });
  emulation.log.length = 0;
  emulation.proxy.requests.length = 0;
});
afterEach(async () => {
  emulation.proxy.calm();
  await site?.close();
  await vault.close();
});

const open = async (leaseMs?: number) => {
  site = await WitnessedCluster.open(vault, `seen${++number}`, leaseMs);
  return site;
};

function call(event: WitnessCall, leftMs = 150_000): Promise<Record<string, Watched>> {
  const until = performance.now() + leftMs;
  return handler(event, { getRemainingTimeInMillis: () => until - performance.now() });
}
const watch = async (seconds = ENOUGH): Promise<Watched> => {
  const { name } = site.cluster;
  return (await call({ cluster: name, seconds }))[name]!;
};
const rowOf = async ({ cluster } = site) =>
  (await cluster.vault.manifest.get(keys.witness(cluster.partition))) as WitnessRow | undefined;

/** Of the cluster, or of the vault as a whole. @returns undefined  none was put */
async function figure(metric: MetricName, cluster?: string): Promise<number | undefined> {
  const client = new CloudWatchClient({ region: REGION, endpoint: emulation.emulator.endpoint });
  const { Datapoints = [] } = await client.send(
    new GetMetricStatisticsCommand({
      ...{ Namespace: NAMESPACE, MetricName: METRICS[metric].name, Statistics: ['Maximum'], Period: 60 },
      ...{ StartTime: new Date(Date.now() - 600_000), EndTime: new Date(Date.now() + 600_000) },
      Dimensions: [
        { Name: 'Vault', Value: table },
        ...(cluster === undefined ? [] : [{ Name: 'Cluster', Value: cluster }]),
      ],
    }),
  );
  client.destroy();
  return Datapoints.length === 0 ? undefined : Math.max(...Datapoints.map(({ Maximum }) => Maximum!));
}

test('a primary that renews its lease is well, and that is said', async () => {
  await open();
  expect(await watch(2)).toMatchObject({ do: 'nothing', state: 'well', wasSilent: false });
  expect(await site.standing()).toEqual({ epoch: 1, primary: 'db1' });
  expect(await rowOf()).toMatchObject({ by: 'function', decision: { state: 'well' } });
  expect([await figure('primarySilent'), await figure('witnessDone', site.cluster.name)]).toEqual([0, 1]);
});

test('a primary that is silent for its whole lease: the standby takes its place, and it rings before the watch ends', async () => {
  await open();
  await site.die();
  let ended = false;
  const watched = watch(10).finally(() => (ended = true));
  await waitFor('the figure is put', 8000, async () => (await figure('primarySilent')) === 1);
  expect(ended).toBe(false);
  expect(await watched).toMatchObject({ state: 'pending', wasSilent: true });
  expect(await site.standing()).toEqual({ epoch: 2, primary: 'db2' });
  const [trigger, ...more] = await site.events('trigger');
  expect(more).toEqual([]);
  expect(trigger!.text).toContain('by the witness (function)');
  expect((await rowOf())!.lastFailover).toMatchObject({ epoch: 2, to: 'db2' });
});

test('two at once: one triggers, the other sees it, and neither fails', async () => {
  await open();
  await site.die();
  await Promise.all([watch(), watch(), watch()]);
  expect(await site.standing()).toEqual({ epoch: 2, primary: 'db2' });
  expect((await site.events('trigger')).length).toBe(1);
  expect((await site.events('silent')).length).toBe(1);
  expect(emulation.log.filter((line) => line.includes('"level":"error"'))).toEqual([]);
});

test('with auto_failover off people are told, once for all watches, and nobody takes its place', async () => {
  process.env['WALVAULT_AUTO_FAILOVER'] = 'off';
  await open();
  await site.die();
  await Promise.all([watch(), watch()]);
  expect(await watch()).toMatchObject({ do: 'warn', state: 'silent', to: 'db2', wasSilent: true });
  expect(await site.standing()).toEqual({ epoch: 1, primary: 'db1' });
  expect((await site.events('silent')).length).toBe(1);
  expect(await site.events('heard')).toEqual([]);
  expect(await figure('primarySilent', site.cluster.name)).toBe(1);
  // one that has just begun to look does not unsay it
  expect(await watch(1)).toMatchObject({ state: 'well' });
  expect(await rowOf()).toMatchObject({ decision: { do: 'warn', state: 'silent' } });
});

test('a primary that is heard again is told, once', async () => {
  process.env['WALVAULT_AUTO_FAILOVER'] = 'off';
  await open();
  await site.die();
  await watch();
  await site.live();
  await Promise.all([watch(2), watch(2)]);
  expect((await site.events('silent')).length).toBe(1);
  expect((await site.events('heard')).length).toBe(1);
});

test('a stop that was said before is none: nobody is told, nothing rings', async () => {
  await open();
  const [at, until] = [0, 3600_000].map((ms) => new Date(Date.now() + ms).toISOString());
  await setMaintenance(site.cluster, { at: at!, until: until!, by: 'a person' });
  await site.die();
  expect(await watch()).toMatchObject({ do: 'nothing', state: 'planned', wasSilent: false });
  expect(await site.standing()).toEqual({ epoch: 1, primary: 'db1' });
  expect(await site.events('silent')).toEqual([]);
  expect(await figure('primarySilent')).toBe(0);
});

describe('a table that is not seen', () => {
  const isTable = ({ service }: { service: string }) => service === 'dynamodb';

  /** What a look reads and a trigger does not: it is seen badly, and could be written. */
  const isOfNodes = ({ operation, rows }: AwsRequest) =>
    operation === 'Query' && rows.some(({ pk }) => pk === site.cluster.partition);

  test('while it throttles nothing is triggered, whatever was seen before; afterwards it is', async () => {
    await open();
    await site.die();
    const watched = watch(2 * ENOUGH);
    await waitFor('it looks', 5000, async () => (await rowOf()) !== undefined);
    emulation.proxy.disturb(isOfNodes, 'throttle');
    await watched;
    expect(await site.standing()).toEqual({ epoch: 1, primary: 'db1' });
    expect(await site.events('trigger')).toEqual([]);
    emulation.proxy.calm();
    await watch();
    expect(await site.standing()).toEqual({ epoch: 2, primary: 'db2' });
  });

  test('while each look takes long nothing is triggered', async () => {
    await open();
    await site.die();
    emulation.proxy.disturb(isOfNodes, { delayMs: 4000 });
    await expect(watch(14)).rejects.toThrow('the table was seen badly');
    expect(await site.standing()).toEqual({ epoch: 1, primary: 'db1' });
  });

  test('a watch that never saw it has failed, says so, and does not count as done', async () => {
    await open();
    emulation.proxy.disturb(
      (request) => isTable(request) && request.rows.some(({ sk }) => sk === 'head'),
      'throttle',
    );
    await expect(call({ cluster: site.cluster.name, seconds: 2 })).rejects.toThrow(
      `the watch failed for ${site.cluster.name}: `,
    );
    expect(await figure('witnessDone')).toBeUndefined();
  });
});

test('a cluster that cannot be watched does not keep the others from it', async () => {
  await open();
  const lost = `lost${number}`;
  const entry = { ...keys.clusterEntry(lost), rev: 1, systemIdentifier: '1', at: '' };
  await vault.manifest.transact([{ do: 'put', row: asRow(entry), when: 'absent' }]);
  await site.die();
  await expect(call({ seconds: ENOUGH })).rejects.toThrow(`the watch failed for ${lost}: no cluster ${lost}`);
  expect(await site.standing()).toEqual({ epoch: 2, primary: 'db2' });
  expect([await figure('witnessDone', site.cluster.name), await figure('witnessDone', lost)]).toEqual([
    1,
    undefined,
  ]);
});

test('a vault that holds no cluster yet is watched, too', async () => {
  expect(await call({ seconds: 1 })).toEqual({});
  expect(await figure('witnessDone')).toBe(1);
});

test('a lease that is longer than a watch can see is said once a watch', async () => {
  await open(180_000);
  await watch(1);
  const said = emulation.log.filter((line) => line.includes('too long for a watch'));
  expect(said.map((line) => (JSON.parse(line) as { level: string }).level)).toEqual(['error']);
  expect(said[0]).toContain("it warns, and never triggers; run 'walvault witness' as a process");
});

test('it ends before Lambda ends it, and takes no time that is none', async () => {
  await open();
  const begun = performance.now();
  await call({ cluster: site.cluster.name }, 10_000);
  expect(performance.now() - begun).toBeLessThan(10_000);
  for (const seconds of [0, -1, 116, '20'])
    await expect(call({ seconds: seconds as number })).rejects.toMatchObject({ code: 'usage' });
});
