/** Vaults for system tests: a directory of the test's own, or the emulator behind a proxy that can cut, hold or slow it. */
import { mkdirSync, renameSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

export type TestVault = {
  url: string;
  /** What servers and commands need in their environment to reach it: endpoint, region, credentials. */
  env: NodeJS.ProcessEnv;
  /** More arguments of `walvault init`. */
  initArgs: string[];
  /** Nobody can reach it until comeBack(). */
  goAway(): Promise<void>;
  comeBack(): Promise<void>;
  close(): Promise<void>;
};

export async function openTestVault(kind: 'file' | 's3', folder: string): Promise<TestVault> {
  if (kind === 'file') return openFileVault(folder);
  throw new Error('no emulator');
}

function openFileVault(folder: string): TestVault {
  mkdirSync(folder);
  const away = path.join(path.dirname(folder), 'vault is away');
  return {
    url: pathToFileURL(folder).href,
    env: {},
    initArgs: [],
    goAway: async () => renameSync(folder, away),
    comeBack: async () => renameSync(away, folder),
    close: async () => {},
  };
}
