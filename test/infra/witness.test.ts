/**
 * The witness function deployed by the command that a person types, and run by the emulator: a primary that dies, one that dies on purpose, and
 * one where nobody asked for more than a warning. The servers are played; test/system has real ones.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import {
  GetFunctionConfigurationCommand,
  LambdaClient,
  UpdateFunctionConfigurationCommand,
} from '@aws-sdk/client-lambda';
import path from 'node:path';
import { openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { setMaintenance } from '../../core/work/maintenance.ts';
import { Cloud, REGION, rootCredentials } from '../harness/cloud.ts';
import { makeScratch, removeScratch } from '../harness/scratch.ts';
import { WitnessedCluster } from '../harness/witnessed-cluster.ts';

let scratch: string;
let cloud: Cloud;
let vault: Vault;
let site: WitnessedCluster;

beforeAll(async () => {
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    AWS_EC2_METADATA_DISABLED: 'true',
  });
  scratch = makeScratch();
  cloud = await Cloud.open(path.join(scratch, 'cloud'), {
    config: 'witness = { auto_failover = "on", witness_interval = "200ms" }',
  });
  await cloud.cdk('deploy');
  vault = await openVault(cloud.direct('primary'));
});
afterEach(() => site?.close());
afterAll(async () => {
  await vault?.close();
  await cloud?.close();
  await removeScratch(scratch);
});

const watch = async () => {
  const { name } = site.cluster;
  const seen = (await cloud.invoke('witness', { cluster: name, seconds: 9 })) as Record<string, object>;
  return seen[name];
};

test('a primary that is silent: one of two watches has the standby take its place', async () => {
  site = await WitnessedCluster.open(vault, 'dies');
  await site.die();
  const seen = await Promise.all([watch(), watch()]);
  for (const each of seen) expect(each).toMatchObject({ wasSilent: true });
  expect(await site.standing()).toEqual({ epoch: 2, primary: 'db2' });
  const [trigger, ...more] = await site.events('trigger');
  expect([more, trigger!.node]).toEqual([[], 'db2']);
  expect(trigger!.text).toContain('by the witness (function)');
});

test('one that was stopped on purpose: nothing', async () => {
  site = await WitnessedCluster.open(vault, 'planned');
  const [at, until] = [0, 3600_000].map((ms) => new Date(Date.now() + ms).toISOString());
  await setMaintenance(site.cluster, { at: at!, until: until!, by: 'a person' });
  await site.die();
  expect(await watch()).toMatchObject({ do: 'nothing', state: 'planned', wasSilent: false });
  expect(await site.standing()).toEqual({ epoch: 1, primary: 'db1' });
  expect(await site.events('silent')).toEqual([]);
});

test('where auto_failover is off it warns, once, and the next watch does not say it again', async () => {
  await setAutoFailover('off');
  site = await WitnessedCluster.open(vault, 'warned');
  await site.die();
  for (let time = 0; time < 2; time++)
    expect(await watch()).toMatchObject({ do: 'warn', state: 'silent', to: 'db2', wasSilent: true });
  expect(await site.standing()).toEqual({ epoch: 1, primary: 'db1' });
  expect((await site.events('silent')).length).toBe(1);
  expect(await site.events('heard')).toEqual([]);
});

/** As a deployment with another configuration would leave it. */
async function setAutoFailover(value: 'on' | 'off'): Promise<void> {
  const lambda = new LambdaClient({
    ...{ region: REGION.primary, endpoint: cloud.emulator.endpoint, credentials: rootCredentials },
  });
  const FunctionName = `${cloud.name}-witness`;
  const { Environment } = await lambda.send(new GetFunctionConfigurationCommand({ FunctionName }));
  const Variables = { ...Environment!.Variables, WALVAULT_AUTO_FAILOVER: value };
  await lambda.send(new UpdateFunctionConfigurationCommand({ FunctionName, Environment: { Variables } }));
  lambda.destroy();
}
