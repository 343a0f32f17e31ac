/**
 * The backends of a manifest, one line each, for the contract suite.
 *
 * memory and file (with its thread, and without) always; DynamoDB by two emulators with WALVAULT_TEST_AWS=1.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { Manifest } from '../../core/vault/manifest.ts';
import { createDynamoTable, dynamoManifest } from '../../core/vault/manifest-dynamodb.ts';
import { createFileManifest, fileManifest } from '../../core/vault/manifest-file.ts';
import { memoryManifest } from '../../core/vault/manifest-memory.ts';
import { isAwsWanted, isLocalWanted } from './buckets.ts';
import { CREDENTIALS, type Emulator, ownName, startDynamoDBLocal, startMinistack } from './emulators.ts';

/** One empty manifest; `open` connects to it once more, as another process would. */
export type Place = {
  open(options?: { timeoutMs?: number; port?: number }): Promise<Manifest>;
  remove(): Promise<void>;
  port?: number;
};

export type ManifestBackend = {
  name: string;
  start(): Promise<void>;
  stop(): Promise<void>;
  make(): Promise<Place>;
};

const nothing = async () => undefined;

export const manifests: ManifestBackend[] = [
  ...(isLocalWanted
    ? [
        { name: 'memory', start: nothing, stop: nothing, make: async () => memory() },
        { name: 'file', start: nothing, stop: nothing, make: async () => file(false) },
        { name: 'file (one shot)', start: nothing, stop: nothing, make: async () => file(true) },
      ]
    : []),
  ...(isAwsWanted ? [dynamo('ministack', startMinistack), dynamo('DynamoDBLocal', startDynamoDBLocal)] : []),
];

function memory(): Place {
  const table = new Map();
  return { open: async () => memoryManifest('memory:test', table), remove: nothing };
}

async function file(oneShot: boolean): Promise<Place> {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'walvault-manifest-'));
  await createFileManifest(directory);
  return {
    open: (options) => fileManifest(`file://${directory}`, directory, { ...options, oneShot }),
    remove: async () => rmSync(directory, { recursive: true }),
  };
}

function dynamo(name: string, startEmulator: () => Promise<Emulator>): ManifestBackend {
  let emulator: Emulator;
  return {
    name: `DynamoDB (${name})`,
    async start() {
      Object.assign(process.env, CREDENTIALS);
      emulator = await startEmulator();
    },
    stop: async () => emulator?.stop(),
    async make() {
      const { endpoint, port } = emulator;
      const table = ownName();
      await createDynamoTable({ table, endpoint });
      return {
        port,
        open: async (options = {}) =>
          dynamoManifest(
            table,
            { table, endpoint: options.port === undefined ? endpoint : `http://127.0.0.1:${options.port}` },
            options,
          ),
        remove: nothing,
      };
    },
  };
}
