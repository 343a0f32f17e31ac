/**
 * agent.log, and failures in one line. Apart from node-context.ts, which opens vaults: the watchdog writes here too, and knows none.
 */
import fs from 'node:fs';
import path from 'node:path';
import { VaultError } from '../errors.ts';
import type { StatePaths } from './node-state.ts';

/** agent.log: one line a change of state, a summary a minute; kept under 1 MB. */
export class Journal {
  readonly #file: string;
  readonly #last = new Map<string, string>();
  readonly #counts = new Map<string, number>();
  #summaryAt = Date.now();

  constructor(paths: StatePaths) {
    this.#file = paths.log;
  }

  /** Says `text` where the matter `topic` did not say the same before. */
  state(topic: string, text: string): void {
    if (this.#last.get(topic) === text) return;
    this.#last.set(topic, text);
    this.#line(text);
  }

  count(what: string, by = 1): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + by);
    if (Date.now() - this.#summaryAt < 60_000) return;
    this.#summaryAt = Date.now();
    this.#line([...this.#counts].map(([name, number]) => `${name} ${number}`).join(', '));
    this.#counts.clear();
  }

  #line(text: string): void {
    try {
      const size = fs.statSync(this.#file, { throwIfNoEntry: false })?.size ?? 0;
      if (size > 1_000_000) fs.renameSync(this.#file, path.join(path.dirname(this.#file), 'agent.log.1'));
      fs.appendFileSync(this.#file, `${new Date().toISOString()} ${text}\n`, { mode: 0o600 });
    } catch {
      // a full disk must not stop the work that frees it
    }
  }
}

/** A failure in one line, for the journal. */
export function inWords(error: unknown): string {
  if (error instanceof VaultError) return `[${error.code}] ${error.message}`;
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
