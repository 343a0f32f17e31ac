/**
 * What every bucket keeps to (core/vault/bucket.ts): memory and file in `npm test`, s3 by a real server with WALVAULT_TEST_AWS=1.
 */
import { randomBytes } from 'node:crypto';
import type { Bucket } from '../../core/vault/bucket.ts';
import { buckets, type Place } from '../harness/buckets.ts';
import { startProxy } from '../harness/proxy.ts';

const MiB = 1024 * 1024;

async function keysOf(bucket: Bucket, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of bucket.list(prefix)) keys.push(key);
  return keys;
}

describe.each(buckets)('Bucket contract: $name', (backend) => {
  let place: Place;
  const opened: Bucket[] = [];
  const open = (options: { timeoutMs?: number; port?: number } = {}) => {
    const bucket = place.open(options);
    opened.push(bucket);
    return bucket;
  };

  beforeAll(() => backend.start(), 700_000);
  afterAll(() => backend.stop(), 30_000);
  beforeEach(async () => {
    place = await backend.make();
  });
  afterEach(async () => {
    for (const bucket of opened.splice(0)) await bucket.close();
    await place.remove();
  });

  test('gives back what was put, to another connection too', async () => {
    expect(await open().putOnce('main/73/wal/1/00000001-a.zst', Buffer.from('bytes'))).toBe('stored');
    expect(await open().get('main/73/wal/1/00000001-a.zst')).toEqual(Buffer.from('bytes'));
  });

  test('says that an object is absent, and does not fail', async () => {
    const bucket = open();
    expect(await bucket.get('main/nothing')).toBeUndefined();
    expect(await bucket.facts('main/nothing')).toBeUndefined();
    await bucket.putOnce('main/file', Buffer.from('x'));
    expect(await bucket.get('main/file/below')).toBeUndefined();
    expect(await bucket.get('main')).toBeUndefined();
  });

  test('takes the same bytes again, with other facts too, and keeps the first facts', async () => {
    const bucket = open();
    await bucket.putOnce('main/a', Buffer.from('same'), { node: 'db1' });
    expect(await open().putOnce('main/a', Buffer.from('same'), { node: 'db2' })).toBe('same');
    expect(await bucket.facts('main/a')).toEqual({ node: 'db1' });
  });

  test.each([
    ['of the same length', Buffer.from('other')],
    ['shorter', Buffer.from('fir')],
    ['empty', Buffer.alloc(0)],
    ['longer', Buffer.from('first and more')],
  ])('keeps the first bytes when a second writer brings others: %s', async (_, other) => {
    const bucket = open();
    await bucket.putOnce('main/a', Buffer.from('first'), { node: 'db1' });
    await expect(open().putOnce('main/a', other)).rejects.toMatchObject({
      name: 'VaultError',
      code: 'conflict',
    });
    expect(await bucket.get('main/a')).toEqual(Buffer.from('first'));
    expect(await bucket.facts('main/a')).toEqual({ node: 'db1' });
  });

  test('of 16 writers with 16 contents at once just one is stored, and the others are told', async () => {
    const bodies = Array.from({ length: 16 }, (_, index) => Buffer.from(`content ${index}`));
    const answers = await Promise.allSettled(bodies.map((body) => open().putOnce('main/race', body)));
    const stored = answers.flatMap((answer, index) => (answer.status === 'fulfilled' ? [index] : []));
    expect(stored).toHaveLength(1);
    expect(await open().get('main/race')).toEqual(bodies[stored[0]!]);
    for (const answer of answers) {
      if (answer.status === 'rejected') expect(answer.reason).toMatchObject({ code: 'conflict' });
    }
  });

  test('of 16 writers with one content at once one stores it, the others hear that it is there', async () => {
    const body = randomBytes(MiB);
    const answers = await Promise.all(
      Array.from({ length: 16 }, () => open().putOnce('main/deep/er/race', body)),
    );
    expect(answers.filter((answer) => answer === 'stored')).toHaveLength(1);
    expect(answers.filter((answer) => answer === 'same')).toHaveLength(15);
    expect((await open().get('main/deep/er/race'))?.equals(body)).toBe(true);
  });

  test('keeps zero bytes', async () => {
    const bucket = open();
    expect(await bucket.putOnce('main/empty', Buffer.alloc(0), { size: '0' })).toBe('stored');
    expect(await bucket.get('main/empty')).toEqual(Buffer.alloc(0));
    expect(await bucket.facts('main/empty')).toEqual({ size: '0' });
    expect(await bucket.putOnce('main/empty', Buffer.alloc(0))).toBe('same');
  });

  test('keeps 70 MiB', async () => {
    const bucket = open();
    const body = randomBytes(70 * MiB);
    expect(await bucket.putOnce('main/large', body)).toBe('stored');
    const back = await bucket.get('main/large');
    expect(back?.equals(body)).toBe(true);
    expect(await bucket.putOnce('main/large', body)).toBe('same');
    for await (const { sizeBytes } of bucket.list('main/large')) expect(sizeBytes).toBe(70 * MiB);
  }, 60_000);

  test('takes a view on part of a buffer for just its bytes, and is not changed by what happens to it later', async () => {
    const bucket = open();
    const whole = Buffer.from('before|the body|after');
    await bucket.putOnce('main/view', new Uint8Array(whole.buffer, whole.byteOffset + 7, 8));
    whole.fill(0);
    expect(await bucket.get('main/view')).toEqual(Buffer.from('the body'));
  });

  test('gives facts back as they were put, up to 1.5 KiB', async () => {
    const bucket = open();
    const facts = {
      sha256: 'a'.repeat(64),
      'size-bytes': '16777216',
      quoted: `say "what" \\ it's`,
      empty: '',
      long: 'x'.repeat(1300),
    };
    await bucket.putOnce('main/facts', Buffer.from('x'), facts);
    expect(await open().facts('main/facts')).toEqual(facts);
    await bucket.putOnce('main/none', Buffer.from('x'));
    expect(await bucket.facts('main/none')).toEqual({});
  });

  test.each([
    ['a name in capitals', { Node: 'db1' }],
    ['a value that is not ASCII', { node: 'dbä' }],
    ['a line feed', { node: 'db\n1' }],
    ['too much', { node: 'x'.repeat(1600) }],
  ])('refuses facts that not every store can carry: %s', async (_, facts) => {
    const bucket = open();
    await expect(bucket.putOnce('main/a', Buffer.from('x'), facts as Record<string, string>)).rejects.toThrow(
      RangeError,
    );
    expect(await bucket.get('main/a')).toBeUndefined();
  });

  test.each([
    '',
    '/',
    '/etc/passwd',
    '../x',
    'a/../../x',
    'a/./b',
    'a//b',
    'a/',
    'a\\b',
    'a b',
    'a\0b',
    'ä',
    `${'x'.repeat(256)}/a`,
  ])('refuses the key %j', async (key) => {
    const bucket = open();
    await expect(bucket.putOnce(key, Buffer.from('x'))).rejects.toMatchObject({ code: 'usage' });
    await expect(bucket.get(key)).rejects.toMatchObject({ code: 'usage' });
    await expect(bucket.facts(key)).rejects.toMatchObject({ code: 'usage' });
    await expect(bucket.delete(key)).rejects.toMatchObject({ code: 'usage' });
  });

  test('lists keys in the order of their bytes, under just the prefix, with sizes and times', async () => {
    const bucket = open();
    // '-' and '.' come before '/', '0' after it: a walk of directories by name would mix these up
    const keys = [
      'a-b/1',
      'a.b',
      'a/1',
      'a/1.x/2',
      'a/10',
      'a/2',
      'a0',
      'a=',
      'aZ',
      'a_',
      'aa/b/c/d',
      'ab',
      'b',
    ];
    for (const key of [...keys].reverse()) await bucket.putOnce(key, Buffer.from(key));
    expect(await keysOf(bucket, '')).toEqual(keys);
    expect(await keysOf(bucket, 'a/')).toEqual(['a/1', 'a/1.x/2', 'a/10', 'a/2']);
    expect(await keysOf(bucket, 'a/1')).toEqual(['a/1', 'a/1.x/2', 'a/10']);
    expect(await keysOf(bucket, 'a')).toEqual(keys.filter((key) => key.startsWith('a')));
    expect(await keysOf(bucket, 'aa/b')).toEqual(['aa/b/c/d']);
    expect(await keysOf(bucket, 'nothing/')).toEqual([]);
    for await (const { key, sizeBytes, storedAt } of bucket.list('')) {
      expect(sizeBytes).toBe(key.length);
      expect(Math.abs(storedAt.getTime() - Date.now())).toBeLessThan(120_000);
    }
  });

  test('lists every page of 1,050 keys, none twice', async () => {
    const bucket = open();
    const keys = Array.from({ length: 1050 }, (_, index) => `main/wal/${String(index).padStart(5, '0')}`);
    for (let at = 0; at < keys.length; at += 50) {
      await Promise.all(keys.slice(at, at + 50).map((key) => bucket.putOnce(key, Buffer.from('x'))));
    }
    await bucket.putOnce('main/xyz', Buffer.from('x'));
    expect(await keysOf(bucket, 'main/wal/')).toEqual(keys);
  }, 120_000);

  test('deletes, also what is not there; the key is free again', async () => {
    const bucket = open();
    await bucket.putOnce('main/a/b', Buffer.from('one'));
    await bucket.delete('main/a/b');
    await bucket.delete('main/a/b');
    expect(await bucket.get('main/a/b')).toBeUndefined();
    expect(await keysOf(bucket, '')).toEqual([]);
    expect(await bucket.putOnce('main/a/b', Buffer.from('two'))).toBe('stored');
  });

  if (backend.name.startsWith('s3')) {
    describe('over a network', () => {
      test('an answer that is lost after the put is looked up: the put succeeds', async () => {
        const proxy = await startProxy(place.port!, 'cut-answer');
        proxy.faultsLeft = 1;
        try {
          const answer = await open({ port: proxy.port, timeoutMs: 5000 }).putOnce(
            'main/lost',
            Buffer.from('x'.repeat(5000)),
          );
          expect(proxy.faults).toBe(1);
          expect(['stored', 'same']).toContain(answer);
          expect(await open().get('main/lost')).toHaveLength(5000);
        } finally {
          await proxy.close();
        }
      });

      test.each(['refuse', 'hang', 'trickle', 'cut-answer', 'truncate'] as const)(
        'a store that would %s costs the time limit, not more, and is then used again',
        async (mode) => {
          await open().putOnce('main/there', randomBytes(3 * MiB));
          const proxy = await startProxy(place.port!, 'pass');
          proxy.cutAfterBytes = 100; // within the header of the shortest answer
          try {
            const bucket = open({ port: proxy.port, timeoutMs: 1500 });
            await bucket.get('main/nothing');
            proxy.mode = mode;
            for (const work of [
              () => bucket.get('main/there'),
              () => bucket.facts('main/there'),
              () => bucket.putOnce('main/new', Buffer.from('new')),
              () => bucket.delete('main/gone'),
              () => keysOf(bucket, ''),
            ]) {
              const started = performance.now();
              await expect(work()).rejects.toMatchObject({ code: 'unreachable' });
              expect(performance.now() - started).toBeLessThan(5000);
            }
            proxy.mode = 'pass';
            expect(await bucket.get('main/there')).toHaveLength(3 * MiB);
            expect(['stored', 'same']).toContain(await bucket.putOnce('main/new', Buffer.from('new')));
          } finally {
            await proxy.close();
          }
        },
        60_000,
      );

      test('a connection that breaks in the middle of an object is made again', async () => {
        const body = randomBytes(3 * MiB);
        await open().putOnce('main/there', body);
        const proxy = await startProxy(place.port!, 'truncate');
        proxy.cutAfterBytes = MiB;
        proxy.faultsLeft = 1;
        try {
          expect((await open({ port: proxy.port }).get('main/there'))?.equals(body)).toBe(true);
          expect(proxy.faults).toBe(1);
        } finally {
          await proxy.close();
        }
      });
    });
  }
});
