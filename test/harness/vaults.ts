/** Vaults for system tests: a directory of the test's own, or the emulator behind a proxy that cuts, holds or slows it. */
import { mkdirSync, renameSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { makeBucket } from './buckets.ts';
import { CREDENTIALS, ownName, startMinistack } from './emulators.ts';
import { startProxy, type ProxyMode } from './proxy.ts';

export type TestVault = {
  url: string;
  /** The same vault past the proxy, for the test's own eyes and hands. */
  direct: string;
  /** What servers and commands need in their environment to reach it: endpoint and credentials. */
  env: NodeJS.ProcessEnv;
  /** More arguments of `walvault init`. */
  initArgs: string[];
  /** Until comeBack() nobody reaches it; a `file:` vault, which no network can fail, is moved away whatever the mode. */
  goAway(mode?: ProxyMode): Promise<void>;
  comeBack(): Promise<void>;
  close(): Promise<void>;
};

export function openTestVault(kind: 'file' | 's3', folder: string): Promise<TestVault> {
  return kind === 'file' ? fileVault(folder) : s3Vault();
}

async function fileVault(folder: string): Promise<TestVault> {
  mkdirSync(folder);
  const away = path.join(path.dirname(folder), 'vault is away');
  return {
    url: pathToFileURL(folder).href,
    direct: pathToFileURL(folder).href,
    env: {},
    initArgs: [],
    goAway: async () => renameSync(folder, away),
    comeBack: async () => renameSync(away, folder),
    close: async () => {},
  };
}

async function s3Vault(): Promise<TestVault> {
  // for the test's own clients; the servers get theirs by `env`
  Object.assign(process.env, CREDENTIALS);
  const emulator = await startMinistack();
  const proxy = await startProxy(emulator.port);
  const bucket = await makeBucket(emulator.endpoint);
  const url = `s3://${bucket}/a/prefix?table=${ownName()}&region=us-east-1`;
  return {
    url,
    direct: `${url}&endpoint=${encodeURIComponent(emulator.endpoint)}`,
    env: { ...CREDENTIALS, AWS_ENDPOINT_URL: `http://127.0.0.1:${proxy.port}` },
    initArgs: ['--create-table'],
    async goAway(mode = 'refuse') {
      proxy.mode = mode;
    },
    async comeBack() {
      proxy.mode = 'pass';
    },
    async close() {
      await proxy.close();
      await emulator.stop();
    },
  };
}
