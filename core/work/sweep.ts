/**
 * After a disaster the primary's agent looks for the vault whose place its own took, until that one answers and is made a replica:
 * a primary there that knows of nothing must be fenced as soon as anybody can.
 */
import { VaultError } from '../errors.ts';
import { readControl } from './cluster.ts';
import { converge } from './converge.ts';
import { inWords, type Journal } from './journal.ts';
import type { NodeContext } from './node-context.ts';

export class Sweeper {
  readonly #context: NodeContext;
  readonly #journal: Journal;
  #lookedAt = -Infinity;
  #looking: Promise<void> | undefined;

  constructor(context: NodeContext, journal: Journal) {
    this.#context = context;
    this.#journal = journal;
  }

  /** Called often; looks when it is due, one look at a time. Never throws, never waits. */
  look(): void {
    const { sweepInterval } = this.#context.settings;
    if (this.#looking !== undefined || performance.now() - this.#lookedAt < sweepInterval) return;
    this.#lookedAt = performance.now();
    this.#looking = this.#lookOnce()
      .catch((error: unknown) => this.#journal.state('sweep', `sweep: ${inWords(error)}`))
      .finally(() => (this.#looking = undefined));
  }

  async #lookOnce(): Promise<void> {
    const cluster = await this.#context.cluster();
    const { role, primary, supersedes } = await readControl(cluster);
    if (role !== 'active' || supersedes === null || primary !== this.#context.node) return;
    const other = await this.#context.other(supersedes.url);
    const { vaultId } = await readControl(other);
    if (vaultId !== supersedes.id) {
      throw new VaultError(
        'refused',
        `${supersedes.url} is not the vault that was superseded (id ${supersedes.id}, now ${vaultId})`,
      );
    }
    const { aside } = await converge(cluster, other);
    this.#journal.state('sweep', `${supersedes.url} is a replica now, ${aside} rows of it were set aside`);
  }
}
