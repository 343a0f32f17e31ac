/**
 * What PostgreSQL does around a restore_command that waits in archive recovery: facts that wait mode (core/work/wait-restore.ts) rests
 * on. A version that fails here wants it looked at again, not this test changed.
 * Source: PostgreSQL docs, "Write Ahead Log: Archive Recovery", restore_command, recovery_end_command.
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { writeFileSync } from 'node:fs';
import { FactsSite, linesOf, majors, type ScriptedServer } from './facts-servers.ts';

describe.each(majors)('a restore_command that waits, PostgreSQL %i', (major) => {
  const site = new FactsSite(major);
  const segment = (n: number) => site.segments[n - 1]!;
  beforeAll(() => site.open());
  afterEach(() => site.stopCopies());
  afterAll(() => site.close());

  const waits = (server: ScriptedServer, then = 'exit 1') =>
    server.answer(segment(5), `until [ -e '${server.pgdata}.go' ]; do sleep 0.05; done; ${then}`);
  const goOn = (server: ScriptedServer) => writeFileSync(`${server.pgdata}.go`, '');

  test('with recovery_prefetch off all that was restored is applied meanwhile', async () => {
    const server = await site.copy('recovery.signal', { settings: { recovery_prefetch: 'off' } });
    waits(server);
    await server.start();
    await server.holdsRows(4);
    expect(await server.isInRecovery()).toBe(true);
    goOn(server);
    await server.opened();
  });

  test('with hot_standby off the start returns at once, and nobody is let in', async () => {
    const server = await site.copy('recovery.signal', {
      settings: { recovery_prefetch: 'off', hot_standby: 'off' },
    });
    waits(server);
    await server.start();
    await expect(server.query('SELECT 1')).rejects.toThrow(
      /not accepting connections|not yet accepting|starting up/,
    );
    goOn(server);
    await server.opened();
    expect(await server.rows()).toEqual([0, 1, 2, 3, 4]);
  });

  test('a fast stop does not wait for it, and leaves recovery.signal', async () => {
    const server = await site.copy('recovery.signal', { settings: { recovery_prefetch: 'off' } });
    waits(server);
    await server.start();
    await server.holdsRows(4);
    await server.stop('fast'); // the command waits for ever: a stop that waited for it would fail
    expect(server.has('recovery.signal')).toBe(true);
    expect(server.controlFile().timeline).toBe(1);
  });

  test('exit 143 reads as SIGTERM: the server goes down, and its log names no failed restore', async () => {
    const server = await site.copy('recovery.signal', { settings: { recovery_prefetch: 'off' } });
    waits(server, 'exit 143');
    await server.start();
    await server.holdsRows(4);
    goOn(server);
    await server.ended(20_000);
    expect(server.log()).not.toMatch(/could not restore file/);
    expect(server.has('recovery.signal')).toBe(true);
  });

  test('it is asked for the history of the parent when recovery.signal is gone already', async () => {
    const server = await site.copy('recovery.signal');
    server.answer('00000001.history', `[ -e recovery.signal ] || echo gone >> '${server.pgdata}.gone'`);
    await server.start();
    await server.opened();
    expect(linesOf(`${server.pgdata}.gone`)).toEqual(['gone']);
  });

  test('its end is a checkpoint on the new timeline, before recovery_end_command: stopped there it has written nothing, and belongs to that timeline', async () => {
    const server = await site.copy('recovery.signal', { settings: { recovery_prefetch: 'off' } });
    server.configure({ recovery_end_command: 'touch recovery.signal; exit 200' });
    await server.startAndEnd();
    expect(server.controlFile()).toEqual({ state: 1, timeline: 2 }); // after a promotion of a standby: 5 and 1
    server.answer('00000002.history', `printf '' > "$2"; exit 0`);
    server.answer('00000003.history', `printf '1\t0/100000\telsewhere\n' > "$2"; exit 0`);
    await server.startAndEnd();
    // where another took the WAL over before that checkpoint it can follow no more, and says so by going down
    expect(server.log()).toMatch(/PANIC: +could not locate a valid checkpoint record/);
    expect(server.handed()).toEqual([]);
  });
});
