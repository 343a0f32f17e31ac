/**
 * Two vaults, and for each party (a node, the relay, the person) a way of its own to each of them, which can be cut alone: db1 does
 * not reach A while everybody else does.
 *
 * file: two directories; each party has a link of its own to each, so each names them by URLs of its own. Cut: the link is away.
 * s3: one emulator, a bucket and a table in each of two regions, so that it can copy from one to the other. The URLs are the same for
 * all; each party has an endpoint of its own, behind which a proxy for each vault cuts, holds or slows.
 */
import { mkdirSync, renameSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { createVault } from '../../core/vault/open-vault.ts';
import { makeBucket } from './buckets.ts';
import { CREDENTIALS, ownName, startMinistack } from './emulators.ts';
import { type Proxy, type ProxyMode, startProxy } from './proxy.ts';
import { startRegionSplit } from './region-split.ts';

export type VaultName = 'A' | 'B';
export const vaultNames: readonly VaultName[] = ['A', 'B'];

export type VaultPair = {
  /** The vault's URL as `party` writes it. */
  url(vault: VaultName, party: string): string;
  /** The same vault by a way that is never cut, for the test's own eyes and hands. */
  direct(vault: VaultName): string;
  /** What processes of `party` need in their environment. */
  env(party: string): NodeJS.ProcessEnv;
  /** @param mode  a `file:` vault is away whatever the mode */
  cut(vault: VaultName, party: string, mode: ProxyMode): void;
  /** From now on each answer to `party` is so late. @throws where nothing lies between: a `file:` vault */
  slow(vault: VaultName, party: string, delayMs: number): void;
  mend(vault: VaultName, party: string): void;
  close(): Promise<void>;
};

/**
 * Two empty vaults; both are there, so that a relay can begin.
 *
 * @param folder  of the directories and links of file: vaults; does not exist yet
 */
export function openVaultPair(
  kind: 'file' | 's3',
  folder: string,
  parties: readonly string[],
): Promise<VaultPair> {
  return kind === 'file' ? filePair(folder, parties) : s3Pair(parties);
}

async function filePair(folder: string, parties: readonly string[]): Promise<VaultPair> {
  const real = (vault: VaultName) => path.join(folder, 'real', vault);
  const link = (vault: VaultName, party: string) => path.join(folder, party, vault);
  const away = (vault: VaultName, party: string) => path.join(folder, party, `${vault} is away`);
  for (const vault of vaultNames) {
    mkdirSync(real(vault), { recursive: true });
    await (await createVault(pathToFileURL(real(vault)).href)).close();
  }
  for (const party of parties) {
    mkdirSync(path.join(folder, party));
    for (const vault of vaultNames) symlinkSync(real(vault), link(vault, party));
  }
  const cuts = new Set<string>();
  return {
    url: (vault, party) => pathToFileURL(link(vault, party)).href,
    direct: (vault) => pathToFileURL(real(vault)).href,
    env: () => ({}),
    cut(vault, party) {
      if (cuts.has(link(vault, party))) return;
      renameSync(link(vault, party), away(vault, party));
      cuts.add(link(vault, party));
    },
    slow() {
      throw new Error('a file vault is not slowed');
    },
    mend(vault, party) {
      if (cuts.delete(link(vault, party))) renameSync(away(vault, party), link(vault, party));
    },
    close: async () => {},
  };
}

const REGIONS = { A: 'us-east-1', B: 'eu-west-1' } as const;

async function s3Pair(parties: readonly string[]): Promise<VaultPair> {
  // for the test's own clients; servers and commands get theirs by `env`
  Object.assign(process.env, CREDENTIALS);
  const emulator = await startMinistack();
  const closing: (() => Promise<void>)[] = [];
  const urls = {} as Record<VaultName, string>;
  const directs = {} as Record<VaultName, string>;
  for (const vault of vaultNames) {
    const region = REGIONS[vault];
    const bucket = await makeBucket(emulator.endpoint, ownName(), region);
    urls[vault] = `s3://${bucket}/${vault}/prefix?table=${ownName()}&region=${region}`;
    directs[vault] = `${urls[vault]}&endpoint=${encodeURIComponent(emulator.endpoint)}`;
    await (await createVault(directs[vault], { createTable: true })).close();
  }
  const ways = new Map<string, { proxies: Record<VaultName, Proxy>; endpoint: string }>();
  for (const party of parties) {
    const proxies = { A: await startProxy(emulator.port), B: await startProxy(emulator.port) };
    const split = await startRegionSplit({ [REGIONS.A]: proxies.A.port, [REGIONS.B]: proxies.B.port });
    ways.set(party, { proxies, endpoint: `http://127.0.0.1:${split.port}` });
    closing.push(split.close, proxies.A.close, proxies.B.close);
  }
  const wayOf = (party: string) => {
    const way = ways.get(party);
    if (way === undefined) throw new Error(`${party} is no party of this site: ${parties.join(', ')}`);
    return way;
  };
  return {
    url: (vault) => urls[vault],
    direct: (vault) => directs[vault],
    env: (party) => ({ ...CREDENTIALS, AWS_ENDPOINT_URL: wayOf(party).endpoint }),
    cut(vault, party, mode) {
      wayOf(party).proxies[vault].mode = mode;
    },
    slow(vault, party, delayMs) {
      Object.assign(wayOf(party).proxies[vault], { mode: 'delay', delayMs });
    },
    mend(vault, party) {
      wayOf(party).proxies[vault].mode = 'pass';
    },
    async close() {
      for (const close of closing) await close();
      await emulator.stop();
    },
  };
}
