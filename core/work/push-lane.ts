/**
 * Where the files that wait go: into the vault, or, while that is out of reach, beside the rows of a replica (core/work/push-spill.ts). The
 * queue (core/work/push.ts) is the same for both.
 */
import { VaultError } from '../errors.ts';
import { decideWriter } from '../cluster/decide-archive.ts';
import { keys, type Control } from '../cluster/facts.ts';
import { parseWalName } from '../wal/name.ts';
import { readControl, readHead, type Cluster } from './cluster.ts';
import { commitFiles, NotStored, type CommitResult } from './commit.ts';
import type { NodeContext } from './node-context.ts';
import { handIn, readWhole, type Handed, type StoredFile, type UnstoredFile } from './store-file.ts';
import { inTurn, settle, writerOf } from './writer.ts';

export interface Lane {
  readonly kind: 'vault' | 'spill';
  open(): Promise<Cluster>;
  /** Bytes into the bucket, as of one file of pg_wal. @param path  absolute */
  store(cluster: Cluster, file: { name: string; path: string }): Promise<Handed>;
  commit(cluster: Cluster, files: readonly (StoredFile | UnstoredFile)[]): Promise<CommitResult[]>;
}

/** How long it is taken for granted that this node may write, ms. */
const CHECK_MS = 1000;

export class VaultLane implements Lane {
  readonly kind = 'vault';
  readonly #context: NodeContext;
  readonly #onControl: (control: Control) => void;
  #checkedAt = -Infinity;
  #fence: ReturnType<typeof decideWriter>;
  #isOff = false;

  /** @param onControl  told of the vault's control whenever it is read */
  constructor(context: NodeContext, onControl: (control: Control) => void) {
    this.#context = context;
    this.#onControl = onControl;
  }

  open(): Promise<Cluster> {
    return this.#context.cluster();
  }

  async store(cluster: Cluster, { name, path }: { name: string; path: string }): Promise<Handed> {
    const { seat, settings } = this.#context;
    const bytes = await readWhole(path);
    await this.#checkWriter(cluster, name);
    return handIn(cluster, seat, { name, bytes }, { isOff: this.#isOff, zstdLevel: settings.zstdLevel });
  }

  async commit(cluster: Cluster, files: readonly (StoredFile | UnstoredFile)[]): Promise<CommitResult[]> {
    const { seat, histories } = this.#context;
    try {
      return await commitFiles(cluster, seat, files, histories);
    } catch (error) {
      if (error instanceof NotStored) this.#checkedAt = -Infinity; // what was known of archiving is over
      throw error;
    }
  }

  /**
   * Before bytes are put: a node that may not write would leave an object behind at each attempt. What the vault holds already is
   * fine for anybody, so only names without a row are refused here; the commit decides again, by condition.
   */
  async #checkWriter(cluster: Cluster, name: string): Promise<void> {
    if (performance.now() - this.#checkedAt >= CHECK_MS) {
      const { seat } = this.#context;
      this.#fence = await inTurn(seat, async () => {
        const [control, head] = await Promise.all([readControl(cluster), readHead(cluster)]);
        this.#onControl(control);
        this.#isOff = !control.archiving;
        const state = settle(seat.store.read() ?? { epoch: 0, nonce: '', next: null }, head);
        return decideWriter(control, head, writerOf(seat, state));
      });
      this.#checkedAt = this.#fence === undefined ? performance.now() : -Infinity;
    }
    if (this.#fence === undefined || (await isHeld(cluster, name))) return;
    throw new VaultError(this.#fence.code, this.#fence.message, { hint: this.#fence.hint });
  }
}

async function isHeld(cluster: Cluster, name: string): Promise<boolean> {
  const parsed = parseWalName(name);
  const key =
    parsed?.kind === 'history'
      ? keys.history(cluster.partition, parsed.timeline)
      : keys.wal(cluster.partition, name);
  return (await cluster.vault.manifest.get(key)) !== undefined;
}
