/** Work on many things, some at a time: objects on their way are limited by memory and by what a store takes. */

/** `work` for each of the items, at most `parallel` at a time; answers in their order. The first failure is thrown, nothing new is begun after it. */
export async function eachOf<T, R>(
  items: readonly T[],
  parallel: number,
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const answers = new Array<R>(items.length);
  let next = 0;
  const worker = async (): Promise<void> => {
    for (let index = next++; index < items.length; index = next++) {
      try {
        answers[index] = await work(items[index]!);
      } catch (error) {
        next = items.length;
        throw error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(parallel, items.length) }, worker));
  return answers;
}
