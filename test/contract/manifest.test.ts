/**
 * What every manifest keeps to (core/vault/manifest.ts): memory and file in `npm test`, DynamoDB by two real servers with
 * WALVAULT_TEST_AWS=1.
 */
import type { Manifest, Outcome, Row } from '../../core/vault/manifest.ts';
import { after } from '../../core/vault/manifest.ts';
import { manifests, type Place } from '../harness/manifests.ts';
import { startProxy } from '../harness/proxy.ts';
import { settlesWithin } from '../harness/scratch.ts';

const pk = 'main/7301';

async function rowsOf(rows: AsyncIterable<Row>): Promise<Row[]> {
  const found: Row[] = [];
  for await (const row of rows) found.push(row);
  return found;
}

const put = (row: Row, when: 'absent' | 'present' | 'any' | { rev: number } = 'absent') =>
  ({ do: 'put', row, when }) as const;

/** Adds one to the row's counter, as often as it takes. */
async function addOne(manifest: Manifest, sk: string): Promise<number> {
  for (let attempts = 1; ; attempts += 1) {
    const row = (await manifest.get({ pk, sk }))!;
    const outcome = await manifest.transact([
      put({ ...row, rev: row.rev + 1, count: (row['count'] as number) + 1 }, { rev: row.rev }),
    ]);
    if (outcome.done) return attempts;
  }
}

