/** The proxy of these tests, held against real clients and the emulator: what it notes, that it changes nothing, and how each fault is felt. */
import { GetObjectCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { PublishCommand, SNSClient } from '@aws-sdk/client-sns';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { createVault, openVault } from '../../core/vault/open-vault.ts';
import type { Vault } from '../../core/vault/vault.ts';
import { startAwsProxy, type AwsProxy } from '../harness/aws-proxy.ts';
import { makeBucket } from '../harness/buckets.ts';
import { CREDENTIALS, ownName, startMinistack, type Emulator } from '../harness/emulators.ts';

const REGION = 'eu-west-1';
let emulator: Emulator;
let proxy: AwsProxy;
let bucket: string, table: string;
let vault: Vault;
let number = 0;

beforeAll(async () => {
  Object.assign(process.env, CREDENTIALS);
  emulator = await startMinistack();
  proxy = await startAwsProxy(emulator.port);
  bucket = await makeBucket(emulator.endpoint, ownName(), REGION);
  table = ownName();
  const url = (endpoint: string) =>
    `s3://${bucket}/pre?table=${table}&region=${REGION}&endpoint=${encodeURIComponent(endpoint)}`;
  await (await createVault(url(emulator.endpoint), { createTable: true })).close();
  vault = await openVault(url(proxy.endpoint), { timeoutMs: 5000 });
});
afterAll(async () => {
  await vault?.close();
  await proxy?.close();
  await emulator?.stop();
});
beforeEach(() => {
  proxy.calm();
  proxy.requests.length = 0;
});

const put = () =>
  vault.manifest.transact([{ do: 'put', row: { pk: 'p', sk: `s${++number}`, rev: 1 }, when: 'absent' }]);
const isTransaction = ({ operation }: { operation: string }) => operation === 'TransactWriteItems';
const seen = () => proxy.requests.map(({ operation }) => operation);

test('passes on what the client sent, byte for byte, Host and order of headers too', async () => {
  const got = Promise.withResolvers<{ url?: string; rawHeaders: string[]; body: string }>();
  const target = http.createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => (body += chunk));
    request.on('end', () => {
      got.resolve({ url: request.url, rawHeaders: request.rawHeaders, body });
      response.writeHead(207, ['X-One', '1', 'x-two', '2']);
      response.end('the answer');
    });
  });
  const listening = Promise.withResolvers<void>();
  target.listen(0, '127.0.0.1', () => listening.resolve());
  await listening.promise;
  const before = await startAwsProxy((target.address() as AddressInfo).port);
  const headers = [
    'Host',
    `127.0.0.1:${before.port}`,
    'X-Amz-Date',
    'd',
    'authorization',
    'a',
    'Content-Length',
    '4',
  ];
  const answered = Promise.withResolvers<{ status?: number; rawHeaders: string[]; body: string }>();
  http
    .request(
      { host: '127.0.0.1', port: before.port, method: 'PUT', path: '/a%20b/?x&y=%2F', headers, agent: false },
      (response) => {
        let body = '';
        response.on('data', (chunk) => (body += chunk));
        response.on('end', () =>
          answered.resolve({ status: response.statusCode, rawHeaders: response.rawHeaders, body }),
        );
      },
    )
    .end('body');
  const received = await got.promise;
  expect(received).toMatchObject({ url: '/a%20b/?x&y=%2F', body: 'body' });
  expect(received.rawHeaders.slice(0, headers.length)).toEqual(headers);
  const answer = await answered.promise;
  expect(answer).toMatchObject({ status: 207, body: 'the answer' });
  expect(answer.rawHeaders.slice(0, 4)).toEqual(['X-One', '1', 'x-two', '2']);
  await before.close();
  target.close();
});

test('notes what a vault asks for', async () => {
  await vault.bucket.putOnce('some/key', Buffer.from('bytes'));
  await put();
  expect(await vault.bucket.get('some/key')).toEqual(Buffer.from('bytes'));
  await vault.manifest.get({ pk: 'p', sk: 's1' });
  for await (const row of vault.manifest.query({ pk: 'p', from: 's' })) expect(row.pk).toBe('p');
  for await (const object of vault.bucket.list('some/')) expect(object.key).toBe('some/key');
  expect(
    proxy.requests.every(({ accessKeyId, region }) => accessKeyId === 'walvault' && region === REGION),
  ).toBe(true);
  expect(proxy.requests).toEqual(
    expect.arrayContaining([
      expect.objectContaining({
        operation: 'PutObject',
        bucket,
        key: 'pre/some/key',
        ifNoneMatch: true,
        status: 200,
      }),
      expect.objectContaining({
        operation: 'TransactWriteItems',
        rows: [{ operation: 'PutItem', table, pk: 'p', sk: `s${number}`, isConditional: true }],
      }),
      expect.objectContaining({ operation: 'GetObject', key: 'pre/some/key' }),
      expect.objectContaining({
        operation: 'GetItem',
        table,
        rows: [expect.objectContaining({ pk: 'p', sk: 's1' })],
      }),
      expect.objectContaining({ operation: 'Query', rows: [expect.objectContaining({ pk: 'p' })] }),
      expect.objectContaining({ operation: 'ListObjectsV2', bucket, prefix: 'pre/some/' }),
    ]),
  );
});

