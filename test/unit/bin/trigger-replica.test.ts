/** `walvault trigger` in a DR vault, on two directories: what is said before, what is asked for, and what stands afterwards. */
import { mkdtempSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { FAILURES } from '../../../core/errors.ts';
import { createVault, openVault } from '../../../core/vault/open-vault.ts';
import { openCluster, readControl, readHead, type Cluster } from '../../../core/work/cluster.ts';
import { openReplica, relayPass } from '../../../core/work/relay.ts';
import { walvault } from '../../harness/command.ts';
import { newCluster, newStandby, segment } from '../../harness/fake-node.ts';

let folder: string;
let a: string;
let b: string;

const trigger = (...more: string[]) =>
  walvault([
    ...['trigger', 'smart', '--to', 'dr1', '--vault', b, '--cluster', 'main', '--no-wait'],
    ...['--peer-wait', '1s', ...more],
  ]);

const away = () => renameSync(path.join(folder, 'a'), path.join(folder, 'gone'));

async function look<T>(url: string, read: (cluster: Cluster) => Promise<T>): Promise<T> {
  const vault = await openVault(url);
  try {
    return await read(await openCluster(vault, 'main'));
  } finally {
    await vault.close();
  }
}

/** A with three segments, of which the relay has brought two to B, where dr1 follows. */
beforeEach(async () => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'walvault-dr-'));
  [a, b] = ['a', 'b'].map((name) => pathToFileURL(path.join(folder, name)).href) as [string, string];
  const vaults = [await createVault(a), await createVault(b)] as const;
  const db1 = await newCluster(vaults[0], 'main');
  for (const number of [1, 2]) await db1.archive(segment(1, number));
  const replica = await openReplica(db1.cluster, vaults[1]);
  await relayPass(db1.cluster, replica);
  await newStandby(replica, 'dr1');
  await db1.archive(segment(1, 3));
  for (const vault of vaults) await vault.close();
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

test('a vault that answers is fenced and emptied of what is not here yet, and said so before', async () => {
  const asked = await trigger();
  expect(asked).toMatchObject({ code: FAILURES.usage.exit, out: '' }); // nobody to ask, no --yes
  expect(asked.err).toMatch(
    /^ {2}- fence db1: it can archive nothing more into file:.*\/a, which becomes a replica$/m,
  );
  expect(asked.err).toMatch(/^ {2}- carry over 1 row \(.*\) that are not here yet/m);
  expect((await look(b, readControl)).role).toBe('replica');
  const { code, out, err } = await trigger('--yes', '--json');
  expect({ code, err }).toEqual({ code: 0, err: '' });
  expect(JSON.parse(out)).toMatchObject({ node: 'dr1', state: 'triggered', epoch: 2 });
  const [inA, inB] = [await look(a, readControl), await look(b, readControl)];
  expect(inA).toMatchObject({ role: 'replica', supersededBy: { id: inB.vaultId }, epoch: 2, primary: 'dr1' });
  expect(inB).toMatchObject({ role: 'active', supersedes: null, source: null, epoch: 2, primary: 'dr1' });
  expect(await look(b, readHead)).toMatchObject({ lastFile: segment(1, 3), lsn: '0/400000' });
});

test('a vault that does not answer: refused with what is known of it, and nothing is changed', async () => {
  away();
  const { code, err } = await trigger('--yes');
  expect(code).toBe(FAILURES.refused.exit);
  expect(err).toMatch(/\/a, the vault that is active so far, does not answer: \[unconfigured\]/);
  expect(err).toMatch(
    /last heard of .* up to 0\/300000, with nothing behind then\. What was not relayed may be lost/,
  );
  expect(err).toMatch(/Its primary db1 cannot be fenced now/);
  expect(err).toMatch(/with --unfenced.*--peer URL/);
  expect(await look(b, readControl)).toMatchObject({ role: 'replica', epoch: 1, primary: 'db1' });
});

test('--unfenced goes on without it, and says what is lost and what is left; the vault knows whom it supersedes', async () => {
  away();
  const { code, err } = await trigger('--unfenced', '--yes');
  expect(code).toBe(0);
  expect(err).toMatch(/^ {2}- go on without file:.*\/a, which does not answer/m);
  expect(err).toMatch(/^ {2}- lose what was not relayed: last heard of/m);
  expect(err).toMatch(/^ {2}- leave db1 UNFENCED: /m);
  expect(await look(b, readControl)).toMatchObject({
    ...{ role: 'active', epoch: 2, primary: 'dr1' },
    supersedes: { url: a, sinceEpoch: 1 },
  });
  expect((await look(b, readHead)).lastFile).toBe(segment(1, 2));
  const again = await trigger('--unfenced', '--yes', '--json');
  expect(JSON.parse(again.out)).toMatchObject({ node: 'dr1', epoch: 2 }); // the same promotion, taken up
});

test('--unfenced fences all the same where the other vault answers', async () => {
  const { code, err } = await trigger('--unfenced', '--yes');
  expect(code).toBe(0);
  expect(err).toMatch(/^fenced: .* takes nothing more, epoch 2$/m);
  expect((await look(b, readControl)).supersedes).toBeNull();
});

test('--peer names the active vault by the URL of this machine', async () => {
  away();
  symlinkSync(path.join(folder, 'gone'), path.join(folder, 'by another way'));
  const url = pathToFileURL(path.join(folder, 'by another way')).href;
  const { code } = await trigger('--peer', url, '--yes');
  expect(code).toBe(0);
  expect(await look(url, readControl)).toMatchObject({ role: 'replica', epoch: 2 });
});

test('another vault under the URL of the source is not taken for it', async () => {
  away();
  const other = await createVault(a);
  await newCluster(other, 'main');
  await other.close();
  const { code, err } = await trigger('--yes');
  expect(code).toBe(FAILURES.refused.exit);
  expect(err).toMatch(/does not answer: .* is another vault by now/);
});

test.each([
  ['a node that does not follow this vault', ['--to', 'db2'], /no node db2 is known/],
  ['the vault itself as its peer', ['--peer', 'B'], /same vault|is to be triggered itself/],
])('%s is refused before anything is changed', async (_what, more, message) => {
  const { code, err } = await trigger('--yes', ...more.map((word) => (word === 'B' ? b : word)));
  expect(code).not.toBe(0);
  expect(err).toMatch(message);
  expect(await look(a, readControl)).toMatchObject({ role: 'active', epoch: 1 });
  expect(await look(b, readControl)).toMatchObject({ role: 'replica', epoch: 1 });
});
