/**
 * What PostgreSQL makes of restore_command's answers in archive recovery (recovery.signal): facts that core/cluster/decide-restore.ts
 * and the restore wrapper rest on. A version that fails here wants those looked at again, not this test changed.
 * Source: PostgreSQL docs, "Write Ahead Log: Archive Recovery", restore_command.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { FactsSite, majors, zeros } from './facts-servers.ts';

describe.each(majors)('archive recovery of PostgreSQL %i', (major) => {
  const site = new FactsSite(major);
  const segment = (n: number) => site.segments[n - 1]!;
  beforeAll(() => site.open());
  afterEach(() => site.stopCopies());
  afterAll(() => site.close());

  test.each([1, 125])(
    'ends where restore_command exits with %i, and opens with rows missing and no error logged',
    async (status) => {
      const server = await site.copy('recovery.signal');
      server.answer(segment(3), `exit ${status}`);
      await server.start();
      await server.opened();
      expect(await server.rows()).toEqual([0, 1, 2]);
      await server.query('INSERT INTO t VALUES (100)');
      expect(server.log(1000)).not.toMatch(/ERROR|FATAL|PANIC/);
    },
  );

  test('is stopped by restore_command exiting with 126, 127 or 200, and loses nothing: the next start goes on', async () => {
    const server = await site.copy('recovery.signal');
    for (const status of [126, 127, 200]) {
      server.answer(segment(3), `exit ${status}`);
      await server.startAndEnd();
      expect(server.log(30)).toMatch(
        new RegExp(`FATAL: +could not restore file "${segment(3)}" from archive: .*(command not|code 200)`),
      );
      expect(server.has('recovery.signal')).toBe(true);
    }
    server.serve(segment(3));
    await server.start();
    await server.opened();
    expect(await server.rows()).toEqual([0, 1, 2, 3, 4]);
  });

  test.each([
    ['zeros', () => `head -c 1048576 /dev/zero > "$2"; exit 0`],
    ['the bytes of another segment', () => `cp '${site.primary.archived}/${segment(1)}' "$2"; exit 0`],
  ])('takes %s served with exit 0 for the end of the WAL, and opens with rows missing', async (_, script) => {
    const server = await site.copy('recovery.signal');
    server.answer(segment(3), script());
    await server.start();
    await server.opened();
    expect(await server.rows()).toEqual([0, 1, 2]);
  });

  test('gives 24 zeros as the restart point (%r) at the first request and for every history file', async () => {
    const server = await site.copy('recovery.signal');
    await server.start();
    await server.opened();
    const asked = server.asked();
    const histories = asked.filter(({ name }) => name.endsWith('.history'));
    expect(histories.length).toBeGreaterThan(0);
    expect(new Set(histories.map(({ restartPoint }) => restartPoint))).toEqual(new Set([zeros]));
    expect(asked.find(({ name }) => name === segment(1))).toMatchObject({ restartPoint: zeros });
    expect(asked.find(({ name }) => name === segment(4))).toMatchObject({ restartPoint: segment(1) });
  });

  const unknownPlaceholder = async () => {
    const server = await site.copy('recovery.signal');
    server.configure({ restore_command: `sh '${server.pgdata}.restore' %f %p %r # %x` });
    return server;
  };
  if (major < 16) {
    test('lets an unknown placeholder in restore_command pass', async () => {
      const server = await unknownPlaceholder();
      await server.start();
      await server.opened();
      expect(await server.rows()).toEqual([0, 1, 2, 3, 4]);
    });
  } else {
    test('does not begin where restore_command holds an unknown placeholder', async () => {
      const server = await unknownPlaceholder();
      await expect(server.start()).rejects.toThrow(
        /FATAL: +invalid value for parameter "restore_command"[^]*unexpected placeholder "%x"/,
      );
      expect(server.asked()).toEqual([]);
    });
  }
});
