/**
 * Spilling on the primary: while its own vault is out of reach, what waits goes into the armed replica; when the vault answers again, it
 * takes that home before anything else. One state file, spill.json, so that an agent that was killed goes on where it was.
 *
 * Nothing here decides whether this node may still write: the replica asks for the epoch it knows, and the vault asks again when the
 * spills come home.
 */
import { VaultError } from '../errors.ts';
import { decideSpiller, nextSpill } from '../cluster/decide-spill.ts';
import type { Control, VaultRef } from '../cluster/facts.ts';
import { readWalFile } from '../postgres/wal-directory.ts';
import { isSegmentName, nextSegment } from '../wal/name.ts';
import { readBranch, type HistoryCache } from './branch.ts';
import { readControl, type Cluster } from './cluster.ts';
import { COMMIT_BATCH, type CommitResult } from './commit.ts';
import { crashPoint } from './crash-points.ts';
import { inWords, type Journal } from './journal.ts';
import { isPassing, type NodeContext } from './node-context.ts';
import { readText, replaceDurably, type StatePaths } from './node-state.ts';
import type { Lane } from './push-lane.ts';
import { commitSpill } from './spill-commit.ts';
import { takeHome } from './spill.ts';
import { isStored, readWhole, storeFile, type StoredFile, type UnstoredFile } from './store-file.ts';
import { writerOf, type WriterSeat, type WriterState, type WriterStore } from './writer.ts';

/** spill.json */
type Kept = {
  /** The armed replica, as the vault named it last; null: none. */
  direct: VaultRef | null;
  nonce: string;
  next: string | null;
  /** Something was spilled that the vault may not have taken home yet. */
  away: boolean;
};

const NOTHING: Kept = { direct: null, nonce: '', next: null, away: false };
/** How long it is taken for granted that this node may spill, ms: the commit asks again. */
const CHECK_MS = 1000;
/** After a spill that failed, ms. */
const POSTPONE_MS = 5000;
/** Between two attempts to bring home what an agent that was killed had spilled, ms. */
const TEND_MS = 2000;

type Say = Pick<Journal, 'state' | 'count'>;

export class SpillLane implements Lane {
  readonly kind = 'spill';
  readonly #context: NodeContext;
  readonly #journal: Say;
  readonly #seat: WriterSeat;
  readonly #histories: HistoryCache = new Map();
  /** performance.now() of the first failure since the vault took a file. */
  #awaySince: number | undefined;
  #notBefore = 0;
  #checkedAt = -Infinity;
  #tendedAt = -Infinity;
  #bringing: Promise<number> | undefined;
  /** Commits begun, and those under way: what lands while spills come home is not home yet. */
  #commits = 0;
  #landing = 0;

  constructor(context: NodeContext, journal: Say) {
    this.#context = context;
    this.#journal = journal;
    this.#seat = { ...context.seat, store: spillStore(context.paths, context.seat.store) };
  }

  get #kept(): Kept {
    return readKept(this.#context.paths);
  }

  #keep(changes: Partial<Kept>): void {
    const before = this.#kept;
    const after = { ...before, ...changes };
    if (JSON.stringify(after) !== JSON.stringify(before)) writeKept(this.#context.paths, after);
  }

