/**
 * What PostgreSQL makes of archive_command's answers: facts that the archive wrapper (0 or 1, nothing else) and the agent's look at
 * archive_status rest on. A version that fails here wants those looked at again, not this test changed.
 * Source: PostgreSQL docs, "Continuous Archiving: Setting Up WAL Archiving"; "The Cumulative Statistics System: pg_stat_archiver".
 *
 * @jest-environment ./test/harness/system-environment.cjs
 */
import { waitFor } from '../harness/scratch.ts';
import { FactsSite, fillSegment, majors } from './facts-servers.ts';

describe.each(majors)('archive_command of PostgreSQL %i', (major) => {
  const site = new FactsSite(major);
  const { primary } = site;
  let waiting: string;
  const counts = async () =>
    (
      await primary.query(
        'SELECT archived_count::int AS archived, failed_count::int AS failed FROM pg_stat_archiver',
      )
    )[0];
  beforeAll(async () => {
    await site.open();
    await primary.start();
    primary.answerArchive('exit 200');
    waiting = await fillSegment(primary, 5);
  });
  afterAll(() => site.close());

  /** The archiver begins anew (an ended one would be started again after 10 to 60 s only) and finds this answer. */
  const answerAnew = async (script: string): Promise<void> => {
    primary.answerArchive(script);
    await primary.stop('immediate');
    await primary.start();
  };

  test.each([126, 200])(
    'exit status %i ends the archiver and is not counted as a failure',
    async (status) => {
      const before = primary.log(10_000).length;
      await answerAnew(`exit ${status}`);
      await waitFor('the end of the archiver', 20_000, () =>
        primary.log(10_000).slice(before).includes(`FATAL:  archive command failed with exit code ${status}`),
      );
      expect(primary.handed().at(-1)).toBe(waiting);
      expect(await counts()).toEqual({ archived: 0, failed: 0 });
    },
  );

  test('exit status 1 is counted, the segment is tried again, and kept as .ready', async () => {
    await answerAnew('exit 1');
    await waitFor('two failures', 20_000, async () => Number((await counts())!['failed']) >= 2);
    expect(await primary.value('SELECT last_failed_wal FROM pg_stat_archiver')).toBe(waiting);
    expect(primary.has(`pg_wal/archive_status/${waiting}.ready`)).toBe(true);
  });

  test('a fast stop returns while archiving fails, and leaves the segments and their .ready files', async () => {
    primary.answerArchive('exit 1');
    const last = await fillSegment(primary, 6);
    await primary.stop('fast');
    expect(primary.controlFile().state).toBe(1);
    for (const name of [waiting, last]) {
      expect(primary.has(`pg_wal/archive_status/${name}.ready`)).toBe(true);
      expect(primary.has(`pg_wal/${name}`)).toBe(true);
    }
  });

  test('the next start hands over what was left, in order', async () => {
    primary.serve('archive');
    const before = primary.handed().length;
    await primary.start();
    await waitFor('two segments', 30_000, () => primary.handed().length >= before + 2);
    expect(primary.handed()[before]).toBe(waiting);
    expect(primary.handed().slice(before)).toEqual(primary.handed().slice(before).sort());
  });
});
