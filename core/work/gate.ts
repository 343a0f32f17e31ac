/**
 * The gate of a promotion: PostgreSQL has taken its new timeline, and takes no write before `recovered` has its answer. Whoever gives
 * that, the agent or the hook by itself, gives it by these rules.
 */
import { recoveryMode, writeSignalFile } from '../postgres/signal-files.ts';
import { inWords } from './journal.ts';
import type { LeaseTerms } from './lease.ts';
import type { NodeContext } from './node-context.ts';
import { readOnlySignal, readText, removeDurably, replaceDurably } from './node-state.ts';
import type { OpenOutcome } from './promote.ts';

/**
 * What the server does, once the vault was asked. Where it must not open the gate is closed when this returns.
 *
 * @param terms  with a lease a server opens only where the vault has said so: an unconfirmed one would have none
 * @throws whatever `opening` does, without a lease: then PostgreSQL opens, and a person is told
 */
export async function passGate(
  context: NodeContext,
  terms: LeaseTerms | undefined,
  opening: Promise<OpenOutcome>,
): Promise<OpenOutcome> {
  const outcome = await decide(context, terms, opening);
  if (outcome.done === 'gate') await closeGate(context, outcome.why);
  return outcome;
}

async function decide(
  context: NodeContext,
  terms: LeaseTerms | undefined,
  opening: Promise<OpenOutcome>,
): Promise<OpenOutcome> {
  const outcome =
    terms === undefined
      ? await opening
      : // a failure is no word of the vault either
        await opening.catch((error: unknown): OpenOutcome => ({ done: 'unconfirmed', why: inWords(error) }));
  if (outcome.done === 'unconfirmed' && terms !== undefined)
    return { done: 'gate', why: `${outcome.why}, and this node has a lease` };
  // Asked again after an answer that was lost. PostgreSQL had removed its signal file: who closed the gate has put it back.
  if (outcome.done === 'nothing' && (await recoveryMode(context.pgdata)) !== 'none')
    return { done: 'gate', why: readText(context.paths.refused)?.trim() ?? 'its gate was closed' };
  return outcome;
}

/** The signal file first, then the reason, both flushed: the restart is read-only whatever happens next. */
export async function closeGate(context: NodeContext, why: string): Promise<void> {
  await writeSignalFile(context.pgdata, readOnlySignal(context.paths));
  replaceDurably(context.paths.refused, `${why}\n`);
  removeDurably(context.paths.seal);
}
