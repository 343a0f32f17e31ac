/**
 * What an examination finds: one line each, with what to do about it.
 *
 * Pure. core/cluster/examine-*.ts make them of facts that core/work/doctor-*.ts has gathered.
 */

export type Finding = {
  /** What was looked at: a name of the table of checks (core/cluster/checks.ts); stable. */
  what: string;
  /** warn: worth a look. bad: something does not work, or will not. */
  state: 'ok' | 'warn' | 'bad';
  says: string;
  /** What to do, in a sentence. */
  fix?: string;
  /** The command that does it, as sh takes it. */
  run?: string;
};

/** Facts that could not be had, and why. */
export type Unseen = { unseen: string; fix?: string };

export function isUnseen(facts: unknown): facts is Unseen {
  return typeof facts === 'object' && facts !== null && 'unseen' in facts;
}

/** The worst of them, as a monitoring plug-in answers: 0 ok, 1 warn, 2 bad. */
export function worstOf(findings: readonly Finding[]): 0 | 1 | 2 {
  if (findings.some(({ state }) => state === 'bad')) return 2;
  return findings.some(({ state }) => state === 'warn') ? 1 : 0;
}

type Remedy = { fix?: string; run?: string };

export const ok = (what: string, says: string): Finding => ({ what, state: 'ok', says });
export const warn = (what: string, says: string, remedy: Remedy): Finding => ({
  ...{ what, state: 'warn', says },
  ...remedy,
});
export const bad = (what: string, says: string, remedy: Remedy): Finding => ({
  ...{ what, state: 'bad', says },
  ...remedy,
});

/** A word as sh takes it back unchanged. */
export function quoted(word: string): string {
  return /^[A-Za-z0-9_/.:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A length of time. @example inWords(120_000)   // '2 min' */
export function inWords(ms: number): string {
  const seconds = Math.round(Math.abs(ms) / 1000);
  if (seconds < 90) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} d`;
}

/** @example sizeInWords(3 << 30)   // '3.0 GiB' */
export function sizeInWords(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let value = bytes;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}
