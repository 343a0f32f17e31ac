/**
 * Opens a vault by its URL, and makes one. A backend is loaded when it is first used: a hook on a file: vault never
 * loads the AWS SDK, and one that only reads the manifest never loads the S3 client (70 ms each).
 */
import { mkdir, readdir, readFile, realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import { asked, askedEach } from './asked.ts';
import type { Bucket } from './bucket.ts';
import { kept } from './kept.ts';
import type { Change, Manifest } from './manifest.ts';
import { networkFileSystem } from './network-file-system.ts';
import type { Vault, VaultOptions } from './vault.ts';
import { parseVaultUrl, type VaultPlace } from './vault-url.ts';

export { parseVaultUrl, type VaultPlace } from './vault-url.ts';

type Opener = { bucket(): Promise<Bucket>; manifest(): Promise<Manifest> };

/** Vaults of `memory:` URLs: as long as the process lives. */
const remembered = new Map<string, Promise<Opener>>();

/**
 * @param options.createTable  make directory or table where they are missing (createVault)
 * @throws VaultError usage (URL) | unconfigured (nothing there: a file: vault at once, s3: at the first use) | local
 */
export async function openVault(
  url: string,
  options: VaultOptions & { createTable?: boolean } = {},
): Promise<Vault> {
  const place = parseVaultUrl(url);
  if (options.createTable === true) await make(place, options);
  if (place.kind === 'memory') return vaultOf(place.url, await memoryVault(place.name));
  if (place.kind === 'file') {
    await refuseNetwork(place.directory);
    const manifest = await openFileManifest(place, options);
    return vaultOf(place.url, {
      bucket: async () => (await import('./bucket-file.ts')).fileBucket(place.url, place.directory, options),
      manifest: async () => manifest,
    });
  }
  const aws = awsPlace(place, options);
  return vaultOf(place.url, {
    bucket: async () =>
      (await import('./bucket-s3.ts')).s3Bucket(bucketName(place), { ...place, ...aws }, options),
    manifest: async () =>
      (await import('./manifest-dynamodb.ts')).dynamoManifest(place.table, { ...place, ...aws }, options),
  });
}

/**
 * Makes what a vault needs, as far as it is missing, and opens it: the directory and its database; or, with `createTable`, the
 * DynamoDB table. The bucket is the person's own: it is looked at, never made.
 *
 * @throws VaultError usage | refused (network file system, a directory with other things in it) | unconfigured | denied | …
 */
export async function createVault(
  url: string,
  options: VaultOptions & { createTable?: boolean } = {},
): Promise<Vault> {
  const place = parseVaultUrl(url);
  if (place.kind === 'file' || options.createTable === true) await make(place, options);
  const vault = await openVault(
    url,
    options.createTable === true ? { ...options, createTable: false } : options,
  );
  try {
    // a bucket or table that is missing or forbidden is said now, not at the first segment
    for await (const object of vault.bucket.list('')) if (object.key !== '') break;
    // in a partition that whoever may make a cluster may read, however narrow the key
    await vault.manifest.get({ pk: '#clusters', sk: '#probe' });
  } catch (error) {
    await vault.close();
    throw error;
  }
  return vault;
}

async function make(place: VaultPlace, options: VaultOptions): Promise<void> {
  if (place.kind === 'file') await makeDirectoryVault(place.directory);
  if (place.kind === 's3') {
    const { createDynamoTable } = await import('./manifest-dynamodb.ts');
    await createDynamoTable({ ...place, ...awsPlace(place, options) }, options);
  }
}

async function makeDirectoryVault(directory: string): Promise<void> {
  await refuseNetwork(directory);
  const { createFileManifest, manifestFile } = await import('./manifest-file.ts');
  const { DIRECTORY_MODE, localFailure, syncDirectory } = await import('./shared-files.ts');
  try {
    const made = await mkdir(directory, { recursive: true, mode: DIRECTORY_MODE });
    if (made !== undefined) await syncDirectory(path.dirname(made));
    const strange = (await readdir(directory)).filter(
      (name) => !['lost+found', 'objects', 'tmp'].includes(name),
    );
    if (strange.length > 0 && !strange.includes(path.basename(manifestFile(directory)))) {
      throw new VaultError('refused', `${directory} holds other things ('${strange[0]}') and no vault`, {
        hint: 'name an empty directory, or one that does not exist yet.',
      });
    }
  } catch (error) {
    throw localFailure(error, 'make the vault', directory);
  }
  await createFileManifest(directory);
}

/** @throws VaultError refused  the directory, or the nearest one above it that exists, lies on a network file system */
async function refuseNetwork(directory: string): Promise<void> {
  const mounts = await readFile('/proc/self/mountinfo', 'utf8').catch(() => ''); // elsewhere than on Linux: not known
  if (mounts === '') return;
  const type = networkFileSystem(mounts, await existingPart(directory));
  if (type === undefined) return;
  throw new VaultError('refused', `${directory} lies on a network file system (${type})`, {
    hint: 'a file: vault serves one machine, its SQLite manifest breaks when two share it: use a local disk, or an s3: vault.',
  });
}

async function existingPart(directory: string): Promise<string> {
  for (let at = directory; ; at = path.dirname(at)) {
    try {
      return await realpath(at);
    } catch (error) {
      if (at === path.dirname(at)) throw error;
    }
  }
}

async function openFileManifest(
  place: VaultPlace & { kind: 'file' },
  options: VaultOptions,
): Promise<Manifest> {
  const { fileManifest } = await import('./manifest-file.ts');
  const found = await stat(place.directory).catch((error: unknown) => error as NodeJS.ErrnoException);
  if (!(found instanceof Error) && !found.isDirectory()) {
    throw new VaultError('usage', `${place.directory} is not a directory`, {
      hint: 'name the directory of a vault.',
    });
  }
  return fileManifest(place.url, place.directory, options);
}

function memoryVault(name: string): Promise<Opener> {
  const made =
    remembered.get(name) ??
    (async () => {
      const { memoryBucket } = await import('./bucket-memory.ts');
      const { memoryManifest } = await import('./manifest-memory.ts');
      const bucket = memoryBucket(`memory:${name}`);
      const manifest = memoryManifest(`memory:${name}`);
      return { bucket: async () => bucket, manifest: async () => manifest };
    })();
  remembered.set(name, made);
  return made;
}

function awsPlace(place: VaultPlace & { kind: 's3' }, options: VaultOptions) {
  return {
    region: place.region ?? options.aws?.region,
    endpoint: place.endpoint ?? options.aws?.endpoint,
    profile: options.aws?.profile,
  };
}

function bucketName({ bucket, prefix }: VaultPlace & { kind: 's3' }): string {
  return prefix === '' ? `s3://${bucket}` : `s3://${bucket}/${prefix}`;
}

/** Bucket and manifest that are opened by their first use, and closed only where they were. */
function vaultOf(url: string, open: Opener): Vault {
  const bucket = kept(open.bucket);
  const manifest = kept(open.manifest);
  return {
    url,
    bucket: {
      name: url,
      putOnce: (key, body, facts) =>
        asked(`bucket put ${key}, ${body.length} bytes`, async () =>
          (await bucket.use()).putOnce(key, body, facts),
        ),
      copyFrom: (from, key) =>
        asked(`bucket copy ${from.key} to ${key}`, async () => (await bucket.use()).copyFrom(from, key)),
      store: async () => (await bucket.use()).store?.(),
      get: (key) => asked(`bucket get ${key}`, async () => (await bucket.use()).get(key)),
      facts: (key) => asked(`bucket facts of ${key}`, async () => (await bucket.use()).facts(key)),
      list: (prefix) =>
        askedEach(`bucket list ${prefix}`, async function* () {
          yield* (await bucket.use()).list(prefix);
        }),
      delete: (key) => asked(`bucket delete ${key}`, async () => (await bucket.use()).delete(key)),
      close: bucket.close,
    },
    manifest: {
      name: url,
      get: (key) => asked(`manifest get ${key.pk} ${key.sk}`, async () => (await manifest.use()).get(key)),
      query: (range) =>
        askedEach(`manifest query ${range.pk} from ${range.from ?? 'its begin'}`, async function* () {
          yield* (await manifest.use()).query(range);
        }),
      transact: (changes) =>
        asked(`manifest transact ${changes.map(inWords).join(', ')}`, async () =>
          (await manifest.use()).transact(changes),
        ),
      close: manifest.close,
    },
    async close() {
      await Promise.all([bucket.close(), manifest.close()]);
    },
  };
}

/** For the debug log: what is changed where, not to what. */
function inWords(change: Change): string {
  const { pk, sk } = change.do === 'put' ? change.row : change.key;
  return `${change.do} ${pk} ${sk}`;
}
