/** `walvault status --watch`: the view again and again; in its place on a terminal, elsewhere one block for each change. */
import { setTimeout as sleep } from 'node:timers/promises';
import { FAILURES, VaultError } from '../core/errors.ts';
import { duration } from '../core/settings/kinds.ts';
import type { Look } from './commands/status.ts';
import type { Context } from './command.ts';
import { live } from './ui/live.ts';
import { untilSignalled } from './until-signalled.ts';

/** What grows by itself is no change: ages, heartbeats, renewals, how long a look took, words of a witness that name seconds. */
const PASSING = new Set([
  ...['heartbeatAt', 'lagSeconds', 'seconds', 'at', 'tookMs'],
  ...['renewals', 'why', 'reasons'],
]);

/** @throws VaultError of the first look, and what trying again does not mend */
export async function watchStatus(context: Context, look: () => Promise<Look>): Promise<void> {
  const everyMs = context.duration('every', '2s', duration('100ms', '1h'));
  const { io, json } = context;
  const isDrawn = io.drawable && !json;
  const view = live(io);
  let last = '';
  let seen: Look | undefined;
  const show = ({ value, text }: Look) => {
    if (isDrawn)
      return view.draw([...text().split('\n'), '', `${new Date().toISOString()}  Ctrl-C ends it`], '');
    const now = JSON.stringify(value, (name, part: unknown) => (PASSING.has(name) ? undefined : part));
    if (now === last) return;
    last = now;
    const at = new Date().toISOString();
    io.out(json ? `${JSON.stringify({ at, status: value })}\n` : `--- ${at}\n${text()}\n\n`);
  };
  await untilSignalled(async (signal) => {
    while (!signal.aborted) {
      try {
        seen = await look();
        show(seen);
      } catch (error) {
        const isPassing = error instanceof VaultError && FAILURES[error.code].retry;
        if (seen === undefined || !isPassing) throw error;
        const { code, message } = error;
        const known = seen.text;
        show({
          value: { error: { code, message } },
          text: () => `NOT READ: [${code}] ${message}\n\nas it was:\n${known()}`,
        });
      }
      try {
        await sleep(everyMs, undefined, { signal });
      } catch (error) {
        if (!(error instanceof Error && error.name === 'AbortError')) throw error;
      }
    }
  });
  view.finish();
  context.exit = 0;
}
