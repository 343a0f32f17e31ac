/**
 * The whole list of crash points against what a run of the suites has left (test/harness/crashes.ts): at each point a process has died by
 * SIGKILL, over vaults of each kind. A point at which no suite kills is a test that fails here; so is one that the suites name and
 * nobody comes past any more. What must hold after a death is what the suite that killed there has asserted.
 *
 * Last in a run, with WALVAULT_TEST_CRASHES as the suites had it; WALVAULT_TEST_CRASH_KINDS where the run met one kind only.
 */
import { existsSync, readFileSync } from 'node:fs';
import { CRASH_POINTS } from '../../core/work/crash-points.ts';
import { crashKinds, crashRecordOf, type CrashKind } from '../harness/crashes.ts';

const kinds = (process.env['WALVAULT_TEST_CRASH_KINDS'] ?? crashKinds.join()).split(',') as CrashKind[];

describe.each(kinds)('over %s vaults', (kind) => {
  const record = crashRecordOf(kind);
  const died = new Set(
    record !== undefined && existsSync(record) ? readFileSync(record, 'utf8').split('\n') : [],
  );

  test.each(CRASH_POINTS)('somebody died at %s', (point) => {
    expect([...died]).toContain(point);
  });
});
