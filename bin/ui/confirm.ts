/**
 * Asking before something dangerous: says what will be done, then wants `--yes`, or a "yes" typed on a terminal.
 *
 * Without a terminal nobody is asked: a script must have said `--yes`, so that no pipe's accidental line answers for a person.
 */
import { createInterface } from 'node:readline/promises';
import { VaultError } from '../../core/errors.ts';
import type { Io } from './io.ts';

/** @throws VaultError usage (nobody to ask) | refused (the answer was no) */
export async function confirm(io: Io, consequences: readonly string[], yes: boolean): Promise<void> {
  io.err('This will:\n' + consequences.map((line) => `  - ${line}\n`).join(''));
  if (yes) return;
  if (!io.asks)
    throw new VaultError('usage', 'there is no terminal to ask on', {
      hint: 'read the lines above, then run the same command with --yes',
    });
  const asking = createInterface({ input: io.stdin, output: io.stderr });
  try {
    const answer = (await asking.question("Type 'yes' to go on: ")).trim().toLowerCase();
    if (answer !== 'yes' && answer !== 'y')
      throw new VaultError('refused', 'not confirmed', { hint: 'nothing was changed' });
  } finally {
    asking.close();
  }
}
