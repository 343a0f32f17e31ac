/**
 * Where a command speaks: answers on standard output, messages on standard error, and whether a person sits at a terminal.
 *
 * A value rather than the process itself, so that tests read what a person would.
 */
import { once } from 'node:events';

export type Io = {
  out(text: string): void;
  err(text: string): void;
  /** Waits while standard output has more than it can take; undefined: it always takes all. */
  drained?(): Promise<void>;
  /** Standard error is a terminal: bars and redrawn blocks may be drawn there. */
  drawable: boolean;
  /** Somebody can be asked: standard input and standard error are terminals. */
  asks: boolean;
  stdin: NodeJS.ReadableStream;
  stderr: NodeJS.WriteStream;
  env: NodeJS.ProcessEnv;
  columns: number;
};

/** The process's own streams. */
export function processIo(): Io {
  const { stdin, stdout, stderr, env } = process;
  return {
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    async drained() {
      if (stdout.writableNeedDrain) await once(stdout, 'drain');
    },
    drawable: stderr.isTTY === true && env['TERM'] !== 'dumb',
    asks: stdin.isTTY === true && stderr.isTTY === true,
    stdin,
    stderr,
    env,
    columns: stderr.columns || 80,
  };
}
