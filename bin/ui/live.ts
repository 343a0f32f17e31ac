/**
 * A block of lines that is drawn again in its place on a terminal; elsewhere one plain line now and then.
 */
import type { Io } from './io.ts';

export type Live = {
  /** `lines` is the block; `plain` the one line for whoever has no terminal (printed only where it changed). */
  draw(lines: readonly string[], plain: string): void;
  /** Leaves the last block standing. */
  finish(): void;
};

export function live(io: Io): Live {
  let drawn = 0;
  let last = '';
  if (!io.drawable)
    return {
      draw(_lines, plain) {
        if (plain !== last) io.err(`${plain}\n`);
        last = plain;
      },
      finish() {},
    };
  return {
    draw(lines) {
      const up = drawn > 0 ? `\x1b[${drawn}A` : '';
      // cut to width and height: the cursor goes up by lines, and not beyond the top of the screen
      const fitting = lines.slice(0, Math.max(1, (io.stderr.rows || Infinity) - 1));
      const rest = fitting.length < drawn ? '\x1b[J' : '';
      io.err(up + fitting.map((line) => `\x1b[2K${line.slice(0, io.columns - 1)}\n`).join('') + rest);
      drawn = fitting.length;
    },
    finish() {
      drawn = 0;
    },
  };
}
