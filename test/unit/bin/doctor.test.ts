/** `walvault doctor`: a verdict by exit code, findings by name. */
import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { CHECKS } from '../../../core/cluster/checks.ts';
import { examineProbe } from '../../../core/cluster/examine-vault.ts';
import { worstOf } from '../../../core/cluster/finding.ts';
import { FAILURES } from '../../../core/errors.ts';
import { createVault, openVault } from '../../../core/vault/open-vault.ts';
import { probeVault } from '../../../core/work/doctor-vault.ts';
import { relayPass, openReplica } from '../../../core/work/relay.ts';
import { walvault } from '../../harness/command.ts';
import { newCluster, segment } from '../../harness/fake-node.ts';
import { withNodeKey } from '../../harness/node-key.ts';
import { makeScratch } from '../../harness/scratch.ts';

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

describe('goes on with what there is', () => {
  type Said = { code: number; worst: number; findings: Answer['findings'] };
  const doctor = async (words: string[], env: NodeJS.ProcessEnv = {}): Promise<Said> => {
    const { code, out, err } = await walvault(['doctor', '--json', ...words], env);
    expect(err).toBe('');
    return { code, ...(JSON.parse(out) as Answer) };
  };
  const amissOf = ({ findings }: Said) =>
    findings.filter(({ state }) => state !== 'ok').map(({ what, says }) => `${what}: ${says}`);

  test('nothing is configured: what is missing, and how to give it', async () => {
    const said = await doctor([]);
    expect(said.code).toBe(2);
    expect(amissOf(said)).toEqual(['settings: vault is not given', 'settings: cluster is not given']);
    for (const { state, fix } of said.findings) if (state !== 'ok') expect(fix).toMatch(/flag or variable/);
  });

  test('a data directory that is none, and no vault at its place', async () => {
    const words = ['--pgdata', '/nowhere/pg', '--vault', 'file:///nowhere/vault', '--cluster', 'main'];
    const said = await doctor(words);
    expect(said.code).toBe(2);
    expect(amissOf(said)).toEqual([
      expect.stringMatching(/^server: \[pgdata\] .*\/nowhere\/pg/),
      expect.stringMatching(/^state directory: \/nowhere\/pg.walvault is not there/),
      expect.stringMatching(/^vault: \[unconfigured\]/),
    ]);
  });

  test('a settings.toml that is broken: the rest is examined by flags', async () => {
    const folder = makeScratch();
    writeFileSync(path.join(folder, 'settings.toml'), 'vault = "memory:doctor-well-a"\ncolour = "red"\n');
    const said = await doctor(['--state-dir', folder, '--vault', 'memory:doctor-toml', '--cluster', 'main']);
    rmSync(folder, { recursive: true });
    expect(amissOf(said)).toEqual([
      expect.stringMatching(/^settings: .*settings.toml has an unknown setting "colour"/),
      expect.stringMatching(/^vault: .*no cluster main/),
    ]);
  });

  test('a flag that is wrong is a failure all the same', async () => {
    const { code, err } = await walvault(['doctor', '--vault', 'nonsense']);
    expect(code).toBe(FAILURES.usage.exit);
    expect(err).toContain('is not a URL');
  });

  test('every finding that is not well says what to do, and has its row in the table of checks', async () => {
    const names = new Set(CHECKS.map(({ what }) => what));
    const { findings } = await doctor([
      '--pgdata',
      '/nowhere/pg',
      '--vault',
      'memory:no',
      '--cluster',
      'main',
    ]);
    for (const { what, state, fix } of findings) {
      expect(names).toContain(what);
      if (state !== 'ok') expect(fix).toBeTruthy();
    }
    expect(names.size).toBe(CHECKS.length);
  });
});

test('the key of a node may write and read and not delete, and is right', async () => {
  const { cluster } = await newCluster(await openVault('memory:doctor-node-key'), 'main');
  const steps = await probeVault({ ...cluster, vault: withNodeKey(cluster.vault) }, 'db1');
  expect(steps.map(({ what, isDone }) => [what, isDone])).toEqual([
    ['bucket', true],
    ['manifest', true],
    ['delete', false],
  ]);
  expect(worstOf(examineProbe(steps))).toBe(0);
});
