/**
 * What every bucket keeps to (core/vault/bucket.ts): memory and file in `npm test`, s3 by a real server with WALVAULT_TEST_AWS=1.
 */
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { randomBytes } from 'node:crypto';
import type { Bucket, StoredObject } from '../../core/vault/bucket.ts';
import { openVault } from '../../core/vault/open-vault.ts';
import { buckets, makeBucket, type Place } from '../harness/buckets.ts';
import { startMinistack } from '../harness/emulators.ts';
import { startProxy } from '../harness/proxy.ts';
import { settlesWithin } from '../harness/scratch.ts';

const MiB = 1024 * 1024;

async function keysOf(bucket: Bucket, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of bucket.list(prefix)) keys.push(key);
  return keys;
}

/** As a relay does it: by the store where it can, else through this machine. */
async function carry(from: Bucket, fromKey: string, to: Bucket, key: string) {
  const answer = await to.copyFrom({ bucket: from, key: fromKey }, key);
  if (answer !== undefined) return answer;
  const [body, facts] = [await from.get(fromKey), await from.facts(fromKey)];
  return body === undefined ? 'absent' : await to.putOnce(key, body, facts);
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

  describe('a copy from another bucket', () => {
    let second: Place;
    let from: Bucket, to: Bucket;
    beforeEach(async () => {
      second = await backend.make('eu-west-1');
      from = open();
      to = second.open();
    });
    afterEach(async () => {
      await to.close();
      await second.remove();
    });

    test('is made by the store where it can, and has body and facts of the source either way', async () => {
      const body = randomBytes(3 * MiB);
      await from.putOnce('main/73/a-1', body, { node: 'db1', 'size-bytes': '1' });
      const answer = await to.copyFrom({ bucket: from, key: 'main/73/a-1' }, 'main/90/a-2');
      expect(answer).toBe(backend.name.startsWith('s3') ? 'stored' : undefined);
      expect(await carry(from, 'main/73/a-1', to, 'main/90/a-2')).toBe(
        answer === undefined ? 'stored' : 'same',
      );
      expect(await carry(from, 'main/73/a-1', to, 'main/90/a-2')).toBe('same');
      expect((await to.get('main/90/a-2'))?.equals(body)).toBe(true);
      expect(await to.facts('main/90/a-2')).toEqual({ node: 'db1', 'size-bytes': '1' });
      expect(await keysOf(from, '')).toEqual(['main/73/a-1']);
      expect(await keysOf(to, '')).toEqual(['main/90/a-2']);
    });

    test('of nothing is nothing: the source is absent', async () => {
      expect(await carry(from, 'main/nothing', to, 'main/a')).toBe('absent');
      expect(await keysOf(to, '')).toEqual([]);
    });

    test('never takes the place of other bytes; the same with other facts are left as they are', async () => {
      await from.putOnce('main/a', Buffer.from('source'), { node: 'db1' });
      await to.putOnce('main/a', Buffer.from('others'), { node: 'db2' });
      await to.putOnce('main/b', Buffer.from('source'), { node: 'db2' });
      await expect(carry(from, 'main/a', to, 'main/a')).rejects.toMatchObject({
        name: 'VaultError',
        code: 'conflict',
      });
      expect(await to.get('main/a')).toEqual(Buffer.from('others'));
      expect(await carry(from, 'main/a', to, 'main/b')).toBe('same');
      expect(await to.facts('main/b')).toEqual({ node: 'db2' });
    });

    test('of zero bytes, and under a key of every allowed character', async () => {
      const key = `main/!"#$%&'()*+,-.:;<=>?@[]^_\`{|}~/%2F+`;
      await from.putOnce(key, Buffer.alloc(0), { empty: '' });
      expect(await carry(from, key, to, key)).toBe('stored');
      expect(await to.get(key)).toEqual(Buffer.alloc(0));
      expect(await to.facts(key)).toEqual({ empty: '' });
    });

    test('within one bucket is a copy like any other', async () => {
      await from.putOnce('main/a', Buffer.from('bytes'));
      expect(await carry(from, 'main/a', from, 'main/b')).toBe('stored');
      expect(await from.get('main/b')).toEqual(Buffer.from('bytes'));
    });

    test('eight at once make one object, and each hears that it is there', async () => {
      const body = randomBytes(MiB);
      await from.putOnce('main/a', body);
      const answers = await Promise.all(Array.from({ length: 8 }, () => carry(from, 'main/a', to, 'main/a')));
      for (const answer of answers) expect(['stored', 'same']).toContain(answer);
      expect((await to.get('main/a'))?.equals(body)).toBe(true);
    });

    test('is refused under a key that cannot be one', async () => {
      await from.putOnce('main/a', Buffer.from('x'));
      await expect(to.copyFrom({ bucket: from, key: 'main/a' }, '../a')).rejects.toMatchObject({
        code: 'usage',
      });
    });

    if (!backend.name.startsWith('s3')) return;

    /** `from`, with the source told otherwise than it is. */
    const tells = (changes: Partial<StoredObject>): Bucket => ({
      ...from,
      store: async () => {
        const store = (await from.store!())!;
        return {
          ...store,
          find: async (key) => {
            const found = await store.find(key);
            return found && { ...found, ...changes };
          },
        };
      },
    });

    test('is made between two vaults opened by their URLs', async () => {
      const [a, b] = [await openVault(place.url!), await openVault(second.url!)];
      try {
        await a.bucket.putOnce('main/a', Buffer.from('bytes'), { node: 'db1' });
        expect(await b.bucket.copyFrom({ bucket: a.bucket, key: 'main/a' }, 'main/b')).toBe('stored');
        expect(await b.bucket.get('main/b')).toEqual(Buffer.from('bytes'));
      } finally {
        await a.close();
        await b.close();
      }
    });

    test('of 70 MiB brings none of them here, and two endpoints may lead to one store', async () => {
      const [left, right] = [
        await startProxy(place.port!, 'truncate'),
        await startProxy(second.port!, 'truncate'),
      ];
      left.cutAfterBytes = right.cutAfterBytes = 64 * 1024;
      const [a, b] = [open({ port: left.port }), second.open({ port: right.port })];
      try {
        const body = randomBytes(70 * MiB);
        await from.putOnce('main/large', body);
        expect(await b.copyFrom({ bucket: a, key: 'main/large' }, 'main/large')).toBe('stored');
        expect((await to.get('main/large'))?.equals(body)).toBe(true);
      } finally {
        await b.close();
        await Promise.all([left.close(), right.close()]);
      }
    }, 60_000);

    test('is not asked of a store that has no part in the source: the bytes then go through this machine', async () => {
      const elsewhere = await startMinistack();
      const stranger = open({ port: elsewhere.port });
      try {
        await makeBucket(elsewhere.endpoint, place.bucket);
        await stranger.putOnce('main/only-there', Buffer.from('bytes'));
        // the same name with other bytes here: it must not be taken for the source
        await stranger.putOnce('main/both', Buffer.from('there'));
        await from.putOnce('main/both', Buffer.from('here!'));
        expect(await to.copyFrom({ bucket: stranger, key: 'main/only-there' }, 'main/a')).toBeUndefined();
        expect(await carry(stranger, 'main/only-there', to, 'main/a')).toBe('stored');
        const fresh = second.open();
        expect(await fresh.copyFrom({ bucket: stranger, key: 'main/both' }, 'main/b')).toBeUndefined();
        expect(await carry(stranger, 'main/both', fresh, 'main/b')).toBe('stored');
        expect(await fresh.get('main/b')).toEqual(Buffer.from('there'));
        await fresh.close();
      } finally {
        await elsewhere.stop();
      }
    });

    test('of an object that is not whole is refused', async () => {
      const client = new S3Client({
        endpoint: `http://127.0.0.1:${place.port}`,
        region: 'us-east-1',
        forcePathStyle: true,
      });
      const Key = 'a/prefix/main/broken';
      await client.send(new PutObjectCommand({ Bucket: place.bucket, Key, Body: Buffer.alloc(4096) }));
      client.destroy();
      await expect(carry(from, 'main/broken', to, 'main/a')).rejects.toMatchObject({ code: 'corrupt' });
      expect(await keysOf(to, '')).toEqual([]);
    });

    test.each([
      ['frame', { beginning: Buffer.alloc(2048) }],
      ['size', { storedBytes: 4711 }],
      ['checksum', { sha256: Buffer.alloc(32).toString('base64') }],
    ])('that is not its source by its %s is said to be corrupt', async (_, changes) => {
      await from.putOnce('main/a', Buffer.from('bytes'));
      await expect(carry(tells(changes), 'main/a', to, 'main/a')).rejects.toMatchObject({ code: 'corrupt' });
    });

    test('of more than 5 GB is not asked for, that of a smaller object is', async () => {
      await from.putOnce('main/a', Buffer.from('bytes'));
      const source = { bucket: tells({ storedBytes: 5 * 1024 ** 3 + 1 }), key: 'main/a' };
      expect(await to.copyFrom(source, 'main/a')).toBeUndefined();
      expect(await to.copyFrom({ bucket: from, key: 'main/a' }, 'main/a')).toBe('stored');
    });

    test('whose answer is lost is looked up: it succeeds', async () => {
      await from.putOnce('main/a', Buffer.from('bytes'));
      const proxy = await startProxy(second.port!, 'cut-answer');
      proxy.passFirst = 1; // the look at the key
      proxy.faultsLeft = 1;
      const bucket = second.open({ port: proxy.port });
      try {
        const answer = await bucket.copyFrom({ bucket: from, key: 'main/a' }, 'main/a');
        expect(proxy.faults).toBe(1);
        expect(['stored', 'same']).toContain(answer);
        expect(await to.get('main/a')).toEqual(Buffer.from('bytes'));
      } finally {
        await bucket.close();
        await proxy.close();
      }
    });

    test.each(['refuse', 'hang'] as const)(
      'from or to a store that would %s costs the time limit, not more',
      async (mode) => {
        await from.putOnce('main/a', Buffer.from('bytes'));
        const proxy = await startProxy(place.port!, mode);
        const away = {
          from: open({ port: proxy.port, timeoutMs: 1500 }),
          to: second.open({ port: proxy.port, timeoutMs: 1500 }),
        };
        try {
          for (const work of [
            () => to.copyFrom({ bucket: away.from, key: 'main/a' }, 'main/a'),
            () => away.to.copyFrom({ bucket: from, key: 'main/a' }, 'main/a'),
          ]) {
            const ended = work();
            expect(await settlesWithin(5000, ended)).toBe(true);
            await expect(ended).rejects.toMatchObject({ code: 'unreachable' });
          }
          // the key is looked at, then the store falls silent in the copy itself
          proxy.mode = 'hang';
          proxy.passFirst = 1;
          await expect(away.to.copyFrom({ bucket: from, key: 'main/a' }, 'main/a')).rejects.toMatchObject({
            code: 'unreachable',
          });
          proxy.mode = 'pass';
          expect(['stored', 'same']).toContain(
            await away.to.copyFrom({ bucket: from, key: 'main/a' }, 'main/a'),
          );
        } finally {
          await away.to.close();
          await proxy.close();
        }
      },
      20_000,
    );
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
              const ended = work();
              expect(await settlesWithin(5000, ended)).toBe(true);
              await expect(ended).rejects.toMatchObject({ code: 'unreachable' });
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
