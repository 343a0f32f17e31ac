/** `walvault doctor`: a verdict by exit code, findings by name. */
import { createVault, openVault } from '../../../core/vault/open-vault.ts';
import { relayPass, openReplica } from '../../../core/work/relay.ts';
import { walvault } from '../../harness/command.ts';
import { newCluster, segment } from '../../harness/fake-node.ts';

type Answer = { worst: number; findings: { what: string; state: string; says: string; fix?: string }[] };

async function ask(url: string, more: string[] = []) {
  const words = ['doctor', '--vault', url, '--cluster', 'main', '--json', ...more];
  const { code, out } = await walvault(words);
  return { code, ...(JSON.parse(out) as Answer) };
}

async function pair(name: string) {
  const db1 = await newCluster(await openVault(`memory:doctor-${name}-a`), 'main');
  for (const number of [1, 2, 3]) await db1.archive(segment(1, number));
  const replica = await openReplica(db1.cluster, await createVault(`memory:doctor-${name}-b`));
  await relayPass(db1.cluster, replica);
  return { db1, replica, a: db1.cluster.vault.url, b: replica.vault.url };
}

test('a pair that is well ends with 0, asked of either vault', async () => {
  const { a, b } = await pair('well');
  for (const url of [a, b]) {
    const { code, worst, findings } = await ask(url);
    expect({ code, worst, amiss: findings.filter(({ state }) => state !== 'ok') }).toEqual({
      ...{ code: 0, worst: 0, amiss: [] },
    });
    expect(findings.map(({ what }) => what)).toEqual(
      expect.arrayContaining(['reach', 'roles', 'database', 'epochs', 'histories', 'heads', 'relay']),
    );
  }
});

test('the lag is that of now, not what a relay said that has died since', async () => {
  const { db1, b } = await pair('lag');
  for (const number of [4, 5]) await db1.archive(segment(1, number));
  const { findings } = await ask(b);
  expect(findings.find(({ what }) => what === 'relay')?.says).toMatch(/2 rows behind/);
});

test('one vault alone is well', async () => {
  await newCluster(await openVault('memory:doctor-alone'), 'main');
  expect(await ask('memory:doctor-alone')).toMatchObject({ code: 0, worst: 0 });
});

test('people read a table, and below it what to do', async () => {
  const { db1, b, a } = await pair('words');
  const { manifest } = db1.cluster.vault;
  const control = (await manifest.get({ pk: 'main', sk: 'control' }))!;
  await manifest.transact([
    { do: 'put', row: { ...control, rev: control.rev + 1, epoch: 2 }, when: { rev: control.rev } },
  ]);
  const { code, out, err } = await walvault(['doctor', '--vault', a, '--cluster', 'main']);
  expect(code).toBe(1);
  expect(out).toMatch(/^epochs +warn +memory:doctor-words-b is at epoch 1/m);
  expect(err).toContain(`walvault relay --from '${a}' --to '${b}'`);
});
