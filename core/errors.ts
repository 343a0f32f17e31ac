/**
 * Every failure: exit code of the operator's command, whether trying again can help, and its meaning.
 *
 * A hook never returns these codes: archive answers 0 or 1, restore what decideRestore says (with 'unsafe' for every
 * surprise in archive recovery), cleanup 0 or 1, recovered 0, 1 or, as the gate, 200.
 */

export const FAILURES = {
  absent: { exit: 1, retry: false, means: 'the vault does not hold this file' },
  usage: { exit: 2, retry: false, means: 'the command line or a setting is wrong' },
  refused: { exit: 3, retry: false, means: 'the state of cluster or server does not allow this' },
  conflict: { exit: 65, retry: false, means: 'the vault holds other bytes under this name' },
  corrupt: { exit: 66, retry: false, means: 'the bytes are not what their name or their record says' },
  unconfigured: { exit: 67, retry: false, means: 'cluster, table, bucket or state directory is not there' },
  hole: { exit: 68, retry: true, means: 'an earlier segment has not been archived yet' },
  pgdata: { exit: 69, retry: false, means: 'the data directory is not what the command needs' },
  local: { exit: 73, retry: true, means: 'a file or directory of this machine cannot be read or written' },
  busy: { exit: 74, retry: true, means: 'somebody else changed the same thing at the same time' },
  unreachable: { exit: 75, retry: true, means: 'bucket, manifest or server did not answer in time' },
  format: { exit: 76, retry: false, means: 'the vault was written by a newer walvault' },
  fenced: { exit: 77, retry: false, means: 'a newer epoch has taken over; this node may not write' },
  copied: { exit: 78, retry: false, means: 'another copy of this node writes to the vault' },
  denied: { exit: 79, retry: false, means: 'credentials are missing or do not allow this' },
  unsafe: { exit: 200, retry: true, means: 'to go on would end recovery before the end of the WAL' },
} as const satisfies Record<string, { exit: number; retry: boolean; means: string }>;

export type FailureCode = keyof typeof FAILURES;

/** A failure that has a row in FAILURES. The message says what (lower case, no full stop), the hint what to do. */
export class VaultError extends Error {
  readonly code: FailureCode;
  readonly hint: string | undefined;

  constructor(code: FailureCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'VaultError';
    this.code = code;
    this.hint = options.hint;
  }
}

/**
 * The same failure of a job of several steps, its hint beginning with the state in which everything was left. What is neither a failure
 * nor an AbortSignal's end is our bug, and stays as it is.
 *
 * @param brokenOff  what is said where a signal ended it
 */
export function inState(error: unknown, state: string, brokenOff: string): unknown {
  if (error instanceof Error && error.name === 'AbortError')
    return new VaultError('refused', brokenOff, { hint: state, cause: error });
  if (!(error instanceof VaultError)) return error;
  const hint = error.hint === undefined ? state : `${state}\n      ${error.hint}`;
  return new VaultError(error.code, error.message, { hint, cause: error });
}

/** Of another bundle too: a hook loads the agent's, which has a class of its own. */
function isFailure(error: unknown): error is VaultError {
  if (error instanceof VaultError) return true;
  return error instanceof Error && error.name === 'VaultError' && (error as VaultError).code in FAILURES;
}

/** How a failure is printed: `walvault: [fenced] epoch 6 is over`, then `HINT: …`; our own bugs with their stack. */
export function describeFailure(error: unknown): { text: string; exit: number } {
  if (isFailure(error)) {
    const hint = error.hint === undefined ? '' : `\nHINT: ${error.hint}`;
    return { text: `walvault: [${error.code}] ${error.message}${hint}`, exit: FAILURES[error.code].exit };
  }
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { text: `walvault: [bug] ${stack}`, exit: 70 };
}
