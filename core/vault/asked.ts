/**
 * What is asked of a store, told to whoever listens (`--debug`): each question, how long it took, and how it ended. Nobody listening,
 * it costs nothing. By Node's channels, so that no room has to know who listens; core/postgres tells on the same channel.
 */
import diagnostics from 'node:diagnostics_channel';

/** What stands on the channel. `what` holds names and keys, never bodies, values or credentials. */
export type Asked = { what: string; tookMs: number; end: string };

const channel = diagnostics.channel('walvault:asked');

/** `work`, told when it has ended. */
export async function asked<T>(what: string, work: () => Promise<T>): Promise<T> {
  if (!channel.hasSubscribers) return work();
  const sinceMs = performance.now();
  const tell = (end: string) =>
    channel.publish({ what, tookMs: performance.now() - sinceMs, end } satisfies Asked);
  try {
    const answer = await work();
    tell(answer === undefined ? 'nothing' : 'done');
    return answer;
  } catch (error) {
    tell(`failed: ${error instanceof Error ? error.message : String(error)}`);
    throw error;
  }
}

/** The same of what comes piece by piece. */
export async function* askedEach<T>(what: string, work: () => AsyncIterable<T>): AsyncGenerator<T, void> {
  if (!channel.hasSubscribers) {
    yield* work();
    return;
  }
  const sinceMs = performance.now();
  let count = 0;
  try {
    for await (const each of work()) {
      count += 1;
      yield each;
    }
  } finally {
    channel.publish({ what, tookMs: performance.now() - sinceMs, end: `${count} given` } satisfies Asked);
  }
}