  /** What the vault says of the armed replica: kept, for the day on which it says nothing. */
  learn(control: Control): void {
    try {
      if (control.primary === this.#context.node) this.#keep({ direct: control.direct });
    } catch (error) {
      this.#journal.state('spill', `what is armed cannot be kept: ${inWords(error)}`);
    }
  }

  /** The vault did not take a file. @returns true: it has not for dr_after, and there is another place */
  failed(): boolean {
    this.#awaySince ??= performance.now();
    const now = performance.now();
    if (now - this.#awaySince < this.#context.settings.drAfter || now < this.#notBefore) return false;
    return this.#url !== undefined;
  }

  /** The vault took a file, or refused one: it is there. */
  answered(): void {
    this.#awaySince = undefined;
  }

  /** This node's own way to the armed replica, else the way by which it was armed. */
  get #url(): string | undefined {
    const { drVault } = this.#context.settings;
    return drVault === undefined || drVault === 'none' ? this.#kept.direct?.url : drVault;
  }

  postpone(error: unknown): void {
    this.#notBefore = performance.now() + POSTPONE_MS;
    this.#checkedAt = -Infinity;
    this.#journal.state('spill', `nothing can be spilled into ${this.#url}: ${inWords(error)}`);
  }

  /** @throws VaultError unconfigured | unreachable | refused, fenced, copied (this node may not spill there) */
  async open(): Promise<Cluster> {
    const cluster = await this.#open();
    if (performance.now() - this.#checkedAt < CHECK_MS) return cluster;
    const control = await readControl(cluster);
    const { head } = await readBranch(cluster, this.#histories);
    const state = this.#seat.store.read() ?? { epoch: 0, nonce: '', next: null };
    const refusal = decideSpiller(control, head, writerOf(this.#seat, state));
    if (refusal) throw new VaultError(refusal.code, refusal.message, { hint: refusal.hint });
    this.#checkedAt = performance.now();
    return cluster;
  }

  #open(): Promise<Cluster> {
    const url = this.#url;
    if (url === undefined)
      return Promise.reject(new VaultError('unconfigured', 'no vault for spills is armed'));
    return this.#context.other(url);
  }

  async store(
    replica: Cluster,
    { name, path }: { name: string; path: string },
  ): Promise<StoredFile | 'same'> {
    return this.#store(replica, name, await readWhole(path));
  }

  async #store(replica: Cluster, name: string, bytes: Buffer): Promise<StoredFile | 'same'> {
    const epoch = this.#seat.store.read()?.epoch ?? 0;
    const { zstdLevel } = this.#context.settings;
    const stored = await storeFile(replica, { ...this.#seat, epoch }, { name, bytes }, zstdLevel);
    crashPoint('spill-stored');
    return stored;
  }

  async commit(replica: Cluster, handed: readonly (StoredFile | UnstoredFile)[]): Promise<CommitResult[]> {
    const files = handed.filter(isStored); // this lane stores whatever it is handed
    this.#keep({ away: true });
    this.#commits++;
    this.#landing++;
    try {
      const first = files.find(({ name }) => isSegmentName(name));
      if (first !== undefined) await this.#carry(replica, first.name);
      const results = await commitSpill(replica, this.#seat, files, this.#histories);
      crashPoint('spill-committed');
      return results;
    } finally {
      this.#landing--;
    }
  }

  /**
   * What the vault had taken and no relay had brought to the replica: it goes along where pg_wal still has it, else there would be a hole.
   * The commit says so where it has not.
   */
  async #carry(replica: Cluster, upTo: string): Promise<void> {
    const { head, lineage } = await readBranch(replica, this.#histories);
    const { segmentSize } = replica;
    let name = nextSpill(head, lineage, segmentSize);
    let batch: StoredFile[] = [];
    for (; name !== undefined && name < upTo; name = nextSegment(name, segmentSize)) {
      if (name.slice(0, 8) !== upTo.slice(0, 8)) return;
      const bytes = await readWalFile(`${this.#context.pgdata}/pg_wal`, name);
      if (bytes === undefined) return;
      const stored = await this.#store(replica, name, bytes);
      if (stored !== 'same') batch.push(stored);
      if (batch.length < COMMIT_BATCH && nextSegment(name, segmentSize) < upTo) continue;
      if (batch.length > 0) await commitSpill(replica, this.#seat, batch, this.#histories);
      this.#journal.count('carried along into the vault for spills', batch.length);
      batch = [];
    }
  }

  /** Is there anything that the vault may not have yet? */
  get isAway(): boolean {
    return this.#kept.away;
  }

  /**
   * The vault takes home what was spilled. Called side by side it is done once.
   *
   * @returns how many files it did not have
   * @throws VaultError  as takeHome; unreachable: either of the two does not answer
   */
  bringHome(active: Cluster): Promise<number> {
    this.#bringing ??= this.#bringHome(active).finally(() => {
      this.#bringing = undefined;
    });
    return this.#bringing;
  }

  async #bringHome(active: Cluster): Promise<number> {
    if (this.#url === undefined) return 0;
    const commits = this.#landing > 0 ? -1 : this.#commits;
    const { files } = await takeHome(active, await this.#open());
    if (commits === this.#commits) this.#keep({ away: false });
    if (files > 0)
      this.#journal.state('spill', `${files} spilled file(s) came home into ${active.vault.url}`);
    return files;
  }

  /** What was spilled before, with nothing waiting that would ask for it: home as soon as the vault answers. */
  tend(): void {
    if (performance.now() - this.#tendedAt < TEND_MS || this.#bringing !== undefined || !this.isAway) return;
    this.#tendedAt = performance.now();
    void this.#context
      .cluster()
      .then((active) => this.bringHome(active))
      .catch((error: unknown) => {
        if (!isPassing(error))
          this.#journal.state('spill', `what was spilled cannot come home: ${inWords(error)}`);
      });
  }
}

/** Something was spilled by this node that its vault may not have taken home yet. @throws VaultError local */
export function hasSpilled(paths: StatePaths): boolean {
  const text = readText(paths.spill);
  return text !== undefined && (JSON.parse(text) as Kept).away;
}

function readKept(paths: StatePaths): Kept {
  const text = readText(paths.spill);
  return text === undefined ? NOTHING : (JSON.parse(text) as Kept);
}

/** @throws VaultError local */
function writeKept(paths: StatePaths, kept: Kept): void {
  try {
    replaceDurably(paths.spill, `${JSON.stringify(kept)}\n`);
  } catch (cause) {
    throw new VaultError('local', `cannot write ${paths.spill}: ${(cause as Error).message}`, { cause });
  }
}

/** The nonces of the chain of spills; the epoch is the one that the node has taken up in its own vault. */
function spillStore(paths: StatePaths, own: WriterStore): WriterStore {
  return {
    read(): WriterState {
      const { nonce, next } = readKept(paths);
      return { epoch: own.read()?.epoch ?? 0, nonce, next };
    },
    write({ nonce, next }) {
      writeKept(paths, { ...readKept(paths), nonce, next });
    },
  };
}

/** For a hook without an agent, which spills nothing itself: what an agent had spilled comes home. @returns how many files */
export async function bringHomeAlone(context: NodeContext, active: Cluster): Promise<number> {
  const lane = new SpillLane(context, { state: () => {}, count: () => {} });
  const control = await readControl(active);
  lane.learn(control);
  if (!lane.isAway && control.direct === null) return 0;
  return lane.bringHome(active);
}
