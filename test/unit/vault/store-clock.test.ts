/** The store's clock, by the Date of an answer: a server of this test stands for a store whose clock is another. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { storeClockAhead } from '../../../core/vault/store-clock.ts';

async function storeAhead(ms: number, use: (endpoint: string) => Promise<void>): Promise<void> {
  const server = http.createServer((_, answer) => {
    answer.setHeader('Date', new Date(Date.now() + ms).toUTCString());
    answer.writeHead(403).end();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

test.each([0, 300_000, -300_000])('a store that is %d ms ahead, though it denies us', async (ms) => {
  await storeAhead(ms, async (endpoint) => {
    const url = `s3://bucket/prefix?table=walvault&region=eu-west-1&endpoint=${encodeURIComponent(endpoint)}`;
    const ahead = await storeClockAhead(url, {}, 5000);
    expect(Math.abs((ahead ?? NaN) - ms)).toBeLessThan(1500);
    if (ms === 0) expect(ahead).toBe(0);
  });
});

test('nothing is said of a vault on this machine, nor by a store that does not answer', async () => {
  expect(await storeClockAhead('file:///srv/vault', {}, 1000)).toBeUndefined();
  const nobody = 's3://bucket/prefix?table=walvault&endpoint=http%3A%2F%2F127.0.0.1%3A1';
  expect(await storeClockAhead(nobody, {}, 1000)).toBeUndefined();
});
