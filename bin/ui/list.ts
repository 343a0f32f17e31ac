/**
 * A list as it is read, of whatever length: lines for people, or an array of JSON with one object a line. Waits where the reader
 * (a pipe, a slow terminal) does not follow, so that nothing piles up here.
 */
import type { Answer, Context } from '../command.ts';

export async function writeList<T extends { readonly [name: string]: Answer }>(
  { io, json }: Pick<Context, 'io' | 'json'>,
  items: AsyncIterable<T> | Iterable<T>,
  words: { head: string | undefined; line: (item: T) => string; none: string },
): Promise<void> {
  let count = 0;
  for await (const item of items) {
    if (count === 0 && !json && words.head !== undefined) io.out(`${words.head}\n`);
    if (json) io.out(`${count === 0 ? '[\n' : ',\n'}${JSON.stringify(item)}`);
    else io.out(`${words.line(item)}\n`);
    count += 1;
    await io.drained?.();
  }
  if (json) io.out(count === 0 ? '[]\n' : '\n]\n');
  else if (count === 0) io.out(`${words.none}\n`);
}
