/**
 * Numbers and times as people read them: sizes, durations, ages, counts.
 *
 * Pure: the present moment comes in as an argument.
 */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** @example formatBytes(16777216)   // '16 MiB' */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** @example formatDuration(90_500)   // '1 min 30 s' */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long ago an ISO time was; '-' where there is none. A clock behind the writer's shows 'now', not a negative age. */
export function formatAge(at: string | null | undefined, nowMs: number): string {
  if (at === null || at === undefined) return '-';
  const ms = nowMs - Date.parse(at);
  if (Number.isNaN(ms)) return at;
  return ms < 1000 ? 'now' : `${formatDuration(Math.max(0, ms))} ago`;
}

/** @example formatCount(1, 'segment')   // '1 segment' */
export function formatCount(count: number, noun: string): string {
  return `${count.toLocaleString('en-US')} ${noun}${count === 1 ? '' : 's'}`;
}

/** A word as the shell takes it back unchanged: quoted only where it must be, so that printed commands can be pasted. */
export function shellWord(word: string): string {
  return /^[A-Za-z0-9_/.:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
