/**
 * Progress of what takes long: a bar on a terminal; elsewhere a plain line at the end only, so that logs stay short.
 */
import cliProgress from 'cli-progress';
import { formatBytes, formatDuration } from './format.ts';
import type { Io } from './io.ts';

// a CommonJS package: Node finds no names in it to import
const { Format, SingleBar, Presets } = cliProgress;

export type Progress = {
  /** Bytes done so far, and of how many where that is known by now. */
  update(doneBytes: number, totalBytes?: number): void;
  /** Ends the bar; `words` is what was achieved, printed once on a line of its own. */
  finish(words?: string): void;
};

/** A bar over bytes. `label` says what is going on ('backing up', 'restoring'). `quiet`: nothing is printed at all. */
export function byteProgress(
  io: Io,
  label: string,
  options: { quiet?: boolean; nowMs?: () => number } = {},
): Progress {
  const now = options.nowMs ?? Date.now;
  let startedMs = now();
  let done = 0;
  const say = (words: string | undefined) => {
    if (words !== undefined && options.quiet !== true)
      io.err(`${words} (${formatBytes(done)} in ${formatDuration(now() - startedMs)})\n`);
  };
  if (!io.drawable || options.quiet === true)
    return {
      update: (bytes) => void (done = bytes),
      finish: say,
    };

  const bar = new SingleBar(
    {
      stream: io.stderr,
      hideCursor: true,
      clearOnComplete: true,
      stopOnComplete: false,
      format: (settings, params) => {
        const percent = params.total > 0 ? `${Math.floor((100 * params.value) / params.total)} %` : '';
        const share = params.total > 0 ? Math.min(1, params.value / params.total) : 0;
        const seconds = Math.max(0.001, (now() - startedMs) / 1000);
        return (
          `${label} ${Format.BarFormat(share, settings)} ${percent.padStart(5)}  ` +
          `${formatBytes(params.value)}${params.total > 0 ? ` of ${formatBytes(params.total)}` : ''}  ` +
          `${formatBytes(params.value / seconds)}/s`
        );
      },
    },
    Presets.shades_classic,
  );
  let shown = false;
  return {
    update(bytes, total) {
      done = bytes;
      // drawn from the first bytes on: messages of what comes before would be overwritten
      if (!shown) {
        bar.start(0, 0);
        startedMs = now();
      }
      shown = true;
      // PostgreSQL's estimate may be passed while the server grows: a bar over 100 % would be drawn broken
      if (total !== undefined) bar.setTotal(Math.max(total, bytes));
      bar.update(bytes);
    },
    finish(words) {
      if (shown) bar.stop();
      shown = false;
      say(words);
    },
  };
}
