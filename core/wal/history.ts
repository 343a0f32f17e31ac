/**
 * Timeline history files: the ancestors of a timeline and where each was left.
 *
 *   1	0/5000000	no recovery target specified
 *
 * One line per ancestor, oldest first: its number, the fork (first byte that is no longer the ancestor's), a reason for people.
 * Lines that begin with '#' and blank lines are skipped (PostgreSQL puts a blank line between ancestors).
 *
 * Pure: no file, no clock, no network.
 * Source: PostgreSQL docs, "Continuous Archiving and Point-in-Time Recovery: Timelines".
 */
import { formatLsn, parseLsn, type Lsn } from './lsn.ts';
import { checkTimeline } from './name.ts';

export type HistoryEntry = { timeline: number; forkLsn: Lsn };

/**
 * Ancestors, oldest first.
 *
 * Numbers ascend, as PostgreSQL demands. Forks need not: a recovery that names timeline 2 but stops before the fork of 2
 * still writes 2 as the parent, with a fork below that of 1. core/wal/lineage.ts takes care of it.
 *
 * @throws RangeError  when a line is not number and LSN, or the numbers do not ascend: a history that is read wrongly
 *                     would let a standby replay past a fork, so nothing is guessed
 */
export function parseHistory(text: string): HistoryEntry[] {
  const entries: HistoryEntry[] = [];
  text.split('\n').forEach((line, index) => {
    const content = line.trim();
    if (content === '' || content.startsWith('#')) return;
    const wrong = (what: string) =>
      new RangeError(`history file, line ${index + 1}: ${what}: ${JSON.stringify(line.slice(0, 200))}`);
    const found = /^(\d{1,10})\s+([0-9A-Fa-f]{1,8}\/[0-9A-Fa-f]{1,8})(?:\s|$)/.exec(content);
    if (found === null) throw wrong('not a timeline and an LSN');
    const timeline = Number(found[1]);
    if (timeline < 1 || timeline > 0xffff_ffff) throw wrong('no such timeline');
    const before = entries.at(-1);
    if (before !== undefined && before.timeline >= timeline) throw wrong('timelines do not ascend');
    entries.push({ timeline, forkLsn: parseLsn(found[2]!) });
  });
  return entries;
}

/**
 * Text of a history file, in PostgreSQL's form; parseHistory reads it back.
 *
 * @param reason  one line for people, written to each ancestor
 * @throws RangeError  when the numbers do not ascend or the reason has more than one line
 */
export function formatHistory(entries: readonly HistoryEntry[], reason: string): string {
  if (/[\r\n]/.test(reason)) throw new RangeError('the reason in a history file is one line');
  const lines = entries.map(({ timeline, forkLsn }, index) => {
    checkTimeline(timeline);
    const before = entries[index - 1];
    if (before !== undefined && before.timeline >= timeline) {
      throw new RangeError(`timelines do not ascend: ${before.timeline}, ${timeline}`);
    }
    return `${timeline}\t${formatLsn(forkLsn)}\t${reason}\n`;
  });
  return lines.join('\n');
}
