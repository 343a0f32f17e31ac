/** What is opened by its first use and kept: by a process that may live for weeks, so a failure is forgotten, and tried again by the next use. */

/** @param open  called once for each key, until it succeeds; what comes with the key is that of the first call */
export function keptEach<K, More extends unknown[], T>(
  open: (key: K, ...more: More) => Promise<T>,
): (key: K, ...more: More) => Promise<T> {
  const opened = new Map<K, Promise<T>>();
  return (key, ...more) => {
    const known = opened.get(key);
    if (known !== undefined) return known;
    const opening = open(key, ...more);
    opened.set(key, opening);
    opening.catch(() => opened.delete(key));
    return opening;
  };
}

/** The same of one, which is closed only where it was opened. */
export function kept<T extends { close(): Promise<void> }>(open: () => Promise<T>) {
  let opened: Promise<T> | undefined;
  return {
    use: (): Promise<T> => {
      if (opened !== undefined) return opened;
      opened = open();
      opened.catch(() => (opened = undefined));
      return opened;
    },
    close: async (): Promise<void> => (await opened)?.close(),
  };
}
