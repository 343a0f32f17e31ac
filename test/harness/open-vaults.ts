/** Every kind of vault, one line each: a place of its own per suite, and as many connections to it as a test asks for. */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { createVault, openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';

export type VaultSite = { connect(): Promise<Vault>; close(): Promise<void> };

async function site(url: string, remove: () => void = () => {}): Promise<VaultSite> {
  await (await createVault(url, {})).close();
  return {
    connect: () => openVault(url),
    close: async () => remove(),
  };
}

let number = 0;

export const vaultKinds: { name: string; open(): Promise<VaultSite> }[] = [
  { name: 'memory', open: () => site(`memory:protocol-${process.pid}-${++number}`) },
  {
    name: 'file',
    open: () => {
      const folder = mkdtempSync(path.join(os.tmpdir(), 'walvault-vault-'));
      return site(pathToFileURL(folder).href, () => rmSync(folder, { recursive: true, force: true }));
    },
  },
];
