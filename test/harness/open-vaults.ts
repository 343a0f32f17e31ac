/**
 * Every kind of vault, one line each: a place of its own per suite, and as many connections to it as a test asks for.
 *
 * memory and file; with WALVAULT_TEST_AWS=1 also, with `only` nothing but S3 + DynamoDB (ministack), and the manifest on AWS's own engine
 * (DynamoDBLocal) beside a bucket in memory.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { createDynamoTable, dynamoManifest } from '../../core/vault/manifest-dynamodb.ts';
import { createVault, openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { isAwsWanted, isLocalWanted, makeBucket } from './buckets.ts';
import { CREDENTIALS, ownName, startDynamoDBLocal, startMinistack } from './emulators.ts';

export type VaultSite = { connect(): Promise<Vault>; close(): Promise<void> };
export type VaultKind = { name: string; open(): Promise<VaultSite> };

let number = 0;

export const fileKind: VaultKind = { name: 'file', open: file };

export const vaultKinds: VaultKind[] = [
  ...(isLocalWanted
    ? [{ name: 'memory', open: () => byUrl(`memory:protocol-${process.pid}-${++number}`) }, fileKind]
    : []),
  ...(isAwsWanted
    ? [
        { name: 's3 (ministack)', open: s3 },
        { name: 'DynamoDBLocal', open: dynamoDBLocal },
      ]
    : []),
];

/** The place of a suite: made before its first test, gone after its last. */
export function siteOf(kind: VaultKind): Pick<VaultSite, 'connect'> {
  let site: VaultSite | undefined;
  beforeAll(async () => {
    site = await kind.open();
  }, 120_000);
  afterAll(async () => {
    await site?.close();
  });
  return { connect: () => site!.connect() };
}

async function byUrl(url: string, close: () => void | Promise<void> = () => {}): Promise<VaultSite> {
  await (await createVault(url, { createTable: url.startsWith('s3:') })).close();
  return { connect: () => openVault(url), close: async () => close() };
}

function file(): Promise<VaultSite> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'walvault-vault-'));
  return byUrl(pathToFileURL(folder).href, () => rmSync(folder, { recursive: true, force: true }));
}

async function s3(): Promise<VaultSite> {
  Object.assign(process.env, CREDENTIALS);
  const emulator = await startMinistack();
  const bucket = await makeBucket(emulator.endpoint);
  const endpoint = encodeURIComponent(emulator.endpoint);
  const region = CREDENTIALS.AWS_REGION;
  return byUrl(`s3://${bucket}/some/prefix?table=${ownName()}&region=${region}&endpoint=${endpoint}`, () =>
    emulator.stop(),
  );
}

async function dynamoDBLocal(): Promise<VaultSite> {
  Object.assign(process.env, CREDENTIALS);
  const emulator = await startDynamoDBLocal();
  const place = { table: ownName(), endpoint: emulator.endpoint };
  await createDynamoTable(place);
  const bytes = await openVault(`memory:bytes-${process.pid}-${++number}`);
  return {
    connect: async () => {
      const manifest = dynamoManifest(place.table, place, {});
      return { url: 'memory:bytes', bucket: bytes.bucket, manifest, close: () => manifest.close() };
    },
    close: async () => {
      await bytes.close();
      await emulator.stop();
    },
  };
}