test('the names of operations are those of the SDK', async () => {
  const client = new S3Client({ endpoint: proxy.endpoint, region: REGION, forcePathStyle: true });
  await client.send(new PutObjectCommand({ Bucket: bucket, Key: 'ä b/+', Body: 'x' }));
  await client.send(new GetObjectCommand({ Bucket: bucket, Key: 'ä b/+' }));
  client.destroy();
  for (const { url, operation, key } of proxy.requests)
    expect([new URL(url, 'http://x').searchParams.get('x-id'), key]).toEqual([operation, 'ä b/+']);
  expect(proxy.requests).toHaveLength(2);
});

test('throttle: the client knows the words, and tries again', async () => {
  const throttled = proxy.disturb(() => true, 'throttle', 2);
  expect(await put()).toEqual({ done: true });
  expect(throttled.met).toBe(2);
  expect(proxy.requests.map(({ status, fault }) => [status, fault])).toEqual([
    [400, 'throttle'],
    [400, 'throttle'],
    [200, undefined],
  ]);
  proxy.disturb(() => true, 'throttle', 1);
  expect(await vault.bucket.putOnce('throttled', Buffer.from('x'))).toBe('stored');
  expect(proxy.requests.filter(({ service, status }) => service === 's3' && status === 503)).toHaveLength(1);
});

test('cancel: a transaction is cancelled with a reason for each item, and tried again', async () => {
  proxy.disturb(isTransaction, 'cancel', 3);
  expect(await put()).toEqual({ done: true });
  expect(seen()).toEqual(Array.from({ length: 4 }, () => 'TransactWriteItems'));
});

test('SNS, throttled for good', async () => {
  const sns = new SNSClient({ endpoint: proxy.endpoint, region: REGION, maxAttempts: 1 });
  proxy.disturb(({ service }) => service === 'sns', 'throttle');
  await expect(
    sns.send(new PublishCommand({ TopicArn: `arn:aws:sns:${REGION}:000000000000:x`, Message: 'm' })),
  ).rejects.toMatchObject({ name: 'Throttling' });
  sns.destroy();
  expect(proxy.requests).toMatchObject([{ operation: 'Publish', input: { Message: 'm' } }]);
});

test('refuse: nothing is carried out', async () => {
  const refused = proxy.disturb(isTransaction, 'refuse', 1);
  expect(await put()).toEqual({ done: true });
  expect(refused.met).toBe(1);
  expect(proxy.requests[0]).toMatchObject({ fault: 'refuse' });
  expect(proxy.requests[0]!.status).toBeUndefined();
});

test('lose answer: it is carried out', async () => {
  proxy.disturb(({ operation }) => operation === 'PutObject', 'lose answer', 1);
  // the second attempt finds the first one's object
  expect(await vault.bucket.putOnce('lost', Buffer.from('x'))).toBe('same');
  expect(seen().filter((operation) => operation === 'PutObject')).toHaveLength(2);
});

test('twice: the second answer is the one that is heard', async () => {
  proxy.disturb(({ operation }) => operation === 'PutObject', 'twice');
  expect(await vault.bucket.putOnce('twice', Buffer.from('x'))).toBe('same');
});

test('hang: no answer until it is over', async () => {
  const hanging = proxy.disturb(({ rows }) => rows[0]?.sk === 'hangs', 'hang', 1);
  const reading = vault.manifest.get({ pk: 'p', sk: 'hangs' });
  await untilMet(hanging);
  expect(await vault.manifest.get({ pk: 'p', sk: 'other' })).toBeUndefined();
  hanging.end();
  expect(await reading).toBeUndefined();
  expect(proxy.requests[0]!.status).toBeUndefined();
});

test('delay: later, and whole', async () => {
  proxy.disturb(isTransaction, { delayMs: 300 });
  const begun = performance.now();
  expect(await put()).toEqual({ done: true });
  expect(performance.now() - begun).toBeGreaterThanOrEqual(299);
  expect(seen()).toEqual(['TransactWriteItems']);
});

async function untilMet(disturbance: { met: number }): Promise<void> {
  const until = performance.now() + 10_000;
  while (disturbance.met === 0) {
    if (performance.now() > until) throw new Error('no request has come');
    await new Promise((resolve) => setImmediate(resolve));
  }
}
