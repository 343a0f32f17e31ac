/**
 * What a new node needs of its vault and its machine, tried before anything relies on it: both stores, both ways, and the
 * versions. One probe object and the node's own row are written; both are the node's for good and written again unchanged.
 */
import os from 'node:os';
import { VaultError } from '../errors.ts';
import { keys, type NodeRow } from '../cluster/facts.ts';
import { binMajorVersion, findBinDir } from '../postgres/server.ts';
import { asRow, changing, readControl, readHead, type Cluster } from './cluster.ts';
import { newNodeRow } from './heartbeat.ts';

export type Proof = {
  what: 'bucket' | 'manifest' | 'PostgreSQL' | 'C library';
  /** notice: it may go on, and a person should know. */
  state: 'ok' | 'notice' | 'failed';
  text: string;
  hint?: string;
};

/** The probe of a node: known content under a known key, so that it is written once and never has to be deleted. */
export const probeKey = (cluster: Cluster, node: string) => `${cluster.partition}/node/${node}.probe`;

/** Tries everything and answers with one line each; never throws. */
export async function proveAccess(cluster: Cluster, node: string): Promise<Proof[]> {
  return [
    await proving('bucket', () => proveBucket(cluster, node)),
    await proving('manifest', () => proveManifest(cluster, node)),
    await proving('PostgreSQL', () => provePrograms(cluster)),
    await proving('C library', () => compareLibrary(cluster)),
  ];
}

/** @throws VaultError  of the first proof that failed; returns the notices */
export function demandAccess(proofs: readonly Proof[]): string[] {
  const failed = proofs.find(({ state }) => state === 'failed');
  if (failed !== undefined)
    throw new VaultError('denied', `this node cannot work with the vault: ${failed.text}`, {
      hint: failed.hint ?? `'walvault node check' shows everything that was tried.`,
    });
  return proofs.filter(({ state }) => state === 'notice').map(({ text }) => text);
}

async function proving(
  what: Proof['what'],
  prove: () => Promise<Omit<Proof, 'what'> | undefined>,
): Promise<Proof> {
  try {
    return { what, ...((await prove()) ?? { state: 'ok', text: 'not known' }) };
  } catch (error) {
    if (!(error instanceof VaultError)) throw error;
    return { what, state: 'failed', text: error.message, hint: error.hint };
  }
}

async function proveBucket(cluster: Cluster, node: string): Promise<Omit<Proof, 'what'>> {
  const { bucket } = cluster.vault;
  const key = probeKey(cluster, node);
  const body = Buffer.from(`${node} of cluster ${cluster.name} can write here\n`);
  const facts = { node };
  const failed = (what: string, hint: string) => ({
    state: 'failed' as const,
    text: `${bucket.name}: ${what}`,
    hint,
  });
  await bucket.putOnce(key, body, facts);
  const found = await bucket.get(key);
  if (found === undefined || !found.equals(body))
    return failed(
      `what was put as ${key} does not come back`,
      'The bucket of the URL must be one and the same for reading and writing.',
    );
  for await (const { key: listed } of bucket.list(key))
    if (listed === key) return { state: 'ok', text: `${bucket.name}: put, read and listed ${key}` };
  return failed(`${key} is not listed`, 'The node needs the right to list under its prefix (s3:ListBucket).');
}

async function proveManifest(cluster: Cluster, node: string): Promise<Omit<Proof, 'what'>> {
  const { manifest } = cluster.vault;
  const control = await readControl(cluster);
  await readHead(cluster);
  const key = keys.node(cluster.partition, node);
  await changing(
    async () => {
      const seen = (await manifest.get(key)) as NodeRow | undefined;
      const row = seen === undefined ? newNodeRow(cluster, node) : { ...seen, rev: seen.rev + 1 };
      const when = seen === undefined ? ('absent' as const) : { rev: seen.rev };
      return { changes: [{ do: 'put', row: asRow(row), when }], result: undefined };
    },
    (changes) => manifest.transact(changes),
  );
  return {
    state: 'ok',
    text: `${manifest.name}: read (epoch ${control.epoch}, primary ${control.primary ?? 'none'}), and wrote the row of ${node}`,
  };
}

async function provePrograms({ majorVersion, name }: Cluster): Promise<Omit<Proof, 'what'>> {
  const folder = await findBinDir(majorVersion, undefined);
  const found = folder === undefined ? undefined : await binMajorVersion(folder);
  if (found === majorVersion) return { state: 'ok', text: `version ${majorVersion} in ${folder}` };
  const hint = `Install PostgreSQL ${majorVersion}, or say with PGBIN where its programs are.`;
  return found === undefined
    ? { state: 'notice', text: `no PostgreSQL ${majorVersion} was found on this machine`, hint }
    : {
        state: 'notice',
        text: `PostgreSQL ${found} in ${folder}; cluster ${name} is of version ${majorVersion}, and only that one can start a standby of it`,
        hint,
      };
}

/** Of the machine this process runs on, as nodes report it; null where it is not the GNU one. */
export function libraryHere(): string | null {
  const report = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  const version = report.header?.glibcVersionRuntime;
  return version === undefined ? null : `glibc ${version}`;
}

/** Text is sorted by the C library: another version may sort otherwise, and indexes made there are wrong here. */
async function compareLibrary(cluster: Cluster): Promise<Omit<Proof, 'what'> | undefined> {
  const { primary } = await readControl(cluster);
  if (primary === null) return undefined;
  const row = (await cluster.vault.manifest.get(keys.node(cluster.partition, primary))) as
    NodeRow | undefined;
  const [here, there] = [libraryHere(), row?.library ?? null];
  if (here === null || there === null) return undefined;
  if (here === there) return { state: 'ok', text: `${here}, as on ${primary}` };
  return {
    state: 'notice',
    text: `${here} on ${os.hostname()}, ${there} on ${primary}: where text is sorted by the C library, indexes may be wrong here`,
    hint: 'Use the same system on both, or ICU or C collations; else REINDEX after a switchover.',
  };
}