describe.each(manifests)('Manifest contract: $name', (backend) => {
  let place: Place;
  const opened: Manifest[] = [];
  const open = async (options: { timeoutMs?: number; port?: number } = {}) => {
    const manifest = await place.open(options);
    opened.push(manifest);
    return manifest;
  };

  beforeAll(() => backend.start(), 700_000);
  afterAll(() => backend.stop(), 30_000);
  beforeEach(async () => {
    place = await backend.make();
  }, 30_000);
  afterEach(async () => {
    for (const manifest of opened.splice(0)) await manifest.close();
    await place.remove();
  });

  test('gives a row back as it was put, nested and with every kind of JSON, to another connection too', async () => {
    const row: Row = {
      pk,
      sk: 'head',
      rev: 1,
      epoch: 4294967295,
      half: 0.5,
      big: Number.MAX_SAFE_INTEGER,
      negative: -1,
      text: 'Zeile 1\n"zwei" \u{1F418} ä \\',
      empty: '',
      yes: true,
      no: false,
      nothing: null,
      list: [1, 'a', null, [true, {}], { deep: [] }],
      nested: { a: { b: { c: null, rev: 7, '#': 'x', 'size bytes': 1 } } },
      rows: {},
    };
    expect(await (await open()).transact([put(row)])).toEqual({ done: true });
    expect(await (await open()).get({ pk, sk: 'head' })).toEqual(row);
    expect(await rowsOf((await open()).query({ pk }))).toEqual([row]);
  });

  test('leaves members out that are undefined', async () => {
    const manifest = await open();
    await manifest.transact([put({ pk, sk: 'head', rev: 1, a: undefined, b: { c: undefined, d: 1 } })]);
    expect(Object.keys((await manifest.get({ pk, sk: 'head' }))!).sort()).toEqual(['b', 'pk', 'rev', 'sk']);
    expect((await manifest.get({ pk, sk: 'head' }))!['b']).toEqual({ d: 1 });
  });

  test('says that a row is absent, and does not fail', async () => {
    expect(await (await open()).get({ pk, sk: 'head' })).toBeUndefined();
    expect(await rowsOf((await open()).query({ pk }))).toEqual([]);
  });

  test('never shares an object with the caller', async () => {
    const manifest = await open();
    const row: Row = { pk, sk: 'head', rev: 1, list: [1] };
    await manifest.transact([put(row)]);
    (row['list'] as number[]).push(2);
    ((await manifest.get({ pk, sk: 'head' }))!['list'] as number[]).push(3);
    expect((await manifest.get({ pk, sk: 'head' }))!['list']).toEqual([1]);
  });

  test('conditions hold or refuse, for put, check and delete', async () => {
    const manifest = await open();
    const there: Row = { pk, sk: 'there', rev: 3, text: 'x' };
    await manifest.transact([put(there)]);
    const key = { pk, sk: 'there' };
    const gone = { pk, sk: 'gone' };
    const refusedOn = (row: Row | undefined) => ({ done: false, failed: [{ index: 0, row }] });

    expect(await manifest.transact([{ do: 'check', key, when: 'present' }])).toEqual({ done: true });
    expect(await manifest.transact([{ do: 'check', key, when: { rev: 3 } }])).toEqual({ done: true });
    expect(await manifest.transact([{ do: 'check', key, when: 'any' }])).toEqual({ done: true });
    expect(await manifest.transact([{ do: 'check', key: gone, when: 'absent' }])).toEqual({ done: true });
    expect(await manifest.transact([{ do: 'check', key, when: { rev: 2 } }])).toEqual(refusedOn(there));
    expect(await manifest.transact([{ do: 'check', key, when: 'absent' }])).toEqual(refusedOn(there));
    expect(await manifest.transact([{ do: 'check', key: gone, when: 'present' }])).toEqual(
      refusedOn(undefined),
    );
    expect(await manifest.transact([{ do: 'check', key: gone, when: { rev: 1 } }])).toEqual(
      refusedOn(undefined),
    );

    expect(await manifest.transact([put({ ...there, rev: 4 }, 'absent')])).toEqual(refusedOn(there));
    expect(await manifest.transact([put({ ...there, rev: 4 }, { rev: 4 })])).toEqual(refusedOn(there));
    expect(await manifest.transact([put({ ...gone, rev: 1 }, 'present')])).toEqual(refusedOn(undefined));
    expect(await manifest.transact([put({ ...gone, rev: 1 }, { rev: 1 })])).toEqual(refusedOn(undefined));
    expect(await manifest.transact([{ do: 'delete', key, when: { rev: 1 } }])).toEqual(refusedOn(there));
    expect(await manifest.transact([{ do: 'delete', key: gone, when: 'present' }])).toEqual(
      refusedOn(undefined),
    );
    expect(await manifest.get(key)).toEqual(there);
    expect(await manifest.get(gone)).toBeUndefined();

    expect(await manifest.transact([put({ ...there, rev: 4, text: 'y' }, { rev: 3 })])).toEqual({
      done: true,
    });
    expect(await manifest.get(key)).toEqual({ ...there, rev: 4, text: 'y' });
    expect(await manifest.transact([put({ ...key, rev: 9 }, 'any')])).toEqual({ done: true });
    expect(await manifest.get(key)).toEqual({ ...key, rev: 9 });
    expect(await manifest.transact([{ do: 'delete', key: gone, when: 'any' }])).toEqual({ done: true });
    expect(await manifest.transact([{ do: 'delete', key, when: { rev: 9 } }])).toEqual({ done: true });
    expect(await manifest.get(key)).toBeUndefined();
    expect(await manifest.transact([])).toEqual({ done: true });
  });

  test('a refusal names each condition that failed by its index, with the row as it stands, and changes nothing', async () => {
    const manifest = await open();
    const control: Row = { pk: 'main', sk: 'control', rev: 7, epoch: 2, primary: 'db2' };
    const head: Row = { pk, sk: 'head', rev: 5, lsn: '0/3000000' };
    await manifest.transact([put(control), put(head)]);
    const outcome = await manifest.transact([
      { do: 'check', key: { pk: 'main', sk: 'nothing' }, when: 'any' },
      { do: 'check', key: { pk: 'main', sk: 'control' }, when: { rev: 6 } },
      put({ pk, sk: 'wal#1', rev: 1 }),
      put({ ...head, rev: 6, lsn: '0/4000000' }, { rev: 5 }),
      { do: 'delete', key: { pk, sk: 'node#db1' }, when: 'present' },
    ]);
    expect(outcome).toEqual({
      done: false,
      failed: [
        { index: 1, row: control },
        { index: 4, row: undefined },
      ],
    });
    expect(await manifest.get({ pk, sk: 'head' })).toEqual(head);
    expect(await manifest.get({ pk, sk: 'wal#1' })).toBeUndefined();
  });

  test('takes 100 changes in one transaction, all or none; refuses 101, and one row twice', async () => {
    const manifest = await open();
    const rows = Array.from({ length: 101 }, (_, index): Row => ({
      pk,
      sk: `wal#${String(index).padStart(3, '0')}`,
      rev: 1,
    }));
    await expect(manifest.transact(rows.map((row) => put(row)))).rejects.toThrow(RangeError);
    await expect(manifest.transact([put(rows[0]!), put(rows[0]!)])).rejects.toThrow(RangeError);
    await expect(
      manifest.transact([put({ pk, sk: 'big', rev: 1, text: 'x'.repeat(400_000) })]),
    ).rejects.toThrow(RangeError);
    expect(await rowsOf(manifest.query({ pk }))).toEqual([]);
    await manifest.transact([put(rows[57]!)]);
    const refused = await manifest.transact(rows.slice(0, 100).map((row) => put(row)));
    expect(refused).toEqual({ done: false, failed: [{ index: 57, row: rows[57] }] });
    expect(await rowsOf(manifest.query({ pk }))).toHaveLength(1);
    await manifest.transact([{ do: 'delete', key: rows[57]!, when: 'present' }]);
    expect(await manifest.transact(rows.slice(0, 100).map((row) => put(row)))).toEqual({ done: true });
    expect(await rowsOf(manifest.query({ pk }))).toEqual(rows.slice(0, 100));
  }, 30_000);

  test('answers a range in the order of bytes, ascending or descending, from, to and limit kept', async () => {
    const manifest = await open();
    const names = [
      'control',
      'event#1',
      'wal#00000001',
      'wal#0000000A',
      'wal#0000000a',
      'wal#ä',
      'wal#\u{1F418}',
      'wal$',
      'wam',
      'x',
    ];
    await manifest.transact(names.map((sk) => put({ pk, sk, rev: 1 })));
    await manifest.transact([put({ pk: 'main', sk: 'wal#00000001', rev: 1 })]);
    const ask = async (range: { from?: string; to?: string; descending?: boolean; limit?: number }) =>
      (await rowsOf(manifest.query({ pk, ...range }))).map(({ sk }) => sk);
    const wal = { from: 'wal#', to: after('wal#') };
    expect(await ask({})).toEqual(names);
    expect(await ask({ descending: true })).toEqual([...names].reverse());
    expect(await ask(wal)).toEqual(names.slice(2, 7));
    expect(await ask({ ...wal, descending: true })).toEqual(names.slice(2, 7).reverse());
    expect(await ask({ ...wal, limit: 2 })).toEqual(names.slice(2, 4));
    expect(await ask({ ...wal, limit: 1, descending: true })).toEqual(['wal#\u{1F418}']);
    expect(await ask({ from: 'wal#0000000A' })).toEqual(names.slice(3));
    expect(await ask({ to: 'wal#0000000A' })).toEqual(names.slice(0, 3));
    expect(await ask({ from: 'wal#0000000A', to: 'wal#0000000A' })).toEqual([]);
    expect(await ask({ from: 'x', to: 'a' })).toEqual([]);
    expect(await ask({ limit: 0 })).toEqual([]);
    expect(await ask({ limit: 100 })).toEqual(names);
  });

  test('answers a range over many pages, none twice, in both directions', async () => {
    const manifest = await open();
    const text = 'x'.repeat(30_000); // 110 of them are 3 MB; a page of DynamoDB ends at 1 MB
    const names = Array.from({ length: 310 }, (_, index) => `wal#${String(index).padStart(5, '0')}`);
    for (let at = 0; at < names.length; at += 100) {
      const rows = names
        .slice(at, at + 100)
        .map((sk, index): Row => ({ pk, sk, rev: 1, ...(index < 40 ? { text } : {}) }));
      await manifest.transact(rows.map((row) => put(row)));
    }
    const range = { pk, from: 'wal#', to: after('wal#') };
    expect((await rowsOf(manifest.query(range))).map(({ sk }) => sk)).toEqual(names);
    const backward = (await rowsOf(manifest.query({ ...range, descending: true }))).map(({ sk }) => sk);
    expect(backward).toEqual([...names].reverse());
    expect(await rowsOf(manifest.query({ ...range, limit: 250 }))).toHaveLength(250);
    let seen = 0;
    for await (const row of manifest.query(range)) {
      seen += 1;
      if (row.sk === names[2]) break; // who leaves early leaves nothing open
    }
    expect(seen).toBe(3);
  }, 60_000);

  test('of 16 first writers of one row at once just one wins, and the others see its row', async () => {
    const writers = await Promise.all(Array.from({ length: 16 }, () => open()));
    const outcomes: Outcome[] = await Promise.all(
      writers.map((manifest, writer) => manifest.transact([put({ pk, sk: 'race', rev: 1, writer })])),
    );
    const winners = outcomes.flatMap((outcome, writer) => (outcome.done ? [writer] : []));
    expect(winners).toHaveLength(1);
    for (const outcome of outcomes) {
      if (!outcome.done)
        expect(outcome.failed).toEqual([{ index: 0, row: { pk, sk: 'race', rev: 1, writer: winners[0] } }]);
    }
  }, 30_000);

  test('8 connections that each add one 10 times come to 80', async () => {
    const connections = await Promise.all(Array.from({ length: 8 }, () => open({ timeoutMs: 30_000 })));
    await connections[0]!.transact([put({ pk, sk: 'counter', rev: 1, count: 0 })]);
    await Promise.all(
      connections.map(async (manifest) => {
        for (let done = 0; done < 10; done += 1) await addOne(manifest, 'counter');
      }),
    );
    expect(await open().then((manifest) => manifest.get({ pk, sk: 'counter' }))).toEqual({
      pk,
      sk: 'counter',
      rev: 81,
      count: 80,
    });
  }, 120_000);

  test('a transaction over three rows is never seen half, nor kept half, by those that race with it', async () => {
    const connections = await Promise.all(Array.from({ length: 4 }, () => open({ timeoutMs: 30_000 })));
    const names = ['a', 'b', 'c'];
    const key = (sk: string) => ({ pk, sk });
    await connections[0]!.transact(names.map((sk) => put({ pk, sk, rev: 1, by: -1 })));
    let torn = 0;
    await Promise.all(
      connections.map(async (manifest, writer) => {
        for (let round = 0; round < 15; round += 1) {
          const first = (await manifest.get(key('a')))!;
          const outcome = await manifest.transact(
            names.map((sk) => put({ pk, sk, rev: first.rev + 1, by: writer }, { rev: first.rev })),
          );
          // all three carry one revision at each moment, so a refusal that returns different ones has seen a half
          if (!outcome.done && new Set(outcome.failed.map(({ row }) => row?.rev)).size > 1) torn += 1;
          if (!outcome.done && outcome.failed.length !== 3) torn += 1;
        }
      }),
    );
    expect(torn).toBe(0);
    const rows = await Promise.all(names.map((sk) => connections[0]!.get(key(sk))));
    expect(new Set(rows.map((row) => row?.rev)).size).toBe(1);
    expect(new Set(rows.map((row) => row?.['by'])).size).toBe(1);
  }, 120_000);

  test('a check and a put in one transaction: no put is kept on an epoch that a check had already lost', async () => {
    const [primary, operator] = [await open({ timeoutMs: 30_000 }), await open({ timeoutMs: 30_000 })];
    const control = { pk: 'main', sk: 'control' };
    await operator.transact([put({ ...control, rev: 1, seen: 0 })]);
    const commits: number[] = [];
    let isOver = false;
    const writing = (async () => {
      for (let number = 0; !isOver; number += 1) {
        const outcome = await primary.transact([
          { do: 'check', key: control, when: { rev: 1 } },
          put({ pk, sk: `wal#${String(number).padStart(5, '0')}`, rev: 1 }),
        ]);
        if (!outcome.done) return;
        commits.push(number);
      }
    })();
    while (commits.length < 3) await operator.get(control);
    while (!(await operator.transact([put({ ...control, rev: 2 }, { rev: 1 })])).done);
    const atFence = await rowsOf(operator.query({ pk }));
    isOver = true;
    await writing;
    // what was committed was committed before the fence, and all that was answered "done" is there
    expect(await rowsOf(operator.query({ pk }))).toEqual(atFence);
    expect(atFence).toHaveLength(commits.length);
  }, 60_000);

  if (backend.name.startsWith('DynamoDB')) {
    describe('over a network', () => {
      test('an answer that is lost after the commit is asked for again: done, and done once', async () => {
        const proxy = await startProxy(place.port!, 'pass');
        try {
          const manifest = await open({ port: proxy.port, timeoutMs: 5000 });
          await manifest.transact([put({ pk, sk: 'counter', rev: 1, count: 0 })]);
          proxy.mode = 'cut-answer';
          proxy.faultsLeft = 1;
          const outcome = await manifest.transact([
            put({ pk, sk: 'counter', rev: 2, count: 1 }, { rev: 1 }),
            put({ pk, sk: 'wal#1', rev: 1, nested: { a: [1, null] } }),
          ]);
          expect(outcome).toEqual({ done: true });
          expect(proxy.faults).toBe(1);
          expect(await manifest.get({ pk, sk: 'counter' })).toEqual({ pk, sk: 'counter', rev: 2, count: 1 });
        } finally {
          await proxy.close();
        }
      });

      test('an answer that stays lost is said to be unknown, though the commit happened', async () => {
        const proxy = await startProxy(place.port!, 'cut-answer');
        try {
          const manifest = await open({ port: proxy.port, timeoutMs: 1000 });
          await expect(manifest.transact([put({ pk, sk: 'lost', rev: 1 })])).rejects.toMatchObject({
            code: 'unreachable',
          });
          expect(await (await open()).get({ pk, sk: 'lost' })).toEqual({ pk, sk: 'lost', rev: 1 });
        } finally {
          await proxy.close();
        }
      });

      test.each(['refuse', 'hang', 'trickle', 'cut-answer', 'truncate'] as const)(
        'a table that would %s costs the time limit, not more, and is then used again',
        async (mode) => {
          const proxy = await startProxy(place.port!, 'pass');
          proxy.cutAfterBytes = 20;
          try {
            const manifest = await open({ port: proxy.port, timeoutMs: 1500 });
            await manifest.transact([put({ pk, sk: 'head', rev: 1 })]);
            proxy.mode = mode;
            for (const work of [
              () => manifest.get({ pk, sk: 'head' }),
              () => rowsOf(manifest.query({ pk })),
              () => manifest.transact([put({ pk, sk: 'other', rev: 1 }, 'any')]),
            ]) {
              const ended = work();
              expect(await settlesWithin(1900, ended)).toBe(true);
              await expect(ended).rejects.toMatchObject({ code: 'unreachable' });
            }
            proxy.mode = 'pass';
            expect(await manifest.get({ pk, sk: 'head' })).toEqual({ pk, sk: 'head', rev: 1 });
          } finally {
            await proxy.close();
          }
        },
        30_000,
      );

      test('a connection that died unnoticed is replaced within the time limit', async () => {
        const proxy = await startProxy(place.port!, 'pass');
        try {
          const manifest = await open({ port: proxy.port, timeoutMs: 3000 });
          await manifest.transact([put({ pk, sk: 'head', rev: 1 })]);
          proxy.mode = 'hang';
          proxy.faultsLeft = 1;
          expect(await manifest.get({ pk, sk: 'head' })).toMatchObject({ rev: 1 });
          proxy.mode = 'hang';
          proxy.faultsLeft = 1;
          expect(await manifest.transact([put({ pk, sk: 'head', rev: 2 }, { rev: 1 })])).toEqual({
            done: true,
          });
        } finally {
          await proxy.close();
        }
      });
    });
  }
});
