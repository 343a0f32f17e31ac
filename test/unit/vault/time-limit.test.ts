import { withLimit } from '../../../core/vault/time-limit.ts';

test('gives what the work gives, and its own failure', async () => {
  expect(await withLimit(1000, 'work', async () => 7)).toBe(7);
  await expect(withLimit(1000, 'work', async () => Promise.reject(new Error('own')))).rejects.toThrow('own');
});

test('work that never ends is given up, told by the signal, and may fail later without harm', async () => {
  let signal: AbortSignal | undefined;
  const started = performance.now();
  await expect(
    withLimit(50, 'work', (limit) => {
      ({ signal } = limit);
      const { promise, reject } = Promise.withResolvers<never>();
      limit.signal.addEventListener('abort', () => reject(new Error('aborted')));
      return promise;
    }),
  ).rejects.toMatchObject({ code: 'unreachable', message: 'work took longer than 50 ms' });
  expect(performance.now() - started).toBeLessThan(1000);
  expect(signal?.aborted).toBe(true);
});

test('a limit can be extended once the size of what comes is known', async () => {
  const answer = await withLimit(30, 'work', async (limit) => {
    limit.extend(2000);
    const { promise, resolve } = Promise.withResolvers<string>();
    setTimeout(() => resolve('late'), 100);
    return promise;
  });
  expect(answer).toBe('late');
});
