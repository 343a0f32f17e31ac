/** What a vault holds, as a test's own eyes see it: past proxies, agents and commands. */
import type { Control, Head, WalRow } from '../../core/cluster/facts.ts';
import { after, type Row } from '../../core/vault/manifest.ts';
import { openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { openCluster, readControl, readHead, type Cluster } from '../../core/work/cluster.ts';

export type Contents = {
  /** WAL rows by name. */
  wal: Map<string, WalRow>;
  /** Sort keys of the history rows. */
  histories: string[];
  /** Keys of all objects, of every cluster. */
  objects: string[];
};

export class VaultView {
  /** A URL that nothing cuts. */
  readonly url: string;
  private readonly cluster: string;

  constructor(url: string, cluster: string) {
    this.url = url;
    this.cluster = cluster;
  }

  async with<T>(use: (vault: Vault) => Promise<T>): Promise<T> {
    const vault = await openVault(this.url);
    try {
      return await use(vault);
    } finally {
      await vault.close();
    }
  }

  async withCluster<T>(use: (cluster: Cluster) => Promise<T>): Promise<T> {
    return await this.with(async (vault) => use(await openCluster(vault, this.cluster)));
  }

  /** The two rows that everything goes by. */
  async heart(): Promise<{ control: Control; head: Head }> {
    return await this.withCluster(async (cluster) => ({
      control: await readControl(cluster),
      head: await readHead(cluster),
    }));
  }

  /** Rows of this cluster's database whose sort key begins with `prefix`. */
  async rows(prefix: string): Promise<Row[]> {
    return await this.withCluster(({ vault, partition }) => rowsOf(vault, partition, prefix));
  }

  async contents(): Promise<Contents> {
    return await this.withCluster(async ({ vault, partition }) => {
      const wal = await rowsOf(vault, partition, 'wal#');
      const histories = await rowsOf(vault, partition, 'history#');
      const objects: string[] = [];
      for await (const object of vault.bucket.list('')) objects.push(object.key);
      return {
        wal: new Map(wal.map((row) => [row.sk.slice('wal#'.length), row as unknown as WalRow])),
        histories: histories.map(({ sk }) => sk),
        objects,
      };
    });
  }

  /** Events of one kind, oldest first, as their texts. */
  async events(kind: string): Promise<string[]> {
    const events = await this.rows('event#');
    return events.filter((row) => row['kind'] === kind).map((row) => String(row['text']));
  }
}

async function rowsOf(vault: Vault, pk: string, prefix: string): Promise<Row[]> {
  const found: Row[] = [];
  for await (const row of vault.manifest.query({ pk, from: prefix, to: after(prefix) })) found.push(row);
  return found;
}
