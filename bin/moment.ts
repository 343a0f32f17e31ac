/** `--since`: a moment, as a time of its own or as how long ago. */
import { VaultError } from '../core/errors.ts';
import { duration } from '../core/settings/kinds.ts';

const AGO = duration('0', '36500d');

/** @returns ISO 8601 in UTC @throws VaultError usage */
export function momentOf(option: string, text: string, now: Date): string {
  if (/^\d{4}-\d\d-\d\d/.test(text)) {
    const at = Date.parse(text);
    if (!Number.isNaN(at)) return new Date(at).toISOString();
  } else {
    try {
      return new Date(now.getTime() - AGO.parse(text)).toISOString();
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
    }
  }
  throw new VaultError('usage', `--${option}: '${text}' is neither a duration nor an ISO time`, {
    hint: `For example --${option} 2h, or --${option} 2026-01-31T12:00:00Z; a date alone is midnight UTC.`,
  });
}
