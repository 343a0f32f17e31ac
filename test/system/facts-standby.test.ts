/**
 * What a PostgreSQL standby (standby.signal) asks restore_command for, and what it makes of the answers: facts that the restore hook,
 * its wrapper and core/cluster/decide-restore.ts rest on. A version that fails here wants those looked at again, not this test changed.
 * Source: PostgreSQL docs, "Write Ahead Log: Archive Recovery", restore_command; "High Availability: Log-Shipping Standby Servers".
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { copyFileSync, mkdirSync } from 'node:fs';
import { waitFor } from '../harness/scratch.ts';
import { FactsSite, fillSegment, majors, type ScriptedServer } from './facts-servers.ts';

describe.each(majors)('a standby of PostgreSQL %i', (major) => {
  const site = new FactsSite(major);
  const segment = (n: number) => site.segments[n - 1]!;
  beforeAll(() => site.open());
  afterEach(() => site.stopCopies());
  afterAll(() => site.close());

  /** A standby with the rows 0 to 2, which asks for the third segment and gets this answer. */
  const waiting = async (answer: string): Promise<ScriptedServer> => {
    const server = await site.copy('standby.signal');
    server.answer(segment(3), answer);
    await server.start();
    await server.holdsRows(2);
    return server;
  };

  test('asks again after each exit status from 1 to 125, and goes on when the file is there', async () => {
    const server = await waiting('exit 1');
    for (const status of [1, 2, 74, 125]) {
      server.answer(segment(3), `exit ${status}`);
      await server.askedAgain(segment(3), 3);
      expect(await server.isInRecovery()).toBe(true);
      expect(await server.rows()).toEqual([0, 1, 2]);
    }
    server.serve(segment(3));
    await server.holdsRows(4);
  });

  test('asks again after zeros or a short file with exit 0, and goes on when the right bytes come', async () => {
    const server = await waiting('exit 1');
    for (const size of [1 << 20, 4096]) {
      server.answer(segment(3), `head -c ${size} /dev/zero > "$2"; exit 0`);
      await server.askedAgain(segment(3), 3);
      expect(await server.isInRecovery()).toBe(true);
    }
    server.serve(segment(3));
    await server.holdsRows(4);
  });

  test.each([126, 127, 200])(
    'is shut down by restore_command exiting with %i, and goes on at the next start',
    async (status) => {
      const server = await waiting('exit 1');
      server.answer(segment(3), `exit ${status}`);
      await server.ended(20_000);
      expect(server.log(30)).toMatch(
        new RegExp(`FATAL: +could not restore file "${segment(3)}" from archive`),
      );
      expect(server.has('standby.signal')).toBe(true);
      server.serve(segment(3));
      await server.start();
      await server.holdsRows(4);
      expect(await server.isInRecovery()).toBe(true);
    },
  );

  test('asks, when idle, for the next segment and the next history file, and for nothing else', async () => {
    const server = await site.copy('standby.signal');
    await server.start();
    await server.holdsRows(4);
    await server.askedAgain('00000002.history', 2);
    const before = server.asked().length;
    await server.askedAgain(segment(5), 5);
    const asked = server
      .asked()
      .slice(before)
      .map(({ name }) => name);
    expect([...new Set(asked)].sort()).toEqual([segment(5), '00000002.history'].sort());
  });

  describe('where timeline 2 begins with the third segment, and the third and fourth of timeline 1 lie there too', () => {
    const wal = `${site.scratch}/both timelines`;
    let newer: string[];
    const bring = (name: string) => copyFileSync(`${site.primary.archived}/${name}`, `${wal}/${name}`);

    beforeAll(async () => {
      mkdirSync(wal);
      const promoted = await waiting('exit 1');
      await promoted.promoteByHand();
      newer = [await fillSegment(promoted, 30), await fillSegment(promoted, 40)];
      await waitFor('timeline 2 is archived', 20_000, () => promoted.handed().includes(newer[1]!));
      await promoted.stop();
      for (const name of [segment(1), segment(2)]) bring(name);
      for (const name of ['00000002.history', ...newer]) {
        copyFileSync(`${promoted.archived}/${name}`, `${wal}/${name}`);
      }
    });

    test('the branch is as said', () => {
      expect(newer).toEqual([segment(3), segment(4)].map((name) => `00000002${name.slice(8)}`));
    });

    /** A third node with the rows 0 to 2, which knows of timeline 2 and finds its first segment not there. */
    const third = async (): Promise<ScriptedServer> => {
      const server = await site.copy('standby.signal', { wal });
      for (const name of [...newer, segment(3), segment(4)]) server.answer(name, 'exit 1');
      await server.start();
      await server.holdsRows(2);
      await server.askedAgain(newer[0]!, 2);
      return server;
    };

    test('a third node falls back to the segment of timeline 1, past the fork, and timeline 2 never gets to it', async () => {
      for (const name of [segment(3), segment(4)]) bring(name);
      const server = await third();
      server.serve(segment(3));
      await server.holdsRows(3);
      for (const name of newer) server.serve(name);
      await server.askedAgain(newer[1]!, 5);
      expect(await server.isInRecovery()).toBe(true);
      expect(await server.rows()).toEqual([0, 1, 2, 3]);
    });

    test('a third node follows to timeline 2 where segments of timeline 1 at or past the fork are refused', async () => {
      for (const name of [segment(3), segment(4)]) bring(name);
      const server = await third();
      await server.askedAgain(segment(3), 2);
      for (const name of newer) server.serve(name);
      await waitFor(
        'the rows of timeline 2',
        20_000,
        async () => (await server.rows()).join() === '0,1,2,30,40',
      );
    });
  });
});
